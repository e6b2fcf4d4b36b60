//! A weight matrix in memory, in the order in which the kernel reads it.

use memmap2::MmapMut;

use super::blocks::dequantize;
use super::element::ElementType;
use super::quantize::quantize;
use super::quantized_panel::{self, Layout};
use super::raw_matrix::RawMatrix;
use super::threads::SharedSlice;
use super::{PANEL, Pool, memory};

/// A weight matrix `[rows, columns]` (outputs × inputs) in panels of 32 rows: `[rows/32][columns][32]`.
///
/// The last panel is filled up with zeros. Rows of quantised types are in blocks, of which a panel
/// holds those of its rows side by side. Where neighbouring rows are held as different types, there
/// is a part for each.
pub struct PackedMatrix {
    rows: usize,
    columns: usize,
    parts: Vec<Part>,
}

/// Rows held as one type.
pub(super) struct Part {
    pub rows: usize,
    pub element: ElementType,
    data: MmapMut,
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
        assert_eq!(sources.len(), held.len(), "a type for each matrix");
        let columns = sources[0].columns;
        for source in sources {
            assert_eq!(source.columns, columns, "stacked matrices need equal columns");
            assert!(source.is_whole(), "bytes must be [rows, columns]");
        }
        let mut parts = vec![];
        let mut first = 0;
        for same in held.chunk_by(|a, b| a == b) {
            parts.push(Part::pack(pool, &sources[first..first + same.len()], same[0])?);
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
        self.parts.iter().map(|part| part.data.len()).sum()
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
    fn pack(pool: &Pool, sources: &[RawMatrix<'_>], element: ElementType) -> std::io::Result<Part> {
        let columns = sources[0].columns;
        let rows = sources.iter().map(|source| source.rows).sum::<usize>();
        let row_bytes = element.row_bytes(columns).expect("a row is a whole number of blocks");
        let panel_bytes = panel_bytes(element, columns);
        let panels = rows.div_ceil(PANEL);
        let mut data = memory::zeroed(panels * panel_bytes)?;
        let shared = SharedSlice::new(&mut data);
        pool.for_each(panels, 1, |panel| {
            // SAFETY: each panel is packed by one thread.
            let out = unsafe { shared.part(panel * panel_bytes, panel_bytes) };
            let (mut values, mut converted) = (vec![], vec![]);
            for lane in 0..PANEL {
                let Some((source, row)) = locate(sources, panel * PANEL + lane) else { break };
                let mut row = source.row_bytes(row);
                if source.element != element {
                    values.resize(columns, 0.0);
                    converted.resize(row_bytes, 0);
                    dequantize(source.element, row, &mut values);
                    quantize(element, &values, &mut converted);
                    row = &converted;
                }
                match element.block_bytes() {
                    _ if element.is_quantized() => quantized_panel::pack_row(element, row, out, lane),
                    4 => scatter::<4>(row, out, lane),
                    _ => scatter::<2>(row, out, lane),
                }
            }
        });
        Ok(Part { rows, element, data })
    }

    fn copy_row(&self, row: usize, out: &mut [f32]) {
        let bytes = panel_bytes(self.element, out.len());
        let panel = &self.data[row / PANEL * bytes..(row / PANEL + 1) * bytes];
        let lane = row % PANEL;
        if self.element.is_quantized() {
            return quantized_panel::copy_row(self.element, panel, lane, out);
        }
        let size = self.element.block_bytes();
        for (column, out) in panel.chunks_exact(size * PANEL).zip(out) {
            dequantize(self.element, &column[lane * size..(lane + 1) * size], std::slice::from_mut(out));
        }
    }

    /// The panels, one after another; `W` is what they are made of: f32, bf16, f16, or bytes where
    /// they are quantised.
    pub(super) fn panels<W: PanelValue>(&self) -> &[W] {
        let size = if self.element.is_quantized() { 1 } else { self.element.block_bytes() };
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

/// Bytes of a panel of some columns.
pub(super) fn panel_bytes(element: ElementType, columns: usize) -> usize {
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

/// Copies a row's elements of `SIZE` bytes into one lane of a panel.
fn scatter<const SIZE: usize>(row: &[u8], panel: &mut [u8], lane: usize) {
    for (from, to) in row.chunks_exact(SIZE).zip(panel.chunks_exact_mut(PANEL * SIZE)) {
        to[lane * SIZE..(lane + 1) * SIZE].copy_from_slice(from);
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
