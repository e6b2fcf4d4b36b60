//! Writes a dump while the model runs: an [`AttentionObserver`] that keeps nothing but the step at
//! hand.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::format::{
    AttentionDtype, FORMAT, LayerHeads, MANIFEST, Manifest, ModelInfo, STEPS, STEPS_FOLDER, StepRecord,
    TOKENS, TokenRecord, VERSION, sampling_json,
};
use super::selection::Selection;
use super::step_file::StepFile;
use super::target;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::generation::Sampling;
use crate::model::{AttentionObserver, AttentionRows, Mask, StepShape};

/// A dump being written.
///
/// ```no_run
/// use attend::capture::{AttentionDtype, Recorder, Selection};
/// use attend::model::{Forward, Mask};
/// use attend::{Checkpoint, LoadOptions};
///
/// # fn main() -> attend::Result<()> {
/// let checkpoint = Checkpoint::open("SmolLM2-135M-Instruct".as_ref())?;
/// let decoder = checkpoint.load(&LoadOptions::default())?;
/// let prompt = checkpoint.tokenizer()?.encode("The cat sat on the mat")?;
/// let selection = Selection::all(decoder.config().layers, decoder.config().heads);
/// let manifest =
///     Recorder::manifest(&checkpoint, "f32", &selection, AttentionDtype::F32, Mask::Causal, prompt.ids.len(), None);
/// let mut recorder = Recorder::create("dump".as_ref(), &manifest, false)?;
/// let mut cache = decoder.new_cache(prompt.ids.len())?;
/// decoder.forward(&prompt.ids, &mut cache, Forward { observer: Some(&mut recorder), ..Forward::default() })?;
/// # Ok(())
/// # }
/// ```
pub struct Recorder {
    folder: PathBuf,
    layers: Vec<LayerHeads>,
    dtype: AttentionDtype,
    tokens: Lines,
    steps: Lines,
    next_step: usize,
    current: Option<(StepRecord, StepFile)>,
}

impl Recorder {
    /// The manifest of a run.
    pub fn manifest(
        checkpoint: &Checkpoint,
        weights_dtype: &str,
        selection: &Selection,
        attention_dtype: AttentionDtype,
        mask: Mask,
        prompt_tokens: usize,
        sampling: Option<&Sampling>,
    ) -> Manifest {
        let config = checkpoint.config();
        Manifest {
            format: FORMAT.into(),
            version: VERSION,
            generator: format!("attend {}", env!("CARGO_PKG_VERSION")),
            model: ModelInfo {
                name: checkpoint.name(),
                family: config.family.clone(),
                config_sha256: checkpoint.config_digest().into(),
                layers: config.layers,
                heads: config.heads,
                kv_heads: config.kv_heads,
            },
            weights_dtype: weights_dtype.into(),
            attention_dtype,
            kind: "full".into(),
            mask,
            layers: selection
                .layers()
                .iter()
                .map(|selected| LayerHeads { window: config.windows[selected.layer], ..selected.clone() })
                .collect(),
            prompt_tokens,
            sampling: sampling.map(sampling_json),
            ablated: vec![],
        }
    }

    /// Checks that a dump may be written into a folder, and changes nothing: it is new, empty, or
    /// (if `overwrite`) holds a dump and nothing else.
    ///
    /// # Errors
    /// If it may not.
    pub fn check(folder: &Path, overwrite: bool) -> Result<()> {
        target::check(folder, overwrite).map(|_| ())
    }

    /// Starts a dump in a new or empty folder; one that holds a dump is replaced only if
    /// `overwrite`. Recorded are the layers and heads that the manifest lists.
    ///
    /// # Errors
    /// If the folder holds anything else, or cannot be written.
    pub fn create(folder: &Path, manifest: &Manifest, overwrite: bool) -> Result<Recorder> {
        target::clear(folder, overwrite)?;
        let steps = folder.join(STEPS_FOLDER);
        fs::create_dir_all(&steps).map_err(Error::io(&steps, "create"))?;
        let path = folder.join(MANIFEST);
        let part = path.with_extension("part");
        let mut json =
            serde_json::to_vec_pretty(manifest).map_err(|e| Error::io(&part, "write")(e.into()))?;
        json.push(b'\n');
        fs::write(&part, json).map_err(Error::io(&part, "write"))?;
        fs::rename(&part, &path).map_err(Error::io(&path, "name"))?;
        Ok(Recorder {
            folder: folder.to_path_buf(),
            layers: manifest.layers.clone(),
            dtype: manifest.attention_dtype,
            tokens: Lines::create(folder.join(TOKENS))?,
            steps: Lines::create(folder.join(STEPS))?,
            next_step: 0,
            current: None,
        })
    }

    /// Records a token: before the step that feeds it.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub fn token(&mut self, token: &TokenRecord) -> Result<()> {
        self.tokens.push(token)
    }

    /// Steps recorded whole.
    pub fn steps(&self) -> usize {
        self.next_step
    }
}

impl AttentionObserver for Recorder {
    fn wants(&self, layer: usize) -> bool {
        self.layers.iter().any(|captured| captured.layer == layer)
    }

    fn begin_step(&mut self, shape: StepShape) -> Result<()> {
        // A step that failed before has left its part behind; it goes before the new one comes.
        self.current = None;
        let file = format!("{STEPS_FOLDER}/{:05}.safetensors", self.next_step);
        let step_file = StepFile::create(&self.folder.join(&file), shape, &self.layers, self.dtype)?;
        let StepShape { first_query, queries, keys } = shape;
        self.current =
            Some((StepRecord { step: self.next_step, file, first_query, queries, keys }, step_file));
        Ok(())
    }

    fn observe(&mut self, rows: AttentionRows<'_>) -> Result<()> {
        let index = self.layers.iter().position(|selected| selected.layer == rows.layer);
        if let (Some((_, file)), Some(index)) = (&mut self.current, index) {
            file.write(index, &self.layers[index].heads, rows)?;
        }
        Ok(())
    }

    fn end_step(&mut self) -> Result<()> {
        if let Some((record, file)) = self.current.take() {
            file.finish()?;
            self.steps.push(&record)?;
            self.next_step += 1;
        }
        Ok(())
    }
}

/// A file of JSON lines; each goes out in one write, so that a kill tears at most the last.
struct Lines {
    path: PathBuf,
    file: File,
    /// Bytes of whole lines.
    len: u64,
}

impl Lines {
    fn create(path: PathBuf) -> Result<Lines> {
        let file = File::create(&path).map_err(Error::io(&path, "create"))?;
        Ok(Lines { path, file, len: 0 })
    }

    fn push(&mut self, record: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(record).map_err(|e| Error::io(&self.path, "write")(e.into()))?;
        line.push(b'\n');
        if let Err(error) = self.file.write_all(&line) {
            // What was written of the line goes, so that one that follows later is not torn too. If
            // this fails as well, a reader still ignores the torn line while it is the last.
            let _ = self.file.set_len(self.len).and_then(|()| self.file.seek(SeekFrom::Start(self.len)));
            return Err(Error::io(&self.path, "write")(error));
        }
        self.len += line.len() as u64;
        Ok(())
    }
}
