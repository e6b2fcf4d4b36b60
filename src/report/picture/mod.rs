//! Maps as pictures in files. Rows of maps come in one after another and are [pooled](pooling) as they
//! come; a [`Picture`] lays them out with titles, labels and a scale as a [scene](scene), which
//! [`png`] and [`svg`] write. The same picture is the same bytes every time.

mod axis;
pub mod layout;
pub mod letters;
pub mod palette;
pub mod png;
pub mod pooling;
pub mod scale;
pub mod scene;
pub mod svg;

pub use layout::{Arrangement, Picture};
pub use palette::Palette;
pub use pooling::{Pooled, PooledMaps};
pub use scale::{Curve, Scale};
