//! Encoders, for their maps: BERT (Devlin et al. 2019), RoBERTa (Liu et al. 2019), XLM-RoBERTa (Conneau
//! et al. 2020) and DistilBERT (Sanh et al. 2019). Norms after each sum, learned positions, every token
//! sees every token. Defaults are those of Transformers' `BertConfig`, `RobertaConfig` and
//! `DistilBertConfig`.

use super::layered::{Defaults, GPT2, decoder};
use super::{ConfigFile, Family, Place};
use crate::error::Result;
use crate::model::config::{LearnedPositions, NormPlacement, Normalization};
use crate::model::parameter::{LayerModule, Projection};
use crate::model::{Mask, ModelConfig, Module};

pub(super) const BERT: Family = Family {
    model_type: "bert",
    config: bert,
    place: |_, module| place("bert", module),
    prefix: "bert.",
    begin_token: None,
    end_token: None,
    is_unused,
};

pub(super) const ROBERTA: Family = Family {
    model_type: "roberta",
    config: roberta,
    place: |_, module| place("roberta", module),
    prefix: "roberta.",
    ..BERT
};

pub(super) const XLM_ROBERTA: Family =
    Family { model_type: "xlm-roberta", config: |file| counted(file, DEFAULTS), ..ROBERTA };

pub(super) const DISTILBERT: Family = Family {
    model_type: "distilbert",
    config: distilbert,
    place: distilbert_place,
    prefix: "distilbert.",
    ..BERT
};

const DEFAULTS: Defaults = Defaults {
    vocabulary: 30522,
    hidden: (&["hidden_size"], 768),
    intermediate: &["intermediate_size"],
    layers: (&["num_hidden_layers"], 12),
    heads: (&["num_attention_heads"], 12),
    context: (&["max_position_embeddings"], 512),
    epsilon: ("layer_norm_eps", 1e-12),
    activation: ("hidden_act", "gelu"),
    ..GPT2
};

fn encoder(file: &ConfigFile, defaults: Defaults) -> Result<ModelConfig> {
    file.refuse(&["is_decoder", "add_cross_attention"])?;
    let kind = file.text("position_embedding_type", Some("absolute"))?;
    if kind != "absolute" {
        return Err(file.problem(format!("position_embedding_type {kind:?} is not implemented")));
    }
    let config = decoder(file, defaults)?;
    Ok(ModelConfig {
        mask: Mask::None,
        norm_placement: NormPlacement::AfterSum,
        embedding_norm: true,
        final_norm: false,
        learned_positions: Some(LearnedPositions { rows: config.context, offset: 0, padding: None }),
        ..config
    })
}

fn bert(file: &ConfigFile) -> Result<ModelConfig> {
    two_texts(file, DEFAULTS)
}

fn two_texts(file: &ConfigFile, defaults: Defaults) -> Result<ModelConfig> {
    Ok(ModelConfig {
        token_types: file.size("type_vocab_size", Some(2))?,
        intermediate: file.size("intermediate_size", Some(3072))?,
        ..encoder(file, defaults)?
    })
}

fn roberta(file: &ConfigFile) -> Result<ModelConfig> {
    counted(file, Defaults { vocabulary: 50265, ..DEFAULTS })
}

/// Positions are counted from behind the padding token's.
fn counted(file: &ConfigFile, defaults: Defaults) -> Result<ModelConfig> {
    let config = two_texts(file, defaults)?;
    let Some(padding) = file.size_or_null("pad_token_id", Some(1))? else {
        return Err(file.problem("pad_token_id is null, expected the number that positions are counted from"));
    };
    let rows = config.context;
    Ok(ModelConfig {
        context: rows.saturating_sub(padding.saturating_add(1)),
        learned_positions: Some(LearnedPositions {
            rows,
            offset: padding.saturating_add(1),
            padding: u32::try_from(padding).ok(),
        }),
        ..config
    })
}

fn distilbert(file: &ConfigFile) -> Result<ModelConfig> {
    let config = encoder(
        file,
        Defaults {
            hidden: (&["dim", "hidden_size"], 768),
            intermediate: &["hidden_dim"],
            layers: (&["n_layers", "num_hidden_layers"], 6),
            heads: (&["n_heads", "num_attention_heads"], 12),
            activation: ("activation", "gelu"),
            ..DEFAULTS
        },
    )?;
    Ok(ModelConfig {
        // No key changes its epsilon.
        norm: Normalization { epsilon: 1e-12, ..config.norm },
        intermediate: file.size("hidden_dim", Some(3072))?,
        ..config
    })
}

fn place(model: &str, module: Module) -> Place {
    use LayerModule::*;
    let Module::Layer(layer, module) = module else {
        let part = match module {
            Module::Embedding => "word_embeddings",
            Module::Positions => "position_embeddings",
            Module::TokenTypes => "token_type_embeddings",
            Module::EmbeddingNorm => "LayerNorm",
            other => unreachable!("no encoder has {other:?}"),
        };
        return Place::of(format!("{model}.embeddings.{part}"));
    };
    let part = match module {
        Query => "attention.self.query",
        Key => "attention.self.key",
        Value => "attention.self.value",
        AttentionOutput => "attention.output.dense",
        AttentionPostNorm => "attention.output.LayerNorm",
        Mlp(Projection::Up) => "intermediate.dense",
        Mlp(Projection::Down) => "output.dense",
        MlpPostNorm => "output.LayerNorm",
        other => unreachable!("no encoder has {other:?}"),
    };
    Place::of(format!("{model}.encoder.layer.{layer}.{part}"))
}

fn distilbert_place(_config: &ModelConfig, module: Module) -> Place {
    use LayerModule::*;
    let Module::Layer(layer, module) = module else { return place("distilbert", module) };
    let part = match module {
        Query => "attention.q_lin",
        Key => "attention.k_lin",
        Value => "attention.v_lin",
        AttentionOutput => "attention.out_lin",
        AttentionPostNorm => "sa_layer_norm",
        Mlp(Projection::Up) => "ffn.lin1",
        Mlp(Projection::Down) => "ffn.lin2",
        MlpPostNorm => "output_layer_norm",
        other => unreachable!("no encoder has {other:?}"),
    };
    Place::of(format!("distilbert.transformer.layer.{layer}.{part}"))
}

/// Heads for other tasks (masked words, classes, answers), which maps do not need, and the table of
/// positions 0, 1, 2, ….
fn is_unused(name: &str) -> bool {
    name.ends_with("embeddings.position_ids")
        || ["cls.", "lm_head.", "vocab_", "classifier.", "pre_classifier.", "qa_outputs."]
            .iter()
            .any(|head| name.starts_with(head))
        || name.contains("pooler.dense.")
}
