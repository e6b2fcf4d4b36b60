//! Scaled dot-product attention over the key/value cache: softmax(QKᵀ/√dₖ)V.
//!
//! Both products are [tiles](super::tile): the cache keeps keys in panels of 32 positions and
//! values in panels of 32 columns, so scores need no horizontal sums and nothing is packed again.
//! A narrow cache has its panels widened to f32 as they are met.
//! Query heads that share a key/value head lie in the same tiles and read its keys once.
//!
//! Keys are taken in chunks of 256 positions. Each chunk gives, for each row, its largest score
//! *m*, its sum *l* of exp(score − m) and its weighted sum of values; the chunks are then combined
//! in order (Milakov and Gimelshein 2018). Chunk borders are absolute positions, so the result
//! does not depend on threads, on the number of rows, or on whether maps are captured; capturing
//! only keeps the exponentials, which the final *m* and *l* turn into the map.

// As in `simd`: unsafe because of the CPU's instructions and raw pointers within checked slices.
#![allow(unsafe_op_in_unsafe_fn)]

use std::ops::Range;

use super::cache::{Cache, CacheShape};
use super::simd::{Simd, dispatch};
use super::threads::SharedSlice;
use super::tile::{TILE_ROWS, TileArgs, packed_tile_f32, strided_tile};
use super::{Isa, PANEL, Pool};

/// Keys whose softmax is taken together; a multiple of [`PANEL`].
const CHUNK: usize = 256;

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

    /// The keys that a row of the step sees.
    fn visible(&self, token: usize) -> Range<usize> {
        if !self.causal {
            return 0..self.keys;
        }
        let end = self.keys.min(self.first + token + 1);
        end.saturating_sub(self.window.unwrap_or(end))..end
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
    let shape = cache.shape();
    let tokens = queries.tokens();
    let group = queries.heads / shape.kv_heads;
    assert!(queries.heads == group * shape.kv_heads && queries.keys <= shape.capacity);
    assert_eq!(out.len(), tokens * queries.heads * shape.head_dim);
    assert!(queries.bias.is_none_or(|bias| bias.len() >= queries.heads * queries.keys));
    if let Some(map) = &map {
        assert_eq!(map.len(), queries.heads * tokens * queries.keys);
    }
    let map = map.map(SharedSlice::new);
    let out = SharedSlice::new(out);
    let job = Job { isa, shape, cache, layer, queries, group, out, map };
    let rows = tokens * group;
    let tiles = shape.kv_heads * rows.div_ceil(TILE_ROWS);
    let chunks = queries.keys.div_ceil(CHUNK);
    if chunks > 1 && tiles < 4 * pool.threads() {
        job.run_split_by_chunks(pool, tiles, chunks);
    } else {
        pool.for_each(tiles, 1, |index| {
            let tile = job.tile(index);
            let mut running = Partial::empty(shape, tile.rows);
            let kept = if job.map.is_some() { chunks } else { 0 };
            let mut chunk_maximum = vec![[f32::NEG_INFINITY; TILE_ROWS]; kept];
            let mut partial = Partial::empty(shape, tile.rows);
            for chunk in job.chunks_seen(&tile) {
                job.chunk(&tile, chunk, &mut partial);
                if let Some(maximum) = chunk_maximum.get_mut(chunk) {
                    *maximum = partial.maximum;
                }
                running.combine(&partial, tile.rows);
            }
            job.finish(&tile, &running, &chunk_maximum);
        });
    }
}

/// Rows of one tile: neighbours in the order token, then query head of the group.
struct Tile {
    kv_head: usize,
    first_row: usize,
    rows: usize,
    /// Their queries, scaled, `[head_dim][rows]`.
    packed: Vec<f32>,
}

/// What one chunk of keys contributes to the rows of a tile.
#[derive(Clone)]
struct Partial {
    maximum: [f32; TILE_ROWS],
    sum: [f32; TILE_ROWS],
    /// `[rows][head_dim, padded to 32]`
    values: Vec<f32>,
}

impl Partial {
    fn empty(shape: CacheShape, rows: usize) -> Partial {
        Partial {
            maximum: [f32::NEG_INFINITY; TILE_ROWS],
            sum: [0.0; TILE_ROWS],
            values: vec![0.0; rows * shape.value_panels() * PANEL],
        }
    }

