//! Activations in bytes: what quantised weights are multiplied by.
//!
//! Each row is cut into groups of 32 neighbours; a group has a scale, its largest value / 127, and
//! its integers, the nearest to value / scale. A few groups of a transformer's activations hold
//! values many times larger than the rest, and their coarse steps would make up most of the error:
//! a group whose largest value is above the mean of the row's groups gets a second scale and second
//! integers, for what the first leave. So a value changes by at
//! most 1/254 of that mean, or 1/254² of its group's largest, if that is more.

// As in `simd`: unsafe because of the CPU's instructions, which `Isa` proves.
#![allow(unsafe_op_in_unsafe_fn)]

pub use super::quantized_panel::GROUP;
use super::simd::{Simd, dispatch};
use super::threads::SharedSlice;
use super::tile::TILE_ROWS;
use super::{Isa, Pool};

/// Rows in tiles of up to 12. In a tile of *r* rows, integers are `[depth/4][r][4]`, the rest
/// `[depth/32][r]`.
pub(super) struct QuantizedRows {
    pub first: Integers,
    /// Of groups that need one; elsewhere 0.
    pub second: Integers,
    /// Σ of a group's values, as the integers have them.
    pub sums: Vec<f32>,
}

/// value ≈ scale · integer.
pub(super) struct Integers {
    pub integers: Vec<i8>,
    pub scales: Vec<f32>,
    /// Σ of a group's integers.
    pub sums: Vec<i32>,
}

impl Integers {
    fn zero(values: usize) -> Integers {
        let groups = values / GROUP;
        Integers { integers: vec![0; values], scales: vec![0.0; groups], sums: vec![0; groups] }
    }

    fn shared(&mut self) -> Shared {
        Shared {
            integers: SharedSlice::new(&mut self.integers),
            scales: SharedSlice::new(&mut self.scales),
            sums: SharedSlice::new(&mut self.sums),
        }
    }
}

/// [`Integers`], for several threads.
struct Shared {
    integers: SharedSlice<i8>,
    scales: SharedSlice<f32>,
    sums: SharedSlice<i32>,
}

impl Shared {
    /// The part of a tile whose first value is `at` and that holds `values`.
    ///
    /// # Safety
    /// No other thread has it.
    #[allow(clippy::mut_from_ref)]
    unsafe fn tile(&self, at: usize, values: usize) -> Tile<'_> {
        Tile {
            integers: self.integers.part(at, values),
            scales: self.scales.part(at / GROUP, values / GROUP),
            sums: self.sums.part(at / GROUP, values / GROUP),
        }
    }
}

/// One tile's part of [`Integers`].
struct Tile<'a> {
    integers: &'a mut [i8],
    scales: &'a mut [f32],
    sums: &'a mut [i32],
}

impl QuantizedRows {
    /// Quantises `input`, `[tokens, depth]`.
    ///
    /// # Panics
    /// If `depth` is no whole number of groups.
    pub fn new(isa: Isa, pool: &Pool, input: &[f32], depth: usize) -> QuantizedRows {
        assert!(depth.is_multiple_of(GROUP) && input.len().is_multiple_of(depth));
        let tokens = input.len() / depth;
        let mut rows = QuantizedRows {
            first: Integers::zero(input.len()),
            second: Integers::zero(input.len()),
            sums: vec![0.0; input.len() / GROUP],
        };
        let (first, second) = (rows.first.shared(), rows.second.shared());
        let sums = SharedSlice::new(&mut rows.sums);
        pool.for_each(tokens.div_ceil(TILE_ROWS), 1, |tile| {
            let count = TILE_ROWS.min(tokens - tile * TILE_ROWS);
            let (at, values) = (tile * TILE_ROWS * depth, count * depth);
            // SAFETY: each tile's parts are written by one thread; their lengths are those of its rows.
            unsafe {
                let sums = sums.part(at / GROUP, values / GROUP);
                let (first, second) = (first.tile(at, values), second.tile(at, values));
                quantize_tile(isa, &input[at..at + values], count, first, second, sums);
            }
        });
        rows
    }
}

dispatch!(
    /// # Safety
    /// `input` is `count` rows of whole groups, and the rest as long as they are.
    fn quantize_tile = self::quantize_tile_body [] (
        input: &[f32], count: usize, first: Tile<'_>, second: Tile<'_>, sums: &mut [f32],
    )
);

