//! Pictures of a map at any zoom: tiles of 256 by 256 cells, in two channels.
//!
//! At level *n* of the pyramid a cell stands for 2ⁿ by 2ⁿ weights: the first channel is their
//! maximum, in which a lone stripe stays visible at every zoom, the second their mean. Both are
//! bytes in the [code](super::code).

use rayon::prelude::*;

use super::code::code;
use super::maps::{Head, Maps};

/// Cells on a tile's side.
pub const TILE: usize = 256;

/// Which tile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    pub level: u32,
    /// In tiles from the top, and from the left.
    pub row: usize,
    pub column: usize,
}

/// Levels of a map's pyramid: at the last the whole map is in one tile.
pub fn levels(size: usize) -> u32 {
    size.div_ceil(TILE).next_power_of_two().trailing_zeros() + 1
}

/// One tile, `[256, 256, 2]`: maximum and mean. The mean is over the weights that the mask lets the
/// queries see. The first `hide_first` keys are left out, and what remains of each row is brought
/// back to a sum of 1.
pub fn tile(maps: &Maps, head: Head, place: Place, hide_first: usize) -> Vec<u8> {
    let size = maps.size();
    let block = 1usize << place.level;
    let first_key = place.column * TILE * block;
    let keys = size.saturating_sub(first_key).min(TILE * block);
    let mut out = vec![0u8; TILE * TILE * 2];
    if keys == 0 {
        return out;
    }
    out.par_chunks_mut(TILE * 2).enumerate().for_each(|(line, out)| {
        let first = (place.row * TILE + line) * block;
        let mut weights = vec![0f32; keys];
        let (mut maximum, mut sum) = ([0f32; TILE], [0f32; TILE]);
        let mut count = [0u32; TILE];
        for query in first..size.min(first + block) {
            let seen = maps.seen(head, query);
            let (from, to) = (seen.start.max(first_key), seen.end.min(first_key + keys));
            if from >= to {
                continue;
            }
            let weights = &mut weights[..to - from];
            maps.row(head, query, from, weights);
            let scale = hide(maps, head, query, hide_first, from, weights);
            for (offset, weight) in weights.iter().enumerate() {
                let cell = (from - first_key + offset) >> place.level;
                let weight = weight * scale;
                maximum[cell] = maximum[cell].max(weight);
                sum[cell] += weight;
                count[cell] += 1;
            }
        }
        for (cell, out) in out.chunks_exact_mut(2).enumerate() {
            out[0] = code(maximum[cell]);
            out[1] = code(sum[cell] / count[cell].max(1) as f32);
        }
    });
    out
}

/// Blanks the first keys in a part of a row that starts at key `from`; answers what the rest is to
/// be multiplied with.
pub(super) fn hide(
    maps: &Maps,
    head: Head,
    query: usize,
    first: usize,
    from: usize,
    weights: &mut [f32],
) -> f32 {
    if first == 0 {
        return 1.0;
    }
    let mut hidden = vec![0f32; first.min(maps.size())];
    maps.row(head, query, 0, &mut hidden);
    weights.iter_mut().take(first.saturating_sub(from)).for_each(|weight| *weight = 0.0);
    let rest = 1.0 - hidden.iter().map(|weight| f64::from(*weight)).sum::<f64>();
    // What is left beside rounding errors of the sum.
    if rest > 1e-6 { (1.0 / rest) as f32 } else { 0.0 }
}
