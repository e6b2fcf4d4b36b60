//! A model's sizes, and the plainest model that has them: each family states what it adds.

use super::ConfigFile;
use crate::error::Result;
use crate::kernels::activation::Activation;
use crate::kernels::norm::NormKind;
use crate::model::config::{Multipliers, NormPlacement, Normalization};
use crate::model::{Mask, ModelConfig};

pub(super) struct Sizes {
    pub vocabulary: usize,
    pub hidden: usize,
    pub intermediate: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub context: usize,
}

/// Lists for each layer have at most so many entries: more layers than `ModelConfig::validate` lets
/// through.
const MOST_LAYERS: usize = 10_001;

impl Sizes {
    /// RMS norm before each half of a layer, no positions, no gate, no biases, a head of its own.
    pub(super) fn model(self, file: &ConfigFile) -> Result<ModelConfig> {
        let listed = self.layers.min(MOST_LAYERS);
        Ok(ModelConfig {
            family: file.text("model_type", Some("llama"))?,
            vocabulary: self.vocabulary,
            hidden: self.hidden,
            embedding_width: self.hidden,
            intermediate: self.intermediate,
            layers: self.layers,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            context: self.context,
            mask: Mask::Causal,
            norm: Normalization {
                kind: NormKind::Rms,
                epsilon: 1e-5,
                weight: true,
                offset: 0.0,
                bias: false,
            },
            norm_placement: NormPlacement::Before,
            shared_norm: false,
            parallel_residual: false,
            embedding_norm: false,
            final_norm: true,
            learned_positions: None,
            token_types: 0,
            rotaries: vec![],
            rotary_layers: vec![None; listed],
            alibi: None,
            windows: vec![None; listed],
            attention_scales: vec![1.0 / (self.head_dim as f64).sqrt(); listed],
            score_cap: None,
            logit_cap: None,
            query_key_norm: None,
            query_key_value_clip: None,
            query_key_value_bias: false,
            attention_output_bias: false,
            gated: false,
            activation: Activation::GeluTanh,
            mlp_bias: false,
            experts: None,
            tied_head: false,
            head_bias: false,
            multipliers: Multipliers::NONE,
        })
    }
}

/// The hidden size shared out among the heads.
///
/// # Errors
/// If it cannot be.
pub(super) fn shared_out(file: &ConfigFile, hidden: usize, heads: usize) -> Result<usize> {
    if heads == 0 || !hidden.is_multiple_of(heads) {
        return Err(file.problem(format!(
            "hidden_size is {hidden}, expected a multiple of num_attention_heads ({heads}), or head_dim"
        )));
    }
    Ok(hidden / heads)
}
