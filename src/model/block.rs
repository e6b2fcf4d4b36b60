//! One layer: attention and MLP, each behind a norm and added to the residual stream.

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
    attention_norm: Norm,
    attention: Attention,
    mlp_norm: Norm,
    mlp: Mlp,
    /// Of what attention and MLP add to the stream.
    residual_multiplier: f64,
}

impl Block {
    pub(super) fn new(
        config: &ModelConfig,
        ops: &Ops,
        source: &dyn ParameterSource,
        layer: usize,
    ) -> Result<Block> {
        let norm = |parameter| {
            let raw = source.parameter(Parameter::Layer(layer, parameter), &[config.hidden])?;
            ops.norm_from(raw, config.norm_epsilon)
        };
        Ok(Block {
            attention_norm: norm(LayerParameter::AttentionNorm)?,
            attention: Attention::new(config, ops, source, layer)?,
            mlp_norm: norm(LayerParameter::MlpNorm)?,
            mlp: Mlp::new(config, ops, source, layer)?,
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
        let normed = ops.rms_norm(hidden, &self.attention_norm)?;
        let attended = self.attention.forward(ops, &normed, step, cache, observer)?;
        let hidden = ops.add(hidden, &ops.scale(attended, self.residual_multiplier)?)?;

        let normed = ops.rms_norm(&hidden, &self.mlp_norm)?;
        let mixed = self.mlp.forward(ops, &normed)?;
        ops.add(&hidden, &ops.scale(mixed, self.residual_multiplier)?)
    }

    /// Bytes of weights that a single token's step reads.
    pub(super) fn bytes(&self) -> usize {
        self.attention.bytes() + self.mlp.bytes()
    }
}
