//! The page's maps, from a dump or from a text that a model reads now; and the page as a file.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use attend::Checkpoint;
use attend::capture::memory::Both;
use attend::capture::{AttentionDtype, Dump, Projections, Recorder, Selection};
use attend::generation::Prompt;
use attend::model::{AttentionObserver, Decoder, Forward, Mask};
use attend::report::html::document::FILE_LIMIT;
use attend::report::html::{Chosen, Maps, Page};

use super::model_args::ModelArgs;
use super::output::{megabytes, note};
use super::prompt_args::{PromptArgs, PromptSource, records};
use super::usage;

/// Longer texts, in tokens, are shown without what takes much room besides: the maps without the
/// mask, and queries, keys and values.
const SHORT: usize = 256;

/// A page, and the folder of what was recorded for it alone, which goes with it.
pub struct Shown {
    pub page: Page,
    _recorded: Option<tempfile::TempDir>,
}

/// Of a dump, or of a text for a model, as the arguments say.
pub fn open(positional: Option<&OsStr>, prompt: &PromptArgs, model: &ModelArgs) -> Result<Shown> {
    let folder = positional.map(Path::new);
    if let Some(folder) = folder.filter(|path| Dump::is_at(path)) {
        let text = prompt.prompt_option.is_some() || prompt.file.is_some() || prompt.prompt_ids.is_some();
        if model.model.is_some() || text {
            return Err(usage(format!(
                "{} is a dump, which is shown without a model: give it alone, or a text",
                folder.display()
            )));
        }
        return of_dump(folder);
    }
    if let Some(folder) = folder.filter(|path| path.is_dir()) {
        return Err(usage(format!(
            "{} is a folder without a dump: `attend generate \"...\" --attention DIR` records one; a model goes behind -m",
            folder.display()
        )));
    }
    of_text(prompt.read(positional.map(OsStr::to_owned))?, model)
}

fn of_dump(folder: &Path) -> Result<Shown> {
    let page = Page::new(Maps::new(Dump::open(folder)?)?);
    if let Some(problem) = page.note() {
        note(problem);
    }
    Ok(Shown { page, _recorded: None })
}

/// The model reads the text once with its mask and, a short one, once without.
fn of_text(source: PromptSource, model: &ModelArgs) -> Result<Shown> {
    let checkpoint = model.open()?;
    let prompt = source.tokens(&checkpoint)?;
    let config = checkpoint.config();
    if prompt.ids.len() > config.context {
        return Err(attend::Error::ContextFull {
            needed: prompt.ids.len(),
            context: config.context,
            hint: "that is the model's own context; shorten the text".into(),
        }
        .into());
    }
    let decoder = checkpoint.load(&model.compute.resolve()?)?;
    let folder = tempfile::Builder::new()
        .prefix("attend-view-")
        .tempdir()
        .context("cannot make a folder for the maps; TMPDIR names another place")?;
    let recorded = folder.path().join("recorded");
    let short = prompt.ids.len() <= SHORT;
    let mut projections = Projections::default();
    let observer = short.then_some(&mut projections as &mut dyn AttentionObserver);
    record(&checkpoint, &decoder, &prompt, config.mask, &recorded, observer)?;
    let mut page = Page::new(Maps::new(Dump::open(&recorded)?)?);
    if short {
        page = page.with_projections(projections);
    }
    if config.mask == Mask::Causal && short {
        let unmasked = folder.path().join("unmasked");
        record(&checkpoint, &decoder, &prompt, Mask::None, &unmasked, None)?;
        page = page.with_unmasked(Maps::new(Dump::open(&unmasked)?)?);
    }
    Ok(Shown { page, _recorded: Some(folder) })
}

fn record(
    checkpoint: &Checkpoint,
    decoder: &Decoder,
    prompt: &Prompt,
    mask: Mask,
    folder: &Path,
    besides: Option<&mut dyn AttentionObserver>,
) -> Result<()> {
    let config = checkpoint.config();
    let selection = Selection::all(config.layers, config.heads);
    let dtype = AttentionDtype::F32;
    let tokens = prompt.ids.len();
    let element = checkpoint.element(None)?.name();
    let manifest = Recorder::manifest(checkpoint, element, &selection, dtype, mask, tokens, None);
    let mut recorder = Recorder::create(folder, &manifest, false)?.with_pool(decoder.ops().pool().clone());
    for token in records(prompt, checkpoint) {
        recorder.token(&token)?;
    }
    let mut cache = decoder.new_cache(tokens)?;
    let mut both;
    let observer: &mut dyn AttentionObserver = match besides {
        Some(besides) => {
            both = Both(&mut recorder, besides);
            &mut both
        }
        None => &mut recorder,
    };
    let forward = Forward { mask: Some(mask), observer: Some(observer), ..Forward::default() };
    decoder.forward(&prompt.ids, &mut cache, forward)?;
    Ok(recorder.flush()?)
}

/// Writes the page as one file: beside its name, then renamed; `-` is standard output.
pub fn write_file(shown: &Shown, chosen: &Chosen, path: &Path) -> Result<()> {
    if path.is_dir() {
        return Err(usage(format!("--html {}: this is a folder; name a file", path.display())));
    }
    let embedded = shown.page.file(chosen, FILE_LIMIT);
    let bytes = embedded.html.as_bytes();
    let cannot = || format!("{}: cannot write the page there", path.display());
    if path.as_os_str() == "-" {
        std::io::stdout().write_all(bytes).context("standard output: cannot write")?;
    } else if fs::metadata(path).is_ok_and(|kind| !kind.is_file()) {
        fs::write(path, bytes).with_context(cannot)?;
    } else {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let written = fs::write(&part, bytes).and_then(|()| fs::rename(&part, path));
        if written.is_err() {
            // What failed is reported; a part left over would only take room.
            let _ = fs::remove_file(&part);
        }
        written.with_context(cannot)?;
        note(&format!("{}: {}", path.display(), megabytes(bytes.len() as u64)));
    }
    if let Some(left_out) = embedded.left_out {
        note(&left_out);
    }
    Ok(())
}
