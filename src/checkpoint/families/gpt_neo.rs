//! GPT-Neo (Black et al. 2021): learned positions, windows in every second layer, scores that are not
//! scaled. Defaults are those of Transformers' `GPTNeoConfig`.

use super::layered::{Defaults, GPT2, decoder, is_unused};
use super::{ConfigFile, Family, Place};
use crate::error::Result;
use crate::model::config::LearnedPositions;
use crate::model::parameter::{LayerModule, Projection};
use crate::model::{ModelConfig, Module};

pub(super) const FAMILY: Family = Family {
    model_type: "gpt_neo",
    config,
    place,
    prefix: "transformer.",
    begin_token: Some(50256),
    end_token: Some(50256),
    is_unused,
};

fn config(file: &ConfigFile) -> Result<ModelConfig> {
    let config = decoder(
        file,
        Defaults {
            hidden: (&["hidden_size"], 2048),
            intermediate: &["intermediate_size"],
            layers: (&["num_layers", "num_hidden_layers"], 24),
            heads: (&["num_heads", "num_attention_heads"], 16),
            context: (&["max_position_embeddings"], 2048),
            ..GPT2
        },
    )?;
    let window = file.size("window_size", Some(256))?;
    let windowed = windowed(file, config.windows.len())?;
    let positions = LearnedPositions { rows: config.context, offset: 0, padding: None };
    Ok(ModelConfig {
        windows: windowed.iter().map(|windowed| windowed.then_some(window)).collect(),
        attention_scales: vec![1.0; config.attention_scales.len()],
        learned_positions: Some(positions),
        query_key_value_bias: false,
        ..config
    })
}

/// Of each layer, whether its attention is local: `attention_types` lists kinds and how often they
/// are repeated, `[[["global", "local"], 12]]`; older configs have them written out beside it.
fn windowed(file: &ConfigFile, layers: usize) -> Result<Vec<bool>> {
    const KEY: &str = "attention_types";
    let mut windowed: Vec<bool> = (0..layers).map(|layer| layer % 2 == 1).collect();
    if let Some(value) = file.get(KEY) {
        let types: Option<Vec<(Vec<String>, usize)>> = serde_json::from_value(value.clone()).ok();
        let expected = || {
            let expected = "kinds (global, local) and how often they are repeated, for every layer";
            file.problem(format!("{KEY} is {value}, expected {expected}"))
        };
        windowed.clear();
        for (kinds, times) in types.ok_or_else(expected)? {
            for kind in kinds.iter().cycle().take(kinds.len().saturating_mul(times).min(layers + 1)) {
                match kind.as_str() {
                    "global" => windowed.push(false),
                    "local" => windowed.push(true),
                    _ => return Err(expected()),
                }
            }
        }
        if windowed.len() != layers {
            return Err(expected());
        }
    }
    let names = windowed.iter().map(|windowed| if *windowed { "local" } else { "global" });
    let listed = file.get("attention_layers").map(|listed| listed.as_array().map_or(&[][..], Vec::as_slice));
    if listed.is_some_and(|listed| !listed.iter().map(|kind| kind.as_str()).eq(names.map(Some))) {
        return Err(file.problem(format!("attention_layers differs from {KEY}, expected the same kinds")));
    }
    Ok(windowed)
}

fn place(_config: &ModelConfig, module: Module) -> Place {
    use LayerModule::*;
    let Module::Layer(layer, module) = module else {
        return Place::of(match module {
            Module::Embedding => "transformer.wte",
            Module::Positions => "transformer.wpe",
            Module::FinalNorm => "transformer.ln_f",
            Module::OutputHead => "lm_head",
            other => unreachable!("GPT-Neo has no {other:?}"),
        });
    };
    let part = match module {
        AttentionNorm => "ln_1",
        Query => "attn.attention.q_proj",
        Key => "attn.attention.k_proj",
        Value => "attn.attention.v_proj",
        AttentionOutput => "attn.attention.out_proj",
        MlpNorm => "ln_2",
        Mlp(Projection::Up) => "mlp.c_fc",
        Mlp(Projection::Down) => "mlp.c_proj",
        other => unreachable!("GPT-Neo has no {other:?}"),
    };
    Place::of(format!("transformer.h.{layer}.{part}"))
}
