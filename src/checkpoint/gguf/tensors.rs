//! The tensors of GGUF files: what they are called, and the order of their rows.

use crate::kernels::matmul::{ElementType, RawMatrix};
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
/// is moved whole, whatever its type; a vector (one row) becomes f32.
pub(in crate::checkpoint) fn halves_apart<'a>(matrix: &RawMatrix<'a>, head_dim: usize) -> RawMatrix<'a> {
    let RawMatrix { rows, columns, element, .. } = *matrix;
    if rows == 1 {
        let values = swap(&matrix.row(0), head_dim, 1);
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        return RawMatrix { rows, columns, element: ElementType::F32, bytes: bytes.into() };
    }
    let bytes = swap(&matrix.bytes, head_dim, matrix.bytes.len() / rows);
    RawMatrix { rows, columns, element, bytes: bytes.into() }
}

/// Of each head of `head_dim` rows, each of `len` values: first the even rows, then the odd ones.
fn swap<T: Copy>(values: &[T], head_dim: usize, len: usize) -> Vec<T> {
    let mut out = Vec::with_capacity(values.len());
    for head in values.chunks_exact(head_dim * len) {
        for half in 0..2 {
            let rows = head.chunks_exact(len).skip(half).step_by(2);
            rows.for_each(|row| out.extend_from_slice(row));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_each_head_return_to_their_halves() {
        // Two heads of 4 rows of one f32: what llama.cpp's converter makes of 0 to 7.
        let stored = [0f32, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0];
        let bytes: Vec<u8> = stored.iter().flat_map(|value| value.to_le_bytes()).collect();
        for (rows, columns) in [(8, 1), (1, 8)] {
            let matrix = RawMatrix { rows, columns, element: ElementType::F32, bytes: (&bytes).into() };
            let apart = halves_apart(&matrix, 4);
            let values: Vec<f32> = (0..rows).flat_map(|row| apart.row(row)).collect();
            assert_eq!(values, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        }
    }
}
