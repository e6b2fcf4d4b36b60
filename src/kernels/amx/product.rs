//! Rows in pieces times panels of 32 columns.
//!
//! `out[row][column] = Σₖ x[row][k] · panel[k][column]`, 32 columns k at a time: for each pair of pieces
//! the CPU sums the 16 even products and the 16 odd ones, each with one rounding, and adds both sums.
//! The same bits whatever the number of rows. Error: at most (16 + 6·k/32)·ε·Σ|x·w|; and where weights
//! are f32, 2⁻²¹·Σ|x·w| for the products of pieces that are left out, else 2⁻¹⁶·Σ|x·w| for those and for
//! the bits of x that two pieces do not hold.

// As in `simd`: unsafe because of the CPU's instructions and raw pointers, both promised by the caller.
#![allow(unsafe_op_in_unsafe_fn)]

use std::arch::asm;
use std::cell::RefCell;
use std::ops::Range;

use super::super::Pool;
use super::super::folded_panel::QUAD;
use super::super::output::Output;
use super::super::tile::{Destination, Tile};
use super::pieces::{Columns, Line, PiecedRows, STEP, fill, fill_quad, lines_of};
use super::{ROW_BYTES, ROWS, configure, tile_load, tile_multiply_bf16, tile_store, tile_zero};

/// Steps whose planes are kept where a panel meets few rows.
const FEW_STEPS: usize = 3;

/// Bytes of the planes that meet some rows before the next rows come: a part of a core's second cache.
const PLANES_AT_A_TIME: usize = 1 << 20;

/// All rows of x times all panels of a part.
pub(in crate::kernels) struct Product<'a> {
    pub pool: &'a Pool,
    pub tokens: usize,
    pub x: &'a PiecedRows,
    pub output: &'a Output<'a>,
}

