//! The operations on the CPU: `kernels` on the tensors' own memory.

use candle_core::{CpuStorage, Device, InplaceOp1, Layout, Storage, Tensor};

use super::{AttentionShape, Norm};
use crate::error::Result;
use crate::kernels::attention::{Queries, attend};
use crate::kernels::cache::Cache;
use crate::kernels::elementwise::{self, Activation};
use crate::kernels::matmul::{PackedMatrix, matmul as matmul_kernel};
use crate::kernels::{Isa, Pool};
use crate::model::mask::Mask;
use crate::model::observer::{AttentionObserver, AttentionRows};
use crate::model::position::Angles;
use crate::model::step::Step;

/// Queries whose maps are made at a time while an observer looks: bounds the memory they take.
const OBSERVED_QUERIES: usize = 64;

/// Lends the memory of a contiguous f32 tensor.
pub(super) fn read<R>(tensor: &Tensor, use_it: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    let (Storage::Cpu(storage), Some((start, end))) = (&*storage, layout.contiguous_offsets()) else {
        return Err(candle_core::Error::Msg("the kernels need contiguous tensors on the CPU".into()).into());
    };
    Ok(use_it(&storage.as_slice::<f32>()?[start..end]))
}

fn tensor(values: Vec<f32>, tokens: usize, width: usize) -> Result<Tensor> {
    Ok(Tensor::from_vec(values, (tokens, width), &Device::Cpu)?)
}

pub(super) fn embed(table: &PackedMatrix, tokens: &[u32]) -> Result<Tensor> {
    let width = table.columns();
    let mut out = vec![0f32; tokens.len() * width];
    for (token, out) in tokens.iter().zip(out.chunks_exact_mut(width)) {
        table.copy_row(*token as usize, out);
    }
    tensor(out, tokens.len(), width)
}

pub(super) fn matmul(isa: Isa, pool: &Pool, input: &Tensor, weights: &PackedMatrix) -> Result<Tensor> {
    let (tokens, _) = input.dims2()?;
    let mut out = vec![0f32; tokens * weights.rows()];
    read(input, |input| matmul_kernel(isa, pool, weights, input, &mut out))?;
    tensor(out, tokens, weights.rows())
}

pub(super) fn rms_norm(
    isa: Isa,
    pool: &Pool,
    input: &Tensor,
    weight: &Tensor,
    epsilon: f32,
) -> Result<Tensor> {
    let (tokens, width) = input.dims2()?;
    let mut out = vec![0f32; tokens * width];
    read(input, |input| {
        read(weight, |weight| elementwise::rms_norm(isa, pool, input, weight, epsilon, &mut out))
    })??;
    tensor(out, tokens, width)
}

pub(super) fn gated(isa: Isa, pool: &Pool, gate_up: &Tensor, activation: Activation) -> Result<Tensor> {
    let (tokens, double) = gate_up.dims2()?;
    let width = double / 2;
    let mut out = vec![0f32; tokens * width];
    read(gate_up, |gate_up| elementwise::gated(isa, pool, activation, gate_up, width, &mut out))?;
    tensor(out, tokens, width)
}

pub(super) fn rotary(rows: Tensor, shape: &AttentionShape, angles: &Angles) -> Result<Tensor> {
    rows.inplace_op1(&Turn { shape, angles })?;
    Ok(rows)
}

/// Queries and keys turned in place: they were just computed and nobody else holds them.
struct Turn<'a> {
    shape: &'a AttentionShape,
    angles: &'a Angles,
}

impl InplaceOp1 for Turn<'_> {
    fn name(&self) -> &'static str {
        "rotary"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let Turn { shape, angles } = self;
        let heads = shape.heads + shape.kv_heads;
        let rows = rows(storage, layout)?;
        elementwise::rotary(rows, shape.row_len(), heads, shape.head_dim, &angles.cosines, &angles.sines);
        Ok(())
    }
}

pub(super) fn norm_heads(
    isa: Isa,
    rows: Tensor,
    shape: &AttentionShape,
    query_norm: &Norm,
    key_norm: &Norm,
) -> Result<Tensor> {
    let parts = [(query_norm, 0, shape.query_width()), (key_norm, shape.query_width(), shape.kv_width())];
    for (norm, at, width) in parts {
        let weight = read(&norm.weight, <[f32]>::to_vec)?;
        let heads = width / weight.len();
        rows.inplace_op1(&NormHeads {
            isa,
            row_len: shape.row_len(),
            at,
            heads,
            weight,
            epsilon: norm.epsilon,
        })?;
    }
    Ok(rows)
}

/// Some heads of each row normed in place, as with [`Turn`].
struct NormHeads {
    isa: Isa,
    row_len: usize,
    at: usize,
    heads: usize,
    weight: Vec<f32>,
    epsilon: f32,
}

impl InplaceOp1 for NormHeads {
    fn name(&self) -> &'static str {
        "norm of heads"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let NormHeads { isa, row_len, at, heads, weight, epsilon } = self;
        elementwise::rms_norm_heads(*isa, rows(storage, layout)?, *row_len, *at, *heads, weight, *epsilon);
        Ok(())
    }
}

/// The memory of contiguous f32 rows.
fn rows<'s>(storage: &'s mut CpuStorage, layout: &Layout) -> candle_core::Result<&'s mut [f32]> {
    let (CpuStorage::F32(values), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
        candle_core::bail!("the kernels need contiguous f32 rows")
    };
    Ok(&mut values[start..end])
}

pub(super) fn append(
    rows: &Tensor,
    shape: &AttentionShape,
    step: &Step,
    cache: &mut Cache,
    layer: usize,
) -> Result<()> {
    let keys_at = shape.query_width();
    let values_at = keys_at + shape.kv_width();
    read(rows, |rows| cache.write(layer, step.depth, rows, shape.row_len(), keys_at, values_at))
}

#[allow(clippy::too_many_arguments)]
pub(super) fn attention(
    isa: Isa,
    pool: &Pool,
    rows: &Tensor,
    shape: &AttentionShape,
    step: &Step,
    cache: &Cache,
    layer: usize,
    observer: Option<&mut dyn AttentionObserver>,
) -> Result<Tensor> {
    let width = shape.query_width();
    let mut out = vec![0f32; step.tokens * width];
    let causal = step.mask == Mask::Causal;
    read(rows, |rows| -> Result<()> {
        // The queries of some tokens of the step, and the keys that the last of them sees.
        let queries = |from: usize, to: usize| Queries {
            rows: &rows[from * shape.row_len()..to * shape.row_len()],
            row_len: shape.row_len(),
            heads: shape.heads,
            first: step.depth + from,
            keys: step.depth + if causal { to } else { step.tokens },
            causal,
            window: shape.window,
            scale: shape.scale,
            cap: shape.cap,
        };
        let Some(observer) = observer else {
            attend(isa, pool, cache, layer, queries(0, step.tokens), &mut out, None);
            return Ok(());
        };
        let mut map = Vec::new();
        for from in (0..step.tokens).step_by(OBSERVED_QUERIES) {
            let to = step.tokens.min(from + OBSERVED_QUERIES);
            let queries = queries(from, to);
            map.resize(shape.heads * (to - from) * queries.keys, 0.0);
            attend(isa, pool, cache, layer, queries, &mut out[from * width..to * width], Some(&mut map));
            observer.observe(AttentionRows {
                layer,
                first_query: queries.first,
                heads: shape.heads,
                queries: to - from,
                keys: queries.keys,
                weights: &map,
            })?;
        }
        Ok(())
    })??;
    tensor(out, step.tokens, width)
}
