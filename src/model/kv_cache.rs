//! Keys and values of the positions so far, preallocated for the context asked for and written in
//! place.

use candle_core::Tensor;

use super::config::ModelConfig;
use super::ops::Ops;
use crate::error::{Error, Result};
use crate::kernels::cache::{Cache, CacheType};

/// The cache of one sequence.
pub struct KvCache {
    pub(super) store: KeysValues,
    tokens: Vec<u32>,
    held: CacheType,
    capacity: usize,
    /// Tokens of the text that the keys' positions were chosen for.
    text_length: usize,
}

/// Keys and values of every layer, in the order that the device's attention reads.
pub(super) enum KeysValues {
    Kernels(Cache),
    /// For each layer its keys and its values, `[kv_heads, capacity, head_dim]`.
    Candle(Vec<(Tensor, Tensor)>),
}

impl KvCache {
    pub(super) fn new(store: KeysValues, held: CacheType, capacity: usize) -> KvCache {
        KvCache { store, tokens: vec![], held, capacity, text_length: 0 }
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
    pub(super) fn text_length(&self) -> usize {
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

    /// Whether the cache was made for a model of these sizes, and by these operations.
    pub(super) fn fits(&self, config: &ModelConfig, ops: &Ops) -> bool {
        let kernels = ops.uses_kernels();
        if self.held != ops.cache_type() {
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

    /// Counts positions that every layer has written, as part of a text so long.
    pub(super) fn advance(&mut self, tokens: &[u32], text_length: usize) {
        self.tokens.extend_from_slice(tokens);
        self.text_length = text_length;
    }
}
