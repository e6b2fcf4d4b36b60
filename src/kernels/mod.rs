//! The hot CPU code, behind safe functions that take slices and shapes and know nothing of models.
//!
//! [`matmul`] is most of the work, with weights of any [`element`] type ([`blocks`] decodes them,
//! [`quantize`] makes them); [`attention`] is two of its tiles with a softmax between, over a [`cache`];
//! [`norm`], [`activation`] and [`elementwise`] are the rest; [`row_statistics`] sums up rows of attention,
//! [`columns`] gathers their columns and [`halves`] rounds them, for those who record them; [`stream`] only
//! measures memory. [`simd`] holds the tiers, [`threads`] the pool. Everything here has a composition of
//! candle operations beside it in `model::ops` (`--kernels reference`).
//!
//! **Batch-invariant.** Every sum runs in one fixed order whatever the number of rows, threads or
//! pieces, so a prompt in one pass, in pieces and token by token gives the same bits.

pub mod activation;
#[cfg(target_arch = "x86_64")]
mod amx;
pub mod attention;
pub mod blocks;
pub mod cache;
pub mod columns;
pub mod element;
pub mod elementwise;
mod float_rows;
mod folded_panel;
mod folded_tile;
pub mod halves;
pub mod matmul;
pub(crate) mod memory;
pub mod norm;
mod output;
mod packed_matrix;
pub mod quantize;
mod quantized_panel;
pub mod quantized_rows;
mod quantized_tile;
mod raw_matrix;
pub mod row_statistics;
pub mod simd;
pub mod stream;
pub mod threads;
mod tile;

pub use memory::give_back_dropped;
pub use simd::Isa;
pub use threads::Pool;

/// Rows of a matrix that lie together in memory: one panel (see [`matmul::PackedMatrix`]).
pub const PANEL: usize = 32;
