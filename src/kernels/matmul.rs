//! Activations times weights: every projection of the model, and its output head.
//!
//! [`PackedMatrix`] holds a weight matrix in the order in which the kernel reads it; [`matmul`]
//! multiplies any number of rows by it. With one row (a generated token) the time goes into
//! reading the weights once, in one sequential stream a thread or two; with many (a prompt) into
//! arithmetic, twelve rows at a time, for which weights of 16 bits are widened to f32 a panel at a
//! time. bf16 is [folded](super::folded_panel) into 12 bits. Where there is [AMX](super::amx), it
//! multiplies weights of 16 and 32 bits. Quantised weights meet activations that are
//! [quantised](super::quantized_rows) too.

use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use super::amx;
pub use super::element::ElementType;
use super::folded_panel::Folded;
use super::folded_tile::{folded_rows, folded_tile, widen_folded};
use super::memory::written;
use super::output::Output;
pub use super::packed_matrix::PackedMatrix;
use super::packed_matrix::{PanelValue, Part};
use super::quantized_rows::QuantizedRows;
use super::quantized_tile::{QuantizedTile, tile_q4_0, tile_q4_1, tile_q4_k, tile_q8_0};
pub use super::raw_matrix::RawMatrix;
#[cfg(target_arch = "x86_64")]
use super::simd::Amx;
use super::threads::SharedSlice;
use super::tile::{
    BLOCK, Neighbours, PAIR, TILE_ROWS, Tile, TileArgs, blocked_tile_bf16, blocked_tile_f16,
    blocked_tile_f32, widen_bf16, widen_f16, widened_tile,
};
use super::{Isa, PANEL, Pool};

/// `weights · x` for each row x of `input`: `[tokens, columns]` → `[tokens, rows]`.
///
/// # Panics
/// If `input` is no whole number of rows.
pub fn matmul(isa: Isa, pool: &Pool, weights: &PackedMatrix, input: &[f32]) -> Vec<f32> {
    let (depth, columns) = (weights.columns(), weights.rows());
    let tokens = input.len() / depth;
    assert_eq!(input.len(), tokens * depth, "input must be [tokens, {depth}]");
    let quantized = |part: &&Part| part.element.is_quantized();
    let any = || Rows::new(pool, input, depth);
    let any = (!weights.parts().iter().all(|part| quantized(&part)) && isa.amx().is_none()).then(any);
    let rows = weights.parts().iter().find(quantized).map(|_| QuantizedRows::new(isa, pool, input, depth));
    let multiply = |out: &mut [MaybeUninit<f32>]| {
        let out = SharedSlice::new(out);
        let mut first_column = 0;
        for part in weights.parts() {
            let output = Output { out: &out, columns, first_column, width: part.rows };
            let job = Job { isa, pool, depth, tokens, part, output };
            if tokens <= TILE_ROWS {
                pool.reads(part.memory(), job.output.panels());
            }
            match (&rows, &any, isa.amx()) {
                (Some(rows), ..) if part.element.is_quantized() => job.run_quantized(rows),
                (_, Some(any), _) => job.run_any(any),
                #[cfg(target_arch = "x86_64")]
                (_, _, Some(amx)) => job.run_amx(amx, input),
                _ => unreachable!("rows are prepared for every part"),
            }
            first_column += part.rows;
        }
    };
    // SAFETY: the parts' columns are all of a row, and each job writes those of all tokens.
    unsafe { written(tokens * columns, multiply) }
}

/// The rows of x, `[tokens, depth]`, for tiles to read.
enum Rows<'a> {
    AsTheyAre(&'a [f32]),
    /// In tiles of up to 12 rows, each in blocks `[depth / 16][rows][16]`.
    Packed(Vec<f32>),
}

/// Rows a multiple of so many bytes apart have the same few places in a CPU's first cache, which cannot
/// hold a line of each row of a tile then.
const SAME_PLACE: usize = 4096;

