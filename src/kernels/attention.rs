//! Scaled dot-product attention over the key/value cache: softmax(QKᵀ/√dₖ)V.
//!
//! The cache keeps keys in panels of 32 positions and values in panels of 32 columns, so scores
//! need no horizontal sums and nothing is packed again; [`product`] reads both as they are held.
//! Query heads that share a key/value head lie in the same tiles and read its keys once.
//!
//! Keys are taken in chunks of 256 positions. Each [`chunk`] gives, for each row, its largest score
//! *m*, its sum *l* of exp(score − m) and its weighted sum of values; the chunks are then combined
//! in order (Milakov and Gimelshein 2018). Chunk borders are absolute positions, so the result
//! does not depend on threads, on the number of rows, or on whether maps are captured; capturing
//! only keeps the exponentials of a block, which the final *m* and *l* turn into rows of the map. Each
//! row is handed over ([`TakeRows`]) while it is still in the cache of the CPU that made it.
//!
//! Error, for scores s with errors of at most δ = (dₖ + 3)·ε·Σ|q·k|/√dₖ: of a weight, relative to
//! it, 2δ + |s − m|·ε + 2⁻²¹ + n·ε/L; of an output that, and 256·ε for the sums, times Σ w·|v| (n keys,
//! L lanes of a vector).

mod chunk;
mod product;

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ops::Range;

use chunk::{ChunkArgs, ChunkOut, add_scaled, chunk, scale, scaled};

use super::cache::{Cache, CacheShape};
use super::memory::written;
use super::threads::SharedSlice;
use super::{Isa, PANEL, Pool};

/// Keys whose softmax is taken together; a multiple of [`PANEL`].
const CHUNK: usize = 256;

/// The most rows that one kernel takes at a time.
const TILE_ROWS: usize = 12;

/// The most tiles of a block, which takes a chunk of keys from memory once for all of them.
const BLOCK_TILES: usize = 4;

/// Queries of one step, and what they may see.
#[derive(Clone, Copy)]
pub struct Queries<'a> {
    /// `[tokens][row_len]`; each row starts with the queries `[heads][head_dim]`, already turned by
    /// their positions.
    pub rows: &'a [f32],
    pub row_len: usize,
    /// Query heads: a multiple of the cache's key/value heads.
    pub heads: usize,
    /// Position of the first row.
    pub first: usize,
    /// Positions in the cache that count.
    pub keys: usize,
    /// Whether a query sees only keys at or before its position.
    pub causal: bool,
    /// Of a causal query: how many keys it sees, its own included; `None`: all.
    pub window: Option<usize>,
    /// 1/√dₖ.
    pub scale: f32,
    /// Scores become cap · tanh(score / cap) before the softmax; `None`: they stay.
    pub cap: Option<f32>,
    /// Added to the scores of each head: `[heads][keys]`, with at least as many keys as count.
    pub bias: Option<&'a [f32]>,
}

impl Queries<'_> {
    fn tokens(&self) -> usize {
        self.rows.len() / self.row_len
    }

    /// A head's bias from a key on.
    fn bias(&self, head: usize, first_key: usize, keys: usize) -> Option<&[f32]> {
        let bias = self.bias?;
        Some(&bias[head * (bias.len() / self.heads) + first_key..][..keys])
    }

    /// The keys that a row of the step sees.
    fn visible(&self, token: usize) -> Range<usize> {
        if !self.causal {
            return 0..self.keys;
        }
        let end = self.keys.min(self.first + token + 1);
        end.saturating_sub(self.window.unwrap_or(end))..end
    }
}

/// Takes rows of a map one by one, on whichever thread has made them.
pub trait TakeRows: Sync {
    /// Takes a row, `query` by its position: softmax weights over the keys from position 0, as far as it
    /// sees any; those behind are 0. Each row comes once, in any order.
    fn take(&self, head: usize, query: usize, weights: &[f32]);
}

/// Puts rows into a map, `[heads][tokens][keys]`.
struct WholeMap {
    map: SharedSlice<f32>,
    first: usize,
    tokens: usize,
    keys: usize,
}

