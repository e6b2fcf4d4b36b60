//! A weight matrix in memory, in the order in which the kernel reads it.

use std::ops::Range;
use std::sync::Arc;

use super::blocks::dequantize;
use super::element::ElementType;
use super::folded_panel::{self, Apart, Folded, fold};
use super::quantize::quantize;
use super::quantized_panel::{self, Layout};
use super::raw_matrix::RawMatrix;
use super::threads::SharedSlice;
use super::{PANEL, Pool, memory};

/// About what is packed of a source before it is said to be done with, in bytes of the source.
const PIECE: usize = 2 << 20;

/// A weight matrix `[rows, columns]` (outputs × inputs) in panels of 32 rows: `[rows/32][columns][32]`.
///
/// The last panel is filled up with zeros. Rows of quantised types are in blocks, of which a panel
/// holds those of its rows side by side. Those of bf16 are [folded](super::folded_panel) into 12 bits
/// a weight, unless too many of their weights do not fit. Where neighbouring rows are held as different
/// types, there is a part for each.
pub struct PackedMatrix {
    rows: usize,
    columns: usize,
    parts: Vec<Part>,
}

/// Rows held as one type.
pub(super) struct Part {
    pub rows: usize,
    pub element: ElementType,
    data: Arc<memory::Memory>,
    /// Where the panels are folded.
    folded: Option<Folded>,
}

