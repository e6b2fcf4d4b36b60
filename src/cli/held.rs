//! As what the weights are held, in words: for `info` and `convert`.

use std::collections::BTreeMap;

use attend::checkpoint::HeldMatrix;
use attend::kernels::matmul::ElementType;
use attend::model::precision::Instead;

use super::output::megabytes;

/// How many matrices are held as what, then a line for each kind that is not as was asked.
pub fn held_lines(matrices: &[HeldMatrix], asked: Option<ElementType>) -> Vec<String> {
    let mut types = BTreeMap::<ElementType, (usize, usize)>::new();
    let mut kinds = BTreeMap::<(Instead, ElementType, usize, ElementType), usize>::new();
    for matrix in matrices {
        let (count, bytes) = types.entry(matrix.held).or_default();
        *count += 1;
        *bytes += matrix.held.row_bytes(matrix.columns).unwrap_or(0) * matrix.rows;
        if let Some(instead) = matrix.instead {
            let wanted = asked.unwrap_or(matrix.found);
            *kinds.entry((instead, wanted, matrix.columns, matrix.held)).or_default() += 1;
        }
    }
    let types: Vec<String> = types
        .into_iter()
        .map(|(held, (count, bytes))| format!("{held}: {count} matrices ({})", megabytes(bytes as u64)))
        .collect();
    let all = matrices.len();
    let kinds = kinds.into_iter().map(|((instead, wanted, columns, held), count)| match instead {
        Instead::Indivisible => format!(
            "{count} of {all} matrices: rows of {columns} do not divide by {}; held as {held}",
            wanted.block_values()
        ),
        Instead::Table => {
            format!("{count} of {all} matrices: embedding and output head stay finer than {wanted}; held as {held}")
        }
        Instead::Router => format!("{count} of {all} matrices: routers stay as they are; held as {held}"),
        Instead::NoKernel => {
            format!("{count} of {all} matrices: no kernel computes with {wanted}; held as {held}")
        }
    });
    std::iter::once(types.join(", ")).chain(kinds).collect()
}
