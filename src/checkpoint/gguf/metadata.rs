//! The metadata of a GGUF file, read key by key: a value of the wrong kind is an error that names
//! the key.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, Result};

/// Keys and their values, borrowed from the file.
pub(in crate::checkpoint) struct Metadata<'a> {
    path: &'a Path,
    values: BTreeMap<String, Value<'a>>,
}

#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Flag(bool),
    Text(Cow<'a, str>),
    Array(Array<'a>),
}

/// An array of scalars or texts, as it lies in the file; its extent has been checked.
#[derive(Clone, Debug)]
pub(super) struct Array<'a> {
    pub item: ValueType,
    pub bytes: &'a [u8],
}

#[derive(Clone, Copy, Debug)]
pub(super) enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Flag,
    Text,
    Array,
    U64,
    I64,
    F64,
}

impl ValueType {
    /// The type of a number in a file.
    pub fn of(number: u32) -> Option<ValueType> {
        use ValueType::*;
        [U8, I8, U16, I16, U32, I32, F32, Flag, Text, Array, U64, I64, F64].get(number as usize).copied()
    }

    /// Bytes of a value; `None` where they differ from one to the next.
    pub fn bytes(self) -> Option<usize> {
        use ValueType::*;
        match self {
            U8 | I8 | Flag => Some(1),
            U16 | I16 => Some(2),
            U32 | I32 | F32 => Some(4),
            U64 | I64 | F64 => Some(8),
            Text | Array => None,
        }
    }

    /// A scalar or text from its bytes.
    pub fn decode(self, bytes: &[u8]) -> Value<'_> {
        let mut wide = [0; 8];
        let len = bytes.len().min(8);
        wide[..len].copy_from_slice(&bytes[..len]);
        let unsigned = u64::from_le_bytes(wide);
        match self {
            ValueType::U8 | ValueType::U16 | ValueType::U32 | ValueType::U64 => Value::Unsigned(unsigned),
            ValueType::I8 => Value::Signed((unsigned as u8 as i8).into()),
            ValueType::I16 => Value::Signed((unsigned as u16 as i16).into()),
            ValueType::I32 => Value::Signed((unsigned as u32 as i32).into()),
            ValueType::I64 => Value::Signed(unsigned as i64),
            ValueType::F32 => Value::Float(decimal(f32::from_bits(unsigned as u32))),
            ValueType::F64 => Value::Float(f64::from_bits(unsigned)),
            ValueType::Flag => Value::Flag(unsigned != 0),
            ValueType::Text | ValueType::Array => Value::Text(String::from_utf8_lossy(bytes)),
        }
    }
}

/// The number that the makers wrote: 1e-5, not the nearest f32's 9.999999747378752e-6.
fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

impl<'a> Array<'a> {
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let (item, mut rest) = (self.item, self.bytes);
        std::iter::from_fn(move || {
            let len = match item.bytes() {
                Some(bytes) => bytes,
                None => {
                    let (len, behind) = rest.split_first_chunk::<8>()?;
                    rest = behind;
                    u64::from_le_bytes(*len) as usize
                }
            };
            let (value, behind) = rest.split_at_checked(len)?;
            rest = behind;
            Some(item.decode(value))
        })
    }
}

impl<'a> Metadata<'a> {
    pub(super) fn new(path: &'a Path, values: BTreeMap<String, Value<'a>>) -> Metadata<'a> {
        Metadata { path, values }
    }

    /// The file's.
    pub fn path(&self) -> &Path {
        self.path
    }

    /// An error about the metadata.
    pub fn problem(&self, problem: impl Into<String>) -> Error {
        Error::Config { file: self.path.to_path_buf(), problem: problem.into() }
    }

    /// Every key.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    fn wrong(&self, key: &str, value: &Value<'_>, expected: &str) -> Error {
        let found = match value {
            Value::Unsigned(value) => value.to_string(),
            Value::Signed(value) => value.to_string(),
            Value::Float(value) => value.to_string(),
            Value::Flag(value) => value.to_string(),
            Value::Text(value) => format!("{value:?}"),
            Value::Array(_) => "an array".into(),
        };
        self.problem(format!("metadata key {key} is {found}, expected {expected}"))
    }

    /// The value as `read` has it; `None` where the key is absent.
    fn get<T>(&self, key: &str, expected: &str, read: impl Fn(&Value<'a>) -> Option<T>) -> Result<Option<T>> {
        self.values
            .get(key)
            .map(|value| read(value).ok_or_else(|| self.wrong(key, value, expected)))
            .transpose()
    }

    /// A whole number, or a list of one for each layer that are all the same.
    pub fn size(&self, key: &str) -> Result<Option<usize>> {
        fn whole(value: &Value<'_>) -> Option<usize> {
            match value {
                Value::Unsigned(value) => usize::try_from(*value).ok(),
                Value::Signed(value) => usize::try_from(*value).ok(),
                Value::Array(array) => {
                    let mut sizes = array.iter();
                    let first = whole(&sizes.next()?)?;
                    sizes.all(|size| whole(&size) == Some(first)).then_some(first)
                }
                _ => None,
            }
        }
        self.get(key, "a whole number, the same for every layer", whole)
    }

    /// A number.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        self.get(key, "a finite number", |value| match value {
            Value::Float(value) => value.is_finite().then_some(*value),
            Value::Unsigned(value) => Some(*value as f64),
            Value::Signed(value) => Some(*value as f64),
            _ => None,
        })
    }

    /// True or false.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.get(key, "true or false", |value| match value {
            Value::Flag(value) => Some(*value),
            _ => None,
        })
    }

    /// A text.
    pub fn text(&self, key: &str) -> Result<Option<String>> {
        self.get(key, "a text", |value| match value {
            Value::Text(value) => Some(value.to_string()),
            _ => None,
        })
    }

    /// A list of texts.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<Cow<'a, str>>>> {
        self.list(key, "a list of texts", |value| match value {
            Value::Text(text) => Some(text),
            _ => None,
        })
    }

    /// A list of numbers.
    pub fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>> {
        self.list(key, "a list of numbers", |value| match value {
            Value::Float(value) => Some(value),
            Value::Unsigned(value) => Some(value as f64),
            Value::Signed(value) => Some(value as f64),
            _ => None,
        })
    }

    fn list<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl Fn(Value<'a>) -> Option<T>,
    ) -> Result<Option<Vec<T>>> {
        self.get(key, expected, |value| match value {
            Value::Array(array) => array.iter().map(&read).collect(),
            _ => None,
        })
    }
}
