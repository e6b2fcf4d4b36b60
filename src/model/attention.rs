//! Masked self-attention with grouped queries: softmax(QKᵀ/√dₖ)V (Vaswani et al. 2017; Ainslie et
//! al. 2023), over the cache's keys and values.

use candle_core::Tensor;

use super::config::{LayerParameter, ModelConfig, Parameter, ParameterSource};
use super::kv_cache::KeysValues;
use super::observer::AttentionObserver;
use super::ops::{AttentionShape, Linear, Norm, Ops};
use super::step::Step;
use crate::error::Result;

pub(super) struct Attention {
    layer: usize,
    shape: AttentionShape,
    /// Query, key and value projections on top of one another.
    query_key_value: Linear,
    /// Of the queries and of the keys, before they are turned.
    head_norms: Option<(Norm, Norm)>,
    /// By which kind of rotary positions queries and keys turn, if they do.
    turns: Option<usize>,
    output: Linear,
}

impl Attention {
    pub(super) fn new(
        config: &ModelConfig,
        ops: &Ops,
        source: &dyn ParameterSource,
        layer: usize,
    ) -> Result<Attention> {
        use LayerParameter::*;
        let get = |parameter, shape: &[usize]| source.parameter(Parameter::Layer(layer, parameter), shape);
        let (hidden, query, kv) = (config.hidden, config.query_width(), config.kv_width());
        let weights = [get(Query, &[query, hidden])?, get(Key, &[kv, hidden])?, get(Value, &[kv, hidden])?];
        let output = [get(AttentionOutput, &[hidden, query])?];
        let (mut biases, mut output_bias, mut head_norms) = (vec![], vec![], None);
        if config.query_key_value_bias {
            biases = vec![get(QueryBias, &[query])?, get(KeyBias, &[kv])?, get(ValueBias, &[kv])?];
        }
        if config.attention_output_bias {
            output_bias = vec![get(AttentionOutputBias, &[hidden])?];
        }
        if let Some(norm) = config.query_key_norm {
            let (query, key) = config.query_key_norm_sizes(norm);
            let norm = |parameter, size| ops.norm_from(get(parameter, &[size])?, config);
            head_norms = Some((norm(QueryNorm, query)?, norm(KeyNorm, key)?));
        }
        Ok(Attention {
            layer,
            shape: AttentionShape {
                heads: config.heads,
                kv_heads: config.kv_heads,
                head_dim: config.head_dim,
                scale: config.attention_scale as f32,
                window: config.windows[layer],
                cap: config.score_cap.map(|cap| cap as f32),
            },
            query_key_value: ops.linear_from(&weights, &biases)?,
            head_norms,
            turns: config.rotary_layers[layer],
            output: ops.linear_from(&output, &output_bias)?,
        })
    }

    /// `normed` and the result: `[tokens, hidden]`.
    pub(super) fn forward(
        &self,
        ops: &Ops,
        normed: &Tensor,
        step: &Step,
        cache: &mut KeysValues,
        observer: Option<&mut dyn AttentionObserver>,
    ) -> Result<Tensor> {
        // [tokens, (heads + 2 · kv_heads) · head_dim]
        let mut projected = ops.linear(normed, &self.query_key_value)?;
        if let Some((query_norm, key_norm)) = &self.head_norms {
            projected = ops.norm_heads(projected, &self.shape, query_norm, key_norm)?;
        }
        if let Some(kind) = self.turns {
            projected = ops.rotary(projected, &self.shape, &step.angles[kind])?;
        }
        ops.append(&projected, &self.shape, step, cache, self.layer)?;
        // [tokens, heads · head_dim]
        let attended = ops.attention(&projected, &self.shape, step, cache, self.layer, observer)?;
        ops.linear(&attended, &self.output)
    }

    pub(super) fn bytes(&self) -> usize {
        self.query_key_value.bytes() + self.output.bytes()
    }
}
