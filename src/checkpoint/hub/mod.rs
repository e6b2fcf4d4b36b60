//! Models of the Hugging Face hub: [`fetch`] brings a model's files into the cache that the Python
//! client uses too, and gives the folder, which then opens as any other.
//!
//! An id ([`ModelId`]) and the environment ([`Settings`]) lead to a commit and its list of files
//! (`client`); what is not in the cache (`cache`) is fetched (`download`).

mod cache;
mod client;
mod download;
mod id;
mod settings;

use std::path::{Path, PathBuf};

use super::families::{self, ConfigFile};
use super::source::{INDEX, Source, WHOLE, no_weights, shard_names};
use crate::error::{Error, Result};
use cache::Cache;
pub(super) use cache::model_of_snapshot;
use client::{Client, Listing, explained};
use download::{Download, patiently};
pub use id::ModelId;
pub use settings::Settings;

/// Is told how a download goes. Files come one after another.
pub trait DownloadObserver {
    /// A file is about to be fetched; `there` of its `size` bytes are left from an earlier try.
    fn begin(&mut self, file: &str, there: u64, size: Option<u64>);

    /// So many bytes of it are there now: fewer than before if the server had to begin anew.
    fn progress(&mut self, there: u64);

    /// The file is whole.
    fn finished(&mut self);

    /// Something that a person should know meanwhile.
    fn note(&mut self, text: &str);
}

/// Brings a model's files into the cache, those that are missing, and gives their folder. Without
/// the hub (offline, or out of reach) what the cache holds is taken, the latter with a note.
///
/// ```no_run
/// use attend::Checkpoint;
/// use attend::checkpoint::hub::{self, DownloadObserver, ModelId, Settings};
///
/// struct Quiet;
///
/// impl DownloadObserver for Quiet {
///     fn begin(&mut self, _file: &str, _there: u64, _size: Option<u64>) {}
///     fn progress(&mut self, _there: u64) {}
///     fn finished(&mut self) {}
///     fn note(&mut self, _text: &str) {}
/// }
///
/// # fn main() -> attend::Result<()> {
/// let id = ModelId::parse("HuggingFaceTB/SmolLM2-135M-Instruct").expect("an id");
/// let folder = hub::fetch(&id, &Settings::from_environment()?, &mut Quiet)?;
/// let checkpoint = Checkpoint::open(&folder)?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// If the hub has no such model or does not give it, if it holds none that can be loaded, if a
/// download breaks off for good or brings other bytes than promised, or if the cache cannot be
/// written.
pub fn fetch(id: &ModelId, settings: &Settings, observer: &mut dyn DownloadObserver) -> Result<PathBuf> {
    let cache = Cache::new(&settings.cache, id);
    let known = cache.known_snapshot(id.revision());
    if settings.offline {
        let folder = known.ok_or_else(|| Error::Hub {
            model: id.to_string(),
            problem: format!(
                "it is not in the cache ({}), and HF_HUB_OFFLINE is set",
                settings.cache.display()
            ),
            hint: "unset HF_HUB_OFFLINE to fetch it".into(),
        })?;
        return is_whole(&folder).map(|()| folder).map_err(|error| Error::Hub {
            model: id.to_string(),
            problem: format!("it is not whole in the cache, and HF_HUB_OFFLINE is set ({error})"),
            hint: "unset HF_HUB_OFFLINE to fetch the rest".into(),
        });
    }
    let client = Client::new(settings);
    let listing = match client.listing(id) {
        Ok(listing) => listing,
        Err(failure) => {
            let error = explained(&failure, id, settings);
            return match known.filter(|folder| is_whole(folder).is_ok()) {
                Some(folder) => {
                    observer.note(&format!("warning: {error}; using the copy in the cache"));
                    Ok(folder)
                }
                None => Err(error),
            };
        }
    };
    let mut fetcher = Fetcher { id, settings, client, cache, listing, fetched: false, observer };
    let folder = fetcher.model()?;
    let noted = fetcher.cache.write_ref(id.revision(), &fetcher.listing.commit);
    // Where nothing was fetched the cache may be one that only others write.
    if fetcher.fetched { noted.map(|()| folder) } else { Ok(folder) }
}

