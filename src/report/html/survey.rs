//! A small picture and the scores of every head, for the overview: from what was written of them while
//! the dump was recorded, as far as that goes.

use rayon::prelude::*;

use super::code::code;
use super::maps::{Head, Maps};
use super::scores::{Values, values};
use super::tile::hide;
use crate::capture::overview::{Band, Counts, Grid, Overview, Picture, cells, repeated};

/// What the overview shows of one head.
pub struct HeadSurvey {
    /// `[side, side, 2]`: maximum and mean, in the [code](super::code); of the [`Grid`] of the map's size.
    pub picture: Vec<u8>,
    pub scores: Values,
}

/// Every head's, in the order of [`Maps::heads`]; and why a file of them could not be used.
pub fn survey(maps: &Maps) -> (Vec<HeadSurvey>, Option<String>) {
    let (overview, fault) = Overview::of(maps.dump(), maps.steps(), maps.isa());
    let ids: Vec<u32> = maps.dump().tokens().iter().take(maps.size()).map(|token| token.id).collect();
    let twice = repeated(&ids).is_some();
    let surveys = overview
        .heads()
        .map(|(cells, scores)| HeadSurvey { picture: codes(&cells), scores: values(&scores, twice) });
    (surveys.collect(), fault.map(|fault| format!("{fault}; the overview is made anew, from the maps")))
}

/// Every head's picture, one after another, without the first `hide_first` keys: what remains of each
/// row is brought back to a sum of 1.
pub fn pictures(maps: &Maps, hide_first: usize) -> Vec<u8> {
    let grid = Grid::of(maps.size());
    let picture = |head: &Head| {
        let (mut picture, mut counts, mut band) = (Picture::default(), Counts::default(), Band::default());
        let mut row = vec![0f32; maps.size()];
        for query in maps.first_query()..maps.size() {
            let seen = maps.seen(*head, query);
            let row = &mut row[..seen.end];
            maps.row(*head, query, 0, row);
            let rest = hide(maps, *head, query, hide_first, 0, row);
            row.iter_mut().for_each(|weight| *weight *= rest);
            picture.add(maps.isa(), grid, &mut band, query, seen.start, &row[seen.start..]);
            counts.add(grid, query, seen);
        }
        picture.end(grid, &mut band);
        codes(&cells(grid, &picture, &counts))
    };
    maps.heads().par_iter().map(picture).collect::<Vec<_>>().concat()
}

fn codes(cells: &[(f32, f32)]) -> Vec<u8> {
    cells.iter().flat_map(|(maximum, mean)| [code(*maximum), code(*mean)]).collect()
}
