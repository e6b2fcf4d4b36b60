pub mod checkpoint;
pub mod error;
pub mod generation;
pub mod kernels;
pub mod model;

pub use checkpoint::{Checkpoint, LoadOptions};
pub use error::{Error, Result};
