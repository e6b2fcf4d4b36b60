//! Activations times weights: every projection of the model, and its output head.
//!
//! [`PackedMatrix`] holds a weight matrix in the order in which the kernel reads it; [`matmul`]
//! multiplies any number of rows by it. With one row (a generated token) the time goes into
//! reading the weights once, in one sequential stream a thread; with many (a prompt) into
//! arithmetic, twelve rows at a time.

use std::ops::Range;

use half::{bf16, f16};
use memmap2::MmapMut;

pub use super::element::ElementType;
pub use super::raw_matrix::RawMatrix;
use super::threads::SharedSlice;
use super::tile::{
    Element, TILE_ROWS, TileArgs, packed_tile_bf16, packed_tile_f16, packed_tile_f32, widen_bf16, widen_f16,
};
use super::{Isa, PANEL, Pool, memory};

/// A weight matrix `[rows, columns]` (outputs × inputs) in panels of 32 rows: `[rows/32][columns][32]`.
///
/// The last panel is filled up with zeros.
pub struct PackedMatrix {
    rows: usize,
    columns: usize,
    element: ElementType,
    data: MmapMut,
}

impl PackedMatrix {
    /// Packs matrices with equal columns on top of one another, converted to `element`.
    ///
    /// # Errors
    /// If the system has no memory for it.
    ///
    /// # Panics
    /// If columns or bytes disagree: the checkpoint's shapes were checked, so that is our bug.
    pub fn pack(
        pool: &Pool,
        sources: &[RawMatrix<'_>],
        element: ElementType,
    ) -> std::io::Result<PackedMatrix> {
        assert!(!element.is_quantized(), "no kernel holds {element} yet");
        let columns = sources[0].columns;
        let rows = sources.iter().map(|source| source.rows).sum::<usize>();
        for source in sources {
            assert_eq!(source.columns, columns, "stacked matrices need equal columns");
            assert!(source.is_whole(), "bytes must be [rows, columns]");
        }
        let panels = rows.div_ceil(PANEL);
        let mut data = memory::zeroed(panels * PANEL * columns * element.block_bytes())?;
        let panel_bytes = PANEL * columns * element.block_bytes();
        let shared = SharedSlice::new(&mut data);
        pool.for_each(panels, 1, |panel| {
            // SAFETY: each panel is packed by one thread.
            let out = unsafe { shared.part(panel * panel_bytes, panel_bytes) };
            for lane in 0..PANEL {
                let Some((source, row)) = locate(sources, panel * PANEL + lane) else { break };
                let size = element.block_bytes();
                if source.element == element {
                    let bytes = &source.bytes[row * columns * size..(row + 1) * columns * size];
                    match element {
                        ElementType::F32 => scatter::<4>(bytes, out, lane),
                        ElementType::Bf16 | ElementType::F16 => scatter::<2>(bytes, out, lane),
                        _ => unreachable!("checked above"),
                    }
                    continue;
                }
                for (column, value) in source.row(row).into_iter().enumerate() {
                    let at = (column * PANEL + lane) * size;
                    match element {
                        ElementType::F32 => out[at..at + 4].copy_from_slice(&value.to_ne_bytes()),
                        ElementType::Bf16 => {
                            out[at..at + 2].copy_from_slice(&bf16::from_f32(value).to_ne_bytes());
                        }
                        ElementType::F16 => {
                            out[at..at + 2].copy_from_slice(&f16::from_f32(value).to_ne_bytes())
                        }
                        _ => unreachable!("checked above"),
                    }
                }
            }
        });
        Ok(PackedMatrix { rows, columns, element, data })
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn columns(&self) -> usize {
        self.columns
    }

    pub fn element(&self) -> ElementType {
        self.element
    }

    /// Bytes held, and read once for each token generated.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Copies one row, widened to f32: a token's embedding.
    ///
    /// # Panics
    /// If `row` is out of range or `out` is not `columns` long.
    pub fn copy_row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.columns);
        let first = row / PANEL * self.columns * PANEL + row % PANEL;
        let at = |column: usize| first + column * PANEL;
        match self.element {
            ElementType::F32 => {
                let data = self.elements::<f32>();
                out.iter_mut().enumerate().for_each(|(column, out)| *out = data[at(column)]);
            }
            ElementType::Bf16 => {
                let data = self.elements::<bf16>();
                out.iter_mut().enumerate().for_each(|(column, out)| *out = data[at(column)].to_f32());
            }
            ElementType::F16 => {
                let data = self.elements::<f16>();
                out.iter_mut().enumerate().for_each(|(column, out)| *out = data[at(column)].to_f32());
            }
            _ => unreachable!("checked when packed"),
        }
    }

