//! Activations in bytes: what quantised weights are multiplied by.
//!
//! Each row is cut into groups of 32 neighbours; a group has a scale, its largest value / 127, and
//! its integers, the nearest to value / scale. A few values of a transformer's activations are many
//! times larger than the rest, always in much the same columns, and the coarse steps they force upon
//! their groups would make up much of the error: values above [`OUTLIER`] times the mean of the
//! groups' largest are kept apart as they are, and their columns multiplied in f32 (as LLM.int8 does,
//! Dettmers et al. 2022). So the others change by at most `OUTLIER`/254 of that mean.

// As in `simd`: unsafe because of the CPU's instructions, which `Isa` proves.
#![allow(unsafe_op_in_unsafe_fn)]

use std::mem::MaybeUninit;

pub use super::quantized_panel::GROUP;
use super::simd::{Simd, dispatch};
use super::tile::TILE_ROWS;
use super::{Isa, Pool};

/// How many times as large as the mean of the groups' largest a value must be to be kept as it is.
pub const OUTLIER: f32 = 1.5;

/// What weights of 4 bits are biased by, if by anything.
pub(super) const NIBBLE_BIAS: i32 = 8;

/// Rows in tiles of up to 12. In a tile of *r* rows, integers are `[depth / 32][r][32]`, scales and
/// sums `[depth / 32][r]`.
pub(super) struct QuantizedRows {
    /// Groups of a row.
    groups: usize,
    start: TileIntegers,
    /// What `start` points to.
    _owned: Owned,
}

/// value ≈ scale · integer, but for outlying values, which stand apart and have the integer 0.
struct Owned {
    integers: Vec<MaybeUninit<i8>>,
    scales: Vec<MaybeUninit<f32>>,
    byte_starts: Vec<MaybeUninit<i32>>,
    nibble_starts: Vec<MaybeUninit<i32>>,
    sums: Vec<MaybeUninit<f32>>,
    outlying: Vec<MaybeUninit<u8>>,
    columns: Vec<MaybeUninit<OutlyingColumn>>,
    values: Vec<MaybeUninit<f32>>,
}

/// A column of a group in which some row's value stands apart.
#[derive(Clone, Copy)]
pub(super) struct OutlyingColumn {
    /// In the group.
    pub column: u8,
    /// Bit *i*: row *i* of the tile's does.
    pub rows: u16,
}

/// Where a tile's part of [`QuantizedRows`] lies; who multiplies only reads it.
#[derive(Clone, Copy)]
pub(super) struct TileIntegers {
    pub integers: *mut i8,
    pub scales: *mut f32,
    /// −Σ of a group's integers times the bias of weights of 8 bits: where the sum of products starts.
    pub byte_starts: *mut i32,
    /// The same for weights of 4 bits that have one.
    pub nibble_starts: *mut i32,
    /// Σ of a group's values, as they are held.
    pub sums: *mut f32,
    /// `[depth / 32]`: how many of the group's columns follow in `columns`.
    pub outlying: *mut u8,
    /// Group after group, in order.
    pub columns: *mut OutlyingColumn,
    /// Of each of these columns the outlying values of all rows, 0 for rows that have none there.
    pub values: *mut f32,
}

// SAFETY: only pointers; who uses them promises not to meet another thread there.
unsafe impl Sync for TileIntegers {}

fn unwritten<T: Copy>(len: usize) -> Vec<MaybeUninit<T>> {
    let mut values = Vec::with_capacity(len);
    // SAFETY: there is room, and these need not be initialised.
    unsafe { values.set_len(len) };
    values
}

