//! A `config.json`, read key by key: a value of the wrong kind is an error that names the key, an
//! absent or null one takes the default that the family has in Transformers, where a flag's null is
//! false.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::kernels::activation::Activation;

/// A parsed `config.json` (or `generation_config.json`) and where it came from.
#[derive(Debug)]
pub struct ConfigFile {
    path: PathBuf,
    values: Map<String, Value>,
}

impl ConfigFile {
    /// Parses a JSON object.
    ///
    /// # Errors
    /// If the bytes are anything else.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<ConfigFile> {
        let values = serde_json::from_slice(bytes).map_err(|error| Error::Config {
            file: path.to_path_buf(),
            problem: format!("is not the JSON object that it should be: {error}"),
        })?;
        Ok(ConfigFile { path: path.to_path_buf(), values })
    }

    /// An error about this file.
    pub fn problem(&self, problem: impl Into<String>) -> Error {
        Error::Config { file: self.path.clone(), problem: problem.into() }
    }

    /// A value as it stands there, unless it is null.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key).filter(|value| !value.is_null())
    }

    /// Whether a key is there, if only as null.
    pub fn mentions(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// Whether a key is there and not null.
    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    fn wrong(&self, key: &str, value: &Value, expected: &str) -> Error {
        self.problem(format!("{key} is {value}, expected {expected}"))
    }

    /// A whole number that a `usize` holds.
    ///
    /// # Errors
    /// If it is something else, or absent without a default.
    pub fn size(&self, key: &str, default: Option<usize>) -> Result<usize> {
        match (self.get(key), default) {
            (Some(value), _) => value
                .as_u64()
                .and_then(|value| usize::try_from(value).ok())
                .ok_or_else(|| self.wrong(key, value, "a whole number")),
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.problem(format!("{key} is missing"))),
        }
    }

    /// A whole number, or `None` for null.
    ///
    /// # Errors
    /// If it is something else.
    pub fn size_or_null(&self, key: &str, default: Option<usize>) -> Result<Option<usize>> {
        match self.values.get(key) {
            None => Ok(default),
            Some(Value::Null) => Ok(None),
            Some(_) => self.size(key, None).map(Some),
        }
    }

    /// A number.
    ///
    /// # Errors
    /// If it is something else, or absent without a default.
    pub fn number(&self, key: &str, default: Option<f64>) -> Result<f64> {
        match (self.get(key), default) {
            (Some(value), _) => value.as_f64().ok_or_else(|| self.wrong(key, value, "a number")),
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.problem(format!("{key} is missing"))),
        }
    }

    /// True or false; null is false.
    ///
    /// # Errors
    /// If it is something else.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.values.get(key) {
            Some(Value::Null) => Ok(false),
            Some(value) => value.as_bool().ok_or_else(|| self.wrong(key, value, "true or false")),
            None => Ok(default),
        }
    }

    /// A text.
    ///
    /// # Errors
    /// If it is something else, or absent without a default.
    pub fn text(&self, key: &str, default: Option<&str>) -> Result<String> {
        match (self.get(key), default) {
            (Some(value), _) => {
                value.as_str().map(str::to_owned).ok_or_else(|| self.wrong(key, value, "a text"))
            }
            (None, Some(default)) => Ok(default.into()),
            (None, None) => Err(self.problem(format!("{key} is missing"))),
        }
    }

    /// Token numbers: one, a list, or none.
    ///
    /// # Errors
    /// If it is something else.
    pub fn token_ids(&self, key: &str) -> Result<Vec<u32>> {
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        match self.get(key) {
            None => Some(vec![]),
            Some(Value::Array(ids)) => ids.iter().map(id).collect::<Option<_>>(),
            Some(value) => id(value).map(|id| vec![id]),
        }
        .ok_or_else(|| self.wrong(key, &self.values[key], "a token number or a list of them"))
    }

    /// The kind of each layer, where the config says so.
    ///
    /// # Errors
    /// If it is something else than a list of the two kinds known.
    pub fn layer_types(&self) -> Result<Option<Vec<String>>> {
        let Some(value) = self.get("layer_types") else { return Ok(None) };
        let types: Option<Vec<String>> = value
            .as_array()
            .and_then(|types| types.iter().map(|kind| Some(kind.as_str()?.to_owned())).collect());
        let known = |kind: &String| kind == "full_attention" || kind == "sliding_attention";
        match types {
            Some(types) if types.iter().all(known) => Ok(Some(types)),
            _ => Err(self.wrong("layer_types", value, "a list of full_attention and sliding_attention")),
        }
    }

    /// An object inside, under the same file's name; `None` where absent.
    ///
    /// # Errors
    /// If it is something else.
    pub fn object(&self, key: &str) -> Result<Option<ConfigFile>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(values)) => {
                Ok(Some(ConfigFile { path: self.path.clone(), values: values.clone() }))
            }
            Some(value) => Err(self.wrong(key, value, "an object")),
        }
    }

    /// Numbers in a list.
    ///
    /// # Errors
    /// If it is something else, or absent.
    pub fn numbers(&self, key: &str) -> Result<Vec<f64>> {
        let Some(value) = self.get(key) else { return Err(self.problem(format!("{key} is missing"))) };
        value
            .as_array()
            .and_then(|numbers| numbers.iter().map(Value::as_f64).collect())
            .ok_or_else(|| self.wrong(key, value, "a list of numbers"))
    }

    /// What an MLP's values pass through.
    ///
    /// # Errors
    /// If it is something else than a known name.
    pub fn activation(&self, key: &str, default: &str) -> Result<Activation> {
        Ok(match self.text(key, Some(default))?.as_str() {
            "silu" | "swish" => Activation::Silu,
            "gelu" | "gelu_python" => Activation::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Activation::GeluTanh,
            "relu" => Activation::Relu,
            other => {
                return Err(self.problem(format!(
                    "{key} {other:?} is not implemented; known: silu, gelu, gelu_new, gelu_pytorch_tanh, relu"
                )));
            }
        })
    }

    /// An error where a flag that is not implemented is set.
    ///
    /// # Errors
    /// Just that.
    pub fn refuse(&self, flags: &[&str]) -> Result<()> {
        for flag in flags {
            if self.flag(flag, false)? {
                return Err(self.problem(format!("{flag} is not implemented")));
            }
        }
        Ok(())
    }

    /// An error where a key has another value than the only one that is implemented.
    ///
    /// # Errors
    /// Just that.
    pub fn require(&self, key: &str, only: impl Into<Value>) -> Result<()> {
        let only = only.into();
        match self.get(key) {
            Some(value) if *value != only => {
                Err(self.problem(format!("{key} {value} is not implemented, only {only}")))
            }
            _ => Ok(()),
        }
    }

    /// The same file with a value for a key that it does not mention.
    pub(super) fn with_default(&self, key: &str, value: impl Into<Value>) -> ConfigFile {
        let mut values = self.values.clone();
        values.entry(key).or_insert(value.into());
        ConfigFile { path: self.path.clone(), values }
    }

    /// Whether an object inside holds anything.
    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}
