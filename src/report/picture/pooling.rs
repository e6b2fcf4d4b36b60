//! Maps reduced to the points of a picture: a point is the maximum over a block of weights, so that a
//! lone cell or a stripe one cell wide stays visible however large the map is.

use std::ops::Range;

use crate::error::Result;
use crate::report::rows::{MapSink, Row};

/// One map as a grid of points, filled row by row.
#[derive(Clone, Debug)]
pub struct Pooled {
    /// Queries and keys that a point stands for.
    pub block: (usize, usize),
    /// Points down and across.
    pub rows: usize,
    pub columns: usize,
    /// `[rows, columns]`; NaN where no weight is.
    points: Vec<f32>,
}

impl Pooled {
    /// Of a map of so many queries and keys, in at most `most` points down and as many across.
    pub fn new(queries: usize, keys: usize, most: usize) -> Pooled {
        let block = |count: usize| count.div_ceil(most).max(1);
        Pooled::in_blocks(queries, keys, (block(queries), block(keys)))
    }

    /// With blocks of a given size.
    pub fn in_blocks(queries: usize, keys: usize, block: (usize, usize)) -> Pooled {
        let (rows, columns) = (queries.div_ceil(block.0), keys.div_ceil(block.1));
        Pooled { block, rows, columns, points: vec![f32::NAN; rows * columns] }
    }

    /// Takes a query's weights; those outside `seen` are masked or hidden.
    pub fn add(&mut self, row: usize, weights: &[f32], seen: Range<usize>) {
        let line = row / self.block.0 * self.columns;
        let mut key = seen.start;
        while key < seen.end {
            let column = key / self.block.1;
            let end = ((column + 1) * self.block.1).min(seen.end);
            // `max` passes over NaN.
            let point = &mut self.points[line + column];
            *point = weights[key..end].iter().copied().fold(*point, f32::max);
            key = end;
        }
    }

    /// The largest weight of a point; `None` where there is none.
    pub fn point(&self, row: usize, column: usize) -> Option<f32> {
        Some(self.points[row * self.columns + column]).filter(|point| !point.is_nan())
    }

    /// The largest weight; 0 where there is none.
    pub fn largest(&self) -> f32 {
        self.points.iter().copied().fold(0.0, f32::max)
    }
}

/// All maps of a picture.
pub struct PooledMaps(pub Vec<Pooled>);

impl MapSink for PooledMaps {
    fn row(&mut self, row: Row<'_>) -> Result<()> {
        self.0[row.map].add(row.row, row.weights, row.seen);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_the_maximum_of_its_block() {
        let (queries, keys) = (7, 5);
        let map: Vec<f32> = (0..queries * keys).map(|at| ((at * 29 + 3) % 37) as f32 / 37.0).collect();
        let mut pooled = Pooled::new(queries, keys, 3);
        assert_eq!((pooled.block, pooled.rows, pooled.columns), ((3, 2), 3, 3));
        for (query, row) in map.chunks_exact(keys).enumerate() {
            pooled.add(query, row, 0..keys.min(query + 1));
        }
        for row in 0..3 {
            for column in 0..3 {
                let seen = (0..queries * keys).filter(|at| {
                    let (query, key) = (at / keys, at % keys);
                    query / 3 == row && key / 2 == column && key <= query
                });
                assert_eq!(pooled.point(row, column), seen.map(|at| map[at]).reduce(f32::max));
            }
        }
        assert_eq!(pooled.point(0, 2), None);
    }

    #[test]
    fn every_lone_cell_and_stripe_of_a_large_map_is_seen() {
        const SIZE: usize = 4096;
        for most in [1024, 400, 64, 16] {
            let mut pooled = Pooled::new(SIZE, SIZE, most);
            let mut row = vec![0f32; SIZE];
            for query in 0..SIZE {
                row.fill(0.0);
                row[query / 3] = 0.25;
                if query == 3001 {
                    row[1234] = 0.5;
                }
                pooled.add(query, &row, 0..query + 1);
            }
            let (down, across) = pooled.block;
            assert_eq!(pooled.point(3001 / down, 1234 / across), Some(0.5));
            for query in 0..SIZE {
                assert!(pooled.point(query / down, query / 3 / across).unwrap() >= 0.25);
            }
            assert!(pooled.rows <= most && pooled.columns <= most);
        }
    }
}
