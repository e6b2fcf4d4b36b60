//! Mixtral (Jiang et al. 2024): Llama's shape with a choice among several MLPs in every layer. Defaults
//! are those of Transformers' `MixtralConfig`.

use super::gated::{Defaults, LLAMA, decoder, place as llama_place};
use super::{ConfigFile, Family, Place, llama};
use crate::error::Result;
use crate::model::config::Experts;
use crate::model::parameter::{LayerModule, Projection};
use crate::model::{ModelConfig, Module};

pub(super) const FAMILY: Family = Family { model_type: "mixtral", config, place, ..llama::FAMILY };

fn config(file: &ConfigFile) -> Result<ModelConfig> {
    let config = decoder(
        file,
        Defaults {
            intermediate: 14336,
            context: 4096 * 32,
            kv_heads: Some(8),
            norm_epsilon: 1e-5,
            rotary_base: 1_000_000.0,
            ..LLAMA
        },
    )?;
    let window = file.size_or_null("sliding_window", None)?;
    let experts = Experts {
        count: file.size("num_local_experts", Some(8))?,
        chosen: file.size("num_experts_per_tok", Some(2))?,
        intermediate: config.intermediate,
        normalized: true,
        shared_intermediate: None,
        layers: vec![true; config.windows.len()],
    };
    Ok(ModelConfig { windows: vec![window; config.windows.len()], experts: Some(experts), ..config })
}

fn place(config: &ModelConfig, module: Module) -> Place {
    match module {
        Module::Layer(layer, LayerModule::Router) => {
            Place::of(format!("model.layers.{layer}.block_sparse_moe.gate"))
        }
        Module::Layer(layer, LayerModule::Expert(expert, projection)) => {
            let name = match projection {
                Projection::Gate => "w1",
                Projection::Down => "w2",
                Projection::Up => "w3",
            };
            Place::of(format!("model.layers.{layer}.block_sparse_moe.experts.{expert}.{name}"))
        }
        other => llama_place(config, other),
    }
}
