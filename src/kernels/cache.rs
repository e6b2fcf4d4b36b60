//! Keys and values of every position, in the order in which [`attention`](super::attention) reads
//! them.

mod rows;

use std::io;

use half::f16;
use memmap2::MmapMut;
use serde::Serialize;

use super::element::ElementType;
use super::quantize::quantize;
use super::threads::SharedSlice;
use super::{PANEL, Pool, memory};

/// Bytes of a `q8_0` block: its scale, and 32 integers.
const BLOCK: usize = 34;
/// Bytes of 32 rows of a panel of `q8_0`, behind 32 scales.
const GROUP: usize = PANEL * BLOCK;
/// Bytes of the scales.
const SCALES: usize = 2 * PANEL;

/// The keys and values of every layer, allocated once for `capacity` positions and written in place.
///
/// Each layer has its keys, `[kv_heads][capacity/32][head_dim][32]`, and behind them its values,
/// `[kv_heads][head_dim/32][capacity][32]`. As `q8_0` a scale serves 32 dimensions of one position, and
/// each 32 rows of a panel (dimensions of keys, positions of values) follow the scales of its 32
/// positions.
pub struct Cache {
    shape: CacheShape,
    data: MmapMut,
}

/// How keys and values are held.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub enum CacheType {
    #[default]
    #[serde(rename = "f32")]
    F32,
    /// Rounded to 11 bits.
    #[serde(rename = "f16")]
    F16,
    /// Rounded to 1/127 of the largest among 32 dimensions.
    #[serde(rename = "q8_0")]
    Q8_0,
}

impl CacheType {
    pub fn element(self) -> ElementType {
        match self {
            CacheType::F32 => ElementType::F32,
            CacheType::F16 => ElementType::F16,
            CacheType::Q8_0 => ElementType::Q8_0,
        }
    }

    /// `f32`, `f16` or `q8_0`.
    pub fn name(self) -> &'static str {
        self.element().name()
    }

    /// Bytes of one position's key (or value) in one head.
    pub fn head_bytes(self, head_dim: usize) -> usize {
        let element = self.element();
        head_dim.div_ceil(element.block_values()) * element.block_bytes()
    }
}

/// One of the two things that a cache holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CachePart {
    Keys,
    Values,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CacheShape {
    pub layers: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Positions.
    pub capacity: usize,
    pub held: CacheType,
}

// Sizes in bytes.
impl CacheShape {
    fn key_panel(&self) -> usize {
        PANEL * self.held.head_bytes(self.head_dim)
    }

    fn key_head(&self) -> usize {
        self.capacity.div_ceil(PANEL) * self.key_panel()
    }

    fn keys(&self) -> usize {
        self.kv_heads * self.key_head()
    }

    /// One position in a panel of 32 columns.
    fn value_row(&self) -> usize {
        self.held.head_bytes(PANEL)
    }

    fn value_panel(&self) -> usize {
        self.capacity.div_ceil(PANEL) * PANEL * self.value_row()
    }

    /// Panels of one head's values.
    pub(super) fn value_panels(&self) -> usize {
        self.head_dim.div_ceil(PANEL)
    }

    /// Where a position's panel of keys starts in a layer.
    fn key_start(&self, head: usize, position: usize) -> usize {
        head * self.key_head() + position / PANEL * self.key_panel()
    }

    /// Where the 32 positions around one start in a panel of values, behind a layer's keys.
    fn value_start(&self, head: usize, panel: usize, position: usize) -> usize {
        (head * self.value_panels() + panel) * self.value_panel()
            + position / PANEL * PANEL * self.value_row()
    }

    fn layer(&self) -> usize {
        self.keys() + self.kv_heads * self.value_panels() * self.value_panel()
    }

    /// All layers, unless that is beyond any memory.
    fn all(&self) -> Option<usize> {
        let capacity = self.capacity.checked_next_multiple_of(PANEL)?;
        let width = self.head_dim.checked_next_multiple_of(PANEL)?.checked_mul(2)?;
        // An upper bound that fits (4 bytes a value): then so does everything smaller.
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
        let bytes = shape.all().ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Cache { shape, data: memory::zeroed(bytes)? })
    }

    pub fn shape(&self) -> CacheShape {
        self.shape
    }

    /// Writes the keys and values of consecutive positions into a layer. In row *i* of `rows`,
    /// `row_len` long, keys `[kv_heads][head_dim]` start at `keys_at` and values at `values_at`.
    ///
    /// # Panics
    /// If positions pass the capacity or a row is too short.
    #[allow(clippy::too_many_arguments)]
    pub fn write(
        &mut self,
        pool: &Pool,
        layer: usize,
        first: usize,
        rows: &[f32],
        row_len: usize,
        keys_at: usize,
        values_at: usize,
    ) {
        let shape = self.shape;
        let CacheShape { kv_heads, head_dim, capacity, .. } = shape;
        let end = first + rows.len() / row_len;
        assert!(end <= capacity, "positions past the cache's capacity");
        let layer = &mut self.data[layer * shape.layer()..(layer + 1) * shape.layer()];
        let (keys, values) = layer.split_at_mut(shape.keys());
        let (keys, values) = (SharedSlice::new(keys), SharedSlice::new(values));
        let groups = end.div_ceil(PANEL) - first / PANEL;
        let task = |task: usize| {
            let (group, head) = (first / PANEL + task / kv_heads, task % kv_heads);
            for position in first.max(group * PANEL)..end.min((group + 1) * PANEL) {
                let row = &rows[(position - first) * row_len..][..row_len];
                let key = &row[keys_at + head * head_dim..][..head_dim];
                // SAFETY: each 32 positions of a head are written by one task.
                let panel = unsafe { keys.part(shape.key_start(head, position), shape.key_panel()) };
                shape.write_key(key, panel, position % PANEL);
                let value = &row[values_at + head * head_dim..][..head_dim];
                for (panel, value) in value.chunks(PANEL).enumerate() {
                    let start = shape.value_start(head, panel, position);
                    // SAFETY: as above.
                    let group = unsafe { values.part(start, PANEL * shape.value_row()) };
                    shape.write_value(value, group, position % PANEL);
                }
            }
        };
        // A generated token's few rows are written sooner than threads are called.
        if groups <= 2 {
            (0..groups * kv_heads).for_each(task);
        } else {
            pool.for_each(groups * kv_heads, 1, task);
        }
    }

    /// A head's panels of keys from a position on (a multiple of 32), each `[head_dim][32]`, and the
    /// bytes of one.
    pub(super) fn keys_from(&self, layer: usize, head: usize, position: usize) -> (&[u8], usize) {
        let shape = self.shape;
        let start = layer * shape.layer() + shape.key_start(head, position);
        let end = layer * shape.layer() + (head + 1) * shape.key_head();
        (&self.data[start..end], shape.key_panel())
    }

    /// A head's panels of values from a position on (a multiple of 32), each `[positions][32]`, and the
    /// bytes from one to the next.
    pub(super) fn values_from(&self, layer: usize, head: usize, position: usize) -> (&[u8], usize) {
        let shape = self.shape;
        let values = layer * shape.layer() + shape.keys();
        let (start, end) = (shape.value_start(head, 0, position), shape.value_start(head + 1, 0, 0));
        (&self.data[values + start..values + end], shape.value_panel())
    }
}

