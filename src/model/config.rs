//! What a model is made of: sizes, norms, positions, the kinds of its layers.
//!
//! A family (`checkpoint::families`) fills a [`ModelConfig`] from its `config.json`; the decoder
//! reads nothing else.

use serde::Serialize;

use super::mask::Mask;
use super::position::Rotary;
use crate::kernels::activation::Activation;
use crate::kernels::cache::CacheType;
use crate::kernels::norm::NormKind;

/// The whole difference between one model and another.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelConfig {
    /// The `model_type` it was translated from.
    pub family: String,
    pub vocabulary: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the embedding and of what the output head reads; in most families `hidden`.
    pub embedding_width: usize,
    /// Width of the MLP's inner layer.
    pub intermediate: usize,
    pub layers: usize,
    /// Query heads of a layer.
    pub heads: usize,
    /// Key/value heads of a layer; `heads` is a multiple.
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Positions that the model was made for.
    pub context: usize,
    /// What its queries see: earlier keys in a decoder, all keys in an encoder, which has no head.
    pub mask: Mask,
    pub norm: Normalization,
    /// Where in a layer the norms stand.
    pub norm_placement: NormPlacement,
    /// Whether attention and MLP read the same normed stream.
    pub shared_norm: bool,
    /// Whether the MLP reads the stream as it was before attention added to it (Wang and Komatsuzaki
    /// 2021).
    pub parallel_residual: bool,
    /// Whether the embedding passes a norm, and the stream before the head.
    pub embedding_norm: bool,
    pub final_norm: bool,
    /// Vectors added to the embedding by position.
    pub learned_positions: Option<LearnedPositions>,
    /// Rows of the table of token types, the first of which is added to every embedding; 0: none.
    pub token_types: usize,
    /// The kinds of rotary positions in the model; the first is that of its full attention.
    pub rotaries: Vec<Rotary>,
    /// For each layer: by which kind its queries and keys turn, if they do.
    pub rotary_layers: Vec<Option<usize>>,
    /// Scores fall with distance instead.
    pub alibi: Option<Alibi>,
    /// For each layer: how many keys a query sees, its own included; `None`: all.
    pub windows: Vec<Option<usize>>,
    /// For each layer: scores are multiplied by this before the softmax; 1/√dₖ in most families.
    pub attention_scales: Vec<f64>,
    /// Scores become cap · tanh(score / cap), and so do logits, in Gemma 2.
    pub score_cap: Option<f64>,
    pub logit_cap: Option<f64>,
    /// A norm that queries and keys pass before they are turned.
    pub query_key_norm: Option<QueryKeyNorm>,
    /// Queries, keys and values are held within ± this.
    pub query_key_value_clip: Option<f64>,
    /// Biases on query, key and value.
    pub query_key_value_bias: bool,
    /// A bias on the attention's output projection.
    pub attention_output_bias: bool,
    /// Whether the MLP multiplies by a gate.
    pub gated: bool,
    /// What the MLP's gate passes through, or its inner layer where there is no gate.
    pub activation: Activation,
    /// Biases on the MLP's projections.
    pub mlp_bias: bool,
    /// Layers whose MLP is a choice among several.
    pub experts: Option<Experts>,
    /// Whether the output head is the embedding.
    pub tied_head: bool,
    pub head_bias: bool,
    pub multipliers: Multipliers,
}

/// How a vector is normed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Normalization {
    pub kind: NormKind,
    /// Added to the variance, or to the mean square.
    pub epsilon: f64,
    /// Whether it multiplies by a weight.
    pub weight: bool,
    /// Added to the weights: Gemma's are stored as differences from 1.
    pub offset: f64,
    pub bias: bool,
}

/// Where in a layer its norms stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NormPlacement {
    /// Before attention and before the MLP (Xiong et al. 2020).
    Before,
    /// After each, before it is added to the stream.
    After,
    BeforeAndAfter,
    /// After each has been added to the stream (Vaswani et al. 2017).
    AfterSum,
}

impl NormPlacement {
    pub(super) fn before(self) -> bool {
        matches!(self, NormPlacement::Before | NormPlacement::BeforeAndAfter)
    }

    pub(super) fn after(self) -> bool {
        matches!(self, NormPlacement::After | NormPlacement::BeforeAndAfter)
    }
}

/// A norm of queries and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct QueryKeyNorm {
    pub over: NormOver,
    pub bias: bool,
}

/// Over what the norm of queries and keys runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NormOver {
    /// Each head alone, with the same weights.
    Heads,
    /// Each head alone, with weights of its own.
    EachHead,
    /// All query heads together, and all key heads.
    Whole,
}

/// Learned positions: row `position + offset` of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LearnedPositions {
    pub rows: usize,
    pub offset: usize,
    /// RoBERTa counts only tokens that are not this one, which itself takes the row before `offset`.
    pub padding: Option<u32>,
}

/// Attention with linear biases (Press et al. 2022): each head adds slope · key position to its scores.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Alibi {
    /// For each head.
    pub slopes: Vec<f32>,
    /// Whether slopes and biases are rounded to bf16, and the biases scaled with the scores, as
    /// Falcon was trained.
    pub rounded_and_scaled: bool,
}

