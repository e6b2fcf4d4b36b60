//! The operations as compositions of candle's, on any device: the plain definition of what the
//! kernels do, and what runs on CUDA.

use candle_core::{D, DType, Device, Tensor};

use super::{AttentionShape, CandleMatrix, HeadNorms, Norm};
use crate::error::Result;
use crate::kernels::activation::Activation;
use crate::kernels::blocks::dequantize;
use crate::kernels::cache::CacheType;
use crate::kernels::matmul::ElementType;
use crate::kernels::norm::NormKind;
use crate::kernels::quantize::quantized;
use crate::kernels::quantized_rows::{GROUP, OUTLIER};

use crate::model::mask::Mask;
use crate::model::observer::{AttentionObserver, AttentionRows};
use crate::model::position::Angles;
use crate::model::step::Step;

/// `[tokens, inputs] · [outputs, inputs]ᵀ` for each matrix, side by side; in f32 on the CPU, in the
/// type of its values elsewhere. Quantised matrices meet rounded inputs.
pub(super) fn matmul(input: &Tensor, matrices: &[CandleMatrix]) -> Result<Tensor> {
    let product = |matrix: &CandleMatrix| -> Result<Tensor> {
        let (values, quantized) = (&matrix.values, matrix.quantized);
        let input = if quantized { rounded(input)? } else { input.clone() };
        if matches!(input.device(), Device::Cpu) {
            return Ok(input.matmul(&values.to_dtype(DType::F32)?.t()?)?);
        }
        Ok(input.to_dtype(values.dtype())?.matmul(&values.t()?)?.to_dtype(DType::F32)?)
    };
    let products = matrices.iter().map(product).collect::<Result<Vec<_>>>()?;
    if products.len() == 1 { Ok(products[0].clone()) } else { Ok(Tensor::cat(&products, 1)?) }
}

/// Values as quantised weights meet them: of each group of 32, the nearest multiples of its largest
/// value / 127, but for values far above the mean of the groups' largest, which stay as they are.
fn rounded(input: &Tensor) -> Result<Tensor> {
    let (tokens, width) = input.dims2()?;
    let groups = input.reshape((tokens, width / GROUP, GROUP))?;
    let nearest = |values: &Tensor| -> Result<Tensor> {
        let scale = (values.abs()?.max_keepdim(D::Minus1)? / 127.0)?;
        let integers = values.broadcast_div(&scale.maximum(f32::MIN_POSITIVE)?)?.round()?;
        Ok(integers.broadcast_mul(&scale)?)
    };
    let sizes = groups.abs()?;
    let limit = (sizes.max_keepdim(D::Minus1)?.mean_keepdim(1)? * f64::from(OUTLIER))?;
    let outlying = (&groups * sizes.broadcast_gt(&limit)?.to_dtype(DType::F32)?)?;
    let near = nearest(&(groups - &outlying)?)?;
    Ok((near + outlying)?.reshape((tokens, width))?)
}

/// The norm of the last dimension. `weight` and bias have its size, or are `[heads, size]`.
fn normed(input: &Tensor, norm: &Norm, size: usize) -> Result<Tensor> {
    let input = match norm.kind {
        NormKind::Rms => input.clone(),
        NormKind::Layer => input.broadcast_sub(&input.mean_keepdim(D::Minus1)?)?,
    };
    let squares = (input.sqr()?.mean_keepdim(D::Minus1)? + f64::from(norm.epsilon))?;
    let part = |values: &Tensor| values.reshape(((), size));
    let out = input.broadcast_div(&squares.sqrt()?)?.broadcast_mul(&part(&norm.weight)?)?;
    match &norm.bias {
        Some(bias) => Ok(out.broadcast_add(&part(bias)?)?),
        None => Ok(out),
    }
}

pub(super) fn norm(input: &Tensor, norm: &Norm) -> Result<Tensor> {
    let (_, width) = input.dims2()?;
    normed(input, norm, width)
}

pub(super) fn activate(values: &Tensor, activation: Activation) -> Result<Tensor> {
    Ok(match activation {
        Activation::Silu => values.silu()?,
        Activation::Gelu => values.gelu_erf()?,
        // candle's `gelu` is the tanh approximation.
        Activation::GeluTanh => values.gelu()?,
        Activation::Relu => values.relu()?,
    })
}

/// candle's name for a type; f32 for the quantised ones, which it computes with on no device and so
/// holds decoded.
pub(super) fn dtype(element: ElementType) -> DType {
    match element {
        ElementType::Bf16 => DType::BF16,
        ElementType::F16 => DType::F16,
        _ => DType::F32,
    }
}

pub(super) fn gated(gate_up: &Tensor, activation: Activation) -> Result<Tensor> {
    let halves = gate_up.chunk(2, D::Minus1)?;
    Ok((activate(&halves[0], activation)? * &halves[1])?)
}

pub(super) fn rotary(rows: &Tensor, shape: &AttentionShape, angles: &Angles) -> Result<Tensor> {
    let (tokens, _) = rows.dims2()?;
    let (heads, head_dim, turning) = (shape.heads + shape.kv_heads, shape.head_dim, shape.rotary_dims);
    let width = heads * head_dim;
    let dims = (tokens, turning / 2);
    let cosines = Tensor::from_slice(&angles.cosines, dims, rows.device())?;
    let sines = Tensor::from_slice(&angles.sines, dims, rows.device())?;
    // [1, heads, tokens, head_dim]
    let all = rows.narrow(1, 0, width)?.reshape((1, tokens, heads, head_dim))?.transpose(1, 2)?;
    let turned = all.narrow(3, 0, turning)?.contiguous()?;
    let turned = if shape.interleaved {
        candle_nn::rotary_emb::rope_i(&turned, &cosines, &sines)?
    } else {
        candle_nn::rotary_emb::rope(&turned, &cosines, &sines)?
    };
    let turned = match head_dim - turning {
        0 => turned,
        rest => Tensor::cat(&[&turned, &all.narrow(3, turning, rest)?.contiguous()?], 3)?,
    };
    let turned = turned.transpose(1, 2)?.reshape((tokens, width))?;
    Ok(Tensor::cat(&[&turned, &rows.narrow(1, width, shape.kv_width())?], 1)?)
}

