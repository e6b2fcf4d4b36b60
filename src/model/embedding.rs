//! From tokens to the stream: the embedding, with what some families add to it or pass it through.

use candle_core::Tensor;

use super::config::LearnedPositions;
use super::loader::Loader;
use super::ops::{Linear, Norm, Ops};
use super::parameter::Module;
use crate::error::Result;

pub(super) struct Embedding {
    /// `[vocabulary, embedding_width]`; serves as the output head where that is tied.
    pub(super) table: Linear,
    multiplier: f64,
    /// From the embedding's width to the stream's.
    pub(super) projection: Option<Linear>,
    /// `[rows, hidden]`
    positions: Option<(Tensor, LearnedPositions)>,
    /// The first type's, `[1, hidden]`.
    token_type: Option<Tensor>,
    norm: Option<Norm>,
}

impl Embedding {
    pub(super) fn new(load: Loader<'_>) -> Result<Embedding> {
        let Loader { config, ops, source } = load;
        let (hidden, width) = (config.hidden, config.embedding_width);
        let table = |module: Module, rows| ops.table(&source.parameter(module.weight(), &[rows, hidden])?);
        let positions = |positions: LearnedPositions| -> Result<_> {
            Ok((table(Module::Positions, positions.rows)?, positions))
        };
        Ok(Embedding {
            table: load.linear(&[(Module::Embedding, config.vocabulary)], width, false)?,
            multiplier: config.multipliers.embedding,
            projection: (width != hidden)
                .then(|| load.linear(&[(Module::EmbeddingProjection, hidden)], width, false))
                .transpose()?,
            positions: config.learned_positions.map(positions).transpose()?,
            token_type: match config.token_types {
                0 => None,
                types => Some(table(Module::TokenTypes, types)?.narrow(0, 0, 1)?),
            },
            norm: config.embedding_norm.then(|| load.norm(Module::EmbeddingNorm, hidden)).transpose()?,
        })
    }

    /// `[tokens, hidden]`, for tokens that stand behind `depth` others.
    pub(super) fn forward(&self, ops: &Ops, tokens: &[u32], depth: usize) -> Result<Tensor> {
        let mut hidden = ops.scale(ops.embed(&self.table, tokens)?, self.multiplier)?;
        if let Some(projection) = &self.projection {
            hidden = ops.linear(&hidden, projection)?;
        }
        if let Some((table, positions)) = &self.positions {
            hidden = ops.add(&hidden, ops.rows(table, &positions.of(tokens, depth))?)?;
        }
        if let Some(token_type) = &self.token_type {
            hidden = hidden.broadcast_add(token_type)?;
        }
        ops.norm(&hidden, self.norm.as_ref())
    }
}

impl LearnedPositions {
    /// Each token's row of the table.
    fn of(&self, tokens: &[u32], depth: usize) -> Vec<u32> {
        let mut next = (depth + self.offset) as u32;
        let row = |token: &u32| match self.padding {
            Some(padding) if *token == padding => self.offset as u32 - 1,
            _ => {
                next += 1;
                next - 1
            }
        };
        tokens.iter().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_does_not_count_where_a_family_says_so() {
        let plain = LearnedPositions { rows: 100, offset: 2, padding: None };
        assert_eq!(plain.of(&[1, 7, 1, 8], 3), [5, 6, 7, 8]);
        let roberta = LearnedPositions { padding: Some(1), ..plain };
        assert_eq!(roberta.of(&[1, 7, 1, 8], 0), [1, 2, 1, 3]);
    }
}
