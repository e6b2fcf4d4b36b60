//! The rows of x, as tiles of weights that are not quantised read them.

use std::mem::MaybeUninit;

use super::Pool;
use super::memory::written;
use super::threads::SharedSlice;
use super::tile::{BLOCK, Destination, Neighbours, TILE_ROWS, Tile, TileArgs};

/// The rows of x, `[tokens, depth]`.
pub(super) enum FloatRows<'a> {
    AsTheyAre(&'a [f32]),
    /// In tiles of up to 12 rows, each in blocks `[depth / 16][rows][16]`.
    Packed(Vec<f32>),
}

/// Rows a multiple of so many bytes apart have the same few places in a CPU's first cache, which cannot
/// hold a line of each row of a tile then.
const SAME_PLACE: usize = 4096;

impl<'a> FloatRows<'a> {
    pub fn new(pool: &Pool, input: &'a [f32], depth: usize) -> FloatRows<'a> {
        let several = input.len() > depth;
        if several && (depth * size_of::<f32>()).is_multiple_of(SAME_PLACE) {
            FloatRows::Packed(pack_rows(pool, input, depth))
        } else {
            FloatRows::AsTheyAre(input)
        }
    }

    /// What a tile of them times some panels reads and writes.
    pub fn args<W>(&self, depth: usize, panels: Neighbours<W>, tile: Tile, to: Destination) -> TileArgs<W> {
        let (values, x_row, x_block) = match self {
            FloatRows::AsTheyAre(values) => (*values, depth, BLOCK),
            FloatRows::Packed(values) => (&**values, BLOCK, tile.rows * BLOCK),
        };
        TileArgs {
            rows: tile.rows,
            depth,
            x: values[tile.first * depth..(tile.first + tile.rows) * depth].as_ptr(),
            x_row,
            x_block,
            panels,
            out: to.out,
            out_row: to.out_row,
        }
    }
}

/// [Packs](FloatRows::Packed) rows whose blocks are all whole.
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
