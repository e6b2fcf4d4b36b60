//! The tile over a [quantised panel](super::quantized_panel): rows of bytes times rows of bytes.
//!
//! In each group of 32 columns the products of integers are summed exactly, in i32; scales and
//! minima then turn the sum into f32, which is added to the groups before it in order, and after it
//! the products of the group's outlying values. So a row gets the same bits alone and among others,
//! and a group's sum is the same on every tier.

// As in `tile`: unsafe because of the CPU's instructions and raw pointers, both promised by the caller.
#![allow(unsafe_op_in_unsafe_fn)]

use std::hint::black_box;
use std::sync::atomic::{Ordering, compiler_fence};

use half::f16;

use super::PANEL;
use super::element::ElementType;
use super::quantized_panel::{GROUP, Layout};
use super::quantized_rows::{NIBBLE_BIAS, OutlyingColumn, TileIntegers};
use super::simd::{Simd, dispatch, prefetch_lines};
use super::tile::{Neighbours, PAIR, is_pair, place};

/// Where a tile reads and writes; `out` is `[rows]` of 32, `out_row` apart.
#[derive(Clone, Copy)]
pub(super) struct QuantizedTile {
    pub rows: usize,
    pub depth: usize,
    pub x: TileIntegers,
    pub panels: Neighbours<u8>,
    pub out: *mut f32,
    pub out_row: usize,
}

/// A type of quantised weights, as its panels hold it: weight = (integer − bias) · factor + summand.
pub(super) trait Quantized: 'static {
    const LAYOUT: Layout;
    /// Whether integers have 4 bits; else 8, biased by 128.
    const NIBBLES: bool = true;
    const BIAS: i32 = 0;
    const HAS_SUMMAND: bool = true;

    /// The factor and the summand of a vector of rows. `block` and `group` are where those start,
    /// `first` is the vector's first row.
    ///
    /// # Safety
    /// As [`Simd::load`].
    unsafe fn factors<S: Simd>(block: *const u8, group: *const u8, first: usize) -> (S::Vector, S::Vector);
}

pub(super) struct Q8_0;
pub(super) struct Q4_0;
pub(super) struct Q4_1;
pub(super) struct Q4K;

impl Quantized for Q8_0 {
    const LAYOUT: Layout = Layout::of(ElementType::Q8_0);
    const NIBBLES: bool = false;
    const HAS_SUMMAND: bool = false;

    #[inline(always)]
    unsafe fn factors<S: Simd>(_: *const u8, group: *const u8, first: usize) -> (S::Vector, S::Vector) {
        (S::load_f16(group.cast::<f16>().add(first)), S::splat(0.0))
    }
}

impl Quantized for Q4_0 {
    const LAYOUT: Layout = Layout::of(ElementType::Q4_0);
    const BIAS: i32 = NIBBLE_BIAS;
    const HAS_SUMMAND: bool = false;

    #[inline(always)]
    unsafe fn factors<S: Simd>(_: *const u8, group: *const u8, first: usize) -> (S::Vector, S::Vector) {
        (S::load_f16(group.cast::<f16>().add(first)), S::splat(0.0))
    }
}

impl Quantized for Q4_1 {
    const LAYOUT: Layout = Layout::of(ElementType::Q4_1);

    #[inline(always)]
    unsafe fn factors<S: Simd>(_: *const u8, group: *const u8, first: usize) -> (S::Vector, S::Vector) {
        let scales = group.cast::<f16>().add(first);
        (S::load_f16(scales), S::load_f16(scales.add(PANEL)))
    }
}

impl Quantized for Q4K {
    const LAYOUT: Layout = Layout::of(ElementType::Q4K);

    #[inline(always)]
    unsafe fn factors<S: Simd>(block: *const u8, group: *const u8, first: usize) -> (S::Vector, S::Vector) {
        let scales = block.cast::<f16>().add(first);
        // Six bits: their sign is never set.
        let integers = group.cast::<i8>().add(first);
        let factor = S::mul(S::load_f16(scales), S::load_i8(integers));
        let minimum = S::mul(S::load_f16(scales.add(PANEL)), S::load_i8(integers.add(PANEL)));
        (factor, S::negate(minimum))
    }
}

macro_rules! kernels {
    ($($type:ty, $tile:ident;)*) => {$(
        dispatch!(
            /// Rows of x times a panel.
            ///
            /// # Safety
            /// The pointers of `args` are valid for what [`QuantizedTile`] says; `rows` is 1 to 12,
            /// `depth` a whole number of blocks.
            pub(super) fn $tile = self::tile_body [$type] (args: QuantizedTile)
        );
    )*};
}
kernels! {
    Q8_0, tile_q8_0;
    Q4_0, tile_q4_0;
    Q4_1, tile_q4_1;
    Q4K, tile_q4_k;
}

