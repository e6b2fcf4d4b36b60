//! What a row of attention weights comes to in five numbers, for those who record no more than that.

// As in `simd`: unsafe because of the CPU's instructions, which `Isa` proves.
#![allow(unsafe_op_in_unsafe_fn)]

use super::Isa;
use super::simd::{Simd, dispatch};

/// The names of [`row_statistics`]' numbers, in their order.
pub const STATISTICS: [&str; 5] = ["entropy", "first_token", "self", "previous_token", "mean_distance"];

/// Of the row of the query at `position`, `weights` over the keys from position 0 that it may see:
///
/// - the entropy −Σ p·ln p, in nats;
/// - the weight on the first token, on the query's own, and on the one before it (0 where there is none);
/// - the mean distance Σ p·|position − key|.
pub fn row_statistics(isa: Isa, weights: &[f32], position: usize) -> [f32; 5] {
    // SAFETY: nothing is asked for besides the tier's instructions.
    let [negated_entropy, distance] = unsafe { sums(isa, weights, position as f32) };
    let at = |key: Option<usize>| key.and_then(|key| weights.get(key)).copied().unwrap_or(0.0);
    [
        // No −0, and nothing below 0 through rounding.
        (0.0 - negated_entropy).max(0.0),
        at(Some(0)),
        at(Some(position)),
        at(position.checked_sub(1)),
        distance,
    ]
}

dispatch!(
    /// Σ p·ln p and Σ p·|position − key|.
    ///
    /// # Safety
    /// None besides the tier's.
    fn sums = self::sums_body [] (weights: &[f32], position: f32) -> [f32; 2]
);

#[inline(always)]
unsafe fn sums_body<S: Simd>(weights: &[f32], position: f32) -> [f32; 2] {
    let mut distances = [0f32; 16];
    (0..S::LANES).for_each(|lane| distances[lane] = position - lane as f32);
    let mut distance = S::load(distances.as_ptr());
    let step = S::splat(-(S::LANES as f32));
    let (mut logarithms, mut total) = (S::splat(0.0), S::splat(0.0));
    let whole = weights.len() / S::LANES * S::LANES;
    // What is left over, in a vector filled up with zeros, which add nothing.
    let mut tail = [0f32; 16];
    tail[..weights.len() - whole].copy_from_slice(&weights[whole..]);
    for at in (0..=whole).step_by(S::LANES) {
        let weight = S::load(if at < whole { weights.as_ptr().add(at) } else { tail.as_ptr() });
        logarithms = S::fma(weight, S::ln(weight), logarithms);
        total = S::fma(weight, S::max(distance, S::negate(distance)), total);
        distance = S::add(distance, step);
    }
    [S::sum(logarithms), S::sum(total)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definitions, in f64.
    fn defined(weights: &[f32], position: usize) -> [f64; 5] {
        let weights: Vec<f64> = weights.iter().map(|weight| f64::from(*weight)).collect();
        let entropy = weights.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum();
        let distance = |(key, p): (usize, &f64)| p * (position as f64 - key as f64).abs();
        let previous = if position > 0 { weights[position - 1] } else { 0.0 };
        let distances = weights.iter().enumerate().map(distance).sum();
        [entropy, weights[0], weights[position], previous, distances]
    }

    fn row(keys: usize, sharpness: f64) -> Vec<f32> {
        let score = |key: usize| ((key * 7919 % 1013) as f64 / 1013.0 * sharpness).exp();
        let total: f64 = (0..keys).map(score).sum();
        (0..keys).map(|key| (score(key) / total) as f32).collect()
    }

    #[test]
    fn statistics_are_those_of_the_definition_on_every_tier() {
        for isa in Isa::available() {
            for (keys, sharpness) in [(1, 1.0), (2, 3.0), (15, 0.0), (16, 9.0), (333, 40.0), (5000, 12.0)] {
                let weights = row(keys, sharpness);
                for position in [keys - 1, keys / 2, 0] {
                    let (ours, expected) =
                        (row_statistics(isa, &weights, position), defined(&weights, position));
                    for (number, (ours, expected)) in ours.iter().zip(&expected).enumerate() {
                        assert!(
                            (f64::from(*ours) - expected).abs() <= 2e-6 * (1.0 + expected.abs()),
                            "{isa}, {keys} keys, {}: {ours} for {expected}",
                            STATISTICS[number]
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn all_weight_on_one_key_has_no_entropy() {
        for isa in Isa::available() {
            let mut weights = vec![0f32; 40];
            weights[39] = 1.0;
            let numbers = row_statistics(isa, &weights, 39);
            assert_eq!(numbers, [0.0, 0.0, 1.0, 0.0, 0.0], "{isa}");
            assert!(numbers[0].is_sign_positive());
        }
    }
}
