//! A matrix as a file holds it: what weights are packed from.

use std::borrow::Cow;

use super::Pool;
use super::blocks::dequantize;
use super::element::ElementType;
use super::quantize::quantize;
use super::threads::SharedSlice;

/// A row-major matrix `[rows, columns]` as it lies in a file: little-endian, any alignment, each
/// row a whole number of [blocks](ElementType::block_values).
#[derive(Clone)]
pub struct RawMatrix<'a> {
    pub rows: usize,
    pub columns: usize,
    pub element: ElementType,
    /// Borrowed from the file where the matrix lies there as it is.
    pub bytes: Cow<'a, [u8]>,
}

impl RawMatrix<'_> {
    /// Whether there are as many bytes as the sizes ask for.
    pub fn is_whole(&self) -> bool {
        let bytes = self.element.row_bytes(self.columns).and_then(|bytes| bytes.checked_mul(self.rows));
        bytes == Some(self.bytes.len())
    }

    /// The bytes of one row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row_bytes(&self, row: usize) -> &[u8] {
        assert!(row < self.rows);
        let len = self.bytes.len() / self.rows;
        &self.bytes[row * len..(row + 1) * len]
    }

    /// Decodes one row to f32.
    ///
    /// # Panics
    /// If there is no such row or `out` is not `columns` long.
    pub fn copy_row(&self, row: usize, out: &mut [f32]) {
        dequantize(self.element, self.row_bytes(row), out);
    }

    /// The f32 values of one row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, row: usize) -> Vec<f32> {
        let mut values = vec![0.0; self.columns];
        self.copy_row(row, &mut values);
        values
    }

    /// The matrix in another type, its rows shared out among the threads.
    ///
    /// # Panics
    /// If a row is no whole number of the type's blocks.
    pub fn converted(&self, pool: &Pool, element: ElementType) -> RawMatrix<'static> {
        let row_bytes = element.row_bytes(self.columns).expect("a row is a whole number of blocks");
        let mut bytes = vec![0; self.rows * row_bytes];
        let shared = SharedSlice::new(&mut bytes);
        pool.for_each(self.rows, 32, |row| {
            // SAFETY: each row is written by one task.
            quantize(element, &self.row(row), unsafe { shared.part(row * row_bytes, row_bytes) });
        });
        RawMatrix { rows: self.rows, columns: self.columns, element, bytes: bytes.into() }
    }
}
