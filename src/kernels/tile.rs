//! The tile: a few rows times one panel of 32 columns. Every product with weights of 16 or 32 bits
//! ends up here.
//!
//! `out[row][column] = Σₖ x[row][k] · panel[k][column]`, summed over k in order, one fused
//! multiply-add at a time, and after every 256 added to those before: the same bits whatever the
//! number of rows in the tile, on AVX2 and AVX-512 alike. Error: at most (256 + k/256)·ε·Σ|x·w|.

// As in `simd`: unsafe because of the CPU's instructions and raw pointers, both promised by the caller.
#![allow(unsafe_op_in_unsafe_fn)]

use super::simd::{Simd, dispatch, prefetch_lines};
use super::{Isa, PANEL};

/// The most rows of a tile.
pub(super) const TILE_ROWS: usize = 12;

/// Values of a row that lie together in a tile's blocks.
pub(super) const BLOCK: usize = 16;

/// Products that are summed by themselves: long sums lose digits (Blanchard et al. 2020).
pub(super) const SPAN: usize = 256;

/// How far ahead memory is asked for, in bytes.
pub(super) const AHEAD: usize = 8192;

/// The same where many rows meet each line, which waits in the next cache already.
const NEAR: usize = 2048;

/// Panels that a single row meets at the same time where that is faster: two streams from memory.
pub(super) const PAIR: usize = 2;

/// Panels that lie one behind another.
#[derive(Clone, Copy)]
pub(super) struct Neighbours<W> {
    pub start: *const W,
    /// 1, or with a single row maybe [`PAIR`].
    pub count: usize,
    /// From one to the next, in values.
    pub len: usize,
    asks_ahead: bool,
}

impl<W> Neighbours<W> {
    pub fn new(isa: Isa, panels: &[W], count: usize) -> Neighbours<W> {
        let len = panels.len() / count;
        Neighbours { start: panels.as_ptr(), count, len, asks_ahead: isa.asks_ahead() }
    }

    /// How far ahead a row or a few ask for memory, in bytes, where [they do](Isa::asks_ahead).
    #[inline(always)]
    pub fn ahead(&self) -> Option<usize> {
        self.asks_ahead.then_some(AHEAD)
    }

    /// How far ahead each of a pair is asked for, in bytes: least where there is least to compute, and
    /// the CPU itself runs ahead.
    const PAIR_AHEAD: usize = if size_of::<W>() == 4 { 256 } else { 1024 };

    /// The same from some place in the first: behind that lies the second one, and what comes next is
    /// another pair.
    #[inline(always)]
    pub fn pair_ahead(&self, from: *const W) -> usize {
        let bytes = self.len * size_of::<W>();
        let left = self.start.addr() + bytes - from.addr();
        Self::PAIR_AHEAD + if Self::PAIR_AHEAD < left { 0 } else { (PAIR - 1) * bytes }
    }
}

/// Whether so many vectors of sums are those of a pair.
pub(super) const fn is_pair<S: Simd>(vectors: usize) -> bool {
    vectors * S::LANES == PAIR * PANEL
}

/// The panel of a vector of sums, and the row in it where it starts.
pub(super) const fn place<S: Simd>(vector: usize) -> (usize, usize) {
    let row = vector * S::LANES;
    (row / PANEL, row % PANEL)
}

/// What a panel may hold.
pub(super) trait Element: Copy + 'static {
    /// Loads one vector, widened to f32.
    ///
    /// # Safety
    /// As [`Simd::load`].
    unsafe fn load<S: Simd>(from: *const Self) -> S::Vector;
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const f32) -> S::Vector {
        S::load(from)
    }
}

impl Element for half::bf16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const half::bf16) -> S::Vector {
        S::load_bf16(from)
    }
}

impl Element for half::f16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const half::f16) -> S::Vector {
        S::load_f16(from)
    }
}

/// Some rows of x.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub first: usize,
    pub rows: usize,
}

/// Where a tile's products with a panel go: `[rows]` of 32, `out_row` apart.
///
/// Apart from [`Tile`], since each of the two is passed in registers. Both in one would go through memory, and whoever
/// reads it wait for the products of the tile before, which are on their way there.
#[derive(Clone, Copy)]
pub(super) struct Destination {
    pub out: *mut f32,
    pub out_row: usize,
}

