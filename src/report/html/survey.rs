//! One pass over a dump: a small picture and the scores of every head, for the overview.

use rayon::prelude::*;

use super::code::code;
use super::maps::{Head, Maps};
use super::scores::{Repeats, SCORES, Values, values};
use crate::report::heads::{HeadScorer, repeated};

/// Cells on a small picture's side, at most.
pub const OVERVIEW: usize = 64;

/// What the overview shows of one head.
pub struct HeadSurvey {
    /// `[side, side, 2]`: maximum and mean, in the [code](super::code); `side` is the map's size, or
    /// 64 for larger ones.
    pub picture: Vec<u8>,
    pub scores: Values,
}

/// Cells on the side of a small picture of a map.
pub fn side(size: usize) -> usize {
    size.min(OVERVIEW)
}

/// Every head's, in the order of [`Maps::heads`].
pub fn survey(maps: &Maps) -> Vec<HeadSurvey> {
    let ids: Vec<u32> = maps.dump().tokens().iter().map(|token| token.id).collect();
    let repeats = Repeats::of(&ids);
    let copy = repeated(&ids[..ids.len().min(maps.size())]);
    maps.heads().par_iter().map(|head| of_head(maps, *head, &repeats, copy)).collect()
}

fn of_head(maps: &Maps, head: Head, repeats: &Repeats, copy: Option<usize>) -> HeadSurvey {
    let (size, side) = (maps.size(), side(maps.size()));
    let cell = |position: usize| position * side / size;
    let (mut maximum, mut sum) = (vec![0f32; side * side], vec![0f64; side * side]);
    let mut count = vec![0u32; side * side];
    let mut windows = vec![None; head.layer + 1];
    windows[head.layer] = maps.layer(head).window;
    let mut scorer = HeadScorer::new(maps.dump().manifest().mask, windows, copy);
    let (mut behind_repeats, mut repeated_rows) = (0.0, 0);
    let mut row = vec![0f32; size];
    // Ends of the cells: the keys before `ends[n]` are in cells up to n.
    let ends: Vec<usize> = (1..=side).map(|cell| (cell * size).div_ceil(side)).collect();
    for query in maps.first_query()..size {
        let seen = maps.seen(head, query);
        if seen.is_empty() {
            continue;
        }
        let row = &mut row[..seen.end];
        maps.row(head, query, 0, row);
        scorer.add(head.layer, head.head, query, row);
        if let Some(weight) = repeats.weight(query, row) {
            behind_repeats += weight;
            repeated_rows += 1;
        }
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
    let repeats = (repeated_rows > 0).then(|| behind_repeats / f64::from(repeated_rows));
    let scores = scorer.scores().first().map_or([None; SCORES.len()], |scores| values(scores, repeats));
    HeadSurvey { picture, scores }
}
