//! Keys and values of every position, in the order in which [`attention`](super::attention) reads
//! them.

mod rows;

use std::io;
use std::ops::Range;

use half::f16;
use memmap2::MmapMut;
use serde::Serialize;

use super::element::ElementType;
use super::packed_matrix::panel_bytes;
use super::quantize::{quantize, quantized};
use super::quantized_panel::pack_row;
use super::quantized_tile::{widen_blocks_q8_0, widen_q8_0};
use super::tile::widen_f16;
use super::{Isa, PANEL, memory};

/// The keys and values of every layer, allocated once for `capacity` positions and written in place.
///
/// Each layer has its keys, `[kv_heads][capacity/32][head_dim][32]`, and behind them its values,
/// `[kv_heads][head_dim/32][capacity][32]`. As `q8_0` a scale serves 32 dimensions of one position:
/// keys are panels of [quantised rows](super::quantized_panel), values blocks of 32 columns.
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
    /// `head_dim`, filled up to whole blocks.
    fn key_dims(&self) -> usize {
        self.head_dim.next_multiple_of(self.held.element().block_values())
    }

    fn key_panel(&self) -> usize {
        panel_bytes(self.held.element(), self.key_dims())
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
        self.capacity * self.value_row()
    }

    /// Panels of one head's values.
    pub(super) fn value_panels(&self) -> usize {
        self.head_dim.div_ceil(PANEL)
    }

    /// Where a position's panel of keys starts in a layer.
    fn key_start(&self, head: usize, position: usize) -> usize {
        head * self.key_head() + position / PANEL * self.key_panel()
    }

    /// Where a position's row in a panel of values starts behind a layer's keys.
    fn value_start(&self, head: usize, panel: usize, position: usize) -> usize {
        (head * self.value_panels() + panel) * self.value_panel() + position * self.value_row()
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
                let start = shape.key_start(head, position);
                shape.write_key(key, &mut keys[start..start + shape.key_panel()], position % PANEL);
                let value = &row[values_at + head * head_dim..][..head_dim];
                for (panel, value) in value.chunks(PANEL).enumerate() {
                    let start = shape.value_start(head, panel, position);
                    shape.write_value(value, &mut values[start..start + shape.value_row()]);
                }
            }
        }
    }

    /// A panel of 32 positions of a head's keys, `[head_dim][32]`, widened into `wide` if it is narrow.
    pub(super) fn key_panel<'a>(
        &'a self,
        isa: Isa,
        layer: usize,
        head: usize,
        panel: usize,
        wide: &'a mut Vec<f32>,
    ) -> &'a [f32] {
        let shape = self.shape;
        let start = layer * shape.layer() + head * shape.key_head() + panel * shape.key_panel();
        let bytes = &self.data[start..start + shape.key_panel()];
        wide.resize(if shape.held == CacheType::F32 { 0 } else { shape.key_dims() * PANEL }, 0.0);
        match shape.held {
            CacheType::F32 => return floats(bytes),
            // SAFETY: both are [head_dim][32].
            CacheType::F16 => unsafe { widen_f16(isa, halves(bytes), wide) },
            // SAFETY: both are [key_dims][32].
            CacheType::Q8_0 => unsafe { widen_q8_0(isa, bytes, wide) },
        }
        &wide[..shape.head_dim * PANEL]
    }

    /// Values of some positions in a panel of 32 of a head's columns, `[positions][32]`, widened into
    /// `wide` if they are narrow.
    pub(super) fn value_rows<'a>(
        &'a self,
        isa: Isa,
        layer: usize,
        head: usize,
        panel: usize,
        positions: Range<usize>,
        wide: &'a mut Vec<f32>,
    ) -> &'a [f32] {
        let shape = self.shape;
        let panel = (head * shape.value_panels() + panel) * shape.value_panel();
        let start = layer * shape.layer() + shape.keys() + panel;
        let row = shape.value_row();
        let bytes = &self.data[start + positions.start * row..start + positions.end * row];
        wide.resize(if shape.held == CacheType::F32 { 0 } else { positions.len() * PANEL }, 0.0);
        match shape.held {
            CacheType::F32 => return floats(bytes),
            // SAFETY: both are [positions][32].
            CacheType::F16 => unsafe { widen_f16(isa, halves(bytes), wide) },
            // SAFETY: as above, in blocks of 32.
            CacheType::Q8_0 => unsafe { widen_blocks_q8_0(isa, bytes, wide) },
        }
        wide
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
                let mut padded = key.to_vec();
                padded.resize(self.key_dims(), 0.0);
                pack_row(ElementType::Q8_0, &quantized(ElementType::Q8_0, &padded), panel, lane);
            }
        }
    }

    /// Writes (up to) 32 columns of a position's value.
    fn write_value(&self, value: &[f32], row: &mut [u8]) {
        match self.held {
            CacheType::F32 => put(value.iter().map(|value| value.to_ne_bytes()), row),
            CacheType::F16 => {
                put(value.iter().map(|value| f16::from_f32(*value).to_ne_bytes()), row);
            }
            CacheType::Q8_0 => {
                let mut padded = [0f32; PANEL];
                padded[..value.len()].copy_from_slice(value);
                quantize(ElementType::Q8_0, &padded, row);
            }
        }
    }
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

fn floats(bytes: &[u8]) -> &[f32] {
    // SAFETY: every bit pattern is an f32.
    let (before, floats, after) = unsafe { bytes.align_to::<f32>() };
    assert!(before.is_empty() && after.is_empty(), "a cache of f32 holds nothing else");
    floats
}

fn halves(bytes: &[u8]) -> &[f16] {
    // SAFETY: every bit pattern is an f16.
    let (before, halves, after) = unsafe { bytes.align_to::<f16>() };
    assert!(before.is_empty() && after.is_empty(), "a cache of f16 holds nothing else");
    halves
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
