//! Heads that are silenced while the model runs: what a head is for shows in what is lost without it.
//!
//! An intervention belongs to a sequence ([`KvCache::silence`](super::KvCache::silence)): all of its
//! keys and values depend on it, so it is set before the first token and stays.

use std::collections::BTreeMap;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::config::ModelConfig;
use super::mask::Mask;
use super::step::Step;
use crate::error::{Error, Result};

/// What stands in for a silenced head.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Silence {
    /// Nothing: its slice of the output projection's input is 0.
    #[default]
    Zero,
    /// The mean of its own outputs at the positions up to the query (where there is no causal mask: at
    /// all positions read so far).
    Mean,
    /// The mean of the values that the query may see: every such key has the same weight. Observers
    /// see these weights.
    Uniform,
}

impl Silence {
    /// `zero`, `mean` or `uniform`.
    pub fn name(self) -> &'static str {
        match self {
            Silence::Zero => "zero",
            Silence::Mean => "mean",
            Silence::Uniform => "uniform",
        }
    }
}

/// Which heads of a model are silenced, and how.
///
/// ```
/// use attend::model::{Forward, HeadIntervention, Silence};
///
/// # fn main() -> attend::Result<()> {
/// let decoder = attend::Checkpoint::embedded()?.load(&Default::default())?;
/// let mut without = HeadIntervention::new(decoder.config());
/// without.silence(2, 0, Silence::Zero)?; // its induction head
/// let mut cache = decoder.new_cache(4)?;
/// cache.silence(without)?;
/// let logits = decoder.forward(&[1, 2, 3], &mut cache, Forward::default())?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadIntervention {
    layers: usize,
    heads: usize,
    /// By layer and head.
    silenced: BTreeMap<(usize, usize), Silence>,
}

impl HeadIntervention {
    /// One that changes nothing yet, for models of these sizes.
    pub fn new(config: &ModelConfig) -> HeadIntervention {
        HeadIntervention { layers: config.layers, heads: config.heads, silenced: BTreeMap::new() }
    }

    /// Silences a head; the last call for a head counts.
    ///
    /// # Errors
    /// If the model has no such head.
    pub fn silence(&mut self, layer: usize, head: usize, how: Silence) -> Result<()> {
        if layer >= self.layers || head >= self.heads {
            return Err(Error::Usage(format!(
                "there is no head {layer}.{head}: the model has layers 0 to {} with heads 0 to {}",
                self.layers - 1,
                self.heads - 1
            )));
        }
        self.silenced.insert((layer, head), how);
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.silenced.is_empty()
    }

    /// Layer, head and what stands in for it, in ascending order.
    pub fn silenced(&self) -> impl Iterator<Item = (usize, usize, Silence)> + '_ {
        self.silenced.iter().map(|((layer, head), how)| (*layer, *head, *how))
    }

    pub(super) fn fits(&self, config: &ModelConfig) -> bool {
        (self.layers, self.heads) == (config.layers, config.heads)
    }

    /// The heads of a layer that one thing stands in for.
    fn heads(&self, layer: usize, how: Silence) -> Vec<usize> {
        let of_layer = self.silenced.range((layer, 0)..(layer + 1, 0));
        of_layer.filter(|(_, silence)| **silence == how).map(|((_, head), _)| *head).collect()
    }
}

/// An intervention at work in one sequence.
pub(super) struct Silencer {
    pub intervention: HeadIntervention,
    /// For each layer the sums of the outputs of those heads whose mean is wanted, up to each position:
    /// `[positions][such heads][head_dim]`. Kept by position, so that a sequence can be cut back.
    sums: Vec<Vec<f64>>,
}

impl Silencer {
    pub fn new(intervention: HeadIntervention) -> Silencer {
        let sums = vec![vec![]; intervention.layers];
        Silencer { intervention, sums }
    }

    /// Before attention: the queries of heads that are to attend uniformly become 0, in rows that begin
    /// with the queries `[heads · head_dim]`, and with them all their scores; so do their biases, in a
    /// step of their own.
    pub fn level(
        &self,
        layer: usize,
        rows: Tensor,
        step: &Step,
        head_dim: usize,
    ) -> Result<(Tensor, Option<Step>)> {
        let heads = self.intervention.heads(layer, Silence::Uniform);
        if heads.is_empty() {
            return Ok((rows, None));
        }
        let rows = changed(rows, |row, _| {
            heads.iter().for_each(|head| row[head * head_dim..][..head_dim].fill(0.0));
        })?;
        let step = step.bias.is_some().then(|| {
            let mut step = step.clone();
            let keys = step.depth + step.tokens;
            if let Some(bias) = &mut step.bias {
                heads.iter().for_each(|head| bias[head * keys..][..keys].fill(0.0));
            }
            step
        });
        Ok((rows, step))
    }

    /// After attention, `attended` `[tokens, heads · head_dim]`: what stands in for the heads' outputs.
    pub fn replace(
        &mut self,
        layer: usize,
        attended: Tensor,
        step: &Step,
        head_dim: usize,
    ) -> Result<Tensor> {
        let zero = self.intervention.heads(layer, Silence::Zero);
        let mean = self.intervention.heads(layer, Silence::Mean);
        if zero.is_empty() && mean.is_empty() {
            return Ok(attended);
        }
        let width = mean.len() * head_dim;
        let sums = &mut self.sums[layer];
        assert!(sums.len() >= step.depth * width, "the sums of every position before the step");
        sums.truncate(step.depth * width);
        let mut running = match step.depth {
            0 => vec![0.0; width],
            _ => sums[sums.len() - width..].to_vec(),
        };
        let mut sum_up = |row: &[f32]| {
            let outputs = mean.iter().flat_map(|head| &row[head * head_dim..][..head_dim]);
            running.iter_mut().zip(outputs).for_each(|(sum, output)| *sum += f64::from(*output));
            sums.extend_from_slice(&running);
        };
        if !mean.is_empty() {
            attended.to_vec2::<f32>()?.iter().for_each(|row| sum_up(row));
        }
        let last = step.depth + step.tokens - 1;
        changed(attended, |row, token| {
            zero.iter().for_each(|head| row[head * head_dim..][..head_dim].fill(0.0));
            let up_to = if step.mask == Mask::Causal { step.depth + token } else { last };
            let outputs = mean.iter().flat_map(|head| head * head_dim..(head + 1) * head_dim);
            for (at, sum) in outputs.zip(&sums[up_to * width..]) {
                row[at] = (sum / (up_to + 1) as f64) as f32;
            }
        })
    }
}

/// Rows of f32, each changed on the CPU; `change` gets a row and its number.
fn changed(rows: Tensor, change: impl Fn(&mut [f32], usize)) -> Result<Tensor> {
    let (_, width) = rows.dims2()?;
    let mut values = rows.flatten_all()?.to_vec1::<f32>()?;
    values.chunks_exact_mut(width).enumerate().for_each(|(number, row)| change(row, number));
    Ok(Tensor::from_vec(values, rows.shape(), rows.device())?)
}
