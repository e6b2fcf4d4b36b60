//! Writes a dump while the model runs: an [`AttentionObserver`] that keeps nothing but the rows at
//! hand. A thread of its own puts them on the disk.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::{
    AttentionDtype, FORMAT, LayerHeads, MANIFEST, Manifest, ModelInfo, STEPS_FOLDER, StepRecord, TOKENS,
    TokenRecord, VERSION, sampling_json,
};
use super::kind::AttentionKind;
use super::layout::{self, Layout};
use super::overview::{OVERVIEW, Overview, Repeats, repeated, worth_it};
use super::selection::Selection;
use super::step_rows::{Encoding, StepRows};
use super::storage::{Disk, Storage};
use super::target;
use super::writer::{Writer, json_line};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::generation::Sampling;
use crate::kernels::{Isa, Pool};
use crate::model::{AttentionObserver, AttentionRows, Mask, RowsShape, StepShape, TakeRows};

/// Weights below which taking them in is not worth sharing out among threads.
const SHARED_WEIGHTS: usize = 1 << 15;

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
/// recorder.flush()?;
/// # Ok(())
/// # }
/// ```
pub struct Recorder {
    folder: PathBuf,
    manifest: Manifest,
    encoding: Encoding,
    pool: Arc<Pool>,
    writer: Writer,
    next_step: usize,
    current: Option<StepRows>,
    /// Of the step before.
    layout: Option<Layout>,
    overview: Option<Progress>,
}

/// The overview of all steps so far; none where it would not be that of the dump.
struct Progress {
    overview: Overview,
    /// The prompt's tokens.
    ids: Vec<u32>,
    /// Bytes of the steps' tensors, and those that the last file was of.
    map_bytes: u64,
    written_bytes: u64,
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
            // Statistics are always f32: most are no weights.
            attention_dtype: match selection.kind() {
                AttentionKind::Stats => AttentionDtype::F32,
                _ => attention_dtype,
            },
            kind: selection.kind(),
            queries: selection.queries(),
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

    /// About how many bytes a dump takes, if it is not cut short: of a prompt and the steps behind it
    /// for so many new tokens. Within 5 %, but for dumps of less than some 100 kB.
    pub fn estimated_bytes(manifest: &Manifest, prompt_tokens: usize, new_tokens: usize) -> u64 {
        layout::dump_bytes(manifest, prompt_tokens, new_tokens)
    }

    /// Starts a dump in a new or empty folder; one that holds a dump is replaced only if
    /// `overwrite`. Recorded is what the manifest says.
    ///
    /// # Errors
    /// If the folder holds anything else, or cannot be written.
    pub fn create(folder: &Path, manifest: &Manifest, overwrite: bool) -> Result<Recorder> {
        Recorder::create_in(Disk, folder, manifest, overwrite)
    }

    fn create_in(
        mut storage: impl Storage + 'static,
        folder: &Path,
        manifest: &Manifest,
        overwrite: bool,
    ) -> Result<Recorder> {
        let isa = Isa::detect()?;
        target::clear(folder, overwrite)?;
        let steps = folder.join(STEPS_FOLDER);
        fs::create_dir_all(&steps).map_err(Error::io(&steps, "create"))?;
        let path = folder.join(MANIFEST);
        let part = path.with_extension("part");
        let mut json =
            serde_json::to_vec_pretty(manifest).map_err(|e| Error::io(&part, "write")(e.into()))?;
        json.push(b'\n');
        let written = storage.create(&part).and_then(|mut file| file.write_at(0, &json));
        written.map_err(Error::io(&part, "write"))?;
        storage.rename(&part, &path).map_err(Error::io(&path, "name"))?;
        let Manifest { kind, attention_dtype: dtype, mask, .. } = *manifest;
        Ok(Recorder {
            folder: folder.to_path_buf(),
            manifest: manifest.clone(),
            encoding: Encoding { isa, kind, dtype, mask },
            pool: Arc::new(Pool::new(1)),
            writer: Writer::start(folder, storage)?,
            next_step: 0,
            current: None,
            layout: None,
            overview: (kind == AttentionKind::Full).then(|| Progress {
                overview: Overview::new(manifest, isa, None, Repeats::default()),
                ids: vec![],
                map_bytes: 0,
                written_bytes: 0,
            }),
        })
    }

    /// Shares the work on large steps out among the threads of a pool: the decoder's
    /// ([`Ops::pool`](crate::model::ops::Ops::pool)), which waits meanwhile. While there is much to write,
    /// one of its CPUs is used for that.
    pub fn with_pool(self, pool: Arc<Pool>) -> Recorder {
        self.writer.set_pool(pool.clone());
        Recorder { pool, ..self }
    }

    /// Records a token: before the step that feeds it.
    ///
    /// # Errors
    /// If the disk has not taken something recorded before.
    pub fn token(&mut self, token: &TokenRecord) -> Result<()> {
        if let Some(progress) = &mut self.overview {
            progress.ids.extend((self.next_step == 0).then_some(token.id));
            progress.overview.token(token.id);
        }
        // A token that comes behind its step was not known when its row was taken in.
        self.overview = self.overview.take().filter(|progress| {
            token.index + 1 == progress.overview.tokens() && token.index >= progress.overview.keys()
        });
        self.writer.token(json_line(token, &self.folder.join(TOKENS))?)
    }

