//! Weights in safetensors or GGUF files: mapped, their headers checked before anything is used, and
//! lent to the decoder by our parameters' names.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::gguf::header::{Header, TensorInfo};
use super::gguf::tensor_type::SUPPORTED as SUPPORTED_BY_GGUF;
use super::gguf::tensors::{halves_apart, is_interleaved};
use super::source::{Bytes, Source};
use crate::error::{Error, Result};
use crate::kernels::matmul::{ElementType, RawMatrix};
use crate::model::{Parameter, ParameterSource};

/// Every tensor of a checkpoint, by the name in its files.
pub struct Weights {
    files: Vec<WeightFile>,
    tensors: HashMap<String, TensorPlace>,
    /// Where to say that a tensor is missing.
    first_file: PathBuf,
    /// The types that are loaded from such files, and what to do about others.
    supported: &'static str,
}

struct WeightFile {
    path: PathBuf,
    bytes: Bytes,
}

struct TensorPlace {
    file: usize,
    /// As the file calls it.
    type_name: String,
    /// `None`: not a type that we compute with.
    element: Option<ElementType>,
    shape: Vec<usize>,
    start: usize,
    end: usize,
}

impl Weights {
    /// Opens the weights files of a source and checks their headers.
    ///
    /// # Errors
    /// If a file is missing, cut off, garbled, or names a tensor twice (also across files).
    pub fn open(source: &Source) -> Result<Weights> {
        let names = source.weight_files()?;
        let supported = match source {
            Source::Gguf(_) => SUPPORTED_BY_GGUF,
            _ => "F32, F16 or BF16; convert the checkpoint to one of these",
        };
        let first_file = source.path(&names[0]);
        let mut weights = Weights { files: vec![], tensors: HashMap::new(), first_file, supported };
        for name in names {
            let (path, bytes) = (source.path(&name), source.map(&name)?);
            let tensors = match source {
                Source::Gguf(_) => read_gguf(&path, &bytes)?,
                _ => read_header(&path, &bytes)?,
            };
            for (tensor, mut place) in tensors {
                place.file = weights.files.len();
                if weights.tensors.insert(tensor.clone(), place).is_some() {
                    let problem = format!("tensor {tensor} is in another shard too");
                    return Err(Error::Weights { file: path, problem });
                }
            }
            weights.files.push(WeightFile { path, bytes });
        }
        Ok(weights)
    }

    /// Bytes of all tensors, as they lie in the files, by type.
    pub fn bytes_by_type(&self) -> BTreeMap<String, usize> {
        let mut sizes = BTreeMap::new();
        for place in self.tensors.values() {
            *sizes.entry(place.type_name.to_lowercase()).or_insert(0) += place.end - place.start;
        }
        sizes
    }

    /// The files' names and sizes.
    pub fn files(&self) -> impl Iterator<Item = (&Path, usize)> {
        self.files.iter().map(|file| (file.path.as_path(), file.bytes.len()))
    }

    /// Names of tensors in the files.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor's place and type, after checking that its shape is the one expected and its type one
    /// that we compute with.
    fn place(&self, name: &str, shape: &[usize]) -> Result<(&TensorPlace, ElementType)> {
        let place = self
            .tensors
            .get(name)
            .ok_or_else(|| Error::TensorMissing { file: self.first_file.clone(), name: name.into() })?;
        let file = &self.files[place.file];
        if place.shape != shape {
            return Err(Error::ShapeMismatch {
                file: file.path.clone(),
                name: name.into(),
                found: place.shape.clone(),
                expected: shape.to_vec(),
            });
        }
        let element = place.element.ok_or_else(|| Error::TensorType {
            file: file.path.clone(),
            name: name.into(),
            found: place.type_name.clone(),
            supported: self.supported,
        })?;
        Ok((place, element))
    }

