//! What the scores of one step are made of, kept in memory: queries, keys and values.

use crate::error::Result;
use crate::model::{AttentionObserver, AttentionRows, Projected};

/// Queries, keys and values of every layer of the last step: for a short text, so that its
/// attention can be computed again in front of a reader.
#[derive(Clone, Debug, Default)]
pub struct Projections {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// What the products of queries and keys are multiplied with, by layer.
    pub scales: Vec<f32>,
    /// Scores are held within ± this, by tanh.
    pub cap: Option<f32>,
    /// Of linear biases (ALiBi), by head: what each key adds to a score over the key before it.
    pub slopes: Option<Vec<f32>>,
    /// By layer: `[tokens, (heads + 2 · kv_heads) · head_dim]`, rotated and normed.
    pub layers: Vec<Vec<f32>>,
}

impl AttentionObserver for Projections {
    fn wants(&self, _layer: usize) -> bool {
        true
    }

    fn observe(&mut self, _rows: AttentionRows<'_>) -> Result<()> {
        Ok(())
    }

    fn wants_projected(&self, _layer: usize) -> bool {
        true
    }

    fn projected(&mut self, rows: Projected<'_>) -> Result<()> {
        if rows.layer == 0 {
            (self.scales, self.layers) = (vec![], vec![]);
        }
        (self.heads, self.kv_heads, self.head_dim) = (rows.heads, rows.kv_heads, rows.head_dim);
        self.scales.push(rows.scale);
        self.cap = rows.cap;
        self.slopes = rows.bias.map(|bias| {
            // Of a bias [heads, keys], which is linear in the key's position.
            let keys = bias.len() / rows.heads;
            (0..rows.heads)
                .map(|head| if keys > 1 { bias[head * keys + 1] - bias[head * keys] } else { 0.0 })
                .collect()
        });
        self.layers.push(rows.rows.to_vec());
        Ok(())
    }
}
