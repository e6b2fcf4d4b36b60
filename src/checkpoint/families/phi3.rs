//! Phi-3 (Abdin et al. 2024): Llama's shape with one projection for query, key and value, one for gate
//! and up, and positions that change with the text's length. Defaults are those of Transformers'
//! `Phi3Config`.

use super::gated::{Defaults, LLAMA, decoder, place as llama_place};
use super::{ConfigFile, Family, Place, gated};
use crate::error::Result;
use crate::model::parameter::{LayerModule, Projection};
use crate::model::{ModelConfig, Module};

pub(super) const FAMILY: Family = Family {
    model_type: "phi3",
    config,
    place,
    begin_token: Some(1),
    end_token: Some(32000),
    ..gated::FAMILY
};

fn config(file: &ConfigFile) -> Result<ModelConfig> {
    // The flags are written, and not read, by Phi-4-mini's own code.
    file.refuse(&["attention_bias", "mlp_bias", "lm_head_bias"])?;
    // A default of its own, which counts more than what rope_scaling says.
    let file = &file.with_default("original_max_position_embeddings", 4096);
    let config = decoder(
        file,
        Defaults {
            vocabulary: 32064,
            hidden: 3072,
            intermediate: 8192,
            context: 4096,
            norm_epsilon: 1e-5,
            rotary_partial: Some(1.0),
            ..LLAMA
        },
    )?;
    let window = file.size_or_null("sliding_window", None)?;
    Ok(ModelConfig { windows: vec![window; config.windows.len()], ..config })
}

fn place(config: &ModelConfig, module: Module) -> Place {
    use LayerModule::*;
    let Module::Layer(layer, part) = module else { return llama_place(config, module) };
    let gate_up = |index| {
        Place::of(format!("model.layers.{layer}.mlp.gate_up_proj")).part(index, 2, config.intermediate)
    };
    match part {
        Query | Key | Value => {
            Place::of(format!("model.layers.{layer}.self_attn.qkv_proj")).of_query_key_value(config, part)
        }
        Mlp(Projection::Gate) => gate_up(0),
        Mlp(Projection::Up) => gate_up(1),
        _ => llama_place(config, module),
    }
}
