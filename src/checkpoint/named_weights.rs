//! A checkpoint's weights by the decoder's names: which tensors a parameter lies in, which of their
//! rows, and which way round.

use std::borrow::Cow;
use std::cell::Cell;

use super::families::{Family, Rows};
use super::weights::Weights;
use crate::error::{Error, Result};
use crate::kernels::matmul::{ElementType, RawMatrix};
use crate::model::parameter::Part;
use crate::model::{ModelConfig, Module, Parameter, ParameterSource};

/// Bytes that are compared before their pages are given back.
const COMPARED: usize = 4 << 20;

/// A checkpoint's weights behind a family's names.
pub(super) struct NamedWeights<'a> {
    weights: &'a Weights,
    family: &'a Family,
    config: &'a ModelConfig,
    /// What the files' names lack: they hold the model without its head.
    lacking: &'a str,
    /// The layer that was asked for last: when the next begins, the pages read so far can go.
    layer: Cell<Option<usize>>,
    /// Told how many bytes of the matrices have been taken over, and of how many.
    progress: &'a dyn Fn(usize, usize),
    taken: Cell<usize>,
    all: usize,
}

impl<'a> NamedWeights<'a> {
    pub(super) fn new(weights: &'a Weights, family: &'a Family, config: &'a ModelConfig) -> NamedWeights<'a> {
        let mut named = NamedWeights {
            weights,
            family,
            config,
            lacking: "",
            layer: Cell::new(None),
            progress: &|_, _| (),
            taken: Cell::new(0),
            all: 0,
        };
        let missing = |named: &NamedWeights<'_>| {
            named.names(Module::Embedding.weight()).iter().any(|name| !weights.holds(name))
        };
        if missing(&named) {
            named.lacking = family.prefix;
            if missing(&named) {
                named.lacking = "";
            }
        }
        named
    }

    /// Tells `progress` how many bytes of the matrices have been taken over, and of how many.
    ///
    /// # Errors
    /// If one of them is missing or has a wrong shape or type.
    pub(super) fn telling(mut self, progress: &'a dyn Fn(usize, usize)) -> Result<NamedWeights<'a>> {
        for (parameter, shape) in self.config.parameters() {
            if parameter.role().is_some() {
                let row = self.element(parameter, &shape)?.row_bytes(shape[1]);
                self.all += row.unwrap_or(0) * shape[0];
            }
        }
        self.progress = progress;
        Ok(self)
    }

    /// Whether there is an output head that differs from the embedding, which the config says it is.
    /// Transformers believes the weights then.
    ///
    /// # Errors
    /// If one of them has a wrong shape or type.
    pub(super) fn holds_another_head(&self) -> Result<bool> {
        let [head, embedding] = [Module::OutputHead, Module::Embedding].map(Module::weight);
        let stored = |name: &String| self.weights.holds(name);
        if self.config.is_encoder()
            || !self.config.tied_head
            || ![head, embedding].iter().all(|parameter| self.names(*parameter).iter().all(stored))
        {
            return Ok(false);
        }
        let shape = [self.config.vocabulary, self.config.embedding_width];
        let (head, embedding) = (self.parameter(head, &shape)?, self.parameter(embedding, &shape)?);
        let same = head.element == embedding.element
            && head.bytes.len() == embedding.bytes.len()
            && head.bytes.chunks(COMPARED).zip(embedding.bytes.chunks(COMPARED)).all(|(head, embedding)| {
                let same = head == embedding;
                self.weights.release_part(head);
                self.weights.release_part(embedding);
                same
            });
        Ok(!same)
    }

    /// The tensors that hold a parameter, as they are called in these files.
    pub(super) fn names(&self, parameter: Parameter) -> Vec<String> {
        let suffixes = match parameter.part {
            Part::Weight => [".weight", ".gamma"],
            Part::Bias => [".bias", ".beta"],
        };
        let name = |module: &String| {
            let module = module.strip_prefix(self.lacking).unwrap_or(module);
            // Norms in BERT's first checkpoints have Greek names.
            let [usual, older] = suffixes.map(|suffix| format!("{module}{suffix}"));
            if self.weights.holds(&older) { older } else { usual }
        };
        (self.family.place)(self.config, parameter.module).names.iter().map(name).collect()
    }
}

/// How the tensors of a parameter lie in their files.
struct Stored {
    rows: Rows,
    /// Of each.
    shape: Vec<usize>,
    transposed: bool,
}

impl NamedWeights<'_> {
    fn stored(&self, parameter: Parameter, shape: &[usize], names: &[String]) -> Stored {
        let place = (self.family.place)(self.config, parameter.module);
        let mut held = shape.to_vec();
        held[0] = match place.rows {
            Rows::All | Rows::Interleaved { .. } => shape[0] / names.len(),
            Rows::Blocks { total, .. } => total,
        };
        let transposed =
            place.transposed && shape.len() == 2 && !names.iter().any(|name| self.weights.is_turned(name));
        if transposed {
            held.reverse();
        }
        Stored { rows: place.rows, shape: held, transposed }
    }

