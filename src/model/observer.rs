//! How a caller sees attention as it happens: the model calls the trait, the caller implements it.

use std::ops::Range;

use crate::error::Result;
pub use crate::kernels::attention::TakeRows;

/// One forward pass, as an observer sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StepShape {
    /// Position of the first query: the depth of the cache when the step starts.
    pub first_query: usize,
    pub queries: usize,
    /// Positions in the cache when the step ends: `first_query + queries`.
    pub keys: usize,
}

/// Some rows of one layer's attention map (*pattern* in TransformerLens): softmax weights, each
/// row of which sums to 1.
#[derive(Clone, Copy, Debug)]
pub struct AttentionRows<'a> {
    pub layer: usize,
    /// Position of the first row's query.
    pub first_query: usize,
    pub heads: usize,
    pub queries: usize,
    /// Columns: keys from position 0. Those beyond (up to the step's `keys`) are all 0 here.
    pub keys: usize,
    /// `[heads, queries, keys]`
    pub weights: &'a [f32],
}

/// Rows of one layer's attention map that are about to be made: [`AttentionRows`] without weights.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RowsShape {
    pub layer: usize,
    /// Position of the first row's query.
    pub first_query: usize,
    pub heads: usize,
    pub queries: usize,
    /// Keys that the last query sees, from position 0.
    pub keys: usize,
}

impl AttentionRows<'_> {
    pub fn shape(&self) -> RowsShape {
        let AttentionRows { layer, first_query, heads, queries, keys, .. } = *self;
        RowsShape { layer, first_query, heads, queries, keys }
    }

    /// The weights of one head, `[queries, keys]`.
    pub fn head(&self, head: usize) -> &[f32] {
        let size = self.queries * self.keys;
        &self.weights[head * size..(head + 1) * size]
    }
}

/// How much of each position's value a head passes on: the norm of what key *j* adds to the stream at
/// weight 1, ‖vⱼ W_O‖ (Kobayashi et al. 2020; the part of the output projection that the head meets,
/// without its bias).
#[derive(Clone, Copy, Debug)]
pub struct ValueNorms<'a> {
    pub layer: usize,
    /// The first position; the step's positions, no earlier ones.
    pub first: usize,
    pub heads: usize,
    pub positions: usize,
    /// `[heads, positions]`
    pub norms: &'a [f32],
}

/// What one layer's scores are made of, for the tokens of one step.
#[derive(Clone, Copy, Debug)]
pub struct Projected<'a> {
    pub layer: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// What the products of queries and keys are multiplied with: 1/√dₖ in most models.
    pub scale: f32,
    /// Scores are held within ± this, by tanh.
    pub cap: Option<f32>,
    /// Added to the scores of each head, `[heads, keys]`.
    pub bias: Option<&'a [f32]>,
    /// Queries, keys and values, normed and turned by their positions:
    /// `[tokens, (heads + 2 · kv_heads) · head_dim]`
    pub rows: &'a [f32],
}

/// Receives attention maps while the model runs.
///
/// Rows come in blocks of queries, every layer's blocks in order, and layers in order. An error
/// ends the forward pass and reaches its caller.
pub trait AttentionObserver {
    /// Asked before a layer does any work; `false` keeps it from making a map at all.
    fn wants(&self, layer: usize) -> bool;

    /// Asked before a block of queries of a layer that is wanted, by their positions; `false` leaves
    /// them out. A block that is wanted comes whole.
    fn wants_queries(&self, _layer: usize, _queries: Range<usize>) -> bool {
        true
    }

    /// Offers the rows of a layer one by one, where and when they are made; that spares a map of them.
    /// Whoever takes them all this way is told when they are there ([`taken`](AttentionObserver::taken));
    /// with `None` they come as a map ([`observe`](AttentionObserver::observe)), as they do from
    /// arithmetic that has no such rows.
    ///
    /// # Errors
    /// The observer's own.
    fn taker(&mut self, _rows: RowsShape) -> Result<Option<Box<dyn TakeRows + '_>>> {
        Ok(None)
    }

    /// All rows of a block have gone to its [`taker`](AttentionObserver::taker).
    ///
    /// # Errors
    /// The observer's own: a full disk, for one.
    fn taken(&mut self, _rows: RowsShape) -> Result<()> {
        Ok(())
    }

    /// Receives rows of a layer.
    ///
    /// # Errors
    /// The observer's own: a full disk, for one.
    fn observe(&mut self, rows: AttentionRows<'_>) -> Result<()>;

    /// Whether a layer's [`ValueNorms`] are wanted too; they cost about what its output projection does.
    fn wants_value_norms(&self, _layer: usize) -> bool {
        false
    }

    /// Receives the norms of a layer's values at the step's positions, before the layer's rows.
    ///
    /// # Errors
    /// The observer's own.
    fn observe_value_norms(&mut self, _norms: ValueNorms<'_>) -> Result<()> {
        Ok(())
    }

    /// Whether a layer that [`wants`](AttentionObserver::wants) answers `true` for lends its queries,
    /// keys and values too.
    fn wants_projected(&self, _layer: usize) -> bool {
        false
    }

    /// Receives a layer's queries, keys and values, before its rows.
    ///
    /// # Errors
    /// The observer's own.
    fn projected(&mut self, _rows: Projected<'_>) -> Result<()> {
        Ok(())
    }

    /// A forward pass begins.
    ///
    /// # Errors
    /// The observer's own.
    fn begin_step(&mut self, _step: StepShape) -> Result<()> {
        Ok(())
    }

    /// The forward pass that began last is whole.
    ///
    /// # Errors
    /// The observer's own.
    fn end_step(&mut self) -> Result<()> {
        Ok(())
    }
}
