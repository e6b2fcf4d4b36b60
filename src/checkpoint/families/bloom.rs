//! BLOOM (Le Scao et al. 2022): attention with linear biases, a norm of the embedding. Defaults are
//! those of Transformers' `BloomConfig`.

use super::layered::{Defaults, GPT2, decoder, is_unused};
use super::{ConfigFile, Family, Place};
use crate::error::Result;
use crate::model::config::Alibi;
use crate::model::parameter::{LayerModule, Projection};
use crate::model::{ModelConfig, Module};

pub(super) const FAMILY: Family = Family {
    model_type: "bloom",
    config,
    place,
    prefix: "transformer.",
    begin_token: Some(1),
    end_token: Some(2),
    is_unused,
};

fn config(file: &ConfigFile) -> Result<ModelConfig> {
    file.refuse(&["apply_residual_connection_post_layernorm"])?;
    let config = decoder(
        file,
        Defaults {
            vocabulary: 250_880,
            hidden: (&["n_embed", "hidden_size"], 64),
            intermediate: &["ffn_hidden_size"],
            layers: (&["n_layer", "num_hidden_layers"], 2),
            heads: (&["n_head", "num_attention_heads"], 8),
            // It has no limit; this is what it was trained on.
            context: (&["seq_length"], 2048),
            ..GPT2
        },
    )?;
    let slopes = Alibi::slopes(config.heads);
    Ok(ModelConfig {
        embedding_norm: true,
        alibi: Some(Alibi { slopes, rounded_and_scaled: false }),
        ..config
    })
}

fn place(config: &ModelConfig, module: Module) -> Place {
    use LayerModule::*;
    let Module::Layer(layer, module) = module else {
        return Place::of(match module {
            Module::Embedding => "transformer.word_embeddings",
            Module::EmbeddingNorm => "transformer.word_embeddings_layernorm",
            Module::FinalNorm => "transformer.ln_f",
            Module::OutputHead => "lm_head",
            other => unreachable!("BLOOM has no {other:?}"),
        });
    };
    let at = |name: &str| Place::of(format!("transformer.h.{layer}.{name}"));
    match module {
        AttentionNorm => at("input_layernorm"),
        Query | Key | Value => {
            at("self_attention.query_key_value").of_grouped_query_key_value(config, module)
        }
        AttentionOutput => at("self_attention.dense"),
        MlpNorm => at("post_attention_layernorm"),
        Mlp(Projection::Up) => at("mlp.dense_h_to_4h"),
        Mlp(Projection::Down) => at("mlp.dense_4h_to_h"),
        other => unreachable!("BLOOM has no {other:?}"),
    }
}
