//! Whether and what to record: `--attention DIR` and its selection.

use std::path::PathBuf;

use anyhow::Result;
use attend::Checkpoint;
use attend::capture::{AblatedHeads, AttentionDtype, Recorder, Selection};
use attend::generation::{Prompt, Sampling};
use attend::kernels::matmul::ElementType;
use attend::model::{HeadIntervention, Mask};
use clap::{Args, ValueEnum};

use super::prompt_args::records;

#[derive(Args)]
pub struct CaptureArgs {
    /// Record attention maps into this folder, step by step
    #[arg(long, value_name = "DIR")]
    pub attention: Option<PathBuf>,
    /// Layers to record, such as 0,5-8 [default: all]
    #[arg(long, value_name = "LIST", requires = "attention")]
    pub layers: Option<String>,
    /// Heads to record, such as 5.1,7.* (layer.head) or 0-2 (in every layer) [default: all]
    #[arg(long, value_name = "LIST", requires = "attention")]
    pub heads: Option<String>,
    /// How recorded weights are stored
    #[arg(long, value_enum, default_value_t = StoredDtype::F32, requires = "attention")]
    pub attention_dtype: StoredDtype,
    /// Replace the dump that the folder holds
    #[arg(long, requires = "attention")]
    pub overwrite: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StoredDtype {
    F32,
    F16,
}

impl StoredDtype {
    pub fn resolve(self) -> AttentionDtype {
        match self {
            StoredDtype::F32 => AttentionDtype::F32,
            StoredDtype::F16 => AttentionDtype::F16,
        }
    }
}

/// What the manifest says of the run.
pub struct RunInfo<'a> {
    pub element: ElementType,
    pub mask: Mask,
    pub sampling: Option<&'a Sampling>,
    pub ablated: Option<&'a HeadIntervention>,
}

/// A dump that may be written: checked, and nothing done yet.
pub struct CapturePlan {
    folder: PathBuf,
    selection: Selection,
    dtype: AttentionDtype,
    overwrite: bool,
}

impl CaptureArgs {
    /// Checks the selection against the model and the folder, before any work is done. `None` where
    /// nothing is to be recorded.
    pub fn plan(&self, checkpoint: &Checkpoint) -> Result<Option<CapturePlan>> {
        let Some(folder) = self.attention.clone() else { return Ok(None) };
        let config = checkpoint.config();
        let selection =
            Selection::parse(self.layers.as_deref(), self.heads.as_deref(), config.layers, config.heads)?;
        let dtype = self.attention_dtype.resolve();
        Recorder::check(&folder, self.overwrite)?;
        Ok(Some(CapturePlan { folder, selection, dtype, overwrite: self.overwrite }))
    }
}

impl CapturePlan {
    /// Starts the dump, its prompt included; an old one in its place goes only now.
    pub fn start(&self, checkpoint: &Checkpoint, prompt: &Prompt, run: &RunInfo<'_>) -> Result<Recorder> {
        let mut manifest = Recorder::manifest(
            checkpoint,
            run.element.name(),
            &self.selection,
            self.dtype,
            run.mask,
            prompt.ids.len(),
            run.sampling,
        );
        manifest.ablated = run.ablated.map(AblatedHeads::of).unwrap_or_default();
        let mut recorder = Recorder::create(&self.folder, &manifest, self.overwrite)?;
        for record in records(prompt, checkpoint) {
            recorder.token(&record)?;
        }
        Ok(recorder)
    }
}
