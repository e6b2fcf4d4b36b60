//! Attention, recorded as it happens: [`selection`] says which layers and heads and [`kind`] which
//! queries and what of each row, [`recorder`] writes them to disk while the model runs, [`dump`] reads
//! them back, [`overview`] is what a page shows first, [`check`] looks for faults in what lies on the disk. SPEC.md describes the format for
//! other readers.

mod buffer;
pub mod check;
pub mod dump;
pub mod format;
pub mod kind;
mod layout;
pub mod memory;
pub mod overview;
pub mod projections;
pub mod recorder;
pub mod selection;
pub mod step_maps;
mod step_reader;
mod step_rows;
mod storage;
mod target;
mod top;
mod writer;

pub use check::{Checked, check};
pub use dump::{Dump, LayerStatistics, TopRows};
pub use format::{
    AblatedHeads, AttentionDtype, LayerHeads, Manifest, ModelInfo, StepRecord, TokenRecord, TokenRole,
};
pub use kind::{AttentionKind, QuerySelection, Rows};
pub use memory::{LastRow, LayerMap, ShownMap};
pub use overview::Overview;
pub use projections::Projections;
pub use recorder::Recorder;
pub use selection::Selection;
pub use step_maps::StepMaps;
pub use step_reader::LayerReader;
