//! Choosing the next token: greedy, or drawn from the model's distribution after the filters of
//! Transformers, in its order: repetition penalty (Keskar et al. 2019), temperature, top-k (Fan et
//! al. 2018), top-p (Holtzman et al. 2020), min-p (Nguyen et al. 2024).

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::Serialize;

use crate::checkpoint::GenerationConfig;

/// How tokens are chosen.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sampling {
    /// 0: greedy, the likeliest token each time.
    pub temperature: f64,
    /// Keep the *k* likeliest; 0: all.
    pub top_k: usize,
    /// Keep the likeliest that together reach this probability; 1: all.
    pub top_p: f64,
    /// Keep those at least this share of the likeliest one's probability; 0: all.
    pub min_p: f64,
    /// Divides the scores of tokens seen before; 1: off.
    pub repeat_penalty: f64,
    /// How many tokens back "before" goes; `None`: to the beginning.
    pub repeat_last_n: Option<usize>,
    pub seed: u64,
}

impl Sampling {
    /// The likeliest token each time.
    pub fn greedy() -> Sampling {
        Sampling {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repeat_penalty: 1.0,
            repeat_last_n: None,
            seed: 0,
        }
    }

    /// As the model's makers meant it.
    pub fn from_model(config: &GenerationConfig, seed: u64) -> Sampling {
        Sampling {
            temperature: if config.sample { config.temperature } else { 0.0 },
            top_k: config.top_k,
            top_p: config.top_p,
            min_p: config.min_p,
            repeat_penalty: config.repetition_penalty,
            repeat_last_n: None,
            seed,
        }
    }
}

/// A seed that differs from run to run.
pub fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    // Short enough to be typed again.
    RandomState::new().build_hasher().finish() % 1_000_000_000
}

/// Chooses tokens; the same seed gives the same choices.
pub struct Sampler {
    sampling: Sampling,
    random: ChaCha8Rng,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    id: u32,
    score: f64,
}

impl Sampler {
    pub fn new(sampling: Sampling) -> Sampler {
        let random = ChaCha8Rng::seed_from_u64(sampling.seed);
        Sampler { sampling, random }
    }

    /// The next token, from the logits (finite: the decoder has checked) behind `history`.
    ///
    /// # Panics
    /// If there are no logits.
    pub fn sample(&mut self, logits: &[f32], history: &[u32]) -> u32 {
        let greedy = self.sampling.temperature == 0.0;
        if greedy && self.sampling.repeat_penalty == 1.0 {
            return likeliest((0..).zip(logits.iter().copied()));
        }
        let candidates = self.penalised(logits, history);
        if greedy {
            return likeliest(candidates.iter().map(|candidate| (candidate.id, candidate.score)));
        }
        let candidates = self.filtered(candidates);
        self.draw(&candidates)
    }

    fn penalised(&self, logits: &[f32], history: &[u32]) -> Vec<Candidate> {
        let mut candidates: Vec<Candidate> =
            (0..).zip(logits).map(|(id, logit)| Candidate { id, score: f64::from(*logit) }).collect();
        let penalty = self.sampling.repeat_penalty;
        if penalty != 1.0 {
            let reach = self.sampling.repeat_last_n.unwrap_or(usize::MAX).min(history.len());
            let mut seen: Vec<u32> = history[history.len() - reach..].to_vec();
            seen.sort_unstable();
            seen.dedup();
            for id in seen {
                if let Some(candidate) = candidates.get_mut(id as usize) {
                    candidate.score *= if candidate.score < 0.0 { penalty } else { 1.0 / penalty };
                }
            }
        }
        candidates
    }

    fn filtered(&self, mut candidates: Vec<Candidate>) -> Vec<Candidate> {
        let Sampling { temperature, top_k, top_p, min_p, .. } = self.sampling;
        // The largest becomes 0, so that no temperature, however low, makes an infinity of it.
        let largest = largest_score(&candidates);
        for candidate in &mut candidates {
            candidate.score = (candidate.score - largest) / temperature;
        }
        let by_score = |a: &Candidate, b: &Candidate| b.score.total_cmp(&a.score).then(a.id.cmp(&b.id));
        if top_k > 0 && top_k < candidates.len() {
            let (_, last, _) = candidates.select_nth_unstable_by(top_k - 1, by_score);
            let lowest = last.score;
            candidates.retain(|candidate| candidate.score >= lowest);
        }
        // Sorted also where no filter needs it: the order of a draw must not depend on the selection.
        if top_k > 0 || top_p < 1.0 {
            candidates.sort_unstable_by(by_score);
        }
        if top_p < 1.0 {
            let weights = weights(&candidates);
            let total: f64 = weights.iter().sum();
            let mut reached = 0.0;
            let keep = weights.iter().position(|weight| {
                reached += weight / total;
                reached >= top_p
            });
            candidates.truncate(keep.map_or(candidates.len(), |last| last + 1));
        }
        if min_p > 0.0 {
            let largest = largest_score(&candidates);
            candidates.retain(|candidate| (candidate.score - largest).exp() >= min_p);
        }
        candidates
    }

