//! Activations times weights: every projection of the model, and its output head.
//!
//! [`PackedMatrix`] holds a weight matrix in the order in which the kernel reads it; [`matmul`]
//! multiplies any number of rows by it. With one row (a generated token) the time goes into
//! reading the weights once, in one sequential stream a thread or two; with many (a prompt) into
//! arithmetic, twelve rows at a time, for which weights of 16 bits are widened to f32 a panel at a
//! time, and a gate's products meet up's before either reaches memory ([`gated_matmul`]). bf16 is
//! [folded](super::folded_panel) into 12 bits. Where there is [AMX](super::amx), it multiplies weights of
//! 16 and 32 bits. Quantised weights meet activations that are [quantised](super::quantized_rows) too.

use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::activation::{Activation, GateRow, gate_row, gated};
#[cfg(target_arch = "x86_64")]
use super::amx;
pub use super::element::ElementType;
use super::float_rows::FloatRows;
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
    Destination, Neighbours, PAIR, TILE_ROWS, Tile, TileArgs, blocked_tile_bf16, blocked_tile_f16,
    blocked_tile_f32, widen_bf16, widen_f16, widened_tile,
};
use super::{Isa, PANEL, Pool};

/// `weights · x` for each row x of `input`: `[tokens, columns]` → `[tokens, rows]`.
///
/// # Panics
/// If `input` is no whole number of rows.
pub fn matmul(isa: Isa, pool: &Pool, weights: &PackedMatrix, input: &[f32]) -> Vec<f32> {
    let x = Rows::new(isa, pool, weights, input);
    let columns = weights.rows();
    let multiply = |out: &mut [MaybeUninit<f32>]| {
        let out = SharedSlice::new(out);
        let mut first_column = 0;
        for part in weights.parts() {
            let output = Output { out: &out, columns, first_column, width: part.rows };
            let job = Job { isa, pool, x: &x, part, output };
            if x.tokens <= TILE_ROWS {
                pool.reads(part.memory(), job.output.panels());
            }
            job.run();
            first_column += part.rows;
        }
    };
    // SAFETY: the parts' columns are all of a row, and each job writes those of all tokens.
    unsafe { written(x.tokens * columns, multiply) }
}

/// `activation(gate · x) · (up · x)` for each row x of `input`, where `weights` are a gate's rows on top of as
/// many of up's: `[tokens, columns]` → `[tokens, rows / 2]`. The same bits as [`matmul`] and then
/// [`gated`], but in a prompt both products stay in the cache until they have met.
///
/// # Panics
/// If `input` is no whole number of rows, or the number of weights' rows is odd.
pub fn gated_matmul(
    isa: Isa,
    pool: &Pool,
    weights: &PackedMatrix,
    activation: Activation,
    input: &[f32],
) -> Vec<f32> {
    assert!(weights.rows().is_multiple_of(2), "a gate and up");
    let width = weights.rows() / 2;
    let part = match weights.parts() {
        [part]
            if width.is_multiple_of(PANEL)
                && input.len() > TILE_ROWS * weights.columns()
                && (part.element.is_quantized() || isa.amx().is_none()) =>
        {
            part
        }
        _ => return gated(isa, pool, activation, &matmul(isa, pool, weights, input), width),
    };
    let x = Rows::new(isa, pool, weights, input);
    let multiply = |out: &mut [MaybeUninit<f32>]| {
        let output = Output { out: &SharedSlice::new(out), columns: width, first_column: 0, width };
        Job { isa, pool, x: &x, part, output }.run_gated(activation);
    };
    // SAFETY: the job writes all columns of all tokens.
    unsafe { written(x.tokens * width, multiply) }
}

/// The rows of x, as the parts of a matrix need them.
struct Rows<'a> {
    tokens: usize,
    depth: usize,
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    input: &'a [f32],
    /// For tiles of weights that are not quantised.
    floats: Option<FloatRows<'a>>,
    quantized: Option<QuantizedRows>,
}

