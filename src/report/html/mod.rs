//! The page: a dump in a browser, served on loopback or as one file.
//!
//! [`maps`] reads a dump as one map a head, over all its steps; [`survey`] passes over it once, for
//! the overview and the scores; [`tile`] makes pictures of any part at any zoom; [`document`] puts
//! the page together and [`answers`] answers what the served page asks. The client's modules are in
//! `assets/`: plain ES modules, joined into one script when the page is made.

pub mod answers;
pub mod code;
pub mod document;
pub mod maps;
pub mod scores;
pub mod survey;
pub mod tile;

pub use answers::{Answer, answer};
pub use document::{Chosen, Embedded, Page};
pub use maps::Maps;
