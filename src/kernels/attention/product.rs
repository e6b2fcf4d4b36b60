//! A few rows times panels of the cache, as the cache holds them: scores are queries times panels
//! of keys, and the weighted sum is weights times panels of values.
//!
//! `out[row][column] = Σₖ x[row][k] · panel[k][column]`, summed over k in order, one fused
//! multiply-add at a time, so that a row gets the same bits whatever the rows beside it. Narrow
//! values are widened in registers, and exactly: an f16 is an f32, and 8 bits times a scale of 11
//! fit into 24. So a narrow cache gives what an f32 cache of the rounded values would, bit for bit.
//! Error: at most k·ε·Σ|x·w|.

// As in `simd`: unsafe because of the CPU's instructions and raw pointers, both promised by the caller.
#![allow(unsafe_op_in_unsafe_fn)]

use half::f16;

use super::super::PANEL;
use super::super::cache::CacheType;
use super::super::simd::{Isa, Simd, dispatch, prefetch_lines};
use super::CHUNK;

/// Up to so many rows, reading the panels takes longer than the arithmetic.
pub(super) const FEW_ROWS: usize = 4;

/// Rows of a panel that share a header of scales, where there are scales.
const GROUP: usize = 32;

/// What a panel holds.
pub(super) trait Held: 'static {
    /// Bytes of a value.
    const SIZE: usize;
    /// Whether each [`GROUP`] rows of the panel follow their 32 scales, as f16.
    const SCALED: bool = false;

    /// Loads one vector, without its scale.
    ///
    /// # Safety
    /// As [`Simd::load`].
    unsafe fn load<S: Simd>(from: *const u8) -> S::Vector;
}

impl Held for f32 {
    const SIZE: usize = 4;

    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const u8) -> S::Vector {
        S::load(from.cast())
    }
}

impl Held for f16 {
    const SIZE: usize = 2;

    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const u8) -> S::Vector {
        S::load_f16(from.cast())
    }
}

/// `q8_0`.
impl Held for i8 {
    const SIZE: usize = 1;
    const SCALED: bool = true;

    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const u8) -> S::Vector {
        S::load_i8(from.cast())
    }
}

/// Bytes in front of a group's rows.
const fn header<H: Held>() -> usize {
    if H::SCALED { PANEL * size_of::<f16>() } else { 0 }
}

/// Bytes of a group of a panel's rows.
const fn group_bytes<H: Held>() -> usize {
    header::<H>() + GROUP * PANEL * H::SIZE
}

/// Whose scales a group's header holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scales {
    /// Of its columns, the positions of keys.
    Columns,
    /// Of its rows, the positions of values.
    Rows,
}

/// Where a product reads and writes: panels of `[depth][32]`, and `out[row][column]` at
/// `out + row·out_row + column`.
#[derive(Clone, Copy)]
pub(super) struct Product {
    pub rows: usize,
    pub depth: usize,
    pub x: *const f32,
    pub panel: *const u8,
    pub panels: usize,
    /// From one panel to the next, in bytes.
    pub panel_bytes: usize,
    pub out: *mut f32,
    pub out_row: usize,
    /// Whether a row or a few ask for memory [ahead](Isa::asks_ahead).
    pub asks_ahead: bool,
}

impl Product {
    #[inline(always)]
    unsafe fn starting_at(mut self, panel: usize) -> Product {
        self.panel = self.panel.add(panel * self.panel_bytes);
        self.out = self.out.add(panel * PANEL);
        self
    }
}

/// A product's kernel.
pub(super) type Kernel = unsafe fn(Isa, Product);

/// Queries, packed `[depth][rows]`, times keys (`depth` is the dimensions of a head); and weights, in
/// rows [`CHUNK`] apart, times values (`depth` is positions).
pub(super) fn kernels(held: CacheType) -> (Kernel, Kernel) {
    match held {
        CacheType::F32 => (scores_f32, sums_f32),
        CacheType::F16 => (scores_f16, sums_f16),
        CacheType::Q8_0 => (scores_q8_0, sums_q8_0),
    }
}

macro_rules! kernels {
    ($($scores:ident $sums:ident $type:ty;)*) => {$(
        dispatch!(
            /// # Safety
            /// The pointers are valid for what [`Product`] says; 1 to 12 rows.
            fn $scores = self::scores [$type] (product: Product)
        );
        dispatch!(
            /// # Safety
            /// As above.
            fn $sums = self::weighted_sums [$type] (product: Product)
        );
    )*};
}
kernels! {
    scores_f32 sums_f32 f32;
    scores_f16 sums_f16 f16;
    scores_q8_0 sums_q8_0 i8;
}

#[inline(always)]
unsafe fn scores<S: Simd, H: Held>(product: Product) {
    split::<S, H>(product, Scales::Columns, 1, product.rows);
}

#[inline(always)]
unsafe fn weighted_sums<S: Simd, H: Held>(product: Product) {
    split::<S, H>(product, Scales::Rows, CHUNK, 1);
}

