//! Products on AMX, the matrix unit of newer Intel CPUs, which multiplies tiles of 16 rows: bf16 by bf16
//! into f32, exactly in each product, at 16 times the rate of AVX-512.
//!
//! An f32 is the exact sum of three bf16, its 24 bits cut into 8, 8 and 8, so f32 times f32 is a sum of
//! products of such [pieces], of which those below 2⁻²² of the whole are left out (Henry et al. 2019).
//! A bf16 weight is one piece, an f16 two. [`product`] adds them up.
//!
//! The instructions are written out, as the compiler's own are not stable yet. A thread's tiles are
//! configured before the first product of a kind, and released when it parks.

mod pieces;
mod product;

use std::arch::asm;
use std::cell::Cell;

pub(super) use pieces::{Columns, InTwelveBits, PiecedRows, Unfolded};
pub(super) use product::Product;

use super::simd::Amx;

/// Rows of a tile: tokens, or pairs of columns of weights.
const ROWS: usize = 16;
/// Bytes of a row.
const ROW_BYTES: usize = 64;

/// Whether this CPU multiplies tiles of bf16, and the system lets this program do so, which is asked for
/// here.
#[cfg(target_os = "linux")]
pub(super) fn available() -> bool {
    static AVAILABLE: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        use std::arch::x86_64::{__cpuid, __cpuid_count};
        const BF16: u32 = 1 << 22;
        const TILE: u32 = 1 << 24;
        let features = if __cpuid(0).eax >= 7 { __cpuid_count(7, 0).edx } else { 0 };
        const REQUEST_STATE: libc::c_long = 0x1023;
        const TILE_DATA: libc::c_long = 18;
        features & (BF16 | TILE) == BF16 | TILE
            // SAFETY: asks the system to keep tiles for the threads of this process; touches no memory.
            && unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST_STATE, TILE_DATA) } == 0
    })
}

/// Other systems have ways of their own to ask.
#[cfg(not(target_os = "linux"))]
pub(super) fn available() -> bool {
    false
}

/// The shapes of the eight tiles, as the CPU reads them.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

thread_local! {
    /// The rows of this thread's tiles; 0 while they have no shapes.
    static CONFIGURED: Cell<[u8; 8]> = const { Cell::new([0; 8]) };
}

/// Gives each of the eight tiles its rows, unless it has them; all are 64 bytes wide. (It takes the CPU
/// about as long as fifty products of tiles.)
///
/// # Safety
/// AMX must be [`available`]; rows are 1 to 16.
#[inline]
unsafe fn configure(rows: [u8; 8]) {
    if CONFIGURED.get() != rows {
        // SAFETY: the caller's promises.
        unsafe { configure_anew(rows) }
    }
}

#[cold]
unsafe fn configure_anew(rows: [u8; 8]) {
    let mut shapes =
        Shapes { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
    shapes.row_bytes[..8].fill(ROW_BYTES as u16);
    shapes.rows[..8].copy_from_slice(&rows);
    // SAFETY: the caller's promises; the shapes are as the CPU wants them.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &shapes, options(nostack, preserves_flags, readonly)) }
    CONFIGURED.set(rows);
}

/// Ends this thread's use of tiles, which the system then need not keep for it.
pub(super) fn release() {
    if CONFIGURED.replace([0; 8]) != [0; 8] {
        // SAFETY: tiles have been in use, so there is AMX.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) }
    }
}

/// Sets a tile to 0.
macro_rules! tile_zero {
    ($tile:literal) => {
        asm!(concat!("tilezero tmm", $tile), options(nostack, preserves_flags, nomem))
    };
}
/// Loads a tile whose rows are so many bytes apart.
macro_rules! tile_load {
    ($tile:literal, $from:expr, $apart:expr) => {
        asm!(
            concat!("tileloadd tmm", $tile, ", [{from} + {apart}]"),
            from = in(reg) $from, apart = in(reg) $apart, options(nostack, preserves_flags, readonly)
        )
    };
}
/// Stores a tile likewise.
macro_rules! tile_store {
    ($tile:literal, $to:expr, $apart:expr) => {
        asm!(
            concat!("tilestored [{to} + {apart}], tmm", $tile),
            to = in(reg) $to, apart = in(reg) $apart, options(nostack, preserves_flags)
        )
    };
}
/// Adds the products of a tile of rows and a tile of pairs of columns to a tile of sums: of bf16.
macro_rules! tile_multiply_bf16 {
    ($sums:literal, $x:literal, $weights:literal) => {
        asm!(
            concat!("tdpbf16ps tmm", $sums, ", tmm", $x, ", tmm", $weights),
            options(nostack, preserves_flags, nomem)
        )
    };
}
use {tile_load, tile_multiply_bf16, tile_store, tile_zero};
