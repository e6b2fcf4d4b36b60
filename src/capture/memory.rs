//! Maps in memory: all heads of a layer as a dump gives them, and the one map that
//! `attend map "text"` shows.

use std::ops::Range;

use crate::error::Result;
use crate::model::{AttentionObserver, AttentionRows, Projected, StepShape, ValueNorms};

/// The maps of one layer in one step, `[heads, queries, keys]`.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerMap {
    pub layer: usize,
    pub heads: usize,
    /// Position of the first query.
    pub first_query: usize,
    pub queries: usize,
    /// From one query to the next: 1, but where only some were recorded.
    pub stride: usize,
    pub keys: usize,
    pub weights: Vec<f32>,
}

impl LayerMap {
    /// The position of a row's query.
    pub fn query(&self, row: usize) -> usize {
        self.first_query + row * self.stride
    }

    /// One head's map, `[queries, keys]`.
    ///
    /// # Panics
    /// If there is no such head.
    pub fn head(&self, head: usize) -> &[f32] {
        let size = self.queries * self.keys;
        &self.weights[head * size..(head + 1) * size]
    }

    /// One head's map, or with `None` the mean over all heads, whose rows sum to 1 too.
    pub fn shown(&self, head: Option<usize>) -> ShownMap {
        let mut shown = ShownMap::of(self.layer, head);
        shown.start(self.first_query, self.queries, self.keys);
        shown.stride = self.stride;
        let heads = head.map_or(0..self.heads, |head| head..head + 1);
        let share = 1.0 / heads.len() as f32;
        for head in heads {
            for (shown, weight) in shown.weights.iter_mut().zip(self.head(head)) {
                *shown += weight * share;
            }
        }
        shown
    }
}

/// An observer that keeps one map of the last step, `[queries, keys]`: a head's, or the mean over
/// all heads of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct ShownMap {
    pub layer: usize,
    /// `None`: the mean.
    pub head: Option<usize>,
    /// Position of the first query.
    pub first_query: usize,
    pub queries: usize,
    /// From one query to the next.
    pub stride: usize,
    pub keys: usize,
    pub weights: Vec<f32>,
}

impl ShownMap {
    /// An observer that will keep the map of a head, or the mean of the layer's heads.
    pub fn of(layer: usize, head: Option<usize>) -> ShownMap {
        ShownMap { layer, head, first_query: 0, queries: 0, stride: 1, keys: 0, weights: vec![] }
    }

    fn start(&mut self, first_query: usize, queries: usize, keys: usize) {
        (self.first_query, self.queries, self.keys) = (first_query, queries, keys);
        self.weights = vec![0.0; queries * keys];
    }
}

impl AttentionObserver for ShownMap {
    fn wants(&self, layer: usize) -> bool {
        layer == self.layer
    }

    fn begin_step(&mut self, step: StepShape) -> Result<()> {
        self.start(step.first_query, step.queries, step.keys);
        Ok(())
    }

    fn observe(&mut self, rows: AttentionRows<'_>) -> Result<()> {
        let heads = self.head.map_or(0..rows.heads, |head| head..head + 1);
        let share = 1.0 / heads.len() as f32;
        for head in heads {
            for (query, weights) in rows.head(head).chunks_exact(rows.keys).enumerate() {
                let row = (rows.first_query - self.first_query + query) * self.keys;
                for (shown, weight) in self.weights[row..row + rows.keys].iter_mut().zip(weights) {
                    *shown += weight * share;
                }
            }
        }
        Ok(())
    }
}

/// An observer that keeps the last query's row of each step, `[keys]`: of a head, or the mean over
/// the heads of a layer or of all layers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LastRow {
    /// `None`: all.
    pub layer: Option<usize>,
    /// `None`: all.
    pub head: Option<usize>,
    keys: usize,
    sum: Vec<f32>,
    heads: usize,
}

impl LastRow {
    pub fn of(layer: Option<usize>, head: Option<usize>) -> LastRow {
        LastRow { layer, head, ..LastRow::default() }
    }

    /// The row of the last step; it sums to 1.
    pub fn weights(&self) -> Vec<f32> {
        self.sum.iter().map(|sum| sum / self.heads.max(1) as f32).collect()
    }
}

impl AttentionObserver for LastRow {
    fn wants(&self, layer: usize) -> bool {
        self.layer.is_none_or(|wanted| wanted == layer)
    }

    fn wants_queries(&self, layer: usize, queries: Range<usize>) -> bool {
        // Before a step begins its last query is not known.
        self.wants(layer) && (self.keys == 0 || queries.end >= self.keys)
    }

    fn begin_step(&mut self, step: StepShape) -> Result<()> {
        (self.keys, self.heads) = (step.keys, 0);
        self.sum.clear();
        self.sum.resize(step.keys, 0.0);
        Ok(())
    }

    fn observe(&mut self, rows: AttentionRows<'_>) -> Result<()> {
        if rows.first_query + rows.queries < self.keys {
            return Ok(());
        }
        for head in self.head.map_or(0..rows.heads, |head| head..head + 1) {
            let last = &rows.head(head)[(rows.queries - 1) * rows.keys..];
            self.sum.iter_mut().zip(last).for_each(|(sum, weight)| *sum += weight);
            self.heads += 1;
        }
        Ok(())
    }

    fn end_step(&mut self) -> Result<()> {
        self.keys = 0;
        Ok(())
    }
}

/// Passes everything on to two observers.
pub struct Both<'a>(pub &'a mut dyn AttentionObserver, pub &'a mut dyn AttentionObserver);

impl AttentionObserver for Both<'_> {
    fn wants(&self, layer: usize) -> bool {
        self.0.wants(layer) || self.1.wants(layer)
    }

    fn wants_queries(&self, layer: usize, queries: Range<usize>) -> bool {
        let wants = |observer: &dyn AttentionObserver| {
            observer.wants(layer) && observer.wants_queries(layer, queries.clone())
        };
        wants(self.0) || wants(self.1)
    }

    fn begin_step(&mut self, step: StepShape) -> Result<()> {
        self.0.begin_step(step)?;
        self.1.begin_step(step)
    }

    fn observe(&mut self, rows: AttentionRows<'_>) -> Result<()> {
        if self.0.wants(rows.layer) {
            self.0.observe(rows)?;
        }
        if self.1.wants(rows.layer) {
            self.1.observe(rows)?;
        }
        Ok(())
    }

    fn wants_value_norms(&self, layer: usize) -> bool {
        self.0.wants_value_norms(layer) || self.1.wants_value_norms(layer)
    }

    fn observe_value_norms(&mut self, norms: ValueNorms<'_>) -> Result<()> {
        if self.0.wants_value_norms(norms.layer) {
            self.0.observe_value_norms(norms)?;
        }
        if self.1.wants_value_norms(norms.layer) {
            self.1.observe_value_norms(norms)?;
        }
        Ok(())
    }

    fn wants_projected(&self, layer: usize) -> bool {
        self.0.wants_projected(layer) || self.1.wants_projected(layer)
    }

    fn projected(&mut self, rows: Projected<'_>) -> Result<()> {
        if self.0.wants_projected(rows.layer) {
            self.0.projected(rows)?;
        }
        if self.1.wants_projected(rows.layer) {
            self.1.projected(rows)?;
        }
        Ok(())
    }

    fn end_step(&mut self) -> Result<()> {
        self.0.end_step()?;
        self.1.end_step()
    }
}