/// Where a tile reads and writes. x is in blocks of 16 columns, the last of which may have fewer: a row's
/// part of one is at `x + block·x_block + row·x_row`. A panel is `[depth][32]`, and `out[row][column]` is
/// at `out + row·out_row + column`, columns counted through all panels.
#[derive(Clone, Copy)]
pub(super) struct TileArgs<W> {
    pub rows: usize,
    pub depth: usize,
    pub x: *const f32,
    pub x_row: usize,
    pub x_block: usize,
    pub panels: Neighbours<W>,
    pub out: *mut f32,
    pub out_row: usize,
}

dispatch!(
    /// Rows of x times a panel.
    ///
    /// # Safety
    /// The pointers of `args` must be valid for what [`TileArgs`] says; `rows` is 1..=12.
    pub(super) fn blocked_tile_f32 = self::blocked_body [f32] (args: TileArgs<f32>)
);
dispatch!(
    /// As [`blocked_tile_f32`].
    ///
    /// # Safety
    /// As [`blocked_tile_f32`].
    pub(super) fn blocked_tile_bf16 = self::blocked_body [half::bf16] (args: TileArgs<half::bf16>)
);
dispatch!(
    /// As [`blocked_tile_f32`].
    ///
    /// # Safety
    /// As [`blocked_tile_f32`].
    pub(super) fn blocked_tile_f16 = self::blocked_body [half::f16] (args: TileArgs<half::f16>)
);

/// Rows of x times a panel that is [`widened`].
///
/// # Safety
/// As [`blocked_tile_f32`].
pub(super) unsafe fn widened_tile(isa: Isa, args: TileArgs<f32>) {
    // Vectors of 16 hold the sums of all its rows: it is a panel like others.
    if isa.lanes() == 16 { blocked_tile_f32(isa, args) } else { halved_tile(isa, args) }
}

dispatch!(
    /// # Safety
    /// As [`blocked_tile_f32`].
    fn halved_tile = self::halved_body [] (args: TileArgs<f32>)
);

dispatch!(
    /// Turns a panel into one that is [`widened`].
    ///
    /// # Safety
    /// The slices are equally long, a multiple of 32.
    pub(super) fn widen_bf16 = self::widen_body [half::bf16] (from: &[half::bf16], to: &mut [f32])
);
dispatch!(
    /// As [`widen_bf16`].
    ///
    /// # Safety
    /// As [`widen_bf16`].
    pub(super) fn widen_f16 = self::widen_body [half::f16] (from: &[half::f16], to: &mut [f32])
);

/// Where a weight is in a panel of `depth` columns that has been widened to f32 for many rows of x: as many of
/// the panel's rows as a tile has sums of at a time lie together, `[depth][2 · lanes]`, and are read in one stream.
pub(super) const fn widened(lanes: usize, depth: usize, column: usize, row: usize) -> usize {
    let part = 2 * lanes;
    row / part * part * depth + column * part + row % part
}

#[inline(always)]
unsafe fn widen_body<S: Simd, W: Element>(from: &[W], to: &mut [f32]) {
    let depth = from.len() / PANEL;
    for (column, from) in from.chunks_exact(PANEL).enumerate() {
        for (vector, from) in from.chunks_exact(S::LANES).enumerate() {
            let to = &mut to[widened(S::LANES, depth, column, vector * S::LANES)..][..S::LANES];
            S::store(to.as_mut_ptr(), W::load::<S>(from.as_ptr()));
        }
    }
}

/// Splits a tile so that its sums fit the registers: 24 of 32 on AVX-512, 12 of 16 on AVX2.
#[inline(always)]
unsafe fn blocked_body<S: Simd, W: Element>(args: TileArgs<W>) {
    macro_rules! whole {
        ($($rows:literal)*) => {
            match args.rows {
                $($rows => sums::<S, W, $rows, 2, false>(args, 0, 0),)*
                _ => unreachable!("a tile has 1 to 12 rows"),
            }
        };
    }
    if S::LANES == 16 {
        return whole!(1 2 3 4 5 6 7 8 9 10 11 12);
    }
    match args.rows {
        1 if args.panels.count == PAIR => sums::<S, W, 1, 8, false>(args, 0, 0),
        1 => sums::<S, W, 1, 4, false>(args, 0, 0),
        2 => sums::<S, W, 2, 4, false>(args, 0, 0),
        3 => sums::<S, W, 3, 4, false>(args, 0, 0),
        _ => halves::<S, W, false>(args),
    }
}

#[inline(always)]
unsafe fn halved_body<S: Simd>(args: TileArgs<f32>) {
    halves::<S, f32, true>(args);
}

