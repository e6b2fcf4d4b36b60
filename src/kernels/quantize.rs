//! f32 values into the blocks of an [`ElementType`], rounded as ggml's reference quantisers do
//! (`quantize_row_*_ref` in its `ggml-quants.c`).

use std::sync::OnceLock;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::Isa;
use super::blocks::{half, scales_and_minima};
use super::element::ElementType;
use super::simd::{Simd, dispatch};

/// Encodes values as whole blocks. A block with a value that is not finite decodes to values that
/// are none either, so that a damaged weight does not turn into a plausible one.
///
/// # Panics
/// If the lengths do not agree, or for `q5_k` and `q6_k`, which are only read.
pub fn quantize(element: ElementType, values: &[f32], out: &mut [u8]) {
    static ISA: OnceLock<Isa> = OnceLock::new();
    assert_eq!(element.row_bytes(values.len()), Some(out.len()), "{element} needs whole blocks");
    // Where `ATTEND_ISA` names no tier, whoever computes says so; the plain one always runs.
    let isa = *ISA.get_or_init(|| Isa::detect().unwrap_or_else(|_| Isa::available()[0]));
    // SAFETY: the body's code is safe.
    unsafe { encode(isa, element, values, out) };
}

dispatch!(
    /// The same bits on every tier: the tiers only let the compiler use their instructions.
    ///
    /// # Safety
    /// None beyond the tier's instructions.
    fn encode = self::encode_body [] (element: ElementType, values: &[f32], out: &mut [u8])
);

// Unsafe only as `dispatch` wants it.
#[inline(always)]
unsafe fn encode_body<S: Simd>(element: ElementType, values: &[f32], out: &mut [u8]) {
    match element {
        ElementType::F32 => {
            let out = out.as_chunks_mut().0.iter_mut();
            out.zip(values).for_each(|(out, value)| *out = value.to_le_bytes());
        }
        ElementType::Bf16 => {
            let out = out.as_chunks_mut().0.iter_mut();
            out.zip(values).for_each(|(out, value)| *out = bf16::from_f32(*value).to_le_bytes());
        }
        ElementType::F16 => f16s(values, out),
        ElementType::Q8_0 => blocks::<34>(values, out, q8_0),
        ElementType::Q4_0 => blocks::<18>(values, out, q4_0),
        ElementType::Q4_1 => blocks::<20>(values, out, q4_1),
        ElementType::Q4K => {
            for (values, out) in values.as_chunks::<256>().0.iter().zip(out.as_chunks_mut::<144>().0) {
                q4_k(values, out);
                if !values.as_chunks().0.iter().all(all_finite) {
                    put_half(out, f32::NAN);
                }
            }
        }
        ElementType::Q5K | ElementType::Q6K => panic!("{element} is a type of files, not of memory"),
    }
}

/// Blocks of 32 values.
#[inline(always)]
fn blocks<const BYTES: usize>(values: &[f32], out: &mut [u8], encode: impl Fn(&Group, &mut [u8; BYTES])) {
    for (values, out) in values.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        encode(values, out);
        if !all_finite(values) {
            put_half(out, f32::NAN);
        }
    }
}

#[inline(always)]
fn f16s(values: &[f32], out: &mut [u8]) {
    // Some at a time, for which the CPU may have an instruction.
    const SOME: usize = 32;
    for (values, out) in values.chunks(SOME).zip(out.chunks_mut(2 * SOME)) {
        let mut halves = [f16::ZERO; SOME];
        halves[..values.len()].convert_from_f32_slice(values);
        out.as_chunks_mut().0.iter_mut().zip(halves).for_each(|(out, half)| *out = half.to_le_bytes());
    }
}

/// The blocks of all of `values`.
///
/// # Panics
/// As [`quantize`].
pub fn quantized(element: ElementType, values: &[f32]) -> Vec<u8> {
    let mut out = vec![0; element.row_bytes(values.len()).unwrap_or(0)];
    quantize(element, values, &mut out);
    out
}

