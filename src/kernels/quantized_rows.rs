//! Activations in bytes: what quantised weights are multiplied by.
//!
//! Each row is cut into groups of 32 neighbours; a group has a scale, its largest value / 127, and
//! its integers, the nearest to value / scale. A few groups of a transformer's activations hold
//! values many times larger than the rest, and their coarse steps would make up much of the error:
//! a group whose largest value is above [`OUTLIER`] times the mean of the row's groups gets a second
//! scale and second integers, for what the first leave. So a value changes by at most
//! `OUTLIER`/254 of that mean, or 1/254² of its group's largest, if that is more.

// As in `simd`: unsafe because of the CPU's instructions, which `Isa` proves.
#![allow(unsafe_op_in_unsafe_fn)]

use std::mem::MaybeUninit;

pub use super::quantized_panel::GROUP;
use super::simd::{Simd, dispatch};
use super::tile::TILE_ROWS;
use super::{Isa, Pool};

/// How many times as large as the mean a group's largest value must be for a second set of integers.
/// On SmolLM2-135M, 3 leaves half of the error in perplexity that one set has, at a tenth of what
/// two sets everywhere cost.
pub const OUTLIER: f32 = 3.0;

/// Rows in tiles of up to 12. In a tile of *r* rows, integers are `[depth / 32][r][32]`, scales and
/// sums `[depth / 32][r]`.
pub(super) struct QuantizedRows {
    /// Groups of a row.
    groups: usize,
    start: TileIntegers,
    /// What `start` points to.
    _owned: (Integers, Integers, Vec<MaybeUninit<f32>>, Vec<u16>),
}

/// value ≈ scale · integer.
struct Integers {
    integers: Vec<MaybeUninit<i8>>,
    scales: Vec<MaybeUninit<f32>>,
    /// Σ of a group's integers.
    sums: Vec<MaybeUninit<i32>>,
}

/// Where a tile's part of [`QuantizedRows`] lies; who multiplies only reads it.
#[derive(Clone, Copy)]
pub(super) struct TileIntegers {
    pub first: RowIntegers,
    /// Written where a row of the tile is outlying; there those of the others are 0.
    pub second: RowIntegers,
    /// Σ of a group's values, as the integers have them.
    pub sums: *mut f32,
    /// `[depth / 32]`: bit *i* says that row *i* of the tile has second integers there.
    pub outlying: *mut u16,
}

// SAFETY: only pointers; who uses them promises not to meet another thread there.
unsafe impl Sync for TileIntegers {}

/// One set of a tile's integers.
#[derive(Clone, Copy)]
pub(super) struct RowIntegers {
    pub integers: *mut i8,
    pub scales: *mut f32,
    pub sums: *mut i32,
}

impl Integers {
    fn unwritten(values: usize) -> Integers {
        let groups = values / GROUP;
        Integers { integers: unwritten(values), scales: unwritten(groups), sums: unwritten(groups) }
    }

    fn start(&mut self) -> RowIntegers {
        RowIntegers {
            integers: self.integers.as_mut_ptr().cast(),
            scales: self.scales.as_mut_ptr().cast(),
            sums: self.sums.as_mut_ptr().cast(),
        }
    }
}