impl TakeRows for WholeMap {
    fn take(&self, head: usize, query: usize, weights: &[f32]) {
        let start = (head * self.tokens + query - self.first) * self.keys;
        // SAFETY: each row comes once.
        let row = unsafe { self.map.part(start, self.keys) };
        row[..weights.len()].copy_from_slice(weights);
        row[weights.len()..].fill(0.0);
    }
}

/// Attends; `out` is `[tokens][heads · head_dim]`. With `map`, `[heads][tokens][keys]`, writes the
/// softmax weights too; the result is the same bit for bit.
///
/// # Panics
/// If lengths disagree.
pub fn attend(
    isa: Isa,
    pool: &Pool,
    cache: &Cache,
    layer: usize,
    queries: Queries<'_>,
    out: &mut [f32],
    map: Option<&mut [f32]>,
) {
    let (tokens, keys) = (queries.tokens(), queries.keys);
    let map = map.map(|map| {
        assert_eq!(map.len(), queries.heads * tokens * keys);
        WholeMap { map: SharedSlice::new(map), first: queries.first, tokens, keys }
    });
    attend_rows(isa, pool, cache, layer, queries, out, map.as_ref().map(|map| map as &dyn TakeRows));
}

/// [`attend`], with each row of the map given to `taker`, which must not use the pool.
///
/// # Panics
/// If lengths disagree.
pub fn attend_rows(
    isa: Isa,
    pool: &Pool,
    cache: &Cache,
    layer: usize,
    queries: Queries<'_>,
    out: &mut [f32],
    taker: Option<&dyn TakeRows>,
) {
    let shape = cache.shape();
    let tokens = queries.tokens();
    let group = queries.heads / shape.kv_heads;
    assert!(queries.heads == group * shape.kv_heads && queries.keys <= shape.capacity);
    assert_eq!(out.len(), tokens * queries.heads * shape.head_dim);
    assert!(queries.bias.is_none_or(|bias| bias.len() >= queries.heads * queries.keys));
    let out = SharedSlice::new(out);
    let job = Job { isa, shape, cache, layer, queries, group, out, taker };
    let tiles_in_head = (tokens * group).div_ceil(TILE_ROWS);
    let tiles = shape.kv_heads * tiles_in_head;
    let chunks = queries.keys.div_ceil(CHUNK);
    let enough = 4 * pool.threads();
    if pool.threads() > 1 && chunks > 1 && tiles < enough {
        let blocks_in_head = tiles_in_head.div_ceil(BLOCK_TILES);
        job.run_split_by_chunks(pool, shape.kv_heads * blocks_in_head, BLOCK_TILES, chunks);
    } else {
        let block_tiles = (tiles / enough).clamp(1, BLOCK_TILES);
        let blocks = shape.kv_heads * tiles_in_head.div_ceil(block_tiles);
        // The last blocks see the most keys: they come first, so that no thread waits for one at the end.
        pool.for_each(blocks, 1, |index| job.run_block(&job.block(blocks - 1 - index, block_tiles)));
    }
}

/// Some tiles of a key/value head. Rows are neighbours in the order token, then query head of the group.
struct Block {
    kv_head: usize,
    first_row: usize,
    rows: usize,
    /// Their queries, scaled: of each tile `[head_dim][rows of the tile]`.
    packed: Vec<f32>,
}

impl Block {
    /// Its tiles: the first of their rows, counted in the block, and how many.
    fn tiles(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let rows = self.rows;
        (0..rows).step_by(TILE_ROWS).map(move |first| (first, TILE_ROWS.min(rows - first)))
    }
}

/// What some chunks of keys contribute to the rows of a block.
struct Partial<'a> {
    maximum: &'a mut [f32],
    sum: &'a mut [f32],
    /// `[rows][head_dim, padded to 32]`
    values: &'a mut [f32],
}

impl<'a> Partial<'a> {
    /// Numbers of the partial of `rows` rows.
    fn len(shape: CacheShape, rows: usize) -> usize {
        rows * (2 + shape.value_panels() * PANEL)
    }

