//! One layer: attention and MLP, each with a norm before or after it (or both), added to the
//! residual stream.

use candle_core::Tensor;

use super::attention::Attention;
use super::config::{LayerParameter, ModelConfig, Parameter, ParameterSource};
use super::kv_cache::KeysValues;
use super::mlp::Mlp;
use super::observer::AttentionObserver;
use super::ops::{Norm, Ops};
use super::step::Step;
use crate::error::Result;

pub(super) struct Block {
    attention: Attention,
    attention_norms: Norms,
    mlp: Mlp,
    mlp_norms: Norms,
    /// Of what attention and MLP add to the stream.
    residual_multiplier: f64,
}

/// Before and after one half of the block; a family has one of them, or both.
struct Norms {
    before: Option<Norm>,
    after: Option<Norm>,
}

impl Block {
    pub(super) fn new(
        config: &ModelConfig,
        ops: &Ops,
        source: &dyn ParameterSource,
        layer: usize,
    ) -> Result<Block> {
        use LayerParameter::*;
        let norm = |present: bool, parameter| {
            let get = || source.parameter(Parameter::Layer(layer, parameter), &[config.hidden]);
            present.then(|| ops.norm_from(get()?, config)).transpose()
        };
        let norms = |before, after| -> Result<Norms> {
            Ok(Norms { before: norm(config.norm_before, before)?, after: norm(config.norm_after, after)? })
        };
        Ok(Block {
            attention: Attention::new(config, ops, source, layer)?,
            attention_norms: norms(AttentionNorm, AttentionPostNorm)?,
            mlp: Mlp::new(config, ops, source, layer)?,
            mlp_norms: norms(MlpNorm, MlpPostNorm)?,
            residual_multiplier: config.multipliers.residual,
        })
    }

    /// `hidden` and the result: `[tokens, hidden]`.
    pub(super) fn forward(
        &self,
        ops: &Ops,
        hidden: &Tensor,
        step: &Step,
        cache: &mut KeysValues,
        observer: Option<&mut dyn AttentionObserver>,
    ) -> Result<Tensor> {
        let normed = ops.norm(hidden, self.attention_norms.before.as_ref())?;
        let attended = self.attention.forward(ops, &normed, step, cache, observer)?;
        let attended = ops.norm(&attended, self.attention_norms.after.as_ref())?;
        let hidden = ops.add(hidden, &ops.scale(attended, self.residual_multiplier)?)?;

        let normed = ops.norm(&hidden, self.mlp_norms.before.as_ref())?;
        let mixed = self.mlp.forward(ops, &normed)?;
        let mixed = ops.norm(&mixed, self.mlp_norms.after.as_ref())?;
        ops.add(&hidden, &ops.scale(mixed, self.residual_multiplier)?)
    }

    /// Bytes of weights that a single token's step reads.
    pub(super) fn bytes(&self) -> usize {
        self.attention.bytes() + self.mlp.bytes()
    }
}