    /// Waits until everything recorded is on the disk. Without this, an error of the last steps is
    /// never seen.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub fn flush(&mut self) -> Result<()> {
        self.write_overview(1)?;
        self.writer.flush()
    }

    /// Writes the overview, once its maps have grown by so much since it was last written.
    fn write_overview(&mut self, growth: u64) -> Result<()> {
        let Some(progress) = &mut self.overview else { return Ok(()) };
        let Progress { overview, map_bytes, written_bytes, .. } = progress;
        let due = *map_bytes > *written_bytes && *map_bytes >= growth * *written_bytes;
        if self.current.is_some() || !due {
            return Ok(());
        }
        let (writer, mut at) = (&self.writer, 0);
        let begin = |len| writer.begin(OVERVIEW.into(), vec![], len);
        overview.write(begin, |bytes| {
            let start = at;
            at += bytes.len();
            let mut buffer = writer.buffer(bytes.len())?;
            buffer.copy_from_slice(&bytes);
            writer.write(start, buffer)
        })?;
        *written_bytes = *map_bytes;
        writer.name(OVERVIEW)
    }

    /// Steps that are whole on the disk.
    pub fn steps(&self) -> usize {
        self.writer.committed()
    }

    /// The place of a layer among the captured ones.
    fn place(&self, layer: usize) -> Option<usize> {
        self.manifest.layers.iter().position(|captured| captured.layer == layer)
    }
}

impl AttentionObserver for Recorder {
    fn wants(&self, layer: usize) -> bool {
        self.place(layer).is_some()
    }

    fn wants_queries(&self, layer: usize, queries: Range<usize>) -> bool {
        // Before a step begins nothing is known of its end, which `last` counts from.
        let rows = self.current.as_ref().map(|step| step.record.rows());
        self.wants(layer) && rows.is_none_or(|rows| !rows.within(queries).is_empty())
    }

    fn begin_step(&mut self, shape: StepShape) -> Result<()> {
        // A step that failed before is forgotten; its number is free again. What the overview has of it
        // cannot be taken back.
        if self.current.take().is_some() {
            self.overview = None;
        }
        let StepShape { first_query, keys, .. } = shape;
        let rows = self.manifest.queries.of(first_query..keys);
        let record = StepRecord {
            step: self.next_step,
            file: format!("{STEPS_FOLDER}/{:05}.safetensors", self.next_step),
            first_query: rows.first,
            queries: rows.count,
            stride: rows.stride,
            keys,
        };
        let step = StepRows::begin(record, &self.manifest, self.layout.take(), self.encoding, &self.writer)?;
        let record = &step.record;
        // Of a small prompt the overview takes longer than reading its maps will.
        if record.step == 0 && !worth_it(&self.manifest, step.map_bytes(), keys) {
            self.overview = None;
        }
        if let Some(Progress { overview, ids, .. }) = &mut self.overview {
            if record.step == 0 {
                overview.set_copy(repeated(&ids[..ids.len().min(keys)]));
            }
            overview.begin(record);
        }
        self.current = Some(step);
        Ok(())
    }

    fn taker(&mut self, rows: RowsShape) -> Result<Option<Box<dyn TakeRows + '_>>> {
        let place = self.place(rows.layer);
        let (Some(step), Some(place)) = (&mut self.current, place) else { return Ok(None) };
        let wanted = step.wanted(rows);
        Ok(Some(Box::new(step.taker(place, &self.manifest.layers[place].heads, wanted, &self.writer)?)))
    }

    fn taken(&mut self, rows: RowsShape) -> Result<()> {
        let place = self.place(rows.layer);
        let (Some(step), Some(place)) = (&mut self.current, place) else { return Ok(()) };
        let overview = self.overview.as_mut().map(|progress| progress.overview.layer_mut(place));
        step.taken(place, step.wanted(rows), overview, &self.pool, &self.writer)
    }

    fn observe(&mut self, rows: AttentionRows<'_>) -> Result<()> {
        let place = self.place(rows.layer);
        let (Some(step), Some(place)) = (&mut self.current, place) else { return Ok(()) };
        let heads = &self.manifest.layers[place].heads;
        // Whoever hands over a whole map at once still has it taken in pieces.
        let wanted = step.wanted(rows.shape());
        for first in wanted.clone().step_by(step.piece_rows(heads.len())) {
            let block = first..wanted.end.min(first + step.piece_rows(heads.len()));
            let positions = step.record.rows();
            let taker = step.taker(place, heads, block.clone(), &self.writer)?;
            let shared = heads.len() * block.len() * rows.keys >= SHARED_WEIGHTS;
            self.pool.for_each(heads.len(), if shared { 1 } else { heads.len() }, |place| {
                let weights = rows.head(heads[place]);
                for row in block.clone() {
                    let query = positions.position(row);
                    let weights = &weights[(query - rows.first_query) * rows.keys..][..rows.keys];
                    taker.take(heads[place], query, weights);
                }
            });
            drop(taker);
            let overview = self.overview.as_mut().map(|progress| progress.overview.layer_mut(place));
            step.taken(place, block, overview, &self.pool, &self.writer)?;
        }
        Ok(())
    }

    fn end_step(&mut self) -> Result<()> {
        if let Some(step) = self.current.take() {
            if let Some(progress) = &mut self.overview {
                progress.map_bytes += step.map_bytes();
                progress.overview.end();
            }
            self.layout = Some(step.commit(&self.writer)?);
            self.next_step += 1;
            self.write_overview(2)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