/// What a scale serves.
type Group = [f32; 32];

#[inline(always)]
fn put_half(out: &mut [u8], value: f32) {
    out[..2].copy_from_slice(&f16::from_f32(value).to_le_bytes());
}

/// 1 / scale, or 0 where all is 0.
#[inline(always)]
fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// The nearest integer, ties to even, below 2²²; beyond that about it. (`round_ties_even` is a call
/// where the compiler may not count on SSE 4.1, and `q4_k` rounds each value 44 times.)
#[inline(always)]
fn nearest(value: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    (value + SHIFT) - SHIFT
}

/// The largest magnitude. Of floats without their sign the bits are in the same order, and integers
/// the compiler may compare in any order.
#[inline(always)]
fn magnitude(values: &Group) -> f32 {
    f32::from_bits(values.iter().fold(0, |largest, value| largest.max(value.to_bits() & 0x7fff_ffff)))
}

#[inline(always)]
fn all_finite(values: &Group) -> bool {
    magnitude(values).is_finite()
}

#[inline(always)]
fn q8_0(values: &Group, out: &mut [u8; 34]) {
    let scale = magnitude(values) / 127.0;
    put_half(out, scale);
    let inverse = inverse(scale);
    for (value, out) in values.iter().zip(&mut out[2..]) {
        *out = (value * inverse).round() as i8 as u8;
    }
}

#[inline(always)]
fn q4_0(values: &Group, out: &mut [u8; 18]) {
    // The value of largest magnitude, with its sign, becomes −8.
    let magnitude = magnitude(values);
    let largest = values.iter().find(|value| value.abs() == magnitude && magnitude > 0.0);
    let scale = largest.unwrap_or(&0.0) / -8.0;
    put_half(out, scale);
    let inverse = inverse(scale);
    pack_nibbles(values, &mut out[2..], |value| value * inverse + 8.5);
}

#[inline(always)]
fn q4_1(values: &Group, out: &mut [u8; 20]) {
    let (minimum, maximum) = range(values);
    let scale = (maximum - minimum) / 15.0;
    put_half(out, scale);
    put_half(&mut out[2..], minimum);
    let inverse = inverse(scale);
    pack_nibbles(values, &mut out[4..], |value| (value - minimum) * inverse + 0.5);
}

/// Half of the values in the low four bits, the other half in the high ones.
#[inline(always)]
fn pack_nibbles(values: &Group, out: &mut [u8], q: impl Fn(f32) -> f32) {
    let integers = values.map(|value| (q(value) as u8).min(15));
    let (low, high) = integers.split_at(16);
    for ((low, high), out) in low.iter().zip(high).zip(out) {
        *out = low | (high << 4);
    }
}

/// The least and the largest; infinities where all is NaN.
#[inline(always)]
fn range(values: &Group) -> (f32, f32) {
    // Of every eighth value, then of those: eight comparisons at a time.
    let (mut low, mut high) = ([f32::INFINITY; 8], [f32::NEG_INFINITY; 8]);
    for values in values.as_chunks::<8>().0 {
        for ((low, high), value) in low.iter_mut().zip(&mut high).zip(values) {
            *low = if value < low { *value } else { *low };
            *high = if value > high { *value } else { *high };
        }
    }
    (low.into_iter().fold(f32::INFINITY, f32::min), high.into_iter().fold(f32::NEG_INFINITY, f32::max))
}

/// Σ term(i) over a group, eight at a time.
#[inline(always)]
fn sum(term: impl Fn(usize) -> f32) -> f32 {
    let mut sums = [0f32; 8];
    for at in 0..4 {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += term(8 * at + lane);
        }
    }
    sums.into_iter().sum()
}

