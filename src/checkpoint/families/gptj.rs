//! GPT-J (Wang and Komatsuzaki 2021): rotary positions on neighbouring pairs, MLP beside attention and
//! behind the same norm. Defaults are those of Transformers' `GPTJConfig`.

use super::layered::{Defaults, GPT2, decoder, is_unused};
use super::{ConfigFile, Family, Place};
use crate::error::Result;
use crate::model::parameter::{LayerModule, Projection};
use crate::model::position::{Rotary, RotaryScaling};
use crate::model::{ModelConfig, Module};

pub(super) const FAMILY: Family = Family {
    model_type: "gptj",
    config,
    place,
    prefix: "transformer.",
    begin_token: Some(50256),
    end_token: Some(50256),
    is_unused,
};

fn config(file: &ConfigFile) -> Result<ModelConfig> {
    file.require("rotary", true)?;
    file.require("scale_attn_weights", true)?;
    let config = decoder(
        file,
        Defaults {
            vocabulary: 50400,
            hidden: (&["n_embd", "hidden_size"], 4096),
            layers: (&["n_layer", "num_hidden_layers"], 28),
            heads: (&["n_head", "num_attention_heads"], 16),
            context: (&["n_positions", "max_position_embeddings"], 2048),
            tied_head: false,
            ..GPT2
        },
    )?;
    let Some(dims) = file.size_or_null("rotary_dim", Some(64))? else {
        return Err(file.problem("rotary_dim null is not implemented, expected a whole number"));
    };
    let rotary = Rotary { base: 10_000.0, dims, interleaved: true, scaling: RotaryScaling::None };
    Ok(ModelConfig {
        rotary_layers: vec![Some(0); config.rotary_layers.len()],
        rotaries: vec![rotary],
        parallel_residual: true,
        shared_norm: true,
        query_key_value_bias: false,
        attention_output_bias: false,
        head_bias: true,
        ..config
    })
}

fn place(_config: &ModelConfig, module: Module) -> Place {
    use LayerModule::*;
    let Module::Layer(layer, module) = module else {
        return Place::of(match module {
            Module::Embedding => "transformer.wte",
            Module::FinalNorm => "transformer.ln_f",
            Module::OutputHead => "lm_head",
            other => unreachable!("GPT-J has no {other:?}"),
        });
    };
    let part = match module {
        AttentionNorm => "ln_1",
        Query => "attn.q_proj",
        Key => "attn.k_proj",
        Value => "attn.v_proj",
        AttentionOutput => "attn.out_proj",
        Mlp(Projection::Up) => "mlp.fc_in",
        Mlp(Projection::Down) => "mlp.fc_out",
        other => unreachable!("GPT-J has no {other:?}"),
    };
    Place::of(format!("transformer.h.{layer}.{part}"))
}
