//! A small picture of a map whose length is not known beforehand: at most 64 by 64 cells, each of them
//! of a power of two queries and keys, which doubles when the text outgrows them.

use std::ops::Range;

use crate::kernels::Isa;
use crate::kernels::columns::add_columns;

/// Cells on a picture's side, at most.
pub const SIDE: usize = 64;

/// How positions fall into cells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grid {
    /// Positions on a cell's side: a power of two.
    pub cell: usize,
    /// Cells on the picture's side.
    pub side: usize,
}

impl Grid {
    /// For a map of so many keys.
    pub fn of(keys: usize) -> Grid {
        let cell = keys.div_ceil(SIDE).max(1).next_power_of_two();
        Grid { cell, side: keys.div_ceil(cell) }
    }

    /// The cell of a position, down or across.
    fn of_position(self, position: usize) -> usize {
        position >> self.cell.trailing_zeros()
    }
}

/// Of each cell the largest weight, and the sum of all; lines of [`SIDE`] cells, however many are used.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    pub maximum: Vec<f32>,
    pub sum: Vec<f32>,
}

/// How many weights of each cell a query may see, in lines of [`SIDE`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts(pub Vec<u32>);

/// Rows of one line of cells that are not in the picture yet, gathered by key. Sums are therefore always
/// taken in the same order: down the columns of a line's rows, then along the keys of a cell.
#[derive(Default)]
pub struct Band {
    line: usize,
    /// The keys of any row.
    keys: Range<usize>,
    maxima: Vec<f32>,
    sums: Vec<f32>,
}

impl Default for Picture {
    fn default() -> Picture {
        Picture { maximum: vec![0.0; SIDE * SIDE], sum: vec![0.0; SIDE * SIDE] }
    }
}

impl Picture {
    /// Adds a query's weights on the keys from `first` on; [`Picture::end`] says when all are there.
    pub fn add(
        &mut self,
        isa: Isa,
        grid: Grid,
        band: &mut Band,
        query: usize,
        first: usize,
        weights: &[f32],
    ) {
        let line = grid.of_position(query);
        if band.line != line {
            self.end(grid, band);
            band.line = line;
        }
        let keys = first..first + weights.len();
        if keys.is_empty() {
            return;
        }
        if band.maxima.len() < keys.end {
            band.maxima.resize(keys.end, 0.0);
            band.sums.resize(keys.end, 0.0);
        }
        band.keys = match band.keys.is_empty() {
            true => keys.clone(),
            false => band.keys.start.min(keys.start)..band.keys.end.max(keys.end),
        };
        add_columns(isa, weights, &mut band.maxima[keys.clone()], &mut band.sums[keys]);
    }

    /// Takes in what a band holds.
    pub fn end(&mut self, grid: Grid, band: &mut Band) {
        let mut key = band.keys.start;
        while key < band.keys.end {
            let cell = grid.of_position(key);
            let end = ((cell + 1) * grid.cell).min(band.keys.end);
            let at = band.line * SIDE + cell;
            let maximum = band.maxima[key..end].iter().copied().fold(self.maximum[at], f32::max);
            self.maximum[at] = maximum;
            self.sum[at] += band.sums[key..end].iter().sum::<f32>();
            key = end;
        }
        band.maxima.clear();
        band.sums.clear();
        band.keys = 0..0;
    }

    /// Doubles the side of every cell.
    pub fn merge(&mut self) {
        merge(&mut self.maximum, f32::max);
        merge(&mut self.sum, |a, b| a + b);
    }
}

impl Default for Counts {
    fn default() -> Counts {
        Counts(vec![0; SIDE * SIDE])
    }
}

impl Counts {
    /// Adds what a query sees.
    pub fn add(&mut self, grid: Grid, query: usize, seen: Range<usize>) {
        let line = grid.of_position(query) * SIDE;
        let mut key = seen.start;
        while key < seen.end {
            let cell = grid.of_position(key);
            let end = ((cell + 1) * grid.cell).min(seen.end);
            self.0[line + cell] += (end - key) as u32;
            key = end;
        }
    }

    pub fn merge(&mut self) {
        merge(&mut self.0, |a, b| a + b);
    }
}

/// Puts four cells into one. What is read is never behind what is written.
fn merge<T: Copy + Default>(cells: &mut [T], join: impl Fn(T, T) -> T) {
    for line in 0..SIDE {
        for column in 0..SIDE {
            let inside = line < SIDE / 2 && column < SIDE / 2;
            let four = |at: usize| {
                let upper = join(cells[at], cells[at + 1]);
                join(upper, join(cells[at + SIDE], cells[at + SIDE + 1]))
            };
            let merged = if inside { four(2 * line * SIDE + 2 * column) } else { T::default() };
            cells[line * SIDE + column] = merged;
        }
    }
}
