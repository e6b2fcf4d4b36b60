//! The forward pass in parts: tokens enter the residual stream ([`Decoder::enter`]), it passes some
//! layers ([`Decoder::pass`]), and logits are read off it ([`Decoder::read`]).
//!
//! [`Decoder::forward`] is these three in a row. Apart they let a caller run the later layers again
//! with something changed in them, or two models side by side, layer for layer.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Tensor;

use super::decoder::{Decoder, Forward, LogitRows};
use super::kv_cache::KvCache;
use super::mask::Mask;
use super::observer::AttentionObserver;
use super::step::Step;
use crate::error::{Error, Result};

/// Tokens of one step on their way through the layers.
#[derive(Clone)]
pub struct Stream {
    /// `[tokens, hidden]`; `[1, hidden]` behind the last layer where no other token is read.
    pub(super) hidden: Tensor,
    pub(super) step: Arc<Step>,
    pub(super) text_length: usize,
}

impl Stream {
    /// Tokens.
    pub fn len(&self) -> usize {
        self.step.tokens
    }

    /// Never: a step has tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Decoder {
    /// Embeds `tokens` at the positions behind the cache's. Where the cache's rotary positions no
    /// longer serve, what it holds is read again first (see [`Decoder::forward`]).
    ///
    /// # Errors
    /// No tokens, a token outside the vocabulary, no room in the cache, or a second step of an encoder.
    pub fn enter(
        &self,
        tokens: &[u32],
        cache: &mut KvCache,
        mask: Option<Mask>,
        text_length: usize,
        interrupt: Option<&Arc<AtomicBool>>,
    ) -> Result<Stream> {
        self.check_tokens(tokens)?;
        if !cache.fits(self.config(), self.ops()) {
            return Err(Error::Usage("this cache was made by another decoder".into()));
        }
        cache.reserve(tokens.len())?;
        if self.config().is_encoder() && !cache.is_empty() {
            return Err(Error::Usage(
                "an encoder reads its whole text in one step: start with an empty cache".into(),
            ));
        }
        let text_length = text_length.max(cache.len() + tokens.len());
        let outgrown = |held| self.config().rotaries.iter().any(|rotary| rotary.outgrown(held, text_length));
        if outgrown(cache.text_length()) && !cache.is_empty() {
            let held = cache.tokens().to_vec();
            cache.truncate(0);
            let interrupt = interrupt.cloned();
            let again = Forward { mask, interrupt, text_length, ..Forward::default() };
            self.forward(&held, cache, again)?;
        }
        let step = self.step(tokens.len(), cache.len(), mask.unwrap_or(self.config().mask), text_length);
        let hidden = self.embed(tokens, step.depth)?;
        self.check_finite(&hidden, &step, || "the embedding".into())?;
        Ok(Stream { hidden, step: Arc::new(step), text_length })
    }

    /// The stream behind some layers; `stream` is the one in front of the first of them. Their keys and
    /// values are written into the cache that it entered by, behind the positions that count there: the
    /// same layer can be passed again.
    ///
    /// # Errors
    /// Values that are not finite (with the layer's name), what the observer answers, or
    /// [`Error::Interrupted`] when the flag is up before a layer.
    ///
    /// # Panics
    /// If there are no such layers.
    pub fn pass(
        &self,
        stream: &Stream,
        layers: Range<usize>,
        cache: &mut KvCache,
        observer: Option<&mut dyn AttentionObserver>,
        interrupt: Option<&Arc<AtomicBool>>,
    ) -> Result<Stream> {
        self.pass_for(LogitRows::All, stream, layers, cache, observer, interrupt)
    }

    /// As [`Decoder::pass`]; where only the last token's logits will be read, it alone comes out of the
    /// last layer.
    pub(super) fn pass_for(
        &self,
        logits: LogitRows,
        stream: &Stream,
        layers: Range<usize>,
        cache: &mut KvCache,
        mut observer: Option<&mut dyn AttentionObserver>,
        interrupt: Option<&Arc<AtomicBool>>,
    ) -> Result<Stream> {
        let Stream { mut hidden, step, text_length } = stream.clone();
        for layer in layers {
            if interrupt.is_some_and(|flag| flag.load(Ordering::Relaxed)) {
                return Err(Error::Interrupted);
            }
            let observer: Option<&mut dyn AttentionObserver> = match &mut observer {
                Some(observer) if observer.wants(layer) => Some(&mut **observer),
                _ => None,
            };
            let last_only = logits == LogitRows::Last && layer + 1 == self.config().layers;
            hidden = self.block(layer).forward(self.ops(), &hidden, &step, cache, observer, last_only)?;
            self.check_finite(&hidden, &step, || format!("layer {layer}"))?;
        }
        Ok(Stream { hidden, step, text_length })
    }

    /// The logits of some of a step's tokens, from the stream behind the last layer: `[rows,
    /// vocabulary]`; of an encoder their last hidden states, `[rows, hidden]`.
    ///
    /// # Errors
    /// Values that are not finite.
    ///
    /// # Panics
    /// If there are no such tokens.
    pub fn read(&self, stream: &Stream, rows: Range<usize>) -> Result<Tensor> {
        let hidden = stream.hidden.narrow(0, rows.start, rows.len())?;
        let hidden = self.last_norm(&hidden)?;
        let (out, place) = match self.config().is_encoder() {
            true => (hidden, "the last norm"),
            false => (self.logits(hidden)?, "the output head"),
        };
        self.check_finite(&out, &stream.step, || place.into())?;
        Ok(out)
    }

    /// Counts a step's positions in the cache, once every layer has been passed.
    pub fn commit(&self, tokens: &[u32], stream: &Stream, cache: &mut KvCache) {
        cache.advance(tokens, stream.text_length);
    }
}