    /// The type that [`parameter`](ParameterSource::parameter) gives, after the same checks, without
    /// reading the values.
    pub(super) fn element(&self, parameter: Parameter, shape: &[usize]) -> Result<ElementType> {
        let names = self.names(parameter);
        let stored = self.stored(parameter, shape, &names);
        let elements = names.iter().map(|name| self.weights.element(name, &stored.shape));
        let elements = elements.collect::<Result<Vec<_>>>()?;
        let element = elements[0];
        if let Some(other) = elements.iter().position(|other| *other != element) {
            return Err(Error::Weights {
                file: self.weights.first_file().to_path_buf(),
                problem: format!(
                    "tensor {} holds {}, and {}, which belongs to it, {element}",
                    names[other], elements[other], names[0]
                ),
            });
        }
        Ok(if stored.transposed && element.is_quantized() { ElementType::F32 } else { element })
    }
}

impl Drop for NamedWeights<'_> {
    fn drop(&mut self) {
        self.weights.release();
    }
}

impl ParameterSource for NamedWeights<'_> {
    fn parameter(&self, parameter: Parameter, shape: &[usize]) -> Result<RawMatrix<'_>> {
        let layer = match parameter.module {
            Module::Layer(layer, _) => Some(layer),
            _ => None,
        };
        if self.layer.replace(layer) != layer {
            self.weights.release();
        }
        let names = self.names(parameter);
        let Stored { rows, shape: held, transposed } = self.stored(parameter, shape, &names);
        let parts = names
            .iter()
            .map(|name| self.weights.matrix(name, &held))
            .map(|matrix| if transposed { Ok(transpose(&matrix?)) } else { matrix })
            .collect::<Result<Vec<_>>>()?;
        let matrix = stack(parts);
        Ok(match (rows, shape.len()) {
            (Rows::All, _) => matrix,
            (Rows::Interleaved { head_dim }, _) => halves_apart(&matrix, head_dim),
            // A bias has a number for each row of the weight.
            (rows, 1) => select(matrix, rows, true),
            (rows, _) => select(matrix, rows, false),
        })
    }

    fn taken(&self, bytes: &[u8]) {
        self.weights.release_part(bytes);
        self.taken.set(self.taken.get() + bytes.len());
        (self.progress)(self.taken.get().min(self.all), self.all);
    }
}