#[inline(always)]
fn q4_k(values: &[f32; 256], out: &mut [u8; 144]) {
    let values: &[Group] = values.as_chunks().0;
    let mut fits = [(0f32, 0f32); 8];
    for (fit, values) in fits.iter_mut().zip(values) {
        *fit = scale_and_minimum(values);
    }
    let (scale, minimum) = fits.iter().fold((0f32, 0f32), |(s, m), fit| (s.max(fit.0), m.max(fit.1)));
    put_half(out, scale / 63.0);
    put_half(&mut out[2..], minimum / 63.0);
    let six_bits = |value: f32, largest: f32| nearest(value * 63.0 * inverse(largest)) as u8;
    let packed = &mut out[4..16];
    packed.fill(0);
    for (group, fit) in fits.iter().enumerate() {
        let (s, m) = (six_bits(fit.0, scale).min(63), six_bits(fit.1, minimum).min(63));
        if group < 4 {
            packed[group] |= s;
            packed[group + 4] |= m;
        } else {
            packed[group + 4] = (s & 15) | ((m & 15) << 4);
            packed[group - 4] |= (s >> 4) << 6;
            packed[group] |= (m >> 4) << 6;
        }
    }
    // The integers that come nearest under the scales as they were rounded.
    let (scale, minimum) = (half(out), half(&out[2..]));
    let groups = scales_and_minima(&out[4..16]);
    let integers = |group: usize| {
        let (s, m) = groups[group];
        let (inverse, minimum) = (inverse(scale * f32::from(s)), minimum * f32::from(m));
        values[group].map(|value| nearest((value + minimum) * inverse).clamp(0.0, LARGEST) as u8)
    };
    for (pair, out) in out[16..].chunks_exact_mut(32).enumerate() {
        let (low, high) = (integers(2 * pair), integers(2 * pair + 1));
        for ((low, high), out) in low.iter().zip(high).zip(out) {
            *out = low | (high << 4);
        }
    }
}

/// Of 4-bit integers.
const LARGEST: f32 = 15.0;

/// The scale and the (negated) minimum with which 4-bit integers come nearest to the values: for
/// each of some first guesses of the integers, the line of least squares (ggml's `make_qkx2_quants`).
#[inline(always)]
fn scale_and_minimum(values: &Group) -> (f32, f32) {
    let (minimum, maximum) = range(values);
    let mut minimum = minimum.min(0.0);
    if !(maximum > minimum && (maximum - minimum).is_finite()) {
        return (0.0, -minimum);
    }
    // Large values count more.
    let root_mean_square = (sum(|i| values[i] * values[i]) / values.len() as f32).sqrt();
    let weights = values.map(|x| root_mean_square + x.abs());
    let weighted = values.map(|x| (root_mean_square + x.abs()) * x);
    let (sum_w, sum_x) = (sum(|i| weights[i]), sum(|i| weighted[i]));
    let (lowest, range) = (minimum, maximum - minimum);
    let integers = |inverse: f32| values.map(|x| nearest(inverse * (x - lowest)).clamp(0.0, LARGEST));
    let error = |integers: &Group, scale: f32, minimum: f32| {
        sum(|i| {
            let off = scale * integers[i] + minimum - values[i];
            weights[i] * (off * off)
        })
    };
    let mut scale = range / LARGEST;
    let mut best = error(&integers(LARGEST / range), scale, minimum);
    for step in 0..=20 {
        let l = integers((LARGEST - 1.0 + 0.1 * step as f32) / range);
        let sum_l = sum(|i| weights[i] * l[i]);
        let sum_l2 = sum(|i| weights[i] * l[i] * l[i]);
        let sum_xl = sum(|i| weighted[i] * l[i]);
        let determinant = sum_w * sum_l2 - sum_l * sum_l;
        if determinant <= 0.0 {
            continue;
        }
        let mut this_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
        let mut this_minimum = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
        if this_minimum > 0.0 {
            (this_scale, this_minimum) = (sum_xl / sum_l2, 0.0);
        }
        let this_error = error(&l, this_scale, this_minimum);
        if this_error < best {
            (best, scale, minimum) = (this_error, this_scale, this_minimum);
        }
    }
    (scale, -minimum)
}

