//! The parameters that a decoder asks for, by our names, and where it gets them from: the
//! checkpoint implements [`ParameterSource`].

use std::fmt;

use super::config::{ModelConfig, NormPlacement};
use super::precision::MatrixRole;
use crate::error::Result;
use crate::kernels::matmul::RawMatrix;

/// A parameter, by our name: the weight or the bias of a module.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Parameter {
    pub module: Module,
    pub part: Part,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Part {
    Weight,
    Bias,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Module {
    Embedding,
    /// Learned positions.
    Positions,
    /// An encoder's embedding of which of two texts a token belongs to.
    TokenTypes,
    EmbeddingNorm,
    /// From the embedding's width to the stream's, and back.
    EmbeddingProjection,
    OutputProjection,
    FinalNorm,
    OutputHead,
    Layer(usize, LayerModule),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LayerModule {
    AttentionNorm,
    Query,
    Key,
    Value,
    QueryNorm,
    KeyNorm,
    AttentionOutput,
    AttentionPostNorm,
    MlpNorm,
    MlpPostNorm,
    Mlp(Projection),
    /// Says which experts a token goes to.
    Router,
    Expert(usize, Projection),
    SharedExpert(Projection),
    SharedExpertGate,
}

/// The projections of an MLP; one without a gate has no `Gate`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Projection {
    Gate,
    Up,
    Down,
}

impl Module {
    pub fn weight(self) -> Parameter {
        Parameter { module: self, part: Part::Weight }
    }

    pub fn bias(self) -> Parameter {
        Parameter { module: self, part: Part::Bias }
    }
}

impl Parameter {
    /// What the parameter is for, if it is a matrix that products run over.
    pub fn role(self) -> Option<MatrixRole> {
        use LayerModule::*;
        match self {
            Parameter { part: Part::Bias, .. } => None,
            Parameter { module, .. } => match module {
                Module::Embedding | Module::OutputHead => Some(MatrixRole::Table),
                Module::EmbeddingProjection | Module::OutputProjection => Some(MatrixRole::Projection),
                Module::Layer(_, Router | SharedExpertGate) => Some(MatrixRole::Router),
                Module::Layer(_, Query | Key | Value | AttentionOutput)
                | Module::Layer(_, Mlp(_) | Expert(..) | SharedExpert(_)) => Some(MatrixRole::Projection),
                _ => None,
            },
        }
    }
}

impl fmt::Display for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.module {
            Module::Layer(layer, module) => write!(f, "layer {layer} {module:?}")?,
            module => write!(f, "{module:?}")?,
        }
        f.write_str(if self.part == Part::Weight { " weight" } else { " bias" })
    }
}

/// Where parameters come from: the checkpoint implements it.
pub trait ParameterSource {
    /// The values of a parameter, whose shape the source has checked against `shape`
    /// (a vector is one row).
    ///
    /// # Errors
    /// If it is missing or has another shape or type.
    fn parameter(&self, parameter: Parameter, shape: &[usize]) -> Result<RawMatrix<'_>>;

    /// Told of each part of a matrix's bytes once it has been copied: its memory can go.
    fn taken(&self, bytes: &[u8]) {
        let _ = bytes;
    }
}

impl ModelConfig {
    /// Every parameter that the decoder asks for, with its shape (a vector has one number).
    pub fn parameters(&self) -> Vec<(Parameter, Vec<usize>)> {
        let mut list = List(vec![]);
        let hidden = self.hidden;
        list.weight(Module::Embedding, &[self.vocabulary, self.embedding_width]);
        if let Some(positions) = &self.learned_positions {
            list.weight(Module::Positions, &[positions.rows, hidden]);
        }
        if self.token_types > 0 {
            list.weight(Module::TokenTypes, &[self.token_types, hidden]);
        }
        if self.embedding_norm {
            self.list_norm(&mut list, Module::EmbeddingNorm, hidden, self.norm.bias);
        }
        if self.embedding_width != hidden {
            list.weight(Module::EmbeddingProjection, &[hidden, self.embedding_width]);
            list.weight(Module::OutputProjection, &[self.embedding_width, hidden]);
        }
        for layer in 0..self.layers {
            self.list_layer(&mut list, layer);
        }
        if self.final_norm {
            self.list_norm(&mut list, Module::FinalNorm, hidden, self.norm.bias);
        }
        if self.has_own_head() {
            list.weight(Module::OutputHead, &[self.vocabulary, self.embedding_width]);
        }
        if self.head_bias {
            list.add(Module::OutputHead.bias(), &[self.vocabulary]);
        }
        list.0
    }

