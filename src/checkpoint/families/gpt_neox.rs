//! GPT-NeoX (Black et al. 2022), and Pythia: rotary positions on a quarter of each head, MLP beside
//! attention, one projection for query, key and value. Defaults are those of Transformers'
//! `GPTNeoXConfig`.

use super::layered::{Defaults, decoder, is_unused};
use super::rotary::{RotaryDefaults, rotary};
use super::{ConfigFile, Family, Place};
use crate::error::Result;
use crate::model::parameter::{LayerModule, Projection};
use crate::model::{ModelConfig, Module};

pub(super) const FAMILY: Family = Family {
    model_type: "gpt_neox",
    config,
    place,
    prefix: "gpt_neox.",
    begin_token: Some(0),
    end_token: Some(2),
    is_unused,
};

fn config(file: &ConfigFile) -> Result<ModelConfig> {
    let config = decoder(
        file,
        Defaults {
            vocabulary: 50432,
            hidden: (&["hidden_size"], 6144),
            intermediate: &["intermediate_size"],
            layers: (&["num_hidden_layers"], 44),
            heads: (&["num_attention_heads"], 64),
            context: (&["max_position_embeddings"], 2048),
            epsilon: ("layer_norm_eps", 1e-5),
            activation: ("hidden_act", "gelu"),
            tied_head: false,
        },
    )?;
    // Of each pair Transformers reads the first alone, and has written both.
    for (own, common, default) in
        [("rotary_emb_base", "rope_theta", 10_000.0), ("rotary_pct", "partial_rotary_factor", 0.25)]
    {
        let value = file.number(own, Some(default))?;
        if file.number(common, Some(value))? != value {
            return Err(file.problem(format!("{common} differs from {own} ({value}), expected one number")));
        }
    }
    let rotary = rotary(
        file,
        RotaryDefaults {
            base: file.number("rotary_emb_base", Some(10_000.0))?,
            partial: file.number("rotary_pct", Some(0.25))?,
            head_dim: config.head_dim,
            context: config.context,
        },
    )?;
    let bias = file.flag("attention_bias", true)?;
    Ok(ModelConfig {
        intermediate: file.size("intermediate_size", Some(24576))?,
        context: rotary.scaling.longest(config.context),
        rotary_layers: vec![Some(0); config.rotary_layers.len()],
        rotaries: vec![rotary],
        parallel_residual: file.flag("use_parallel_residual", true)?,
        query_key_value_bias: bias,
        attention_output_bias: bias,
        ..config
    })
}

fn place(config: &ModelConfig, module: Module) -> Place {
    use LayerModule::*;
    let Module::Layer(layer, module) = module else {
        return Place::of(match module {
            Module::Embedding => "gpt_neox.embed_in",
            Module::FinalNorm => "gpt_neox.final_layer_norm",
            Module::OutputHead => "embed_out",
            other => unreachable!("GPT-NeoX has no {other:?}"),
        });
    };
    let at = |name: &str| Place::of(format!("gpt_neox.layers.{layer}.{name}"));
    match module {
        AttentionNorm => at("input_layernorm"),
        Query | Key | Value => at("attention.query_key_value").of_grouped_query_key_value(config, module),
        AttentionOutput => at("attention.dense"),
        MlpNorm => at("post_attention_layernorm"),
        Mlp(Projection::Up) => at("mlp.dense_h_to_4h"),
        Mlp(Projection::Down) => at("mlp.dense_4h_to_h"),
        other => unreachable!("GPT-NeoX has no {other:?}"),
    }
}