    /// Adds the next chunk. A row that sees nothing of it has sum 0 there and is left alone.
    fn combine(&mut self, next: &Partial, rows: usize) {
        let width = self.values.len() / rows;
        for row in 0..rows {
            if next.sum[row] == 0.0 {
                continue;
            }
            let maximum = self.maximum[row].max(next.maximum[row]);
            let old = (self.maximum[row] - maximum).exp();
            let new = (next.maximum[row] - maximum).exp();
            self.maximum[row] = maximum;
            self.sum[row] = self.sum[row] * old + next.sum[row] * new;
            let values = &mut self.values[row * width..(row + 1) * width];
            for (value, next) in values.iter_mut().zip(&next.values[row * width..(row + 1) * width]) {
                *value = *value * old + next * new;
            }
        }
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
    map: Option<SharedSlice<f32>>,
}

impl Job<'_> {
    /// Few rows, many keys (a generated token): chunks are shared out among the threads, and
    /// combined in order afterwards.
    fn run_split_by_chunks(&self, pool: &Pool, tiles: usize, chunks: usize) {
        let tiles: Vec<Tile> = (0..tiles).map(|index| self.tile(index)).collect();
        let empty = |tile: &Tile| vec![Partial::empty(self.shape, tile.rows); chunks];
        let mut partials: Vec<Partial> = tiles.iter().flat_map(empty).collect();
        let shared = SharedSlice::new(&mut partials);
        pool.for_each(tiles.len() * chunks, 1, |task| {
            let (tile, chunk) = (&tiles[task / chunks], task % chunks);
            if self.chunks_seen(tile).contains(&chunk) {
                // SAFETY: each partial is written by one task.
                self.chunk(tile, chunk, unsafe { &mut shared.part(task, 1)[0] });
            }
        });
        for (tile, partials) in tiles.iter().zip(partials.chunks_exact(chunks)) {
            let mut running = Partial::empty(self.shape, tile.rows);
            for partial in partials {
                running.combine(partial, tile.rows);
            }
            let maximum: Vec<_> = partials.iter().map(|partial| partial.maximum).collect();
            self.finish(tile, &running, &maximum);
        }
    }

    fn tile(&self, index: usize) -> Tile {
        let rows_in_head = self.queries.tokens() * self.group;
        let tiles_in_head = rows_in_head.div_ceil(TILE_ROWS);
        let (kv_head, first_row) = (index / tiles_in_head, index % tiles_in_head * TILE_ROWS);
        let rows = TILE_ROWS.min(rows_in_head - first_row);
        let head_dim = self.shape.head_dim;
        let mut packed = vec![0.0; head_dim * rows];
        for row in 0..rows {
            let (token, head) = self.token_and_head(kv_head, first_row + row);
            let query = &self.queries.rows[token * self.queries.row_len + head * head_dim..][..head_dim];
            for (dim, value) in query.iter().enumerate() {
                packed[dim * rows + row] = value * self.queries.scale;
            }
        }
        Tile { kv_head, first_row, rows, packed }
    }

    fn token_and_head(&self, kv_head: usize, row: usize) -> (usize, usize) {
        (row / self.group, kv_head * self.group + row % self.group)
    }

    /// The keys that a row of a tile sees.
    fn visible(&self, tile: &Tile, row: usize) -> Range<usize> {
        self.queries.visible((tile.first_row + row) / self.group)
    }

    /// Chunks that some row of a tile needs: a later row sees neither less far forward nor further back.
    fn chunks_seen(&self, tile: &Tile) -> Range<usize> {
        self.visible(tile, 0).start / CHUNK..self.visible(tile, tile.rows - 1).end.div_ceil(CHUNK)
    }

    /// One chunk of keys for one tile.
    fn chunk(&self, tile: &Tile, chunk: usize, partial: &mut Partial) {
        let shape = self.shape;
        let first_key = chunk * CHUNK;
        let keys = self.visible(tile, tile.rows - 1).end.min(first_key + CHUNK) - first_key;
        let mut scores = [0f32; TILE_ROWS * CHUNK];
        let mut wide = vec![];
        for panel in 0..keys.div_ceil(PANEL) {
            let in_head = first_key / PANEL + panel;
            let keys = self.cache.key_panel(self.isa, self.layer, tile.kv_head, in_head, &mut wide);
            let args = TileArgs {
                rows: tile.rows,
                depth: shape.head_dim,
                x: tile.packed.as_ptr(),
                panel: keys.as_ptr(),
                // SAFETY: panel < CHUNK / PANEL, so the tile's 32 columns lie inside each row of scores.
                out: unsafe { scores.as_mut_ptr().add(panel * PANEL) },
                out_row: CHUNK,
            };
            // SAFETY: packed is [head_dim][rows], the panel [head_dim][32], scores [12][CHUNK].
            unsafe { packed_tile_f32(self.isa, args) };
        }
        for row in 0..tile.rows {
            let visible = self.visible(tile, row);
            let inside = |position: usize| position.saturating_sub(first_key).min(keys);
            let seen = inside(visible.start)..inside(visible.end);
            let scores = &mut scores[row * CHUNK..(row + 1) * CHUNK];
            (partial.maximum[row], partial.sum[row]) = if seen.is_empty() {
                scores.fill(0.0);
                (f32::NEG_INFINITY, 0.0)
            } else {
                if let Some(bias) = self.queries.bias {
                    let (_, head) = self.token_and_head(tile.kv_head, tile.first_row + row);
                    let bias = &bias[head * (bias.len() / self.queries.heads) + first_key..][..keys];
                    scores.iter_mut().zip(bias).for_each(|(score, bias)| *score += bias);
                }
                if let Some(cap) = self.queries.cap {
                    // SAFETY: CHUNK is a whole number of vectors on every tier.
                    unsafe { soft_cap_row(self.isa, scores, cap) };
                }
                scores[..seen.start].fill(f32::NEG_INFINITY);
                scores[seen.end..].fill(f32::NEG_INFINITY);
                // SAFETY: CHUNK is a whole number of vectors on every tier.
                unsafe { softmax_row(self.isa, scores) }
            };
            if let Some(map) = &self.map {
                let (token, head) = self.token_and_head(tile.kv_head, tile.first_row + row);
                let start = (head * self.queries.tokens() + token) * self.queries.keys + first_key;
                // SAFETY: each row and chunk of the map belongs to one task.
                unsafe { map.part(start + seen.start, seen.len()) }.copy_from_slice(&scores[seen]);
            }
        }
        let width = shape.value_panels() * PANEL;
        for panel in 0..shape.value_panels() {
            let positions = first_key..first_key + keys;
            let values =
                self.cache.value_rows(self.isa, self.layer, tile.kv_head, panel, positions, &mut wide);
            let args = TileArgs {
                rows: tile.rows,
                depth: keys,
                x: scores.as_ptr(),
                panel: values.as_ptr(),
                // SAFETY: values of a partial are [rows][value_panels · 32].
                out: unsafe { partial.values.as_mut_ptr().add(panel * PANEL) },
                out_row: width,
            };
            // SAFETY: scores are [rows][CHUNK] with keys ≤ CHUNK, the panel [keys][32].
            unsafe { weighted_values(self.isa, args) };
        }
    }

