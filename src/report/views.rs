//! Maps beside the raw weights, made while the model runs: what the layers together attend to, and
//! how much of each value arrives.

use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::{Device, Tensor};

use crate::error::{Error, Result};
use crate::model::{AttentionObserver, AttentionRows, StepShape, ValueNorms};

/// Attention rollout (Abnar and Zuidema 2020): R₀ = I, Rₗ = (½ W̄ₗ + ½ I) Rₗ₋₁, W̄ₗ the mean over the
/// heads of layer *l*; ½ I stands for the residual stream. Rows sum to 1. Two square maps are held.
pub struct Rollout {
    last_layer: usize,
    tokens: usize,
    /// Behind the layers that are whole, `[tokens, tokens]`.
    before: Option<Tensor>,
    /// Of the layer at hand: its number, and the rows that have come.
    at_hand: Option<(usize, Vec<f32>)>,
}

impl Rollout {
    /// Through layers 0 to `last_layer`, of a text of so many tokens.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn new(last_layer: usize, tokens: usize) -> Result<Rollout> {
        let mut identity = vec![0f32; tokens * tokens];
        identity.iter_mut().step_by(tokens + 1).for_each(|weight| *weight = 1.0);
        let before = Tensor::from_vec(identity, (tokens, tokens), &Device::Cpu)?;
        Ok(Rollout { last_layer, tokens, before: Some(before), at_hand: None })
    }

    /// Takes rows of a layer, all of its heads; layers and rows in order.
    ///
    /// # Errors
    /// If rows or layers are missing before these.
    pub fn add(&mut self, rows: AttentionRows<'_>) -> Result<()> {
        let AttentionRows { layer, first_query, heads, queries, keys, .. } = rows;
        if self.at_hand.as_ref().is_some_and(|(at_hand, _)| *at_hand != layer) {
            self.end_layer()?;
        }
        let tokens = self.tokens;
        let (_, so_far) = self.at_hand.get_or_insert_with(|| (layer, Vec::with_capacity(tokens * tokens)));
        if so_far.len() != first_query * tokens {
            return Err(Error::Usage(format!("a rollout needs every query of layer {layer}, in order")));
        }
        let mut mean = vec![0f32; queries * keys];
        for head in 0..heads {
            mean.iter_mut().zip(rows.head(head)).for_each(|(mean, weight)| *mean += weight);
        }
        let share = 0.5 / heads as f32;
        mean.iter_mut().for_each(|mean| *mean *= share);
        let Some(before) = &self.before else { return Ok(()) };
        let mean = Tensor::from_vec(mean, (queries, keys), &Device::Cpu)?;
        let stayed = (before.narrow(0, first_query, queries)? * 0.5)?;
        let rolled = (mean.matmul(&before.narrow(0, 0, keys)?)? + stayed)?;
        so_far.extend(rolled.flatten_all()?.to_vec1::<f32>()?);
        Ok(())
    }

    fn end_layer(&mut self) -> Result<()> {
        if let Some((layer, rows)) = self.at_hand.take() {
            if rows.len() != self.tokens * self.tokens {
                return Err(Error::Usage(format!("a rollout needs every query of layer {layer}")));
            }
            self.before = Some(Tensor::from_vec(rows, (self.tokens, self.tokens), &Device::Cpu)?);
        }
        Ok(())
    }

    /// The rollout through the last layer, `[tokens, tokens]`.
    ///
    /// # Errors
    /// If rows are missing.
    pub fn finish(mut self) -> Result<Vec<f32>> {
        self.end_layer()?;
        match self.before {
            Some(rollout) => Ok(rollout.flatten_all()?.to_vec1()?),
            None => Ok(vec![]),
        }
    }
}

impl AttentionObserver for Rollout {
    fn wants(&self, layer: usize) -> bool {
        layer <= self.last_layer
    }

    fn begin_step(&mut self, step: StepShape) -> Result<()> {
        match (step.first_query, step.queries) == (0, self.tokens) {
            true => Ok(()),
            false => Err(Error::Usage("a rollout needs the whole text in one step".into())),
        }
    }

    fn observe(&mut self, rows: AttentionRows<'_>) -> Result<()> {
        self.add(rows)
    }
}

/// Value-weighted attention (Kobayashi et al. 2020): ‖αᵢⱼ vⱼ W_O‖, how much of key *j* a head really
/// adds to query *i*, in the units of the stream. Weights come in, and go on to another observer
/// multiplied with the norms of their values; rows do not sum to 1. Every step from the first on has to
/// be seen.
pub struct ValueWeighted<'a> {
    to: &'a mut dyn AttentionObserver,
    /// For each layer and each of its heads, of every position so far.
    norms: BTreeMap<usize, Vec<Vec<f32>>>,
}

impl<'a> ValueWeighted<'a> {
    /// Passes on what `to` wants.
    pub fn new(to: &'a mut dyn AttentionObserver) -> ValueWeighted<'a> {
        ValueWeighted { to, norms: BTreeMap::new() }
    }
}

impl AttentionObserver for ValueWeighted<'_> {
    fn wants(&self, layer: usize) -> bool {
        self.to.wants(layer)
    }

    fn wants_queries(&self, layer: usize, queries: Range<usize>) -> bool {
        self.to.wants_queries(layer, queries)
    }

    fn wants_value_norms(&self, layer: usize) -> bool {
        self.to.wants(layer)
    }

    fn begin_step(&mut self, step: StepShape) -> Result<()> {
        self.to.begin_step(step)
    }

    fn observe_value_norms(&mut self, norms: ValueNorms<'_>) -> Result<()> {
        let of_layer = self.norms.entry(norms.layer).or_default();
        of_layer.resize(norms.heads, vec![]);
        for (known, new) in of_layer.iter_mut().zip(norms.norms.chunks_exact(norms.positions)) {
            if known.len() < norms.first {
                return Err(Error::Usage(
                    "value-weighted attention needs every step from the first on".into(),
                ));
            }
            known.truncate(norms.first);
            known.extend_from_slice(new);
        }
        Ok(())
    }

    fn observe(&mut self, rows: AttentionRows<'_>) -> Result<()> {
        let Some(norms) = self.norms.get(&rows.layer) else {
            return Err(Error::Usage(format!(
                "value-weighted attention needs the values of layer {}",
                rows.layer
            )));
        };
        let mut weights = rows.weights.to_vec();
        let of_head = rows.queries * rows.keys;
        for (weights, norms) in weights.chunks_exact_mut(of_head).zip(norms) {
            for row in weights.chunks_exact_mut(rows.keys) {
                row.iter_mut().zip(norms).for_each(|(weight, norm)| *weight *= norm);
            }
        }
        self.to.observe(AttentionRows { weights: &weights, ..rows })
    }

    fn end_step(&mut self) -> Result<()> {
        self.to.end_step()
    }
}
