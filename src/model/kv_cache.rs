//! Keys and values of the positions so far, preallocated for the context asked for and written in
//! place.

use candle_core::{DType, Tensor};
use half::f16;

use super::config::ModelConfig;
use super::intervention::{HeadIntervention, Silencer};
use super::ops::Ops;
use crate::error::{Error, Result};
use crate::kernels::cache::{Cache, CachePart, CacheType};

/// The cache of one sequence.
pub struct KvCache {
    pub(super) store: KeysValues,
    tokens: Vec<u32>,
    held: CacheType,
    capacity: usize,
    /// Tokens of the text that the keys' positions were chosen for.
    text_length: usize,
    /// What is changed in the sequence's heads.
    pub(super) silencer: Option<Silencer>,
}

/// Keys and values of every layer, in the order that the device's attention reads.
pub(super) enum KeysValues {
    Kernels(Cache),
    /// For each layer its keys and its values, `[kv_heads, capacity, head_dim]`.
    Candle(Vec<(Tensor, Tensor)>),
}

impl KvCache {
    pub(super) fn new(store: KeysValues, held: CacheType, capacity: usize) -> KvCache {
        KvCache { store, tokens: vec![], held, capacity, text_length: 0, silencer: None }
    }

    /// Positions held.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The tokens at the positions held.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Tokens of the text that the keys' positions were chosen for.
    pub(crate) fn text_length(&self) -> usize {
        self.text_length
    }

    /// Positions that fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets every position from `len` on, so that the sequence can continue differently.
    ///
    /// # Panics
    /// If the cache holds fewer.
    pub fn truncate(&mut self, len: usize) {
        assert!(len <= self.len(), "the cache holds {} positions, not {len}", self.len());
        self.tokens.truncate(len);
    }

    /// Silences heads in all that this sequence will read, or with an empty intervention none.
    ///
    /// # Errors
    /// If it holds positions already: they were read with other heads.
    pub fn silence(&mut self, intervention: HeadIntervention) -> Result<()> {
        if !self.is_empty() {
            return Err(Error::Usage("heads are silenced before a sequence's first token".into()));
        }
        self.silencer = (!intervention.is_empty()).then(|| Silencer::new(intervention));
        Ok(())
    }

    /// Whether heads are silenced.
    pub fn is_silenced(&self) -> bool {
        self.silencer.is_some()
    }

    /// Whether the cache was made for a model of these sizes, and by these operations.
    pub(super) fn fits(&self, config: &ModelConfig, ops: &Ops) -> bool {
        let kernels = ops.uses_kernels();
        let silencer_fits = |silencer: &Silencer| silencer.intervention.fits(config);
        if self.held != ops.cache_type() || !self.silencer.as_ref().is_none_or(silencer_fits) {
            return false;
        }
        match &self.store {
            KeysValues::Kernels(cache) => {
                let shape = cache.shape();
                kernels
                    && (shape.layers, shape.kv_heads, shape.head_dim)
                        == (config.layers, config.kv_heads, config.head_dim)
            }
            KeysValues::Candle(layers) => {
                let expected = [config.kv_heads, self.capacity, config.head_dim];
                !kernels
                    && layers.len() == config.layers
                    && layers.iter().all(|(keys, _)| keys.dims() == expected)
            }
        }
    }

    /// Checks that `count` more positions fit.
    pub(super) fn reserve(&self, count: usize) -> Result<()> {
        if count > self.capacity - self.len() {
            return Err(Error::ContextFull {
                needed: self.len() + count,
                context: self.capacity,
                hint: "ask for a larger one with -c, up to the model's own".into(),
            });
        }
        Ok(())
    }

    /// Appends the keys or values of a layer's first `count` positions, `[kv_heads][count]` rows of
    /// [`Decoder::cache_rows`](super::Decoder::cache_rows), in bytes that [`put_rows`](Self::put_rows) takes.
    pub(crate) fn copy_rows(
        &self,
        layer: usize,
        part: CachePart,
        count: usize,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        match &self.store {
            KeysValues::Kernels(cache) => cache.copy_rows(layer, part, count, out),
            KeysValues::Candle(layers) => {
                let rows = part_of(&layers[layer], part).narrow(1, 0, count)?.flatten_all()?;
                match rows.dtype() {
                    DType::F16 => out.extend(rows.to_vec1::<f16>()?.iter().flat_map(|row| row.to_le_bytes())),
                    _ => out.extend(rows.to_vec1::<f32>()?.iter().flat_map(|row| row.to_le_bytes())),
                }
            }
        }
        Ok(())
    }

    /// Writes a layer's keys or values of the first `count` positions, from rows `[kv_heads][any number]`.
    /// They count once [`restored`](Self::restored) is called.
    pub(crate) fn put_rows(
        &mut self,
        layer: usize,
        part: CachePart,
        count: usize,
        rows: &[u8],
    ) -> Result<()> {
        match &mut self.store {
            KeysValues::Kernels(cache) => cache.put_rows(layer, part, count, rows),
            KeysValues::Candle(layers) => {
                let held = part_of(&layers[layer], part);
                let (kv_heads, _, head_dim) = held.dims3()?;
                let positions = rows.len() / (kv_heads * head_dim * held.dtype().size_in_bytes());
                let shape = [kv_heads, positions, head_dim];
                let rows = Tensor::from_raw_buffer(rows, held.dtype(), &shape, held.device())?;
                held.slice_set(&rows.narrow(1, 0, count)?.contiguous()?, 1, 0)?;
            }
        }
        Ok(())
    }

    /// Takes over positions that every layer got by [`put_rows`](Self::put_rows), turned as part of a
    /// text so long.
    pub(crate) fn restored(&mut self, tokens: &[u32], text_length: usize) {
        self.tokens = tokens.to_vec();
        self.text_length = text_length;
    }

    /// Counts positions that every layer has written, as part of a text so long.
    pub(super) fn advance(&mut self, tokens: &[u32], text_length: usize) {
        self.tokens.extend_from_slice(tokens);
        self.text_length = text_length;
    }
}

fn part_of((keys, values): &(Tensor, Tensor), part: CachePart) -> &Tensor {
    match part {
        CachePart::Keys => keys,
        CachePart::Values => values,
    }
}