    /// Lays one over memory of that length.
    fn over(memory: &'a mut [f32], rows: usize) -> Partial<'a> {
        let (maximum, rest) = memory.split_at_mut(rows);
        let (sum, values) = rest.split_at_mut(rows);
        Partial { maximum, sum, values }
    }

    fn row(&self, row: usize) -> &[f32] {
        let width = self.values.len() / self.sum.len();
        &self.values[row * width..(row + 1) * width]
    }

    /// Adds the next chunk. A row that sees nothing of it has sum 0 there and is left alone.
    fn combine(&mut self, isa: Isa, next: &Partial) {
        let width = self.values.len() / self.sum.len();
        for row in 0..self.sum.len() {
            if next.sum[row] == 0.0 {
                continue;
            }
            let maximum = self.maximum[row].max(next.maximum[row]);
            let factor = |own: f32| if own == maximum { 1.0 } else { (own - maximum).exp() };
            let (old, new) = (factor(self.maximum[row]), factor(next.maximum[row]));
            let values = &mut self.values[row * width..(row + 1) * width];
            if self.sum[row] == 0.0 {
                values.copy_from_slice(next.row(row));
            } else {
                // SAFETY: both are whole panels of 32.
                unsafe { add_scaled(isa, values, old, next.row(row), new) };
            }
            self.maximum[row] = maximum;
            self.sum[row] = self.sum[row] * old + next.sum[row] * new;
        }
    }
}

thread_local! {
    /// Memory for the partials of a step, kept from layer to layer.
    static PARTIALS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    /// The same for exponentials.
    static EXPONENTIALS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Exponentials of a block that become rows of a map, and what they are relative to.
struct Kept {
    /// `[rows][row_len]`, over keys from position 0; nothing in front of the first chunk that the block sees.
    exponentials: SharedSlice<f32>,
    row_len: usize,
    first_chunk: usize,
    /// The largest score of each row in each chunk, `[chunks][rows]`.
    maxima: Vec<f32>,
}

impl Kept {
    fn chunk_done(&mut self, chunk: &Partial) {
        self.maxima.extend_from_slice(chunk.maximum);
    }
}

struct Job<'a> {
    isa: Isa,
    shape: CacheShape,
    cache: &'a Cache,
    layer: usize,
    queries: Queries<'a>,
    /// Query heads for each key/value head.
    group: usize,
    out: SharedSlice<f32>,
    taker: Option<&'a dyn TakeRows>,
}

impl Job<'_> {
    /// Few rows, many keys (a generated token): chunks are shared out among the threads, and
    /// combined in order afterwards.
    fn run_split_by_chunks(&self, pool: &Pool, blocks: usize, block_tiles: usize, chunks: usize) {
        let blocks: Vec<Block> = (0..blocks).map(|index| self.block(index, block_tiles)).collect();
        let rows = blocks.iter().map(|block| block.rows).max().unwrap_or(0);
        let len = Partial::len(self.shape, rows);
        let mut memory = PARTIALS.take();
        memory.resize(memory.len().max(blocks.len() * chunks * len), 0.0);
        let mut exponentials = EXPONENTIALS.take();
        let mut kept = self.keep(&blocks, &mut exponentials);
        let shared = SharedSlice::new(&mut memory);
        let tasks = blocks.len() * chunks;
        // Neighbours go to one thread, which asks for the next one's keys ahead.
        pool.for_each(tasks, tasks / (8 * pool.threads()), |task| {
            let (block, chunk) = (&blocks[task / chunks], task % chunks);
            if self.chunks_seen(block).contains(&chunk) {
                // SAFETY: each partial is written by one task.
                let memory = unsafe { shared.part(task * len, Partial::len(self.shape, block.rows)) };
                self.chunk(block, chunk, &mut Partial::over(memory, block.rows), kept.get(task / chunks));
            }
        });
        for (index, block) in blocks.iter().enumerate() {
            let seen = self.chunks_seen(block);
            let own = &mut memory[index * chunks * len..(index + 1) * chunks * len];
            let mut partials = own[seen.start * len..seen.end * len]
                .chunks_exact_mut(len)
                .map(|memory| Partial::over(&mut memory[..Partial::len(self.shape, block.rows)], block.rows));
            let Some(mut running) = partials.next() else { continue };
            let mut kept = kept.get_mut(index);
            kept.iter_mut().for_each(|kept| kept.chunk_done(&running));
            for partial in partials {
                kept.iter_mut().for_each(|kept| kept.chunk_done(&partial));
                running.combine(self.isa, &partial);
            }
            self.finish(block, &running, kept.as_deref());
        }
        PARTIALS.set(memory);
        EXPONENTIALS.set(exponentials);
    }

