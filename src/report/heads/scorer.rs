//! Scores heads by rows of their maps, in whatever blocks they come; nothing of a map is kept.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Serialize;

use super::scores::{HeadKind, HeadScores, NEAR, SINK};
use crate::error::Result;
use crate::model::{AttentionObserver, AttentionRows, Mask};

/// Adds up the rows of one text, or of several of one length.
pub struct HeadScorer {
    mask: Mask,
    /// For each layer, how many keys a query sees; `None`: all.
    windows: Vec<Option<usize>>,
    /// Tokens of a text that stands twice.
    copy: Option<usize>,
    heads: BTreeMap<(usize, usize), Sums>,
}

/// One head's, so far.
#[derive(Default)]
struct Sums {
    previous: Mean,
    duplicate: Mean,
    induction: Mean,
    own: Mean,
    local: Mean,
    entropy: Mean,
    distance: Mean,
    /// The weight that each key gets, over the queries that may see it.
    keys: Vec<Mean>,
}

#[derive(Clone, Copy, Default)]
struct Mean {
    sum: f64,
    count: usize,
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
    }

    fn value(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }
}

/// What a key's position gets from all heads.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KeySink {
    pub position: usize,
    /// The mean over heads of its mean weight over the queries that may see it.
    pub mean_weight: f64,
    /// The share of heads for which that is above 0.3.
    pub share_of_heads: f64,
}

impl HeadScorer {
    /// For maps under `mask`, of layers with these windows; `copy` as [`super::repeated`] finds it.
    pub fn new(mask: Mask, windows: Vec<Option<usize>>, copy: Option<usize>) -> HeadScorer {
        HeadScorer { mask, windows, copy, heads: BTreeMap::new() }
    }

    /// Adds a row: the weights of the query at a position on keys 0 and up.
    pub fn add(&mut self, layer: usize, head: usize, query: usize, row: &[f32]) {
        let seen = self.seen(layer, query, row.len());
        let sums = self.heads.entry((layer, head)).or_default();
        let at = |key: usize| f64::from(row.get(key).copied().unwrap_or(0.0));
        if query > 0 {
            sums.previous.add(at(query - 1));
        }
        if let Some(copy) = self.copy.filter(|copy| (*copy..2 * copy).contains(&query)) {
            sums.duplicate.add(at(query - copy));
            sums.induction.add(at(query - copy + 1));
        }
        sums.own.add(at(query));
        if sums.keys.len() < row.len() {
            sums.keys.resize(row.len(), Mean::default());
        }
        let (mut entropy, mut distance, mut near) = (0.0, 0.0, 0.0);
        for key in seen.clone() {
            let weight = at(key);
            sums.keys[key].add(weight);
            distance += weight * key.abs_diff(query) as f64;
            if weight > 0.0 {
                entropy -= weight * weight.ln();
            }
            if key <= query && query < key + NEAR {
                near += weight;
            }
        }
        sums.distance.add(distance);
        if seen.len() > 1 {
            sums.entropy.add(entropy / (seen.len() as f64).ln());
        }
        if seen.len() > NEAR {
            sums.local.add(near);
        }
    }

    /// The keys that a query may see.
    fn seen(&self, layer: usize, query: usize, keys: usize) -> Range<usize> {
        if self.mask == Mask::None {
            return 0..keys;
        }
        let end = keys.min(query + 1);
        let window = self.windows.get(layer).copied().flatten();
        end.saturating_sub(window.unwrap_or(end))..end
    }

    /// The scores so far, by layer and head.
    pub fn scores(&self) -> Vec<HeadScores> {
        self.heads.iter().map(|((layer, head), sums)| sums.scores(*layer, *head)).collect()
    }

    /// What each key's position gets, so far.
    pub fn sinks(&self) -> Vec<KeySink> {
        let keys = self.heads.values().map(|sums| sums.keys.len()).max().unwrap_or(0);
        let sink = |position: usize| {
            let of_head = |sums: &Sums| sums.keys.get(position).and_then(Mean::value);
            let weights: Vec<f64> = self.heads.values().filter_map(of_head).collect();
            let count = weights.len().max(1) as f64;
            let above = weights.iter().filter(|weight| **weight > SINK).count();
            KeySink {
                position,
                mean_weight: weights.iter().sum::<f64>() / count,
                share_of_heads: above as f64 / count,
            }
        };
        (0..keys).map(sink).collect()
    }
}

impl Sums {
    fn scores(&self, layer: usize, head: usize) -> HeadScores {
        let most = self.keys.iter().map(|key| key.count).max().unwrap_or(0);
        let mut largest: Option<(usize, f64)> = None;
        for (position, key) in self.keys.iter().enumerate() {
            let Some(weight) = key.value().filter(|_| 2 * key.count >= most) else { continue };
            if largest.is_none_or(|(_, known)| weight > known) {
                largest = Some((position, weight));
            }
        }
        let mut scores = HeadScores {
            layer,
            head,
            previous_token: self.previous.value(),
            duplicate_token: self.duplicate.value(),
            induction: self.induction.value(),
            sink: self.keys.first().and_then(Mean::value),
            own: self.own.value(),
            local: self.local.value(),
            entropy: self.entropy.value(),
            distance: self.distance.value(),
            sink_position: largest.map(|(position, _)| position),
            sink_weight: largest.map(|(_, weight)| weight),
            kinds: vec![],
        };
        scores.kinds = HeadKind::of(&scores);
        scores
    }
}

impl AttentionObserver for HeadScorer {
    fn wants(&self, _layer: usize) -> bool {
        true
    }

    fn observe(&mut self, rows: AttentionRows<'_>) -> Result<()> {
        for head in 0..rows.heads {
            for (query, row) in rows.head(head).chunks_exact(rows.keys).enumerate() {
                self.add(rows.layer, head, rows.first_query + query, row);
            }
        }
        Ok(())
    }
}
