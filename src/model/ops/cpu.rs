//! The operations on the CPU: `kernels` on the tensors' own memory.

use candle_core::{CpuStorage, Device, InplaceOp1, Layout, Storage, Tensor};

use super::{AttentionShape, HeadNorms, Norm};
use crate::error::Result;
use crate::kernels::activation::{self, Activation};
use crate::kernels::attention::{Queries, attend, attend_rows};
use crate::kernels::cache::Cache;
use crate::kernels::elementwise;
use crate::kernels::matmul::{PackedMatrix, gated_matmul as gated_matmul_kernel, matmul as matmul_kernel};
use crate::kernels::norm::{self, NormArgs};
use crate::kernels::{Isa, Pool};
use crate::model::mask::Mask;
use crate::model::observer::{AttentionObserver, AttentionRows, RowsShape};
use crate::model::position::Angles;
use crate::model::step::Step;

/// Queries whose maps are made at a time while an observer looks, at most: their weights stay in the
/// cache until they have been looked at.
const OBSERVED_QUERIES: usize = 64;
/// Bounds the memory of those maps where there are very many keys.
const OBSERVED_WEIGHTS: usize = 2 << 20;
/// Weights that an observer takes row by row before it is told that they are there, at most: this bounds
/// the memory of what it makes of them.
const TAKEN_WEIGHTS: usize = 5 << 19;

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

pub(super) fn embed(pool: &Pool, table: &PackedMatrix, tokens: &[u32]) -> Result<Tensor> {
    let width = table.columns();
    let mut out = vec![0f32; tokens.len() * width];
    let mut rows: Vec<_> = tokens.iter().zip(out.chunks_exact_mut(width)).collect();
    pool.for_each_mut(&mut rows, |_, (token, out)| table.copy_row(**token as usize, out));
    tensor(out, tokens.len(), width)
}

pub(super) fn dense(matrix: &PackedMatrix) -> Result<Tensor> {
    let (rows, columns) = (matrix.rows(), matrix.columns());
    let mut out = vec![0f32; rows * columns];
    out.chunks_exact_mut(columns).enumerate().for_each(|(row, out)| matrix.copy_row(row, out));
    tensor(out, rows, columns)
}

pub(super) fn matmul(isa: Isa, pool: &Pool, input: &Tensor, weights: &PackedMatrix) -> Result<Tensor> {
    let (tokens, _) = input.dims2()?;
    let out = read(input, |input| matmul_kernel(isa, pool, weights, input))?;
    tensor(out, tokens, weights.rows())
}