    /// Where the exponentials of blocks go; nowhere if nobody takes rows.
    fn keep(&self, blocks: &[Block], memory: &mut Vec<f32>) -> Vec<Kept> {
        if self.taker.is_none() {
            return vec![];
        }
        let row_len = |block: &Block| self.chunks_seen(block).end * CHUNK;
        let len = blocks.iter().map(|block| block.rows * row_len(block)).sum();
        memory.resize(memory.len().max(len), 0.0);
        let mut left = &mut memory[..len];
        let mut kept = Vec::with_capacity(blocks.len());
        for block in blocks {
            let row_len = row_len(block);
            let (own, rest) = left.split_at_mut(block.rows * row_len);
            left = rest;
            let (exponentials, first_chunk) = (SharedSlice::new(own), self.chunks_seen(block).start);
            kept.push(Kept { exponentials, row_len, first_chunk, maxima: vec![] });
        }
        kept
    }

    /// All that a block sees, chunk by chunk.
    fn run_block(&self, block: &Block) {
        let len = Partial::len(self.shape, block.rows);
        let mut memory = PARTIALS.take();
        memory.resize(memory.len().max(2 * len), 0.0);
        let (running, next) = memory[..2 * len].split_at_mut(len);
        let (mut running, mut next) = (Partial::over(running, block.rows), Partial::over(next, block.rows));
        let mut exponentials = EXPONENTIALS.take();
        let mut kept = self.keep(std::slice::from_ref(block), &mut exponentials).pop();
        let seen = self.chunks_seen(block);
        for chunk in seen.clone() {
            let partial = if chunk == seen.start { &mut running } else { &mut next };
            self.chunk(block, chunk, partial, kept.as_ref());
            kept.iter_mut().for_each(|kept| kept.chunk_done(partial));
            if chunk != seen.start {
                running.combine(self.isa, &next);
            }
        }
        self.finish(block, &running, kept.as_ref());
        PARTIALS.set(memory);
        EXPONENTIALS.set(exponentials);
    }

    fn block(&self, index: usize, block_tiles: usize) -> Block {
        let rows_in_head = self.queries.tokens() * self.group;
        let block_rows = block_tiles * TILE_ROWS;
        let blocks_in_head = rows_in_head.div_ceil(block_rows);
        // Of every head the first block, then of every head the second one.
        let kv_heads = self.shape.kv_heads;
        let (kv_head, first_row) = (index % kv_heads, index / kv_heads * block_rows);
        debug_assert!(index / kv_heads < blocks_in_head);
        let rows = block_rows.min(rows_in_head - first_row);
        let head_dim = self.shape.head_dim;
        let mut block = Block { kv_head, first_row, rows, packed: vec![] };
        let pack = |packed: &mut [MaybeUninit<f32>]| {
            for (first, rows) in block.tiles() {
                let packed = &mut packed[first * head_dim..(first + rows) * head_dim];
                for row in 0..rows {
                    let (token, head) = self.token_and_head(kv_head, first_row + first + row);
                    let query = &self.queries.rows[token * self.queries.row_len + head * head_dim..];
                    for (packed, value) in packed[row..].iter_mut().step_by(rows).zip(&query[..head_dim]) {
                        packed.write(value * self.queries.scale);
                    }
                }
            }
        };
        // SAFETY: every dimension of every row is written.
        block.packed = unsafe { written(head_dim * rows, pack) };
        block
    }

    fn token_and_head(&self, kv_head: usize, row: usize) -> (usize, usize) {
        (row / self.group, kv_head * self.group + row % self.group)
    }

    /// The keys that a row of a block sees.
    fn visible(&self, block: &Block, row: usize) -> Range<usize> {
        self.queries.visible((block.first_row + row) / self.group)
    }

    /// Chunks that some row of a block needs: a later row sees neither less far forward nor further back.
    fn chunks_seen(&self, block: &Block) -> Range<usize> {
        self.visible(block, 0).start / CHUNK..self.visible(block, block.rows - 1).end.div_ceil(CHUNK)
    }

