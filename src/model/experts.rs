//! A mixture of experts in place of a layer's MLP (Shazeer et al. 2017; Jiang et al. 2024): a router
//! chooses for each token a few MLPs, whose outputs are weighed and added.

use candle_core::Tensor;

use super::config::Experts;
use super::loader::LayerLoader;
use super::mlp::Mlp;
use super::ops::{Linear, Ops};
use super::parameter::LayerModule;
use crate::error::Result;

pub(super) struct ExpertMlp {
    router: Linear,
    experts: Vec<Mlp>,
    /// How many each token passes.
    chosen: usize,
    /// Whether their weights are made to sum to 1.
    normalized: bool,
    /// One that every token passes, and the gate before it.
    shared: Option<(Mlp, Linear)>,
}

/// The tokens that go to one expert, and the weight of its answer for each.
#[derive(Clone, Default)]
struct Assigned {
    tokens: Vec<u32>,
    weights: Vec<f32>,
}

impl ExpertMlp {
    pub(super) fn new(load: LayerLoader<'_>, experts: &Experts) -> Result<ExpertMlp> {
        use LayerModule::{Expert, Router, SharedExpert, SharedExpertGate};
        let hidden = load.config().hidden;
        let expert = |index| Mlp::new(load, |projection| Expert(index, projection), experts.intermediate);
        let shared = |width| -> Result<_> {
            Ok((Mlp::new(load, SharedExpert, width)?, load.linear(&[(SharedExpertGate, 1)], hidden, false)?))
        };
        Ok(ExpertMlp {
            router: load.linear(&[(Router, experts.count)], hidden, false)?,
            experts: (0..experts.count).map(expert).collect::<Result<_>>()?,
            chosen: experts.chosen,
            normalized: experts.normalized,
            shared: experts.shared_intermediate.map(shared).transpose()?,
        })
    }

    /// `normed` and the result: `[tokens, hidden]`.
    pub(super) fn forward(&self, ops: &Ops, normed: &Tensor) -> Result<Tensor> {
        let mut sum = match &self.shared {
            None => normed.zeros_like()?,
            Some((mlp, gate)) => {
                let share = candle_nn::ops::sigmoid(&ops.linear(normed, gate)?)?; // [tokens, 1]
                mlp.forward(ops, normed)?.broadcast_mul(&share)?
            }
        };
        let scores = ops.linear(normed, &self.router)?.to_vec2::<f32>()?; // [tokens, experts]
        // In the order of the experts, so that a token's sum does not depend on its neighbours.
        for (expert, assigned) in self.experts.iter().zip(self.assign(&scores)) {
            if assigned.tokens.is_empty() {
                continue;
            }
            let count = assigned.tokens.len();
            let tokens = Tensor::from_vec(assigned.tokens, count, normed.device())?;
            let weights = Tensor::from_vec(assigned.weights, (count, 1), normed.device())?;
            let answers = expert.forward(ops, &normed.index_select(&tokens, 0)?)?;
            sum = sum.index_add(&tokens, &answers.broadcast_mul(&weights)?, 0)?;
        }
        Ok(sum)
    }

    /// Each token's likeliest experts, by the softmax of their scores.
    fn assign(&self, scores: &[Vec<f32>]) -> Vec<Assigned> {
        let mut assigned = vec![Assigned::default(); self.experts.len()];
        for (token, scores) in (0..).zip(scores) {
            let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let powers: Vec<f32> = scores.iter().map(|score| (score - largest).exp()).collect();
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
            let order = &order[..self.chosen];
            let total: f32 = match self.normalized {
                true => order.iter().map(|expert| powers[*expert]).sum(),
                false => powers.iter().sum(),
            };
            for expert in order {
                assigned[*expert].tokens.push(token);
                assigned[*expert].weights.push(powers[*expert] / total);
            }
        }
        assigned
    }

    /// Bytes of weights that a single token's step reads.
    pub(super) fn bytes(&self) -> usize {
        let shared = self.shared.as_ref().map_or(0, |(mlp, gate)| mlp.bytes() + gate.bytes());
        self.router.bytes() + self.experts[0].bytes() * self.chosen + shared
    }
}
