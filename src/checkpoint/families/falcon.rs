//! Falcon (Almazrouei et al. 2023): MLP beside attention, query heads that share one key/value head or
//! a few, rotary positions or linear biases. Defaults are those of Transformers' `FalconConfig`.

use super::layered::{Defaults, GPT2, decoder, is_unused};
use super::rotary::{RotaryDefaults, rotary};
use super::{ConfigFile, Family, Place};
use crate::error::Result;
use crate::model::config::Alibi;
use crate::model::parameter::{LayerModule, Projection};
use crate::model::{ModelConfig, Module};

pub(super) const FAMILY: Family = Family {
    model_type: "falcon",
    config,
    place,
    prefix: "transformer.",
    begin_token: Some(11),
    end_token: Some(11),
    is_unused,
};

fn config(file: &ConfigFile) -> Result<ModelConfig> {
    let config = decoder(
        file,
        Defaults {
            vocabulary: 65024,
            hidden: (&["n_embed", "hidden_size"], 4544),
            intermediate: &["ffn_hidden_size"],
            layers: (&["num_hidden_layers", "n_layer"], 32),
            heads: (&["num_attention_heads", "n_head"], 71),
            context: (&["max_position_embeddings"], 2048),
            activation: ("activation", "gelu"),
            ..GPT2
        },
    )?;
    file.refuse(&["apply_residual_connection_post_layernorm"])?;
    let newer = file.flag("new_decoder_architecture", false)?;
    let parallel = file.flag("parallel_attn", true)?;
    let norms = file.size("num_ln_in_parallel_attn", Some(if newer { 2 } else { 1 }))?;
    let kv_heads = match (newer, file.flag("multi_query", true)?) {
        (false, true) => 1,
        _ => file.size("num_kv_heads", Some(config.heads))?,
    };
    if newer && !(1..=2).contains(&norms) {
        return Err(file.problem(format!("num_ln_in_parallel_attn is {norms}, expected 1 or 2")));
    }
    if newer && !parallel {
        return Err(file.problem("new_decoder_architecture without parallel_attn is not implemented"));
    }
    let bias = file.flag("bias", false)?;
    let mut config = ModelConfig {
        kv_heads,
        parallel_residual: parallel,
        shared_norm: parallel && !(newer && norms == 2),
        query_key_value_bias: bias,
        attention_output_bias: bias,
        mlp_bias: bias,
        ..config
    };
    if file.flag("alibi", false)? {
        let slopes = Alibi::slopes(config.heads);
        config.alibi = Some(Alibi { slopes, rounded_and_scaled: true });
    } else {
        let defaults = RotaryDefaults {
            base: 10_000.0,
            partial: 1.0,
            head_dim: config.head_dim,
            context: config.context,
        };
        let rotary = rotary(file, defaults)?;
        if rotary.dims != config.head_dim {
            return Err(file.problem("partial_rotary_factor is not implemented for falcon; expected 1"));
        }
        config.context = rotary.scaling.longest(config.context);
        config.rotaries = vec![rotary];
        config.rotary_layers.fill(Some(0));
    }
    Ok(config)
}

fn place(config: &ModelConfig, module: Module) -> Place {
    use LayerModule::*;
    let Module::Layer(layer, module) = module else {
        return Place::of(match module {
            Module::Embedding => "transformer.word_embeddings",
            Module::FinalNorm => "transformer.ln_f",
            Module::OutputHead => "lm_head",
            other => unreachable!("Falcon has no {other:?}"),
        });
    };
    let at = |name: &str| Place::of(format!("transformer.h.{layer}.{name}"));
    // Two norms side by side have names of their own.
    let two_beside = config.parallel_residual && !config.shared_norm;
    match module {
        AttentionNorm if two_beside => at("ln_attn"),
        MlpNorm if two_beside => at("ln_mlp"),
        AttentionNorm => at("input_layernorm"),
        MlpNorm => at("post_attention_layernorm"),
        Query | Key | Value => {
            at("self_attention.query_key_value").of_grouped_query_key_value(config, module)
        }
        AttentionOutput => at("self_attention.dense"),
        Mlp(Projection::Up) => at("mlp.dense_h_to_4h"),
        Mlp(Projection::Down) => at("mlp.dense_4h_to_h"),
        other => unreachable!("Falcon has no {other:?}"),
    }
}
