//! f32 values into the blocks of an [`ElementType`], rounded as ggml's reference quantisers do
//! (`quantize_row_*_ref` in its `ggml-quants.c`).

use half::{bf16, f16};

use super::blocks::{half, scales_and_minima};
use super::element::ElementType;

/// Encodes values as whole blocks. A block with a value that is not finite decodes to values that
/// are none either, so that a damaged weight does not turn into a plausible one.
///
/// # Panics
/// If the lengths do not agree, or for `q5_k` and `q6_k`, which are only read.
pub fn quantize(element: ElementType, values: &[f32], out: &mut [u8]) {
    assert_eq!(element.row_bytes(values.len()), Some(out.len()), "{element} needs whole blocks");
    let encode: fn(&[f32], &mut [u8]) = match element {
        ElementType::F32 => |values, out| out.copy_from_slice(&values[0].to_le_bytes()),
        ElementType::Bf16 => |values, out| out.copy_from_slice(&bf16::from_f32(values[0]).to_le_bytes()),
        ElementType::F16 => |values, out| out.copy_from_slice(&f16::from_f32(values[0]).to_le_bytes()),
        ElementType::Q8_0 => q8_0,
        ElementType::Q4_0 => q4_0,
        ElementType::Q4_1 => q4_1,
        ElementType::Q4K => q4_k,
        ElementType::Q5K | ElementType::Q6K => panic!("{element} is a type of files, not of memory"),
    };
    let blocks = values.chunks_exact(element.block_values());
    for (values, out) in blocks.zip(out.chunks_exact_mut(element.block_bytes())) {
        encode(values, out);
        if element.is_quantized() && !values.iter().all(|value| value.is_finite()) {
            put_half(out, f32::NAN);
        }
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

fn put_half(out: &mut [u8], value: f32) {
    out[..2].copy_from_slice(&f16::from_f32(value).to_le_bytes());
}

/// 1 / scale, or 0 where all is 0.
fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// The nearest integer, ties to even, below 2²²; beyond that about it. (`round_ties_even` is a call
/// where the compiler may not count on SSE 4.1, and `q4_k` rounds each value 44 times.)
fn nearest(value: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    (value + SHIFT) - SHIFT
}

fn q8_0(values: &[f32], out: &mut [u8]) {
    let largest = values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let scale = largest / 127.0;
    put_half(out, scale);
    let inverse = inverse(scale);
    for (value, out) in values.iter().zip(&mut out[2..]) {
        *out = (value * inverse).round() as i8 as u8;
    }
}

fn q4_0(values: &[f32], out: &mut [u8]) {
    // The value of largest magnitude, with its sign, becomes −8.
    let largest = values.iter().fold(0f32, |a, b| if b.abs() > a.abs() { *b } else { a });
    let scale = largest / -8.0;
    put_half(out, scale);
    let inverse = inverse(scale);
    pack_nibbles(values, &mut out[2..], |value| value * inverse + 8.5);
}

fn q4_1(values: &[f32], out: &mut [u8]) {
    let (minimum, maximum) = range(values);
    let scale = (maximum - minimum) / 15.0;
    put_half(out, scale);
    put_half(&mut out[2..], minimum);
    let inverse = inverse(scale);
    pack_nibbles(values, &mut out[4..], |value| (value - minimum) * inverse + 0.5);
}

/// Half of the values in the low four bits, the other half in the high ones.
fn pack_nibbles(values: &[f32], out: &mut [u8], q: impl Fn(f32) -> f32) {
    let q = |value: f32| (q(value) as u8).min(15);
    let (low, high) = values.split_at(values.len() / 2);
    for ((low, high), out) in low.iter().zip(high).zip(out) {
        *out = q(*low) | (q(*high) << 4);
    }
}

fn range(values: &[f32]) -> (f32, f32) {
    values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), v| (low.min(*v), high.max(*v)))
}

fn q4_k(values: &[f32], out: &mut [u8]) {
    let mut fits = [(0f32, 0f32); 8];
    for (fit, values) in fits.iter_mut().zip(values.chunks_exact(32)) {
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
    let q = |group: usize, value: f32| {
        let (s, m) = groups[group];
        let inverse = inverse(scale * f32::from(s));
        nearest((value + minimum * f32::from(m)) * inverse).clamp(0.0, 15.0) as u8
    };
    for (pair, (values, out)) in values.chunks_exact(64).zip(out[16..].chunks_exact_mut(32)).enumerate() {
        let (low, high) = values.split_at(32);
        for ((low, high), out) in low.iter().zip(high).zip(out) {
            *out = q(2 * pair, *low) | (q(2 * pair + 1, *high) << 4);
        }
    }
}

/// The scale and the (negated) minimum with which 4-bit integers come nearest to the values: for
/// each of some first guesses of the integers, the line of least squares (ggml's `make_qkx2_quants`).
fn scale_and_minimum(values: &[f32]) -> (f32, f32) {
    const LARGEST: f32 = 15.0;
    let (minimum, maximum) = range(values);
    let mut minimum = minimum.min(0.0);
    if !(maximum > minimum && (maximum - minimum).is_finite()) {
        return (0.0, -minimum);
    }
    // Large values count more.
    let mean_square = values.iter().map(|x| x * x).sum::<f32>() / values.len() as f32;
    let weights: Vec<f32> = values.iter().map(|x| mean_square.sqrt() + x.abs()).collect();
    let weighted = || values.iter().zip(&weights);
    let (sum_w, sum_x) = weighted().fold((0f32, 0f32), |(sw, sx), (x, w)| (sw + w, sx + w * x));
    let (lowest, range) = (minimum, maximum - minimum);
    let integer = |inverse: f32, x: f32| nearest(inverse * (x - lowest)).clamp(0.0, LARGEST);
    let error = |inverse: f32, scale: f32, minimum: f32| -> f32 {
        weighted().map(|(x, w)| w * (scale * integer(inverse, *x) + minimum - x).powi(2)).sum()
    };
    let mut scale = range / LARGEST;
    let mut best = error(LARGEST / range, scale, minimum);
    for step in 0..=20 {
        let inverse = (LARGEST - 1.0 + 0.1 * step as f32) / range;
        let (mut sum_l, mut sum_l2, mut sum_xl) = (0f32, 0f32, 0f32);
        for (x, w) in weighted() {
            let l = integer(inverse, *x);
            sum_l += w * l;
            sum_l2 += w * l * l;
            sum_xl += w * l * x;
        }
        let determinant = sum_w * sum_l2 - sum_l * sum_l;
        if determinant <= 0.0 {
            continue;
        }
        let mut this_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
        let mut this_minimum = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
        if this_minimum > 0.0 {
            (this_scale, this_minimum) = (sum_xl / sum_l2, 0.0);
        }
        let this_error = error(inverse, this_scale, this_minimum);
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
