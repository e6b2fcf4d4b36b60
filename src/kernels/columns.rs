//! Rows of attention gathered column by column: the largest weight that each key got, and their sum.

use super::Isa;
use super::simd::{Simd, dispatch};

/// `maxima[key] = max(maxima[key], weights[key])` and `sums[key] += weights[key]`. The same bits on every
/// tier.
///
/// # Panics
/// If lengths disagree.
pub fn add_columns(isa: Isa, weights: &[f32], maxima: &mut [f32], sums: &mut [f32]) {
    assert!(maxima.len() == weights.len() && sums.len() == weights.len(), "one of each for every weight");
    // SAFETY: nothing is asked for besides the tier's instructions.
    unsafe { add(isa, weights, maxima, sums) }
}

dispatch!(
    /// # Safety
    /// None besides the tier's.
    fn add = self::add_body [] (weights: &[f32], maxima: &mut [f32], sums: &mut [f32])
);

/// The compiler makes vectors of it, as wide as the tier's.
#[inline(always)]
unsafe fn add_body<S: Simd>(weights: &[f32], maxima: &mut [f32], sums: &mut [f32]) {
    for ((weight, maximum), sum) in weights.iter().zip(maxima).zip(sums) {
        *maximum = if *weight > *maximum { *weight } else { *maximum };
        *sum += weight;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tier_gives_the_same() {
        for keys in [0, 1, 7, 16, 333] {
            let row = |seed: usize| (0..keys).map(move |key| ((key * 7919 + seed * 31) % 1013) as f32 / 3.0);
            let defined: Vec<(f32, f32)> = (0..keys)
                .map(|key| {
                    (0..3).fold((0.0, 0.0), |(maximum, sum), seed| {
                        let weight = row(seed).nth(key).unwrap();
                        (f32::max(maximum, weight), sum + weight)
                    })
                })
                .collect();
            for isa in Isa::available() {
                let (mut maxima, mut sums) = (vec![0f32; keys], vec![0f32; keys]);
                for seed in 0..3 {
                    add_columns(isa, &row(seed).collect::<Vec<_>>(), &mut maxima, &mut sums);
                }
                let found: Vec<(f32, f32)> = maxima.into_iter().zip(sums).collect();
                assert_eq!(found, defined, "{isa}, {keys} keys");
            }
        }
    }
}
