//! How far two runs' heads are apart: for each head the mean Jensen–Shannon divergence (Lin 1991) of
//! its rows, ½ KL(p ‖ m) + ½ KL(q ‖ m) with m = ½ (p + q), in bits: 0 where both attend alike, 1 where
//! they share no key.

use std::collections::BTreeMap;

use serde::Serialize;

/// One head's distance between the runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HeadDivergence {
    pub layer: usize,
    pub head: usize,
    /// The mean over the queries, in bits.
    pub divergence: f64,
    /// The largest of a query, and that query's position.
    pub largest: f64,
    pub largest_query: usize,
    pub queries: usize,
}

/// Adds up rows as they come.
#[derive(Default)]
pub struct Comparison {
    /// By layer and head; until the end, `divergence` is the sum.
    heads: BTreeMap<(usize, usize), HeadDivergence>,
}

impl Comparison {
    /// Adds one query's row in both runs. A shorter row is taken as followed by zeros.
    pub fn add(&mut self, layer: usize, head: usize, query: usize, a: &[f32], b: &[f32]) {
        let divergence = jensen_shannon(a, b);
        let none =
            HeadDivergence { layer, head, divergence: 0.0, largest: -1.0, largest_query: 0, queries: 0 };
        let seen = self.heads.entry((layer, head)).or_insert(none);
        seen.divergence += divergence;
        if divergence > seen.largest {
            (seen.largest, seen.largest_query) = (divergence, query);
        }
        seen.queries += 1;
    }

    /// By layer and head.
    pub fn divergences(&self) -> Vec<HeadDivergence> {
        let mean = |sum: &HeadDivergence| HeadDivergence {
            divergence: sum.divergence / sum.queries as f64,
            ..sum.clone()
        };
        self.heads.values().map(mean).collect()
    }
}

/// In bits. Rows are taken as shares of their sums, as those stored in 16 bits do not quite sum to 1.
pub fn jensen_shannon(a: &[f32], b: &[f32]) -> f64 {
    let total = |row: &[f32]| row.iter().map(|weight| f64::from(*weight)).sum::<f64>();
    let (total_a, total_b) = (total(a), total(b));
    let at = |row: &[f32], key: usize, total: f64| row.get(key).map_or(0.0, |w| f64::from(*w)) / total;
    let term = |p: f64, m: f64| if p > 0.0 { p * (p / m).log2() } else { 0.0 };
    let terms = (0..a.len().max(b.len())).map(|key| {
        let (p, q) = (at(a, key, total_a), at(b, key, total_b));
        let m = 0.5 * (p + q);
        0.5 * (term(p, m) + term(q, m))
    });
    terms.sum::<f64>().max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_is_between_nothing_and_a_bit() {
        assert_eq!(jensen_shannon(&[0.25, 0.75], &[0.25, 0.75]), 0.0);
        assert_eq!(jensen_shannon(&[1.0, 0.0], &[0.0, 1.0]), 1.0);
        assert_eq!(jensen_shannon(&[1.0], &[0.0, 1.0]), 1.0);
        // scipy.spatial.distance.jensenshannon([0.5, 0.5, 0], [0.25, 0.25, 0.5], 2) ** 2
        let found = jensen_shannon(&[0.5, 0.5, 0.0], &[0.25, 0.25, 0.5]);
        assert!((found - 0.311_278_124_459_132_8).abs() < 1e-12, "{found}");
        // Only shares count.
        assert!(
            (jensen_shannon(&[0.999, 0.0], &[0.5, 0.5]) - jensen_shannon(&[1.0, 0.0], &[0.5, 0.5])).abs()
                < 1e-12
        );
    }
}
