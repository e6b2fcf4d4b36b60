//! What each head does: scores from its map, and the names of what they find.
//!
//! [`scores`] has the formulas and their papers, [`scorer`] takes rows as they come, from a running
//! model or from a dump, [`table`] shows the result.

pub mod scorer;
pub mod scores;
pub mod table;

pub use crate::capture::overview::repeated;
pub use scorer::{HeadScorer, KeySink};
pub use scores::{HeadKind, HeadScores};
pub use table::{Column, HeadTable};
