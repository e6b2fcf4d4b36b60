//! Masked self-attention with grouped queries: softmax(QKᵀ/√dₖ)V (Vaswani et al. 2017; Ainslie et
//! al. 2023), over the cache's keys and values.

use candle_core::Tensor;

use super::config::NormOver;
use super::kv_cache::KvCache;
use super::loader::LayerLoader;
use super::observer::{AttentionObserver, Projected, ValueNorms};
use super::ops::{AttentionShape, HeadNorms, Linear, Ops};
use super::parameter::LayerModule;
use super::step::Step;
use crate::error::Result;

pub(super) struct Attention {
    layer: usize,
    shape: AttentionShape,
    /// Query, key and value projections on top of one another.
    query_key_value: Linear,
    /// Queries, keys and values are held within ± this.
    clip: Option<f64>,
    /// Of the queries and of the keys, before they are turned.
    head_norms: Option<HeadNorms>,
    /// By which kind of rotary positions queries and keys turn, if they do.
    turns: Option<usize>,
    output: Linear,
}

impl Attention {
    pub(super) fn new(load: LayerLoader<'_>) -> Result<Attention> {
        use LayerModule::*;
        let (config, layer) = (load.config(), load.layer);
        let (hidden, query, kv) = (config.hidden, config.query_width(), config.kv_width());
        let mut head_norms = None;
        if let Some(norm) = config.query_key_norm {
            let (query_weights, key_weights) = config.query_key_norm_sizes(norm);
            let size = |width| if norm.over == NormOver::Whole { width } else { config.head_dim };
            head_norms = Some(HeadNorms {
                query: load.head_norm(QueryNorm, query_weights, norm.bias)?,
                key: load.head_norm(KeyNorm, key_weights, norm.bias)?,
                query_size: size(query),
                key_size: size(kv),
            });
        }
        let turns = config.rotary_layers[layer];
        let rotary = turns.map(|kind| &config.rotaries[kind]);
        Ok(Attention {
            layer,
            shape: AttentionShape {
                heads: config.heads,
                kv_heads: config.kv_heads,
                head_dim: config.head_dim,
                scale: config.attention_scales[layer] as f32,
                window: config.windows[layer],
                cap: config.score_cap.map(|cap| cap as f32),
                rotary_dims: rotary.map_or(0, |rotary| rotary.dims),
                interleaved: rotary.is_some_and(|rotary| rotary.interleaved),
            },
            query_key_value: load.linear(
                &[(Query, query), (Key, kv), (Value, kv)],
                hidden,
                config.query_key_value_bias,
            )?,
            clip: config.query_key_value_clip,
            head_norms,
            turns,
            output: load.linear(&[(AttentionOutput, hidden)], query, config.attention_output_bias)?,
        })
    }

    /// What the heads found, `[tokens, heads · head_dim]`, from `normed`, `[tokens, hidden]`.
    pub(super) fn forward(
        &self,
        ops: &Ops,
        normed: &Tensor,
        step: &Step,
        cache: &mut KvCache,
        mut observer: Option<&mut dyn AttentionObserver>,
    ) -> Result<Tensor> {
        // [tokens, (heads + 2 · kv_heads) · head_dim]
        let mut projected = ops.clip(ops.linear(normed, &self.query_key_value)?, self.clip)?;
        if let Some(norms) = &self.head_norms {
            projected = ops.norm_heads(projected, &self.shape, norms)?;
        }
        if let Some(kind) = self.turns {
            projected = ops.rotary(projected, &self.shape, &step.angles[kind])?;
        }
        if let Some(observer) = &mut observer
            && observer.wants_projected(self.layer)
        {
            self.lend(&projected, step, *observer)?;
        }
        let (layer, head_dim) = (self.layer, self.shape.head_dim);
        ops.append(&projected, &self.shape, step, &mut cache.store, layer)?;
        if let Some(observer) = observer.as_mut().filter(|observer| observer.wants_value_norms(layer)) {
            let norms = ops.value_norms(&projected, &self.shape, &self.output)?;
            let (first, heads, positions) = (step.depth, self.shape.heads, step.tokens);
            observer.observe_value_norms(ValueNorms { layer, first, heads, positions, norms: &norms })?;
        }
        let mut level = None;
        if let Some(silencer) = &cache.silencer {
            (projected, level) = silencer.level(layer, projected, step, head_dim)?;
        }
        let step = level.as_ref().unwrap_or(step);
        let attended = ops.attention(&projected, &self.shape, step, &cache.store, layer, observer)?;
        match &mut cache.silencer {
            Some(silencer) => silencer.replace(layer, attended, step, head_dim),
            None => Ok(attended),
        }
    }

    /// The output projection of what the heads found: `[tokens, hidden]`.
    pub(super) fn project(&self, ops: &Ops, attended: &Tensor) -> Result<Tensor> {
        ops.linear(attended, &self.output)
    }

    fn lend(&self, projected: &Tensor, step: &Step, observer: &mut dyn AttentionObserver) -> Result<()> {
        let AttentionShape { heads, kv_heads, head_dim, scale, cap, .. } = self.shape;
        let rows = projected.flatten_all()?.to_vec1::<f32>()?;
        let bias = step.bias.as_deref();
        observer.projected(Projected {
            layer: self.layer,
            heads,
            kv_heads,
            head_dim,
            scale,
            cap,
            bias,
            rows: &rows,
        })
    }

    pub(super) fn bytes(&self) -> usize {
        self.query_key_value.bytes() + self.output.bytes()
    }
}
