//! The head of a GGUF file: metadata, and where each tensor's data lies. It is checked against the
//! file's size before anything is used; arrays are left in place, so that a damaged count costs no
//! memory.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use super::metadata::{Array, Metadata, Value, ValueType};
use super::tensor_type::{SUPPORTED, TensorType};
use crate::error::{Error, Result};
use crate::kernels::matmul::ElementType;

/// What stands before the data.
pub(in crate::checkpoint) struct Header<'a> {
    pub metadata: Metadata<'a>,
    pub tensors: Vec<TensorInfo>,
    /// The whole file.
    bytes: &'a [u8],
}

/// A tensor: its bytes are `start..end` of the file.
pub(in crate::checkpoint) struct TensorInfo {
    pub name: String,
    pub tensor_type: &'static TensorType,
    /// The slowest dimension first, as in safetensors; the file has it last.
    pub shape: Vec<usize>,
    pub start: usize,
    pub end: usize,
}

/// The first bytes of every GGUF file.
pub(in crate::checkpoint) const MAGIC: &[u8; 4] = b"GGUF";
const DEFAULT_ALIGNMENT: u64 = 32;
/// ggml's limit.
const MOST_DIMENSIONS: u32 = 4;

impl<'a> Header<'a> {
    /// Reads the head of a file, given whole.
    ///
    /// # Errors
    /// If it is another kind of file, of a version or byte order that is not read, one part of
    /// several, cut off or garbled.
    pub fn read(path: &'a Path, bytes: &'a [u8]) -> Result<Header<'a>> {
        let mut reader = Reader { path, bytes, at: 0 };
        reader.check_format()?;
        let tensor_count = reader.u64("the number of tensors")?;
        let value_count = reader.u64("the number of metadata values")?;
        let mut values = BTreeMap::new();
        for _ in 0..value_count {
            let key = reader.text("a metadata key")?;
            let value = reader.value(&key)?;
            if values.insert(key.clone(), value).is_some() {
                return Err(reader.problem(format!("metadata key {key} stands twice")));
            }
        }
        let metadata = Metadata::new(path, values);
        let parts = metadata.size("split.count")?.unwrap_or(1);
        if parts > 1 {
            return Err(Error::NotAModel {
                path: path.to_path_buf(),
                problem: format!("is one of {parts} parts of a model (split.count), which are not loaded"),
                hint: "join them with llama.cpp's `llama-gguf-split --merge`".into(),
            });
        }
        let mut entries = vec![];
        let mut names = HashSet::new();
        for _ in 0..tensor_count {
            let entry = reader.tensor()?;
            if !names.insert(entry.name.clone()) {
                return Err(reader.problem(format!("tensor {} stands twice", entry.name)));
            }
            entries.push(entry);
        }
        let alignment = metadata.size("general.alignment")?.map_or(DEFAULT_ALIGNMENT, |size| size as u64);
        if !alignment.is_power_of_two() {
            return Err(
                metadata.problem(format!("general.alignment is {alignment}, expected a power of two"))
            );
        }
        let data = (reader.at as u64).checked_next_multiple_of(alignment);
        let tensors = entries.into_iter().map(|entry| {
            let start = data.and_then(|data| data.checked_add(entry.offset));
            let end = start.and_then(|start| start.checked_add(entry.size));
            match (start, end) {
                (Some(start), Some(end)) if end <= bytes.len() as u64 => Ok(TensorInfo {
                    name: entry.name,
                    tensor_type: entry.tensor_type,
                    shape: entry.shape,
                    start: start as usize,
                    end: end as usize,
                }),
                _ => Err(reader.problem(format!(
                    "is cut off: tensor {} should end at byte {}, and the file holds {}",
                    entry.name,
                    end.map_or("past 2⁶⁴".into(), |end| end.to_string()),
                    bytes.len()
                ))),
            }
        });
        Ok(Header { tensors: tensors.collect::<Result<_>>()?, metadata, bytes })
    }

    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }
}

impl Header<'_> {
    /// The values of an F32 tensor, if it is there.
    ///
    /// # Errors
    /// If it has another type.
    pub fn f32s(&self, name: &str) -> Result<Option<Vec<f32>>> {
        let Some(tensor) = self.tensor(name) else { return Ok(None) };
        if tensor.tensor_type.element() != Some(ElementType::F32) {
            return Err(Error::TensorType {
                file: self.metadata.path().to_path_buf(),
                name: name.into(),
                found: tensor.tensor_type.name.into(),
                supported: "f32",
            });
        }
        let values = self.bytes[tensor.start..tensor.end].as_chunks::<4>().0;
        Ok(Some(values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()))
    }
}

/// A tensor's entry, before the place of the data is known.
struct Entry {
    name: String,
    tensor_type: &'static TensorType,
    shape: Vec<usize>,
    /// From the start of the data.
    offset: u64,
    size: u64,
}