    fn matrix(&self, name: &str, shape: &[usize]) -> Result<RawMatrix<'_>> {
        let (place, element) = self.place(name, shape)?;
        let bytes = &self.files[place.file].bytes[place.start..place.end];
        let (rows, columns) = match shape {
            [columns] => (1, *columns),
            [rows, columns] => (*rows, *columns),
            _ => unreachable!("the decoder asks for vectors and matrices"),
        };
        Ok(RawMatrix { rows, columns, element, bytes: Cow::Borrowed(bytes) })
    }
}

/// How files arrange a model's parameters.
#[derive(Clone, Copy)]
pub(super) struct Arrangement {
    /// The name of a parameter.
    pub name: fn(Parameter) -> String,
    /// Where rows of queries and keys are interleaved (GGUF's llama): the head size.
    pub interleaved: Option<usize>,
}

/// A checkpoint's weights behind the names and the order of its files.
pub(super) struct NamedWeights<'a> {
    weights: &'a Weights,
    arrangement: Arrangement,
    /// The layer that was asked for last: when the next begins, the pages read so far can go.
    layer: Cell<Option<usize>>,
}

impl<'a> NamedWeights<'a> {
    pub(super) fn new(weights: &'a Weights, arrangement: Arrangement) -> NamedWeights<'a> {
        NamedWeights { weights, arrangement, layer: Cell::new(None) }
    }

    /// The type in which the files hold a parameter, found without reading it.
    pub(super) fn element(&self, parameter: Parameter, shape: &[usize]) -> Result<ElementType> {
        Ok(self.weights.place(&(self.arrangement.name)(parameter), shape)?.1)
    }
}

impl Drop for NamedWeights<'_> {
    fn drop(&mut self) {
        self.weights.files.iter().for_each(|file| file.bytes.release());
    }
}

impl ParameterSource for NamedWeights<'_> {
    fn parameter(&self, parameter: Parameter, shape: &[usize]) -> Result<RawMatrix<'_>> {
        let layer = match parameter {
            Parameter::Layer(layer, _) => Some(layer),
            _ => None,
        };
        if self.layer.replace(layer) != layer {
            self.weights.files.iter().for_each(|file| file.bytes.release());
        }
        let Arrangement { name, interleaved } = self.arrangement;
        let matrix = self.weights.matrix(&name(parameter), shape)?;
        Ok(match interleaved {
            Some(head_dim) if is_interleaved(parameter) => halves_apart(&matrix, head_dim),
            _ => matrix,
        })
    }
}

fn read_gguf(path: &Path, bytes: &[u8]) -> Result<Vec<(String, TensorPlace)>> {
    let tensors = Header::read(path, bytes)?.tensors.into_iter();
    Ok(tensors
        .map(|TensorInfo { name, tensor_type, shape, start, end }| {
            let (type_name, element) = (tensor_type.name.to_owned(), tensor_type.element());
            (name, TensorPlace { file: 0, type_name, element, shape, start, end })
        })
        .collect())
}

fn element(dtype: Dtype) -> Option<ElementType> {
    match dtype {
        Dtype::F32 => Some(ElementType::F32),
        Dtype::BF16 => Some(ElementType::Bf16),
        Dtype::F16 => Some(ElementType::F16),
        _ => None,
    }
}