/// Whether a folder holds a model that can be opened.
fn is_whole(folder: &Path) -> Result<()> {
    Source::open(folder)?.weight_files().map(drop)
}

struct Fetcher<'a> {
    id: &'a ModelId,
    settings: &'a Settings,
    client: Client,
    cache: Cache,
    listing: Listing,
    /// Whether anything was missing.
    fetched: bool,
    observer: &'a mut dyn DownloadObserver,
}

impl Fetcher<'_> {
    /// All files of the model that are read: the weights last, so that a folder with weights has
    /// the rest too.
    fn model(&mut self) -> Result<PathBuf> {
        const CONFIG: &str = "config.json";
        const TOKENIZER: [&str; 2] = ["tokenizer.json", "tokenizer_config.json"];
        const VOCABULARY: [&str; 6] = [
            "vocab.json",
            "merges.txt",
            "vocab.txt",
            "special_tokens_map.json",
            "added_tokens.json",
            "tokenizer_config.json",
        ];
        let name = self.id.to_string();
        if !self.listing.has(CONFIG) {
            let is_gguf = |file: &String| file.ends_with(".gguf");
            return Err(Error::Hub {
                model: name,
                problem: format!("this repository has no {CONFIG}"),
                hint: match self.listing.files.iter().find(|file| is_gguf(file)) {
                    Some(file) => {
                        format!("it holds GGUF files ({file} is one): download one, and give its path")
                    }
                    None => "is it a language model?".into(),
                },
            });
        }
        let whole = self.listing.has(WHOLE);
        if !whole && !self.listing.has(INDEX) {
            return Err(no_weights(name.into(), "repository", |file| self.listing.has(file)));
        }
        let tokenizer = if self.listing.has(TOKENIZER[0]) { &TOKENIZER[..] } else { &VOCABULARY };
        for file in [CONFIG, "generation_config.json"].iter().chain(tokenizer) {
            if self.listing.has(file) {
                self.file(file)?;
            }
        }
        let folder = self.cache.snapshot(&self.listing.commit);
        // Before the weights: they may be many gigabytes of a family that does not load.
        let config = std::fs::read(folder.join(CONFIG)).map_err(Error::io(&folder.join(CONFIG), "read"))?;
        let config = ConfigFile::parse(&Path::new(&self.id.to_string()).join(CONFIG), &config)?;
        families::family_of(&config)?.translate(&config)?;
        if whole {
            self.file(WHOLE)?;
            return Ok(folder);
        }
        self.file(INDEX)?;
        let index = folder.join(INDEX);
        let bytes = std::fs::read(&index).map_err(Error::io(&index, "read"))?;
        for shard in shard_names(&bytes, &index)? {
            self.file(&shard)?;
        }
        Ok(folder)
    }

    /// One file, unless it is there.
    fn file(&mut self, file: &str) -> Result<()> {
        let snapshot = self.cache.snapshot(&self.listing.commit);
        if snapshot.join(file).exists() {
            return Ok(());
        }
        self.fetched = true;
        let url = self.client.address(self.id, &self.listing.commit, file);
        let remote = patiently(|| self.client.head(&url, &self.listing.commit))
            .map_err(|failure| explained(&failure, self.id, self.settings))?;
        let blob = self.cache.blob(&remote.etag);
        let _lock = self.cache.lock(&remote.etag, file, self.observer)?;
        if !blob.exists() {
            let Fetcher { id, settings, client, .. } = self;
            let download = Download { id, settings, client, url: &url, file, remote: &remote };
            download.run(&blob, self.observer)?;
        }
        self.cache.link(&remote.etag, &snapshot, file)
    }
}
