//! Weights in safetensors or GGUF files: mapped, their headers checked before anything is used, and
//! lent by the names that they have there.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::gguf::header::{Header, TensorInfo};
use super::gguf::tensor_type::{SUPPORTED as SUPPORTED_BY_GGUF, TensorType};
use super::source::{Bytes, Source};
use crate::error::{Error, Result};
use crate::kernels::matmul::{ElementType, RawMatrix};

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
    dtype: StoredType,
    /// How its values are held, where that is a type we compute with.
    element: Option<ElementType>,
    /// Of its values.
    shape: Vec<usize>,
    /// Whether it was written outputs × inputs though its family stores inputs × outputs.
    turned: bool,
    start: usize,
    end: usize,
}

/// A tensor as it lies in its file.
pub(super) struct StoredTensor<'a> {
    pub dtype: Dtype,
    /// How its values are held, where that is a type we compute with.
    pub element: Option<ElementType>,
    /// Of its values.
    pub shape: &'a [usize],
    /// Whether it was written outputs × inputs though its family stores inputs × outputs.
    pub turned: bool,
    pub bytes: &'a [u8],
}

/// In a file's metadata, before the name of a tensor: which quantised type its bytes are, and that
/// it lies outputs × inputs though its family stores it the other way.
pub(super) const QUANTIZED_KEY: &str = "attend.dtype.";
pub(super) const TURNED_KEY: &str = "attend.transposed.";
/// A tensor's type, as its file has it.
#[derive(Clone, Copy)]
enum StoredType {
    Safetensors(Dtype),
    Gguf(&'static TensorType),
}

impl fmt::Display for StoredType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoredType::Safetensors(dtype) => write!(f, "{dtype:?}"),
            StoredType::Gguf(tensor_type) => f.write_str(tensor_type.name),
        }
    }
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
            let name = match place.element {
                Some(element) => element.name().to_owned(),
                None => place.dtype.to_string().to_lowercase(),
            };
            *sizes.entry(name).or_insert(0) += place.end - place.start;
        }
        sizes
    }

    /// The files' names and sizes.
    pub fn files(&self) -> impl Iterator<Item = (&Path, usize)> {
        self.files.iter().map(|file| (file.path.as_path(), file.bytes.len()))
    }

    /// The files as they are, headers included.
    pub(super) fn bytes(&self) -> impl Iterator<Item = &[u8]> {
        self.files.iter().map(|file| &*file.bytes)
    }

    /// Names of tensors in the files.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor as it lies in a safetensors file.
    pub(super) fn tensor(&self, name: &str) -> Option<StoredTensor<'_>> {
        let TensorPlace { file, dtype, element, ref shape, turned, start, end } = *self.tensors.get(name)?;
        let StoredType::Safetensors(dtype) = dtype else { return None };
        Some(StoredTensor { dtype, element, shape, turned, bytes: &self.files[file].bytes[start..end] })
    }

    /// Gives the memory of what was read so far back to the system.
    pub(super) fn release(&self) {
        self.files.iter().for_each(|file| file.bytes.release());
    }

    /// Gives back the memory of a part that was lent.
    pub(super) fn release_part(&self, part: &[u8]) {
        self.files.iter().for_each(|file| file.bytes.release_part(part));
    }

    pub(super) fn holds(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Whether a tensor was written outputs × inputs though its family stores inputs × outputs.
    pub(super) fn is_turned(&self, name: &str) -> bool {
        self.tensors.get(name).is_some_and(|tensor| tensor.turned)
    }

    /// The file to name where one is wrong.
    pub(super) fn first_file(&self) -> &Path {
        &self.first_file
    }

    /// The type of a tensor, after the checks of [`matrix`](Self::matrix).
    pub(super) fn element(&self, name: &str, shape: &[usize]) -> Result<ElementType> {
        Ok(self.place(name, shape)?.1)
    }

    /// Where a tensor lies, and its type; its shape must be `shape`, and the type one that we compute
    /// with (of a vector, one without blocks).
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
        match place.element {
            Some(element) if shape.len() == 2 || !element.is_quantized() => Ok((place, element)),
            _ => Err(Error::TensorType {
                file: file.path.clone(),
                name: name.into(),
                found: place.dtype.to_string(),
                supported: self.supported,
            }),
        }
    }

    /// A whole tensor, whose shape must be `shape`.
    pub(super) fn matrix(&self, name: &str, shape: &[usize]) -> Result<RawMatrix<'_>> {
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

fn element(dtype: Dtype) -> Option<ElementType> {
    match dtype {
        Dtype::F32 => Some(ElementType::F32),
        Dtype::BF16 => Some(ElementType::Bf16),
        Dtype::F16 => Some(ElementType::F16),
        _ => None,
    }
}

