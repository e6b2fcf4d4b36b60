//! Where a module's parameters lie in a family's files: under which name, in which rows of a tensor
//! that holds several modules, and which way round.

use crate::model::ModelConfig;
use crate::model::parameter::LayerModule;

/// The tensors of a module, without `.weight` or `.bias`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// On top of one another; nearly always one.
    pub names: Vec<String>,
    pub rows: Rows,
    /// Weights are `[inputs, outputs]`, as in GPT-2's `Conv1D`.
    pub transposed: bool,
}

/// Which rows of a tensor (outputs of a projection) belong to a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    All,
    /// `block` rows of every `stride`, the first at `first`, of a tensor of `total` rows.
    Blocks {
        first: usize,
        block: usize,
        stride: usize,
        total: usize,
    },
    /// All, but of each head's rows those of its two halves in turn, as llama.cpp wants them.
    Interleaved {
        head_dim: usize,
    },
}

impl Place {
    pub fn of(name: impl Into<String>) -> Place {
        Place { names: vec![name.into()], rows: Rows::All, transposed: false }
    }

    /// Inputs × outputs.
    pub fn transposed(self) -> Place {
        Place { transposed: true, ..self }
    }

    /// Rows of one tensor for query, key and value, one after the other.
    pub fn of_query_key_value(self, config: &ModelConfig, module: LayerModule) -> Place {
        let (query, kv) = (config.query_width(), config.kv_width());
        let (first, block) = match module {
            LayerModule::Query => (0, query),
            LayerModule::Key => (query, kv),
            _ => (query + kv, kv),
        };
        let total = query + 2 * kv;
        Place { rows: Rows::Blocks { first, block, stride: total, total }, ..self }
    }

    /// The same, but for each key/value head: its query heads, its key, its value.
    pub fn of_grouped_query_key_value(self, config: &ModelConfig, module: LayerModule) -> Place {
        let (size, group) = (config.head_dim, config.heads / config.kv_heads);
        let (first, block) = match module {
            LayerModule::Query => (0, group * size),
            LayerModule::Key => (group * size, size),
            _ => ((group + 1) * size, size),
        };
        let stride = (group + 2) * size;
        Place { rows: Rows::Blocks { first, block, stride, total: stride * config.kv_heads }, ..self }
    }

    /// One of `count` equal parts.
    pub fn part(self, index: usize, count: usize, rows: usize) -> Place {
        let total = count * rows;
        Place { rows: Rows::Blocks { first: index * rows, block: rows, stride: total, total }, ..self }
    }
}