    fn draw(&mut self, candidates: &[Candidate]) -> u32 {
        let weights = weights(candidates);
        let total: f64 = weights.iter().sum();
        // 53 random bits: a number in 0..1.
        let mut left = (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64 * total;
        for (candidate, weight) in candidates.iter().zip(&weights) {
            left -= weight;
            if left < 0.0 {
                return candidate.id;
            }
        }
        // Rounding can leave a hair above 0 at the end.
        likeliest(candidates.iter().map(|candidate| (candidate.id, candidate.score)))
    }
}

/// exp(score − largest): probabilities but for a factor.
fn weights(candidates: &[Candidate]) -> Vec<f64> {
    let largest = largest_score(candidates);
    candidates.iter().map(|candidate| (candidate.score - largest).exp()).collect()
}

fn largest_score(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|candidate| candidate.score).fold(f64::NEG_INFINITY, f64::max)
}

/// The first of the highest scores.
///
/// # Panics
/// If there are none.
fn likeliest<S: PartialOrd + Copy>(mut scores: impl Iterator<Item = (u32, S)>) -> u32 {
    let first = scores.next().expect("a vocabulary has tokens");
    scores.fold(first, |best, next| if next.1 > best.1 { next } else { best }).0
}

/// Natural logarithm of a token's probability under the model, before any filter.
pub fn log_probability(logits: &[f32], id: u32) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from((logit - largest).exp())).sum();
    f64::from(logits[id as usize] - largest) - sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(sampling: Sampling, logits: &[f32], history: &[u32]) -> Vec<u32> {
        let sampler = Sampler::new(sampling);
        let candidates = sampler.penalised(logits, history);
        let mut ids: Vec<u32> = sampler.filtered(candidates).iter().map(|c| c.id).collect();
        ids.sort_unstable();
        ids
    }

    fn sampling() -> Sampling {
        Sampling { temperature: 1.0, ..Sampling::greedy() }
    }

    /// Logits of these probabilities.
    fn logits(probabilities: &[f32]) -> Vec<f32> {
        probabilities.iter().map(|p| p.ln()).collect()
    }

    #[test]
    fn filters_keep_what_transformers_keeps() {
        let logits = logits(&[0.1, 0.4, 0.2, 0.05, 0.25]);
        assert_eq!(kept(Sampling { top_k: 2, ..sampling() }, &logits, &[]), [1, 4]);
        assert_eq!(kept(Sampling { top_k: 50, ..sampling() }, &logits, &[]), [0, 1, 2, 3, 4]);
        assert_eq!(kept(Sampling { top_p: 0.6, ..sampling() }, &logits, &[]), [1, 4]);
        assert_eq!(kept(Sampling { top_p: 0.7, ..sampling() }, &logits, &[]), [1, 2, 4]);
        assert_eq!(kept(Sampling { top_p: 0.0, ..sampling() }, &logits, &[]), [1]);
        assert_eq!(kept(Sampling { min_p: 0.3, ..sampling() }, &logits, &[]), [1, 2, 4]);
        // Top-p sees what top-k left: 0.4 / 0.65 alone passes 0.6.
        assert_eq!(kept(Sampling { top_k: 2, top_p: 0.6, ..sampling() }, &logits, &[]), [1]);
        // A high temperature flattens first, so that the same min-p keeps more.
        assert_eq!(kept(Sampling { temperature: 10.0, min_p: 0.3, ..sampling() }, &logits, &[]).len(), 5);
    }

    #[derive(serde::Deserialize)]
    struct Case {
        options: serde_json::Map<String, serde_json::Value>,
        logits: Vec<f32>,
        history: Vec<u32>,
        probabilities: Vec<f64>,
    }

    /// tests/fixtures/sampling/make.py asked Transformers' logits processors.
    #[test]
    fn distributions_are_those_of_transformers() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/sampling/cases.json");
        let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert_eq!(cases.len(), 11);
        for case in cases {
            let number = |key: &str| case.options.get(key).and_then(serde_json::Value::as_f64);
            let sampler = Sampler::new(Sampling {
                temperature: number("temperature").unwrap_or(1.0),
                top_k: number("top_k").unwrap_or(0.0) as usize,
                top_p: number("top_p").unwrap_or(1.0),
                min_p: number("min_p").unwrap_or(0.0),
                repeat_penalty: number("repeat_penalty").unwrap_or(1.0),
                ..Sampling::greedy()
            });
            let candidates = sampler.filtered(sampler.penalised(&case.logits, &case.history));
            let weights = weights(&candidates);
            let total: f64 = weights.iter().sum();
            let mut ours = vec![0.0; case.logits.len()];
            for (candidate, weight) in candidates.iter().zip(&weights) {
                ours[candidate.id as usize] = weight / total;
            }
            for (id, (ours, theirs)) in ours.iter().zip(&case.probabilities).enumerate() {
                assert!((ours - theirs).abs() < 1e-5, "{:?}: token {id}: {ours} for {theirs}", case.options);
                assert_eq!(*ours == 0.0, *theirs == 0.0, "{:?}: token {id}", case.options);
            }
        }
    }

    #[test]
    fn the_penalty_weakens_what_was_seen_within_its_reach() {
        let greedy = |penalty, last, history: &[u32]| {
            let sampling = Sampling { repeat_penalty: penalty, repeat_last_n: last, ..Sampling::greedy() };
            Sampler::new(sampling).sample(&[2.0, 1.5, -1.0], history)
        };
        assert_eq!(greedy(1.0, None, &[0]), 0);
        assert_eq!(greedy(2.0, None, &[0]), 1);
        assert_eq!(greedy(2.0, Some(1), &[0, 2]), 0);
        assert_eq!(greedy(2.0, Some(0), &[0]), 0);
        // Once, however often it was seen; negative scores go down too.
        let sampler = Sampler::new(Sampling { repeat_penalty: 2.0, ..Sampling::greedy() });
        let scores: Vec<f64> =
            sampler.penalised(&[2.0, 1.5, -1.0], &[0, 0, 2]).iter().map(|c| c.score).collect();
        assert_eq!(scores, [1.0, 1.5, -2.0]);
    }

    #[test]
    fn draws_follow_the_distribution_and_the_seed() {
        let probabilities = [0.1f32, 0.4, 0.2, 0.05, 0.25];
        let logits = logits(&probabilities);
        let mut sampler = Sampler::new(Sampling { seed: 7, ..sampling() });
        let draws: Vec<u32> = (0..20_000).map(|_| sampler.sample(&logits, &[])).collect();
        for (id, p) in (0u32..).zip(probabilities) {
            let share = draws.iter().filter(|draw| **draw == id).count() as f32 / draws.len() as f32;
            // Five standard deviations.
            assert!(
                (share - p).abs() < 5.0 * (p * (1.0 - p) / 20_000.0).sqrt(),
                "token {id}: {share} for {p}"
            );
        }
        let mut again = Sampler::new(Sampling { seed: 7, ..sampling() });
        assert!(draws.iter().take(100).all(|draw| again.sample(&logits, &[]) == *draw));
        let mut other = Sampler::new(Sampling { seed: 8, ..sampling() });
        assert!(draws.iter().take(100).any(|draw| other.sample(&logits, &[]) != *draw));
    }

    #[test]
    fn the_lowest_temperatures_are_greedy() {
        let logits = [1.0, 3.0, 2.0];
        for temperature in [1e-320, f64::MIN_POSITIVE, 1e-30] {
            let mut sampler = Sampler::new(Sampling { temperature, seed: 1, ..Sampling::greedy() });
            assert!((0..50).all(|_| sampler.sample(&logits, &[]) == 1), "{temperature}");
        }
    }

    #[test]
    fn log_probabilities_are_those_of_the_model() {
        let logits = logits(&[0.5, 0.25, 0.25]);
        assert!((log_probability(&logits, 1) - 0.25f64.ln()).abs() < 1e-6);
    }
}