fn read_gguf(path: &Path, bytes: &[u8]) -> Result<Vec<(String, TensorPlace)>> {
    let tensors = Header::read(path, bytes)?.tensors.into_iter();
    Ok(tensors
        .map(|TensorInfo { name, tensor_type, shape, start, end }| {
            let (dtype, element) = (StoredType::Gguf(tensor_type), tensor_type.element());
            (name, TensorPlace { file: 0, dtype, element, shape, turned: false, start, end })
        })
        .collect())
}

fn read_header(path: &Path, bytes: &[u8]) -> Result<Vec<(String, TensorPlace)>> {
    let problem = |problem: String| Error::Weights { file: path.to_path_buf(), problem };
    if bytes.starts_with(b"version https://git-lfs") {
        return Err(Error::NotAModel {
            path: path.to_path_buf(),
            problem: "is a Git LFS pointer, not the file itself".into(),
            hint: "run `git lfs pull` in its folder".into(),
        });
    }
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
    let mut tensors = HashMap::new();
    for (name, info) in metadata.tensors() {
        let (from, to) = info.data_offsets;
        let place = TensorPlace {
            file: 0,
            dtype: StoredType::Safetensors(info.dtype),
            element: element(info.dtype),
            shape: info.shape.clone(),
            turned: false,
            start: start + from,
            end: start + to,
        };
        tensors.insert(name, place);
    }
    for (key, value) in metadata.metadata().iter().flatten() {
        if let Some(tensor) = key.strip_prefix(TURNED_KEY).and_then(|name| tensors.get_mut(name)) {
            tensor.turned = true;
        }
        if let Some(name) = key.strip_prefix(QUANTIZED_KEY) {
            name_quantized(&mut tensors, name, value)
                .map_err(|text| problem(format!("its metadata says {key} = {value:?}, but {text}")))?;
        }
    }
    Ok(tensors.into_iter().collect())
}

/// Makes a tensor of bytes `[rows, bytes of a row]` one of quantised values `[rows, columns]`.
fn name_quantized(
    tensors: &mut HashMap<String, TensorPlace>,
    tensor: &str,
    element: &str,
) -> Result<(), String> {
    let place = tensors.get_mut(tensor).ok_or("there is no such tensor")?;
    let element = ElementType::from_name(element)
        .filter(|element| element.is_quantized())
        .ok_or("that is no quantised type that attend knows")?;
    let [rows, row_bytes] = place.shape[..] else {
        return Err(format!("its shape is {:?}, expected [rows, bytes of a row]", place.shape));
    };
    let is_u8 = matches!(place.dtype, StoredType::Safetensors(Dtype::U8));
    if !is_u8 || !row_bytes.is_multiple_of(element.block_bytes()) {
        return Err(format!(
            "it holds {} in rows of {row_bytes}, expected U8 in rows of a multiple of {}",
            place.dtype,
            element.block_bytes()
        ));
    }
    let columns = (row_bytes / element.block_bytes()).checked_mul(element.block_values());
    place.element = Some(element);
    place.shape = vec![rows, columns.ok_or("its rows are too long")?];
    Ok(())
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

    fn quantized(metadata: &str, shape: &str, len: usize) -> Vec<u8> {
        let header = format!(
            r#"{{"__metadata__":{{{metadata}}},"a":{{"dtype":"U8","shape":{shape},"data_offsets":[0,{len}]}}}}"#
        );
        file(&header, len)
    }

    #[test]
    fn quantised_tensors_have_the_shape_of_their_values() {
        let bytes = quantized(r#""attend.dtype.a":"q4_1""#, "[3,40]", 120);
        let tensors = read_header(Path::new("x"), &bytes).unwrap();
        assert_eq!(tensors[0].1.element, Some(ElementType::Q4_1));
        assert_eq!(tensors[0].1.shape, [3, 64]);
        let plain = read_header(Path::new("x"), &quantized("", "[3,40]", 120)).unwrap();
        assert_eq!((plain[0].1.element, plain[0].1.shape.as_slice()), (None, [3, 40].as_slice()));
    }

    #[test]
    fn wrong_words_about_quantised_tensors_are_refused() {
        for (metadata, shape, len, expected) in [
            (r#""attend.dtype.b":"q4_1""#, "[3,40]", 120, "no such tensor"),
            (r#""attend.dtype.a":"q9_9""#, "[3,40]", 120, "no quantised type"),
            (r#""attend.dtype.a":"f32""#, "[3,40]", 120, "no quantised type"),
            (r#""attend.dtype.a":"q4_1""#, "[3,41]", 123, "rows of a multiple of 20"),
            (r#""attend.dtype.a":"q4_1""#, "[120]", 120, "expected [rows, bytes of a row]"),
        ] {
            let message = message(&quantized(metadata, shape, len));
            assert!(message.contains(expected) && message.contains("attend.dtype."), "{message}");
        }
    }
}
