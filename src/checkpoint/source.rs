//! Where a model comes from: a Hugging Face folder, a GGUF file, or the binary itself. Every later
//! stage asks a [`Source`] for a file by name and does not know what is behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::ops::Deref;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::gguf::{self, GgufFile};
use super::{embedded, hub};
use crate::error::{Error, Result};

/// A place that holds a model's files.
#[derive(Clone, Debug)]
pub enum Source {
    /// A folder in Hugging Face layout.
    Folder(PathBuf),
    /// A GGUF file.
    Gguf(Arc<GgufFile>),
    /// The default model, inside the binary.
    Embedded,
}

/// The bytes of a file; a weights file is mapped, not read.
pub enum Bytes {
    Mapped(memmap2::Mmap),
    Static(&'static [u8]),
}

impl Bytes {
    /// Gives the memory of pages read so far back to the system; they are read again if needed.
    pub(super) fn release(&self) {
        self.release_part(self);
    }

    /// The same of the pages that `part` lies on, if it is part of this file.
    pub(super) fn release_part(&self, part: &[u8]) {
        #[cfg(unix)]
        if let (Bytes::Mapped(map), false) = (self, part.is_empty()) {
            let (file, part) = (map.as_ptr_range(), part.as_ptr_range());
            if part.start >= file.start && part.end <= file.end {
                let from = part.start.addr() - file.start.addr();
                let len = part.end.addr() - part.start.addr();
                // SAFETY: the map is of a file and read-only, so a dropped page comes back as it was.
                // A system that refuses keeps the pages, which is only less frugal.
                let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, from, len) };
            }
        }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Static(bytes) => bytes,
        }
    }
}

const HOW_TO_CONVERT: &str = "convert it in Python with \
    `AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder, safe_serialization=True)`";

impl Source {
    /// A folder that holds a `config.json`, or a GGUF file.
    ///
    /// # Errors
    /// If there is no such folder or file, or it is something else, with what to do about it.
    pub fn open(path: &Path) -> Result<Source> {
        let not_a_model = |problem: &str, hint: &str| {
            Err(Error::NotAModel { path: path.to_path_buf(), problem: problem.into(), hint: hint.into() })
        };
        if !path.exists() {
            return not_a_model(
                "there is no such folder or file",
                "give a folder that holds config.json, tokenizer.json and model.safetensors, or a GGUF file",
            );
        }
        if path.is_file() {
            if is_gguf(path)? {
                return Ok(Source::Gguf(Arc::new(GgufFile::read(path, &map(path)?)?)));
            }
            let is_pickle =
                path.extension().is_some_and(|e| ["bin", "pth", "pt", "ckpt"].iter().any(|p| e == *p));
            return if is_pickle {
                not_a_model(
                    "a PyTorch pickle, which can run code when it is read, is not loaded",
                    HOW_TO_CONVERT,
                )
            } else {
                not_a_model(
                    "is a file, and no GGUF file",
                    "give the folder that holds config.json and model.safetensors",
                )
            };
        }
        if !path.join("config.json").is_file() {
            let files = std::fs::read_dir(path).into_iter().flatten().flatten();
            let gguf = files
                .map(|file| file.file_name())
                .find(|name| Path::new(name).extension() == Some("gguf".as_ref()));
            return match gguf {
                Some(name) => not_a_model(
                    "the folder has no config.json",
                    &format!("it holds {}: give that file", name.display()),
                ),
                None => not_a_model(
                    "the folder has no config.json",
                    "a model folder holds config.json, tokenizer.json and model.safetensors",
                ),
            };
        }
        Ok(Source::Folder(path.to_path_buf()))
    }

    /// What to call the model: the folder's name, that on the hub if it came from there, or what a GGUF
    /// file says.
    pub fn name(&self) -> String {
        let folder = match self {
            Source::Folder(folder) => folder,
            Source::Gguf(file) => return file.name.clone(),
            Source::Embedded => return embedded::NAME.into(),
        };
        let whole = std::path::absolute(folder).unwrap_or_else(|_| folder.clone());
        let own_name = || whole.file_name().map(|name| name.to_string_lossy().into_owned());
        hub::model_of_snapshot(&whole).or_else(own_name).unwrap_or_else(|| whole.display().to_string())
    }

    /// The path of a file, for messages too; in a GGUF file all are the one.
    pub fn path(&self, file: &str) -> PathBuf {
        match self {
            Source::Folder(folder) => folder.join(file),
            Source::Gguf(gguf) => gguf.path.clone(),
            Source::Embedded => Path::new("the embedded model").join(file),
        }
    }

