//! The gated MLP of each layer: down(activation(gate(x)) · up(x)) (Shazeer 2020).

use candle_core::Tensor;

use super::config::{LayerParameter, ModelConfig, Parameter, ParameterSource};
use super::ops::{Linear, Ops};
use crate::error::Result;
use crate::kernels::elementwise::Activation;

pub(super) struct Mlp {
    /// Gate and up projections on top of one another.
    gate_up: Linear,
    down: Linear,
    activation: Activation,
}

impl Mlp {
    pub(super) fn new(
        config: &ModelConfig,
        ops: &Ops,
        source: &dyn ParameterSource,
        layer: usize,
    ) -> Result<Mlp> {
        use LayerParameter::*;
        let get = |parameter, shape: &[usize]| source.parameter(Parameter::Layer(layer, parameter), shape);
        let (hidden, inner) = (config.hidden, config.intermediate);
        let gate_up = [get(Gate, &[inner, hidden])?, get(Up, &[inner, hidden])?];
        let down = [get(Down, &[hidden, inner])?];
        let (mut gate_up_bias, mut down_bias) = (vec![], vec![]);
        if config.mlp_bias {
            gate_up_bias = vec![get(GateBias, &[inner])?, get(UpBias, &[inner])?];
            down_bias = vec![get(DownBias, &[hidden])?];
        }
        Ok(Mlp {
            gate_up: ops.linear_from(&gate_up, &gate_up_bias)?,
            down: ops.linear_from(&down, &down_bias)?,
            activation: config.activation,
        })
    }

    /// `normed` and the result: `[tokens, hidden]`.
    pub(super) fn forward(&self, ops: &Ops, normed: &Tensor) -> Result<Tensor> {
        let gate_up = ops.linear(normed, &self.gate_up)?; // [tokens, 2 · intermediate]
        let gated = ops.gated(&gate_up, self.activation)?; // [tokens, intermediate]
        ops.linear(&gated, &self.down)
    }

    pub(super) fn bytes(&self) -> usize {
        self.gate_up.bytes() + self.down.bytes()
    }
}
