//! A map becomes something that a person looks at. Nothing here knows a model: a map (or its rows, as
//! they come from a running model or a dump) and its tokens' labels are enough.

pub mod blocks;
pub mod colour;
pub mod compare;
pub mod export;
pub mod grid;
pub mod heads;
pub mod html;
pub mod label;
pub mod picture;
pub mod rows;
pub mod table;
pub mod views;
pub mod watch;

pub use colour::ColourDepth;
pub use compare::Comparison;
pub use grid::HeadGrid;
pub use heads::{HeadScorer, HeadScores, HeadTable};
pub use label::label;
pub use picture::{Palette, Picture};
pub use rows::{MapOf, MapRows, MapSink};
pub use table::MapTable;
pub use views::{Rollout, ValueWeighted};
