//! What a page shows first of every head, made while a dump is written: a small picture of its map, and
//! the sums behind its scores. So a large dump opens without its maps being read.
//!
//! One code makes it of rows as they are stored, whether they come from the model or from the dump: a
//! reader that finds no file, or one that is some steps behind, gets the same bits. [`picture`] holds
//! the cells, [`repeats`] knows where a text repeats itself, [`file`] is how it lies on the disk.

mod file;
mod picture;
mod repeats;

use std::ops::Range;

use rayon::prelude::*;

pub use file::{OVERVIEW, OVERVIEW_PART};
pub(super) use file::{file_bytes, worth_it};
pub use picture::{Band, Counts, Grid, Picture, SIDE};
pub use repeats::{Repeats, repeated};

use super::dump::Dump;
use super::format::{Manifest, StepRecord};
use super::step_maps::StepMaps;
use crate::error::Error;
use crate::kernels::Isa;
use crate::kernels::row_statistics::row_statistics;
use crate::model::Mask;

/// Keys up to the query, itself included, that count as near.
pub const NEAR: usize = 8;

/// What is added up of every head, in this order: see [`OverviewScores`].
pub const SUMS: [&str; 9] = [
    "previous_token",
    "duplicate_token",
    "induction",
    "sink",
    "self",
    "local",
    "entropy",
    "distance",
    "repeats",
];

/// Of every captured head a small picture and the sums of its scores, over whole steps.
#[derive(Clone)]
pub struct Overview {
    isa: Isa,
    mask: Mask,
    /// Tokens of a prompt that stands twice.
    copy: Option<usize>,
    repeats: Repeats,
    grid: Grid,
    keys: usize,
    /// Keys of the step at hand.
    step_keys: usize,
    steps: usize,
    /// What queries of a window see, for each window that a layer has.
    windows: Vec<Seen>,
    layers: Vec<LayerOverview>,
}

#[derive(Clone)]
struct Seen {
    window: Option<usize>,
    counts: Counts,
    /// Rows that each sum is over.
    rows: [u32; SUMS.len()],
}

#[derive(Clone)]
struct LayerOverview {
    /// Its place among the windows.
    window: usize,
    heads: Vec<HeadOverview>,
}

/// One head's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeadOverview {
    pub picture: Picture,
    sums: [f64; SUMS.len()],
}

/// Means over rows. `None` where there is no row to measure one by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OverviewScores {
    /// The weight on the token before.
    pub previous_token: Option<f64>,
    /// Of a prompt that stands twice: the weight on the same token of the first copy, over the second.
    pub duplicate_token: Option<f64>,
    /// The weight on the token behind that one (Olsson et al. 2022).
    pub induction: Option<f64>,
    /// The weight on the first token, where it is seen.
    pub sink: Option<f64>,
    /// The weight on the token itself.
    pub own: Option<f64>,
    /// The weight on the last 8 tokens, of queries that see more.
    pub local: Option<f64>,
    /// The entropy, of which even attention has 1.
    pub entropy: Option<f64>,
    /// How far back, in tokens.
    pub distance: Option<f64>,
    /// The weight on all tokens behind earlier occurrences of the query's token, where there are some.
    pub repeats: Option<f64>,
}

/// How the rows of one layer in the step at hand are taken in.
#[derive(Clone, Copy)]
pub struct LayerRows<'a> {
    isa: Isa,
    mask: Mask,
    copy: Option<usize>,
    repeats: &'a Repeats,
    grid: Grid,
    window: Option<usize>,
    step_keys: usize,
}

impl Overview {
    /// Of nothing yet; `copy` as [`repeated`] finds it in the text, as far as that is known.
    pub fn new(manifest: &Manifest, isa: Isa, copy: Option<usize>, repeats: Repeats) -> Overview {
        let mut windows: Vec<Seen> = vec![];
        let layers = manifest.layers.iter().map(|captured| {
            let known = windows.iter().position(|seen| seen.window == captured.window);
            let window = known.unwrap_or_else(|| {
                let (counts, rows) = Default::default();
                windows.push(Seen { window: captured.window, counts, rows });
                windows.len() - 1
            });
            LayerOverview { window, heads: vec![HeadOverview::default(); captured.heads.len()] }
        });
        Overview {
            layers: layers.collect(),
            windows,
            isa,
            mask: manifest.mask,
            copy,
            repeats,
            grid: Grid::of(0),
            keys: 0,
            step_keys: 0,
            steps: 0,
        }
    }

