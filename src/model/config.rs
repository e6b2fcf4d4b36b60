//! What a decoder is made of: sizes, positions, and the parameters that it asks for by our names.
//!
//! A family (`checkpoint::families`) fills a [`ModelConfig`] from its `config.json`; the decoder
//! reads nothing else.

use std::fmt;

use serde::Serialize;

use super::precision::MatrixRole;
use crate::error::Result;
use crate::kernels::elementwise::Activation;
use crate::kernels::matmul::RawMatrix;

/// The whole difference between one decoder and another.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelConfig {
    /// The `model_type` it was translated from.
    pub family: String,
    pub vocabulary: usize,
    pub hidden: usize,
    /// Width of the gated layer of the MLP.
    pub intermediate: usize,
    pub layers: usize,
    /// Query heads of a layer.
    pub heads: usize,
    /// Key/value heads of a layer; `heads` is a multiple.
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Positions that the model was made for.
    pub context: usize,
    /// ε of the RMS norms.
    pub norm_epsilon: f64,
    /// Added to the norms' weights: Gemma's are stored as differences from 1.
    pub norm_offset: f64,
    /// Whether attention and MLP have a norm before them, and one after them.
    pub norm_before: bool,
    pub norm_after: bool,
    /// The kinds of rotary positions in the model; the first is that of its full attention.
    pub rotaries: Vec<Rotary>,
    /// For each layer: by which kind its queries and keys turn, if they do.
    pub rotary_layers: Vec<Option<usize>>,
    /// For each layer: how many keys a query sees, its own included; `None`: all.
    pub windows: Vec<Option<usize>>,
    /// Scores are multiplied by this before the softmax: 1/√dₖ in most families.
    pub attention_scale: f64,
    /// Scores become cap · tanh(score / cap), and so do logits, in Gemma 2.
    pub score_cap: Option<f64>,
    pub logit_cap: Option<f64>,
    /// An RMS norm that queries and keys pass before they are turned.
    pub query_key_norm: Option<QueryKeyNorm>,
    /// Biases on query, key and value.
    pub query_key_value_bias: bool,
    /// A bias on the attention's output projection.
    pub attention_output_bias: bool,
    /// What the MLP's gate passes through.
    pub activation: Activation,
    /// Biases on the MLP's three projections.
    pub mlp_bias: bool,
    /// Whether the output head is the embedding.
    pub tied_head: bool,
    pub multipliers: Multipliers,
}

/// Over what the norm of queries and keys runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum QueryKeyNorm {
    /// Each head alone.
    Heads,
    /// All query heads together, and all key heads.
    Whole,
}

/// Numbers that some families multiply the stream by; 1 in the others.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Multipliers {
    pub embedding: f64,
    /// Of what attention and MLP add to the residual stream.
    pub residual: f64,
    pub logits: f64,
}

impl Multipliers {
    /// All 1.
    pub const NONE: Multipliers = Multipliers { embedding: 1.0, residual: 1.0, logits: 1.0 };
}

/// Rotary positions (Su et al. 2021): angle *i* of position *p* is p / baseᵢ, baseᵢ = base^(2i/head_dim).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rotary {
    pub base: f64,
    pub scaling: RotaryScaling,
}

impl Rotary {
    fn validate(&self) -> Result<(), String> {
        if !(self.base > 0.0 && self.base.is_finite()) {
            return Err(format!("rope_theta is {}, expected a positive number", self.base));
        }
        if let RotaryScaling::Llama3 {
            low_frequency_factor: low,
            high_frequency_factor: high,
            original_context,
            ..
        } = self.scaling
            && !(low < high && original_context > 0.0)
        {
            return Err(format!(
                "rope scaling llama3 has low_freq_factor {low}, high_freq_factor {high} and \
                 original_max_position_embeddings {original_context}, expected rising factors and a positive number"
            ));
        }
        Ok(())
    }
}

/// How the angles are stretched for contexts longer than the model was first trained on.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RotaryScaling {
    None,
    /// Every angle divided by `factor` (Chen et al. 2023).
    Linear {
        factor: f64,
    },
    /// Llama 3.1: slow angles divided by `factor`, fast ones kept, those between interpolated.
    Llama3 {
        factor: f64,
        low_frequency_factor: f64,
        high_frequency_factor: f64,
        original_context: f64,
    },
}

/// A parameter, by our name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Parameter {
    Embedding,
    FinalNorm,
    OutputHead,
    Layer(usize, LayerParameter),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LayerParameter {
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
    Gate,
    Up,
    Down,
    QueryBias,
    KeyBias,
    ValueBias,
    AttentionOutputBias,
    GateBias,
    UpBias,
    DownBias,
}

impl Parameter {
    /// What the parameter is for, if it is a matrix.
    pub fn role(self) -> MatrixRole {
        match self {
            Parameter::Embedding | Parameter::OutputHead => MatrixRole::Table,
            _ => MatrixRole::Projection,
        }
    }
}

impl fmt::Display for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Parameter::Embedding => f.write_str("embedding"),
            Parameter::FinalNorm => f.write_str("final norm"),
            Parameter::OutputHead => f.write_str("output head"),
            Parameter::Layer(layer, parameter) => write!(f, "layer {layer} {parameter:?}"),
        }
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
}

