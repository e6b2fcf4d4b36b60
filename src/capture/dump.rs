//! Reads a dump, a step and a layer at a time.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use safetensors::Dtype;
use serde::de::DeserializeOwned;

use super::format::{
    FORMAT, LayerHeads, MANIFEST, Manifest, OLDEST_VERSION, STEPS, STEPS_FOLDER, StepRecord, TOKENS,
    TokenRecord, VERSION,
};
use super::kind::AttentionKind;
use super::layout::parts;
use super::memory::LayerMap;
use super::step_reader::{LayerReader, StepReader, Values};
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
        if !(OLDEST_VERSION..=VERSION).contains(&head.version) {
            let newer = if head.version > VERSION { "; a newer attend wrote it" } else { "" };
            return Err(problem(format!(
                "version is {}, and this program reads {OLDEST_VERSION} to {VERSION}{newer}",
                head.version
            )));
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
    /// If the step or the layer is not in the dump, the dump holds no whole rows, or the file does not
    /// hold what its line says.
    pub fn layer_map(&self, step: usize, layer: usize) -> Result<LayerMap> {
        self.check_whole_rows()?;
        let (mut reader, tensors) = self.tensors(step, layer)?;
        let record = &self.steps[step];
        Ok(LayerMap {
            layer,
            heads: self.captured(layer)?.heads.len(),
            first_query: record.first_query,
            queries: record.queries,
            stride: record.stride,
            keys: record.keys,
            weights: reader.all_f32s(tensors[0])?,
        })
    }

    /// Whether the dump holds whole rows, and not some numbers of each.
    ///
    /// # Errors
    /// If it does not.
    pub fn check_whole_rows(&self) -> Result<()> {
        match self.manifest.kind {
            AttentionKind::Full => Ok(()),
            kind => Err(Error::Dump {
                path: self.folder.clone(),
                problem: format!(
                    "holds {kind} of each row; whole maps are recorded with --attention-kind full"
                ),
            }),
        }
    }

    /// The largest weights of one layer's rows in one step, of a dump of kind `top:K`.
    ///
    /// # Errors
    /// As [`layer_map`](Dump::layer_map).
    pub fn top_rows(&self, step: usize, layer: usize) -> Result<TopRows> {
        let AttentionKind::Top(count) = self.manifest.kind else {
            return Err(self.other_kind("top:K"));
        };
        let (mut reader, tensors) = self.tensors(step, layer)?;
        Ok(TopRows {
            count: count.min(self.steps[step].keys),
            weights: reader.all_f32s(tensors[0])?,
            keys: reader.all_i32s(tensors[1])?,
            rest: reader.all_f32s(tensors[2])?,
        })
    }

    /// The statistics of one layer's rows in one step, of a dump of kind `stats`.
    ///
    /// # Errors
    /// As [`layer_map`](Dump::layer_map).
    pub fn statistics(&self, step: usize, layer: usize) -> Result<LayerStatistics> {
        if self.manifest.kind != AttentionKind::Stats {
            return Err(self.other_kind("stats"));
        }
        let (mut reader, tensors) = self.tensors(step, layer)?;
        let mut next = tensors.into_iter().map(|tensor| reader.all_f32s(tensor));
        let mut take = || next.next().unwrap_or_else(|| Ok(vec![]));
        Ok(LayerStatistics {
            entropy: take()?,
            first_token: take()?,
            own: take()?,
            previous_token: take()?,
            mean_distance: take()?,
        })
    }

    /// What the tensors of a layer are called behind its name: nothing (`layer.000` itself), or
    /// `top_weights` and so on.
    pub fn parts(&self) -> Vec<&'static str> {
        parts(self.manifest.kind, self.manifest.attention_dtype, 1).iter().map(|part| part.what).collect()
    }

    /// One layer in one step, to be read some rows at a time.
    ///
    /// # Errors
    /// If the step or the layer is not in the dump, or the file does not hold what its line says.
    pub fn layer(&self, step: usize, layer: usize) -> Result<LayerReader> {
        let (reader, tensors) = self.tensors(step, layer)?;
        let StepRecord { queries, keys, .. } = self.steps[step];
        let parts = parts(self.manifest.kind, self.manifest.attention_dtype, keys);
        let columns = parts.iter().map(|part| part.columns.unwrap_or(1));
        Ok(LayerReader::new(reader, tensors.into_iter().zip(columns), queries))
    }

    fn other_kind(&self, expected: &str) -> Error {
        let problem = format!("holds {} of each row, not {expected}", self.manifest.kind);
        Error::Dump { path: self.folder.clone(), problem }
    }

    /// A layer's line in the manifest.
    pub(super) fn captured(&self, layer: usize) -> Result<&LayerHeads> {
        self.manifest.layers.iter().find(|captured| captured.layer == layer).ok_or_else(|| {
            let layers: Vec<String> = self.manifest.layers.iter().map(|l| l.layer.to_string()).collect();
            Error::Dump {
                path: self.folder.clone(),
                problem: format!("layer {layer} was not captured; captured: {}", layers.join(", ")),
            }
        })
    }

    /// A step's file, and the tensors of one layer in it, in the order of the kind's parts.
    pub(super) fn tensors(&self, step: usize, layer: usize) -> Result<(StepReader, Vec<Values>)> {
        let record = self.steps.get(step).ok_or_else(|| Error::Dump {
            path: self.folder.clone(),
            problem: match self.steps.len() {
                0 => "holds no whole step".into(),
                steps => format!("there is no step {step}; it holds {steps}, numbered 0 to {}", steps - 1),
            },
        })?;
        let heads = self.captured(layer)?.heads.len();
        let reader = StepReader::open(self.folder.join(&record.file))?;
        let tensors = parts(self.manifest.kind, self.manifest.attention_dtype, record.keys);
        let tensors = tensors.iter().map(|part| {
            let types: &[Dtype] = match part.dtype {
                "I32" => &[Dtype::I32],
                // Readers of maps take either type, whatever the manifest says.
                _ if part.columns.is_some() => &[Dtype::F32, Dtype::F16],
                _ => &[Dtype::F32],
            };
            reader.tensor(&part.name(layer), &part.shape(heads, record.queries), types)
        });
        let tensors = tensors.collect::<Result<_>>()?;
        Ok((reader, tensors))
    }
}