impl RowIntegers {
    /// Those of the groups from `group` on.
    fn from(self, group: usize) -> RowIntegers {
        RowIntegers {
            integers: self.integers.wrapping_add(group * GROUP),
            scales: self.scales.wrapping_add(group),
            sums: self.sums.wrapping_add(group),
        }
    }
}

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
        let (mut first, mut second) = (Integers::unwritten(input.len()), Integers::unwritten(input.len()));
        let mut sums = unwritten(tokens * groups);
        let mut outlying = vec![0; tiles * groups];
        let start = TileIntegers {
            first: first.start(),
            second: second.start(),
            sums: sums.as_mut_ptr().cast(),
            outlying: outlying.as_mut_ptr(),
        };
        let rows = QuantizedRows { groups, start, _owned: (first, second, sums, outlying) };
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
        let group = first_row * self.groups;
        TileIntegers {
            first: self.start.first.from(group),
            second: self.start.second.from(group),
            sums: self.start.sums.wrapping_add(group),
            outlying: self.start.outlying.wrapping_add(first_row / TILE_ROWS * self.groups),
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
            *out.first.scales.add(group * rows + row) = largest;
        }
        limits[row] = OUTLIER * (total / groups as f32);
        if S::sum(differences).is_nan() {
            for (group, values) in values.as_chunks::<GROUP>().0.iter().enumerate() {
                if !values.iter().all(|value| value.is_finite()) {
                    *out.first.scales.add(group * rows + row) = f32::NAN;
                }
            }
        }
    }
    for group in 0..groups {
        let values = |row: usize| input.as_ptr().add(row * depth + group * GROUP);
        let at = group * rows;
        let mut outlying = 0u16;
        for (row, limit) in limits[..rows].iter().enumerate() {
            let largest = *out.first.scales.add(at + row);
            if largest > *limit {
                outlying |= 1 << row;
            }
            *out.sums.add(at + row) = quantize_group::<S>(values(row), largest, out.first, at + row);
        }
        *out.outlying.add(group) = outlying;
        if outlying == 0 {
            continue;
        }
        for row in 0..rows {
            let (first, mut left) = (*out.first.scales.add(at + row), [0f32; GROUP]);
            if outlying & 1 << row != 0 {
                for column in (0..GROUP).step_by(S::LANES) {
                    let integers = S::load_i8(out.first.integers.add((at + row) * GROUP + column));
                    let value = S::load(values(row).add(column));
                    S::store(left.as_mut_ptr().add(column), S::fma(integers, S::splat(-first), value));
                }
            }
            let largest = left.iter().fold(0f32, |a, b| a.max(b.abs()));
            *out.sums.add(at + row) += quantize_group::<S>(left.as_ptr(), largest, out.second, at + row);
        }
    }
}

/// Quantises a group, whose largest value is known, to its place; answers the sum of what its values
/// have become. A largest value that is not finite makes the scale NaN, so that it is not lost.
#[inline(always)]
unsafe fn quantize_group<S: Simd>(values: *const f32, largest: f32, out: RowIntegers, group: usize) -> f32 {
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
    *out.sums.add(group) = sum as i32;
    scale * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tile that starts at a row, as slices.
    struct Seen {
        rows: usize,
        integers: [Vec<i8>; 2],
        scales: [Vec<f32>; 2],
        sums: Vec<f32>,
        outlying: Vec<u16>,
    }

    fn seen(rows: &QuantizedRows, first: usize, count: usize) -> Seen {
        let tile = rows.tile(first);
        let groups = rows.groups;
        // SAFETY: the tile has that many rows. Second integers are read only where a row is outlying.
        unsafe {
            let outlying = std::slice::from_raw_parts(tile.outlying, groups).to_vec();
            let read = |part: RowIntegers, all: bool| {
                let (mut integers, mut scales) = (vec![], vec![]);
                for group in 0..groups * count {
                    let there = all || outlying[group / count] != 0;
                    scales.push(if there { *part.scales.add(group) } else { 0.0 });
                    let at = |column| if there { *part.integers.add(group * GROUP + column) } else { 0 };
                    integers.extend((0..GROUP).map(at));
                }
                (integers, scales)
            };
            let ((first, first_scales), (second, second_scales)) =
                (read(tile.first, true), read(tile.second, false));
            Seen {
                rows: count,
                integers: [first, second],
                scales: [first_scales, second_scales],
                sums: std::slice::from_raw_parts(tile.sums, groups * count).to_vec(),
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
                for (group, values) in values.chunks(GROUP).enumerate() {
                    let at = group * tile.rows + token - first;
                    // One group in five is the large one.
                    assert_eq!(tile.outlying[group] >> (token - first) & 1 == 1, group == 1, "{isa}");
                    let mut sum = 0.0;
                    for (column, value) in values.iter().enumerate() {
                        let part = |set: usize| {
                            f32::from(tile.integers[set][at * GROUP + column]) * tile.scales[set][at]
                        };
                        let ours = part(0) + part(1);
                        sum += ours;
                        let bound = if group == 1 { mean / 253.0 } else { largest(values) / 253.0 };
                        assert!((ours - value).abs() <= bound, "{isa}: {value} became {ours}");
                    }
                    assert!((tile.sums[at] - sum).abs() < 1e-3, "{isa}: {} for {sum}", tile.sums[at]);
                }
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
            assert!(zero.scales[0] == [0.0] && zero.integers[0].iter().all(|integer| *integer == 0));
            let tiny = with(1e-44);
            assert!(tiny.scales[0][0] < 1e-44 && tiny.integers[0].iter().all(|integer| *integer == 0));
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                assert!(with(value).scales[0][0].is_nan(), "{isa}: {value} must not be lost");
            }
            assert_eq!(with(f32::MAX).integers[0][5], 127);
        }
    }
}
