//! Tokens per second, memory and its bandwidth: what `attend bench` prints.

pub mod bandwidth;
pub mod memory;
pub mod throughput;

pub use throughput::{Speed, Test, TestKind, run};