#[cfg(test)]
mod tests {
    use candle_core::quantized::{GgmlDType, QTensor};
    use candle_core::{Device, Tensor};

    use super::*;
    use crate::kernels::blocks::dequantize;

    /// Roughly normal, of changing size, with whole blocks of zeros, of one sign and of one value.
    fn values(len: usize) -> Vec<f32> {
        let noise = |i: usize| (i.wrapping_mul(2_654_435_761) >> 7) % 2003;
        (0..len)
            .map(|i| {
                let sum: usize = (0..6).map(|k| noise(6 * i + k)).sum();
                let value = (sum as f32 - 6006.0) / 1400.0 * 2f32.powi((i / 256 % 9) as i32 - 6);
                match i / 256 % 8 {
                    5 => 0.0,
                    6 => value.abs() + 0.5,
                    7 if i % 256 < 32 => 0.25,
                    _ => value,
                }
            })
            .collect()
    }

    fn by_candle(values: &[f32], ggml: GgmlDType) -> Vec<u8> {
        let tensor = Tensor::from_slice(values, (1, values.len()), &Device::Cpu).unwrap();
        QTensor::quantize(&tensor, ggml).unwrap().data().unwrap().into_owned()
    }

    #[test]
    fn blocks_of_32_are_those_of_candle() {
        let values = values(32 * 256);
        for (element, ggml) in [
            (ElementType::Q8_0, GgmlDType::Q8_0),
            (ElementType::Q4_0, GgmlDType::Q4_0),
            (ElementType::Q4_1, GgmlDType::Q4_1),
        ] {
            assert!(quantized(element, &values) == by_candle(&values, ggml), "{element}");
        }
    }

    #[test]
    fn q4_k_is_nearer_than_candles_search_and_than_q4_1() {
        let values = values(64 * 256);
        let error = |element: ElementType, bytes: &[u8]| -> f64 {
            let mut decoded = vec![0f32; values.len()];
            dequantize(element, bytes, &mut decoded);
            decoded.iter().zip(&values).map(|(a, b)| f64::from(a - b).powi(2)).sum()
        };
        let ours = error(ElementType::Q4K, &quantized(ElementType::Q4K, &values));
        let candle = error(ElementType::Q4K, &by_candle(&values, GgmlDType::Q4K));
        let q4_1 = error(ElementType::Q4_1, &quantized(ElementType::Q4_1, &values));
        assert!(ours > 0.0 && ours <= candle && ours < 1.05 * q4_1, "{ours} {candle} {q4_1}");
    }

    #[test]
    fn what_a_block_holds_exactly_comes_back() {
        for element in [ElementType::Q8_0, ElementType::Q4_0, ElementType::Q4_1] {
            let bytes = quantized(element, &values(1024));
            let mut decoded = vec![0f32; 1024];
            dequantize(element, &bytes, &mut decoded);
            let mut again = vec![0f32; 1024];
            dequantize(element, &quantized(element, &decoded), &mut again);
            for (a, b) in decoded.iter().zip(&again) {
                // The scale is rounded to f16 once more, from a slightly other largest value.
                assert!((a - b).abs() <= a.abs() * 2e-3, "{element}: {a} became {b}");
            }
        }
    }

    #[test]
    fn a_value_that_is_not_finite_stays_so() {
        for element in [ElementType::Q8_0, ElementType::Q4_0, ElementType::Q4_1, ElementType::Q4K] {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut values = values(256);
                values[17] = bad;
                let mut decoded = vec![0f32; 256];
                dequantize(element, &quantized(element, &values), &mut decoded);
                assert!(!decoded[17].is_finite(), "{element}: {bad} became {}", decoded[17]);
            }
        }
    }
}
