//! A dump as the page sees it: of each head one map over all steps, `[positions, positions]`, whose
//! row `q` stands in the step that fed token `q`.

use crate::capture::{AttentionKind, Dump, LayerHeads, StepMaps};
use crate::error::{Error, Result};
use crate::kernels::Isa;
use crate::model::Mask;

/// The number of a layer's mean over its captured heads, which is shown as if it were one more head.
pub const MEAN: usize = usize::MAX;

/// One head among those captured, or the mean over those of a layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// Its layer's and its own number in the model; [`MEAN`] for the mean.
    pub layer: usize,
    pub head: usize,
    /// Their places in the manifest.
    layer_place: usize,
    head_place: usize,
    /// Heads from there on whose mean this is: 1, or all.
    heads: usize,
}

/// A dump whose steps are all mapped into memory.
pub struct Maps {
    dump: Dump,
    steps: Vec<StepMaps>,
    heads: Vec<Head>,
    /// Of each position the step and its row; `None` where the query was not recorded.
    place_of: Vec<Option<(u32, u32)>>,
    first_query: usize,
    isa: Isa,
}

impl Maps {
    /// # Errors
    /// If the dump holds no whole step, is not of whole maps, or a step's file is damaged.
    pub fn new(dump: Dump) -> Result<Maps> {
        let problem = |problem: String| Err(Error::Dump { path: dump.folder().to_path_buf(), problem });
        let kind = dump.manifest().kind;
        if kind != AttentionKind::Full {
            return problem(format!(
                "holds {kind} of each row; the page shows whole rows (--attention-kind full)"
            ));
        }
        let Some(last) = dump.steps().last() else {
            return problem("holds no whole step, so there is nothing to show".into());
        };
        let mut place_of = vec![None; last.keys];
        for step in dump.steps() {
            if step.keys > last.keys {
                return problem(format!("step {} has more keys than the last", step.step));
            }
            for row in 0..step.queries {
                match place_of.get_mut(step.first_query + row * step.stride) {
                    Some(place) => *place = Some((step.step as u32, row as u32)),
                    None => {
                        return problem(format!(
                            "step {} has queries beyond the last step's keys",
                            step.step
                        ));
                    }
                }
            }
        }
        let Some(first_query) = place_of.iter().position(Option::is_some) else {
            return problem("holds no row, so there is nothing to show".into());
        };
        let steps = (0..dump.steps().len()).map(|step| StepMaps::open(&dump, step)).collect::<Result<_>>()?;
        let heads = dump.manifest().layers.iter().enumerate().flat_map(|(layer_place, captured)| {
            captured.heads.iter().enumerate().map(move |(head_place, head)| Head {
                layer: captured.layer,
                head: *head,
                layer_place,
                head_place,
                heads: 1,
            })
        });
        let isa = Isa::detect()?;
        Ok(Maps { heads: heads.collect(), dump, steps, place_of, first_query, isa })
    }

    pub(super) fn steps(&self) -> &[StepMaps] {
        &self.steps
    }

    /// The instructions that pictures are made with.
    pub(super) fn isa(&self) -> Isa {
        self.isa
    }

    pub fn dump(&self) -> &Dump {
        &self.dump
    }

    /// The captured heads, in the manifest's order.
    pub fn heads(&self) -> &[Head] {
        &self.heads
    }

    /// A head by its layer's and its own number in the model; the layer's mean by [`MEAN`].
    pub fn find(&self, layer: usize, head: usize) -> Option<Head> {
        if head == MEAN {
            let first = self.heads.iter().find(|known| known.layer == layer)?;
            let heads = self.layer(*first).heads.len();
            return Some(Head { head, heads, ..*first });
        }
        self.heads.iter().find(|known| known.layer == layer && known.head == head).copied()
    }

    /// The layer's entry in the manifest: its window, and its captured heads.
    pub fn layer(&self, head: Head) -> &LayerHeads {
        &self.dump.manifest().layers[head.layer_place]
    }

    /// Positions: rows and columns of every map.
    pub fn size(&self) -> usize {
        self.place_of.len()
    }

    /// Position of the first row that was recorded.
    pub fn first_query(&self) -> usize {
        self.first_query
    }

    /// Keys that a query can have a weight for, as a range: those of its step, cut by the mask. None of a
    /// query that was not recorded.
    pub fn seen(&self, head: Head, query: usize) -> std::ops::Range<usize> {
        let Some((step, _)) = self.place(query) else { return 0..0 };
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
        let Some((step, row)) = self.place(query) else { return out.fill(0.0) };
        let held = step.record().keys.saturating_sub(from).min(out.len());
        out[held..].fill(0.0);
        if held == 0 {
            return;
        }
        let out = &mut out[..held];
        step.row(head.layer_place, head.head_place, row, from, out);
        if head.heads > 1 {
            let mut other = vec![0f32; held];
            for place in head.head_place + 1..head.head_place + head.heads {
                step.row(head.layer_place, place, row, from, &mut other);
                out.iter_mut().zip(&other).for_each(|(sum, weight)| *sum += weight);
            }
            out.iter_mut().for_each(|sum| *sum /= head.heads as f32);
        }
    }

    fn place(&self, query: usize) -> Option<(&StepMaps, usize)> {
        let (step, row) = (*self.place_of.get(query)?)?;
        Some((&self.steps[step as usize], row as usize))
    }
}
