//! As what numbers are held in memory: the cache as asked for, each weight matrix as far as it allows.

use crate::kernels::cache::CacheType;
use crate::kernels::matmul::ElementType;

/// How numbers are to be held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Precision {
    /// Of weights; `None`: each matrix as it is found.
    pub asked: Option<ElementType>,
    /// As what most weights are held.
    pub element: ElementType,
    /// Of keys and values.
    pub cache: CacheType,
}

/// What a matrix is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MatrixRole {
    /// The embedding or the output head.
    Table,
    /// Chooses experts: what it says is compared, not added up.
    Router,
    /// Any other.
    Projection,
}

/// Why a matrix is held as another type than was asked for (or, where none was, than it has in its file).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Instead {
    /// The rows are no whole number of the type's blocks.
    Indivisible,
    /// Tables stay at 8 bits where the rest has 4: their errors reach the logits directly
    /// (llama.cpp keeps them finer too).
    Table,
    /// Routers stay as they are: a small error would send a token to other experts.
    Router,
    /// No kernel computes with the file's type.
    NoKernel,
}

/// As what a matrix is held that a file holds as `found`, with rows of `columns`, where `asked` is
/// wanted (`None`: as it is found), and why if that is something else.
pub fn held(
    asked: Option<ElementType>,
    found: ElementType,
    columns: usize,
    role: MatrixRole,
) -> (ElementType, Option<Instead>) {
    let wanted = asked.unwrap_or(found);
    let four_bits = matches!(wanted, ElementType::Q4_0 | ElementType::Q4_1 | ElementType::Q4K);
    if matches!(wanted, ElementType::Q5K | ElementType::Q6K) {
        return (ElementType::Q8_0, Some(Instead::NoKernel));
    }
    let (wanted, instead) = match role {
        MatrixRole::Router if asked.is_some_and(ElementType::is_quantized) => {
            return match found {
                ElementType::Q5K | ElementType::Q6K => (ElementType::Q8_0, Some(Instead::NoKernel)),
                _ => (found, (found != wanted).then_some(Instead::Router)),
            };
        }
        MatrixRole::Table if four_bits && asked.is_some() => (ElementType::Q8_0, Some(Instead::Table)),
        _ => (wanted, None),
    };
    // From the type wanted to finer ones; the file's own type always fits.
    for candidate in [wanted, ElementType::Q8_0] {
        if columns.is_multiple_of(candidate.block_values()) {
            return (candidate, if candidate == wanted { instead } else { Some(Instead::Indivisible) });
        }
    }
    (found, Some(Instead::Indivisible))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_matrix_gets_the_nearest_type_that_fits() {
        use ElementType::*;
        use Instead::{Indivisible, NoKernel};
        use MatrixRole::{Projection, Router, Table};
        for (asked, found, columns, role, expected) in [
            (None, Q4_1, 576, Table, (Q4_1, None)),
            (None, Q6K, 512, Projection, (Q8_0, Some(NoKernel))),
            (None, Bf16, 7, Projection, (Bf16, None)),
            (Some(F32), Q4K, 512, Table, (F32, None)),
            (Some(Q8_0), F32, 576, Table, (Q8_0, None)),
            (Some(Q8_0), F16, 48, Projection, (F16, Some(Indivisible))),
            (Some(Q4_0), F32, 576, Projection, (Q4_0, None)),
            (Some(Q4_0), F32, 576, Table, (Q8_0, Some(Instead::Table))),
            (Some(Q4K), F32, 576, Projection, (Q8_0, Some(Indivisible))),
            (Some(Q4K), F32, 1536, Projection, (Q4K, None)),
            (Some(Q4K), Bf16, 40, Projection, (Bf16, Some(Indivisible))),
            (Some(Q4K), Bf16, 40, Table, (Bf16, Some(Indivisible))),
            (Some(Q4_0), F32, 64, Router, (F32, Some(Instead::Router))),
            (Some(Bf16), F32, 64, Router, (Bf16, None)),
            (Some(Q4_0), Q6K, 512, Router, (Q8_0, Some(NoKernel))),
        ] {
            assert_eq!(held(asked, found, columns, role), expected, "{asked:?} {found} {columns} {role:?}");
        }
    }
}
