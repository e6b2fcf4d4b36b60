//! One pass over a dump: a small picture and the scores of every head, for the overview.

use rayon::prelude::*;

use super::code::code;
use super::maps::{Head, Maps};
use super::scores::{HeadScores, Repeats};

/// Cells on a small picture's side, at most.
pub const OVERVIEW: usize = 64;

/// What the overview shows of one head.
pub struct HeadSurvey {
    /// `[side, side, 2]`: maximum and mean, in the [code](super::code); `side` is the map's size, or
    /// 64 for larger ones.
    pub picture: Vec<u8>,
    pub scores: [Option<f64>; 6],
}

/// Cells on the side of a small picture of a map.
pub fn side(size: usize) -> usize {
    size.min(OVERVIEW)
}

/// Every head's, in the order of [`Maps::heads`].
pub fn survey(maps: &Maps) -> Vec<HeadSurvey> {
    let ids: Vec<u32> = maps.dump().tokens().iter().map(|token| token.id).collect();
    let repeats = Repeats::of(&ids);
    maps.heads().par_iter().map(|head| of_head(maps, *head, &repeats)).collect()
}

fn of_head(maps: &Maps, head: Head, repeats: &Repeats) -> HeadSurvey {
    let (size, side) = (maps.size(), side(maps.size()));
    let cell = |position: usize| position * side / size;
    let (mut maximum, mut sum) = (vec![0f32; side * side], vec![0f64; side * side]);
    let mut count = vec![0u32; side * side];
    let mut scores = HeadScores::default();
    let mut row = vec![0f32; size];
    // Ends of the cells: the keys before `ends[n]` are in cells up to n.
    let ends: Vec<usize> = (1..=side).map(|cell| (cell * size).div_ceil(side)).collect();
    for query in maps.first_query()..size {
        let seen = maps.seen(head, query);
        let row = &mut row[..seen.end];
        maps.row(head, query, 0, row);
        scores.row(repeats, query, row);
        let line = cell(query) * side;
        let mut from = seen.start;
        while from < seen.end {
            let at = cell(from);
            let to = ends[at].min(seen.end);
            let at = line + at;
            for weight in &row[from..to] {
                maximum[at] = maximum[at].max(*weight);
                sum[at] += f64::from(*weight);
            }
            count[at] += (to - from) as u32;
            from = to;
        }
    }
    let picture = (0..side * side)
        .flat_map(|at| [code(maximum[at]), code((sum[at] / f64::from(count[at].max(1))) as f32)])
        .collect();
    HeadSurvey { picture, scores: scores.finish() }
}
