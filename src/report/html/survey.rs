//! One pass over a dump: a small picture and the scores of every head, for the overview.

use rayon::prelude::*;

use super::code::code;
use super::maps::{Head, Maps};
use super::scores::{Repeats, SCORES, Values, values};
use super::tile::hide;
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

/// Every head's picture, one after another, without the first `hide_first` keys: what remains of each
/// row is brought back to a sum of 1.
pub fn pictures(maps: &Maps, hide_first: usize) -> Vec<u8> {
    let picture = |head: &Head| {
        let mut picture = Picture::new(maps.size());
        let mut row = vec![0f32; maps.size()];
        for query in maps.first_query()..maps.size() {
            let seen = maps.seen(*head, query);
            let row = &mut row[..seen.end];
            maps.row(*head, query, 0, row);
            let rest = hide(maps, *head, query, hide_first, 0, row);
            row.iter_mut().for_each(|weight| *weight *= rest);
            picture.add(query, seen.start, row);
        }
        picture.codes()
    };
    maps.heads().par_iter().map(picture).collect::<Vec<_>>().concat()
}

/// A small picture under way: of each cell its largest weight, their sum, and how many there are.
struct Picture {
    size: usize,
    side: usize,
    maximum: Vec<f32>,
    sum: Vec<f64>,
    count: Vec<u32>,
}

impl Picture {
    fn new(size: usize) -> Picture {
        let side = side(size);
        let cells = side * side;
        Picture { size, side, maximum: vec![0.0; cells], sum: vec![0.0; cells], count: vec![0; cells] }
    }

    fn cell(&self, position: usize) -> usize {
        position * self.side / self.size
    }

    /// Adds a query's row, of which the keys from `start` on are seen.
    fn add(&mut self, query: usize, start: usize, row: &[f32]) {
        let line = self.cell(query) * self.side;
        let mut from = start;
        while from < row.len() {
            let cell = self.cell(from);
            // The first key of the next cell.
            let to = ((cell + 1) * self.size).div_ceil(self.side).min(row.len());
            let at = line + cell;
            for weight in &row[from..to] {
                self.maximum[at] = self.maximum[at].max(*weight);
                self.sum[at] += f64::from(*weight);
            }
            self.count[at] += (to - from) as u32;
            from = to;
        }
    }

    fn codes(&self) -> Vec<u8> {
        let mean = |at: usize| (self.sum[at] / f64::from(self.count[at].max(1))) as f32;
        (0..self.count.len()).flat_map(|at| [code(self.maximum[at]), code(mean(at))]).collect()
    }
}

fn of_head(maps: &Maps, head: Head, repeats: &Repeats, copy: Option<usize>) -> HeadSurvey {
    let size = maps.size();
    let mut picture = Picture::new(size);
    let mut windows = vec![None; head.layer + 1];
    windows[head.layer] = maps.layer(head).window;
    let mut scorer = HeadScorer::new(maps.dump().manifest().mask, windows, copy);
    let (mut behind_repeats, mut repeated_rows) = (0.0, 0);
    let mut row = vec![0f32; size];
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
        picture.add(query, seen.start, row);
    }
    let repeats = (repeated_rows > 0).then(|| behind_repeats / f64::from(repeated_rows));
    let scores = scorer.scores().first().map_or([None; SCORES.len()], |scores| values(scores, repeats));
    HeadSurvey { picture: picture.codes(), scores }
}
