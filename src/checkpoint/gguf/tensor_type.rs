//! The element types of GGUF tensors: their numbers, names and block sizes, as ggml defines them.

use crate::kernels::matmul::ElementType;

/// A type of ggml's.
#[derive(Debug)]
pub(in crate::checkpoint) struct TensorType {
    number: u32,
    /// As ggml calls it, in lower case.
    pub name: &'static str,
    /// Elements of a block, and its bytes.
    pub block: usize,
    pub block_bytes: usize,
}

/// Those that are loaded, and what to do about others.
pub(in crate::checkpoint) const SUPPORTED: &str = "f32, f16, bf16, q8_0, q4_0, q4_1, q4_k, q5_k or q6_k; \
    take the model in another quantisation, such as Q8_0 or Q4_K_M";

/// Those that models are stored in.
const TYPES: &[TensorType] = &[
    known(0, "f32", 1, 4),
    known(1, "f16", 1, 2),
    known(2, "q4_0", 32, 18),
    known(3, "q4_1", 32, 20),
    known(6, "q5_0", 32, 22),
    known(7, "q5_1", 32, 24),
    known(8, "q8_0", 32, 34),
    known(9, "q8_1", 32, 40),
    known(10, "q2_k", 256, 84),
    known(11, "q3_k", 256, 110),
    known(12, "q4_k", 256, 144),
    known(13, "q5_k", 256, 176),
    known(14, "q6_k", 256, 210),
    known(15, "q8_k", 256, 292),
    known(16, "iq2_xxs", 256, 66),
    known(17, "iq2_xs", 256, 74),
    known(18, "iq3_xxs", 256, 98),
    known(19, "iq1_s", 256, 50),
    known(20, "iq4_nl", 32, 18),
    known(21, "iq3_s", 256, 110),
    known(22, "iq2_s", 256, 82),
    known(23, "iq4_xs", 256, 136),
    known(24, "i8", 1, 1),
    known(25, "i16", 1, 2),
    known(26, "i32", 1, 4),
    known(27, "i64", 1, 8),
    known(28, "f64", 1, 8),
    known(29, "iq1_m", 256, 56),
    known(30, "bf16", 1, 2),
    known(34, "tq1_0", 256, 54),
    known(35, "tq2_0", 256, 66),
    known(39, "mxfp4", 32, 17),
];

const fn known(number: u32, name: &'static str, block: usize, block_bytes: usize) -> TensorType {
    TensorType { number, name, block, block_bytes }
}

impl TensorType {
    /// The type of a number in a file.
    pub fn of(number: u32) -> Option<&'static TensorType> {
        TYPES.iter().find(|known| known.number == number)
    }

    /// The type that we compute with; `None`: not loaded.
    pub fn element(&self) -> Option<ElementType> {
        ElementType::from_name(self.name)
    }
}

/// What llama.cpp calls a mixture of types, by its number (`general.file_type`).
pub(super) fn mixture(number: usize) -> Option<&'static str> {
    Some(match number {
        0 => "F32",
        1 => "F16",
        2 => "Q4_0",
        3 => "Q4_1",
        7 => "Q8_0",
        14 => "Q4_K_S",
        15 => "Q4_K_M",
        16 => "Q5_K_S",
        17 => "Q5_K_M",
        18 => "Q6_K",
        32 => "BF16",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_that_we_compute_with_is_known_and_has_our_blocks() {
        for element in ElementType::ALL {
            let known = TYPES.iter().find(|known| known.element() == Some(element)).unwrap();
            assert_eq!((known.block, known.block_bytes), (element.block_values(), element.block_bytes()));
            assert!(SUPPORTED.contains(known.name));
        }
    }
}