/// Splits a tile so that its sums fit the registers: 12 of 32 on AVX-512 (and as many again in f32),
/// 8 of 16 on AVX2.
#[inline(always)]
unsafe fn tile_body<S: Simd, Q: Quantized>(args: QuantizedTile) {
    let mut row = 0;
    while row < args.rows {
        let left = args.rows - row;
        if S::LANES == 16 {
            match left {
                1 => rows::<S, Q, 1, 2, 0>(args, row),
                2 => rows::<S, Q, 2, 2, 0>(args, row),
                3 => rows::<S, Q, 3, 2, 0>(args, row),
                4 => rows::<S, Q, 4, 2, 0>(args, row),
                5 => rows::<S, Q, 5, 2, 0>(args, row),
                _ => rows::<S, Q, 6, 2, 0>(args, row),
            }
            row += 6;
        } else if left == 1 && args.panels.count == PAIR {
            rows::<S, Q, 1, 8, 0>(args, row);
            row += 1;
        } else if left == 1 {
            rows::<S, Q, 1, 4, 0>(args, row);
            row += 1;
        } else {
            match left {
                2 => both_parts::<S, Q, 2>(args, row),
                3 => both_parts::<S, Q, 3>(args, row),
                _ => both_parts::<S, Q, 4>(args, row),
            }
            row += 4;
        }
    }
}

#[inline(always)]
unsafe fn both_parts<S: Simd, Q: Quantized, const ROWS: usize>(args: QuantizedTile, first_row: usize) {
    rows::<S, Q, ROWS, 2, 0>(args, first_row);
    rows::<S, Q, ROWS, 2, 1>(args, first_row);
}

/// `ROWS` rows of x times `VECTORS` vectors of the panels' rows.
#[inline(always)]
unsafe fn rows<S: Simd, Q: Quantized, const ROWS: usize, const VECTORS: usize, const PART: usize>(
    args: QuantizedTile,
    first_row: usize,
) {
    let layout = Q::LAYOUT;
    let mut totals = [[S::splat(0.0); VECTORS]; ROWS];
    let x = args.x;
    let rows_here = ((1 << ROWS) - 1) << first_row;
    // Of the group's first scale, whose integers start at 32 times that; and of its outlying columns.
    let (mut number, mut at, mut next) = (0, first_row, 0);
    for block in 0..args.depth / (GROUP * layout.groups) {
        let block = args.panels.start.add(block * layout.block());
        for group_in_block in 0..layout.groups {
            let group = block.add(layout.header + group_in_block * layout.group());
            let quads = Quads { start: group.add(layout.group_header), panel_bytes: args.panels.len };
            let mut ahead = args.panels.ahead();
            if is_pair::<S>(VECTORS) {
                let pair_ahead = args.panels.pair_ahead(group);
                ahead = Some(pair_ahead);
                for panel in 0..PAIR {
                    let header = group.wrapping_add(pair_ahead + panel * args.panels.len);
                    prefetch_lines(header, layout.group_header);
                }
            }
            let sums = dot_group::<S, Q, ROWS, VECTORS, PART>(x, quads, at, ahead);
            let mut factors = [S::splat(0.0); VECTORS];
            for vector in 0..VECTORS {
                let (panel, row) = vector_at::<S, VECTORS, PART>(vector);
                let apart = panel * args.panels.len;
                let (factor, summand) = Q::factors::<S>(block.add(apart), group.add(apart), row);
                factors[vector] = factor;
                for (row, totals) in totals.iter_mut().enumerate() {
                    let total = &mut totals[vector];
                    let scale = S::mul(factor, S::splat(*x.scales.add(at + row)));
                    *total = S::fma(S::to_f32(sums[row][vector]), scale, *total);
                    if Q::HAS_SUMMAND {
                        *total = S::fma(summand, S::splat(*x.sums.add(at + row)), *total);
                    }
                }
            }
            for _ in 0..*x.outlying.add(number) {
                let OutlyingColumn { column, rows } = *x.columns.add(next);
                if rows & rows_here != 0 {
                    let column = usize::from(column);
                    let quad = weights::<S, Q, VECTORS, PART>(quads.at(column / 4 * layout.quad));
                    let values = x.values.add(next * args.rows + first_row);
                    for vector in 0..VECTORS {
                        let integer = S::to_f32(S::byte(quad[vector], column % 4));
                        let integer =
                            S::add(integer, S::splat(if Q::NIBBLES { -Q::BIAS } else { -128 } as f32));
                        let weight = S::mul(factors[vector], integer);
                        for (row, totals) in totals.iter_mut().enumerate() {
                            // Adds 0 to rows whose value there is among the integers.
                            totals[vector] = S::fma(weight, S::splat(*values.add(row)), totals[vector]);
                        }
                    }
                }
                next += 1;
            }
            number += 1;
            at += args.rows;
        }
    }
    for (row, totals) in totals.iter().enumerate() {
        let out = args.out.add((first_row + row) * args.out_row);
        for (vector, total) in totals.iter().enumerate() {
            let (panel, row) = vector_at::<S, VECTORS, PART>(vector);
            S::store(out.add(panel * PANEL + row), *total);
        }
    }
}