/// Matrices on top of one another; vectors one behind the other.
fn stack(mut parts: Vec<RawMatrix<'_>>) -> RawMatrix<'_> {
    if parts.len() == 1 {
        return parts.remove(0);
    }
    let vectors = parts.iter().all(|part| part.rows == 1);
    let (rows, columns) = if vectors {
        (1, parts.iter().map(|part| part.columns).sum())
    } else {
        (parts.iter().map(|part| part.rows).sum(), parts[0].columns)
    };
    let element = parts[0].element;
    let bytes = parts.iter().flat_map(|part| part.bytes.iter().copied()).collect::<Vec<u8>>().into();
    RawMatrix { rows, columns, element, bytes }
}

/// Some rows of a matrix, or with `of_vector` some numbers of a vector.
fn select(matrix: RawMatrix<'_>, rows: Rows, of_vector: bool) -> RawMatrix<'_> {
    let Rows::Blocks { first, block, stride, total } = rows else { return matrix };
    let row = matrix.bytes.len() / total;
    let blocks = total / stride;
    let range = |index: usize| (index * stride + first) * row..(index * stride + first + block) * row;
    let bytes = match matrix.bytes {
        Cow::Borrowed(bytes) if blocks == 1 => Cow::Borrowed(&bytes[range(0)]),
        bytes => {
            (0..blocks).flat_map(|index| bytes[range(index)].iter().copied()).collect::<Vec<u8>>().into()
        }
    };
    let count = blocks * block;
    let (rows, columns) = if of_vector { (1, count) } else { (count, matrix.columns) };
    RawMatrix { rows, columns, element: matrix.element, bytes }
}

/// Puts interleaved rows back: the first half of each head before the second. Of a vector (one row),
/// the numbers.
fn halves_apart(matrix: &RawMatrix<'_>, head_dim: usize) -> RawMatrix<'static> {
    let rows = if matrix.rows == 1 { matrix.columns } else { matrix.rows };
    let row = matrix.bytes.len() / rows;
    let mut bytes = Vec::with_capacity(matrix.bytes.len());
    for head in matrix.bytes.chunks_exact(head_dim * row) {
        for half in 0..2 {
            head.chunks_exact(row).skip(half).step_by(2).for_each(|row| bytes.extend_from_slice(row));
        }
    }
    RawMatrix { rows: matrix.rows, columns: matrix.columns, element: matrix.element, bytes: bytes.into() }
}

/// `[inputs, outputs]` → `[outputs, inputs]`.
///
/// Blocks of quantised numbers run along the inputs: those are decoded.
pub(super) fn transpose(matrix: &RawMatrix<'_>) -> RawMatrix<'static> {
    if matrix.element.is_quantized() {
        let values = (0..matrix.rows).flat_map(|row| matrix.row(row));
        let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
        let (rows, columns, element) = (matrix.rows, matrix.columns, ElementType::F32);
        return transpose(&RawMatrix { rows, columns, element, bytes: bytes.into() });
    }
    let (rows, columns) = (matrix.columns, matrix.rows);
    let bytes = match matrix.element.block_bytes() {
        4 => turned::<4>(&matrix.bytes, rows, columns),
        _ => turned::<2>(&matrix.bytes, rows, columns),
    };
    RawMatrix { rows, columns, element: matrix.element, bytes: bytes.into() }
}

/// Elements of `SIZE` bytes, `[columns][rows]` → `[rows][columns]`, in squares that fit the innermost cache.
fn turned<const SIZE: usize>(bytes: &[u8], rows: usize, columns: usize) -> Vec<u8> {
    const SQUARE: usize = 32;
    let from = bytes.as_chunks::<SIZE>().0;
    let mut to = vec![[0u8; SIZE]; rows * columns];
    for first_row in (0..rows).step_by(SQUARE) {
        for first_column in (0..columns).step_by(SQUARE) {
            for row in first_row..rows.min(first_row + SQUARE) {
                for column in first_column..columns.min(first_column + SQUARE) {
                    to[row * columns + column] = from[column * rows + row];
                }
            }
        }
    }
    to.into_flattened()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_each_head_return_to_their_halves() {
        // Two heads of 4 rows: what llama.cpp's converter makes of 0 to 7.
        let stored = [0f32, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0];
        let bytes: Vec<u8> = stored.iter().flat_map(|value| value.to_le_bytes()).collect();
        for (rows, columns) in [(8, 1), (1, 8)] {
            let matrix = RawMatrix { rows, columns, element: ElementType::F32, bytes: (&bytes).into() };
            let apart = halves_apart(&matrix, 4);
            let values: Vec<f32> = (0..rows).flat_map(|row| apart.row(row)).collect();
            assert_eq!(values, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        }
    }
}
