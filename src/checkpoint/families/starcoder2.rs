//! StarCoder2 (Lozhkov et al. 2024): Llama's attention with a window, LayerNorm, an MLP without a gate,
//! biases throughout. Defaults are those of Transformers' `Starcoder2Config`.

use super::gated::{Defaults, LLAMA, decoder, place as llama_place};
use super::{ConfigFile, Family, Place, gated};
use crate::error::Result;
use crate::kernels::norm::NormKind;
use crate::model::config::Normalization;
use crate::model::parameter::{LayerModule, Projection};
use crate::model::{ModelConfig, Module};

pub(super) const FAMILY: Family = Family {
    model_type: "starcoder2",
    config,
    place,
    begin_token: Some(50256),
    end_token: Some(50256),
    ..gated::FAMILY
};

fn config(file: &ConfigFile) -> Result<ModelConfig> {
    file.require("mlp_type", "default")?;
    file.require("norm_type", "layer_norm")?;
    file.require("scale_attn_weights", true)?;
    let config = decoder(
        file,
        Defaults {
            vocabulary: 49152,
            hidden: 3072,
            intermediate: 12288,
            layers: 30,
            heads: 24,
            kv_heads: Some(2),
            context: 4096,
            activation: "gelu_pytorch_tanh",
            tied_head: true,
            ..LLAMA
        },
    )?;
    let window = file.size_or_null("sliding_window", None)?;
    let bias = file.flag("use_bias", true)?;
    Ok(ModelConfig {
        norm: Normalization {
            kind: NormKind::Layer,
            epsilon: file.number("norm_epsilon", Some(1e-5))?,
            bias: true,
            ..config.norm
        },
        windows: vec![window; config.windows.len()],
        gated: false,
        query_key_value_bias: bias,
        attention_output_bias: bias,
        mlp_bias: bias,
        ..config
    })
}

fn place(config: &ModelConfig, module: Module) -> Place {
    match module {
        Module::Layer(layer, LayerModule::Mlp(Projection::Up)) => {
            Place::of(format!("model.layers.{layer}.mlp.c_fc"))
        }
        Module::Layer(layer, LayerModule::Mlp(Projection::Down)) => {
            Place::of(format!("model.layers.{layer}.mlp.c_proj"))
        }
        other => llama_place(config, other),
    }
}
