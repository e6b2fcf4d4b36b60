//! GPT-2 (Radford et al. 2019): learned positions, one projection for query, key and value, weights
//! stored inputs × outputs. Defaults are those of Transformers' `GPT2Config`.

use super::layered::{self, decoder, is_unused};
use super::{ConfigFile, Family, Place};
use crate::error::Result;
use crate::model::config::LearnedPositions;
use crate::model::parameter::{LayerModule, Projection};
use crate::model::{ModelConfig, Module};

pub(super) const FAMILY: Family = Family {
    model_type: "gpt2",
    config,
    place,
    prefix: "transformer.",
    begin_token: Some(50256),
    end_token: Some(50256),
    is_unused,
};

fn config(file: &ConfigFile) -> Result<ModelConfig> {
    file.refuse(&["add_cross_attention"])?;
    let config = decoder(file, layered::GPT2)?;
    let mut scales = match file.flag("scale_attn_weights", true)? {
        true => config.attention_scales,
        false => vec![1.0; config.attention_scales.len()],
    };
    if file.flag("scale_attn_by_inverse_layer_idx", false)? {
        (1..).zip(&mut scales).for_each(|(layer, scale)| *scale /= f64::from(layer));
    }
    let positions = LearnedPositions { rows: config.context, offset: 0, padding: None };
    Ok(ModelConfig { attention_scales: scales, learned_positions: Some(positions), ..config })
}

fn place(config: &ModelConfig, module: Module) -> Place {
    use LayerModule::*;
    let Module::Layer(layer, module) = module else {
        return Place::of(match module {
            Module::Embedding => "transformer.wte",
            Module::Positions => "transformer.wpe",
            Module::FinalNorm => "transformer.ln_f",
            Module::OutputHead => "lm_head",
            other => unreachable!("GPT-2 has no {other:?}"),
        });
    };
    let at = |name: &str| Place::of(format!("transformer.h.{layer}.{name}"));
    match module {
        AttentionNorm => at("ln_1"),
        Query | Key | Value => at("attn.c_attn").transposed().of_query_key_value(config, module),
        AttentionOutput => at("attn.c_proj").transposed(),
        MlpNorm => at("ln_2"),
        Mlp(Projection::Up) => at("mlp.c_fc").transposed(),
        Mlp(Projection::Down) => at("mlp.c_proj").transposed(),
        other => unreachable!("GPT-2 has no {other:?}"),
    }
}
