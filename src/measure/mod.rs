//! Tokens per second, memory and its bandwidth: what `attend bench` prints; and perplexity.

pub mod bandwidth;
pub mod memory;
pub mod perplexity;
pub mod throughput;

pub use perplexity::{Perplexity, ScoredToken, SlidingWindow};
pub use throughput::{Speed, Test, TestKind, run};
