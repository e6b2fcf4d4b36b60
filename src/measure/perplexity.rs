//! Perplexity of a text: windows slide over it, the decoder reads each, and every token is scored
//! once, behind as much of the text as its window holds.
//!
//! The windows are those of Transformers' guide ("Perplexity of fixed-length models"): the first
//! is tokens `0..window`, each later one begins `stride` further on, the last ends with the text,
//! and a window scores the tokens that none before it has scored (the guide's
//! `trg_len = end - prev_end`). A window's first token has nothing before it and is not predicted.
//! So with a stride below the window every token but the text's first is scored; with a stride
//! equal to it (windows side by side) every token but the first of each window.
//!
//! Perplexity is exp of the mean, over exactly the tokens scored, of −ln p(token | tokens before it
//! in its window). The guide's own loop weighs each window's mean loss with `trg_len - 1`, for the
//! label shift. That is the number of tokens scored in the first window, but one less than it in
//! each later one, whose first label is masked already; its result therefore differs slightly from
//! the exact mean wherever windows overlap and there are several.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::error::{Error, Result};
use crate::generation::sampler::log_probability;
use crate::model::{Decoder, Forward, HeadIntervention, KvCache, LogitRows};

/// A step reads at most so many tokens: of a long window, logits of every token at once would fill
/// gigabytes.
const STEP_TOKENS: usize = 256;
/// A step that scores computes at most so many logits (64 MiB of them).
const STEP_LOGITS: usize = 16 << 20;

/// The longest default window.
const DEFAULT_WINDOW: usize = 2048;

/// How windows slide over a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlidingWindow {
    window: usize,
    stride: usize,
}

impl SlidingWindow {
    /// Windows of `window` tokens, each `stride` tokens behind the one before. The window is by
    /// default the model's `context`, at most 2048; the stride half the window.
    ///
    /// # Errors
    /// A window below 2 or beyond the context; a stride of 0 or beyond the window.
    pub fn new(window: Option<usize>, stride: Option<usize>, context: usize) -> Result<SlidingWindow> {
        let window = window.unwrap_or(context.min(DEFAULT_WINDOW));
        if window > context {
            return Err(Error::Usage(format!(
                "a window of {window} tokens does not fit the model's context of {context}; ask for no more with -c"
            )));
        }
        if window < 2 {
            return Err(Error::Usage(format!(
                "a window of {window} predicts nothing: its first token has none before it; ask for at least 2"
            )));
        }
        let stride = stride.unwrap_or(window / 2);
        if stride == 0 || stride > window {
            return Err(Error::Usage(format!(
                "a stride of {stride} does not go with a window of {window}: give 1 to {window} (a longer one \
                 would leave out tokens)"
            )));
        }
        Ok(SlidingWindow { window, stride })
    }

    /// Tokens.
    pub fn window(&self) -> usize {
        self.window
    }

    /// Tokens.
    pub fn stride(&self) -> usize {
        self.stride
    }
}

/// A token that the model has predicted.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ScoredToken {
    /// Its place in the text, from 0.
    pub index: usize,
    pub id: u32,
    /// Natural logarithm of its probability behind the tokens before it in its window.
    pub log_probability: f64,
}

/// A text being scored.
///
/// ```no_run
/// use attend::measure::{Perplexity, SlidingWindow};
/// use attend::{Checkpoint, LoadOptions};
///
/// # fn main() -> attend::Result<()> {
/// let checkpoint = Checkpoint::open("SmolLM2-135M-Instruct".as_ref())?;
/// let decoder = checkpoint.load(&LoadOptions::default())?;
/// let text = checkpoint.tokenizer()?.encode("The cat sat on the mat.")?;
/// let sliding = SlidingWindow::new(Some(1024), Some(512), decoder.config().context)?;
/// let mut perplexity = Perplexity::new(&decoder, &text.ids, sliding, Default::default())?;
/// while let Some(scored) = perplexity.step()? {
///     for token in scored {
///         println!("{}: {:.3}", token.index, token.log_probability);
///     }
/// }
/// println!("{:.3} ± {:.3}", perplexity.value(), perplexity.standard_error());
/// # Ok(())
/// # }
/// ```
pub struct Perplexity<'a> {
    decoder: &'a Decoder,
    tokens: &'a [u32],
    sliding: SlidingWindow,
    interrupt: Arc<AtomicBool>,
    cache: KvCache,
    /// Where the window at hand begins.
    begin: usize,
    /// The first token that is not scored yet, if this window predicts it.
    next: usize,
    windows: usize,
    scored: usize,
    /// Of −ln p, and of its square.
    sum: f64,
    sum_of_squares: f64,
}