pub(super) fn norm_heads(rows: &Tensor, shape: &AttentionShape, norms: &HeadNorms) -> Result<Tensor> {
    let (tokens, _) = rows.dims2()?;
    let part = |norm: &Norm, size: usize, at: usize, width: usize| -> Result<Tensor> {
        let heads = rows.narrow(1, at, width)?.reshape((tokens, width / size, size))?;
        Ok(normed(&heads, norm, size)?.reshape((tokens, width))?)
    };
    let queries = part(&norms.query, norms.query_size, 0, shape.query_width())?;
    let keys = part(&norms.key, norms.key_size, shape.query_width(), shape.kv_width())?;
    let values = rows.narrow(1, shape.query_width() + shape.kv_width(), shape.kv_width())?;
    Ok(Tensor::cat(&[&queries, &keys, &values], 1)?)
}

pub(super) fn append(
    rows: &Tensor,
    shape: &AttentionShape,
    step: &Step,
    (keys, values): &(Tensor, Tensor),
    held: CacheType,
) -> Result<()> {
    let part = |at| -> Result<Tensor> {
        let heads = rows
            .narrow(1, at, shape.kv_width())?
            .reshape((step.tokens, shape.kv_heads, shape.head_dim))?
            .transpose(0, 1)?
            .contiguous()?;
        match held {
            CacheType::Q8_0 => cached(&heads),
            _ => Ok(heads.to_dtype(keys.dtype())?),
        }
    };
    keys.slice_set(&part(shape.query_width())?, 1, step.depth)?;
    values.slice_set(&part(shape.query_width() + shape.kv_width())?, 1, step.depth)?;
    Ok(())
}

/// The values of `[heads, tokens, head_dim]` after a stay in blocks of `q8_0`.
fn cached(heads: &Tensor) -> Result<Tensor> {
    let (block, head_dim) = (ElementType::Q8_0.block_values(), heads.dim(D::Minus1)?);
    let padded = heads.pad_with_zeros(D::Minus1, 0, head_dim.next_multiple_of(block) - head_dim)?;
    let values = padded.flatten_all()?.to_vec1::<f32>()?;
    let mut rounded = vec![0f32; values.len()];
    dequantize(ElementType::Q8_0, &quantized(ElementType::Q8_0, &values), &mut rounded);
    let rounded = Tensor::from_vec(rounded, padded.shape(), heads.device())?;
    Ok(rounded.narrow(D::Minus1, 0, head_dim)?.contiguous()?)
}

pub(super) fn attention(
    rows: &Tensor,
    shape: &AttentionShape,
    step: &Step,
    (keys, values): &(Tensor, Tensor),
    layer: usize,
    observer: Option<&mut dyn AttentionObserver>,
) -> Result<Tensor> {
    let AttentionShape { heads, kv_heads, head_dim, scale, window, cap, .. } = *shape;
    let (tokens, seen) = (step.tokens, step.depth + step.tokens);
    let group = heads / kv_heads;
    let seen_of = |cache: &Tensor| cache.narrow(1, 0, seen)?.to_dtype(DType::F32);
    // [kv_heads, group · tokens, head_dim]: the queries of a group meet their keys without a copy of them.
    let queries = rows
        .narrow(1, 0, shape.query_width())?
        .reshape((tokens, heads, head_dim))?
        .transpose(0, 1)?
        .contiguous()?
        .reshape((kv_heads, group * tokens, head_dim))?;
    let scores = (queries.matmul(&seen_of(keys)?.t()?)? * f64::from(scale))?;
    let mut scores = scores.reshape((heads, tokens, seen))?;
    if let Some(bias) = &step.bias {
        scores = scores.broadcast_add(&Tensor::from_slice(bias, (heads, 1, seen), rows.device())?)?;
    }
    if let Some(cap) = cap {
        scores = ((scores / f64::from(cap))?.tanh()? * f64::from(cap))?;
    }
    if step.mask == Mask::Causal && (tokens > 1 || window.is_some_and(|window| window < seen)) {
        let masked = |query: usize, key: usize| {
            let position = step.depth + query;
            let behind = window.is_some_and(|window| key + window <= position);
            if key > position || behind { f32::NEG_INFINITY } else { 0.0 }
        };
        let mask: Vec<f32> = (0..tokens).flat_map(|q| (0..seen).map(move |k| masked(q, k))).collect();
        scores = scores.broadcast_add(&Tensor::from_vec(mask, (tokens, seen), rows.device())?)?;
    }
    let weights = candle_nn::ops::softmax_last_dim(&scores)?;
    if let Some(observer) = observer {
        let map = weights.flatten_all()?.to_vec1::<f32>()?;
        observer.observe(AttentionRows {
            layer,
            first_query: step.depth,
            heads,
            queries: tokens,
            keys: seen,
            weights: &map,
        })?;
    }
    let attended = weights.reshape((kv_heads, group * tokens, seen))?.matmul(&seen_of(values)?)?;
    Ok(attended.reshape((heads, tokens, head_dim))?.transpose(0, 1)?.reshape((tokens, heads * head_dim))?)
}