struct Reader<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn problem(&self, problem: String) -> Error {
        Error::Weights { file: self.path.to_path_buf(), problem }
    }

    fn take(&mut self, count: u64, what: &str) -> Result<&'a [u8]> {
        let left = &self.bytes[self.at..];
        match usize::try_from(count).ok().and_then(|count| left.get(..count)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None => Err(self.problem(format!(
                "is cut off or garbled: {what} should take {count} bytes, and {} follow",
                left.len()
            ))),
        }
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let taken = self.take(N as u64, what)?;
        Ok(taken.try_into().expect("as many bytes as were asked for"))
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    fn text(&mut self, what: &str) -> Result<String> {
        let len = self.u64(what)?;
        Ok(String::from_utf8_lossy(self.take(len, what)?).into_owned())
    }

    fn check_format(&mut self) -> Result<()> {
        let not_loaded = |problem: String, hint: &str| {
            Err(Error::NotAModel { path: self.path.to_path_buf(), problem, hint: hint.into() })
        };
        const FETCH: &str = "fetch the model as a GGUF file, or as a folder with config.json";
        match self.bytes.first_chunk::<4>() {
            Some(MAGIC) => self.at = MAGIC.len(),
            Some(b"lmgg" | b"fmgg" | b"tjgg" | b"algg") => {
                return not_loaded("is of a format older than GGUF, which is not loaded".into(), FETCH);
            }
            Some(other) => {
                let start = String::from_utf8_lossy(other).escape_debug().to_string();
                return not_loaded(format!("is no GGUF file: it starts with \"{start}\""), FETCH);
            }
            None => return not_loaded(format!("holds {} bytes, too few for GGUF", self.bytes.len()), FETCH),
        }
        match self.u32("the version")? {
            2 | 3 => Ok(()),
            version if (1..=3).contains(&version.swap_bytes()) => Err(Error::NotAModel {
                path: self.path.to_path_buf(),
                problem: "is a big-endian GGUF file, which is not loaded".into(),
                hint: "convert it with gguf-py's `gguf-convert-endian`".into(),
            }),
            version => Err(Error::NotAModel {
                path: self.path.to_path_buf(),
                problem: format!("is a GGUF file of version {version}, expected 2 or 3"),
                hint: FETCH.into(),
            }),
        }
    }

    fn value(&mut self, key: &str) -> Result<Value<'a>> {
        let value_type = self.value_type(key)?;
        if !matches!(value_type, ValueType::Array) {
            return self.scalar(value_type, key);
        }
        let item = self.value_type(key)?;
        let count = self.u64(key)?;
        let start = self.at;
        match item.bytes() {
            Some(bytes) => {
                self.take(count.saturating_mul(bytes as u64), key)?;
            }
            None if matches!(item, ValueType::Text) => {
                for _ in 0..count {
                    let len = self.u64(key)?;
                    self.take(len, key)?;
                }
            }
            None => return Err(self.problem(format!("metadata key {key} is an array of arrays"))),
        }
        Ok(Value::Array(Array { item, bytes: &self.bytes[start..self.at] }))
    }

    fn value_type(&mut self, key: &str) -> Result<ValueType> {
        let number = self.u32(key)?;
        ValueType::of(number).ok_or_else(|| {
            self.problem(format!("is garbled: metadata key {key} has type {number}, expected 0 to 12"))
        })
    }

    fn scalar(&mut self, value_type: ValueType, key: &str) -> Result<Value<'a>> {
        let len = match value_type.bytes() {
            Some(bytes) => bytes as u64,
            None => self.u64(key)?,
        };
        Ok(value_type.decode(self.take(len, key)?))
    }

    fn tensor(&mut self) -> Result<Entry> {
        let name = self.text("a tensor's name")?;
        let dimensions = self.u32(&name)?;
        if !(1..=MOST_DIMENSIONS).contains(&dimensions) {
            return Err(self.problem(format!(
                "is garbled: tensor {name} has {dimensions} dimensions, expected 1 to {MOST_DIMENSIONS}"
            )));
        }
        let mut shape = vec![];
        for _ in 0..dimensions {
            let size = self.u64(&name)?;
            shape.push(usize::try_from(size).unwrap_or(usize::MAX));
        }
        let columns = shape[0];
        shape.reverse();
        let number = self.u32(&name)?;
        let Some(tensor_type) = TensorType::of(number) else {
            return Err(Error::TensorType {
                file: self.path.to_path_buf(),
                name,
                found: format!("type {number} of ggml"),
                supported: SUPPORTED,
            });
        };
        if !columns.is_multiple_of(tensor_type.block) {
            return Err(self.problem(format!(
                "is garbled: tensor {name} has rows of {columns} elements, and {} comes in blocks of {}",
                tensor_type.name, tensor_type.block
            )));
        }
        let elements = shape.iter().try_fold(1u64, |product, size| product.checked_mul(*size as u64));
        let size = elements
            .and_then(|elements| {
                (elements / tensor_type.block as u64).checked_mul(tensor_type.block_bytes as u64)
            })
            .ok_or_else(|| self.problem(format!("is garbled: tensor {name} has shape {shape:?}")))?;
        let offset = self.u64(&name)?;
        Ok(Entry { name, tensor_type, shape, offset, size })
    }
}
