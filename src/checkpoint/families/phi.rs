//! Phi 1 to 2 (Gunasekar et al. 2023): rotary positions on a part of each head, MLP beside attention
//! and behind the same norm. Defaults are those of Transformers' `PhiConfig`.

use super::layered::{Defaults, decoder, is_unused};
use super::rotary::{RotaryDefaults, rotary};
use super::{ConfigFile, Family, Place};
use crate::error::Result;
use crate::model::config::{NormOver, QueryKeyNorm};
use crate::model::parameter::{LayerModule, Projection};
use crate::model::{ModelConfig, Module};

pub(super) const FAMILY: Family = Family {
    model_type: "phi",
    config,
    place,
    prefix: "model.",
    begin_token: Some(1),
    end_token: Some(2),
    is_unused,
};

fn config(file: &ConfigFile) -> Result<ModelConfig> {
    let config = decoder(
        file,
        Defaults {
            vocabulary: 51200,
            hidden: (&["hidden_size"], 2048),
            intermediate: &["intermediate_size"],
            layers: (&["num_hidden_layers"], 24),
            heads: (&["num_attention_heads"], 32),
            context: (&["max_position_embeddings"], 2048),
            epsilon: ("layer_norm_eps", 1e-5),
            activation: ("hidden_act", "gelu_new"),
            tied_head: false,
        },
    )?;
    let defaults =
        RotaryDefaults { base: 10_000.0, partial: 0.5, head_dim: config.head_dim, context: config.context };
    let rotary = rotary(file, defaults)?;
    let head_norm = QueryKeyNorm { over: NormOver::Heads, bias: true };
    Ok(ModelConfig {
        intermediate: file.size("intermediate_size", Some(8192))?,
        kv_heads: file.size("num_key_value_heads", Some(config.heads))?,
        context: rotary.scaling.longest(config.context),
        rotary_layers: vec![Some(0); config.rotary_layers.len()],
        rotaries: vec![rotary],
        query_key_norm: file.flag("qk_layernorm", false)?.then_some(head_norm),
        parallel_residual: true,
        shared_norm: true,
        head_bias: true,
        ..config
    })
}

fn place(_config: &ModelConfig, module: Module) -> Place {
    use LayerModule::*;
    let Module::Layer(layer, module) = module else {
        return Place::of(match module {
            Module::Embedding => "model.embed_tokens",
            Module::FinalNorm => "model.final_layernorm",
            Module::OutputHead => "lm_head",
            other => unreachable!("Phi has no {other:?}"),
        });
    };
    let part = match module {
        AttentionNorm => "input_layernorm",
        Query => "self_attn.q_proj",
        Key => "self_attn.k_proj",
        Value => "self_attn.v_proj",
        QueryNorm => "self_attn.q_layernorm",
        KeyNorm => "self_attn.k_layernorm",
        AttentionOutput => "self_attn.dense",
        Mlp(Projection::Up) => "mlp.fc1",
        Mlp(Projection::Down) => "mlp.fc2",
        other => unreachable!("Phi has no {other:?}"),
    };
    Place::of(format!("model.layers.{layer}.{part}"))
}