    fn elements<W: Element>(&self) -> &[W] {
        assert_eq!(size_of::<W>(), self.element.block_bytes());
        // SAFETY: the mapping starts at a page, is initialised, and every bit pattern is a valid
        // f32, bf16 or f16; it lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr().cast(), self.data.len() / size_of::<W>()) }
    }
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

/// `out[i] = weights · input[i]` for each of the rows of `input`: `[tokens, columns]` → `[tokens, rows]`.
///
/// # Panics
/// If the lengths disagree.
pub fn matmul(isa: Isa, pool: &Pool, weights: &PackedMatrix, input: &[f32], out: &mut [f32]) {
    let depth = weights.columns;
    let tokens = input.len() / depth;
    assert_eq!(input.len(), tokens * depth, "input must be [tokens, {depth}]");
    assert_eq!(out.len(), tokens * weights.rows, "out must be [tokens, {}]", weights.rows);
    if tokens == 0 {
        return;
    }
    let mut storage = Vec::new();
    let packed = pack_rows(pool, input, depth, &mut storage);
    let out = SharedSlice::new(out);
    let job = Job { isa, pool, depth, tokens, columns: weights.rows, packed, out };
    match weights.element {
        ElementType::F32 => job.run::<f32>(weights.elements(), packed_tile_f32, None),
        ElementType::Bf16 => job.run::<bf16>(weights.elements(), packed_tile_bf16, Some(widen_bf16)),
        ElementType::F16 => job.run::<f16>(weights.elements(), packed_tile_f16, Some(widen_f16)),
        _ => unreachable!("checked when packed"),
    }
}

/// Rows in tiles of up to 12, each `[depth][rows of the tile]`, so that a step of the kernel reads
/// its inputs from neighbouring places. One row is packed as it is.
fn pack_rows<'a>(pool: &Pool, input: &'a [f32], depth: usize, storage: &'a mut Vec<f32>) -> &'a [f32] {
    let tokens = input.len() / depth;
    if tokens == 1 {
        return input;
    }
    storage.resize(input.len(), 0.0);
    let shared = SharedSlice::new(storage);
    pool.for_each(tokens.div_ceil(TILE_ROWS), 1, |tile| {
        let first = tile * TILE_ROWS;
        let rows = TILE_ROWS.min(tokens - first);
        // SAFETY: each tile is packed by one thread.
        let packed = unsafe { shared.part(first * depth, rows * depth) };
        for (row, values) in input[first * depth..(first + rows) * depth].chunks_exact(depth).enumerate() {
            for (k, value) in values.iter().enumerate() {
                packed[k * rows + row] = *value;
            }
        }
    });
    storage
}

/// Tiles that one task takes through a panel: enough to pay for the panel's way into the cache.
const TILES_PER_TASK: usize = 16;

/// Turns elements of a panel into f32.
type Widen<W> = unsafe fn(Isa, &[W], &mut [f32]);

struct Job<'a> {
    isa: Isa,
    pool: &'a Pool,
    depth: usize,
    tokens: usize,
    columns: usize,
    packed: &'a [f32],
    out: SharedSlice<f32>,
}