impl<'a> Rows<'a> {
    fn new(isa: Isa, pool: &Pool, weights: &PackedMatrix, input: &'a [f32]) -> Rows<'a> {
        let depth = weights.columns();
        let tokens = input.len() / depth;
        assert_eq!(input.len(), tokens * depth, "input must be [tokens, {depth}]");
        let has = |quantized| weights.parts().iter().any(|part| part.element.is_quantized() == quantized);
        Rows {
            tokens,
            depth,
            input,
            floats: (has(false) && isa.amx().is_none()).then(|| FloatRows::new(pool, input, depth)),
            quantized: has(true).then(|| QuantizedRows::new(isa, pool, input, depth)),
        }
    }

    fn floats(&self) -> &FloatRows<'a> {
        self.floats.as_ref().expect("rows are prepared for every part")
    }

    fn quantized(&self) -> &QuantizedRows {
        self.quantized.as_ref().expect("rows are prepared for every part")
    }
}

/// Bytes of the rows that are taken through all panels before the next rows: about what the second
/// cache of a core holds.
const ROWS_AT_A_TIME: usize = 1280 << 10;

/// Tiles that meet a gate's panel before they meet up's: the first cache holds the one or the other.
const GATED_TILES: usize = 4;

/// Turns a panel into one of f32 that is [widened](super::tile::widened).
type Widen<W> = unsafe fn(Isa, &[W], &mut [f32]);

struct Job<'a> {
    isa: Isa,
    pool: &'a Pool,
    x: &'a Rows<'a>,
    part: &'a Part,
    output: Output<'a>,
}

