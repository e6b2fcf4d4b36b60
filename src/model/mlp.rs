//! The MLP of each layer: down(activation(gate(x)) · up(x)) (Shazeer 2020), or without a gate
//! down(activation(up(x))).

use candle_core::Tensor;

use super::loader::LayerLoader;
use super::ops::{Linear, Ops};
use super::parameter::{LayerModule, Projection};
use crate::error::Result;
use crate::kernels::activation::Activation;

pub(super) struct Mlp {
    gated: bool,
    /// The gate's projection, if there is one, and up's on top of one another.
    inner: Linear,
    down: Linear,
    activation: Activation,
}

impl Mlp {
    /// `module` names its projections; `width` is that of its inner layer.
    pub(super) fn new(
        load: LayerLoader<'_>,
        module: impl Fn(Projection) -> LayerModule,
        width: usize,
    ) -> Result<Mlp> {
        let config = load.config();
        let inner = [(module(Projection::Gate), width), (module(Projection::Up), width)];
        let inner = if config.gated { &inner[..] } else { &inner[1..] };
        Ok(Mlp {
            gated: config.gated,
            inner: load.linear(inner, config.hidden, config.mlp_bias)?,
            down: load.linear(&[(module(Projection::Down), config.hidden)], width, config.mlp_bias)?,
            activation: config.activation,
        })
    }

    /// `normed` and the result: `[tokens, hidden]`.
    pub(super) fn forward(&self, ops: &Ops, normed: &Tensor) -> Result<Tensor> {
        // [tokens, width]
        let activated = if self.gated {
            ops.gated(normed, &self.inner, self.activation)?
        } else {
            ops.activate(ops.linear(normed, &self.inner)?, self.activation)?
        };
        ops.linear(&activated, &self.down)
    }

    /// Bytes of weights that a single token's step reads.
    pub(super) fn bytes(&self) -> usize {
        self.inner.bytes() + self.down.bytes()
    }
}