impl ModelConfig {
    /// Checks that the sizes make a decoder.
    ///
    /// # Errors
    /// What is wrong first; the caller knows the file.
    pub fn validate(&self) -> Result<(), String> {
        let problem = |text: String| Err(text);
        // Far beyond any model.
        const LARGEST: usize = 1 << 24;
        for (name, size) in [
            ("vocab_size", self.vocabulary),
            ("hidden_size", self.hidden),
            ("intermediate_size", self.intermediate),
            ("num_hidden_layers", self.layers),
            ("num_attention_heads", self.heads),
            ("num_key_value_heads", self.kv_heads),
            ("head_dim", self.head_dim),
            ("num_attention_heads · head_dim", self.heads.saturating_mul(self.head_dim)),
        ] {
            if size == 0 || size > LARGEST {
                return problem(format!("{name} is {size}, expected 1 to {LARGEST}"));
            }
        }
        if self.layers > 10_000 {
            return problem(format!("num_hidden_layers is {}, expected at most 10000", self.layers));
        }
        if self.context == 0 || self.context > 1 << 32 {
            return problem(format!("max_position_embeddings is {}, expected 1 to 2³²", self.context));
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return problem(format!(
                "num_attention_heads is {}, expected a multiple of num_key_value_heads ({})",
                self.heads, self.kv_heads
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            return problem(format!("head_dim is {}, expected an even number", self.head_dim));
        }
        if !(self.norm_epsilon >= 0.0 && self.norm_epsilon.is_finite()) {
            return problem(format!(
                "rms_norm_eps is {}, expected a small positive number",
                self.norm_epsilon
            ));
        }
        for rotary in &self.rotaries {
            rotary.validate()?;
        }
        if self.rotary_layers.len() != self.layers {
            return problem("no_rope_layers: expected one entry for each layer".into());
        }
        if self.windows.len() != self.layers || self.windows.contains(&Some(0)) {
            return problem(
                "layer_types or sliding_window: expected one window of at least 1 for each layer".into(),
            );
        }
        if [self.score_cap, self.logit_cap].into_iter().flatten().any(|cap| cap.is_nan() || cap <= 0.0) {
            return problem("a softcapping is not a positive number".into());
        }
        let Multipliers { embedding, residual, logits } = self.multipliers;
        if ![self.attention_scale, embedding, residual, logits].iter().all(|factor| factor.is_finite()) {
            return problem("a multiplier is not a finite number".into());
        }
        // So many that no size computed from it overflows: 2^40 numbers are 2 TB in 16 bits.
        let widest = self.hidden.max(self.query_width()) as u128;
        let layer = widest * (4 * widest + 3 * self.intermediate as u128);
        let parameters = layer * self.layers as u128 + 2 * widest * self.vocabulary as u128;
        if parameters > 1 << 40 {
            return problem(format!("the sizes make about {parameters} parameters, expected fewer than 2⁴⁰"));
        }
        Ok(())
    }

    /// Width of all query heads together.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key (or value) heads together.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Values that a norm of queries, and one of keys, runs over.
    pub(super) fn query_key_norm_sizes(&self, norm: QueryKeyNorm) -> (usize, usize) {
        match norm {
            QueryKeyNorm::Heads => (self.head_dim, self.head_dim),
            QueryKeyNorm::Whole => (self.query_width(), self.kv_width()),
        }
    }

    /// Every parameter that the decoder asks for, with its shape (a vector has one number).
    pub fn parameters(&self) -> Vec<(Parameter, Vec<usize>)> {
        use LayerParameter::*;
        let (hidden, inner, query, kv) =
            (self.hidden, self.intermediate, self.query_width(), self.kv_width());
        let mut all = vec![(Parameter::Embedding, vec![self.vocabulary, hidden])];
        for layer in 0..self.layers {
            let mut add = |parameter, shape: &[usize]| {
                all.push((Parameter::Layer(layer, parameter), shape.to_vec()));
            };
            if self.norm_before {
                add(AttentionNorm, &[hidden]);
                add(MlpNorm, &[hidden]);
            }
            if self.norm_after {
                add(AttentionPostNorm, &[hidden]);
                add(MlpPostNorm, &[hidden]);
            }
            add(Query, &[query, hidden]);
            add(Key, &[kv, hidden]);
            add(Value, &[kv, hidden]);
            add(AttentionOutput, &[hidden, query]);
            add(Gate, &[inner, hidden]);
            add(Up, &[inner, hidden]);
            add(Down, &[hidden, inner]);
            if let Some(norm) = self.query_key_norm {
                let (query, key) = self.query_key_norm_sizes(norm);
                add(QueryNorm, &[query]);
                add(KeyNorm, &[key]);
            }
            if self.query_key_value_bias {
                add(QueryBias, &[query]);
                add(KeyBias, &[kv]);
                add(ValueBias, &[kv]);
            }
            if self.attention_output_bias {
                add(AttentionOutputBias, &[hidden]);
            }
            if self.mlp_bias {
                add(GateBias, &[inner]);
                add(UpBias, &[inner]);
                add(DownBias, &[hidden]);
            }
        }
        all.push((Parameter::FinalNorm, vec![hidden]));
        if !self.tied_head {
            all.push((Parameter::OutputHead, vec![self.vocabulary, hidden]));
        }
        all
    }

    /// How many numbers the parameters hold.
    pub fn parameter_count(&self) -> usize {
        self.parameters().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }

    /// Bytes that the keys and values of one position take in the cache, over all layers (f32).
    pub fn cache_bytes_per_token(&self) -> usize {
        self.layers * 2 * self.kv_width() * size_of::<f32>()
    }
}
