//! A map becomes something that a person looks at. Nothing here knows a model: a map and its
//! tokens' labels are enough.

pub mod colour;
pub mod html;
pub mod label;
pub mod table;

pub use colour::ColourDepth;
pub use label::label;
pub use table::MapTable;
