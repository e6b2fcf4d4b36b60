//! One forward pass, as its blocks see it.

use super::mask::Mask;
use super::position::Angles;

/// What is fed, and behind what.
#[derive(Clone)]
pub(super) struct Step {
    /// Positions in the cache when the step starts.
    pub depth: usize,
    pub tokens: usize,
    pub mask: Mask,
    /// Of each kind of rotary positions in the model.
    pub angles: Vec<Angles>,
    /// Added to the scores of each head, `[heads, keys]`.
    pub bias: Option<Vec<f32>>,
}