    fn list_layer(&self, list: &mut List, layer: usize) {
        use LayerModule::*;
        let at = |module| Module::Layer(layer, module);
        let (hidden, query, kv) = (self.hidden, self.query_width(), self.kv_width());
        if self.norm_placement.before() {
            self.list_norm(list, at(AttentionNorm), hidden, self.norm.bias);
            if !self.shared_norm {
                self.list_norm(list, at(MlpNorm), hidden, self.norm.bias);
            }
        }
        if self.norm_placement.after() || self.norm_placement == NormPlacement::AfterSum {
            self.list_norm(list, at(AttentionPostNorm), hidden, self.norm.bias);
            self.list_norm(list, at(MlpPostNorm), hidden, self.norm.bias);
        }
        let bias = self.query_key_value_bias;
        list.linear(at(Query), query, hidden, bias);
        list.linear(at(Key), kv, hidden, bias);
        list.linear(at(Value), kv, hidden, bias);
        if let Some(norm) = self.query_key_norm {
            let (query, key) = self.query_key_norm_sizes(norm);
            self.list_norm(list, at(QueryNorm), query, norm.bias);
            self.list_norm(list, at(KeyNorm), key, norm.bias);
        }
        list.linear(at(AttentionOutput), hidden, query, self.attention_output_bias);
        match self.experts_of(layer) {
            None => self.list_mlp(list, |projection| at(Mlp(projection)), self.intermediate),
            Some(experts) => {
                list.linear(at(Router), experts.count, hidden, false);
                for expert in 0..experts.count {
                    self.list_mlp(list, |projection| at(Expert(expert, projection)), experts.intermediate);
                }
                if let Some(shared) = experts.shared_intermediate {
                    list.linear(at(SharedExpertGate), 1, hidden, false);
                    self.list_mlp(list, |projection| at(SharedExpert(projection)), shared);
                }
            }
        }
    }

    fn list_mlp(&self, list: &mut List, at: impl Fn(Projection) -> Module, inner: usize) {
        if self.gated {
            list.linear(at(Projection::Gate), inner, self.hidden, self.mlp_bias);
        }
        list.linear(at(Projection::Up), inner, self.hidden, self.mlp_bias);
        list.linear(at(Projection::Down), self.hidden, inner, self.mlp_bias);
    }

    fn list_norm(&self, list: &mut List, module: Module, size: usize, bias: bool) {
        if self.norm.weight {
            list.weight(module, &[size]);
        }
        if bias {
            list.add(module.bias(), &[size]);
        }
    }

    /// How many numbers the parameters hold.
    pub fn parameter_count(&self) -> usize {
        self.parameters().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }
}

struct List(Vec<(Parameter, Vec<usize>)>);

impl List {
    fn add(&mut self, parameter: Parameter, shape: &[usize]) {
        self.0.push((parameter, shape.to_vec()));
    }

    fn weight(&mut self, module: Module, shape: &[usize]) {
        self.add(module.weight(), shape);
    }

    fn linear(&mut self, module: Module, outputs: usize, inputs: usize, bias: bool) {
        self.weight(module, &[outputs, inputs]);
        if bias {
            self.add(module.bias(), &[outputs]);
        }
    }
}