impl PackedMatrix {
    /// Packs matrices with equal columns on top of one another; `held` says as what type each.
    ///
    /// A quantised matrix that stays what it is keeps its bits. From and to any other type its
    /// values are rounded anew.
    ///
    /// # Errors
    /// If the system has no memory for it.
    ///
    /// # Panics
    /// If columns or bytes disagree, or a row is no whole number of blocks: the checkpoint's shapes
    /// were checked, so that is our bug. Also for types that no kernel computes with.
    pub fn pack(
        pool: &Pool,
        sources: &[RawMatrix<'_>],
        held: &[ElementType],
    ) -> std::io::Result<PackedMatrix> {
        Self::pack_and_tell(pool, sources, held, &|_| ())
    }

    /// The same, and calls `done` with each few megabytes of the sources when they are packed.
    ///
    /// # Errors
    /// As [`pack`](Self::pack).
    ///
    /// # Panics
    /// As [`pack`](Self::pack).
    pub fn pack_and_tell(
        pool: &Pool,
        sources: &[RawMatrix<'_>],
        held: &[ElementType],
        done: &dyn Fn(&[u8]),
    ) -> std::io::Result<PackedMatrix> {
        assert_eq!(sources.len(), held.len(), "a type for each matrix");
        let columns = sources[0].columns;
        for source in sources {
            assert_eq!(source.columns, columns, "stacked matrices need equal columns");
            assert!(source.is_whole(), "bytes must be [rows, columns]");
        }
        let mut parts = vec![];
        let mut first = 0;
        for same in held.chunk_by(|a, b| a == b) {
            parts.push(Part::pack(pool, &sources[first..first + same.len()], same[0], done)?);
            first += same.len();
        }
        Ok(PackedMatrix { rows: parts.iter().map(|part| part.rows).sum(), columns, parts })
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Bytes held, and read once for each token generated.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(Part::bytes).sum()
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Copies one row, decoded to f32: a token's embedding.
    ///
    /// # Panics
    /// If `row` is out of range or `out` is not `columns` long.
    pub fn copy_row(&self, mut row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.columns);
        for part in &self.parts {
            if row < part.rows {
                return part.copy_row(row, out);
            }
            row -= part.rows;
        }
    }
}

impl Part {
    fn pack(
        pool: &Pool,
        sources: &[RawMatrix<'_>],
        element: ElementType,
        done: &dyn Fn(&[u8]),
    ) -> std::io::Result<Part> {
        let columns = sources[0].columns;
        let rows = sources.iter().map(|source| source.rows).sum::<usize>();
        let source_bytes = sources.iter().map(|source| source.bytes.len()).sum::<usize>();
        let panels = rows.div_ceil(PANEL);
        let rows_of = |panel: usize| -> Vec<_> {
            (panel * PANEL..(panel + 1) * PANEL).map_while(|row| locate(sources, row)).collect()
        };
        let folds = element == ElementType::Bf16 && folds(columns, panels, &rows_of);
        let panel_bytes =
            if folds { folded_panel::panel_bytes(columns) } else { panel_bytes(element, columns) };
        let mut folded = folds.then(Folded::default);
        // The threads that pack also touch the memory first, in which the system has yet to clear it.
        let mut data = memory::shared(panels * panel_bytes)?;
        let shared = SharedSlice::new(&mut data);
        let piece = (PIECE / source_bytes.div_ceil(panels.max(1)).max(1)).max(1);
        for first in (0..panels).step_by(piece) {
            let last = panels.min(first + piece);
            let mut notes = vec![(0, vec![]); last - first];
            pool.for_each_mut(&mut notes, |panel, notes| {
                let panel = first + panel;
                // SAFETY: each panel is packed by one thread.
                let out = unsafe { shared.part(panel * panel_bytes, panel_bytes) };
                if folds {
                    *notes = fold_panel(columns, &rows_of(panel), out);
                } else {
                    pack_panel(element, columns, &rows_of(panel), out);
                }
            });
            if let Some(folded) = &mut folded {
                notes.iter().for_each(|(lowest, apart)| folded.push(*lowest, apart));
            }
            each_range(sources, first * PANEL..last * PANEL, done);
        }
        Ok(Part { rows, element, data: Arc::new(data), folded })
    }

    /// Bytes held.
    fn bytes(&self) -> usize {
        self.data.len() + self.folded.as_ref().map_or(0, Folded::bytes)
    }

    /// Where the panels are, one after another.
    pub(super) fn memory(&self) -> &Arc<memory::Memory> {
        &self.data
    }

    /// What is to be known of the panels where they are folded.
    pub(super) fn folded(&self) -> Option<&Folded> {
        self.folded.as_ref()
    }

    fn copy_row(&self, row: usize, out: &mut [f32]) {
        let panel = row / PANEL;
        let bytes = self.data.len() / self.rows.div_ceil(PANEL);
        let (panel, notes) =
            (&self.data[panel * bytes..(panel + 1) * bytes], self.folded().map(|folded| folded.notes(panel)));
        let lane = row % PANEL;
        if let Some(notes) = notes {
            return folded_panel::copy_row(panel, notes, lane, out);
        }
        if self.element.is_quantized() {
            return quantized_panel::copy_row(self.element, panel, lane, out);
        }
        let size = self.element.block_bytes();
        for (column, out) in panel.chunks_exact(size * PANEL).zip(out) {
            dequantize(self.element, &column[lane * size..(lane + 1) * size], std::slice::from_mut(out));
        }
    }

    /// The panels, one after another; `W` is what they are made of: f32, bf16, f16, or bytes where
    /// they are quantised or folded.
    pub(super) fn panels<W: PanelValue>(&self) -> &[W] {
        let bytes = self.element.is_quantized() || self.folded.is_some();
        let size = if bytes { 1 } else { self.element.block_bytes() };
        assert_eq!(size_of::<W>(), size, "the type of the panels");
        // SAFETY: the mapping starts at a page, is initialised, and every bit pattern is a valid
        // f32, bf16, f16 or byte; it lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr().cast(), self.data.len() / size) }
    }
}

/// What panels are made of: any bits are a value.
pub(super) trait PanelValue: Copy + Sync + 'static {}
impl PanelValue for f32 {}
impl PanelValue for half::bf16 {}
impl PanelValue for half::f16 {}
impl PanelValue for u8 {}

/// Bytes of a panel of some columns that is not folded.
fn panel_bytes(element: ElementType, columns: usize) -> usize {
    let block =
        if element.is_quantized() { Layout::of(element).block() } else { PANEL * element.block_bytes() };
    columns / element.block_values() * block
}

/// The source that holds a row of the stack, and which of its rows that is.
fn locate<'a, 'b>(sources: &'a [RawMatrix<'b>], mut row: usize) -> Option<(&'a RawMatrix<'b>, usize)> {
    for source in sources {
        if row < source.rows {
            return Some((source, row));
        }
        row -= source.rows;
    }
    None
}

/// Calls `done` with the bytes of some rows of the stack.
fn each_range(sources: &[RawMatrix<'_>], rows: Range<usize>, done: &dyn Fn(&[u8])) {
    let mut first = 0;
    for source in sources {
        let inside = |row: usize| row.saturating_sub(first).min(source.rows);
        let (from, to) = (inside(rows.start), inside(rows.end));
        if from < to {
            let row = source.bytes.len() / source.rows;
            done(&source.bytes[from * row..to * row]);
        }
        first += source.rows;
    }
}

/// Rows of sources.
type Rows<'a, 'b> = [(&'a RawMatrix<'b>, usize)];

/// Panels that are tried before a matrix is folded.
const TRIED: usize = 4;
/// Of so many weights one may be apart, at most.
const FITTING: usize = 200;

/// Whether rows are to be folded: whether nearly all weights of a few panels have a code.
fn folds<'a, 'b: 'a>(
    columns: usize,
    panels: usize,
    rows_of: &dyn Fn(usize) -> Vec<(&'a RawMatrix<'b>, usize)>,
) -> bool {
    if !folded_panel::fits(columns) {
        return false;
    }
    let mut out = vec![0; folded_panel::panel_bytes(columns)];
    let tried = (0..panels).step_by(panels.div_ceil(TRIED).max(1));
    let (weights, apart) = tried.fold((0, 0), |(weights, apart), panel| {
        let (_, found) = fold_panel(columns, &rows_of(panel), &mut out);
        (weights + columns * PANEL, apart + found.len())
    });
    apart * FITTING <= weights
}

/// Folds rows, which are turned into bf16 on the way, into a panel.
fn fold_panel(columns: usize, rows: &Rows<'_, '_>, out: &mut [u8]) -> (u8, Vec<Apart>) {
    let mut words = vec![[0u16; PANEL]; columns];
    with_rows(ElementType::Bf16, columns, rows, |rows| {
        // So many columns of all rows at a time that they stay in the innermost cache.
        const COLUMNS: usize = 16;
        for (number, words) in words.chunks_mut(COLUMNS).enumerate() {
            for (row, bytes) in rows.iter().enumerate() {
                let bytes = &bytes.as_chunks().0[number * COLUMNS..][..words.len()];
                for (word, bytes) in words.iter_mut().zip(bytes) {
                    word[folded_panel::place(row)] = u16::from_le_bytes(*bytes);
                }
            }
        }
    });
    fold(&words, out)
}

/// Fills a zeroed panel with rows, which are turned into `element` on the way.
fn pack_panel(element: ElementType, columns: usize, rows: &Rows<'_, '_>, out: &mut [u8]) {
    with_rows(element, columns, rows, |rows| match element.block_bytes() {
        _ if element.is_quantized() => {
            for (lane, row) in rows.iter().enumerate() {
                quantized_panel::pack_row(element, row, out, lane);
            }
        }
        4 => interleave::<4>(rows, out),
        _ => interleave::<2>(rows, out),
    });
}

/// Calls `take` with the bytes of rows as `element`.
fn with_rows(element: ElementType, columns: usize, rows: &Rows<'_, '_>, take: impl FnOnce(&[&[u8]])) {
    let row_bytes = element.row_bytes(columns).expect("a row is a whole number of blocks");
    let others = rows.iter().filter(|(source, _)| source.element != element).count();
    let mut values = vec![0.0; if others > 0 { columns } else { 0 }];
    let mut converted = vec![0; others * row_bytes];
    let mut converted = converted.chunks_exact_mut(row_bytes.max(1));
    let mut sources = Vec::with_capacity(PANEL);
    for (source, row) in rows {
        let row = source.row_bytes(*row);
        if source.element == element {
            sources.push(row);
        } else if let Some(converted) = converted.next() {
            dequantize(source.element, row, &mut values);
            quantize(element, &values, converted);
            sources.push(&*converted);
        }
    }
    take(&sources);
}

/// Puts rows of elements of `SIZE` bytes into the lanes of a panel.
fn interleave<const SIZE: usize>(rows: &[&[u8]], panel: &mut [u8]) {
    // So many columns of all rows at a time that they stay in the innermost cache.
    const COLUMNS: usize = 16;
    let panel = panel.as_chunks_mut::<SIZE>().0;
    for (number, columns) in panel.chunks_mut(COLUMNS * PANEL).enumerate() {
        for (lane, row) in rows.iter().enumerate() {
            let row = &row.as_chunks::<SIZE>().0[number * COLUMNS..][..columns.len() / PANEL];
            for (from, to) in row.iter().zip(columns[lane..].iter_mut().step_by(PANEL)) {
                *to = *from;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::quantize::quantized;

    fn matrix(rows: usize, columns: usize, element: ElementType) -> RawMatrix<'static> {
        let values: Vec<f32> =
            (0..rows * columns).map(|i| (i * 7919 % 1013) as f32 / 500.0 - 1.0 + rows as f32).collect();
        RawMatrix { rows, columns, element, bytes: quantized(element, &values).into() }
    }

    #[test]
    fn stacked_matrices_keep_their_rows_whatever_each_is_held_as() {
        use ElementType::*;
        let sources = [matrix(3, 256, F32), matrix(40, 256, F16), matrix(33, 256, Q4_1), matrix(5, 256, Q4K)];
        for held in [[F32; 4], [F32, F16, Q4_1, Q4K], [Bf16, Bf16, F32, F32], [Q8_0, F16, Q8_0, Q8_0]] {
            let packed = PackedMatrix::pack(&Pool::new(2), &sources, &held).unwrap();
            assert_eq!((packed.rows(), packed.columns()), (81, 256));
            let mut first = 0;
            for (source, held) in sources.iter().zip(held) {
                for row in [0, source.rows - 1] {
                    let (mut ours, mut expected) = (vec![0f32; 256], vec![0f32; 256]);
                    packed.copy_row(first + row, &mut ours);
                    dequantize(held, &quantized(held, &source.row(row)), &mut expected);
                    if source.element == held {
                        expected = source.row(row);
                    }
                    assert_eq!(ours, expected, "{} as {held}", source.element);
                }
                first += source.rows;
            }
        }
    }
}
