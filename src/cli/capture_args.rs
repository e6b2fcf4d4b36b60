//! Whether and what to record: `--attention DIR` and its selection.

use std::path::{Path, PathBuf};

use anyhow::Result;
use attend::Checkpoint;
use attend::capture::{
    AblatedHeads, AttentionDtype, AttentionKind, Manifest, QuerySelection, Recorder, Selection,
};
use attend::generation::{Prompt, Sampling};
use attend::kernels::matmul::ElementType;
use attend::model::{Decoder, HeadIntervention, Mask};
use clap::{Args, ValueEnum};

use super::output::{counted, megabytes, note};
use super::prompt_args::records;
use super::usage;

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
    /// What to record of each row: full (every weight), top:K (the K largest weights, their keys, and the
    /// sum of the rest) or stats (entropy, the weight on the first token, on itself and on the previous
    /// one, mean distance)
    #[arg(long, value_name = "KIND", default_value = "full", requires = "attention")]
    pub attention_kind: String,
    /// How recorded weights are stored
    #[arg(long, value_enum, default_value_t = StoredDtype::F32, requires = "attention")]
    pub attention_dtype: StoredDtype,
    /// Replace the dump that the folder holds
    #[arg(long, requires = "attention")]
    pub overwrite: bool,
    /// Record even where the disk has less room than the dump may take
    #[arg(long, requires = "attention")]
    pub force: bool,
}

/// `generate` alone has these: `map` shows some queries and records all.
#[derive(Args)]
pub struct QueriesArg {
    /// Queries to record: all, last (or last:N) of each step, every:K (positions that are multiples of K),
    /// or positions A-B [default: all]
    #[arg(long, value_name = "QUERIES", requires = "attention")]
    pub queries: Option<String>,
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
    force: bool,
}

impl CaptureArgs {
    /// Checks the selection against the model and the folder, before any work is done. `None` where
    /// nothing is to be recorded.
    pub fn plan(
        &self,
        queries: Option<&str>,
        checkpoint: &Checkpoint,
        model: Option<&Path>,
    ) -> Result<Option<CapturePlan>> {
        let Some(folder) = self.attention.clone() else { return Ok(None) };
        let config = checkpoint.config();
        let named = |option: &'static str| move |error: attend::Error| usage(format!("{option}: {error}"));
        let kind = self.attention_kind.parse::<AttentionKind>().map_err(named("--attention-kind"))?;
        let queries = queries.map_or(Ok(QuerySelection::All), str::parse).map_err(named("--queries"))?;
        let selection =
            Selection::parse(self.layers.as_deref(), self.heads.as_deref(), config.layers, config.heads)?
                .with_queries(queries)
                .with_kind(kind);
        if kind == AttentionKind::Stats && self.attention_dtype == StoredDtype::F16 {
            return Err(usage("--attention-dtype f16: statistics are stored in f32; leave it out"));
        }
        if model.is_some_and(|model| same(model, &folder)) {
            return Err(attend::Error::Dump {
                path: folder,
                problem: "is the model's own folder; give the dump a new or empty one".into(),
            }
            .into());
        }
        let dtype = self.attention_dtype.resolve();
        Recorder::check(&folder, self.overwrite)?;
        Ok(Some(CapturePlan { folder, selection, dtype, overwrite: self.overwrite, force: self.force }))
    }
}

/// Whether two paths lead to the same folder.
fn same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

impl CapturePlan {
    /// Says how large the dump may become, before the model is loaded.
    ///
    /// # Errors
    /// If no query of the text would be recorded, or the disk has less room (and nobody insists).
    pub fn announce(&self, checkpoint: &Checkpoint, prompt: usize, new_tokens: usize) -> Result<()> {
        let positions = prompt + new_tokens.saturating_sub(1);
        if self.selection.queries().of(0..positions).count == 0 {
            return Err(usage(format!(
                "--queries {}: the text has no such query; it has at most {positions}, numbered 0 to {}",
                self.selection.queries(),
                positions - 1
            )));
        }
        let manifest = self.manifest(checkpoint, "f32", Mask::Causal, prompt, None);
        let bytes = Recorder::estimated_bytes(&manifest, prompt, new_tokens);
        let heads = self.selection.layers().iter().map(|layer| layer.heads.len()).sum();
        let up_to = if new_tokens > 1 { "up to " } else { "" };
        note(&format!(
            "attention: recording {} of {}, queries {}, {}: the dump will take {up_to}{}",
            self.selection.kind(),
            counted(heads, "head"),
            self.selection.queries(),
            match manifest.attention_dtype {
                AttentionDtype::F32 => "f32",
                AttentionDtype::F16 => "f16",
            },
            megabytes(bytes)
        ));
        let Some(free) = free_bytes(&self.folder).filter(|free| *free < bytes) else { return Ok(()) };
        let room =
            format!("the disk has {} free, and the dump may take {}", megabytes(free), megabytes(bytes));
        if self.force {
            note(&format!("warning: {room}"));
            return Ok(());
        }
        let problem = format!(
            "{room}; make room, choose another place, record less (--layers, --heads, --queries, \
             --attention-kind, --attention-dtype f16, -n), or insist with --force"
        );
        Err(attend::Error::Dump { path: self.folder.clone(), problem }.into())
    }

    fn manifest(
        &self,
        checkpoint: &Checkpoint,
        element: &str,
        mask: Mask,
        prompt: usize,
        sampling: Option<&Sampling>,
    ) -> Manifest {
        Recorder::manifest(checkpoint, element, &self.selection, self.dtype, mask, prompt, sampling)
    }

    /// Starts the dump, its prompt included; an old one in its place goes only now.
    pub fn start(
        &self,
        checkpoint: &Checkpoint,
        decoder: &Decoder,
        prompt: &Prompt,
        run: &RunInfo<'_>,
    ) -> Result<Recorder> {
        let mut manifest =
            self.manifest(checkpoint, run.element.name(), run.mask, prompt.ids.len(), run.sampling);
        manifest.ablated = run.ablated.map(AblatedHeads::of).unwrap_or_default();
        let recorder = Recorder::create(&self.folder, &manifest, self.overwrite)?;
        let mut recorder = recorder.with_pool(decoder.ops().pool().clone());
        for record in records(prompt, checkpoint) {
            recorder.token(&record)?;
        }
        Ok(recorder)
    }
}

/// Room on the disk that holds a path, or will hold it; `None` where the system does not tell.
#[cfg(unix)]
fn free_bytes(path: &Path) -> Option<u64> {
    let path = std::path::absolute(path).ok()?;
    let disk = path.ancestors().find_map(|folder| rustix::fs::statvfs(folder).ok())?;
    Some(disk.f_bavail * disk.f_frsize)
}

#[cfg(not(unix))]
fn free_bytes(_path: &Path) -> Option<u64> {
    None
}
