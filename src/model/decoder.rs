//! The decoder: tokens → embedding → blocks → norm → logits. [`Decoder::forward`] is the only
//! forward pass there is ([`stream`](super::stream) has its parts); an encoder's stops before the logits.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use candle_core::Tensor;

use super::block::Block;
use super::config::{Alibi, ModelConfig};
use super::embedding::Embedding;
use super::kv_cache::KvCache;
use super::loader::Loader;
use super::mask::Mask;
use super::observer::{AttentionObserver, StepShape};
use super::ops::{Linear, Norm, Ops};
use super::parameter::{Module, ParameterSource};
use super::position::{Frequencies, Rotary};
use super::step::Step;
use crate::error::{Error, Result};
use crate::kernels::cache::CacheType;

/// A transformer with its weights.
pub struct Decoder {
    config: ModelConfig,
    ops: Ops,
    embedding: Embedding,
    blocks: Vec<Block>,
    final_norm: Option<Norm>,
    /// From the stream's width to the embedding's.
    output_projection: Option<Linear>,
    /// `None` where the embedding serves as the head, or there is none.
    head: Option<Linear>,
    /// `[vocabulary]`
    head_bias: Option<Tensor>,
    /// Of each kind of rotary positions, for texts of any length where they do not depend on it.
    frequencies: Vec<Frequencies>,
}

/// What one call of [`Decoder::forward`] is to do besides computing the last token's logits.
#[derive(Default)]
pub struct Forward<'a> {
    /// What queries see; `None`: what the model was made for.
    pub mask: Option<Mask>,
    pub logits: LogitRows,
    pub observer: Option<&'a mut dyn AttentionObserver>,
    /// Looked at before each layer: raised, it ends the step with [`Error::Interrupted`].
    pub interrupt: Option<Arc<AtomicBool>>,
    /// Tokens of the whole text, where more of it will follow than is fed now: rotary positions that
    /// depend on the length are chosen for it from the start.
    pub text_length: usize,
}

/// Which tokens' logits are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogitRows {
    /// The last token's: `[1, vocabulary]`.
    #[default]
    Last,
    /// Every token's: `[tokens, vocabulary]`.
    All,
}

impl Decoder {
    /// Takes the parameters from their source.
    ///
    /// # Errors
    /// The source's; or a tensor operation's.
    pub fn new(config: ModelConfig, ops: Ops, source: &dyn ParameterSource) -> Result<Decoder> {
        let load = Loader { config: &config, ops: &ops, source };
        let (hidden, width, vocabulary) = (config.hidden, config.embedding_width, config.vocabulary);
        let embedding = Embedding::new(load)?;
        let blocks =
            (0..config.layers).map(|layer| Block::new(load.layer(layer))).collect::<Result<Vec<_>>>()?;
        let final_norm = config.final_norm.then(|| load.norm(Module::FinalNorm, hidden)).transpose()?;
        let output_projection = (width != hidden)
            .then(|| load.linear(&[(Module::OutputProjection, width)], hidden, false))
            .transpose()?;
        let head = config
            .has_own_head()
            .then(|| load.linear(&[(Module::OutputHead, vocabulary)], width, false))
            .transpose()?;
        let head_bias = config
            .head_bias
            .then(|| ops.table(&source.parameter(Module::OutputHead.bias(), &[vocabulary])?))
            .transpose()?;
        let frequencies = config.rotaries.iter().map(|rotary| rotary.frequencies(0)).collect();
        Ok(Decoder {
            config,
            ops,
            embedding,
            blocks,
            final_norm,
            output_projection,
            head,
            head_bias,
            frequencies,
        })
    }

    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub fn ops(&self) -> &Ops {
        &self.ops
    }

    /// An empty cache for `capacity` positions.
    ///
    /// # Errors
    /// If `capacity` is 0 or past the model's context, or the device has no memory for it.
    pub fn new_cache(&self, capacity: usize) -> Result<KvCache> {
        if capacity == 0 || capacity > self.config.context {
            return Err(Error::ContextFull {
                needed: capacity,
                context: self.config.context,
                hint: "that is the model's own; ask for 1 to that many".into(),
            });
        }
        Ok(KvCache::new(self.ops.keys_values(&self.config, capacity)?, self.ops.cache_type(), capacity))
    }

    /// As what keys and values are held: candle's operations hold those of `q8_0` decoded.
    pub(crate) fn cache_rows(&self) -> CacheType {
        match self.ops.cache_type() {
            CacheType::Q8_0 if !self.ops.uses_kernels() => CacheType::F32,
            held => held,
        }
    }

    /// Whether keys that were turned as part of a text of `before` tokens are those of the same tokens
    /// in one of `now`.
    pub(crate) fn turns_alike(&self, before: usize, now: usize) -> bool {
        self.config.rotaries.iter().all(|rotary| {
            !rotary.depends_on_length() || rotary.frequencies(before) == rotary.frequencies(now)
        })
    }

