//! What the families in GPT-2's shape have in common: LayerNorm with biases, an MLP without a gate,
//! biases on its projections, as many key/value heads as query heads. Each family states its keys
//! and defaults, what it adds and how its tensors are called.

use super::ConfigFile;
use super::sizes::{Sizes, shared_out};
use crate::error::Result;
use crate::kernels::norm::NormKind;
use crate::model::ModelConfig;
use crate::model::config::Normalization;

/// Keys, older ones behind newer ones, and defaults that differ from family to family in
/// Transformers.
pub(super) struct Defaults {
    pub vocabulary: usize,
    pub hidden: (&'static [&'static str], usize),
    /// Four times the hidden size where absent.
    pub intermediate: &'static [&'static str],
    pub layers: (&'static [&'static str], usize),
    pub heads: (&'static [&'static str], usize),
    pub context: (&'static [&'static str], usize),
    pub epsilon: (&'static str, f64),
    pub activation: (&'static str, &'static str),
    pub tied_head: bool,
}

/// `GPT2Config`'s, with the keys that Transformers calls them by inside.
pub(super) const GPT2: Defaults = Defaults {
    vocabulary: 50257,
    hidden: (&["n_embd", "hidden_size"], 768),
    intermediate: &["n_inner"],
    layers: (&["n_layer", "num_hidden_layers"], 12),
    heads: (&["n_head", "num_attention_heads"], 12),
    context: (&["n_positions", "max_position_embeddings"], 1024),
    epsilon: ("layer_norm_epsilon", 1e-5),
    activation: ("activation_function", "gelu_new"),
    tied_head: true,
};

/// The decoder that a config describes: no positions yet.
pub(super) fn decoder(file: &ConfigFile, defaults: Defaults) -> Result<ModelConfig> {
    let size = |keys: &[&str], default: usize| -> Result<usize> {
        let key = keys.iter().find(|key| file.has(key)).unwrap_or(&keys[0]);
        let size = file.size(key, Some(default))?;
        for other in keys {
            let another = file.size(other, Some(size))?;
            if another != size {
                return Err(
                    file.problem(format!("{key} is {size} and {other} {another}, expected one number"))
                );
            }
        }
        Ok(size)
    };
    let hidden = size(defaults.hidden.0, defaults.hidden.1)?;
    let heads = size(defaults.heads.0, defaults.heads.1)?;
    let head_dim = shared_out(file, hidden, heads)?;
    file.require("head_dim", head_dim)?;
    let sizes = Sizes {
        vocabulary: file.size("vocab_size", Some(defaults.vocabulary))?,
        hidden,
        intermediate: size(defaults.intermediate, hidden.saturating_mul(4))?,
        layers: size(defaults.layers.0, defaults.layers.1)?,
        heads,
        kv_heads: heads,
        head_dim,
        context: size(defaults.context.0, defaults.context.1)?,
    };
    let plain = sizes.model(file)?;
    Ok(ModelConfig {
        norm: Normalization {
            kind: NormKind::Layer,
            epsilon: file.number(defaults.epsilon.0, Some(defaults.epsilon.1))?,
            bias: true,
            ..plain.norm
        },
        query_key_value_bias: true,
        attention_output_bias: true,
        activation: file.activation(defaults.activation.0, defaults.activation.1)?,
        mlp_bias: true,
        tied_head: file.flag("tie_word_embeddings", defaults.tied_head)?,
        ..plain
    })
}

/// Tables of masks and angles, which old checkpoints carry.
pub(super) fn is_unused(name: &str) -> bool {
    [".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias", "rotary_emb.inv_freq"]
        .iter()
        .any(|buffer| name.ends_with(buffer))
}
