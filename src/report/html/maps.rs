//! A dump as the page sees it: of each head one map over all steps, `[positions, positions]`, whose
//! row `q` stands in the step that fed token `q`.

use crate::capture::{AttentionKind, Dump, LayerHeads, QuerySelection, StepMaps, StepRecord};
use crate::error::{Error, Result};
use crate::model::Mask;

/// One head among those captured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// Its layer's and its own number in the model.
    pub layer: usize,
    pub head: usize,
    /// Their places in the manifest.
    layer_place: usize,
    head_place: usize,
}

/// A dump whose steps are all mapped into memory.
pub struct Maps {
    dump: Dump,
    steps: Vec<StepMaps>,
    heads: Vec<Head>,
    /// The step that holds each row, from [`Maps::first_query`] on.
    step_of: Vec<u32>,
}

impl Maps {
    /// # Errors
    /// If the dump holds no whole step, is not of whole maps, or a step's file is damaged.
    pub fn new(dump: Dump) -> Result<Maps> {
        let problem = |problem: String| Err(Error::Dump { path: dump.folder().to_path_buf(), problem });
        let (kind, queries) = (dump.manifest().kind, dump.manifest().queries);
        if kind != AttentionKind::Full || queries != QuerySelection::All {
            return problem(format!(
                "holds {kind} of queries {queries}; the page shows dumps of kind full and of all queries"
            ));
        }
        if dump.steps().is_empty() {
            return problem("holds no whole step, so there is nothing to show".into());
        }
        let mut step_of = vec![];
        for (before, step) in dump.steps().iter().zip(&dump.steps()[1..]) {
            if step.first_query != before.keys {
                return problem(format!(
                    "step {} starts at position {}, though the step before ended at {}",
                    step.step, step.first_query, before.keys
                ));
            }
        }
        for step in dump.steps() {
            step_of.extend(std::iter::repeat_n(step.step as u32, step.queries));
        }
        let steps = (0..dump.steps().len()).map(|step| StepMaps::open(&dump, step)).collect::<Result<_>>()?;
        let heads = dump.manifest().layers.iter().enumerate().flat_map(|(layer_place, captured)| {
            captured.heads.iter().enumerate().map(move |(head_place, head)| Head {
                layer: captured.layer,
                head: *head,
                layer_place,
                head_place,
            })
        });
        Ok(Maps { heads: heads.collect(), dump, steps, step_of })
    }

    pub fn dump(&self) -> &Dump {
        &self.dump
    }

    /// The captured heads, in the manifest's order.
    pub fn heads(&self) -> &[Head] {
        &self.heads
    }

    /// A head by its layer's and its own number in the model.
    pub fn find(&self, layer: usize, head: usize) -> Option<Head> {
        self.heads.iter().find(|known| known.layer == layer && known.head == head).copied()
    }

    /// The layer's entry in the manifest: its window, and its captured heads.
    pub fn layer(&self, head: Head) -> &LayerHeads {
        &self.dump.manifest().layers[head.layer_place]
    }

    /// Positions: rows and columns of every map.
    pub fn size(&self) -> usize {
        self.steps.last().map_or(0, |step| step.record().keys)
    }

    /// Position of the first row that was recorded; 0 but for a dump that starts late.
    pub fn first_query(&self) -> usize {
        self.steps[0].record().first_query
    }

    /// Keys that a query can have a weight for, as a range: those of its step, cut by the mask.
    pub fn seen(&self, head: Head, query: usize) -> std::ops::Range<usize> {
        let Some(step) = self.step(query) else { return 0..0 };
        match self.dump.manifest().mask {
            Mask::None => 0..step.record().keys,
            Mask::Causal => {
                let window = self.layer(head).window.unwrap_or(usize::MAX);
                (query + 1).saturating_sub(window)..query + 1
            }
        }
    }

    /// Weights of keys `from..from + out.len()` for one query; 0 where nothing was recorded.
    pub fn row(&self, head: Head, query: usize, from: usize, out: &mut [f32]) {
        let Some(step) = self.step(query) else { return out.fill(0.0) };
        let StepRecord { first_query, keys, .. } = *step.record();
        let held = keys.saturating_sub(from).min(out.len());
        out[held..].fill(0.0);
        if held > 0 {
            step.row(head.layer_place, head.head_place, query - first_query, from, &mut out[..held]);
        }
    }

    fn step(&self, query: usize) -> Option<&StepMaps> {
        let row = query.checked_sub(self.first_query())?;
        Some(&self.steps[*self.step_of.get(row)? as usize])
    }
}