impl Job<'_> {
    /// `widen` turns a panel into f32, where it is not already.
    fn run<W: Element + Sync>(
        &self,
        weights: &[W],
        tile: unsafe fn(Isa, TileArgs<W>),
        widen: Option<Widen<W>>,
    ) {
        let panels = self.columns.div_ceil(PANEL);
        let tiles = self.tokens.div_ceil(TILE_ROWS);
        let panel_len = self.depth * PANEL;
        let groups = tiles.div_ceil(TILES_PER_TASK);
        let chunk = if tiles == 1 { panels.div_ceil(4 * self.pool.threads()) } else { 1 };
        // Neighbouring tasks share a panel, which the cache then still holds.
        self.pool.for_each(panels * groups, chunk, |task| {
            let (panel, group) = (task / groups, task % groups);
            let weights = &weights[panel * panel_len..(panel + 1) * panel_len];
            let tiles = group * TILES_PER_TASK..tiles.min((group + 1) * TILES_PER_TASK);
            match widen {
                // Several tiles: widen the panel once, instead of once a tile.
                Some(widen) if tiles.len() > 1 => {
                    let mut wide = vec![0f32; panel_len];
                    // SAFETY: both slices are a whole number of panels' rows of 32.
                    unsafe { widen(self.isa, weights, &mut wide) };
                    self.panel(panel, &wide, tiles, packed_tile_f32);
                }
                _ => self.panel(panel, weights, tiles, tile),
            }
        });
    }

    /// All columns of one panel, for a range of tiles.
    fn panel<W>(&self, panel: usize, weights: &[W], tiles: Range<usize>, tile: unsafe fn(Isa, TileArgs<W>)) {
        let first_column = panel * PANEL;
        let width = PANEL.min(self.columns - first_column);
        for tile_index in tiles {
            let first = tile_index * TILE_ROWS;
            let rows = TILE_ROWS.min(self.tokens - first);
            let x = &self.packed[first * self.depth..(first + rows) * self.depth];
            let mut result = [0f32; TILE_ROWS * PANEL];
            let args = TileArgs {
                rows,
                depth: self.depth,
                x: x.as_ptr(),
                panel: weights.as_ptr(),
                out: result.as_mut_ptr(),
                out_row: PANEL,
            };
            assert!(weights.len() >= self.depth * PANEL);
            // SAFETY: x is [depth][rows], the panel [depth][32] (just checked), the result [12][32].
            unsafe { tile(self.isa, args) };
            for (row, result) in result.chunks_exact(PANEL).take(rows).enumerate() {
                // SAFETY: a task owns its panel's columns of its tiles' rows.
                let out = unsafe { self.out.part((first + row) * self.columns + first_column, width) };
                out.copy_from_slice(&result[..width]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values in −1..1 that differ from place to place; no random crate needed for that.
    fn values(len: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    fn bytes(values: &[f32], element: ElementType) -> Vec<u8> {
        match element {
            ElementType::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            ElementType::Bf16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(),
            ElementType::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
            _ => unreachable!(),
        }
    }

    const ELEMENTS: [ElementType; 3] = [ElementType::F32, ElementType::Bf16, ElementType::F16];

    /// The definition, in f64, over the weights as they are held.
    fn defined(raw: &RawMatrix<'_>, element: ElementType, input: &[f32]) -> Vec<(f64, f64)> {
        let held = |v: f32| match element {
            ElementType::F32 => v,
            ElementType::Bf16 => bf16::from_f32(v).to_f32(),
            ElementType::F16 => f16::from_f32(v).to_f32(),
            _ => unreachable!(),
        };
        input
            .chunks_exact(raw.columns)
            .flat_map(|x| {
                (0..raw.rows).map(move |row| {
                    raw.row(row).iter().zip(x).fold((0.0, 0.0), |(sum, size), (w, x)| {
                        let product = f64::from(held(*w)) * f64::from(*x);
                        (sum + product, size + product.abs())
                    })
                })
            })
            .collect()
    }

    #[test]
    fn products_agree_with_the_definition_on_every_tier() {
        let pool = Pool::new(2);
        for isa in Isa::available() {
            for element in ELEMENTS {
                for (tokens, rows, columns) in [
                    (1, 1, 1),
                    (1, 33, 64),
                    (2, 95, 7),
                    (3, 64, 40),
                    (5, 32, 33),
                    (11, 31, 64),
                    (12, 40, 9),
                    (13, 100, 24),
                    (40, 70, 16),
                ] {
                    let data = bytes(&values(rows * columns, 1), element);
                    let raw = RawMatrix { rows, columns, element, bytes: (&data).into() };
                    let weights = PackedMatrix::pack(&pool, std::slice::from_ref(&raw), element).unwrap();
                    let input = values(tokens * columns, 2);
                    let mut out = vec![f32::NAN; tokens * rows];
                    matmul(isa, &pool, &weights, &input, &mut out);
                    let bound = 2.0 * columns as f64 * f64::from(f32::EPSILON);
                    for (at, (ours, (sum, size))) in
                        out.iter().zip(defined(&raw, element, &input)).enumerate()
                    {
                        let error = (f64::from(*ours) - sum).abs();
                        assert!(
                            error <= bound * size,
                            "{isa} {element} {tokens}x{rows}x{columns} at {at}: {ours} for {sum}, error {error:e}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_alone_and_among_others() {
        for isa in Isa::available() {
            for element in ELEMENTS {
                let (tokens, rows, columns) = (29, 70, 48);
                let data = bytes(&values(rows * columns, 3), element);
                let raw = RawMatrix { rows, columns, element, bytes: (&data).into() };
                let input = values(tokens * columns, 4);
                let mut together = vec![0f32; tokens * rows];
                let pool = Pool::new(2);
                let weights = PackedMatrix::pack(&pool, &[raw], element).unwrap();
                matmul(isa, &pool, &weights, &input, &mut together);
                let one = Pool::new(1);
                for (x, expected) in input.chunks_exact(columns).zip(together.chunks_exact(rows)) {
                    let mut alone = vec![0f32; rows];
                    matmul(isa, &one, &weights, x, &mut alone);
                    assert_eq!(alone, expected, "{isa} {element}");
                }
            }
        }
    }

    #[test]
    fn stacked_matrices_keep_their_rows_and_convert() {
        let pool = Pool::new(1);
        let (upper, lower) =
            (bytes(&values(3 * 5, 5), ElementType::F32), bytes(&values(40 * 5, 6), ElementType::F16));
        let sources = [
            RawMatrix { rows: 3, columns: 5, element: ElementType::F32, bytes: (&upper).into() },
            RawMatrix { rows: 40, columns: 5, element: ElementType::F16, bytes: (&lower).into() },
        ];
        let packed = PackedMatrix::pack(&pool, &sources, ElementType::F32).unwrap();
        let mut row = [0f32; 5];
        packed.copy_row(2, &mut row);
        assert_eq!(row.to_vec(), sources[0].row(2));
        packed.copy_row(3 + 39, &mut row);
        assert_eq!(row.to_vec(), sources[1].row(39));
    }
}
