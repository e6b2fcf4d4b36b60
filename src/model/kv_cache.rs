//! Keys and values of the positions so far, one [`LayerKeysValues`] a layer, preallocated for the
//! context asked for and written in place.

use candle_core::{DType, Tensor};

use super::config::ModelConfig;
use super::ops::Ops;
use crate::error::{Error, Result};
use crate::kernels::attention::{CacheShape, LayerCache};

/// The cache of one sequence.
pub struct KvCache {
    pub(super) layers: Vec<LayerKeysValues>,
    len: usize,
    capacity: usize,
}

/// One layer's part, in the order that its device's attention reads.
pub(super) enum LayerKeysValues {
    Kernels(LayerCache),
    /// Keys and values `[kv_heads, capacity, head_dim]`.
    Candle { keys: Tensor, values: Tensor },
}

impl KvCache {
    pub(super) fn new(config: &ModelConfig, ops: &Ops, capacity: usize) -> Result<KvCache> {
        let shape = CacheShape { kv_heads: config.kv_heads, head_dim: config.head_dim, capacity };
        let layers = (0..config.layers)
            .map(|_| {
                Ok(if ops.uses_kernels() {
                    LayerKeysValues::Kernels(LayerCache::new(shape))
                } else {
                    let zeros = || {
                        let dims = (config.kv_heads, capacity, config.head_dim);
                        Tensor::zeros(dims, DType::F32, ops.device())
                    };
                    LayerKeysValues::Candle { keys: zeros()?, values: zeros()? }
                })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(KvCache { layers, len: 0, capacity })
    }

    /// Positions held.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
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
        assert!(len <= self.len, "the cache holds {} positions, not {len}", self.len);
        self.len = len;
    }

    /// Checks that `count` more positions fit.
    pub(super) fn reserve(&self, count: usize) -> Result<()> {
        if count > self.capacity - self.len {
            return Err(Error::ContextFull {
                needed: self.len + count,
                context: self.capacity,
                hint: "ask for a larger one with -c, up to the model's own".into(),
            });
        }
        Ok(())
    }

    /// Counts positions that every layer has written.
    pub(super) fn advance(&mut self, count: usize) {
        self.len += count;
    }
}
