//! OPT (Zhang et al. 2022): learned positions from the third row on, ReLU; the 350M model has its
//! norms after each half and a narrower embedding. Defaults are those of Transformers' `OPTConfig`.

use super::layered::{Defaults, GPT2, decoder, is_unused};
use super::{ConfigFile, Family, Place};
use crate::error::Result;
use crate::model::config::{LearnedPositions, NormPlacement, Normalization};
use crate::model::parameter::{LayerModule, Projection};
use crate::model::{ModelConfig, Module};

pub(super) const FAMILY: Family = Family {
    model_type: "opt",
    config,
    place,
    prefix: "model.",
    begin_token: Some(2),
    end_token: Some(2),
    is_unused,
};

fn config(file: &ConfigFile) -> Result<ModelConfig> {
    file.refuse(&["scale_embeddings"])?;
    let config = decoder(
        file,
        Defaults {
            vocabulary: 50272,
            hidden: (&["hidden_size"], 768),
            intermediate: &["ffn_dim"],
            layers: (&["num_hidden_layers"], 12),
            heads: (&["num_attention_heads"], 12),
            context: (&["max_position_embeddings"], 2048),
            activation: ("activation_function", "relu"),
            ..GPT2
        },
    )?;
    // PyTorch's own, which no key changes.
    let affine = file.flag("layer_norm_elementwise_affine", true)?;
    let norm = Normalization { epsilon: 1e-5, weight: affine, bias: affine, ..config.norm };
    let before = file.flag("do_layer_norm_before", true)?;
    let bias = file.flag("enable_bias", true)?;
    Ok(ModelConfig {
        intermediate: file.size("ffn_dim", Some(3072))?,
        embedding_width: file.size("word_embed_proj_dim", Some(config.hidden))?,
        norm,
        norm_placement: if before { NormPlacement::Before } else { NormPlacement::AfterSum },
        final_norm: before && !file.flag("_remove_final_layer_norm", false)?,
        learned_positions: Some(LearnedPositions {
            rows: config.context.saturating_add(2),
            offset: 2,
            padding: None,
        }),
        query_key_value_bias: bias,
        attention_output_bias: bias,
        mlp_bias: bias,
        ..config
    })
}

fn place(_config: &ModelConfig, module: Module) -> Place {
    use LayerModule::*;
    let Module::Layer(layer, module) = module else {
        return Place::of(match module {
            Module::Embedding => "model.decoder.embed_tokens",
            Module::Positions => "model.decoder.embed_positions",
            Module::EmbeddingProjection => "model.decoder.project_in",
            Module::OutputProjection => "model.decoder.project_out",
            Module::FinalNorm => "model.decoder.final_layer_norm",
            Module::OutputHead => "lm_head",
            other => unreachable!("OPT has no {other:?}"),
        });
    };
    let part = match module {
        AttentionNorm | AttentionPostNorm => "self_attn_layer_norm",
        Query => "self_attn.q_proj",
        Key => "self_attn.k_proj",
        Value => "self_attn.v_proj",
        AttentionOutput => "self_attn.out_proj",
        MlpNorm | MlpPostNorm => "final_layer_norm",
        Mlp(Projection::Up) => "fc1",
        Mlp(Projection::Down) => "fc2",
        other => unreachable!("OPT has no {other:?}"),
    };
    Place::of(format!("model.decoder.layers.{layer}.{part}"))
}
