//! The tile of one row over a [quantised panel](super::quantized_panel), and the same weights
//! widened to f32 for the many rows of a prompt.
//!
//! Both decode a weight to the same f32 (the products of scale and integer are exact; a minimum
//! rounds once), and both sum over k in order: a row gets the same bits alone and among others.

// As in `tile`: unsafe because of the CPU's instructions and raw pointers, both promised by the caller.
#![allow(unsafe_op_in_unsafe_fn)]

use half::f16;

use super::PANEL;
use super::element::ElementType;
use super::quantized_panel::{GROUP, Layout};
use super::simd::{Simd, dispatch};
use super::tile::{TileArgs, prefetch_ahead};

/// A type of quantised weights, as its panels hold it.
pub(super) trait Quantized: 'static {
    const LAYOUT: Layout;

    /// The factor and the summand of a vector of rows: weight = integer · factor + summand. `block`
    /// and `group` are where those start, `first` is the vector's first row.
    ///
    /// # Safety
    /// As [`Simd::load`].
    unsafe fn factors<S: Simd>(block: *const u8, group: *const u8, first: usize) -> (S::Vector, S::Vector);

    /// The weights of a vector of rows, in one column.
    ///
    /// # Safety
    /// As [`Simd::load`].
    #[inline(always)]
    unsafe fn weights<S: Simd>(
        column: *const u8,
        first: usize,
        (factor, summand): (S::Vector, S::Vector),
    ) -> S::Vector {
        let integers = if first < PANEL / 2 {
            S::load_low_nibbles(column.add(first))
        } else {
            S::load_high_nibbles(column.add(first - PANEL / 2))
        };
        S::fma(integers, factor, summand)
    }
}

pub(super) struct Q8_0;
pub(super) struct Q4_0;
pub(super) struct Q4_1;
pub(super) struct Q4K;

impl Quantized for Q8_0 {
    const LAYOUT: Layout = Layout::of(ElementType::Q8_0);

    #[inline(always)]
    unsafe fn factors<S: Simd>(_: *const u8, group: *const u8, first: usize) -> (S::Vector, S::Vector) {
        (S::load_f16(group.cast::<f16>().add(first)), S::splat(0.0))
    }

    #[inline(always)]
    unsafe fn weights<S: Simd>(
        column: *const u8,
        first: usize,
        (factor, _): (S::Vector, S::Vector),
    ) -> S::Vector {
        S::mul(S::load_i8(column.cast::<i8>().add(first)), factor)
    }
}

impl Quantized for Q4_0 {
    const LAYOUT: Layout = Layout::of(ElementType::Q4_0);

    #[inline(always)]
    unsafe fn factors<S: Simd>(_: *const u8, group: *const u8, first: usize) -> (S::Vector, S::Vector) {
        let scale = S::load_f16(group.cast::<f16>().add(first));
        (scale, S::mul(scale, S::splat(-8.0)))
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

/// The tile and the widening of each type.
macro_rules! kernels {
    ($($type:ty, $tile:ident, $widen:ident;)*) => {$(
        dispatch!(
            /// One row of x times a panel.
            ///
            /// # Safety
            /// `args.x` is `[depth]`, the panel holds `depth` columns in whole blocks, `args.out` is
            /// `[32]`; `rows` is 1.
            pub(super) fn $tile = self::tile_body [$type] (args: TileArgs<u8>)
        );
        dispatch!(
            /// Widens a panel to `[columns][32]`.
            ///
            /// # Safety
            /// None beyond the tier's instructions.
            pub(super) fn $widen = self::widen_body [$type] (from: &[u8], to: &mut [f32])
        );
    )*};
}
kernels! {
    Q8_0, tile_q8_0, widen_q8_0;
    Q4_0, tile_q4_0, widen_q4_0;
    Q4_1, tile_q4_1, widen_q4_1;
    Q4K, tile_q4_k, widen_q4_k;
}

#[inline(always)]
unsafe fn tile_body<S: Simd, Q: Quantized>(args: TileArgs<u8>) {
    // A panel's width in vectors.
    if S::LANES == 16 { row::<S, Q, 2>(args) } else { row::<S, Q, 4>(args) }
}

#[inline(always)]
unsafe fn row<S: Simd, Q: Quantized, const VECTORS: usize>(args: TileArgs<u8>) {
    let layout = Q::LAYOUT;
    let mut sums = [S::splat(0.0); VECTORS];
    let mut x = args.x;
    for block in 0..args.depth / (GROUP * layout.groups) {
        let block = args.panel.add(block * layout.block());
        for group in 0..layout.groups {
            let group = block.add(layout.header + group * layout.group());
            let factors = factors::<S, Q, VECTORS>(block, group);
            let mut column = group.add(layout.group_header);
            let columns_in_line = 64 / layout.column;
            for _ in 0..GROUP / columns_in_line {
                prefetch_ahead(column);
                for _ in 0..columns_in_line {
                    let value = S::splat(*x);
                    for (vector, sum) in sums.iter_mut().enumerate() {
                        let weights = Q::weights::<S>(column, vector * S::LANES, factors[vector]);
                        *sum = S::fma(value, weights, *sum);
                    }
                    column = column.add(layout.column);
                    x = x.add(1);
                }
            }
        }
    }
    for (vector, sum) in sums.iter().enumerate() {
        S::store(args.out.add(vector * S::LANES), *sum);
    }
}

#[inline(always)]
unsafe fn factors<S: Simd, Q: Quantized, const VECTORS: usize>(
    block: *const u8,
    group: *const u8,
) -> [(S::Vector, S::Vector); VECTORS] {
    let mut factors = [(S::splat(0.0), S::splat(0.0)); VECTORS];
    for (vector, factors) in factors.iter_mut().enumerate() {
        *factors = Q::factors::<S>(block, group, vector * S::LANES);
    }
    factors
}

#[inline(always)]
unsafe fn widen_body<S: Simd, Q: Quantized>(from: &[u8], to: &mut [f32]) {
    if S::LANES == 16 { widen::<S, Q, 2>(from, to) } else { widen::<S, Q, 4>(from, to) }
}

#[inline(always)]
unsafe fn widen<S: Simd, Q: Quantized, const VECTORS: usize>(from: &[u8], to: &mut [f32]) {
    let layout = Q::LAYOUT;
    let blocks = from.chunks_exact(layout.block());
    for (block, to) in blocks.zip(to.chunks_exact_mut(layout.groups * GROUP * PANEL)) {
        let groups = block[layout.header..].chunks_exact(layout.group());
        for (group, to) in groups.zip(to.chunks_exact_mut(GROUP * PANEL)) {
            let factors = factors::<S, Q, VECTORS>(block.as_ptr(), group.as_ptr());
            let columns = group[layout.group_header..].chunks_exact(layout.column);
            for (column, to) in columns.zip(to.chunks_exact_mut(PANEL)) {
                for (vector, factors) in factors.iter().enumerate() {
                    let first = vector * S::LANES;
                    let weights = Q::weights::<S>(column.as_ptr(), first, *factors);
                    S::store(to.as_mut_ptr().add(first), weights);
                }
            }
        }
    }
}