impl Job<'_> {
    fn run(&self) {
        #[cfg(target_arch = "x86_64")]
        if let (false, Some(amx)) = (self.part.element.is_quantized(), self.isa.amx()) {
            return self.run_amx(amx);
        }
        self.each_panel(|panels, tiles| {
            self.with_panels(panels.clone(), tiles.len(), |compute| {
                for tile in tiles {
                    // SAFETY: a task owns its panel's columns of its tiles' rows.
                    unsafe { self.output.tile(panels.clone(), self.rows_of(tile), compute) };
                }
            });
        });
    }

    /// The same with a part that is a gate and up; the output has as many columns as either.
    fn run_gated(&self, activation: Activation) {
        let (gate_panels, activate) = (self.output.panels(), gate_row(activation));
        self.each_panel(|panels, tiles| {
            let up_panels = panels.start + gate_panels..panels.end + gate_panels;
            self.with_panels(panels.clone(), tiles.len(), |gate| {
                self.with_panels(up_panels, tiles.len(), |up| {
                    for first in tiles.clone().step_by(GATED_TILES) {
                        let some = first..tiles.end.min(first + GATED_TILES);
                        self.gate_some(some, panels.start, [gate, up], activate);
                    }
                });
            });
        });
    }

    /// The products of some tiles with a gate's panel and up's, at most [`GATED_TILES`].
    fn gate_some(
        &self,
        tiles: Range<usize>,
        panel: usize,
        gate_and_up: [&dyn Fn(Tile, Destination); 2],
        activate: GateRow,
    ) {
        const MOST: usize = GATED_TILES * TILE_ROWS * PANEL;
        let mut products = [MaybeUninit::<[f32; MOST]>::uninit(); 2];
        let first = tiles.start * TILE_ROWS;
        for (products, compute) in products.iter_mut().zip(gate_and_up) {
            for tile in tiles.clone().map(|tile| self.rows_of(tile)) {
                let out = products.as_mut_ptr().cast::<f32>().wrapping_add((tile.first - first) * PANEL);
                compute(tile, Destination { out, out_row: PANEL });
            }
        }
        let values = (self.x.tokens.min(tiles.end * TILE_ROWS) - first) * PANEL;
        let mut activated = [MaybeUninit::uninit(); MOST];
        let activated = &mut activated[..values];
        // SAFETY: the products of all these rows have been written, and the slices are equally long; a task owns
        // its panel's columns of its tiles' rows.
        unsafe {
            let [gate, up] =
                products.each_ref().map(|of| std::slice::from_raw_parts(of.as_ptr().cast(), values));
            activate(self.isa, gate, up, activated);
            self.output.put(panel, first, activated.assume_init_ref());
        }
    }

    /// The rows of a tile.
    fn rows_of(&self, tile: usize) -> Tile {
        let first = tile * TILE_ROWS;
        Tile { first, rows: TILE_ROWS.min(self.x.tokens - first) }
    }

    /// Lends what multiplies tiles by some neighbouring panels, of which it will meet `tiles`.
    fn with_panels(
        &self,
        panels: Range<usize>,
        tiles: usize,
        use_it: impl FnOnce(&dyn Fn(Tile, Destination)),
    ) {
        match (self.part.folded(), self.part.element) {
            (Some(folded), _) => self.with_folded(folded, panels, tiles, use_it),
            (None, ElementType::F32) => self.with_floats(panels, tiles, blocked_tile_f32, None, use_it),
            (None, ElementType::Bf16) => {
                self.with_floats(panels, tiles, blocked_tile_bf16, Some(widen_bf16), use_it);
            }
            (None, ElementType::F16) => {
                self.with_floats(panels, tiles, blocked_tile_f16, Some(widen_f16), use_it);
            }
            (None, ElementType::Q8_0) => self.with_quantized(panels, tile_q8_0, use_it),
            (None, ElementType::Q4_0) => self.with_quantized(panels, tile_q4_0, use_it),
            (None, ElementType::Q4_1) => self.with_quantized(panels, tile_q4_1, use_it),
            (None, ElementType::Q4K) => self.with_quantized(panels, tile_q4_k, use_it),
            (None, other) => unreachable!("no matrix is packed as {other}"),
        }
    }

    /// Panels of 16 or 32 bits, of which those of 16 are widened once, instead of by each of several tiles.
    fn with_floats<W: PanelValue>(
        &self,
        panels: Range<usize>,
        tiles: usize,
        kernel: unsafe fn(Isa, TileArgs<W>),
        widen: Option<Widen<W>>,
        use_it: impl FnOnce(&dyn Fn(Tile, Destination)),
    ) {
        let weights = self.panels(panels.clone());
        match widen {
            Some(widen) if tiles > 1 => self.with_wide(
                // SAFETY: `weights` is a panel of `depth` columns, and so is `wide`.
                |wide| unsafe { widen(self.isa, weights, wide) },
                |wide| use_it(&|tile, to| self.tile(wide, widened_tile, tile, to)),
            ),
            _ => {
                let weights = Neighbours::new(self.isa, weights, panels.len());
                use_it(&|tile, to| self.tile(weights, kernel, tile, to));
            }
        }
    }

    fn with_folded(
        &self,
        folded: &Folded,
        panels: Range<usize>,
        tiles: usize,
        use_it: impl FnOnce(&dyn Fn(Tile, Destination)),
    ) {
        let weights = self.panels(panels.clone());
        let notes = [folded.notes(panels.start), folded.notes(panels.end - 1)];
        let neighbours = Neighbours::new(self.isa, weights, panels.len());
        if tiles == 1 && self.x.tokens <= folded_rows(self.isa) {
            // SAFETY: as in `tile`, with folded panels.
            return use_it(&|tile, to| unsafe {
                folded_tile(self.isa, self.args(neighbours, tile, to), notes)
            });
        }
        self.with_wide(
            |wide| widen_folded(self.isa, weights, notes[0], wide),
            |wide| {
                use_it(&|tile, to| {
                    self.tile(wide, widened_tile, tile, to);
                    // SAFETY: as in `tile`.
                    unsafe { notes[0].add(self.args(neighbours, tile, to), 0) };
                });
            },
        );
    }

    fn with_quantized(
        &self,
        panels: Range<usize>,
        kernel: unsafe fn(Isa, QuantizedTile),
        use_it: impl FnOnce(&dyn Fn(Tile, Destination)),
    ) {
        let (rows, depth) = (self.x.quantized(), self.x.depth);
        let panels = Neighbours::new(self.isa, self.panels(panels.clone()), panels.len());
        use_it(&|tile, Destination { out, out_row }| {
            let args =
                QuantizedTile { rows: tile.rows, depth, x: rows.tile(tile.first), panels, out, out_row };
            // SAFETY: x holds these rows of `depth` columns, the panels have as many, out has room.
            unsafe { kernel(self.isa, args) };
        });
    }

    /// Lends a panel of f32 that `fill` writes.
    fn with_wide(&self, fill: impl FnOnce(&mut [f32]), use_it: impl FnOnce(Neighbours<f32>)) {
        let mut wide = WIDE.with_borrow_mut(Vec::pop).unwrap_or_default();
        wide.resize(self.x.depth * PANEL, 0.0);
        fill(&mut wide);
        use_it(Neighbours::new(self.isa, &wide, 1));
        WIDE.with_borrow_mut(|panels| panels.push(wide));
    }

    fn args<W>(&self, panels: Neighbours<W>, tile: Tile, to: Destination) -> TileArgs<W> {
        self.x.floats().args(self.x.depth, panels, tile, to)
    }

    fn tile<W>(
        &self,
        panels: Neighbours<W>,
        kernel: unsafe fn(Isa, TileArgs<W>),
        tile: Tile,
        to: Destination,
    ) {
        // SAFETY: x has the tile's rows of `depth`, and the panel as many columns; out has room.
        unsafe { kernel(self.isa, self.args(panels, tile, to)) };
    }

    /// Some of the part's panels, one after another.
    fn panels<W: PanelValue>(&self, panels: Range<usize>) -> &[W] {
        let weights = self.part.panels::<W>();
        let panel_len = weights.len() / self.part.rows.div_ceil(PANEL);
        &weights[panels.start * panel_len..panels.end * panel_len]
    }

    /// Shares the output's panels, and the tiles of rows that each meets, out among the threads. `work` takes
    /// the numbers of some [panels](Self::at_a_time), and of tiles.
    fn each_panel(&self, work: impl Fn(Range<usize>, Range<usize>) + Sync) {
        let panels = self.output.panels();
        let tiles = self.x.tokens.div_ceil(TILE_ROWS);
        let at_a_time = self.at_a_time();
        if at_a_time > 1 {
            return self.pool.for_each_few(panels, at_a_time, |panels| work(panels, 0..tiles));
        }
        let value_bytes = if self.part.element.is_quantized() { 1 } else { size_of::<f32>() };
        let tile_bytes = TILE_ROWS * self.x.depth * value_bytes;
        // Neighbouring tasks share the rows, which the cache then still holds. There are enough groups
        // of tiles for every thread to have work until the end.
        let enough = (4 * self.pool.threads()).div_ceil(panels).min(tiles);
        let groups = tiles.div_ceil((ROWS_AT_A_TIME / tile_bytes).max(1)).max(enough);
        let group_tiles = tiles.div_ceil(groups);
        self.pool.for_each(panels * groups, 1, |task| {
            let (group, panel) = (task / panels, task % panels);
            let first = (group * group_tiles).min(tiles);
            work(panel..panel + 1, first..tiles.min(first + group_tiles));
        });
    }

    /// Panels that a thread reads at the same time: with a single row several, where memory gives more
    /// to several streams than to one.
    fn at_a_time(&self) -> usize {
        if self.x.tokens == 1 && self.isa.reads_pairs() { PAIR } else { 1 }
    }

    #[cfg(target_arch = "x86_64")]
    fn run_amx(&self, amx: Amx) {
        match (self.part.folded(), self.part.element) {
            (Some(folded), _) => {
                self.on_amx(amx, |panel, weights: &[u8]| amx::InTwelveBits::new(weights, folded.notes(panel)))
            }
            (None, ElementType::F32) => self.on_amx(amx, |_, panel: &[f32]| amx::Unfolded { panel }),
            (None, ElementType::Bf16) => self.on_amx(amx, |_, panel: &[half::bf16]| amx::Unfolded { panel }),
            (None, ElementType::F16) => self.on_amx(amx, |_, panel: &[half::f16]| amx::Unfolded { panel }),
            (None, other) => unreachable!("no matrix is packed as {other}"),
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn on_amx<'a, W: PanelValue, C: amx::Columns>(
        &'a self,
        amx: Amx,
        columns: impl Fn(usize, &'a [W]) -> C + Sync,
    ) {
        let Rows { tokens, depth, input, .. } = *self.x;
        let x = amx::PiecedRows::new(amx, self.pool, input, depth, C::PIECES);
        let product = amx::Product { pool: self.pool, tokens, x: &x, output: &self.output };
        product.run(|panel| columns(panel, self.panels(panel..panel + 1)));
    }
}

thread_local! {
    /// Panels that a thread has widened, to widen others in their memory.
    static WIDE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(vec![]) };
}

#[cfg(test)]
mod tests;