impl<'a> Perplexity<'a> {
    /// Prepares the first window; nothing is computed yet. `interrupt`, once raised, ends the step
    /// at hand.
    ///
    /// # Errors
    /// If the model is an encoder, the text has fewer than 2 tokens, or there is no memory for the
    /// cache.
    pub fn new(
        decoder: &'a Decoder,
        tokens: &'a [u32],
        sliding: SlidingWindow,
        interrupt: Arc<AtomicBool>,
    ) -> Result<Perplexity<'a>> {
        decoder.config().check_generates()?;
        check_length(tokens.len())?;
        Ok(Perplexity {
            decoder,
            tokens,
            sliding,
            interrupt,
            cache: decoder.new_cache(sliding.window.min(tokens.len()))?,
            begin: 0,
            next: 1,
            windows: 0,
            scored: 0,
            sum: 0.0,
            sum_of_squares: 0.0,
        })
    }

    /// Silences heads in the whole measurement, before the first step.
    ///
    /// # Errors
    /// If it has begun.
    pub fn silence(&mut self, intervention: HeadIntervention) -> Result<()> {
        self.cache.silence(intervention)
    }

    /// Scores some more tokens, in the text's order; `None` once the text has ended.
    ///
    /// # Errors
    /// The decoder's; [`Error::Interrupted`] when the flag is up. What was scored before stays.
    pub fn step(&mut self) -> Result<Option<Vec<ScoredToken>>> {
        if self.next >= self.tokens.len() {
            return Ok(None);
        }
        let end = (self.begin + self.sliding.window).min(self.tokens.len());
        // The logits of the token before each one scored are wanted, of those further back none.
        while self.fed() < self.next - 1 {
            let to = (self.next - 1).min(self.fed() + STEP_TOKENS);
            self.feed(to, end, LogitRows::Last)?;
        }
        let rows = (STEP_LOGITS / self.decoder.config().vocabulary).clamp(1, STEP_TOKENS);
        // The window's last token is predicted; what would follow it is not asked.
        let to = (end - 1).min(self.fed() + rows);
        let logits = self.feed(to, end, LogitRows::All)?.to_vec2::<f32>()?;
        let scored: Vec<ScoredToken> = logits
            .iter()
            .zip(self.next..)
            .map(|(row, index)| {
                let id = self.tokens[index];
                ScoredToken { index, id, log_probability: log_probability(row, id) }
            })
            .collect();
        for token in &scored {
            self.sum -= token.log_probability;
            self.sum_of_squares += token.log_probability.powi(2);
        }
        self.scored += scored.len();
        self.next += scored.len();
        if self.next == end {
            self.windows += 1;
            self.begin += self.sliding.stride;
            self.next = end.max(self.begin + 1);
            self.cache.truncate(0);
        }
        Ok(Some(scored))
    }

    /// The first token of the text that this window has not read.
    fn fed(&self) -> usize {
        self.begin + self.cache.len()
    }

    /// Reads on to `to` in a window that ends at `end`.
    fn feed(&mut self, to: usize, end: usize, logits: LogitRows) -> Result<candle_core::Tensor> {
        let request = Forward {
            logits,
            interrupt: Some(self.interrupt.clone()),
            text_length: end - self.begin,
            ..Forward::default()
        };
        self.decoder.forward(&self.tokens[self.fed()..to], &mut self.cache, request)
    }

    /// exp of [`Perplexity::mean_negative_log_likelihood`], over the tokens scored so far.
    pub fn value(&self) -> f64 {
        self.mean_negative_log_likelihood().exp()
    }

    /// Standard error of the perplexity, as llama.cpp prints it: that of the mean (tokens taken as
    /// independent), times the perplexity. Not a number with fewer than 2 tokens.
    pub fn standard_error(&self) -> f64 {
        let mean = self.mean_negative_log_likelihood();
        let variance = (self.sum_of_squares / self.scored as f64 - mean * mean).max(0.0);
        self.value() * (variance / (self.scored as f64 - 1.0)).sqrt()
    }

    /// The mean of −ln p over the tokens scored so far, in nats; not a number before the first.
    pub fn mean_negative_log_likelihood(&self) -> f64 {
        self.sum / self.scored as f64
    }

    /// The sum of −log2 p over the tokens scored so far.
    pub fn bits(&self) -> f64 {
        self.sum / std::f64::consts::LN_2
    }

    /// Tokens scored so far.
    pub fn scored(&self) -> usize {
        self.scored
    }

    /// Windows read to their end so far.
    pub fn windows(&self) -> usize {
        self.windows
    }
}

/// # Errors
/// If a text has too few tokens to predict one.
pub fn check_length(tokens: usize) -> Result<()> {
    if tokens < 2 {
        return Err(Error::Usage(format!(
            "the text has {tokens} token{}, and the first is not predicted: give at least 2",
            if tokens == 1 { "" } else { "s" }
        )));
    }
    Ok(())
}
