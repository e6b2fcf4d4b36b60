//! Reads a dump, a step and a layer at a time.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use half::f16;
use safetensors::{Dtype, SafeTensors};
use serde::de::DeserializeOwned;

use super::format::{
    FORMAT, MANIFEST, Manifest, STEPS, STEPS_FOLDER, StepRecord, TOKENS, TokenRecord, VERSION, tensor_name,
};
use super::memory::LayerMap;
use crate::error::{Error, Result};

/// A dump on disk: its manifest, its tokens, and the steps that are whole.
pub struct Dump {
    folder: PathBuf,
    manifest: Manifest,
    tokens: Vec<TokenRecord>,
    steps: Vec<StepRecord>,
}

impl Dump {
    /// Whether a path looks like a dump: a folder with a manifest.
    pub fn is_at(path: &Path) -> bool {
        path.join(MANIFEST).is_file()
    }

    /// Opens a dump, also one whose writing was cut off: its whole steps are there.
    ///
    /// ```no_run
    /// # fn main() -> attend::Result<()> {
    /// let dump = attend::capture::Dump::open("dump".as_ref())?;
    /// let last_layer = dump.manifest().layers.last().unwrap().layer;
    /// let map = dump.layer_map(0, last_layer)?;
    /// println!("the last token looks back with {:?}", map.head(0).chunks(map.keys).last());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If it is no dump, of another version, or damaged before its last line.
    pub fn open(folder: &Path) -> Result<Dump> {
        let path = folder.join(MANIFEST);
        let bytes = fs::read(&path).map_err(Error::io(&path, "read"))?;
        let problem = |problem: String| Error::Dump { path: path.clone(), problem };
        let head: Head = serde_json::from_slice(&bytes)
            .map_err(|error| problem(format!("is no manifest of a dump: {error}")))?;
        if head.format != FORMAT {
            return Err(problem(format!("format is {:?}, expected {FORMAT:?}", head.format)));
        }
        if head.version != VERSION {
            return Err(problem(format!("version is {}, and this program reads {VERSION}", head.version)));
        }
        let manifest: Manifest =
            serde_json::from_slice(&bytes).map_err(|error| problem(format!("is not whole: {error}")))?;
        if manifest.layers.is_empty() || manifest.layers.iter().any(|layer| layer.heads.is_empty()) {
            return Err(problem("lists no layers, or a layer without heads".into()));
        }
        let steps: Vec<StepRecord> = lines(&folder.join(STEPS))?;
        for (number, step) in steps.iter().enumerate() {
            check_step(number, step).map_err(|problem| Error::Dump {
                path: folder.join(STEPS),
                problem: format!("line {}: {problem}", number + 1),
            })?;
        }
        let tokens = lines(&folder.join(TOKENS))?;
        Ok(Dump { folder: folder.to_path_buf(), manifest, tokens, steps })
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The tokens of every position.
    pub fn tokens(&self) -> &[TokenRecord] {
        &self.tokens
    }

    /// The whole steps.
    pub fn steps(&self) -> &[StepRecord] {
        &self.steps
    }

    /// One layer's map in one step; its heads are those that the manifest lists for the layer.
    ///
    /// # Errors
    /// If the step or the layer is not in the dump, or the file does not hold what its line says.
    pub fn layer_map(&self, step: usize, layer: usize) -> Result<LayerMap> {
        let record = self.steps.get(step).ok_or_else(|| Error::Dump {
            path: self.folder.clone(),
            problem: match self.steps.len() {
                0 => "holds no whole step".into(),
                steps => format!("there is no step {step}; it holds {steps}, numbered 0 to {}", steps - 1),
            },
        })?;
        let heads =
            self.manifest.layers.iter().find(|captured| captured.layer == layer).ok_or_else(|| {
                let layers: Vec<String> = self.manifest.layers.iter().map(|l| l.layer.to_string()).collect();
                Error::Dump {
                    path: self.folder.clone(),
                    problem: format!("layer {layer} was not captured; captured: {}", layers.join(", ")),
                }
            })?;
        let path = self.folder.join(&record.file);
        let problem = |problem: String| Error::Dump { path: path.clone(), problem };
        let kind = fs::metadata(&path).map_err(Error::io(&path, "open"))?;
        if !kind.is_file() {
            return Err(problem("is no regular file".into()));
        }
        let file = fs::File::open(&path).map_err(Error::io(&path, "open"))?;
        // SAFETY: a finished step's file is never written again; if another program shortens it
        // meanwhile, this process ends with SIGBUS.
        let bytes = unsafe { memmap2::Mmap::map(&file) }.map_err(Error::io(&path, "map into memory"))?;
        let tensors = SafeTensors::deserialize(&bytes)
            .map_err(|error| problem(format!("is no whole safetensors file: {error}")))?;
        let name = tensor_name(layer);
        let tensor = tensors.tensor(&name).map_err(|_| problem(format!("holds no tensor {name}")))?;
        let expected = [heads.heads.len(), record.queries, record.keys];
        if tensor.shape() != expected {
            let found = tensor.shape();
            return Err(problem(format!("tensor {name} has shape {found:?}, expected {expected:?}")));
        }
        let weights = match tensor.dtype() {
            Dtype::F32 => {
                let floats = tensor.data().chunks_exact(4);
                floats.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
            }
            Dtype::F16 => {
                tensor.data().chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
            }
            other => return Err(problem(format!("tensor {name} holds {other:?}, expected F32 or F16"))),
        };
        Ok(LayerMap {
            layer,
            heads: heads.heads.len(),
            first_query: record.first_query,
            queries: record.queries,
            keys: record.keys,
            weights,
        })
    }
}

/// What every version of a manifest has.
#[derive(serde::Deserialize)]
struct Head {
    format: String,
    version: u32,
}

/// Whether a line of `steps.jsonl` can be true.
fn check_step(number: usize, step: &StepRecord) -> Result<(), String> {
    if step.step != number {
        return Err(format!("step is {}, expected {number}", step.step));
    }
    if step.queries == 0 || step.first_query.checked_add(step.queries) != Some(step.keys) {
        let StepRecord { first_query, queries, keys, .. } = step;
        return Err(format!(
            "{queries} queries from position {first_query} on do not end at its {keys} keys"
        ));
    }
    let name = step.file.strip_prefix(STEPS_FOLDER).and_then(|rest| rest.strip_prefix('/'));
    match name.map(|name| Path::new(name).components().collect::<Vec<_>>()).as_deref() {
        Some([Component::Normal(_)]) => Ok(()),
        _ => Err(format!("file is {:?}, expected one in {STEPS_FOLDER}/", step.file)),
    }
}

/// The lines of a file, without a torn last one; none where there is no file yet.
fn lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        read => read.map_err(Error::io(path, "read"))?,
    };
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    text[..whole]
        .split_inclusive(|byte| *byte == b'\n')
        .enumerate()
        .map(|(number, line)| {
            serde_json::from_slice(line).map_err(|error| Error::Dump {
                path: path.to_path_buf(),
                problem: format!("line {} is damaged: {error}", number + 1),
            })
        })
        .collect()
}
