//! Rows of chosen maps, as they come from a running model or a dump, handed on to those who draw or write
//! them: a head's, or the mean over a layer's heads, with the first keys left out if asked. Nothing is
//! held but one row.

use std::ops::Range;

use crate::capture::Rows;
use crate::error::Result;
use crate::model::{AttentionObserver, AttentionRows};

/// One map: a head's, or (`None`) the mean over all heads of the layer that come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapOf {
    pub layer: usize,
    pub head: Option<usize>,
}

/// A row of one of the maps.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    /// Which of the maps.
    pub map: usize,
    /// Counts the rows that are shown.
    pub row: usize,
    /// Of the keys that are shown.
    pub weights: &'a [f32],
    /// Which of these the query may see and are not hidden.
    pub seen: Range<usize>,
}

/// Takes rows. Those of a map come in order; maps of one layer may take turns.
pub trait MapSink {
    /// # Errors
    /// The sink's own: a full disk, for one.
    fn row(&mut self, row: Row<'_>) -> Result<()>;

    /// All rows of the maps up to `maps.end` have come.
    ///
    /// # Errors
    /// The sink's own.
    fn end_layer(&mut self, _maps: Range<usize>) -> Result<()> {
        Ok(())
    }
}

/// Which part of the maps is shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shown {
    /// Positions of the queries of the step's rows.
    pub rows: Rows,
    /// Which of these rows.
    pub queries: Range<usize>,
    /// Keys of a whole row, and which of them.
    pub whole_keys: usize,
    pub keys: Range<usize>,
    /// Whether keys behind a query's position are masked.
    pub causal: bool,
    /// So many keys are left out, and the rest of each row is brought back to a sum of 1.
    pub hide_first: usize,
}

/// Picks the rows of some maps.
pub struct MapRows<'s> {
    maps: Vec<MapOf>,
    shown: Shown,
    sinks: Vec<&'s mut dyn MapSink>,
    row: Vec<f32>,
    layer: Option<usize>,
}

impl<'s> MapRows<'s> {
    /// `maps` in the order of their layers.
    pub fn new(maps: Vec<MapOf>, shown: Shown, sinks: Vec<&'s mut dyn MapSink>) -> MapRows<'s> {
        let row = vec![0.0; shown.whole_keys];
        MapRows { maps, shown, sinks, row, layer: None }
    }

    /// Takes rows of a layer from row `first_row` of the step on: weights `[heads, rows, keys]`, `heads`
    /// their numbers.
    ///
    /// # Errors
    /// A sink's.
    pub fn add(
        &mut self,
        layer: usize,
        first_row: usize,
        heads: &[usize],
        keys: usize,
        weights: &[f32],
    ) -> Result<()> {
        if self.layer.is_some_and(|at_hand| at_hand != layer) {
            self.end_layer()?;
        }
        self.layer = Some(layer);
        let of_head = weights.len() / heads.len().max(1);
        let rows = first_row..first_row + of_head / keys.max(1);
        let rows = rows.start.max(self.shown.queries.start)..rows.end.min(self.shown.queries.end);
        for (number, map) in self.maps.iter().enumerate().filter(|(_, map)| map.layer == layer) {
            let places = match map.head {
                Some(head) => heads.iter().position(|known| *known == head).map_or(0..0, |at| at..at + 1),
                None => 0..heads.len(),
            };
            if places.is_empty() {
                continue;
            }
            let share = 1.0 / places.len() as f32;
            for row in rows.clone() {
                self.row.fill(0.0);
                for place in places.clone() {
                    let from = place * of_head + (row - first_row) * keys;
                    for (sum, weight) in self.row.iter_mut().zip(&weights[from..from + keys]) {
                        *sum += weight * share;
                    }
                }
                let seen = self.shown.seen(row, &mut self.row);
                let keys = self.shown.keys.clone();
                let row = Row {
                    map: number,
                    row: row - self.shown.queries.start,
                    weights: &self.row[keys.clone()],
                    seen: seen.start.max(keys.start) - keys.start
                        ..seen.end.clamp(keys.start, keys.end) - keys.start,
                };
                self.sinks.iter_mut().try_for_each(|sink| sink.row(row.clone()))?;
            }
        }
        Ok(())
    }

    /// Whether some of these rows of the step are shown.
    pub fn wants_rows(&self, rows: Range<usize>) -> bool {
        rows.start < self.shown.queries.end && self.shown.queries.start < rows.end
    }

    fn end_layer(&mut self) -> Result<()> {
        let Some(layer) = self.layer.take() else { return Ok(()) };
        let before = self.maps.iter().take_while(|map| map.layer < layer).count();
        let maps = before..before + self.maps.iter().filter(|map| map.layer == layer).count();
        self.sinks.iter_mut().try_for_each(|sink| sink.end_layer(maps.clone()))
    }

    /// No more rows come.
    ///
    /// # Errors
    /// A sink's.
    pub fn finish(mut self) -> Result<()> {
        self.end_layer()
    }
}

impl Shown {
    /// Hides the first keys of a whole row; answers which keys remain to be seen.
    fn seen(&self, row: usize, weights: &mut [f32]) -> Range<usize> {
        let end = if self.causal { self.rows.position(row) + 1 } else { self.whole_keys };
        if self.hide_first == 0 {
            return 0..end;
        }
        let hidden = self.hide_first.min(weights.len());
        let (hidden, rest) = weights.split_at_mut(hidden);
        hidden.fill(0.0);
        let sum: f64 = rest.iter().map(|weight| f64::from(*weight)).sum();
        if sum <= 0.0 {
            return 0..0;
        }
        rest.iter_mut().for_each(|weight| *weight = (f64::from(*weight) / sum) as f32);
        self.hide_first..end.max(self.hide_first)
    }
}

impl AttentionObserver for MapRows<'_> {
    fn wants(&self, layer: usize) -> bool {
        self.maps.iter().any(|map| map.layer == layer)
    }