    /// Of a dump's steps: what its file holds of them, and the rows of those behind it. A file that cannot
    /// be used is answered as an error beside.
    pub fn of(dump: &Dump, steps: &[StepMaps], isa: Isa) -> (Overview, Option<Error>) {
        let ids: Vec<u32> = dump.tokens().iter().map(|token| token.id).collect();
        let keys = steps.iter().map(|step| step.record().keys).max().unwrap_or(0);
        let copy = repeated(&ids[..ids.len().min(keys)]);
        let repeats = Repeats::of(ids);
        let (read, fault) = match Overview::read(dump, isa, repeats.clone()) {
            Ok(read) => (read, None),
            Err(error) => (None, Some(error)),
        };
        // Sums over a copy that the text turned out to be none of are of no use, and those over one that
        // it turned out to have are not there.
        let read = read.filter(|overview| copy.is_none() || overview.copy == copy);
        let mut overview = read.unwrap_or_else(|| Overview::new(dump.manifest(), isa, copy, repeats));
        for step in &steps[overview.steps..] {
            overview.add(step);
        }
        (overview, fault)
    }

    /// Adds a whole step of a dump.
    pub fn add(&mut self, step: &StepMaps) {
        let record = step.record();
        self.begin(record);
        self.layers_mut().collect::<Vec<_>>().into_par_iter().enumerate().for_each(
            |(layer, (rows, heads))| {
                heads.par_iter_mut().enumerate().for_each(|(place, head)| {
                    let mut band = Band::default();
                    let mut weights = vec![0f32; record.keys];
                    for row in 0..record.queries {
                        let query = record.rows().position(row);
                        let weights = &mut weights[..rows.seen(query).end];
                        step.row(layer, place, row, 0, weights);
                        rows.add(head, &mut band, query, weights);
                    }
                    rows.end(head, &mut band);
                });
            },
        );
        self.end();
    }

    /// Begins a step: its rows come layer by layer, those of a head in order.
    pub fn begin(&mut self, record: &StepRecord) {
        (self.step_keys, self.keys) = (record.keys, self.keys.max(record.keys));
        let grid = Grid::of(self.keys);
        while self.steps > 0 && self.grid.cell < grid.cell {
            self.grid.cell *= 2;
            self.windows.iter_mut().for_each(|seen| seen.counts.merge());
            let heads = self.layers.iter_mut().flat_map(|layer| &mut layer.heads);
            heads.for_each(|head| head.picture.merge());
        }
        self.grid = grid;
        let mut windows = std::mem::take(&mut self.windows);
        for Seen { window, counts, rows: measured } in &mut windows {
            let rows = self.rows(*window);
            for row in 0..record.queries {
                let query = record.rows().position(row);
                for (count, counts) in measured.iter_mut().zip(rows.measures(query)) {
                    *count += u32::from(counts);
                }
                counts.add(grid, query, rows.seen(query));
            }
        }
        self.windows = windows;
    }

    /// How rows of a captured layer are taken in, and its heads.
    pub fn layer_mut(&mut self, place: usize) -> (LayerRows<'_>, &mut [HeadOverview]) {
        let LayerOverview { window, heads } = &mut self.layers[place];
        let window = self.windows[*window].window;
        let (isa, mask, copy, repeats) = (self.isa, self.mask, self.copy, &self.repeats);
        let rows = LayerRows { isa, mask, copy, repeats, grid: self.grid, window, step_keys: self.step_keys };
        (rows, heads)
    }

    fn layers_mut(&mut self) -> impl Iterator<Item = (LayerRows<'_>, &mut [HeadOverview])> {
        let (isa, mask, copy, repeats) = (self.isa, self.mask, self.copy, &self.repeats);
        let (grid, step_keys, windows) = (self.grid, self.step_keys, &self.windows);
        self.layers.iter_mut().map(move |layer| {
            let window = windows[layer.window].window;
            (LayerRows { isa, mask, copy, repeats, grid, window, step_keys }, &mut layer.heads[..])
        })
    }