/// The exact sums of products of a group's integers.
#[inline(always)]
unsafe fn dot_group<S: Simd, Q: Quantized, const ROWS: usize, const VECTORS: usize, const PART: usize>(
    x: TileIntegers,
    mut quads: Quads,
    at: usize,
    ahead: Option<usize>,
) -> [[S::Integers; VECTORS]; ROWS] {
    let (bias, starts) = if Q::NIBBLES { (Q::BIAS, x.nibble_starts) } else { (S::DOT_BIAS, x.byte_starts) };
    let mut sums = [[S::splat_i32(0); VECTORS]; ROWS];
    if bias != 0 {
        for (row, sums) in sums.iter_mut().enumerate() {
            let start = *starts.add(at + row);
            *sums = [if Q::NIBBLES { S::start_nibbles(start) } else { S::splat_i32(start) }; VECTORS];
        }
    }
    let mut integers = x.integers.add(at * GROUP);
    // The compiler would unroll all quads, load everything first, and run out of registers.
    let many = S::LANES == 8 && ROWS > 1;
    let count = if many { black_box(GROUP / 4) } else { GROUP / 4 };
    for _ in 0..count {
        if let (1, Some(ahead)) = (ROWS, ahead) {
            let panels = if is_pair::<S>(VECTORS) { PAIR } else { 1 };
            for panel in 0..panels {
                let from = quads.start.wrapping_add(ahead + panel * quads.panel_bytes);
                prefetch_lines(from, Q::LAYOUT.quad);
            }
        }
        let weights = weights::<S, Q, VECTORS, PART>(quads);
        for (row, sums) in sums.iter_mut().enumerate() {
            let x = S::splat_bytes(integers.add(row * GROUP));
            for (sum, weights) in sums.iter_mut().zip(weights) {
                *sum = if Q::NIBBLES {
                    S::dot_nibbles(*sum, weights, x)
                } else {
                    S::dot_bytes(*sum, weights, x)
                };
            }
        }
        quads = quads.at(Q::LAYOUT.quad);
        integers = integers.add(4);
        if ROWS == 1 {
            // Else the compiler takes all quads' first vectors before their second ones, and prefetches in heaps.
            compiler_fence(Ordering::SeqCst);
        }
    }
    if Q::NIBBLES {
        for sum in sums.as_flattened_mut() {
            *sum = S::end_nibbles(*sum);
        }
    }
    sums
}

/// Four columns of a panel; those of the next one lie `panel_bytes` behind.
#[derive(Clone, Copy)]
struct Quads {
    start: *const u8,
    panel_bytes: usize,
}

impl Quads {
    #[inline(always)]
    unsafe fn at(self, bytes: usize) -> Quads {
        Quads { start: self.start.add(bytes), ..self }
    }
}

/// The panel of a vector of sums, and the row in it where it starts. Two vectors start at one row of each
/// half, whose nibbles share bytes.
const fn vector_at<S: Simd, const VECTORS: usize, const PART: usize>(vector: usize) -> (usize, usize) {
    match VECTORS {
        2 => (0, PART * S::LANES + vector * PANEL / 2),
        _ => place::<S>(vector),
    }
}

/// Some vectors of four columns' integers.
#[inline(always)]
unsafe fn weights<S: Simd, Q: Quantized, const VECTORS: usize, const PART: usize>(
    quads: Quads,
) -> [S::Bytes; VECTORS] {
    let mut weights = [S::load_bytes(quads.start); VECTORS];
    for (vector, weights) in weights.iter_mut().enumerate() {
        let (panel, row) = vector_at::<S, VECTORS, PART>(vector);
        let quad = quads.start.add(panel * quads.panel_bytes);
        *weights = if Q::NIBBLES {
            // The bytes of a half of the panel's rows hold the other half too.
            let half = PANEL / 2;
            let (low, high) = S::nibbles(S::load_bytes(quad.add(row % half * 4)));
            if row < half { low } else { high }
        } else {
            S::load_bytes(quad.add(row * 4))
        };
    }
    weights
}
