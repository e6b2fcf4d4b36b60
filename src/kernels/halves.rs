//! Rows of f32 as f16 and back, for those who store them so.

// As in `simd`: unsafe because of the CPU's instructions, which `Isa` proves.
#![allow(unsafe_op_in_unsafe_fn)]

use half::f16;

use super::Isa;
use super::simd::{Simd, dispatch};

/// Rounds to f16, in the order of bytes that files have (little-endian). The same bits on every tier.
///
/// # Panics
/// If lengths disagree.
pub fn to_f16(isa: Isa, values: &[f32], out: &mut [[u8; 2]]) {
    assert_eq!(values.len(), out.len(), "one half for every value");
    // SAFETY: nothing is asked for besides the tier's instructions.
    unsafe { narrow(isa, values, out) };
    if cfg!(target_endian = "big") {
        out.iter_mut().for_each(|half| half.reverse());
    }
}

/// Widens what [`to_f16`] wrote.
///
/// # Panics
/// If lengths disagree.
pub fn from_f16(isa: Isa, halves: &[[u8; 2]], out: &mut [f32]) {
    assert_eq!(halves.len(), out.len(), "one value for every half");
    if cfg!(target_endian = "big") {
        out.iter_mut().zip(halves).for_each(|(out, half)| *out = f16::from_le_bytes(*half).to_f32());
        return;
    }
    // SAFETY: nothing is asked for besides the tier's instructions.
    unsafe { widen(isa, halves, out) };
}

dispatch!(
    /// # Safety
    /// None besides the tier's.
    fn narrow = self::narrow_body [] (values: &[f32], out: &mut [[u8; 2]])
);

#[inline(always)]
unsafe fn narrow_body<S: Simd>(values: &[f32], out: &mut [[u8; 2]]) {
    let whole = values.len() / S::LANES * S::LANES;
    for at in (0..whole).step_by(S::LANES) {
        S::store_f16(out.as_mut_ptr().add(at).cast(), S::load(values.as_ptr().add(at)));
    }
    // What is left over, in a vector filled up with zeros.
    let (mut from, mut to) = ([0f32; 16], [[0u8; 2]; 16]);
    let left = values.len() - whole;
    from[..left].copy_from_slice(&values[whole..]);
    S::store_f16(to.as_mut_ptr().cast(), S::load(from.as_ptr()));
    out[whole..].copy_from_slice(&to[..left]);
}

dispatch!(
    /// # Safety
    /// None besides the tier's.
    fn widen = self::widen_body [] (halves: &[[u8; 2]], out: &mut [f32])
);

#[inline(always)]
unsafe fn widen_body<S: Simd>(halves: &[[u8; 2]], out: &mut [f32]) {
    let whole = halves.len() / S::LANES * S::LANES;
    for at in (0..whole).step_by(S::LANES) {
        S::store(out.as_mut_ptr().add(at), S::load_f16(halves.as_ptr().add(at).cast()));
    }
    let (mut from, mut to) = ([[0u8; 2]; 16], [0f32; 16]);
    let left = halves.len() - whole;
    from[..left].copy_from_slice(&halves[whole..]);
    S::store(to.as_mut_ptr(), S::load_f16(from.as_ptr().cast()));
    out[whole..].copy_from_slice(&to[..left]);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the crate that defines them for us, at every f16 and beside it.
    #[test]
    fn halves_are_the_nearest_on_every_tier() {
        let every = (0..=u16::MAX).map(f16::from_bits).filter(|half| half.is_finite()).map(f16::to_f32);
        let values: Vec<f32> = every
            .flat_map(|value| [value, value.next_up(), value.next_down(), value * 1.000_4, value / 1.000_4])
            .chain([f32::INFINITY, 1e30, f32::MIN_POSITIVE, 65519.0, 65520.0])
            .collect();
        for isa in Isa::available() {
            for len in [0, 1, 15, 16, 17, values.len()] {
                let mut halves = vec![[0xff; 2]; len];
                to_f16(isa, &values[..len], &mut halves);
                let mut widened = vec![f32::NAN; len];
                from_f16(isa, &halves, &mut widened);
                for ((value, half), widened) in values.iter().zip(&halves).zip(&widened) {
                    let expected = f16::from_f32_const(*value);
                    assert_eq!(*half, expected.to_le_bytes(), "{isa}: {value:e}");
                    assert_eq!(*widened, expected.to_f32_const(), "{isa}: {value:e}");
                }
            }
        }
    }
}