impl Product<'_> {
    /// `columns` makes the panels.
    pub fn run<C: Columns>(&self, columns: impl Fn(usize) -> C + Sync) {
        match self.tokens {
            0 => {}
            1..=ROWS => self.few_rows(columns),
            _ => self.many_rows(columns),
        }
    }

    /// Turns panels into planes on the way.
    fn few_rows<C: Columns>(&self, columns: impl Fn(usize) -> C + Sync) {
        let panels = self.output.panels();
        // Several at a time, as the first steps of the first are not among products yet.
        let together = (panels / (3 * self.pool.threads())).clamp(1, 8);
        self.pool.for_each(panels.div_ceil(together), 1, |task| {
            let panels = task * together..panels.min((task + 1) * together);
            with_planes(FEW_STEPS * lines_of::<C>(), |planes| {
                // SAFETY: rows in pieces prove that there is AMX; x has these rows, of as many columns as the
                // panels; each panel belongs to one task.
                unsafe { self.stream(panels, &columns, planes.as_mut_ptr()) };
            });
        });
    }

    /// Turns several panels into planes, which then meet all rows, two tiles at a time.
    fn many_rows<C: Columns>(&self, columns: impl Fn(usize) -> C + Sync) {
        let (panels, threads) = (self.output.panels(), self.pool.threads());
        let lines = self.x.steps() * lines_of::<C>();
        let together = (PLANES_AT_A_TIME / (lines * ROW_BYTES)).clamp(1, panels);
        // A multiple of the threads, so that all end together; several for each where that can be.
        let tasks = panels.div_ceil(together).next_multiple_of(threads);
        let together = panels.div_ceil(tasks);
        self.pool.for_each(panels.div_ceil(together), 1, |task| {
            let panels = task * together..panels.min((task + 1) * together);
            // Steps have one order in all panels.
            let order = columns(panels.start);
            with_planes(panels.len() * lines, |planes| {
                for (panel, planes) in panels.clone().zip(planes.chunks_exact_mut(lines)) {
                    let mut columns = columns(panel);
                    for (number, planes) in planes.chunks_exact_mut(lines_of::<C>()).enumerate() {
                        // SAFETY: rows in pieces prove that there is AMX; there is room for a step's lines.
                        unsafe { fill(&mut columns, number, planes.as_mut_ptr()) };
                    }
                }
                for first in (0..self.tokens).step_by(2 * ROWS) {
                    let tile = Tile { first, rows: (self.tokens - first).min(2 * ROWS) };
                    for (panel, planes) in panels.clone().zip(planes.chunks_exact(lines)) {
                        // SAFETY: rows in pieces prove that there is AMX; x has these rows, of as many
                        // columns as the panel; each panel belongs to one task.
                        unsafe {
                            self.output.tile(panel..panel + 1, tile, |tile, to| match tile.rows > ROWS {
                                true => filled::<C, true>(&order, planes, self.x, tile, to),
                                false => filled::<C, false>(&order, planes, self.x, tile, to),
                            });
                        }
                    }
                }
            });
        });
    }

    /// One tile of rows times panels that are turned into planes on the way; the same products in the same
    /// order. Tiles 0 and 1 are sums, 4 rows, 6 and 7 the halves of the panel.
    ///
    /// # Safety
    /// The CPU has AMX; `planes` has room for three steps; no other thread is at these panels.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    unsafe fn stream<C: Columns>(
        &self,
        panels: Range<usize>,
        columns: &(impl Fn(usize) -> C + Sync),
        planes: *mut Line,
    ) {
        let (rows, steps) = (self.tokens, self.x.steps());
        let r = rows as u8;
        configure([r, r, r, r, r, r, ROWS as u8, ROWS as u8]);
        let x_tile = self.x.tile(0);
        let place = |count: usize| planes.add(count % FEW_STEPS * lines_of::<C>());
        // A tile is loaded late where what it holds has only just been stored: so steps are filled ahead.
        let total = panels.len() * steps;
        let mut filling = columns(panels.start);
        let (mut filled, mut number) = (0, 0);
        macro_rules! next_step {
            () => {
                filling.correct(number, &mut *place(filled).cast());
                (filled, number) = (filled + 1, number + 1);
                if number == steps && filled < total {
                    (filling, number) = (columns(panels.start + filled / steps), 0);
                }
            };
        }
        while filled < total.min(FEW_STEPS - 1) {
            for quad in 0..STEP / QUAD {
                fill_quad(&filling, number, quad, place(filled));
            }
            next_step!();
        }
        let mut multiplied = 0;
        for panel in panels.clone() {
            tile_zero!(0);
            tile_zero!(1);
            for step in 0..steps {
                let x = x_tile.add(filling.step(step) * C::PIECES * rows * ROW_BYTES);
                let weights = place(multiplied);
                let (fills, next) = (filled < total, place(filled));
                macro_rules! load_weights {
                    ($plane:literal) => {
                        tile_load!(6, weights.add($plane * 2 * ROWS), ROW_BYTES);
                        tile_load!(7, weights.add(($plane * 2 + 1) * ROWS), ROW_BYTES);
                    };
                }
                // Between products, which wait for one another, some columns of the step ahead.
                macro_rules! add_products {
                    ($piece:literal, $($quad:literal)*) => {
                        tile_load!(4, x.add($piece * rows * ROW_BYTES), ROW_BYTES);
                        tile_multiply_bf16!(0, 4, 6);
                        tile_multiply_bf16!(1, 4, 7);
                        if fills {
                            $(fill_quad(&filling, number, $quad, next);)*
                        }
                    };
                }
                match C::PLANES {
                    1 => {
                        load_weights!(0);
                        add_products!(0, 0 1 2 3);
                        add_products!(1, 4 5 6 7);
                    }
                    2 => {
                        load_weights!(1);
                        add_products!(0, 0 1 2);
                        load_weights!(0);
                        add_products!(0, 3 4 5);
                        add_products!(1, 6 7);
                    }
                    _ => {
                        load_weights!(2);
                        add_products!(0, 0);
                        load_weights!(1);
                        add_products!(0, 1 2);
                        add_products!(1, 3);
                        load_weights!(0);
                        add_products!(1, 4);
                        add_products!(0, 5 6);
                        add_products!(2, 7);
                    }
                }
                multiplied += 1;
                if fills {
                    next_step!();
                }
            }
            self.output.tile(panel..panel + 1, Tile { first: 0, rows }, |_, Destination { out, out_row }| {
                let apart = out_row * size_of::<f32>();
                tile_store!(0, out, apart);
                tile_store!(1, out.add(ROWS), apart);
            });
        }
    }
}