impl<'a> Rows<'a> {
    fn new(pool: &Pool, input: &'a [f32], depth: usize) -> Rows<'a> {
        let several = input.len() > depth;
        if several && (depth * size_of::<f32>()).is_multiple_of(SAME_PLACE) {
            Rows::Packed(pack_rows(pool, input, depth))
        } else {
            Rows::AsTheyAre(input)
        }
    }

    fn args<W>(&self, depth: usize, panels: Neighbours<W>, tile: Tile) -> TileArgs<W> {
        let (values, x_row, x_block) = match self {
            Rows::AsTheyAre(values) => (*values, depth, BLOCK),
            Rows::Packed(values) => (&**values, BLOCK, tile.rows * BLOCK),
        };
        TileArgs {
            rows: tile.rows,
            depth,
            x: values[tile.first * depth..(tile.first + tile.rows) * depth].as_ptr(),
            x_row,
            x_block,
            panels,
            out: tile.out,
            out_row: tile.out_row,
        }
    }
}

/// [Packs](Rows::Packed) rows whose blocks are all whole.
fn pack_rows(pool: &Pool, input: &[f32], depth: usize) -> Vec<f32> {
    let tokens = input.len() / depth;
    let pack = |packed: &mut [MaybeUninit<f32>]| {
        let shared = SharedSlice::new(packed);
        pool.for_each(tokens.div_ceil(TILE_ROWS), 1, |tile| {
            let first = tile * TILE_ROWS;
            let rows = TILE_ROWS.min(tokens - first);
            // SAFETY: each tile is packed by one thread.
            let packed = unsafe { shared.part(first * depth, rows * depth) };
            for (row, values) in input[first * depth..][..rows * depth].chunks_exact(depth).enumerate() {
                let places = packed[row * BLOCK..].chunks_mut(rows * BLOCK);
                for (block, place) in values.as_chunks::<BLOCK>().0.iter().zip(places) {
                    place[..BLOCK].write_copy_of_slice(block);
                }
            }
        });
    };
    // SAFETY: every block of every row is written.
    unsafe { written(input.len(), pack) }
}

/// Bytes of the rows that are taken through all panels before the next rows: about what the second
/// cache of a core holds.
const ROWS_AT_A_TIME: usize = 1280 << 10;

/// Turns a panel into one of f32 that is [widened](super::tile::widened).
type Widen<W> = unsafe fn(Isa, &[W], &mut [f32]);

/// What computes with panels of `W`.
struct Kernel<W> {
    tile: unsafe fn(Isa, TileArgs<W>),
    /// `None` where a panel is f32 already.
    widen: Option<Widen<W>>,
}

struct Job<'a> {
    isa: Isa,
    pool: &'a Pool,
    depth: usize,
    tokens: usize,
    part: &'a Part,
    output: Output<'a>,
}