impl QuantizedRows {
    /// Quantises `input`, `[tokens, depth]`.
    ///
    /// # Panics
    /// If `depth` is no whole number of groups.
    pub fn new(isa: Isa, pool: &Pool, input: &[f32], depth: usize) -> QuantizedRows {
        assert!(depth.is_multiple_of(GROUP) && input.len().is_multiple_of(depth));
        let (tokens, groups) = (input.len() / depth, depth / GROUP);
        let tiles = tokens.div_ceil(TILE_ROWS);
        let mut owned = Owned {
            integers: unwritten(input.len()),
            scales: unwritten(tokens * groups),
            byte_starts: unwritten(tokens * groups),
            nibble_starts: unwritten(tokens * groups),
            sums: unwritten(tokens * groups),
            outlying: unwritten(tiles * groups),
            // As many as there can be; what is never written takes no memory.
            columns: unwritten(tiles * depth),
            values: unwritten(input.len()),
        };
        let start = TileIntegers {
            integers: owned.integers.as_mut_ptr().cast(),
            scales: owned.scales.as_mut_ptr().cast(),
            byte_starts: owned.byte_starts.as_mut_ptr().cast(),
            nibble_starts: owned.nibble_starts.as_mut_ptr().cast(),
            sums: owned.sums.as_mut_ptr().cast(),
            outlying: owned.outlying.as_mut_ptr().cast(),
            columns: owned.columns.as_mut_ptr().cast(),
            values: owned.values.as_mut_ptr().cast(),
        };
        let rows = QuantizedRows { groups, start, _owned: owned };
        pool.for_each(tiles, 1, |tile| {
            let first = tile * TILE_ROWS;
            let input = &input[first * depth..tokens.min(first + TILE_ROWS) * depth];
            // SAFETY: each tile's part is written by one thread, and as large as its rows need.
            unsafe { quantize_tile(isa, input, depth, rows.tile(first)) };
        });
        rows
    }

    /// What the tile that starts at a row holds.
    pub fn tile(&self, first_row: usize) -> TileIntegers {
        let (group, tile) = (first_row * self.groups, first_row / TILE_ROWS * self.groups);
        let start = &self.start;
        TileIntegers {
            integers: start.integers.wrapping_add(group * GROUP),
            scales: start.scales.wrapping_add(group),
            byte_starts: start.byte_starts.wrapping_add(group),
            nibble_starts: start.nibble_starts.wrapping_add(group),
            sums: start.sums.wrapping_add(group),
            outlying: start.outlying.wrapping_add(tile),
            columns: start.columns.wrapping_add(tile * GROUP),
            values: start.values.wrapping_add(group * GROUP),
        }
    }
}

dispatch!(
    /// # Safety
    /// `input` is at most 12 rows of `depth` values, whole groups, and `out` has room for them.
    fn quantize_tile = self::quantize_tile_body [] (input: &[f32], depth: usize, out: TileIntegers)
);

#[inline(always)]
unsafe fn quantize_tile_body<S: Simd>(input: &[f32], depth: usize, out: TileIntegers) {
    let (rows, groups) = (input.len() / depth, depth / GROUP);
    let mut limits = [0f32; TILE_ROWS];
    // The groups' largest values wait where their scales will be.
    for (row, values) in input.chunks_exact(depth).enumerate() {
        let mut total = 0.0;
        let mut differences = S::splat(0.0);
        for (group, values) in values.as_chunks::<GROUP>().0.iter().enumerate() {
            let mut largest = S::splat(0.0);
            for at in (0..GROUP).step_by(S::LANES) {
                let value = S::load(values.as_ptr().add(at));
                largest = S::max(largest, S::max(value, S::negate(value)));
                // 0, but for values that are not finite.
                differences = S::add(differences, S::fma(value, S::splat(-1.0), value));
            }
            let largest = S::maximum(largest);
            total += largest;
            *out.scales.add(group * rows + row) = largest;
        }
        limits[row] = OUTLIER * (total / groups as f32);
        if S::sum(differences).is_nan() {
            for (group, values) in values.as_chunks::<GROUP>().0.iter().enumerate() {
                if !values.iter().all(|value| value.is_finite()) {
                    *out.scales.add(group * rows + row) = f32::NAN;
                }
            }
        }
    }
    let mut columns = 0;
    for group in 0..groups {
        let at = group * rows;
        let values = |row: usize| input.as_ptr().add(row * depth + group * GROUP);
        // Of each column the rows whose value stands apart, and a bit for each column that has any.
        let (mut outlying, mut any) = ([0u16; GROUP], 0u32);
        for (row, limit) in limits[..rows].iter().enumerate() {
            let largest = *out.scales.add(at + row);
            if largest > *limit {
                let mut rest = [0f32; GROUP];
                let (largest, apart, mut bits) = set_apart::<S>(values(row), *limit, &mut rest);
                any |= bits;
                while bits != 0 {
                    outlying[bits.trailing_zeros() as usize] |= 1 << row;
                    bits &= bits - 1;
                }
                *out.sums.add(at + row) = apart + quantize_group::<S>(rest.as_ptr(), largest, out, at + row);
            } else {
                *out.sums.add(at + row) = quantize_group::<S>(values(row), largest, out, at + row);
            }
        }
        let before = columns;
        while any != 0 {
            let column = any.trailing_zeros() as usize;
            any &= any - 1;
            *out.columns.add(columns) = OutlyingColumn { column: column as u8, rows: outlying[column] };
            for row in 0..rows {
                let apart = outlying[column] >> row & 1 == 1;
                *out.values.add(columns * rows + row) = if apart { *values(row).add(column) } else { 0.0 };
            }
            columns += 1;
        }
        *out.outlying.add(group) = (columns - before) as u8;
    }
}

