//! StableLM (Bellagente et al. 2024): Llama's shape with LayerNorm, and rotary positions on a quarter of
//! each head. Defaults are those of Transformers' `StableLmConfig`.

use super::gated::{Defaults, LLAMA, decoder, place as llama_place};
use super::{ConfigFile, Family, Place, gated};
use crate::error::Result;
use crate::kernels::norm::NormKind;
use crate::model::config::{NormOver, Normalization, QueryKeyNorm};
use crate::model::parameter::LayerModule;
use crate::model::{ModelConfig, Module};

pub(super) const FAMILY: Family = Family {
    model_type: "stablelm",
    config,
    place,
    begin_token: Some(0),
    end_token: Some(0),
    ..gated::FAMILY
};

fn config(file: &ConfigFile) -> Result<ModelConfig> {
    let config = decoder(
        file,
        Defaults {
            vocabulary: 50304,
            hidden: 2560,
            intermediate: 6912,
            kv_heads: Some(32),
            context: 4096,
            rotary_partial: Some(0.25),
            ..LLAMA
        },
    )?;
    let parallel = file.flag("use_parallel_residual", false)?;
    let head_norm = QueryKeyNorm { over: NormOver::EachHead, bias: false };
    Ok(ModelConfig {
        norm: Normalization {
            kind: NormKind::Layer,
            epsilon: file.number("layer_norm_eps", Some(1e-5))?,
            bias: true,
            ..config.norm
        },
        parallel_residual: parallel,
        shared_norm: parallel,
        query_key_norm: file.flag("qk_layernorm", false)?.then_some(head_norm),
        query_key_value_bias: file.flag("use_qkv_bias", false)?,
        ..config
    })
}

fn place(config: &ModelConfig, module: Module) -> Place {
    let norms = |layer: usize, name: &str, heads: usize| Place {
        names: (0..heads).map(|head| format!("model.layers.{layer}.self_attn.{name}.norms.{head}")).collect(),
        ..Place::of("")
    };
    match module {
        Module::Layer(layer, LayerModule::QueryNorm) => norms(layer, "q_layernorm", config.heads),
        Module::Layer(layer, LayerModule::KeyNorm) => norms(layer, "k_layernorm", config.kv_heads),
        other => llama_place(config, other),
    }
}
