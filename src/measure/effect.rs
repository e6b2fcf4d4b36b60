//! What each head is worth to a text: how much the loss rises when the head is silenced.
//!
//! The stream in front of each layer is computed once and serves all heads of the layer: a head of
//! layer *L* costs the layers from *L* on, and of the streams only one is held.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::Serialize;

use super::perplexity::check_length;
use crate::error::{Error, Result};
use crate::generation::sampler::log_probability;
use crate::model::{Decoder, HeadIntervention, KvCache, Silence, Stream};

/// So many logits are computed at a time (64 MiB of them).
const LOGITS: usize = 16 << 20;

/// What silencing one head does.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HeadEffect {
    pub layer: usize,
    pub head: usize,
    /// The mean of −ln p over the text's tokens but the first, in nats, without the head.
    pub loss: f64,
    /// How much that is above the whole model's.
    pub rise: f64,
}

/// Silences one head after another.
///
/// ```
/// use attend::measure::HeadEffects;
/// use attend::model::Silence;
///
/// # fn main() -> attend::Result<()> {
/// let checkpoint = attend::Checkpoint::embedded()?;
/// let decoder = checkpoint.load(&Default::default())?;
/// let text = checkpoint.tokenizer()?.encode("Once upon a time")?;
/// let mut effects = HeadEffects::new(&decoder, &text.ids, Silence::Zero, Default::default())?;
/// while let Some(effect) = effects.step()? {
///     println!("{}.{}: {:+.4}", effect.layer, effect.head, effect.rise);
/// }
/// # Ok(())
/// # }
/// ```
pub struct HeadEffects<'a> {
    decoder: &'a Decoder,
    tokens: &'a [u32],
    how: Silence,
    interrupt: Arc<AtomicBool>,
    cache: KvCache,
    /// In front of the layer at hand.
    stream: Stream,
    layer: usize,
    head: usize,
    base: f64,
}

impl<'a> HeadEffects<'a> {
    /// Reads the text once with the whole model. `interrupt`, once raised, ends the step at hand.
    ///
    /// # Errors
    /// If the model is an encoder, the text has fewer than 2 tokens or more than the model's context, or
    /// there is no memory.
    pub fn new(
        decoder: &'a Decoder,
        tokens: &'a [u32],
        how: Silence,
        interrupt: Arc<AtomicBool>,
    ) -> Result<HeadEffects<'a>> {
        decoder.config().check_generates()?;
        check_length(tokens.len())?;
        let mut cache = decoder.new_cache(tokens.len())?;
        let stream = decoder.enter(tokens, &mut cache, None, 0, Some(&interrupt))?;
        let (layer, head, base) = (0, 0, 0.0);
        let mut effects = HeadEffects { decoder, tokens, how, interrupt, cache, stream, layer, head, base };
        effects.base = effects.loss()?;
        Ok(effects)
    }

    /// The whole model's mean of −ln p, in nats.
    pub fn base(&self) -> f64 {
        self.base
    }

    /// Heads that [`HeadEffects::step`] goes through.
    pub fn heads(&self) -> usize {
        self.decoder.config().layers * self.decoder.config().heads
    }

    /// The next head's effect, by layer and head; `None` after the last.
    ///
    /// # Errors
    /// The decoder's; [`Error::Interrupted`] when the flag is up.
    pub fn step(&mut self) -> Result<Option<HeadEffect>> {
        let config = self.decoder.config();
        if self.head == config.heads {
            let (layers, interrupt) = (self.layer..self.layer + 1, Some(&self.interrupt));
            self.stream = self.decoder.pass(&self.stream, layers, &mut self.cache, None, interrupt)?;
            (self.layer, self.head) = (self.layer + 1, 0);
        }
        if self.layer == config.layers {
            return Ok(None);
        }
        let (layer, head) = (self.layer, self.head);
        let mut without = HeadIntervention::new(config);
        without.silence(layer, head, self.how)?;
        self.cache.silence(without)?;
        let loss = self.loss();
        self.cache.silence(HeadIntervention::new(config))?;
        let loss = loss?;
        self.head += 1;
        Ok(Some(HeadEffect { layer, head, loss, rise: loss - self.base }))
    }

    /// From the layer at hand on.
    fn loss(&mut self) -> Result<f64> {
        let config = self.decoder.config();
        let (layers, interrupt) = (self.layer..config.layers, Some(&self.interrupt));
        let stream = self.decoder.pass(&self.stream, layers, &mut self.cache, None, interrupt)?;
        let (predicted, vocabulary) = (self.tokens.len() - 1, config.vocabulary);
        let rows_at_once = (LOGITS / vocabulary).max(1);
        let mut sum = 0.0;
        for first in (0..predicted).step_by(rows_at_once) {
            let rows = first..predicted.min(first + rows_at_once);
            let logits = self.decoder.read(&stream, rows.clone())?.flatten_all()?.to_vec1::<f32>()?;
            let next = &self.tokens[rows.start + 1..=rows.end];
            sum -= sum_of_log_probabilities(&logits, next, self.decoder.ops().threads());
        }
        let loss = sum / predicted as f64;
        if loss.is_finite() { Ok(loss) } else { Err(Error::Usage("the loss is not finite".into())) }
    }
}

/// Of `[rows, vocabulary]` and each row's token, added in order whatever the threads.
fn sum_of_log_probabilities(logits: &[f32], tokens: &[u32], threads: usize) -> f64 {
    let vocabulary = logits.len() / tokens.len();
    let each = tokens.len().div_ceil(threads);
    let mut found = vec![0.0; tokens.len()];
    std::thread::scope(|scope| {
        let parts = logits.chunks(each * vocabulary).zip(tokens.chunks(each)).zip(found.chunks_mut(each));
        for ((logits, tokens), found) in parts {
            scope.spawn(move || {
                for ((row, token), found) in logits.chunks_exact(vocabulary).zip(tokens).zip(found) {
                    *found = log_probability(row, *token);
                }
            });
        }
    });
    found.iter().sum()
}