    /// Bytes of weights that a single token's step reads.
    pub fn weight_bytes_per_token(&self) -> usize {
        let blocks: usize = self.blocks.iter().map(Block::bytes).sum();
        let projections = [self.embedding.projection.as_ref(), self.output_projection.as_ref()];
        let projections: usize = projections.into_iter().flatten().map(Linear::bytes).sum();
        blocks + projections + if self.config.is_encoder() { 0 } else { self.head().bytes() }
    }

    fn head(&self) -> &Linear {
        self.head.as_ref().unwrap_or(&self.embedding.table)
    }

    /// One step: feeds `tokens` at the positions behind the cache's, adds their keys and values to
    /// it, and gives the logits that [`Forward::logits`] asks for, in f32; of an encoder, the last
    /// hidden states of these tokens, `[rows, hidden]`.
    ///
    /// Where rotary positions depend on the text's length and it has outgrown those in the cache,
    /// the tokens in the cache are read again first (as Phi-3 does in Transformers). The observer
    /// does not see that.
    ///
    /// After an error the cache still holds what it held before, or is empty if such a second
    /// reading failed.
    ///
    /// # Errors
    /// No tokens, a token outside the vocabulary, no room in the cache, values that are not finite
    /// (with the layer's name), a second step of an encoder, or what the observer answers.
    pub fn forward(&self, tokens: &[u32], cache: &mut KvCache, request: Forward<'_>) -> Result<Tensor> {
        let Forward { mask, logits, mut observer, interrupt, text_length } = request;
        let interrupt = interrupt.as_ref();
        let mut stream = self.enter(tokens, cache, mask, text_length, interrupt)?;
        if let Some(observer) = &mut observer {
            let (first_query, queries) = (stream.step.depth, stream.step.tokens);
            observer.begin_step(StepShape { first_query, queries, keys: first_query + queries })?;
        }
        let layers = 0..self.config.layers;
        let seen = observer.as_mut().map(|observer| &mut **observer as &mut dyn AttentionObserver);
        stream = self.pass_for(logits, &stream, layers, cache, seen, interrupt)?;
        let rows = 0..if logits == LogitRows::Last { 1 } else { tokens.len() };
        let out = self.read(&stream, rows)?;
        if let Some(observer) = &mut observer {
            observer.end_step()?;
        }
        self.commit(tokens, &stream, cache);
        Ok(out)
    }

    /// What is fed, and behind what.
    pub(super) fn step(&self, tokens: usize, depth: usize, mask: Mask, text_length: usize) -> Step {
        let angles = |(rotary, fixed): (&Rotary, &Frequencies)| match rotary.depends_on_length() {
            true => rotary.frequencies(text_length).angles(depth, tokens),
            false => fixed.angles(depth, tokens),
        };
        let bias = |alibi: &Alibi| alibi.biases(depth + tokens, self.config.attention_scales[0]);
        Step {
            depth,
            tokens,
            mask,
            angles: self.config.rotaries.iter().zip(&self.frequencies).map(angles).collect(),
            bias: self.config.alibi.as_ref().map(bias),
        }
    }

    /// `[tokens, hidden]`, for tokens from position `first` on.
    pub(super) fn embed(&self, tokens: &[u32], first: usize) -> Result<Tensor> {
        self.embedding.forward(&self.ops, tokens, first)
    }

    pub(super) fn block(&self, layer: usize) -> &Block {
        &self.blocks[layer]
    }

    pub(super) fn last_norm(&self, hidden: &Tensor) -> Result<Tensor> {
        self.ops.norm(hidden, self.final_norm.as_ref())
    }

    /// `[rows, hidden]` → `[rows, vocabulary]`.
    pub(super) fn logits(&self, mut hidden: Tensor) -> Result<Tensor> {
        if let Some(projection) = &self.output_projection {
            hidden = self.ops.linear(&hidden, projection)?;
        }
        let mut logits = self.ops.linear(&hidden, self.head())?;
        if let Some(bias) = &self.head_bias {
            logits = logits.broadcast_add(bias)?;
        }
        let logits = self.ops.scale(logits, self.config.multipliers.logits)?;
        self.ops.soft_cap(logits, self.config.logit_cap)
    }

    pub(super) fn check_tokens(&self, tokens: &[u32]) -> Result<()> {
        if tokens.is_empty() {
            return Err(Error::Usage("a step needs at least one token".into()));
        }
        match tokens.iter().find(|id| **id as usize >= self.config.vocabulary) {
            Some(id) => Err(Error::TokenOutOfRange { id: *id, vocabulary: self.config.vocabulary }),
            None => Ok(()),
        }
    }

    pub(super) fn check_finite(
        &self,
        values: &Tensor,
        step: &Step,
        place: impl Fn() -> String,
    ) -> Result<()> {
        if self.ops.all_finite(values)? {
            return Ok(());
        }
        Err(Error::NotFinite {
            place: place(),
            first: step.depth,
            last: step.depth + step.tokens - 1,
            dtype: self.ops.element().name(),
            cache: self.ops.cache_type().name(),
        })
    }
}