    /// Divides by the sum; turns kept exponentials into the map.
    fn finish(&self, tile: &Tile, running: &Partial, chunk_maximum: &[[f32; TILE_ROWS]]) {
        let head_dim = self.shape.head_dim;
        let width = running.values.len() / tile.rows;
        for row in 0..tile.rows {
            let (token, head) = self.token_and_head(tile.kv_head, tile.first_row + row);
            let scale = 1.0 / running.sum[row];
            // SAFETY: each token and head is finished by one task.
            let out = unsafe { self.out.part((token * self.queries.heads + head) * head_dim, head_dim) };
            for (out, value) in out.iter_mut().zip(&running.values[row * width..]) {
                *out = value * scale;
            }
            let Some(map) = &self.map else { continue };
            let start = (head * self.queries.tokens() + token) * self.queries.keys;
            let visible = self.visible(tile, row);
            // SAFETY: each row of the map is finished by one task.
            let map = unsafe { map.part(start, self.queries.keys) };
            map[..visible.start].fill(0.0);
            map[visible.end..].fill(0.0);
            let map = &mut map[..visible.end];
            for (weights, maximum) in map.chunks_mut(CHUNK).zip(chunk_maximum) {
                let factor = (maximum[row] - running.maximum[row]).exp() * scale;
                weights.iter_mut().for_each(|weight| *weight *= factor);
            }
        }
    }
}

dispatch!(
    /// A tile whose x is a tile of scores, rows [`CHUNK`] apart.
    ///
    /// # Safety
    /// As for tiles in general: the pointers of `args` are valid for its shape.
    fn weighted_values = self::weighted_values_body [] (args: TileArgs<f32>)
);

#[inline(always)]
unsafe fn weighted_values_body<S: Simd>(args: TileArgs<f32>) {
    strided_tile::<S, CHUNK>(args);
}

dispatch!(
    /// Replaces scores by cap · tanh(score / cap), tanh(x) = 1 − 2 / (1 + e²ˣ).
    ///
    /// # Safety
    /// The slice is a whole number of vectors long.
    fn soft_cap_row = self::soft_cap_row_body [] (scores: &mut [f32], cap: f32)
);

#[inline(always)]
unsafe fn soft_cap_row_body<S: Simd>(scores: &mut [f32], cap: f32) {
    let (one, double, cap) = (S::splat(1.0), S::splat(2.0 / cap), S::splat(cap));
    for scores in scores.chunks_exact_mut(S::LANES) {
        let power = S::exp(S::mul(S::load(scores.as_ptr()), double));
        let tanh = S::add(one, S::div(S::splat(-2.0), S::add(one, power)));
        S::store(scores.as_mut_ptr(), S::mul(cap, tanh));
    }
}

dispatch!(
    /// Replaces scores by exp(score − maximum); answers the maximum and the sum of the results.
    ///
    /// # Safety
    /// The slice is a whole number of vectors long.
    fn softmax_row = self::softmax_row_body [] (scores: &mut [f32]) -> (f32, f32)
);

#[inline(always)]
unsafe fn softmax_row_body<S: Simd>(scores: &mut [f32]) -> (f32, f32) {
    let mut largest = S::splat(f32::NEG_INFINITY);
    for scores in scores.chunks_exact(S::LANES) {
        largest = S::max(S::load(scores.as_ptr()), largest);
    }
    let maximum = S::maximum(largest);
    let shift = S::splat(-maximum);
    let mut sum = S::splat(0.0);
    for scores in scores.chunks_exact_mut(S::LANES) {
        let weight = S::exp(S::add(S::load(scores.as_ptr()), shift));
        S::store(scores.as_mut_ptr(), weight);
        sum = S::add(sum, weight);
    }
    (maximum, S::sum(sum))
}

#[cfg(test)]
mod tests;