    /// One chunk of keys for one block.
    fn chunk(&self, block: &Block, index: usize, partial: &mut Partial, kept: Option<&Kept>) {
        let shape = self.shape;
        let first_key = index * CHUNK;
        let (key_panels, key_panel_bytes) = self.cache.keys_from(self.layer, block.kv_head, first_key);
        let (value_panels, value_panel_bytes) = self.cache.values_from(self.layer, block.kv_head, first_key);
        let width = shape.value_panels() * PANEL;
        for (first_row, rows) in block.tiles() {
            let end = self.visible(block, first_row + rows - 1).end;
            let keys = end.saturating_sub(first_key).min(CHUNK);
            let (maximum, sum) =
                (&mut partial.maximum[first_row..][..rows], &mut partial.sum[first_row..][..rows]);
            if self.visible(block, first_row).start >= first_key + keys {
                maximum.fill(f32::NEG_INFINITY);
                sum.fill(0.0);
                continue;
            }
            let mut seen = [(0, 0); TILE_ROWS];
            let mut bias = self.queries.bias.map(|_| [&[][..]; TILE_ROWS]);
            let mut exponentials = kept.map(|_| [std::ptr::null_mut(); TILE_ROWS]);
            for row in 0..rows {
                let visible = self.visible(block, first_row + row);
                let inside = |position: usize| position.saturating_sub(first_key).min(keys);
                seen[row] = (inside(visible.start), inside(visible.end));
                if let Some(bias) = &mut bias {
                    let (_, head) = self.token_and_head(block.kv_head, block.first_row + first_row + row);
                    bias[row] = self.queries.bias(head, first_key, keys).unwrap_or_default();
                }
                if let (Some(to), Some(kept)) = (&mut exponentials, kept) {
                    let start = (first_row + row) * kept.row_len + first_key + seen[row].0;
                    let len = seen[row].1 - seen[row].0;
                    // SAFETY: each row and chunk of a block belongs to one task.
                    to[row] = unsafe { kept.exponentials.part(start, len) }.as_mut_ptr();
                }
            }
            let args = ChunkArgs {
                rows,
                keys,
                head_dim: shape.head_dim,
                queries: block.packed[first_row * shape.head_dim..].as_ptr(),
                key_panels: key_panels.as_ptr(),
                key_panel_bytes,
                value_panels: value_panels.as_ptr(),
                value_panel_bytes,
                seen,
                cap: self.queries.cap,
                bias,
            };
            let values = &mut partial.values[first_row * width..(first_row + rows) * width];
            let out = ChunkOut { maximum, sum, values, exponentials };
            // SAFETY: packed is [head_dim][rows]; from the chunk on the cache has panels of keys and
            // values for at least `keys` positions; exponentials have room for what their row sees.
            unsafe { chunk(self.isa, shape.held, &args, out) };
        }
    }

    /// Divides by the sum; turns kept exponentials into rows of the map.
    fn finish(&self, block: &Block, running: &Partial, kept: Option<&Kept>) {
        let head_dim = self.shape.head_dim;
        for row in 0..block.rows {
            let (token, head) = self.token_and_head(block.kv_head, block.first_row + row);
            let share = 1.0 / running.sum[row];
            // SAFETY: each token and head is finished by one task.
            let out = unsafe { self.out.part((token * self.queries.heads + head) * head_dim, head_dim) };
            // SAFETY: needs the tier alone.
            unsafe { scaled(self.isa, running.row(row), share, out) };
            let (Some(taker), Some(kept)) = (self.taker, kept) else { continue };
            let visible = self.visible(block, row);
            // SAFETY: each block is finished by one task, when all its chunks are done.
            let weights = unsafe { kept.exponentials.part(row * kept.row_len, visible.end) };
            weights[..visible.start].fill(0.0);
            let seen = weights.get_mut(kept.first_chunk * CHUNK..).unwrap_or_default();
            for (weights, maximum) in seen.chunks_mut(CHUNK).zip(kept.maxima.chunks_exact(block.rows)) {
                let factor = (maximum[row] - running.maximum[row]).exp() * share;
                // SAFETY: needs the tier alone.
                unsafe { scale(self.isa, weights, factor) };
            }
            taker.take(head, self.queries.first + token, weights);
        }
    }
}

#[cfg(test)]
mod tests;