impl Job<'_> {
    /// Parts that are not quantised.
    fn run_any(&self, x: &Rows<'_>) {
        match (self.part.folded(), self.part.element) {
            (Some(folded), _) => self.run_folded(x, folded),
            (None, ElementType::F32) => {
                self.run::<f32>(x, Kernel { tile: blocked_tile_f32, widen: None });
            }
            (None, ElementType::Bf16) => {
                self.run(x, Kernel { tile: blocked_tile_bf16, widen: Some(widen_bf16) });
            }
            (None, ElementType::F16) => {
                self.run(x, Kernel { tile: blocked_tile_f16, widen: Some(widen_f16) });
            }
            (None, other) => unreachable!("no matrix is packed as {other}"),
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn run_amx(&self, amx: Amx, input: &[f32]) {
        match (self.part.folded(), self.part.element) {
            (Some(folded), _) => self.on_amx(amx, input, |panel, weights: &[u8]| {
                amx::InTwelveBits::new(weights, folded.notes(panel))
            }),
            (None, ElementType::F32) => self.on_amx(amx, input, |_, panel: &[f32]| amx::Unfolded { panel }),
            (None, ElementType::Bf16) => {
                self.on_amx(amx, input, |_, panel: &[half::bf16]| amx::Unfolded { panel })
            }
            (None, ElementType::F16) => {
                self.on_amx(amx, input, |_, panel: &[half::f16]| amx::Unfolded { panel })
            }
            (None, other) => unreachable!("no matrix is packed as {other}"),
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn on_amx<'a, W: PanelValue, C: amx::Columns>(
        &'a self,
        amx: Amx,
        input: &[f32],
        columns: impl Fn(usize, &'a [W]) -> C + Sync,
    ) {
        let x = amx::PiecedRows::new(amx, self.pool, input, self.depth, C::PIECES);
        let product = amx::Product { pool: self.pool, tokens: self.tokens, x: &x, output: &self.output };
        let weights = self.part.panels::<W>();
        let panel_len = weights.len() / self.output.panels();
        product.run(|panel| columns(panel, &weights[panel * panel_len..(panel + 1) * panel_len]));
    }

    fn run<W: PanelValue>(&self, x: &Rows<'_>, kernel: Kernel<W>) {
        self.each_panel(|panels, weights, tiles| match kernel.widen {
            // Several tiles: widen the panel once, instead of once each.
            Some(widen) if tiles.len() > 1 => WIDE.with_borrow_mut(|wide| {
                wide.resize(self.depth * PANEL, 0.0);
                // SAFETY: `weights` is a panel of `depth` columns, and so is `wide`.
                unsafe { widen(self.isa, weights, wide) };
                let wide = Neighbours::new(self.isa, wide, 1);
                self.panels(panels, tiles, |tile| self.tile(x, wide, widened_tile, tile));
            }),
            _ => {
                let weights = Neighbours::new(self.isa, weights, panels.len());
                self.panels(panels, tiles, |tile| self.tile(x, weights, kernel.tile, tile));
            }
        });
    }

    fn run_folded(&self, x: &Rows<'_>, folded: &Folded) {
        self.each_panel(|panels, weights: &[u8], tiles| {
            let notes = [folded.notes(panels.start), folded.notes(panels.end - 1)];
            let neighbours = Neighbours::new(self.isa, weights, panels.len());
            if tiles.len() == 1 && self.tokens <= folded_rows(self.isa) {
                return self.panels(panels, tiles, |tile| {
                    // SAFETY: as in `tile`, with folded panels.
                    unsafe { folded_tile(self.isa, x.args(self.depth, neighbours, tile), notes) };
                });
            }
            WIDE.with_borrow_mut(|wide| {
                wide.resize(self.depth * PANEL, 0.0);
                widen_folded(self.isa, weights, notes[0], wide);
                let wide = Neighbours::new(self.isa, wide, 1);
                self.panels(panels, tiles, |tile| {
                    self.tile(x, wide, widened_tile, tile);
                    // SAFETY: as in `tile`.
                    unsafe { notes[0].add(x.args(self.depth, neighbours, tile), 0) };
                });
            });
        });
    }

    fn run_quantized(&self, x: &QuantizedRows) {
        let kernel = match self.part.element {
            ElementType::Q8_0 => tile_q8_0,
            ElementType::Q4_0 => tile_q4_0,
            ElementType::Q4_1 => tile_q4_1,
            ElementType::Q4K => tile_q4_k,
            other => unreachable!("no matrix is packed as {other}"),
        };
        self.each_panel(|panels, weights: &[u8], tiles| {
            let weights = Neighbours::new(self.isa, weights, panels.len());
            self.panels(panels, tiles, |tile: Tile| {
                let args = QuantizedTile {
                    rows: tile.rows,
                    depth: self.depth,
                    x: x.tile(tile.first),
                    panels: weights,
                    out: tile.out,
                    out_row: tile.out_row,
                };
                // SAFETY: x holds these rows of `depth` columns, the panels have as many, out has room.
                unsafe { kernel(self.isa, args) };
            });
        });
    }

    /// Shares panels, and the tiles of rows that each meets, out among the threads. `work` takes the
    /// numbers of some [panels](Self::at_a_time), these, and tiles.
    fn each_panel<W: PanelValue>(&self, work: impl Fn(Range<usize>, &[W], Range<usize>) + Sync) {
        let panels = self.output.panels();
        let tiles = self.tokens.div_ceil(TILE_ROWS);
        let weights = self.part.panels::<W>();
        let panel_len = weights.len() / panels;
        let some = |panels: Range<usize>| &weights[panels.start * panel_len..panels.end * panel_len];
        let at_a_time = self.at_a_time();
        if at_a_time > 1 {
            return self.pool.for_each_few(panels, at_a_time, |panels| {
                work(panels.clone(), some(panels), 0..tiles);
            });
        }
        let tile_bytes = TILE_ROWS * self.depth * if self.part.element.is_quantized() { 1 } else { 4 };
        // Neighbouring tasks share the rows, which the cache then still holds. There are enough groups
        // of tiles for every thread to have work until the end.
        let enough = (4 * self.pool.threads()).div_ceil(panels).min(tiles);
        let groups = tiles.div_ceil((ROWS_AT_A_TIME / tile_bytes).max(1)).max(enough);
        let group_tiles = tiles.div_ceil(groups);
        self.pool.for_each(panels * groups, 1, |task| {
            let (group, panel) = (task / panels, task % panels);
            let first = (group * group_tiles).min(tiles);
            work(panel..panel + 1, some(panel..panel + 1), first..tiles.min(first + group_tiles));
        });
    }

    /// Panels that a thread reads at the same time: with a single row several, where memory gives more
    /// to several streams than to one.
    fn at_a_time(&self) -> usize {
        if self.tokens == 1 && self.isa.reads_pairs() { PAIR } else { 1 }
    }

    fn tile<W>(&self, x: &Rows<'_>, panels: Neighbours<W>, kernel: unsafe fn(Isa, TileArgs<W>), tile: Tile) {
        // SAFETY: x has the tile's rows of `depth`, and the panel as many columns; out has room.
        unsafe { kernel(self.isa, x.args(self.depth, panels, tile)) };
    }

    /// All columns of some neighbouring panels, for a range of tiles.
    fn panels(&self, panels: Range<usize>, tiles: Range<usize>, compute: impl Fn(Tile)) {
        for tile in tiles {
            let first = tile * TILE_ROWS;
            let rows = TILE_ROWS.min(self.tokens - first);
            // SAFETY: a task owns its panel's columns of its tiles' rows.
            unsafe { self.output.tile(panels.clone(), first, rows, &compute) };
        }
    }
}

thread_local! {
    /// The panel that a thread has widened.
    static WIDE: RefCell<Vec<f32>> = const { RefCell::new(vec![]) };
}

#[cfg(test)]
mod tests;
