//! One layer's map of one step, kept in memory: what `attend map "text"` shows.

use crate::error::Result;
use crate::model::{AttentionObserver, AttentionRows, StepShape};

/// The map of one layer, `[heads, queries, keys]`: an observer to run, and what it kept.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerMap {
    pub layer: usize,
    pub heads: usize,
    /// Position of the first query.
    pub first_query: usize,
    pub queries: usize,
    pub keys: usize,
    pub weights: Vec<f32>,
}

impl LayerMap {
    /// An observer that will keep the map of `layer`.
    pub fn of(layer: usize) -> LayerMap {
        LayerMap { layer, heads: 0, first_query: 0, queries: 0, keys: 0, weights: vec![] }
    }

    /// One head's map, `[queries, keys]`.
    ///
    /// # Panics
    /// If there is no such head.
    pub fn head(&self, head: usize) -> &[f32] {
        let size = self.queries * self.keys;
        &self.weights[head * size..(head + 1) * size]
    }

    /// The mean over all heads, `[queries, keys]`; its rows sum to 1 too.
    pub fn mean(&self) -> Vec<f32> {
        let mut mean = vec![0f32; self.queries * self.keys];
        for head in 0..self.heads {
            for (mean, weight) in mean.iter_mut().zip(self.head(head)) {
                *mean += weight / self.heads as f32;
            }
        }
        mean
    }
}

impl AttentionObserver for LayerMap {
    fn wants(&self, layer: usize) -> bool {
        layer == self.layer
    }

    fn begin_step(&mut self, step: StepShape) -> Result<()> {
        (self.first_query, self.queries, self.keys) = (step.first_query, step.queries, step.keys);
        self.weights.clear();
        Ok(())
    }

    fn observe(&mut self, rows: AttentionRows<'_>) -> Result<()> {
        self.heads = rows.heads;
        self.weights.resize(rows.heads * self.queries * self.keys, 0.0);
        for head in 0..rows.heads {
            for (query, weights) in rows.head(head).chunks_exact(rows.keys).enumerate() {
                let row = head * self.queries + rows.first_query - self.first_query + query;
                self.weights[row * self.keys..row * self.keys + rows.keys].copy_from_slice(weights);
            }
        }
        Ok(())
    }
}

/// Passes everything on to two observers.
pub struct Both<'a>(pub &'a mut dyn AttentionObserver, pub &'a mut dyn AttentionObserver);

impl AttentionObserver for Both<'_> {
    fn wants(&self, layer: usize) -> bool {
        self.0.wants(layer) || self.1.wants(layer)
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

    fn end_step(&mut self) -> Result<()> {
        self.0.end_step()?;
        self.1.end_step()
    }
}
