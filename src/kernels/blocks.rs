//! The values in a row of any [`ElementType`], from the bytes that files hold: ggml's block layouts
//! (`block_q8_0` and so on in its `ggml-common.h`).

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::element::ElementType;

/// Decodes whole blocks.
///
/// # Panics
/// If `bytes` is not a whole number of blocks, or `out` not as long as they say.
pub fn dequantize(element: ElementType, bytes: &[u8], out: &mut [f32]) {
    let (block_bytes, block_values) = (element.block_bytes(), element.block_values());
    assert!(bytes.len().is_multiple_of(block_bytes), "{element} needs whole blocks");
    assert_eq!(bytes.len() / block_bytes * block_values, out.len(), "{element} values");
    let decode: fn(&[u8], &mut [f32]) = match element {
        ElementType::F32 => return each(bytes, out, f32::from_le_bytes),
        ElementType::Bf16 => return each(bytes, out, |bytes| bf16::from_le_bytes(bytes).to_f32()),
        ElementType::F16 => return f16s(bytes, out),
        ElementType::Q8_0 => q8_0,
        ElementType::Q4_0 => q4_0,
        ElementType::Q4_1 => q4_1,
        ElementType::Q4K => q4_k,
        ElementType::Q5K => q5_k,
        ElementType::Q6K => q6_k,
    };
    for (bytes, out) in bytes.chunks_exact(block_bytes).zip(out.chunks_exact_mut(block_values)) {
        decode(bytes, out);
    }
}

fn each<const SIZE: usize>(bytes: &[u8], out: &mut [f32], decode: impl Fn([u8; SIZE]) -> f32) {
    for (bytes, out) in bytes.as_chunks::<SIZE>().0.iter().zip(out) {
        *out = decode(*bytes);
    }
}

fn f16s(bytes: &[u8], out: &mut [f32]) {
    // Some at a time, for which the CPU may have an instruction.
    const SOME: usize = 32;
    for (bytes, out) in bytes.chunks(2 * SOME).zip(out.chunks_mut(SOME)) {
        let mut halves = [f16::ZERO; SOME];
        for (bytes, half) in bytes.as_chunks().0.iter().zip(&mut halves) {
            *half = f16::from_le_bytes(*bytes);
        }
        halves[..out.len()].convert_to_f32_slice(out);
    }
}

