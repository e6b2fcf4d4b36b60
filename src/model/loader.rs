//! From parameters to what the forward pass computes with: projections and norms, each asked for by
//! its module's name.

use super::config::{ModelConfig, Normalization};
use super::ops::{Linear, Norm, Ops};
use super::parameter::{LayerModule, Module, ParameterSource};
use crate::error::Result;

/// A model's parameters on their way into its parts.
#[derive(Clone, Copy)]
pub(super) struct Loader<'a> {
    pub config: &'a ModelConfig,
    pub ops: &'a Ops,
    pub source: &'a dyn ParameterSource,
}

impl<'a> Loader<'a> {
    pub fn layer(self, layer: usize) -> LayerLoader<'a> {
        LayerLoader { all: self, layer }
    }

    /// Projections of the same `inputs`, each with its outputs, on top of one another.
    pub fn linear(&self, modules: &[(Module, usize)], inputs: usize, bias: bool) -> Result<Linear> {
        let weights = modules
            .iter()
            .map(|(module, outputs)| self.source.parameter(module.weight(), &[*outputs, inputs]))
            .collect::<Result<Vec<_>>>()?;
        let biases = modules
            .iter()
            .filter(|_| bias)
            .map(|(module, outputs)| self.source.parameter(module.bias(), &[*outputs]))
            .collect::<Result<Vec<_>>>()?;
        let role = modules[0].0.weight().role().expect("projections are matrices");
        self.ops.linear_from(&weights, role, &biases, &|bytes| self.source.taken(bytes))
    }

    /// The model's kind of norm, over `size` values.
    pub fn norm(&self, module: Module, size: usize) -> Result<Norm> {
        self.norm_with(module, size, self.config.norm.bias)
    }

    fn norm_with(&self, module: Module, size: usize, bias: bool) -> Result<Norm> {
        let norm = &Normalization { bias, ..self.config.norm };
        let get =
            |wanted: bool, parameter| wanted.then(|| self.source.parameter(parameter, &[size])).transpose();
        self.ops.norm_from(norm, get(norm.weight, module.weight())?, get(norm.bias, module.bias())?, size)
    }
}

/// The same, of one layer.
#[derive(Clone, Copy)]
pub(super) struct LayerLoader<'a> {
    pub all: Loader<'a>,
    pub layer: usize,
}

impl<'a> LayerLoader<'a> {
    pub fn config(&self) -> &'a ModelConfig {
        self.all.config
    }

    pub fn linear(&self, modules: &[(LayerModule, usize)], inputs: usize, bias: bool) -> Result<Linear> {
        let modules: Vec<_> =
            modules.iter().map(|(module, outputs)| (Module::Layer(self.layer, *module), *outputs)).collect();
        self.all.linear(&modules, inputs, bias)
    }

    /// A norm of the stream, where there is one.
    pub fn norm(&self, present: bool, module: LayerModule) -> Result<Option<Norm>> {
        let module = Module::Layer(self.layer, module);
        present.then(|| self.all.norm(module, self.config().hidden)).transpose()
    }

    /// A norm of queries or keys.
    pub fn head_norm(&self, module: LayerModule, size: usize, bias: bool) -> Result<Norm> {
        self.all.norm_with(Module::Layer(self.layer, module), size, bias)
    }
}
