//! Tokens per second in the manner of llama-bench: `pp512` reads a prompt of 512 random tokens in
//! one pass, `tg128` feeds 128 tokens one at a time. Timed is the forward pass alone: no
//! tokenising, no sampling, no printing.

use std::time::Instant;

use serde::Serialize;

use crate::error::Result;
use crate::model::{AttentionObserver, Decoder, Forward, KvCache};

/// What is timed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TestKind {
    /// A prompt of this many tokens in one pass.
    Prompt(usize),
    /// This many tokens, one at a time.
    Generation(usize),
}

/// A test, and how many tokens are in the cache before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Test {
    pub kind: TestKind,
    pub depth: usize,
}

impl Test {
    /// Tokens that are timed.
    pub fn tokens(&self) -> usize {
        match self.kind {
            TestKind::Prompt(tokens) | TestKind::Generation(tokens) => tokens,
        }
    }

    /// Positions that the cache needs.
    pub fn context(&self) -> usize {
        self.depth + self.tokens()
    }

    /// Bytes that one timed token reads from memory at least: the weights (once a pass) and, on
    /// average, the keys and values before it.
    pub fn bytes_per_token(&self, decoder: &Decoder) -> usize {
        let weights = decoder.weight_bytes_per_token();
        let cache = decoder.config().cache_bytes_per_token(decoder.ops().cache_type());
        match self.kind {
            TestKind::Generation(tokens) => weights + cache * (self.depth + tokens / 2),
            // A pass reads weights and cache once for all of its tokens.
            TestKind::Prompt(tokens) => (weights + cache * (self.depth + tokens)) / tokens.max(1),
        }
    }
}

impl std::fmt::Display for Test {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            TestKind::Prompt(tokens) => write!(f, "pp{tokens}")?,
            TestKind::Generation(tokens) => write!(f, "tg{tokens}")?,
        }
        if self.depth > 0 { write!(f, " @ d{}", self.depth) } else { Ok(()) }
    }
}

/// Tokens per second over some repetitions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Speed {
    pub mean: f64,
    /// Standard deviation of the samples.
    pub deviation: f64,
    pub samples: Vec<f64>,
}

impl Speed {
    /// Of at least one sample.
    pub fn of(samples: Vec<f64>) -> Speed {
        let count = samples.len() as f64;
        let mean = samples.iter().sum::<f64>() / count;
        let squares: f64 = samples.iter().map(|sample| (sample - mean).powi(2)).sum();
        let deviation = if samples.len() > 1 { (squares / (count - 1.0)).sqrt() } else { 0.0 };
        Speed { mean, deviation, samples }
    }
}

/// Runs a test `repetitions` times after one warm-up that is not counted. `observer` makes the
/// observer of each run, or none; `go_on` is asked before each run, and stops the test: `None` if
/// nothing was timed by then.
///
/// # Errors
/// The decoder's or the observer's.
pub fn run<O: AttentionObserver>(
    decoder: &Decoder,
    test: Test,
    repetitions: usize,
    mut observer: impl FnMut() -> Result<Option<O>>,
    go_on: impl Fn() -> bool,
) -> Result<Option<Speed>> {
    let mut cache = decoder.new_cache(test.context().max(1))?;
    let vocabulary = decoder.config().vocabulary;
    if test.depth > 0 {
        let request = Forward { text_length: test.context(), ..Forward::default() };
        decoder.forward(&random_tokens(test.depth, vocabulary), &mut cache, request)?;
    }
    let tokens = random_tokens(test.tokens(), vocabulary);
    let mut samples = vec![];
    for repetition in 0..=repetitions {
        if !go_on() {
            break;
        }
        cache.truncate(test.depth);
        let seconds = time(decoder, test.kind, &tokens, &mut cache, observer()?)?;
        if repetition > 0 {
            samples.push(tokens.len() as f64 / seconds);
        }
    }
    Ok((!samples.is_empty()).then(|| Speed::of(samples)))
}

fn time<O: AttentionObserver>(
    decoder: &Decoder,
    kind: TestKind,
    tokens: &[u32],
    cache: &mut KvCache,
    mut observer: Option<O>,
) -> Result<f64> {
    let started = Instant::now();
    let pieces = match kind {
        TestKind::Prompt(_) => tokens.chunks(tokens.len().max(1)),
        TestKind::Generation(_) => tokens.chunks(1),
    };
    for piece in pieces {
        let observer = observer.as_mut().map(|observer| observer as &mut dyn AttentionObserver);
        decoder.forward(piece, cache, Forward { observer, ..Forward::default() })?;
    }
    // On a device, what was asked for may still be running; an observer may still be writing.
    decoder.ops().device().synchronize()?;
    drop(observer);
    Ok(started.elapsed().as_secs_f64())
}

/// Tokens without a pattern; the same every time.
fn random_tokens(count: usize, vocabulary: usize) -> Vec<u32> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % vocabulary as u64) as u32
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_deviation_are_those_of_the_samples() {
        let speed = Speed::of(vec![1.0, 2.0, 3.0]);
        assert_eq!((speed.mean, speed.deviation), (2.0, 1.0));
        assert_eq!(Speed::of(vec![5.0]).deviation, 0.0);
    }

    #[test]
    fn tests_are_called_as_in_llama_bench() {
        let test = |kind, depth| Test { kind, depth }.to_string();
        assert_eq!(test(TestKind::Prompt(512), 0), "pp512");
        assert_eq!(test(TestKind::Generation(128), 2048), "tg128 @ d2048");
    }
}