/// The f16 at the start of some bytes.
pub(super) fn half(bytes: &[u8]) -> f32 {
    f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

/// The scale and the minimum of each 32 values of a `q4_k` or `q5_k` block, as 6-bit integers.
pub(super) fn scales_and_minima(packed: &[u8]) -> [(u8, u8); 8] {
    std::array::from_fn(|group| {
        if group < 4 {
            (packed[group] & 63, packed[group + 4] & 63)
        } else {
            let low = packed[group + 4];
            ((low & 15) | (packed[group - 4] >> 6 << 4), (low >> 4) | (packed[group] >> 6 << 4))
        }
    })
}

fn q8_0(block: &[u8], out: &mut [f32]) {
    let scale = half(block);
    for (q, out) in block[2..].iter().zip(out) {
        *out = f32::from(*q as i8) * scale;
    }
}

fn q4_0(block: &[u8], out: &mut [f32]) {
    let scale = half(block);
    let (low, high) = out.split_at_mut(16);
    for ((q, low), high) in block[2..].iter().zip(low).zip(high) {
        *low = (f32::from(q & 15) - 8.0) * scale;
        *high = (f32::from(q >> 4) - 8.0) * scale;
    }
}

fn q4_1(block: &[u8], out: &mut [f32]) {
    let (scale, minimum) = (half(block), half(&block[2..]));
    let (low, high) = out.split_at_mut(16);
    for ((q, low), high) in block[4..].iter().zip(low).zip(high) {
        *low = f32::from(q & 15) * scale + minimum;
        *high = f32::from(q >> 4) * scale + minimum;
    }
}

fn q4_k(block: &[u8], out: &mut [f32]) {
    let (scale, minimum) = (half(block), half(&block[2..]));
    let groups = scales_and_minima(&block[4..16]);
    for (pair, (bytes, out)) in block[16..].chunks_exact(32).zip(out.chunks_exact_mut(64)).enumerate() {
        for (part, out) in out.chunks_exact_mut(32).enumerate() {
            let (s, m) = groups[2 * pair + part];
            let (scale, minimum) = (scale * f32::from(s), minimum * f32::from(m));
            for (q, out) in bytes.iter().zip(out) {
                *out = f32::from((q >> (4 * part)) & 15) * scale - minimum;
            }
        }
    }
}

fn q5_k(block: &[u8], out: &mut [f32]) {
    let (scale, minimum) = (half(block), half(&block[2..]));
    let groups = scales_and_minima(&block[4..16]);
    let high = &block[16..48];
    for (pair, (bytes, out)) in block[48..].chunks_exact(32).zip(out.chunks_exact_mut(64)).enumerate() {
        for (part, out) in out.chunks_exact_mut(32).enumerate() {
            let group = 2 * pair + part;
            let (s, m) = groups[group];
            let (scale, minimum) = (scale * f32::from(s), minimum * f32::from(m));
            for ((q, high), out) in bytes.iter().zip(high).zip(out) {
                let q = ((q >> (4 * part)) & 15) | (((high >> group) & 1) << 4);
                *out = f32::from(q) * scale - minimum;
            }
        }
    }
}

fn q6_k(block: &[u8], out: &mut [f32]) {
    let (low, rest) = block.split_at(128);
    let (high, rest) = rest.split_at(64);
    let (scales, scale) = rest.split_at(16);
    let scale = half(scale);
    // Half a block: 64 bytes of low bits, 32 of high bits, 8 scales; four runs of 32 values.
    for (part, out) in out.chunks_exact_mut(128).enumerate() {
        let (low, high, scales) = (&low[part * 64..], &high[part * 32..], &scales[part * 8..]);
        for (run, out) in out.chunks_exact_mut(32).enumerate() {
            for (at, out) in out.iter_mut().enumerate() {
                let four = (low[run % 2 * 32 + at] >> (run / 2 * 4)) & 15;
                let two = (high[at] >> (run * 2)) & 3;
                let q = i16::from(four | (two << 4)) - 32;
                *out = scale * f32::from(scales[run * 2 + at / 16] as i8) * f32::from(q);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::quantized::{GgmlDType, QTensor};
    use candle_core::{Device, Tensor};

    use super::*;

    /// The type as candle calls it.
    fn ggml(element: ElementType) -> GgmlDType {
        match element {
            ElementType::F32 => GgmlDType::F32,
            ElementType::Bf16 => GgmlDType::BF16,
            ElementType::F16 => GgmlDType::F16,
            ElementType::Q8_0 => GgmlDType::Q8_0,
            ElementType::Q4_0 => GgmlDType::Q4_0,
            ElementType::Q4_1 => GgmlDType::Q4_1,
            ElementType::Q4K => GgmlDType::Q4K,
            ElementType::Q5K => GgmlDType::Q5K,
            ElementType::Q6K => GgmlDType::Q6K,
        }
    }

    /// Values of changing size, a part of them zero.
    fn values(len: usize) -> Vec<f32> {
        (0..len)
            .map(|i| ((i * 7919 % 1013) as f32 - 480.0) / 300.0 * 2f32.powi((i / 256 % 9) as i32 - 6))
            .map(|value| if value.abs() < 1e-3 { 0.0 } else { value })
            .collect()
    }

    #[test]
    fn every_type_decodes_as_candle_does() {
        for element in ElementType::ALL {
            let tensor = Tensor::from_vec(values(8 * 512), (8, 512), &Device::Cpu).unwrap();
            let quantized = QTensor::quantize(&tensor, ggml(element)).unwrap();
            let expected: Vec<f32> =
                quantized.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let bytes = quantized.data().unwrap();
            assert_eq!(bytes.len(), 8 * element.row_bytes(512).unwrap(), "{element}");
            let mut ours = vec![f32::NAN; 8 * 512];
            dequantize(element, &bytes, &mut ours);
            assert_eq!(ours, expected, "{element}");
        }
    }

    /// Blocks of arbitrary bytes reach every bit of the layout, which quantised data need not.
    #[test]
    fn every_bit_of_a_block_counts_as_in_candle() {
        use candle_core::quantized::k_quants::{
            BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5K, BlockQ6K, BlockQ8_0, GgmlType,
        };
        fn theirs<B: GgmlType>(bytes: &[u8], out: &mut [f32]) {
            assert_eq!(bytes.len() % size_of::<B>(), 0);
            let mut blocks = vec![B::zeros(); bytes.len() / size_of::<B>()];
            // SAFETY: candle's blocks are plain integers and f16, `repr(C)`, of ggml's layout.
            unsafe {
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), blocks.as_mut_ptr().cast::<u8>(), bytes.len());
            }
            B::to_float(&blocks, out);
        }
        let mut state = 1u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        for element in ElementType::ALL.into_iter().filter(|element| element.is_quantized()) {
            let mut bytes: Vec<u8> = (0..64 * element.block_bytes()).map(|_| random()).collect();
            for block in bytes.chunks_exact_mut(element.block_bytes()) {
                // Finite scales: an exponent of all ones becomes a smaller one.
                let scales: &[usize] = match element {
                    ElementType::Q8_0 | ElementType::Q4_0 => &[1],
                    ElementType::Q6K => &[209],
                    _ => &[1, 3],
                };
                scales.iter().for_each(|at| block[*at] &= 0xbf);
            }
            let mut ours = vec![f32::NAN; 64 * element.block_values()];
            let mut expected = ours.clone();
            dequantize(element, &bytes, &mut ours);
            match element {
                ElementType::Q8_0 => theirs::<BlockQ8_0>(&bytes, &mut expected),
                ElementType::Q4_0 => theirs::<BlockQ4_0>(&bytes, &mut expected),
                ElementType::Q4_1 => theirs::<BlockQ4_1>(&bytes, &mut expected),
                ElementType::Q4K => theirs::<BlockQ4K>(&bytes, &mut expected),
                ElementType::Q5K => theirs::<BlockQ5K>(&bytes, &mut expected),
                ElementType::Q6K => theirs::<BlockQ6K>(&bytes, &mut expected),
                _ => unreachable!("only quantised types are here"),
            }
            assert_eq!(ours, expected, "{element}");
        }
    }
}