    fn wants_queries(&self, _layer: usize, queries: Range<usize>) -> bool {
        self.wants_rows(self.shown.rows.within(queries))
    }

    fn observe(&mut self, rows: AttentionRows<'_>) -> Result<()> {
        let heads: Vec<usize> = (0..rows.heads).collect();
        let first_row = rows.first_query - self.shown.rows.first;
        self.add(rows.layer, first_row, &heads, rows.keys, rows.weights)
    }
}

/// One map, kept: `[queries, keys]`, and of each query the keys that are seen.
#[derive(Clone, Debug, Default)]
pub struct KeptMap {
    pub weights: Vec<f32>,
    pub seen: Vec<Range<usize>>,
}

impl MapSink for KeptMap {
    fn row(&mut self, row: Row<'_>) -> Result<()> {
        self.weights.extend_from_slice(row.weights);
        self.seen.push(row.seen);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two heads of four queries.
    const WEIGHTS: [f32; 32] = [
        1.0, 0.0, 0.0, 0.0, 0.75, 0.25, 0.0, 0.0, 0.5, 0.125, 0.375, 0.0, 0.125, 0.125, 0.25, 0.5, //
        1.0, 0.0, 0.0, 0.0, 0.25, 0.75, 0.0, 0.0, 0.0, 0.5, 0.5, 0.0, 0.5, 0.0, 0.0, 0.5,
    ];

    fn kept(head: Option<usize>, queries: Range<usize>, keys: Range<usize>, hide_first: usize) -> KeptMap {
        let rows = Rows { first: 0, count: 4, stride: 1 };
        let shown = Shown { rows, queries, whole_keys: 4, keys, causal: true, hide_first };
        let mut kept = KeptMap::default();
        let mut rows = MapRows::new(vec![MapOf { layer: 3, head }], shown, vec![&mut kept]);
        // In two blocks.
        let block =
            |from: usize, to: usize| [&WEIGHTS[from * 4..to * 4], &WEIGHTS[16 + from * 4..16 + to * 4]];
        rows.add(2, 0, &[5, 7], 4, &[9.0; 32]).unwrap();
        rows.add(3, 0, &[5, 7], 4, &block(0, 1).concat()).unwrap();
        rows.add(3, 1, &[5, 7], 4, &block(1, 4).concat()).unwrap();
        rows.finish().unwrap();
        kept
    }

    #[test]
    fn a_head_is_as_it_came_and_the_mean_is_the_mean() {
        assert_eq!(kept(Some(7), 0..4, 0..4, 0).weights, WEIGHTS[16..]);
        let mean = kept(None, 0..4, 0..4, 0);
        let expected: Vec<f32> = (0..16).map(|at| (WEIGHTS[at] + WEIGHTS[16 + at]) / 2.0).collect();
        assert_eq!(mean.weights, expected);
        assert_eq!(mean.seen, [0..1, 0..2, 0..3, 0..4]);
    }

    #[test]
    fn a_window_is_a_part() {
        let part = kept(Some(5), 1..3, 1..3, 0);
        assert_eq!(part.weights, [0.25, 0.0, 0.125, 0.375]);
        assert_eq!(part.seen, [0..1, 0..2]);
    }

    #[test]
    fn hiding_brings_what_is_left_back_to_one() {
        let hidden = kept(Some(5), 0..4, 0..4, 1);
        assert_eq!(hidden.weights[..12], [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.25, 0.75, 0.0]);
        // The first row has nothing left.
        assert_eq!(hidden.seen, [0..0, 1..2, 1..3, 1..4]);
        let sum: f32 = hidden.weights[12..].iter().sum();
        assert!((sum - 1.0).abs() < 1e-6);
        // A window does not change what a row is divided by.
        assert_eq!(kept(Some(5), 2..3, 2..4, 1).weights, [0.75, 0.0]);
        assert!(kept(None, 0..4, 0..4, 4).seen.iter().all(Range::is_empty));
        assert!(kept(None, 0..4, 0..4, 9).weights.iter().all(|weight| *weight == 0.0));
    }
}
