//! Tokens per second, what speculation gains, memory and its bandwidth: what `attend bench` prints;
//! and perplexity.

pub mod bandwidth;
pub mod memory;
pub mod perplexity;
pub mod speculation;
pub mod throughput;

pub use perplexity::{Perplexity, ScoredToken, SlidingWindow};
pub use throughput::{Speed, Test, TestKind, run};
