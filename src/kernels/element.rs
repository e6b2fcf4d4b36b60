//! How a weight is held, in files and in memory: one number each, or blocks of quantised ones.

/// A type of weights. The quantised ones are ggml's, as GGUF files hold them: a block of 32 or 256
/// neighbours in a row shares a scale (and in some types a minimum).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, serde::Serialize, serde::Deserialize)]
pub enum ElementType {
    #[serde(rename = "f32")]
    F32,
    #[serde(rename = "bf16")]
    Bf16,
    #[serde(rename = "f16")]
    F16,
    /// scale · q, q of 8 bits.
    #[serde(rename = "q8_0")]
    Q8_0,
    /// scale · (q − 8), q of 4 bits.
    #[serde(rename = "q4_0")]
    Q4_0,
    /// scale · q + minimum, q of 4 bits.
    #[serde(rename = "q4_1")]
    Q4_1,
    /// scale · q − minimum, q of 4 bits; the scales and minima of 32 are themselves 6 bits.
    #[serde(rename = "q4_k")]
    Q4K,
    /// As [`Q4K`](Self::Q4K), q of 5 bits.
    #[serde(rename = "q5_k")]
    Q5K,
    /// scale · (q − 32), q of 6 bits; the scales of 16 are themselves 8 bits.
    #[serde(rename = "q6_k")]
    Q6K,
}

impl ElementType {
    /// Every type.
    pub const ALL: [ElementType; 9] = [
        ElementType::F32,
        ElementType::Bf16,
        ElementType::F16,
        ElementType::Q8_0,
        ElementType::Q4_0,
        ElementType::Q4_1,
        ElementType::Q4K,
        ElementType::Q5K,
        ElementType::Q6K,
    ];

    /// Values of a block: what a row's length must be a multiple of.
    pub fn block_values(self) -> usize {
        match self {
            ElementType::F32 | ElementType::Bf16 | ElementType::F16 => 1,
            ElementType::Q8_0 | ElementType::Q4_0 | ElementType::Q4_1 => 32,
            ElementType::Q4K | ElementType::Q5K | ElementType::Q6K => 256,
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        match self {
            ElementType::F32 => 4,
            ElementType::Bf16 | ElementType::F16 => 2,
            ElementType::Q8_0 => 34,
            ElementType::Q4_0 => 18,
            ElementType::Q4_1 => 20,
            ElementType::Q4K => 144,
            ElementType::Q5K => 176,
            ElementType::Q6K => 210,
        }
    }

    pub fn is_quantized(self) -> bool {
        self.block_values() > 1
    }

    /// Bytes of a row; `None` where its length is no multiple of the block, or the size overflows.
    pub fn row_bytes(self, columns: usize) -> Option<usize> {
        if !columns.is_multiple_of(self.block_values()) {
            return None;
        }
        (columns / self.block_values()).checked_mul(self.block_bytes())
    }

    /// As `--dtype` names it: `f32`, `q4_k`.
    pub fn name(self) -> &'static str {
        match self {
            ElementType::F32 => "f32",
            ElementType::Bf16 => "bf16",
            ElementType::F16 => "f16",
            ElementType::Q8_0 => "q8_0",
            ElementType::Q4_0 => "q4_0",
            ElementType::Q4_1 => "q4_1",
            ElementType::Q4K => "q4_k",
            ElementType::Q5K => "q5_k",
            ElementType::Q6K => "q6_k",
        }
    }

    /// The type of a name.
    pub fn from_name(name: &str) -> Option<ElementType> {
        Self::ALL.into_iter().find(|element| element.name() == name)
    }
}

impl std::fmt::Display for ElementType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_serde_writes() {
        for element in ElementType::ALL {
            assert_eq!(serde_json::to_value(element).unwrap(), element.name());
            assert_eq!(ElementType::from_name(element.name()), Some(element));
        }
        assert_eq!(ElementType::from_name("q3_k"), None);
    }

    #[test]
    fn a_row_is_a_whole_number_of_blocks() {
        assert_eq!(ElementType::F32.row_bytes(7), Some(28));
        assert_eq!(ElementType::Q8_0.row_bytes(576), Some(18 * 34));
        assert_eq!(ElementType::Q8_0.row_bytes(33), None);
        assert_eq!(ElementType::Q4K.row_bytes(576), None);
        assert_eq!(ElementType::Q4K.row_bytes(512), Some(288));
        assert_eq!(ElementType::F32.row_bytes(usize::MAX), None);
    }
}