fn read_header(path: &Path, bytes: &[u8]) -> Result<Vec<(String, TensorPlace)>> {
    let problem = |problem: String| Error::Weights { file: path.to_path_buf(), problem };
    let Some(length) = bytes.first_chunk::<8>() else {
        return Err(problem(format!("holds {} bytes, too few for a safetensors header", bytes.len())));
    };
    let length = u64::from_le_bytes(*length);
    let available = bytes.len() as u64 - 8;
    if length > available {
        return Err(problem(format!(
            "is cut off or no safetensors file: its header should be {length} bytes long, and {available} follow"
        )));
    }
    let header = &bytes[8..8 + length as usize];
    if let Some(name) =
        first_repeated_name(header).map_err(|e| problem(format!("the header is garbled: {e}")))?
    {
        return Err(problem(format!("tensor {name} stands twice in the header")));
    }
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| {
        let wanted = promised_end(header).map(|end| end.saturating_add(8 + length));
        problem(match wanted {
            Some(wanted) if wanted > bytes.len() as u64 => {
                format!("is cut off: it holds {} bytes, and its header promises {wanted}", bytes.len())
            }
            _ => format!("the header is garbled: {error}"),
        })
    })?;
    let start = 8 + length as usize;
    Ok(metadata
        .tensors()
        .into_iter()
        .map(|(name, info)| {
            let (from, to) = info.data_offsets;
            let place = TensorPlace {
                file: 0,
                type_name: format!("{:?}", info.dtype),
                element: element(info.dtype),
                shape: info.shape.clone(),
                start: start + from,
                end: start + to,
            };
            (name, place)
        })
        .collect())
}

/// The first key of a JSON object that stands there twice: serde, and with it the safetensors
/// crate, would take the last in silence.
fn first_repeated_name(header: &[u8]) -> Result<Option<String>, serde_json::Error> {
    struct Names;
    impl<'de> Visitor<'de> for Names {
        type Value = Option<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of tensors")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<String>, A::Error> {
            let mut seen = std::collections::HashSet::new();
            let mut repeated = None;
            while let Some((name, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
                if !seen.insert(name.clone()) {
                    repeated.get_or_insert(name);
                }
            }
            Ok(repeated)
        }
    }
    serde_json::Deserializer::from_slice(header).deserialize_map(Names)
}

/// Where the last tensor ends, as a header that the crate refused tells it.
fn promised_end(header: &[u8]) -> Option<u64> {
    let header: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(header).ok()?;
    header.values().filter_map(|tensor| tensor.get("data_offsets")?.get(1)?.as_u64()).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend(std::iter::repeat_n(0, data));
        bytes
    }

    fn message(bytes: &[u8]) -> String {
        match read_header(Path::new("model.safetensors"), bytes) {
            Ok(_) => panic!("accepted"),
            Err(error) => error.to_string(),
        }
    }

    const GOOD: &str = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F16","shape":[1,2],"data_offsets":[8,12]}}"#;

    #[test]
    fn a_whole_file_is_accepted() {
        let mut tensors = read_header(Path::new("x"), &file(GOOD, 12)).unwrap();
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(tensors.len(), 2);
        assert_eq!((tensors[1].0.as_str(), tensors[1].1.shape.as_slice()), ("b", [1, 2].as_slice()));
        assert_eq!(tensors[1].1.start, 8 + GOOD.len() + 8);
    }

    #[test]
    fn a_file_cut_anywhere_is_refused_and_says_so() {
        let whole = file(GOOD, 12);
        for len in 0..whole.len() {
            let message = message(&whole[..len]);
            assert!(message.starts_with("model.safetensors: "), "{message}");
            assert!(message.contains("cut off") || message.contains("too few"), "{len}: {message}");
        }
    }

    #[test]
    fn a_repeated_name_is_named() {
        let twice = GOOD.replace("\"b\"", "\"a\"");
        assert!(message(&file(&twice, 12)).contains("tensor a stands twice"));
    }

    #[test]
    fn hostile_headers_are_refused() {
        for header in [
            "",
            "{",
            "[]",
            r#"{"a":3}"#,
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615]}}"#,
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#,
            r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#,
            r#"{"a":{"dtype":"F99","shape":[2],"data_offsets":[0,8]}}"#,
            r#"{"a":{"dtype":"F32","shape":[18446744073709551615,18446744073709551615],"data_offsets":[0,8]}}"#,
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#,
        ] {
            let message = message(&file(header, 8));
            assert!(message.contains("garbled") || message.contains("cut off"), "{header}: {message}");
        }
        let mut huge = file(GOOD, 12);
        huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(message(&huge).contains("cut off"));
    }
}