    /// A small file, read whole; `None` where there is none.
    ///
    /// # Errors
    /// If it is there and cannot be read.
    pub fn read(&self, file: &str) -> Result<Option<Vec<u8>>> {
        let path = match self {
            Source::Folder(folder) => folder.join(file),
            Source::Gguf(gguf) => return Ok(gguf.file(file).map(<[u8]>::to_vec)),
            Source::Embedded => return Ok(embedded::file(file).map(<[u8]>::to_vec)),
        };
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(&path, "read")(error)),
        }
    }

    /// A weights file, mapped.
    ///
    /// # Errors
    /// If it is missing or cannot be mapped.
    pub fn map(&self, file: &str) -> Result<Bytes> {
        if let (Source::Embedded, Some(bytes)) = (self, embedded::file(file)) {
            return Ok(Bytes::Static(bytes));
        }
        map(&self.path(file))
    }

    /// The weights files: `model.safetensors`, or those that the index names.
    ///
    /// # Errors
    /// If there are none, or the index is no index, or names a file outside the folder or one that
    /// is missing.
    pub fn weight_files(&self) -> Result<Vec<String>> {
        // A GGUF file is its own weights file, whatever it is asked for.
        let Source::Folder(folder) = self else { return Ok(vec![WHOLE.into()]) };
        if self.path(WHOLE).is_file() {
            return Ok(vec![WHOLE.into()]);
        }
        let Some(index) = self.read(INDEX)? else {
            return Err(no_weights(folder.clone(), "folder", |file| self.path(file).exists()));
        };
        let files = shard_names(&index, &self.path(INDEX))?;
        match files.iter().find(|file| !self.path(file).is_file()) {
            Some(missing) => Err(Error::NotAModel {
                path: self.path(missing),
                problem: "this shard, which model.safetensors.index.json names, is missing".into(),
                hint: "fetch it into the folder".into(),
            }),
            None => Ok(files.into_iter().collect()),
        }
    }
}

fn map(path: &Path) -> Result<Bytes> {
    let opened = File::open(path).map_err(Error::io(path, "open"))?;
    let len = opened.metadata().map_err(Error::io(path, "read the size of"))?.len();
    if len == 0 {
        return Ok(Bytes::Static(&[]));
    }
    // SAFETY: the file is only read. Another program that shortens it meanwhile would end this
    // process with SIGBUS; reading instead of mapping would cost the model's size in memory.
    let map = unsafe { memmap2::Mmap::map(&opened) };
    Ok(Bytes::Mapped(map.map_err(Error::io(path, "map into memory"))?))
}

/// Whether a file is one, by its first bytes or by its name.
fn is_gguf(path: &Path) -> Result<bool> {
    let mut start = vec![];
    let opened = File::open(path).map_err(Error::io(path, "open"))?;
    opened.take(4).read_to_end(&mut start).map_err(Error::io(path, "read"))?;
    let named = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
    Ok(named || start == gguf::header::MAGIC)
}

/// The weights in one file, or the list of the files that they are in.
pub(super) const WHOLE: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// What to say of a `place` (a folder, a repository) that has neither.
pub(super) fn no_weights(path: PathBuf, place: &str, has: impl Fn(&str) -> bool) -> Error {
    let pickles = ["pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.00.pth"];
    let (problem, hint) = match pickles.into_iter().find(|file| has(file)) {
        Some(file) => (
            format!("the weights are a PyTorch pickle ({file}), which can run code when it is read"),
            HOW_TO_CONVERT,
        ),
        None => (format!("the {place} has neither {WHOLE} nor {INDEX}"), "fetch the weights into it"),
    };
    Error::NotAModel { path, problem, hint: hint.into() }
}

/// The files that a shard index names, from its bytes; `path` is for messages.
pub(super) fn shard_names(index: &[u8], path: &Path) -> Result<BTreeSet<String>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let problem = |problem: String| Error::Config { file: path.to_path_buf(), problem };
    let index: Index =
        serde_json::from_slice(index).map_err(|e| problem(format!("is no shard index: {e}")))?;
    let files: BTreeSet<String> = index.weight_map.into_values().collect();
    if files.is_empty() {
        return Err(problem("its weight_map is empty, expected a file name for each tensor".into()));
    }
    for file in &files {
        let parts: Vec<Component<'_>> = Path::new(file).components().collect();
        if !matches!(parts[..], [Component::Normal(_)]) || file.contains('\\') {
            return Err(problem(format!("names the shard {file:?}, expected a file beside the index")));
        }
    }
    Ok(files)
}
