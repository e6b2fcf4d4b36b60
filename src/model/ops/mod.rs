//! The one device seam: every operation that the forward pass asks for, once through `kernels` (the
//! CPU) and once as a composition of candle's operations (CUDA, and `--kernels reference`).
//!
//! Nothing else in `model` asks which of the two runs.

mod candle;
mod cpu;

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::config::{ModelConfig, Normalization};
use super::kv_cache::KeysValues;
use super::observer::AttentionObserver;
use super::position::Angles;
use super::precision::{MatrixRole, Precision, held};
use super::step::Step;
use crate::error::{Error, Result};
use crate::kernels::activation::Activation;
use crate::kernels::blocks;
use crate::kernels::cache::{Cache, CacheShape, CacheType};
use crate::kernels::elementwise::{self, RotaryLayout};
use crate::kernels::matmul::{ElementType, PackedMatrix, RawMatrix};
use crate::kernels::norm::NormKind;
use crate::kernels::{Isa, Pool};

/// Which code does the arithmetic.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum KernelChoice {
    /// Our kernels on the CPU, candle's operations on any other device.
    #[default]
    Native,
    /// candle's operations alone, on every device: what the kernels are compared with.
    Reference,
}

/// A device, and how weights are held there.
pub struct Ops {
    device: Device,
    precision: Precision,
    pool: Arc<Pool>,
    /// `None`: candle's operations.
    isa: Option<Isa>,
}

/// A projection `x·Wᵀ + b`, W `[outputs, inputs]`.
pub(super) struct Linear {
    weight: Weight,
    /// `[outputs]`
    bias: Option<Tensor>,
}

enum Weight {
    Packed(PackedMatrix),
    /// On top of one another.
    Candle(Vec<CandleMatrix>),
}

/// A matrix `[outputs, inputs]`, and whether its values are those of a quantised type.
struct CandleMatrix {
    values: Tensor,
    quantized: bool,
}

/// A norm's weight and bias, `[size]`, or of heads with weights of their own `[heads · size]`.
pub(super) struct Norm {
    kind: NormKind,
    weight: Tensor,
    bias: Option<Tensor>,
    epsilon: f32,
}

/// The norms of queries and keys, and over how many values each runs at a time.
pub(super) struct HeadNorms {
    pub query: Norm,
    pub key: Norm,
    pub query_size: usize,
    pub key_size: usize,
}

/// The sizes of one layer's attention.
#[derive(Clone, Copy)]
pub(super) struct AttentionShape {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// 1/√dₖ, in most families.
    pub scale: f32,
    /// How many keys a query sees under the causal mask.
    pub window: Option<usize>,
    /// Scores become cap · tanh(score / cap).
    pub cap: Option<f32>,
    /// Values of each head that turn by their positions, and whether in neighbouring pairs.
    pub rotary_dims: usize,
    pub interleaved: bool,
}

impl AttentionShape {
    fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    fn rotary_layout(&self) -> RotaryLayout {
        RotaryLayout { head_dim: self.head_dim, dims: self.rotary_dims, interleaved: self.interleaved }
    }

    fn row_len(&self) -> usize {
        self.query_width() + 2 * self.kv_width()
    }
}

impl Ops {
    /// Operations on `device`, with weights and cache held as `precision` says.
    ///
    /// # Errors
    /// If `ATTEND_ISA` asks for vector instructions that this CPU lacks.
    pub fn new(device: Device, choice: KernelChoice, precision: Precision, pool: Arc<Pool>) -> Result<Ops> {
        let isa = match (choice, &device) {
            (KernelChoice::Native, Device::Cpu) => Some(Isa::detect()?),
            _ => None,
        };
        Ok(Ops { device, precision, pool, isa })
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// How weights are held, but for those that cannot be (see [`held`]).
    pub fn element(&self) -> ElementType {
        self.precision.element
    }

    /// How keys and values are held.
    pub fn cache_type(&self) -> CacheType {
        self.precision.cache
    }

    /// Threads that work on the CPU.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// The threads themselves, for work between the model's.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    pub(super) fn uses_kernels(&self) -> bool {
        self.isa.is_some()
    }