/// Lends a norm's numbers.
fn with_norm<R>(norm: &Norm, use_it: impl FnOnce(NormArgs<'_>) -> R) -> Result<R> {
    let (kind, epsilon) = (norm.kind, norm.epsilon);
    read(&norm.weight, |weight| match &norm.bias {
        Some(bias) => read(bias, |bias| use_it(NormArgs { kind, weight, bias: Some(bias), epsilon })),
        None => Ok(use_it(NormArgs { kind, weight, bias: None, epsilon })),
    })?
}

pub(super) fn norm(isa: Isa, pool: &Pool, input: &Tensor, norm: &Norm) -> Result<Tensor> {
    let (tokens, width) = input.dims2()?;
    let out = read(input, |input| with_norm(norm, |args| norm::norm(isa, pool, input, args)))??;
    tensor(out, tokens, width)
}

pub(super) fn activate(isa: Isa, pool: &Pool, values: Tensor, activation: Activation) -> Result<Tensor> {
    values.inplace_op1(&InPlace {
        name: "activation",
        apply: |values: &mut [f32], width| {
            activation::activate(isa, pool, activation, values, width);
            Ok(())
        },
    })?;
    Ok(values)
}

pub(super) fn gated(isa: Isa, pool: &Pool, gate_up: &Tensor, activation: Activation) -> Result<Tensor> {
    let (tokens, double) = gate_up.dims2()?;
    let width = double / 2;
    let out = read(gate_up, |gate_up| activation::gated(isa, pool, activation, gate_up, width))?;
    tensor(out, tokens, width)
}

pub(super) fn gated_matmul(
    isa: Isa,
    pool: &Pool,
    input: &Tensor,
    gate_up: &PackedMatrix,
    activation: Activation,
) -> Result<Tensor> {
    let (tokens, _) = input.dims2()?;
    let out = read(input, |input| gated_matmul_kernel(isa, pool, gate_up, activation, input))?;
    tensor(out, tokens, gate_up.rows() / 2)
}

pub(super) fn add(pool: &Pool, hidden: &Tensor, found: Tensor) -> Result<Tensor> {
    found.inplace_op1(&InPlace {
        name: "residual",
        apply: |found: &mut [f32], width| read(hidden, |hidden| elementwise::add(pool, found, hidden, width)),
    })?;
    Ok(found)
}

pub(super) fn rotary(pool: &Pool, rows: Tensor, shape: &AttentionShape, angles: &Angles) -> Result<Tensor> {
    let heads = shape.heads + shape.kv_heads;
    rows.inplace_op1(&InPlace {
        name: "rotary",
        apply: |rows: &mut [f32], row_len| {
            let layout = shape.rotary_layout();
            elementwise::rotary(pool, rows, row_len, heads, layout, &angles.cosines, &angles.sines);
            Ok(())
        },
    })?;
    Ok(rows)
}

pub(super) fn norm_heads(
    isa: Isa,
    rows: Tensor,
    shape: &AttentionShape,
    norms: &HeadNorms,
) -> Result<Tensor> {
    let parts = [
        (&norms.query, norms.query_size, 0, shape.query_width()),
        (&norms.key, norms.key_size, shape.query_width(), shape.kv_width()),
    ];
    rows.inplace_op1(&InPlace {
        name: "norm of heads",
        apply: |rows: &mut [f32], row_len| {
            for (norm, size, at, width) in parts {
                with_norm(norm, |args| {
                    norm::norm_heads(isa, rows, row_len, at, width / size, size, args);
                })?;
            }
            Ok(())
        },
    })?;
    Ok(rows)
}

/// Rows changed in place: they were just computed and nobody else holds them. `apply` gets their
/// values and the length of a row.
struct InPlace<F> {
    name: &'static str,
    apply: F,
}

impl<F: Fn(&mut [f32], usize) -> Result<()>> InplaceOp1 for InPlace<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (_, row_len) = layout.shape().dims2()?;
        (self.apply)(rows(storage, layout)?, row_len).map_err(candle_core::Error::wrap)
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
    pool: &Pool,
    rows: &Tensor,
    shape: &AttentionShape,
    step: &Step,
    cache: &mut Cache,
    layer: usize,
) -> Result<()> {
    let keys_at = shape.query_width();
    let values_at = keys_at + shape.kv_width();
    read(rows, |rows| cache.write(pool, layer, step.depth, rows, shape.row_len(), keys_at, values_at))
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
            bias: step.bias.as_deref(),
        };
        let Some(observer) = observer else {
            attend(isa, pool, cache, layer, queries(0, step.tokens), &mut out, None);
            return Ok(());
        };
        let query_weights = shape.heads * (step.depth + step.tokens);
        let block_queries = (OBSERVED_WEIGHTS / query_weights).clamp(4, OBSERVED_QUERIES);
        let together = (TAKEN_WEIGHTS / query_weights).max(block_queries);
        let wanted = |from: usize| {
            let to = step.tokens.min(from + block_queries);
            (to, observer.wants_queries(layer, step.depth + from..step.depth + to))
        };
        let mut blocks: Vec<(usize, usize, bool)> = vec![];
        let mut from = 0;
        while from < step.tokens {
            let (to, wanted) = wanted(from);
            match blocks.last_mut() {
                // Neighbours that nobody wants are computed together, as are those that are wanted.
                Some((_, end, false)) if !wanted => *end = to,
                Some((start, end, true)) if wanted && to - *start <= together => *end = to,
                _ => blocks.push((from, to, wanted)),
            }
            from = to;
        }
        let mut map = Vec::new();
        for (from, to, wanted) in blocks {
            let block = queries(from, to);
            let out_of = |from: usize, to: usize| from * width..to * width;
            if !wanted {
                attend(isa, pool, cache, layer, block, &mut out[out_of(from, to)], None);
                continue;
            }
            let (heads, keys) = (shape.heads, block.keys);
            let rows = RowsShape { layer, first_query: block.first, heads, queries: to - from, keys };
            let taken = observer.taker(rows)?.map(|taker| {
                attend_rows(isa, pool, cache, layer, block, &mut out[out_of(from, to)], Some(&*taker));
            });
            if taken.is_some() {
                observer.taken(rows)?;
                continue;
            }
            for from in (from..to).step_by(block_queries) {
                let to = to.min(from + block_queries);
                let block = queries(from, to);
                let (first_query, keys) = (block.first, block.keys);
                map.resize(heads * (to - from) * keys, 0.0);
                attend(isa, pool, cache, layer, block, &mut out[out_of(from, to)], Some(&mut map));
                let queries = to - from;
                observer.observe(AttentionRows {
                    layer,
                    first_query,
                    heads,
                    queries,
                    keys,
                    weights: &map,
                })?;
            }
        }
        Ok(())
    })??;
    tensor(out, step.tokens, width)
}
