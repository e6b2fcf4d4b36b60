//! Where the products of rows and panels go: some columns of a matrix `[tokens][columns]`.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::PANEL;
use super::threads::SharedSlice;
use super::tile::{Destination, Tile};

/// The most rows that any kernel multiplies at a time, each by a panel.
const MOST_ROWS: usize = 32;

/// The columns of one part of a matrix's rows, among those of all parts.
pub(super) struct Output<'a> {
    pub out: &'a SharedSlice<MaybeUninit<f32>>,
    /// Of a row of the whole result.
    pub columns: usize,
    /// Where those of this part start, and how many there are.
    pub first_column: usize,
    pub width: usize,
}

impl Output<'_> {
    /// Panels of the part; the last may be wider than what is left.
    pub fn panels(&self) -> usize {
        self.width.div_ceil(PANEL)
    }

    /// Has `compute` write the products of some rows with some neighbouring panels, at most 32 in all.
    ///
    /// # Safety
    /// No two threads may be at the same rows of the same panel.
    pub unsafe fn tile(&self, panels: Range<usize>, tile: Tile, compute: impl FnOnce(Tile, Destination)) {
        let Tile { first, rows } = tile;
        let at = first * self.columns + self.first_column + panels.start * PANEL;
        let (left, whole) = (self.width - panels.start * PANEL, panels.len() * PANEL);
        if left >= whole {
            // SAFETY: in the slice, which is [tokens][columns].
            let out = unsafe { self.out.start().add(at) }.cast();
            return compute(tile, Destination { out, out_row: self.columns });
        }
        let mut products = [0f32; MOST_ROWS * PANEL];
        compute(tile, Destination { out: products.as_mut_ptr(), out_row: whole });
        for (row, products) in products.chunks_exact(whole).take(rows).enumerate() {
            // SAFETY: the caller's promise.
            let out = unsafe { self.out.part(at + row * self.columns, left) };
            out.write_copy_of_slice(&products[..left]);
        }
    }

    /// Puts some rows of 32 where the products with a panel go.
    ///
    /// # Safety
    /// As for [`tile`](Self::tile); the panel is no wider than what is left.
    pub unsafe fn put(&self, panel: usize, first: usize, rows: &[f32]) {
        for (row, values) in rows.chunks_exact(PANEL).enumerate() {
            let at = (first + row) * self.columns + self.first_column + panel * PANEL;
            // SAFETY: the caller's promise.
            unsafe { self.out.part(at, PANEL) }.write_copy_of_slice(values);
        }
    }
}