impl CacheShape {
    /// Writes a position's key into its lane of a panel.
    fn write_key(&self, key: &[f32], panel: &mut [u8], lane: usize) {
        match self.held {
            CacheType::F32 => put_lane(key.iter().map(|value| value.to_ne_bytes()), panel, lane),
            CacheType::F16 => {
                put_lane(key.iter().map(|value| f16::from_f32(*value).to_ne_bytes()), panel, lane);
            }
            CacheType::Q8_0 => {
                for (values, group) in key.chunks(PANEL).zip(panel.chunks_exact_mut(GROUP)) {
                    put_key_block(&block(values), group, lane);
                }
            }
        }
    }

    /// Writes (up to) 32 columns of a position's value among its 32 positions.
    fn write_value(&self, value: &[f32], group: &mut [u8], position: usize) {
        let row = position * self.value_row();
        match self.held {
            CacheType::F32 => put(value.iter().map(|value| value.to_ne_bytes()), &mut group[row..]),
            CacheType::F16 => {
                put(value.iter().map(|value| f16::from_f32(*value).to_ne_bytes()), &mut group[row..]);
            }
            CacheType::Q8_0 => put_value_block(&block(value), group, position),
        }
    }
}

/// Up to 32 values as a block of `q8_0`.
fn block(values: &[f32]) -> [u8; BLOCK] {
    let (mut padded, mut block) = ([0f32; PANEL], [0; BLOCK]);
    padded[..values.len()].copy_from_slice(values);
    quantize(ElementType::Q8_0, &padded, &mut block);
    block
}

/// Puts a block into a lane of 32 rows of a panel of keys.
fn put_key_block(block: &[u8], group: &mut [u8], lane: usize) {
    let (scales, rows) = group.split_at_mut(SCALES);
    scales[2 * lane..2 * lane + 2].copy_from_slice(&block[..2]);
    for (value, row) in block[2..].iter().zip(rows.chunks_exact_mut(PANEL)) {
        row[lane] = *value;
    }
}

/// Puts a block into a row of 32 of a panel of values.
fn put_value_block(block: &[u8], group: &mut [u8], row: usize) {
    let (scales, rows) = group.split_at_mut(SCALES);
    scales[2 * row..2 * row + 2].copy_from_slice(&block[..2]);
    rows[row * PANEL..(row + 1) * PANEL].copy_from_slice(&block[2..]);
}

/// Puts values of `SIZE` bytes into one lane of a panel.
fn put_lane<const SIZE: usize>(values: impl Iterator<Item = [u8; SIZE]>, panel: &mut [u8], lane: usize) {
    for (value, column) in values.zip(panel.chunks_exact_mut(PANEL * SIZE)) {
        column[lane * SIZE..(lane + 1) * SIZE].copy_from_slice(&value);
    }
}

/// Puts values of `SIZE` bytes at the start of a row.
fn put<const SIZE: usize>(values: impl Iterator<Item = [u8; SIZE]>, row: &mut [u8]) {
    for (value, to) in values.zip(row.chunks_exact_mut(SIZE)) {
        to.copy_from_slice(&value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_beyond_any_memory_is_an_error() {
        let held = CacheType::F32;
        for shape in [
            CacheShape { layers: 1, kv_heads: 1 << 28, head_dim: 32, capacity: 1 << 29, held },
            CacheShape { layers: usize::MAX, kv_heads: 1, head_dim: 2, capacity: 1, held },
            CacheShape { layers: 1, kv_heads: 1, head_dim: 2, capacity: usize::MAX, held },
            CacheShape { layers: 1, kv_heads: 1, head_dim: usize::MAX, capacity: 1, held },
        ] {
            assert!(Cache::new(shape).is_err(), "{shape:?}");
        }
    }
}