/// Calls `work` with room for so many lines, the thread's own.
fn with_planes(lines: usize, work: impl FnOnce(&mut [Line])) {
    thread_local! {
        static PLANES: RefCell<Vec<Line>> = const { RefCell::new(vec![]) };
    }
    PLANES.with_borrow_mut(|planes| {
        if planes.len() < lines {
            planes.resize(lines, Line::ZERO);
        }
        work(&mut planes[..lines]);
    });
}

/// One or two tiles of rows times a panel whose planes are there, in the `order` of its steps. Tiles 0 to 3
/// are sums, 4 and 5 rows, 6 and 7 the halves of a panel.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn filled<C: Columns, const TWO: bool>(
    order: &C,
    planes: &[Line],
    x: &PiecedRows,
    tile: Tile,
    to: Destination,
) {
    let first = tile.rows.min(ROWS);
    let second = if TWO { tile.rows - ROWS } else { first };
    let (a, b) = (first as u8, second as u8);
    configure([a, a, b, b, a, b, ROWS as u8, ROWS as u8]);
    let x_tiles = [x.tile(tile.first), if TWO { x.tile(tile.first + ROWS) } else { x.tile(tile.first) }];
    tile_zero!(0);
    tile_zero!(1);
    if TWO {
        tile_zero!(2);
        tile_zero!(3);
    }
    for (number, planes) in planes.chunks_exact(lines_of::<C>()).enumerate() {
        let step = order.step(number) * C::PIECES * ROW_BYTES;
        let x = [x_tiles[0].add(step * first), x_tiles[1].add(step * second)];
        macro_rules! load_rows {
            ($piece:literal) => {
                tile_load!(4, x[0].add($piece * first * ROW_BYTES), ROW_BYTES);
                if TWO {
                    tile_load!(5, x[1].add($piece * second * ROW_BYTES), ROW_BYTES);
                }
            };
        }
        macro_rules! load_weights {
            ($plane:literal) => {
                tile_load!(6, planes.as_ptr().add($plane * 2 * ROWS), ROW_BYTES);
                tile_load!(7, planes.as_ptr().add(($plane * 2 + 1) * ROWS), ROW_BYTES);
            };
        }
        macro_rules! add_products {
            () => {
                tile_multiply_bf16!(0, 4, 6);
                tile_multiply_bf16!(1, 4, 7);
                if TWO {
                    tile_multiply_bf16!(2, 5, 6);
                    tile_multiply_bf16!(3, 5, 7);
                }
            };
        }
        // In an order in which tiles are loaded seldom.
        match C::PLANES {
            1 => {
                load_weights!(0);
                load_rows!(0);
                add_products!();
                load_rows!(1);
                add_products!();
            }
            2 => {
                load_weights!(1);
                load_rows!(0);
                add_products!();
                load_weights!(0);
                add_products!();
                load_rows!(1);
                add_products!();
            }
            _ => {
                load_weights!(2);
                load_rows!(0);
                add_products!();
                load_weights!(1);
                add_products!();
                load_rows!(1);
                add_products!();
                load_weights!(0);
                add_products!();
                load_rows!(0);
                add_products!();
                load_rows!(2);
                add_products!();
            }
        }
    }
    let apart = to.out_row * size_of::<f32>();
    tile_store!(0, to.out, apart);
    tile_store!(1, to.out.add(ROWS), apart);
    if TWO {
        let out = to.out.add(ROWS * to.out_row);
        tile_store!(2, out, apart);
        tile_store!(3, out.add(ROWS), apart);
    }
}
