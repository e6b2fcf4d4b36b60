//! What speculation gains: the greedy text behind a prompt, token by token as in
//! [generation](crate::generation), with it and without it by turns. Timed are the steps behind the
//! prompt's, choosing tokens and looking up drafts included.

use std::time::Instant;

use super::throughput::Speed;
use crate::error::Result;
use crate::generation::{Acceptance, GenerationOptions, Sampling, Session};
use crate::model::Decoder;

/// The same text in two ways.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    pub plain: Speed,
    pub speculating: Speed,
    pub acceptance: Acceptance,
}

/// Generates `tokens` tokens behind the first one after `prompt`, `repetitions` times in each way
/// after one round that is not counted. End tokens do not end the text. `go_on` is asked before each
/// round, and stops: `None` if nothing was timed by then, or the model does not speculate.
///
/// # Errors
/// If the prompt is empty or does not fit with the tokens; the decoder's.
pub fn compare(
    decoder: &Decoder,
    prompt: &[u32],
    tokens: usize,
    speculate: usize,
    repetitions: usize,
    go_on: impl Fn() -> bool,
) -> Result<Option<Comparison>> {
    let time = |speculate: usize| -> Result<(f64, Option<Acceptance>)> {
        let options = GenerationOptions {
            max_new_tokens: tokens + 1,
            context: None,
            sampling: Sampling::greedy(),
            speculate,
            end_tokens: vec![],
            stop: vec![],
            interrupt: Default::default(),
        };
        let mut session = Session::new(decoder, None, prompt, options)?;
        session.step(None)?;
        let started = Instant::now();
        while session.step(None)?.is_some() {}
        let timed = session.generated().len() - 1;
        Ok((timed as f64 / started.elapsed().as_secs_f64(), session.acceptance()))
    };
    let (mut plain, mut speculating, mut acceptance) = (vec![], vec![], None);
    for round in 0..=repetitions {
        if !go_on() {
            break;
        }
        let without = time(0)?.0;
        let with = time(speculate)?;
        if round > 0 {
            plain.push(without);
            speculating.push(with.0);
            acceptance = with.1;
        }
    }
    Ok(acceptance.map(|acceptance| Comparison {
        plain: Speed::of(plain),
        speculating: Speed::of(speculating),
        acceptance,
    }))
}
