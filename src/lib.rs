//! attend generates text with decoder-only transformers and shows what every head attended to
//! while it did so; of encoders it shows the attention.
//!
//! Data flows one way: [`checkpoint`] → [`model`] → [`generation`] → [`capture`] → [`report`]; the
//! hot arithmetic is in [`kernels`], timings and perplexity in [`measure`].
//!
//! ```no_run
//! use attend::model::{AttentionObserver, AttentionRows, Forward};
//! use attend::{Checkpoint, LoadOptions, Result};
//!
//! /// Prints how much of its attention each head gives to the first token.
//! struct FirstToken;
//!
//! impl AttentionObserver for FirstToken {
//!     fn wants(&self, _layer: usize) -> bool {
//!         true
//!     }
//!
//!     fn observe(&mut self, rows: AttentionRows<'_>) -> Result<()> {
//!         for head in 0..rows.heads {
//!             // [queries, keys]; each row sums to 1.
//!             let first: f32 = rows.head(head).chunks(rows.keys).map(|row| row[0]).sum();
//!             println!("layer {} head {head}: {:.2}", rows.layer, first / rows.queries as f32);
//!         }
//!         Ok(())
//!     }
//! }
//!
//! # fn main() -> Result<()> {
//! let checkpoint = Checkpoint::open("SmolLM2-135M-Instruct".as_ref())?;
//! let decoder = checkpoint.load(&LoadOptions::default())?;
//! let prompt = checkpoint.tokenizer()?.encode("The cat sat on the mat")?;
//! let mut cache = decoder.new_cache(64)?;
//! let request = Forward { observer: Some(&mut FirstToken), ..Forward::default() };
//! let logits = decoder.forward(&prompt.ids, &mut cache, request)?; // [1, vocabulary]
//! # Ok(())
//! # }
//! ```

pub mod capture;
pub mod checkpoint;
pub mod error;
pub mod generation;
pub mod kernels;
pub mod measure;
pub mod model;
pub mod report;

pub use checkpoint::{Checkpoint, LoadOptions};
pub use error::{Error, Result};