/// Copies a group, with 0 for values whose size is above the limit; answers the largest size of the
/// rest, the sum of those above, and a bit for the column of each.
#[inline(always)]
unsafe fn set_apart<S: Simd>(values: *const f32, limit: f32, rest: &mut [f32; GROUP]) -> (f32, f32, u32) {
    let limit = S::splat(limit);
    let (mut largest, mut apart, mut bits) = (S::splat(0.0), S::splat(0.0), 0);
    for at in (0..GROUP).step_by(S::LANES) {
        let value = S::load(values.add(at));
        let size = S::max(value, S::negate(value));
        let kept = S::zero_below(limit, size, value);
        S::store(rest.as_mut_ptr().add(at), kept);
        largest = S::max(largest, S::zero_below(limit, size, size));
        apart = S::add(apart, S::add(value, S::negate(kept)));
        bits |= S::bits_below(limit, size) << at;
    }
    (S::maximum(largest), S::sum(apart), bits)
}

/// Quantises a group, whose largest value is known, to its place; answers the sum of what its values
/// have become. A largest value that is not finite makes the scale NaN, so that it is not lost.
#[inline(always)]
unsafe fn quantize_group<S: Simd>(values: *const f32, largest: f32, out: TileIntegers, group: usize) -> f32 {
    let scale = if largest.is_finite() { largest / 127.0 } else { f32::NAN };
    // A value that is not finite becomes 0.
    let inverse = if scale >= f32::MIN_POSITIVE { 1.0 / scale } else { 0.0 };
    let mut sum = S::splat(0.0);
    for at in (0..GROUP).step_by(S::LANES) {
        let integer = match scale.is_nan() {
            false => S::round(S::mul(S::load(values.add(at)), S::splat(inverse))),
            true => S::splat(0.0),
        };
        S::store_i8(out.integers.add(group * GROUP + at), integer);
        sum = S::add(sum, integer);
    }
    // Exact: at most 32 · 127.
    let sum = S::sum(sum);
    *out.scales.add(group) = scale;
    *out.byte_starts.add(group) = -S::DOT_BIAS * sum as i32;
    *out.nibble_starts.add(group) = -NIBBLE_BIAS * sum as i32;
    scale * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tile that starts at a row, as slices.
    struct Seen {
        rows: usize,
        integers: Vec<i8>,
        scales: Vec<f32>,
        sums: Vec<f32>,
        /// `[depth][rows]`, 0 where none is.
        outlying: Vec<f32>,
    }

    fn seen(quantized: &QuantizedRows, first: usize, rows: usize) -> Seen {
        let tile = quantized.tile(first);
        let groups = quantized.groups;
        let mut outlying = vec![0.0; groups * GROUP * rows];
        // SAFETY: the tile has that many rows, and as many columns as it says.
        unsafe {
            let mut next = 0;
            for group in 0..groups {
                for _ in 0..*tile.outlying.add(group) {
                    let OutlyingColumn { column, rows: marked } = *tile.columns.add(next);
                    for row in 0..rows {
                        let value = *tile.values.add(next * rows + row);
                        assert_eq!(value != 0.0, marked >> row & 1 == 1);
                        outlying[(group * GROUP + usize::from(column)) * rows + row] = value;
                    }
                    next += 1;
                }
            }
            Seen {
                rows,
                integers: std::slice::from_raw_parts(tile.integers, groups * rows * GROUP).to_vec(),
                scales: std::slice::from_raw_parts(tile.scales, groups * rows).to_vec(),
                sums: std::slice::from_raw_parts(tile.sums, groups * rows).to_vec(),
                outlying,
            }
        }
    }

    #[test]
    fn rows_are_near_and_lie_where_tiles_read_them() {
        let (tokens, depth) = (14, 160);
        let input: Vec<f32> = (0..tokens * depth)
            .map(|i| ((i * 7919 % 1013) as f32 / 70.0 - 7.0) * if i / 32 % 5 == 1 { 40.0 } else { 1.0 })
            .collect();
        let largest = |group: &[f32]| group.iter().fold(0f32, |a, b| a.max(b.abs()));
        for isa in Isa::available() {
            let rows = QuantizedRows::new(isa, &Pool::new(2), &input, depth);
            for token in 0..tokens {
                let first = token / TILE_ROWS * TILE_ROWS;
                let tile = seen(&rows, first, TILE_ROWS.min(tokens - first));
                let values = &input[token * depth..(token + 1) * depth];
                let mean = values.chunks(GROUP).map(largest).sum::<f32>() / (depth / GROUP) as f32;
                let limit = OUTLIER * mean;
                let mut apart = 0;
                for (group, values) in values.chunks(GROUP).enumerate() {
                    let at = group * tile.rows + token - first;
                    let mut sum = 0.0;
                    for (column, value) in values.iter().enumerate() {
                        let integer = f32::from(tile.integers[at * GROUP + column]);
                        let outlying = tile.outlying[(group * GROUP + column) * tile.rows + token - first];
                        let ours = integer * tile.scales[at] + outlying;
                        sum += ours;
                        if value.abs() > limit {
                            apart += 1;
                            assert_eq!((outlying, integer), (*value, 0.0), "{isa}");
                        } else {
                            assert_eq!(outlying, 0.0, "{isa}");
                            let bound = largest(values).min(limit) / 253.0;
                            assert!((ours - value).abs() <= bound, "{isa}: {value} became {ours}");
                        }
                    }
                    assert!((tile.sums[at] - sum).abs() < 1e-3, "{isa}: {} for {sum}", tile.sums[at]);
                }
                assert!((8..32).contains(&apart), "{isa}: {apart} values stand apart");
            }
        }
    }

    #[test]
    fn zeros_subnormal_and_infinite_values() {
        let pool = Pool::new(1);
        for isa in Isa::available() {
            let with = |value: f32| {
                let mut input = vec![0f32; 32];
                input[5] = value;
                seen(&QuantizedRows::new(isa, &pool, &input, 32), 0, 1)
            };
            let zero = with(0.0);
            assert!(zero.scales == [0.0] && zero.integers.iter().all(|integer| *integer == 0));
            let tiny = with(1e-44);
            assert!(tiny.scales[0] < 1e-44 && tiny.integers.iter().all(|integer| *integer == 0));
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                assert!(with(value).scales[0].is_nan(), "{isa}: {value} must not be lost");
            }
            assert_eq!(with(f32::MAX).integers[5], 127);
        }
    }
}
