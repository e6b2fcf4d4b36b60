//! The tile for panels of bf16 in 12 bits: see [`folded_panel`](super::folded_panel).
//!
//! Sums run as in [`tile`](super::tile), in spans of 256 columns, and the products of the weights apart
//! follow. Error: that of the tile, and one rounding more for each weight apart.

// As in `simd`: unsafe because of the CPU's instructions and raw pointers, both promised by the caller.
#![allow(unsafe_op_in_unsafe_fn)]

use std::sync::atomic::{Ordering, compiler_fence};

use super::folded_panel::{Notes, PLANE, QUAD, QUAD_BYTES, position, quad_at};
use super::simd::{Simd, dispatch, prefetch_lines};
use super::tile::{AHEAD, BLOCK, PAIR, SPAN, TILE_ROWS, TileArgs, widened};
use super::{Isa, PANEL};

/// The most rows of x for which the tile is faster than [widening](widen_folded): vectors of 8 hold the sums of
/// three rows, and every three unfold the panel anew.
pub(super) fn folded_rows(isa: Isa) -> usize {
    if isa.lanes() == 16 { TILE_ROWS } else { 4 }
}

/// Rows of x times panels, of which `notes` are the first's and the last's.
///
/// # Safety
/// As [`blocked_tile_f32`](super::tile::blocked_tile_f32), the panels folded, and `depth` a multiple of 16.
pub(super) unsafe fn folded_tile(isa: Isa, args: TileArgs<u8>, notes: [Notes<'_>; PAIR]) {
    folded(isa, args, &notes.map(|notes| notes.highs()));
    for (number, notes) in notes[..args.panels.count].iter().enumerate() {
        notes.add(args, number);
    }
}

/// Turns a panel into one that is [`widened`], its weights apart into 0.
pub(super) fn widen_folded(isa: Isa, panel: &[u8], notes: Notes<'_>, to: &mut [f32]) {
    assert_eq!(panel.len() / QUAD_BYTES * QUAD * PANEL, to.len(), "as many columns");
    // SAFETY: just asserted.
    unsafe { widen(isa, panel, &notes.highs(), to) }
}

dispatch!(
    /// # Safety
    /// As [`folded_tile`].
    fn folded = self::folded_body [] (args: TileArgs<u8>, highs: &[[u8; 16]; PAIR])
);
dispatch!(
    /// # Safety
    /// The panel has as many columns as `to`.
    fn widen = self::widen_body [] (panel: &[u8], highs: &[u8; 16], to: &mut [f32])
);

/// Some rows of four columns: part `part` of `32 / (2 · LANES)`. For each column the rows from
/// `part · LANES` on, and the rows from there plus 16 on.
#[inline(always)]
pub(super) unsafe fn unfold<S: Simd>(
    quad: *const u8,
    part: usize,
    highs: S::Bytes,
) -> [[S::Vector; 2]; QUAD] {
    let quad = quad.add(part * 4 * S::LANES);
    let (first, last) = S::nibbles(S::load_bytes(quad.add(2 * PLANE)));
    let (a, b) = S::interleave(S::load_bytes(quad), S::look_up(highs, first));
    let (c, d) = S::interleave(S::load_bytes(quad.add(PLANE)), S::look_up(highs, last));
    [S::bf16_pairs(a), S::bf16_pairs(b), S::bf16_pairs(c), S::bf16_pairs(d)]
}

#[inline(always)]
unsafe fn widen_body<S: Simd>(panel: &[u8], highs: &[u8; 16], to: &mut [f32]) {
    let highs = S::repeat_16(highs.as_ptr());
    let columns = to.len() / PANEL;
    for (at, quad) in panel.chunks_exact(QUAD_BYTES).enumerate() {
        prefetch_lines(quad.as_ptr().wrapping_add(AHEAD), QUAD_BYTES);
        let first = quad_at(at, columns) * QUAD;
        for part in 0..PANEL / (2 * S::LANES) {
            for (column, weights) in unfold::<S>(quad.as_ptr(), part, highs).into_iter().enumerate() {
                for (half, weights) in weights.into_iter().enumerate() {
                    let row = half * PANEL / 2 + part * S::LANES;
                    let to = &mut to[widened(S::LANES, columns, first + column, row)..][..S::LANES];
                    S::store(to.as_mut_ptr(), weights);
                }
            }
        }
    }
}

/// As many rows at a time as have their sums in registers.
#[inline(always)]
unsafe fn folded_body<S: Simd>(args: TileArgs<u8>, highs: &[[u8; 16]; PAIR]) {
    macro_rules! rows {
        ($($two:literal)*; $($one:literal)*) => {
            match args.rows {
                $($two => two_spans::<S, $two, 1, 1>(args, highs),)*
                $($one => one_span::<S, $one, 1>(args, 0, &highs[0]),)*
                _ => unreachable!("a tile has 1 to 12 rows"),
            }
        };
    }
    if S::LANES == 16 {
        return rows!(1 2 3 4; 5 6 7 8 9 10 11 12);
    }
    if args.panels.count == PAIR {
        return two_spans::<S, 1, 2, PAIR>(args, highs);
    }
    if args.rows == 1 {
        return two_spans::<S, 1, 2, 1>(args, highs);
    }
    for row in (0..args.rows).step_by(3) {
        match args.rows - row {
            1 => one_span::<S, 1, 2>(args, row, &highs[0]),
            2 => one_span::<S, 2, 2>(args, row, &highs[0]),
            _ => one_span::<S, 3, 2>(args, row, &highs[0]),
        }
    }
}

/// The sums of one span: `[rows][parts][2]` vectors.
type Sums<V, const ROWS: usize, const PARTS: usize> = [[[V; 2]; PARTS]; ROWS];

/// Spans are summed by themselves, so that two can be at the same time: with few rows, one alone would
/// wait for each addition before the next.
#[inline(always)]
unsafe fn two_spans<S: Simd, const ROWS: usize, const PARTS: usize, const PANELS: usize>(
    args: TileArgs<u8>,
    highs: &[[u8; 16]; PAIR],
) {
    let mut quads = [args.panels.start; PANELS];
    for (panel, quad) in quads.iter_mut().enumerate() {
        *quad = quad.add(panel * args.panels.len);
    }
    for first in (0..args.depth).step_by(2 * SPAN) {
        let second = args.depth.min(first + SPAN);
        let (blocks, both) = ((second - first) / BLOCK, SPAN.min(args.depth - second) / BLOCK);
        let mut sums = [[[[[S::splat(0.0); 2]; PARTS]; ROWS]; 2]; PANELS];
        let x = [first, second].map(|column| args.x.wrapping_add(column / BLOCK * args.x_block));
        for block in 0..blocks {
            for panel in 0..PANELS {
                let (mut quad, mut own) = (quads[panel], sums[panel]);
                let highs = S::repeat_16(highs[panel].as_ptr());
                for four in 0..BLOCK / QUAD {
                    let at = block * args.x_block + four * QUAD;
                    let ahead = match PANELS {
                        PAIR => Some(args.panels.pair_ahead(quad.wrapping_sub(panel * args.panels.len))),
                        _ => args.panels.ahead(),
                    };
                    add_quad::<S, ROWS, PARTS>(quad, ahead, x[0].add(at), args.x_row, highs, &mut own[0]);
                    quad = quad.add(QUAD_BYTES);
                    if block < both {
                        add_quad::<S, ROWS, PARTS>(quad, ahead, x[1].add(at), args.x_row, highs, &mut own[1]);
                        quad = quad.add(QUAD_BYTES);
                    }
                }
                (quads[panel], sums[panel]) = (quad, own);
            }
        }
        for (panel, sums) in sums.iter().enumerate() {
            let args = TileArgs { out: args.out.add(panel * PANEL), ..args };
            store::<S, ROWS, PARTS>(args, &sums[0], first == 0);
            if both > 0 {
                store::<S, ROWS, PARTS>(args, &sums[1], false);
            }
        }
    }
}

/// Some of the rows, from `first_row` on.
#[inline(always)]
unsafe fn one_span<S: Simd, const ROWS: usize, const PARTS: usize>(
    args: TileArgs<u8>,
    first_row: usize,
    highs: &[u8; 16],
) {
    let highs = S::repeat_16(highs.as_ptr());
    let ahead = args.panels.ahead();
    let mut x = args.x.add(first_row * args.x_row);
    let out = TileArgs { out: args.out.add(first_row * args.out_row), ..args };
    for span in (0..args.depth).step_by(SPAN) {
        let mut sums = [[[S::splat(0.0); 2]; PARTS]; ROWS];
        for block in (span..args.depth.min(span + SPAN)).step_by(BLOCK) {
            for four in 0..BLOCK / QUAD {
                let quad = args.panels.start.add(position(block / QUAD + four, args.depth) * QUAD_BYTES);
                add_quad::<S, ROWS, PARTS>(quad, ahead, x.add(four * QUAD), args.x_row, highs, &mut sums);
            }
            x = x.wrapping_add(args.x_block);
        }
        store::<S, ROWS, PARTS>(out, &sums, span == 0);
    }
}

#[inline(always)]
unsafe fn add_quad<S: Simd, const ROWS: usize, const PARTS: usize>(
    quad: *const u8,
    ahead: Option<usize>,
    x: *const f32,
    x_row: usize,
    highs: S::Bytes,
    sums: &mut Sums<S::Vector, ROWS, PARTS>,
) {
    if let Some(ahead) = ahead {
        prefetch_lines(quad.wrapping_add(ahead), QUAD_BYTES);
    }
    // Else the compiler loads the bytes of several fours at once, out of order.
    compiler_fence(Ordering::SeqCst);
    for part in 0..PARTS {
        let columns = unfold::<S>(quad, part, highs);
        for (column, weights) in columns.into_iter().enumerate() {
            for (row, sums) in sums.iter_mut().enumerate() {
                let value = S::splat(*x.add(row * x_row + column));
                for (sum, weights) in sums[part].iter_mut().zip(weights) {
                    *sum = S::fma(value, weights, *sum);
                }
            }
        }
    }
}

/// Puts the sums of the first span where they go; those of others are added.
#[inline(always)]
unsafe fn store<S: Simd, const ROWS: usize, const PARTS: usize>(
    args: TileArgs<u8>,
    sums: &Sums<S::Vector, ROWS, PARTS>,
    first: bool,
) {
    for (row, sums) in sums.iter().enumerate() {
        for (part, sums) in sums.iter().enumerate() {
            for (half, sum) in sums.iter().enumerate() {
                let out = args.out.add(row * args.out_row + half * PANEL / 2 + part * S::LANES);
                S::store(out, if first { *sum } else { S::add(S::load(out), *sum) });
            }
        }
    }
}
