//! Rows of bytes that several threads fill, each row by the one that claims it.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};

use super::SharedSlice;

/// Rows that each consist of a piece in one or several slices.
pub struct SharedRows<'a> {
    /// Each slice, and how many of its bytes belong to a row.
    parts: Vec<(SharedSlice<u8>, usize)>,
    claimed: Vec<AtomicBool>,
    borrowed: PhantomData<&'a mut [u8]>,
}

impl<'a> SharedRows<'a> {
    /// Rows in slices, each given with the bytes that a row has in it.
    ///
    /// # Panics
    /// If a slice is shorter than its rows.
    pub fn new(rows: usize, parts: impl IntoIterator<Item = (&'a mut [u8], usize)>) -> SharedRows<'a> {
        let part = |(bytes, row_bytes): (&'a mut [u8], usize)| {
            assert!(rows * row_bytes <= bytes.len(), "{rows} rows of {row_bytes} in {} bytes", bytes.len());
            (SharedSlice::new(bytes), row_bytes)
        };
        let claimed = std::iter::repeat_with(|| AtomicBool::new(false)).take(rows).collect();
        SharedRows { parts: parts.into_iter().map(part).collect(), claimed, borrowed: PhantomData }
    }

    /// A row, for the one who asks first.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn claim(&self, row: usize) -> Option<ClaimedRow<'_>> {
        let first = !self.claimed[row].swap(true, Ordering::Relaxed);
        first.then_some(ClaimedRow { rows: self, row })
    }
}

/// A row that nobody else writes.
pub struct ClaimedRow<'a> {
    rows: &'a SharedRows<'a>,
    row: usize,
}

impl ClaimedRow<'_> {
    /// The row's bytes in one of the slices.
    pub fn part(&mut self, part: usize) -> &mut [u8] {
        let (bytes, row_bytes) = &self.rows.parts[part];
        // SAFETY: rows do not overlap, each is claimed once, and what is lent of it borrows the claim;
        // the slices are borrowed for as long as the rows are.
        unsafe { bytes.part(self.row * row_bytes, *row_bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Pool;

    #[test]
    fn threads_fill_their_rows_and_no_other() {
        let (mut wide, mut narrow) = (vec![0u8; 301 * 7], vec![0u8; 301]);
        let rows = SharedRows::new(300, [(&mut wide[..], 7), (&mut narrow[..], 1)]);
        Pool::new(3).for_each(600, 1, |task| {
            if let Some(mut row) = rows.claim(task / 2) {
                row.part(0).iter_mut().for_each(|byte| *byte += (task / 2) as u8);
                row.part(1)[0] += 1;
            }
        });
        assert!(wide[..2100].chunks(7).enumerate().all(|(row, bytes)| bytes == [row as u8; 7]));
        assert_eq!((&wide[2100..], &narrow[..300], narrow[300]), (&[0; 7][..], &[1; 300][..], 0));
    }

    #[test]
    #[should_panic(expected = "in 9 bytes")]
    fn a_slice_that_is_too_short_is_refused() {
        SharedRows::new(2, [(&mut [0u8; 9][..], 5)]);
    }
}
