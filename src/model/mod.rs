//! The forward pass, readable top to bottom: [`decoder`] embeds the tokens and passes them through
//! its [`block`]s, each [`attention`] and then [`mlp`] (or a mixture of experts) on a residual stream.
//!
//! `model` knows no files and no families: [`config::ModelConfig`] describes the difference between
//! models, and a [`parameter::ParameterSource`] fills the parameters. [`ops`] is the one device seam.

pub mod attention;
pub mod block;
pub mod config;
pub mod decoder;
mod embedding;
mod experts;
pub mod intervention;
pub mod kv_cache;
mod loader;
pub mod mask;
pub mod mlp;
pub mod observer;
pub mod ops;
pub mod parameter;
pub mod position;
pub mod precision;
mod step;
mod stream;
mod value_norms;

pub use config::ModelConfig;
pub use decoder::{Decoder, Forward, LogitRows};
pub use intervention::{HeadIntervention, Silence};
pub use kv_cache::KvCache;
pub use mask::Mask;
pub use observer::{AttentionObserver, AttentionRows, Projected, RowsShape, StepShape, TakeRows, ValueNorms};
pub use ops::{KernelChoice, Ops};
pub use parameter::{Module, Parameter, ParameterSource};
pub use stream::Stream;