/// A mixture of experts (Shazeer et al. 2017): each token passes the few MLPs that a router chooses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Experts {
    pub count: usize,
    /// How many each token passes.
    pub chosen: usize,
    /// Width of an expert's inner layer.
    pub intermediate: usize,
    /// Whether the chosen experts' weights are made to sum to 1.
    pub normalized: bool,
    /// Width of the inner layer of one more MLP that every token passes, behind a gate of its own.
    pub shared_intermediate: Option<usize>,
    /// For each layer: whether it has experts.
    pub layers: Vec<bool>,
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
            ("word_embed_proj_dim", self.embedding_width),
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
        if !(self.norm.epsilon >= 0.0 && self.norm.epsilon.is_finite()) {
            return problem(format!(
                "the norms' epsilon is {}, expected a small positive number",
                self.norm.epsilon
            ));
        }
        for rotary in &self.rotaries {
            rotary.validate(self.head_dim)?;
        }
        if self.windows.len() != self.layers || self.windows.contains(&Some(0)) {
            return problem(
                "layer_types or sliding_window: expected one window of at least 1 for each layer".into(),
            );
        }
        if self.rotary_layers.len() != self.layers {
            return problem("no_rope_layers: expected one entry for each layer".into());
        }
        if let Some(experts) = &self.experts {
            experts.validate(self.layers)?;
        }
        if let Some(positions) = &self.learned_positions
            && positions.rows < self.context.saturating_add(positions.offset)
        {
            return problem(format!("{} rows of positions are too few for the context", positions.rows));
        }
        if self.alibi.as_ref().is_some_and(|alibi| alibi.slopes.len() != self.heads) {
            return problem("expected one slope for each head".into());
        }
        if self.query_key_value_clip.is_some_and(|clip| clip.is_nan() || clip <= 0.0) {
            return problem("clip_qkv is not a positive number".into());
        }
        if [self.score_cap, self.logit_cap].into_iter().flatten().any(|cap| cap.is_nan() || cap <= 0.0) {
            return problem("a softcapping is not a positive number".into());
        }
        let Multipliers { embedding, residual, logits } = self.multipliers;
        let scales = self.attention_scales.iter().chain([&embedding, &residual, &logits]);
        if self.attention_scales.len() != self.layers || !scales.copied().all(f64::is_finite) {
            return problem("a multiplier is not a finite number".into());
        }
        // So many that no size computed from it overflows: 2^40 numbers are 2 TB in 16 bits.
        let widest = self.hidden.max(self.query_width()) as u128;
        let experts = self.experts.as_ref().map_or(0, |experts| {
            experts.count as u128 * experts.intermediate as u128
                + experts.shared_intermediate.unwrap_or(0) as u128
        });
        let layer = widest * (4 * widest + 3 * (self.intermediate as u128 + experts));
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

    /// Values of the weights of the queries' norm, and of the keys'.
    pub(super) fn query_key_norm_sizes(&self, norm: QueryKeyNorm) -> (usize, usize) {
        match norm.over {
            NormOver::Heads => (self.head_dim, self.head_dim),
            NormOver::EachHead | NormOver::Whole => (self.query_width(), self.kv_width()),
        }
    }

    /// Whether what a position turns by depends on the length of the text around it.
    pub fn positions_depend_on_length(&self) -> bool {
        self.rotaries.iter().any(Rotary::depends_on_length)
    }

    /// The experts of a layer, where it has them.
    pub(super) fn experts_of(&self, layer: usize) -> Option<&Experts> {
        self.experts.as_ref().filter(|experts| experts.layers[layer])
    }

    /// Whether there is an output head that is not the embedding.
    pub(super) fn has_own_head(&self) -> bool {
        !self.is_encoder() && !self.tied_head
    }

    /// Checks that it predicts next tokens.
    ///
    /// # Errors
    /// If it is an encoder, with what it can do.
    pub fn check_generates(&self) -> crate::Result<()> {
        if !self.is_encoder() {
            return Ok(());
        }
        Err(crate::Error::Usage(format!(
            "{} is an encoder: it reads a whole text and predicts no next token; what it can do is show its \
             attention, with `attend map -m MODEL TEXT`",
            self.family
        )))
    }

    /// Whether it reads a whole text at once and predicts nothing: it has maps, and no logits.
    pub fn is_encoder(&self) -> bool {
        self.mask == Mask::None
    }

    /// Bytes that the keys and values of one position take in the cache, over all layers.
    pub fn cache_bytes_per_token(&self, held: CacheType) -> usize {
        self.layers * 2 * self.kv_heads * held.head_bytes(self.head_dim)
    }
}

impl Experts {
    fn validate(&self, layers: usize) -> Result<(), String> {
        // Far beyond any model.
        const MOST: usize = 1 << 16;
        let Experts { count, chosen, intermediate, shared_intermediate, .. } = self;
        if !(1..=MOST).contains(count) || !(1..=*count).contains(chosen) {
            return Err(format!(
                "num_experts is {count} and num_experts_per_tok {chosen}, expected 1 to {MOST}, and 1 to that many"
            ));
        }
        for (name, size) in [
            ("moe_intermediate_size", *intermediate),
            ("shared_expert_intermediate_size", shared_intermediate.unwrap_or(1)),
        ] {
            if size == 0 || size > 1 << 24 {
                return Err(format!("{name} is {size}, expected 1 to 2²⁴"));
            }
        }
        if count * layers > 1 << 20 {
            return Err(format!("{count} experts in {layers} layers, expected at most 2²⁰ together"));
        }
        if self.layers.len() != layers {
            return Err("expected one kind of MLP for each layer".into());
        }
        Ok(())
    }
}