    fn rows(&self, window: Option<usize>) -> LayerRows<'_> {
        let (isa, mask, copy, repeats) = (self.isa, self.mask, self.copy, &self.repeats);
        LayerRows { isa, mask, copy, repeats, grid: self.grid, window, step_keys: self.step_keys }
    }

    /// All rows of the step have come.
    pub fn end(&mut self) {
        self.steps += 1;
    }

    /// Adds the next token of the text: before the step that feeds it.
    pub fn token(&mut self, id: u32) {
        self.repeats.push(id);
    }

    /// Tokens so far.
    pub fn tokens(&self) -> usize {
        self.repeats.tokens()
    }

    /// That the prompt stands twice, known before its step.
    pub fn set_copy(&mut self, copy: Option<usize>) {
        self.copy = copy;
    }

    pub fn copy(&self) -> Option<usize> {
        self.copy
    }

    /// Steps that it is of.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Keys of the longest step.
    pub fn keys(&self) -> usize {
        self.keys
    }

    pub fn grid(&self) -> Grid {
        self.grid
    }

    /// Each captured head's, in the manifest's order: maxima and means, `[side, side]`, and scores.
    pub fn heads(&self) -> impl Iterator<Item = (Vec<(f32, f32)>, OverviewScores)> {
        self.layers.iter().flat_map(|layer| {
            let seen = &self.windows[layer.window];
            layer
                .heads
                .iter()
                .map(|head| (cells(self.grid, &head.picture, &seen.counts), scores(&head.sums, &seen.rows)))
        })
    }

    /// Whether it is what `other` is, but for what sums of other instructions may differ by.
    ///
    /// # Errors
    /// The first difference, in words.
    pub fn same(&self, other: &Overview) -> Result<(), String> {
        let windows = self.layers.iter().zip(&other.layers);
        for (place, (ours, theirs)) in windows.enumerate() {
            let (seen, other_seen) = (&self.windows[ours.window], &other.windows[theirs.window]);
            if seen.counts != other_seen.counts || seen.rows != other_seen.rows {
                return Err(format!("the counts of layer {place} of those captured are not its rows'"));
            }
            for (head, (ours, theirs)) in ours.heads.iter().zip(&theirs.heads).enumerate() {
                let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-5 * (1.0 + a.abs());
                if ours.picture != theirs.picture || !ours.sums.iter().zip(&theirs.sums).all(close) {
                    return Err(format!(
                        "head {head} of layer {place}, of those captured, is not what its maps come to"
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Maxima and means of the cells that are used, `[side, side]`.
pub fn cells(grid: Grid, picture: &Picture, counts: &Counts) -> Vec<(f32, f32)> {
    let cell = |line: usize, column: usize| {
        let at = line * SIDE + column;
        (picture.maximum[at], picture.sum[at] / counts.0[at].max(1) as f32)
    };
    (0..grid.side).flat_map(|line| (0..grid.side).map(move |column| cell(line, column))).collect()
}

fn scores(sums: &[f64; SUMS.len()], rows: &[u32; SUMS.len()]) -> OverviewScores {
    let mean = |at: usize| (rows[at] > 0).then(|| sums[at] / f64::from(rows[at]));
    OverviewScores {
        previous_token: mean(0),
        duplicate_token: mean(1),
        induction: mean(2),
        sink: mean(3),
        own: mean(4),
        local: mean(5),
        entropy: mean(6),
        distance: mean(7),
        repeats: mean(8),
    }
}

impl LayerRows<'_> {
    /// The keys that a query sees.
    pub fn seen(&self, query: usize) -> Range<usize> {
        match self.mask {
            Mask::None => 0..self.step_keys,
            Mask::Causal => {
                let end = (query + 1).min(self.step_keys);
                end.saturating_sub(self.window.unwrap_or(end))..end
            }
        }
    }

    /// Which sums a query's row counts for.
    fn measures(&self, query: usize) -> [bool; SUMS.len()] {
        let seen = self.seen(query);
        let second = self.copy.is_some_and(|copy| (copy..2 * copy).contains(&query));
        [
            query > 0,
            second,
            second,
            seen.contains(&0),
            true,
            seen.len() > NEAR,
            seen.len() > 1,
            true,
            self.repeats.some(query),
        ]
    }

    /// Takes in a query's weights as they are stored, on keys 0 and up.
    pub fn add(&self, head: &mut HeadOverview, band: &mut Band, query: usize, weights: &[f32]) {
        let seen = self.seen(query);
        let weights = &weights[..weights.len().min(seen.end)];
        let start = seen.start.min(weights.len());
        head.picture.add(self.isa, self.grid, band, query, start, &weights[start..]);
        let at = |key: usize| weights.get(key).copied().map_or(0.0, f64::from);
        let near = (query + 1).saturating_sub(NEAR)..weights.len().min(query + 1);
        let near = weights.get(near).map_or(0.0, |near| near.iter().map(|weight| f64::from(*weight)).sum());
        let [entropy, first, own, previous, distance] = row_statistics(self.isa, weights, query);
        let copied = |back: usize| self.copy.map_or(0.0, |copy| at((query + back).saturating_sub(copy)));
        let values: [f64; SUMS.len()] = [
            f64::from(previous),
            copied(0),
            copied(1),
            f64::from(first),
            f64::from(own),
            near,
            f64::from(entropy) / (seen.len() as f64).ln(),
            f64::from(distance),
            self.repeats.weight(query, weights).unwrap_or(0.0),
        ];
        for ((sum, value), counts) in head.sums.iter_mut().zip(values).zip(self.measures(query)) {
            if counts {
                *sum += value;
            }
        }
    }

    /// All rows of the head in this step have come.
    pub fn end(&self, head: &mut HeadOverview, band: &mut Band) {
        head.picture.end(self.grid, band);
    }
}
