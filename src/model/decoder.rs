//! The decoder: tokens → embedding → blocks → norm → logits. [`Decoder::forward`] is the only
//! forward pass there is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Tensor;

use super::block::Block;
use super::config::{ModelConfig, Multipliers, Parameter, ParameterSource};
use super::kv_cache::KvCache;
use super::mask::Mask;
use super::observer::{AttentionObserver, StepShape};
use super::ops::{Linear, Norm, Ops};
use super::position;
use super::step::Step;
use crate::error::{Error, Result};

/// A decoder-only transformer with its weights.
pub struct Decoder {
    config: ModelConfig,
    ops: Ops,
    embedding: Linear,
    blocks: Vec<Block>,
    final_norm: Norm,
    /// `None` where the embedding serves as the head.
    head: Option<Linear>,
    /// Of each kind of rotary positions, `[head_dim/2]`.
    frequencies: Vec<Vec<f32>>,
}

/// What one call of [`Decoder::forward`] is to do besides computing the last token's logits.
#[derive(Default)]
pub struct Forward<'a> {
    pub mask: Mask,
    pub logits: LogitRows,
    pub observer: Option<&'a mut dyn AttentionObserver>,
    /// Looked at before each layer: raised, it ends the step with [`Error::Interrupted`].
    pub interrupt: Option<Arc<AtomicBool>>,
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
        let hidden = config.hidden;
        let table = [config.vocabulary, hidden];
        let embedding = ops.table_from(source.parameter(Parameter::Embedding, &table)?)?;
        let blocks = (0..config.layers)
            .map(|layer| Block::new(&config, &ops, source, layer))
            .collect::<Result<Vec<_>>>()?;
        let final_norm = ops.norm_from(source.parameter(Parameter::FinalNorm, &[hidden])?, &config)?;
        let head = if config.tied_head {
            None
        } else {
            Some(ops.table_from(source.parameter(Parameter::OutputHead, &table)?)?)
        };
        let frequencies =
            config.rotaries.iter().map(|rotary| position::frequencies(rotary, config.head_dim)).collect();
        Ok(Decoder { config, ops, embedding, blocks, final_norm, head, frequencies })
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
        Ok(KvCache::new(self.ops.keys_values(&self.config, capacity)?, capacity))
    }

    /// Bytes of weights that a single token's step reads.
    pub fn weight_bytes_per_token(&self) -> usize {
        let blocks: usize = self.blocks.iter().map(Block::bytes).sum();
        blocks + self.head.as_ref().unwrap_or(&self.embedding).bytes()
    }

    /// One step: feeds `tokens` at the positions behind the cache's, adds their keys and values to
    /// it, and gives the logits that [`Forward::logits`] asks for, in f32.
    ///
    /// After an error the cache still holds what it held before.
    ///
    /// # Errors
    /// No tokens, a token outside the vocabulary, no room in the cache, values that are not finite
    /// (with the layer's name), or what the observer answers.
    pub fn forward(&self, tokens: &[u32], cache: &mut KvCache, request: Forward<'_>) -> Result<Tensor> {
        let Forward { mask, logits, mut observer, interrupt } = request;
        self.check_tokens(tokens)?;
        if !cache.fits(&self.config, self.ops.uses_kernels()) {
            return Err(Error::Usage("this cache was made by another decoder".into()));
        }
        cache.reserve(tokens.len())?;
        let depth = cache.len();
        let angles =
            self.frequencies.iter().map(|kind| position::angles(kind, depth, tokens.len())).collect();
        let step = Step { depth, tokens: tokens.len(), mask, angles };
        if let Some(observer) = &mut observer {
            let keys = depth + tokens.len();
            observer.begin_step(StepShape { first_query: depth, queries: tokens.len(), keys })?;
        }

        let Multipliers { embedding, logits: logits_multiplier, .. } = self.config.multipliers;
        let mut hidden = self.ops.scale(self.ops.embed(&self.embedding, tokens)?, embedding)?; // [tokens, hidden]
        self.check_finite(&hidden, &step, || "the embedding".into())?;
        for (layer, block) in self.blocks.iter().enumerate() {
            if interrupt.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed)) {
                return Err(Error::Interrupted);
            }
            let observer: Option<&mut dyn AttentionObserver> = match &mut observer {
                Some(observer) if observer.wants(layer) => Some(&mut **observer),
                _ => None,
            };
            hidden = block.forward(&self.ops, &hidden, &step, &mut cache.store, observer)?;
            self.check_finite(&hidden, &step, || format!("layer {layer}"))?;
        }
        if logits == LogitRows::Last {
            hidden = self.ops.last_row(&hidden)?; // [1, hidden]
        }
        let hidden = self.ops.norm(&hidden, Some(&self.final_norm))?;
        let head = self.head.as_ref().unwrap_or(&self.embedding);
        let logits = self.ops.scale(self.ops.linear(&hidden, head)?, logits_multiplier)?; // [rows, vocabulary]
        let logits = self.ops.soft_cap(logits, self.config.logit_cap)?;
        self.check_finite(&logits, &step, || "the output head".into())?;

        if let Some(observer) = &mut observer {
            observer.end_step()?;
        }
        cache.advance(tokens.len());
        Ok(logits)
    }

    fn check_tokens(&self, tokens: &[u32]) -> Result<()> {
        if tokens.is_empty() {
            return Err(Error::Usage("a step needs at least one token".into()));
        }
        match tokens.iter().find(|id| **id as usize >= self.config.vocabulary) {
            Some(id) => Err(Error::TokenOutOfRange { id: *id, vocabulary: self.config.vocabulary }),
            None => Ok(()),
        }
    }

    fn check_finite(&self, values: &Tensor, step: &Step, place: impl Fn() -> String) -> Result<()> {
        if self.ops.all_finite(values)? {
            return Ok(());
        }
        Err(Error::NotFinite {
            place: place(),
            first: step.depth,
            last: step.depth + step.tokens - 1,
            dtype: self.ops.element().name(),
        })
    }
}
