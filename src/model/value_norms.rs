//! How much of its value each position passes on through a head: ‖v W_O‖ (Kobayashi et al. 2020), an
//! operation that only observers ask for, on any device.

use candle_core::{D, DType, Tensor};

use super::ops::{AttentionShape, Linear, Ops};
use crate::error::Result;

impl Ops {
    /// The norms for the values in rows `[tokens, query ‖ key ‖ value]` under an output projection:
    /// `[heads, tokens]`.
    pub(super) fn value_norms(
        &self,
        rows: &Tensor,
        shape: &AttentionShape,
        output: &Linear,
    ) -> Result<Vec<f32>> {
        let AttentionShape { heads, kv_heads, head_dim, .. } = *shape;
        // [hidden, heads · head_dim]
        let weight = self.dense(output)?;
        let values_at = (heads + kv_heads) * head_dim;
        let norms = (0..heads).map(|head| {
            let kv_head = head / (heads / kv_heads);
            let values = rows.narrow(1, values_at + kv_head * head_dim, head_dim)?.contiguous()?;
            let part = weight.narrow(1, head * head_dim, head_dim)?.contiguous()?;
            // [tokens, hidden]
            let added = values.to_dtype(DType::F32)?.matmul(&part.t()?)?;
            added.sqr()?.sum(D::Minus1)?.sqrt()
        });
        let norms = norms.collect::<candle_core::Result<Vec<_>>>()?;
        Ok(Tensor::stack(&norms, 0)?.flatten_all()?.to_vec1()?)
    }
}