    /// Whose arithmetic: the kernels' tier (`avx512`), or `candle`.
    pub fn arithmetic(&self) -> &'static str {
        self.isa.map_or("candle", Isa::name)
    }

    /// A projection from matrices on top of one another, and their biases (or none). `taken` is called with
    /// each part of the matrices' bytes once it has been copied.
    pub(super) fn linear_from(
        &self,
        weights: &[RawMatrix<'_>],
        role: MatrixRole,
        biases: &[RawMatrix<'_>],
        taken: &dyn Fn(&[u8]),
    ) -> Result<Linear> {
        let held: Vec<ElementType> =
            weights.iter().map(|raw| held(self.precision.asked, raw.element, raw.columns, role).0).collect();
        let weight = match self.isa {
            Some(_) => Weight::Packed(
                PackedMatrix::pack_and_tell(&self.pool, weights, &held, taken)
                    .map_err(|cause| Error::Memory { what: "the weights", cause })?,
            ),
            None => {
                let matrix = |(raw, held): (&RawMatrix<'_>, &ElementType)| -> Result<CandleMatrix> {
                    let values = match held.is_quantized() && raw.element != *held {
                        true => self.tensor(&raw.converted(&self.pool, *held))?,
                        false => self.tensor(raw)?,
                    };
                    let values = values.to_dtype(candle::dtype(*held))?;
                    taken(&raw.bytes);
                    Ok(CandleMatrix { values, quantized: held.is_quantized() })
                };
                Weight::Candle(weights.iter().zip(&held).map(matrix).collect::<Result<_>>()?)
            }
        };
        let bias = match biases {
            [] => None,
            _ => {
                let parts = biases
                    .iter()
                    .map(|raw| self.tensor(raw)?.flatten_all()?.to_dtype(DType::F32))
                    .collect::<Result<Vec<_>, _>>()?;
                Some(Tensor::cat(&parts, 0)?)
            }
        };
        Ok(Linear { weight, bias })
    }

    /// A norm of `size` values; held in f32 whatever the matrices are held in.
    pub(super) fn norm_from(
        &self,
        norm: &Normalization,
        weight: Option<RawMatrix<'_>>,
        bias: Option<RawMatrix<'_>>,
        size: usize,
    ) -> Result<Norm> {
        let weight = match weight {
            Some(weight) => (self.table(&weight)?.flatten_all()? + norm.offset)?,
            None => Tensor::ones(size, DType::F32, &self.device)?,
        };
        let bias = bias.map(|bias| Ok::<_, Error>(self.table(&bias)?.flatten_all()?)).transpose()?;
        Ok(Norm { kind: norm.kind, weight, bias, epsilon: norm.epsilon as f32 })
    }

    /// Rows that are added to the stream: `[rows, columns]`, in f32.
    pub(super) fn table(&self, raw: &RawMatrix<'_>) -> Result<Tensor> {
        Ok(self.tensor(raw)?.to_dtype(DType::F32)?)
    }

    fn tensor(&self, raw: &RawMatrix<'_>) -> Result<Tensor, candle_core::Error> {
        let shape = [raw.rows, raw.columns];
        if raw.element.is_quantized() {
            let mut values = vec![0f32; raw.rows * raw.columns];
            blocks::dequantize(raw.element, &raw.bytes, &mut values);
            return Tensor::from_vec(values, &shape, &self.device);
        }
        Tensor::from_raw_buffer(&raw.bytes, candle::dtype(raw.element), &shape, &self.device)
    }

    /// Room for the keys and values of `capacity` positions.
    pub(super) fn keys_values(&self, config: &ModelConfig, capacity: usize) -> Result<KeysValues> {
        let ModelConfig { layers, kv_heads, head_dim, .. } = *config;
        if self.isa.is_some() {
            let held = self.precision.cache;
            let cache = Cache::new(CacheShape { layers, kv_heads, head_dim, capacity, held });
            let cache =
                cache.map_err(|cause| Error::Memory { what: "the cache (ask for less with -c)", cause })?;
            return Ok(KeysValues::Kernels(cache));
        }
        let dtype = candle::dtype(self.precision.cache.element());
        let zeros = || Tensor::zeros((kv_heads, capacity, head_dim), dtype, &self.device);
        let layers = (0..layers).map(|_| Ok((zeros()?, zeros()?)));
        Ok(KeysValues::Candle(layers.collect::<Result<_>>()?))
    }

    /// Rows of the embedding: `[tokens, hidden]` in f32.
    pub(super) fn embed(&self, table: &Linear, tokens: &[u32]) -> Result<Tensor> {
        match &table.weight {
            Weight::Packed(matrix) => cpu::embed(&self.pool, matrix, tokens),
            Weight::Candle(matrices) => {
                let ids = Tensor::new(tokens, &self.device)?;
                Ok(matrices[0].values.index_select(&ids, 0)?.to_dtype(DType::F32)?)
            }
        }
    }

    /// `[tokens, inputs]` → `[tokens, outputs]`.
    pub(super) fn linear(&self, input: &Tensor, linear: &Linear) -> Result<Tensor> {
        let product = match (&linear.weight, self.isa) {
            (Weight::Packed(matrix), Some(isa)) => cpu::matmul(isa, &self.pool, input, matrix)?,
            (Weight::Candle(matrices), _) => candle::matmul(input, matrices)?,
            (Weight::Packed(_), None) => unreachable!("weights are packed only for the kernels"),
        };
        Ok(match &linear.bias {
            Some(bias) => product.broadcast_add(bias)?,
            None => product,
        })
    }

    /// Some rows of a table, `[rows.len(), columns]`.
    pub(super) fn rows(&self, table: &Tensor, rows: &[u32]) -> Result<Tensor> {
        Ok(table.index_select(&Tensor::new(rows, &self.device)?, 0)?)
    }

    /// The norm of each row of `[tokens, hidden]`, where there is one.
    pub(super) fn norm(&self, input: &Tensor, norm: Option<&Norm>) -> Result<Tensor> {
        let Some(norm) = norm else { return Ok(input.clone()) };
        match self.isa {
            Some(isa) => cpu::norm(isa, &self.pool, input, norm),
            None => candle::norm(input, norm),
        }
    }

    /// activation(values), of `[tokens, width]`.
    pub(super) fn activate(&self, values: Tensor, activation: Activation) -> Result<Tensor> {
        match self.isa {
            Some(isa) => cpu::activate(isa, &self.pool, values, activation),
            None => candle::activate(&values, activation),
        }
    }

    /// All values held within ± `limit`, where there is one.
    pub(super) fn clip(&self, values: Tensor, limit: Option<f64>) -> Result<Tensor> {
        match limit {
            Some(limit) => Ok(values.clamp(-limit, limit)?),
            None => Ok(values),
        }
    }

    /// activation(gate) · up of the input's projection by gate and up on top of one another: `[tokens, inputs]` →
    /// `[tokens, outputs / 2]`.
    pub(super) fn gated(&self, input: &Tensor, gate_up: &Linear, activation: Activation) -> Result<Tensor> {
        if let (Weight::Packed(matrix), None, Some(isa)) = (&gate_up.weight, &gate_up.bias, self.isa) {
            return cpu::gated_matmul(isa, &self.pool, input, matrix, activation);
        }
        let projected = self.linear(input, gate_up)?;
        match self.isa {
            Some(isa) => cpu::gated(isa, &self.pool, &projected, activation),
            None => candle::gated(&projected, activation),
        }
    }

    /// Turns the queries and keys of rows `[tokens, query ‖ key ‖ value]` by their positions.
    pub(super) fn rotary(&self, rows: Tensor, shape: &AttentionShape, angles: &Angles) -> Result<Tensor> {
        match self.isa {
            Some(_) => cpu::rotary(&self.pool, rows, shape, angles),
            None => candle::rotary(&rows, shape, angles),
        }
    }

    /// Writes the keys and values of rows `[tokens, query ‖ key ‖ value]` behind the cache's.
    pub(super) fn append(
        &self,
        rows: &Tensor,
        shape: &AttentionShape,
        step: &Step,
        cache: &mut KeysValues,
        layer: usize,
    ) -> Result<()> {
        match cache {
            KeysValues::Kernels(cache) => cpu::append(&self.pool, rows, shape, step, cache, layer),
            KeysValues::Candle(layers) => {
                candle::append(rows, shape, step, &layers[layer], self.precision.cache)
            }
        }
    }

    /// Attention of the rows' queries over the cache: `[tokens, heads · head_dim]`.
    pub(super) fn attention(
        &self,
        rows: &Tensor,
        shape: &AttentionShape,
        step: &Step,
        cache: &KeysValues,
        layer: usize,
        observer: Option<&mut dyn AttentionObserver>,
    ) -> Result<Tensor> {
        match (cache, self.isa) {
            (KeysValues::Kernels(cache), Some(isa)) => {
                cpu::attention(isa, &self.pool, rows, shape, step, cache, layer, observer)
            }
            (KeysValues::Candle(layers), _) => {
                candle::attention(rows, shape, step, &layers[layer], layer, observer)
            }
            (KeysValues::Kernels(_), None) => unreachable!("the cache was made by these operations"),
        }
    }

    /// The norm of the queries and of the keys, some values at a time, of rows
    /// `[tokens, query ‖ key ‖ value]`.
    pub(super) fn norm_heads(
        &self,
        rows: Tensor,
        shape: &AttentionShape,
        norms: &HeadNorms,
    ) -> Result<Tensor> {
        match self.isa {
            Some(isa) => cpu::norm_heads(isa, rows, shape, norms),
            None => candle::norm_heads(&rows, shape, norms),
        }
    }

    /// All values multiplied by a factor.
    pub(super) fn scale(&self, values: Tensor, factor: f64) -> Result<Tensor> {
        if factor == 1.0 { Ok(values) } else { Ok((values * factor)?) }
    }

    /// cap · tanh(value / cap), where there is a cap.
    pub(super) fn soft_cap(&self, values: Tensor, cap: Option<f64>) -> Result<Tensor> {
        match cap {
            Some(cap) => Ok(((values / cap)?.tanh()? * cap)?),
            None => Ok(values),
        }
    }

    /// The residual connection; `found` was just computed and nobody else holds it.
    pub(super) fn add(&self, hidden: &Tensor, found: Tensor) -> Result<Tensor> {
        match self.isa {
            Some(_) => cpu::add(&self.pool, hidden, found),
            None => Ok((hidden + found)?),
        }
    }

    /// `[tokens, width]` → `[1, width]`.
    pub(super) fn last_row(&self, rows: &Tensor) -> Result<Tensor> {
        let (tokens, _) = rows.dims2()?;
        Ok(rows.narrow(0, tokens - 1, 1)?)
    }

    /// A projection's matrix, `[outputs, inputs]` in f32.
    pub(super) fn dense(&self, linear: &Linear) -> Result<Tensor> {
        match &linear.weight {
            Weight::Packed(matrix) => cpu::dense(matrix),
            Weight::Candle(matrices) => {
                let parts = matrices.iter().map(|matrix| matrix.values.to_dtype(DType::F32));
                Ok(Tensor::cat(&parts.collect::<Result<Vec<_>, _>>()?, 0)?)
            }
        }
    }

    pub(super) fn all_finite(&self, values: &Tensor) -> Result<bool> {
        match &self.device {
            Device::Cpu => cpu::read(values, |values| elementwise::all_finite(&self.pool, values)),
            // Elsewhere one number crosses to the CPU: NaN and ∞ survive a product with 0 as NaN.
            _ => Ok((values * 0.0)?.sum_all()?.to_scalar::<f32>()? == 0.0),
        }
    }
}

impl Linear {
    /// Bytes of the weights (biases are too small to count).
    pub(super) fn bytes(&self) -> usize {
        match &self.weight {
            Weight::Packed(matrix) => matrix.bytes(),
            Weight::Candle(matrices) => {
                let bytes = |matrix: &CandleMatrix| {
                    matrix.values.elem_count() * matrix.values.dtype().size_in_bytes()
                };
                matrices.iter().map(bytes).sum()
            }
        }
    }
}
