//! The tensors of GGUF files: what they are called, and the order of their rows.

use std::borrow::Cow;

use crate::kernels::matmul::RawMatrix;
use crate::model::Parameter;
use crate::model::config::LayerParameter;

/// The name of a parameter; the same in every architecture.
pub(in crate::checkpoint) fn tensor_name(parameter: Parameter) -> String {
    use LayerParameter::*;
    match parameter {
        Parameter::Embedding => "token_embd.weight".into(),
        Parameter::FinalNorm => "output_norm.weight".into(),
        Parameter::OutputHead => "output.weight".into(),
        Parameter::Layer(layer, parameter) => {
            let part = match parameter {
                AttentionNorm => "attn_norm.weight",
                Query => "attn_q.weight",
                Key => "attn_k.weight",
                Value => "attn_v.weight",
                QueryNorm => "attn_q_norm.weight",
                KeyNorm => "attn_k_norm.weight",
                AttentionOutput => "attn_output.weight",
                AttentionPostNorm => "post_attention_norm.weight",
                MlpNorm => "ffn_norm.weight",
                MlpPostNorm => "post_ffw_norm.weight",
                Gate => "ffn_gate.weight",
                Up => "ffn_up.weight",
                Down => "ffn_down.weight",
                QueryBias => "attn_q.bias",
                KeyBias => "attn_k.bias",
                ValueBias => "attn_v.bias",
                AttentionOutputBias => "attn_output.bias",
                GateBias => "ffn_gate.bias",
                UpBias => "ffn_up.bias",
                DownBias => "ffn_down.bias",
            };
            format!("blk.{layer}.{part}")
        }
    }
}

/// Whether a parameter's rows lie in the order of llama.cpp's rotary positions for `llama`: of each
/// head, those of its two halves in turn.
pub(in crate::checkpoint) fn is_interleaved(parameter: Parameter) -> bool {
    use LayerParameter::*;
    matches!(parameter, Parameter::Layer(_, Query | Key | QueryBias | KeyBias))
}

/// Puts interleaved rows back: the first half of each head before the second. A row of a matrix
/// is moved whole, whatever its type; of a vector (one row), each element.
pub(in crate::checkpoint) fn halves_apart<'a>(matrix: RawMatrix<'a>, head_dim: usize) -> RawMatrix<'a> {
    let rows = if matrix.rows == 1 { matrix.columns } else { matrix.rows };
    let row_bytes = matrix.bytes.len() / rows;
    let mut bytes = Vec::with_capacity(matrix.bytes.len());
    for head in matrix.bytes.chunks_exact(head_dim * row_bytes) {
        for half in 0..2 {
            for pair in head.chunks_exact(2 * row_bytes) {
                bytes.extend_from_slice(&pair[half * row_bytes..(half + 1) * row_bytes]);
            }
        }
    }
    RawMatrix { bytes: Cow::Owned(bytes), ..matrix }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::matmul::ElementType;

    #[test]
    fn rows_of_each_head_return_to_their_halves() {
        // Two heads of 4 rows of one f32: what llama.cpp's converter makes of 0 to 7.
        let stored = [0f32, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0];
        let bytes: Vec<u8> = stored.iter().flat_map(|value| value.to_le_bytes()).collect();
        for (rows, columns) in [(8, 1), (1, 8)] {
            let matrix = RawMatrix { rows, columns, element: ElementType::F32, bytes: Cow::Borrowed(&bytes) };
            let apart = halves_apart(matrix, 4);
            let values: Vec<f32> = (0..rows).flat_map(|row| apart.row(row).collect::<Vec<_>>()).collect();
            assert_eq!(values, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        }
    }
}
