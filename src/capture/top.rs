//! The largest weights of a row.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// A weight and its key; the larger one is the heavier, of equals the one that comes first.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Weighted {
    pub weight: f32,
    pub key: u32,
}

impl Eq for Weighted {}

impl Ord for Weighted {
    fn cmp(&self, other: &Weighted) -> Ordering {
        self.weight.total_cmp(&other.weight).then(other.key.cmp(&self.key))
    }
}

impl PartialOrd for Weighted {
    fn partial_cmp(&self, other: &Weighted) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Weights that are looked at together: most neighbourhoods hold nothing large.
const TOGETHER: usize = 32;

/// The `count` largest weights above 0, heaviest first, and the sum of all others.
pub(super) fn largest(weights: &[f32], count: usize) -> (Vec<Weighted>, f32) {
    let mut best: BinaryHeap<Reverse<Weighted>> = BinaryHeap::with_capacity(count + 1);
    let mut least = 0f32;
    let mut total = [0f64; TOGETHER];
    for (index, weights) in weights.chunks(TOGETHER).enumerate() {
        // Lane by lane and without branches, so that the compiler makes vectors of it.
        total.iter_mut().zip(weights).for_each(|(total, weight)| *total += f64::from(*weight));
        if !weights.iter().fold(false, |any, weight| any | (*weight > least)) {
            continue;
        }
        for (lane, &weight) in weights.iter().enumerate() {
            if weight > least {
                best.push(Reverse(Weighted { weight, key: (index * TOGETHER + lane) as u32 }));
                if best.len() > count {
                    best.pop();
                }
                if best.len() == count {
                    least = best.peek().map_or(0.0, |Reverse(last)| last.weight);
                }
            }
        }
    }
    let best: Vec<Weighted> = best.into_sorted_vec().into_iter().map(|Reverse(weighted)| weighted).collect();
    let rest = total.iter().sum::<f64>() - best.iter().map(|best| f64::from(best.weight)).sum::<f64>();
    (best, rest.max(0.0) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_are_those_of_a_sorted_row() {
        for (keys, count) in [(1, 1), (5, 9), (200, 16), (1000, 1), (1000, 999)] {
            // Many equals among them, and zeros.
            let weights: Vec<f32> = (0..keys).map(|key| (key * 7919 % 101) as f32 / 5000.0).collect();
            let mut sorted: Vec<usize> = (0..keys).filter(|key| weights[*key] > 0.0).collect();
            sorted.sort_by(|a, b| weights[*b].total_cmp(&weights[*a]).then(a.cmp(b)));
            sorted.truncate(count);
            let (best, rest) = largest(&weights, count);
            assert_eq!(best.iter().map(|best| best.key as usize).collect::<Vec<_>>(), sorted);
            let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
            let kept: f64 = best.iter().map(|best| f64::from(best.weight)).sum();
            assert!((total - kept - f64::from(rest)).abs() < 1e-6);
        }
    }
}