/// The largest weights of the rows of one layer in one step.
#[derive(Clone, Debug, PartialEq)]
pub struct TopRows {
    /// Weights of a row.
    pub count: usize,
    /// `[heads, queries, count]`, heaviest first; 0 behind a row's last.
    pub weights: Vec<f32>,
    /// `[heads, queries, count]`, the positions of their keys; −1 behind a row's last.
    pub keys: Vec<i32>,
    /// `[heads, queries]`, the sum of all other weights.
    pub rest: Vec<f32>,
}

/// Five numbers for each row of one layer in one step, each `[heads, queries]`
/// (see [`row_statistics`](crate::kernels::row_statistics::row_statistics)).
#[derive(Clone, Debug, PartialEq)]
pub struct LayerStatistics {
    /// In nats.
    pub entropy: Vec<f32>,
    pub first_token: Vec<f32>,
    pub own: Vec<f32>,
    pub previous_token: Vec<f32>,
    pub mean_distance: Vec<f32>,
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
    let StepRecord { first_query, queries, stride, keys, .. } = *step;
    let last = queries.saturating_sub(1).checked_mul(stride).and_then(|rest| first_query.checked_add(rest));
    let fits = last.is_some_and(|last| last < keys || queries == 0 && last <= keys);
    if stride == 0 || !fits {
        return Err(format!(
            "{queries} queries from position {first_query} on, {stride} apart, do not lie within its {keys} keys"
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
