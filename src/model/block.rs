//! One layer: attention and MLP, with norms around each, added to the residual stream.

use candle_core::Tensor;

use super::attention::Attention;
use super::config::NormPlacement;
use super::experts::ExpertMlp;
use super::kv_cache::KvCache;
use super::loader::LayerLoader;
use super::mlp::Mlp;
use super::observer::AttentionObserver;
use super::ops::{Norm, Ops};
use super::parameter::LayerModule;
use super::step::Step;
use crate::error::Result;

pub(super) struct Block {
    attention: Attention,
    attention_norms: Norms,
    mlp: Mixing,
    mlp_norms: Norms,
    /// Whether the MLP reads what attention read.
    shared_norm: bool,
    /// Whether the MLP reads the stream as it was before attention added to it.
    parallel: bool,
    /// Of what attention and MLP add to the stream.
    residual_multiplier: f64,
}

/// Before one half of the block, after it, and after it has been added to the stream.
struct Norms {
    before: Option<Norm>,
    after: Option<Norm>,
    after_sum: Option<Norm>,
}

enum Mixing {
    Mlp(Mlp),
    Experts(ExpertMlp),
}

impl Block {
    pub(super) fn new(load: LayerLoader<'_>) -> Result<Block> {
        use LayerModule::{AttentionNorm, AttentionPostNorm, MlpNorm, MlpPostNorm};
        let config = load.config();
        let placement = config.norm_placement;
        let norms = |has_before, before, after| -> Result<Norms> {
            Ok(Norms {
                before: load.norm(has_before, before)?,
                after: load.norm(placement.after(), after)?,
                after_sum: load.norm(placement == NormPlacement::AfterSum, after)?,
            })
        };
        Ok(Block {
            attention: Attention::new(load)?,
            attention_norms: norms(placement.before(), AttentionNorm, AttentionPostNorm)?,
            mlp: match config.experts_of(load.layer) {
                None => Mixing::Mlp(Mlp::new(load, LayerModule::Mlp, config.intermediate)?),
                Some(experts) => Mixing::Experts(ExpertMlp::new(load, experts)?),
            },
            mlp_norms: norms(placement.before() && !config.shared_norm, MlpNorm, MlpPostNorm)?,
            shared_norm: config.shared_norm,
            parallel: config.parallel_residual,
            residual_multiplier: config.multipliers.residual,
        })
    }

    /// `hidden` is `[tokens, hidden]`, and so is the result; or it is the last token's alone, `[1,
    /// hidden]`, if `last_only`: nobody reads those of the other tokens behind the last layer.
    pub(super) fn forward(
        &self,
        ops: &Ops,
        hidden: &Tensor,
        step: &Step,
        cache: &mut KvCache,
        observer: Option<&mut dyn AttentionObserver>,
        last_only: bool,
    ) -> Result<Tensor> {
        let going_on = |rows: &Tensor| if last_only { ops.last_row(rows) } else { Ok(rows.clone()) };
        let normed = ops.norm(hidden, self.attention_norms.before.as_ref())?;
        let attended = going_on(&self.attention.forward(ops, &normed, step, cache, observer)?)?;
        let (hidden, normed) = (going_on(hidden)?, going_on(&normed)?);
        let attended = self.attention.project(ops, &attended)?;
        let after_attention = self.add(ops, &hidden, attended, &self.attention_norms)?;

        let read = if self.parallel { &hidden } else { &after_attention };
        let normed = if self.shared_norm { normed } else { ops.norm(read, self.mlp_norms.before.as_ref())? };
        let mixed = match &self.mlp {
            Mixing::Mlp(mlp) => mlp.forward(ops, &normed)?,
            Mixing::Experts(experts) => experts.forward(ops, &normed)?,
        };
        self.add(ops, &after_attention, mixed, &self.mlp_norms)
    }

    /// Adds what one half of the block found to the stream.
    fn add(&self, ops: &Ops, hidden: &Tensor, found: Tensor, norms: &Norms) -> Result<Tensor> {
        let found = ops.norm(&found, norms.after.as_ref())?;
        let sum = ops.add(hidden, ops.scale(found, self.residual_multiplier)?)?;
        ops.norm(&sum, norms.after_sum.as_ref())
    }

    /// Bytes of weights that a single token's step reads.
    pub(super) fn bytes(&self) -> usize {
        let mlp = match &self.mlp {
            Mixing::Mlp(mlp) => mlp.bytes(),
            Mixing::Experts(experts) => experts.bytes(),
        };
        self.attention.bytes() + mlp
    }
}
