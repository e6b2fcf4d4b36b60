//! Keys and values of every position, in the order in which [`attention`](super::attention) reads
//! them.

use std::io;

use super::PANEL;
use super::memory::FloatMemory;

/// The keys and values of every layer, allocated once for `capacity` positions and written in place.
///
/// Each layer has its keys, `[kv_heads][capacity/32][head_dim][32]`, and behind them its values,
/// `[kv_heads][head_dim/32][capacity][32]`.
pub struct Cache {
    shape: CacheShape,
    data: FloatMemory,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CacheShape {
    pub layers: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Positions.
    pub capacity: usize,
}

impl CacheShape {
    /// Values of one head's keys.
    pub(super) fn key_head(&self) -> usize {
        self.capacity.next_multiple_of(PANEL) * self.head_dim
    }

    fn keys(&self) -> usize {
        self.kv_heads * self.key_head()
    }

    /// Values of one panel of 32 columns.
    pub(super) fn value_panel(&self) -> usize {
        self.capacity * PANEL
    }

    /// Panels of one head's values.
    pub(super) fn value_panels(&self) -> usize {
        self.head_dim.div_ceil(PANEL)
    }

    fn layer(&self) -> usize {
        self.keys() + self.kv_heads * self.value_panels() * self.value_panel()
    }

    /// Values of all layers, unless that is beyond any memory.
    fn all(&self) -> Option<usize> {
        let capacity = self.capacity.checked_next_multiple_of(PANEL)?;
        let width = self.head_dim.checked_next_multiple_of(PANEL)?.checked_mul(2)?;
        // An upper bound that fits: then so does everything smaller.
        capacity.checked_mul(width)?.checked_mul(self.kv_heads)?.checked_mul(self.layers)?.checked_mul(4)?;
        Some(self.layers * self.layer())
    }
}

impl Cache {
    /// An empty cache. The memory is zero, and touched only as positions are written.
    ///
    /// # Errors
    /// If the system has no memory for it.
    pub fn new(shape: CacheShape) -> io::Result<Cache> {
        let len = shape.all().ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Cache { shape, data: FloatMemory::zeroed(len)? })
    }

    pub fn shape(&self) -> CacheShape {
        self.shape
    }

    /// Writes the keys and values of consecutive positions into a layer. In row *i* of `rows`,
    /// `row_len` long, keys `[kv_heads][head_dim]` start at `keys_at` and values at `values_at`.
    ///
    /// # Panics
    /// If positions pass the capacity or a row is too short.
    pub fn write(
        &mut self,
        layer: usize,
        first: usize,
        rows: &[f32],
        row_len: usize,
        keys_at: usize,
        values_at: usize,
    ) {
        let shape = self.shape;
        let CacheShape { kv_heads, head_dim, capacity, .. } = shape;
        assert!(first + rows.len() / row_len <= capacity, "positions past the cache's capacity");
        let layer = &mut self.data[layer * shape.layer()..(layer + 1) * shape.layer()];
        let (keys, values) = layer.split_at_mut(shape.keys());
        for (position, row) in (first..).zip(rows.chunks_exact(row_len)) {
            for head in 0..kv_heads {
                let key = &row[keys_at + head * head_dim..][..head_dim];
                let start = head * shape.key_head() + position / PANEL * head_dim * PANEL + position % PANEL;
                for (dim, value) in key.iter().enumerate() {
                    keys[start + dim * PANEL] = *value;
                }
                let value = &row[values_at + head * head_dim..][..head_dim];
                for (panel, value) in value.chunks(PANEL).enumerate() {
                    let panel = head * shape.value_panels() + panel;
                    let start = panel * shape.value_panel() + position * PANEL;
                    values[start..start + value.len()].copy_from_slice(value);
                }
            }
        }
    }

    /// Keys and values of one layer.
    pub(super) fn layer(&self, layer: usize) -> (&[f32], &[f32]) {
        let len = self.shape.layer();
        self.data[layer * len..(layer + 1) * len].split_at(self.shape.keys())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_beyond_any_memory_is_an_error() {
        for shape in [
            CacheShape { layers: 1, kv_heads: 1 << 28, head_dim: 32, capacity: 1 << 29 },
            CacheShape { layers: usize::MAX, kv_heads: 1, head_dim: 2, capacity: 1 },
            CacheShape { layers: 1, kv_heads: 1, head_dim: 2, capacity: usize::MAX },
            CacheShape { layers: 1, kv_heads: 1, head_dim: usize::MAX, capacity: 1 },
        ] {
            assert!(Cache::new(shape).is_err(), "{shape:?}");
        }
    }
}