/// Six rows and as many of a panel's at a time as two vectors have: half of them on AVX2.
#[inline(always)]
unsafe fn halves<S: Simd, W: Element, const WIDENED: bool>(args: TileArgs<W>) {
    for row in (0..args.rows).step_by(6) {
        for column in (0..PANEL).step_by(2 * S::LANES) {
            match args.rows - row {
                1 => sums::<S, W, 1, 2, WIDENED>(args, row, column),
                2 => sums::<S, W, 2, 2, WIDENED>(args, row, column),
                3 => sums::<S, W, 3, 2, WIDENED>(args, row, column),
                4 => sums::<S, W, 4, 2, WIDENED>(args, row, column),
                5 => sums::<S, W, 5, 2, WIDENED>(args, row, column),
                _ => sums::<S, W, 6, 2, WIDENED>(args, row, column),
            }
        }
    }
}

#[inline(always)]
unsafe fn sums<S: Simd, W: Element, const ROWS: usize, const VECTORS: usize, const WIDENED: bool>(
    args: TileArgs<W>,
    first_row: usize,
    first_column: usize,
) {
    let (start, apart) = match WIDENED {
        true => (widened(S::LANES, args.depth, 0, first_column), VECTORS * S::LANES),
        false => (first_column, PANEL),
    };
    let mut panel = args.panels.start.add(start);
    let mut x = args.x.add(first_row * args.x_row);
    // Of the spans so far, on the stack: rows of the output are far apart in memory.
    let mut totals = [[S::splat(0.0); VECTORS]; ROWS];
    for span in (0..args.depth).step_by(SPAN) {
        let mut sums = [[S::splat(0.0); VECTORS]; ROWS];
        let end = args.depth.min(span + SPAN);
        for block in (span..end).step_by(BLOCK) {
            let columns = BLOCK.min(end - block);
            for _ in 0..columns / 4 {
                // In one piece, so that the places of their rows are found once.
                column::<S, W, ROWS, VECTORS, WIDENED>(panel, x, args, &mut sums);
                column::<S, W, ROWS, VECTORS, WIDENED>(panel.add(apart), x.add(1), args, &mut sums);
                column::<S, W, ROWS, VECTORS, WIDENED>(panel.add(2 * apart), x.add(2), args, &mut sums);
                column::<S, W, ROWS, VECTORS, WIDENED>(panel.add(3 * apart), x.add(3), args, &mut sums);
                (panel, x) = (panel.add(4 * apart), x.add(4));
            }
            for _ in 0..columns % 4 {
                column::<S, W, ROWS, VECTORS, WIDENED>(panel, x, args, &mut sums);
                (panel, x) = (panel.add(apart), x.add(1));
            }
            x = x.wrapping_add(args.x_block).wrapping_sub(BLOCK);
        }
        for (total, sum) in totals.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
            *total = if span == 0 { *sum } else { S::add(*total, *sum) };
        }
    }
    for (row, totals) in totals.iter().enumerate() {
        let out = args.out.add((first_row + row) * args.out_row + first_column);
        for (vector, total) in totals.iter().enumerate() {
            S::store(out.add(vector * S::LANES), *total);
        }
    }
}

/// Adds the products of one column.
#[inline(always)]
unsafe fn column<S: Simd, W: Element, const ROWS: usize, const VECTORS: usize, const WIDENED: bool>(
    panel: *const W,
    x: *const f32,
    args: TileArgs<W>,
    sums: &mut [[S::Vector; VECTORS]; ROWS],
) {
    let (panels, bytes) = (args.panels, VECTORS * S::LANES * size_of::<W>());
    if is_pair::<S>(VECTORS) {
        let ahead = panel.wrapping_byte_add(panels.pair_ahead(panel));
        prefetch_lines(ahead, bytes / PAIR);
        prefetch_lines(ahead.wrapping_add(panels.len), bytes / PAIR);
    } else if WIDENED {
        // It is in a cache.
    } else if ROWS > 3 {
        prefetch_lines(panel.wrapping_byte_add(NEAR), bytes);
    } else if let Some(ahead) = panels.ahead() {
        // A few rows are bound by memory.
        prefetch_lines(panel.wrapping_byte_add(ahead), bytes);
    }
    let mut weights = [S::splat(0.0); VECTORS];
    for (vector, weights) in weights.iter_mut().enumerate() {
        let (number, row) = place::<S>(vector);
        *weights = W::load::<S>(panel.add(number * panels.len + row));
    }
    for (row, sums) in sums.iter_mut().enumerate() {
        let value = S::splat(*x.add(row * args.x_row));
        for (sum, weight) in sums.iter_mut().zip(weights) {
            *sum = S::fma(value, weight, *sum);
        }
    }
}
