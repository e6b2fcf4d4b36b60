//! Tokens per second, what speculation gains, memory and its bandwidth: what `attend bench` prints;
//! perplexity, and what each head is worth to a text.

pub mod bandwidth;
pub mod effect;
pub mod memory;
pub mod perplexity;
pub mod speculation;
pub mod throughput;

pub use effect::{HeadEffect, HeadEffects};
pub use perplexity::{Perplexity, ScoredToken, SlidingWindow};
pub use throughput::{Speed, Test, TestKind, run};