/// Splits a product so that its sums fit the registers, and are enough to keep them busy: on
/// AVX-512 two panels of up to 4 rows or one of up to 12, on AVX2 one of 3 or half a one of 6.
#[inline(always)]
unsafe fn split<S: Simd, H: Held>(product: Product, scales: Scales, x_row: usize, x_step: usize) {
    macro_rules! rows {
        ($rows:expr, $panels:literal, $vectors:literal, $row:expr, $column:expr, $product:expr; $($count:literal)*) => {
            match $rows {
                $($count => sums::<S, H, $count, $panels, $vectors>($product, scales, x_row, x_step, $row, $column),)*
                _ => unreachable!("a tile has 1 to 12 rows"),
            }
        };
    }
    let rows = product.rows;
    let mut panel = 0;
    if S::LANES == 16 && rows <= 4 {
        while panel + 2 <= product.panels {
            rows!(rows, 2, 2, 0, 0, product.starting_at(panel); 1 2 3 4);
            panel += 2;
        }
    }
    while panel < product.panels {
        let product = product.starting_at(panel);
        panel += 1;
        if S::LANES == 16 {
            rows!(rows, 1, 2, 0, 0, product; 1 2 3 4 5 6 7 8 9 10 11 12);
        } else if rows <= 3 {
            rows!(rows, 1, 4, 0, 0, product; 1 2 3);
        } else {
            for row in (0..rows).step_by(6) {
                for column in [0, PANEL / 2] {
                    rows!(6.min(rows - row), 1, 2, row, column, product; 1 2 3 4 5 6);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn sums<S: Simd, H: Held, const ROWS: usize, const PANELS: usize, const VECTORS: usize>(
    product: Product,
    scales: Scales,
    x_row: usize,
    x_step: usize,
    first_row: usize,
    first_column: usize,
) {
    let mut sums = [[[S::splat(0.0); VECTORS]; PANELS]; ROWS];
    let mut x = product.x.add(first_row * x_row);
    // A few rows are bound by memory: ask for the panel's lines before they are needed.
    let asks_ahead = ROWS <= FEW_ROWS && product.asks_ahead;
    let mut group = product.panel;
    let mut left = product.depth;
    while left > 0 {
        let mut of_columns = [[S::splat(1.0); VECTORS]; PANELS];
        let mut of_rows = [[1f32; GROUP]; PANELS];
        if H::SCALED {
            for panel in 0..PANELS {
                let header = group.add(panel * product.panel_bytes).cast::<f16>();
                if scales == Scales::Columns {
                    for (vector, scale) in of_columns[panel].iter_mut().enumerate() {
                        *scale = S::load_f16(header.add(first_column + vector * S::LANES));
                    }
                } else {
                    for (from, to) in (0..GROUP).step_by(S::LANES).zip(of_rows[panel].chunks_mut(S::LANES)) {
                        S::store(to.as_mut_ptr(), S::load_f16(header.add(from)));
                    }
                }
            }
        }
        let mut row_of_panel = group.add(header::<H>() + first_column * H::SIZE);
        for k in 0..left.min(GROUP) {
            let mut values = [[S::splat(0.0); VECTORS]; PANELS];
            for (panel, values) in values.iter_mut().enumerate() {
                let from = row_of_panel.add(panel * product.panel_bytes);
                if asks_ahead {
                    prefetch_lines(from.wrapping_add(AHEAD), PANEL * H::SIZE);
                }
                for (vector, value) in values.iter_mut().enumerate() {
                    *value = H::load::<S>(from.add(vector * S::LANES * H::SIZE));
                    if H::SCALED {
                        let scale = match scales {
                            Scales::Columns => of_columns[panel][vector],
                            Scales::Rows => S::splat(*of_rows[panel].get_unchecked(k)),
                        };
                        *value = S::mul(*value, scale);
                    }
                }
            }
            // Rows outside, so that one number of x is held at a time.
            for (row, sums) in sums.iter_mut().enumerate() {
                let x = S::splat(*x.add(row * x_row));
                for (sums, values) in sums.iter_mut().zip(&values) {
                    for (sum, value) in sums.iter_mut().zip(values) {
                        *sum = S::fma(x, *value, *sum);
                    }
                }
            }
            row_of_panel = row_of_panel.add(PANEL * H::SIZE);
            x = x.add(x_step);
        }
        left = left.saturating_sub(GROUP);
        group = group.wrapping_add(group_bytes::<H>());
    }
    for (row, sums) in sums.iter().enumerate() {
        let out = product.out.add((first_row + row) * product.out_row + first_column);
        for (panel, sums) in sums.iter().enumerate() {
            for (vector, sum) in sums.iter().enumerate() {
                S::store(out.add(panel * PANEL + vector * S::LANES), *sum);
            }
        }
    }
}

/// How far ahead a panel is asked for, in bytes.
pub(super) const AHEAD: usize = 4096;