#[inline(always)]
unsafe fn quantize_tile_body<S: Simd>(
    input: &[f32],
    count: usize,
    mut first: Tile<'_>,
    mut second: Tile<'_>,
    sums: &mut [f32],
) {
    let depth = input.len() / count;
    let mut sizes = vec![0f32; depth / GROUP];
    for (row, values) in input.chunks_exact(depth).enumerate() {
        let groups = || values.as_chunks::<GROUP>().0.iter();
        for (size, values) in sizes.iter_mut().zip(groups()) {
            *size = largest(values);
        }
        let mean = sizes.iter().sum::<f32>() / sizes.len() as f32;
        for (group, (values, size)) in groups().zip(&sizes).enumerate() {
            let at = group * count + row;
            let (scale, integers) = quantize_group(values, *size);
            sums[at] = scale * first.put(group, row, count, scale, &integers) as f32;
            if *size > mean {
                let mut left = [0f32; GROUP];
                for ((left, value), integer) in left.iter_mut().zip(values).zip(&integers) {
                    *left = value - scale * f32::from(*integer);
                }
                let (scale, integers) = quantize_group(&left, largest(&left));
                sums[at] += scale * second.put(group, row, count, scale, &integers) as f32;
            }
        }
    }
}

impl Tile<'_> {
    /// Writes a group of a row; answers the sum of its integers.
    #[inline(always)]
    fn put(&mut self, group: usize, row: usize, rows: usize, scale: f32, integers: &[i8; GROUP]) -> i32 {
        let sum = integers.iter().map(|integer| i32::from(*integer)).sum::<i32>();
        (self.scales[group * rows + row], self.sums[group * rows + row]) = (scale, sum);
        let start = (group * GROUP / 4 * rows + row) * 4;
        let places = self.integers[start..].chunks_mut(rows * 4);
        for (four, place) in integers.as_chunks::<4>().0.iter().zip(places) {
            place[..4].copy_from_slice(four);
        }
        sum
    }
}

/// The largest size among values; infinite or NaN if one of them is.
#[inline(always)]
fn largest(values: &[f32; GROUP]) -> f32 {
    // Sizes compare as their bits do; NaN and infinity are the largest.
    f32::from_bits(values.iter().fold(0u32, |largest, value| largest.max(value.abs().to_bits())))
}

/// The scale and the integers of a group; values that are not finite make the scale NaN, so that
/// they are not lost.
#[inline(always)]
fn quantize_group(values: &[f32; GROUP], largest: f32) -> (f32, [i8; GROUP]) {
    if !largest.is_finite() {
        return (f32::NAN, [0; GROUP]);
    }
    let scale = largest / 127.0;
    let inverse = if scale >= f32::MIN_POSITIVE { 1.0 / scale } else { 0.0 };
    let mut integers = [0i8; GROUP];
    for (integer, value) in integers.iter_mut().zip(values) {
        let rounded = (value * inverse).round_ties_even().clamp(-127.0, 127.0);
        // SAFETY: finite, and within i32's range.
        *integer = unsafe { rounded.to_int_unchecked::<i32>() } as i8;
    }
    (scale, integers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_near_and_lie_where_tiles_read_them() {
        let (tokens, depth) = (14, 96);
        let groups = depth / GROUP;
        let input: Vec<f32> = (0..tokens * depth)
            .map(|i| ((i * 7919 % 1013) as f32 / 70.0 - 7.0) * if i / 32 % 3 == 1 { 40.0 } else { 1.0 })
            .collect();
        for isa in Isa::available() {
            let rows = QuantizedRows::new(isa, &Pool::new(2), &input, depth);
            for token in 0..tokens {
                let first = token / TILE_ROWS * TILE_ROWS;
                let (row, count) = (token - first, TILE_ROWS.min(tokens - first));
                let values = &input[token * depth..(token + 1) * depth];
                let mean = values.as_chunks().0.iter().map(largest).sum::<f32>() / groups as f32;
                for group in 0..groups {
                    let at = first * groups + group * count + row;
                    // The middle group is the large one.
                    assert_eq!(rows.second.scales[at] > 0.0, group == 1);
                    let mut sum = 0.0;
                    for (column, value) in (group * GROUP..).zip(&values[group * GROUP..][..GROUP]) {
                        let at_integer = first * depth + (column / 4 * count + row) * 4 + column % 4;
                        let part = |part: &Integers| f32::from(part.integers[at_integer]) * part.scales[at];
                        let ours = part(&rows.first) + part(&rows.second);
                        sum += ours;
                        assert!((ours - value).abs() <= mean / 253.0, "{isa}: {value} became {ours}");
                    }
                    assert!((rows.sums[at] - sum).abs() < 1e-3, "{isa}: {} for {sum}", rows.sums[at]);
                }
            }
        }
    }

    #[test]
    fn zeros_subnormal_and_infinite_values() {
        let pool = Pool::new(1);
        let isa = Isa::available()[0];
        let with = |value: f32| {
            let mut input = vec![0f32; 32];
            input[5] = value;
            QuantizedRows::new(isa, &pool, &input, 32).first
        };
        let zero = with(0.0);
        assert!(zero.scales == [0.0] && zero.integers.iter().all(|integer| *integer == 0));
        let tiny = with(1e-44);
        assert!(tiny.scales[0] < 1e-44 && tiny.integers.iter().all(|integer| *integer == 0));
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(with(value).scales[0].is_nan(), "{value} must not be lost");
        }
        assert_eq!(with(f32::MAX).integers[5], 127);
    }
}
