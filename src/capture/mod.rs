//! Attention, recorded as it happens: [`selection`] says which layers and heads, [`recorder`]
//! writes them to disk while the model runs, [`dump`] reads them back. SPEC.md describes the
//! format for other readers.

pub mod dump;
pub mod format;
pub mod memory;
pub mod projections;
pub mod recorder;
pub mod selection;
mod step_file;
pub mod step_maps;
mod target;

pub use dump::Dump;
pub use format::{AttentionDtype, LayerHeads, Manifest, ModelInfo, StepRecord, TokenRecord, TokenRole};
pub use memory::{LayerMap, ShownMap};
pub use projections::Projections;
pub use recorder::Recorder;
pub use selection::Selection;
pub use step_maps::StepMaps;
