//! A prompt's keys and values in a file, so that a long prompt is paid once: [`Session::restore`]
//! takes from it what the file and the prompt have in common, [`Session::save`] writes it.
//!
//! The file is a safetensors file. Its metadata says what wrote it ([`Identity`]); it holds, in this
//! order,
//! - `tokens`, U32 `[positions]`;
//! - for each layer *i* `layer.i.keys` and `layer.i.values`, `[kv_heads, positions, head_dim]` in
//!   F32 or F16, or of a q8_0 cache U8 `[kv_heads, positions, head_dim / 32 · 34]`, ggml's blocks:
//!   an order that does not depend on the cache's capacity;
//! - `sha256`, U8 `[32]`, of all bytes before it, the header's included.
//!
//! It serves only the model, types and arithmetic that wrote it: generating after restoring is then,
//! bit for bit, generating without (with candle's arithmetic, whose sums depend on how a prompt is
//! split: up to rounding).
//!
//! [`Session::restore`]: super::Session::restore
//! [`Session::save`]: super::Session::save

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use serde::Deserialize;
use serde_json::Map;
use sha2::{Digest, Sha256};

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::kernels::cache::{CachePart, CacheType};
use crate::kernels::matmul::ElementType;
use crate::model::{Decoder, KvCache, ModelConfig};

const FORMAT: &str = "attend-prompt-cache";
const VERSION: &str = "1";
/// A header of ours has some 200 bytes a layer.
const MAX_HEADER: u64 = 4 << 20;
const DIGEST: usize = 32;

/// Whose keys and values they are: where any of this differs, so do their bits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// For each: its key in the file, what to call it, and its value.
    entries: Vec<(&'static str, &'static str, String)>,
}

impl Identity {
    /// Of a decoder that was loaded from a checkpoint with `element` ([`LoadOptions::element`]). It
    /// reads all of the weights files, to tell them from those of another model with the same config;
    /// that takes a small part of the time that a long prompt does.
    ///
    /// [`LoadOptions::element`]: crate::LoadOptions::element
    ///
    /// # Errors
    /// None after the decoder was loaded.
    pub fn new(checkpoint: &Checkpoint, decoder: &Decoder, element: Option<ElementType>) -> Result<Identity> {
        let ops = decoder.ops();
        let mut held = BTreeMap::<ElementType, usize>::new();
        for matrix in checkpoint.held(element)? {
            *held.entry(matrix.held).or_default() += 1;
        }
        let held: Vec<String> = held.iter().map(|(held, count)| format!("{count} of {held}")).collect();
        let device = if ops.device().is_cpu() { "" } else { " on another device" };
        Ok(Identity {
            entries: vec![
                ("generator", "program", format!("attend {}", env!("CARGO_PKG_VERSION"))),
                ("config_sha256", "config's SHA-256", checkpoint.config_digest().into()),
                ("weights_sha256", "weights' SHA-256", checkpoint.weights_digest(ops.threads())),
                ("weights_dtype", "matrices' types", held.join(", ")),
                ("cache_dtype", "cache's type", ops.cache_type().name().into()),
                ("arithmetic", "arithmetic", format!("{}{device}", ops.arithmetic())),
            ],
        })
    }

    /// What a file's header says of it.
    fn metadata(&self, text_length: usize) -> BTreeMap<&str, String> {
        let own = [
            ("format", FORMAT.to_owned()),
            ("version", VERSION.to_owned()),
            ("text_length", text_length.to_string()),
        ];
        own.into_iter().chain(self.entries.iter().map(|(key, _, value)| (*key, value.clone()))).collect()
    }

    /// What in a file's metadata differs.
    fn differences(&self, metadata: &BTreeMap<String, String>) -> Vec<String> {
        let difference = |(key, name, ours): &(&str, &str, String)| {
            let theirs = metadata.get(*key).map_or("missing", String::as_str);
            // The beginning of a digest tells enough.
            let most = if key.ends_with("sha256") { 16 } else { usize::MAX };
            let [theirs_shown, ours_shown] =
                [theirs, ours].map(|value| value.chars().take(most).collect::<String>());
            (theirs != ours).then(|| format!("the {name}: {theirs_shown} there, {ours_shown} here"))
        };
        self.entries.iter().filter_map(difference).collect()
    }
}

/// A file that holds a prompt, or is to hold one.
///
/// ```no_run
/// use attend::generation::prompt_cache::{Identity, PromptCache};
/// use attend::generation::{GenerationOptions, Session};
/// use attend::model::Decoder;
/// use attend::{Checkpoint, Result};
///
/// fn first_token(
///     checkpoint: &Checkpoint,
///     decoder: &Decoder,
///     prompt: &[u32],
///     options: GenerationOptions,
/// ) -> Result<()> {
///     let identity = Identity::new(checkpoint, decoder, None)?;
///     let file = PromptCache::open("prompt.safetensors".as_ref(), decoder, identity)?;
///     let mut session = Session::new(decoder, None, prompt, options)?;
///     session.restore(&file)?;
///     println!("{:?}", session.step(None)?);
///     session.save(file)?;
///     Ok(())
/// }
/// ```
pub struct PromptCache {
    path: PathBuf,
    identity: Identity,
    held: Option<Held>,
}

/// A file's beginning, read and checked.
struct Held {
    file: File,
    /// Where the tokens end, and the digest of all bytes up to there.
    rows_start: u64,
    digest: Sha256,
    tokens: Vec<u32>,
    /// Tokens of the text that the keys' positions were chosen for.
    text_length: usize,
}

impl PromptCache {
    /// Opens a file, which need not be there yet, and checks whose it is.
    ///
    /// # Errors
    /// If there is something else by that name, another model's or another version's prompt cache, or
    /// one that is not whole.
    pub fn open(path: &Path, decoder: &Decoder, identity: Identity) -> Result<PromptCache> {
        let held = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            kind => Some(Held::read(path, &kind.map_err(Error::io(path, "open"))?, decoder, &identity)?),
        };
        Ok(PromptCache { path: path.to_path_buf(), identity, held })
    }

    /// Whether a prompt is longer than what the file holds.
    pub fn is_outgrown_by(&self, prompt: &[u32]) -> bool {
        self.held.as_ref().is_none_or(|held| held.tokens.len() < prompt.len())
    }

    /// Checks that the file can be written, before the time for the prompt is spent.
    ///
    /// # Errors
    /// If it cannot.
    pub fn check_writable(&self) -> Result<()> {
        Part::create(&self.path).map(drop)
    }

    /// Fills an empty cache with what prompt and file have in common, but for the prompt's last token,
    /// which has to be read for its logits; answers how many tokens that is.
    pub(super) fn restore(&self, decoder: &Decoder, cache: &mut KvCache, prompt: &[u32]) -> Result<usize> {
        let Some(held) = &self.held else { return Ok(0) };
        let common = held.tokens.iter().zip(prompt).take_while(|(held, ours)| held == ours).count();
        let count = common.min(prompt.len() - 1);
        // Keys that were turned as part of a text of another length may be of no use.
        if count == 0 || !decoder.turns_alike(held.text_length, prompt.len()) {
            return Ok(0);
        }
        let read = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.problem("is not whole"),
            _ => Error::io(&self.path, "read")(error),
        };
        let (mut file, mut digest) = (&held.file, held.digest.clone());
        file.seek(SeekFrom::Start(held.rows_start)).map_err(read)?;
        let mut rows = vec![0; part_bytes(decoder, decoder.cache_rows(), held.tokens.len())];
        for (layer, part) in parts(decoder) {
            file.read_exact(&mut rows).map_err(read)?;
            digest.update(&rows);
            cache.put_rows(layer, part, count, &rows)?;
        }
        let mut expected = [0; DIGEST];
        file.read_exact(&mut expected).map_err(read)?;
        if digest.finalize()[..] != expected {
            return Err(self.problem("is damaged: its bytes are not those that were saved"));
        }
        cache.restored(&prompt[..count], held.text_length);
        Ok(count)
    }

    /// Writes the positions of `prompt`, which the cache begins with, where the file holds less;
    /// answers the file's size if so.
    ///
    /// The file gets its name when it is whole.
    pub(super) fn save(self, decoder: &Decoder, cache: &KvCache, prompt: &[u32]) -> Result<Option<u64>> {
        if !self.is_outgrown_by(prompt) {
            return Ok(None);
        }
        let PromptCache { path, identity, held } = self;
        // Some systems do not replace a file that is open.
        drop(held);
        let mut part = Part::create(&path)?;
        let text_length = cache.text_length();
        let mut start = header(decoder, decoder.cache_rows(), &identity.metadata(text_length), prompt.len());
        start.extend(prompt.iter().flat_map(|id| id.to_le_bytes()));
        part.write(&start)?;
        let mut rows = vec![];
        for (layer, kind) in parts(decoder) {
            rows.clear();
            cache.copy_rows(layer, kind, prompt.len(), &mut rows)?;
            part.write(&rows)?;
        }
        part.finish(&path).map(Some)
    }

    fn problem(&self, problem: impl Into<String>) -> Error {
        Error::PromptCache { path: self.path.clone(), problem: problem.into() }
    }
}

impl Held {
    fn read(path: &Path, kind: &Metadata, decoder: &Decoder, identity: &Identity) -> Result<Held> {
        let problem = |problem: String| Error::PromptCache { path: path.to_path_buf(), problem };
        // Opening a pipe would wait for somebody who writes.
        if !kind.is_file() {
            return Err(problem("is no regular file".into()));
        }
        let mut file = File::open(path).map_err(Error::io(path, "open"))?;
        let foreign = || problem("is no prompt cache".into());
        let mut len = [0; 8];
        if kind.len() < 8 {
            return Err(foreign());
        }
        file.read_exact(&mut len).map_err(Error::io(path, "read"))?;
        let header_len = u64::from_le_bytes(len);
        if header_len > MAX_HEADER.min(kind.len() - 8) {
            return Err(foreign());
        }
        let mut start = len.to_vec();
        (&file).take(header_len).read_to_end(&mut start).map_err(Error::io(path, "read"))?;
        let found: Header = serde_json::from_slice(&start[8..]).map_err(|_| foreign())?;
        if found.metadata.get("format").is_none_or(|format| format != FORMAT) {
            return Err(foreign());
        }
        let version = found.metadata.get("version").map_or("missing", String::as_str);
        if version != VERSION {
            return Err(problem(format!("its version is {version}, and this program reads {VERSION}")));
        }
        let differences = identity.differences(&found.metadata);
        if !differences.is_empty() {
            return Err(problem(format!("was written by another run: {}", differences.join("; "))));
        }
        let damaged = || problem("is damaged: its header is not one that this program writes".into());
        let text_length = found.metadata.get("text_length").and_then(|text| text.parse().ok());
        let text_length: usize = text_length.ok_or_else(damaged)?;
        // More tokens than the model has positions would not be ours either.
        let count = found.tokens.shape[0];
        if count == 0 || count > decoder.config().context {
            return Err(damaged());
        }
        let held = decoder.cache_rows();
        if header(decoder, held, &identity.metadata(text_length), count) != start {
            return Err(damaged());
        }
        let rows = 2 * decoder.config().layers * part_bytes(decoder, held, count);
        let expected = (start.len() + 4 * count + rows + DIGEST) as u64;
        if kind.len() != expected {
            return Err(problem(format!("is not whole: it has {} bytes, expected {expected}", kind.len())));
        }
        let mut tokens = vec![0; 4 * count];
        file.read_exact(&mut tokens).map_err(Error::io(path, "read"))?;
        start.extend_from_slice(&tokens);
        Ok(Held {
            file,
            rows_start: start.len() as u64,
            digest: Sha256::new_with_prefix(&start),
            tokens: tokens.as_chunks().0.iter().map(|id| u32::from_le_bytes(*id)).collect(),
            text_length,
        })
    }
}

/// What is read of a header before it is compared with the one that it should be.
#[derive(Deserialize)]
struct Header {
    #[serde(rename = "__metadata__")]
    metadata: BTreeMap<String, String>,
    tokens: TokensEntry,
}

#[derive(Deserialize)]
struct TokensEntry {
    shape: [usize; 1],
}

/// The length of the header and the header, filled up with spaces to a multiple of 8.
fn header(
    decoder: &Decoder,
    held: CacheType,
    metadata: &BTreeMap<&str, String>,
    positions: usize,
) -> Vec<u8> {
    let ModelConfig { kv_heads, head_dim, .. } = *decoder.config();
    let (dtype, columns) = match held {
        CacheType::F32 => (Dtype::F32, head_dim),
        CacheType::F16 => (Dtype::F16, head_dim),
        CacheType::Q8_0 => (Dtype::U8, held.head_bytes(head_dim)),
    };
    let (mut json, mut at) = (Map::new(), 0);
    json.insert("__metadata__".into(), serde_json::json!(metadata));
    let mut entry = |name: String, dtype: Dtype, shape: &[usize], bytes: usize| {
        let (start, end) = (at, at + bytes);
        at = end;
        let entry = serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]});
        json.insert(name, entry);
    };
    entry("tokens".into(), Dtype::U32, &[positions], 4 * positions);
    for (layer, part) in parts(decoder) {
        let name = match part {
            CachePart::Keys => format!("layer.{layer}.keys"),
            CachePart::Values => format!("layer.{layer}.values"),
        };
        entry(name, dtype, &[kv_heads, positions, columns], part_bytes(decoder, held, positions));
    }
    entry("sha256".into(), Dtype::U8, &[DIGEST], DIGEST);
    let mut json = serde_json::Value::from(json).to_string().into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    [&(json.len() as u64).to_le_bytes()[..], &json].concat()
}

/// Every layer's keys and values, in the file's order.
fn parts(decoder: &Decoder) -> impl Iterator<Item = (usize, CachePart)> {
    let both = |layer| [(layer, CachePart::Keys), (layer, CachePart::Values)];
    (0..decoder.config().layers).flat_map(both)
}

/// Bytes of a layer's keys (or values).
fn part_bytes(decoder: &Decoder, held: CacheType, positions: usize) -> usize {
    let ModelConfig { kv_heads, head_dim, .. } = *decoder.config();
    kv_heads * positions * held.head_bytes(head_dim)
}

/// The file while it is being written, under a name that says so; removed again unless it is finished.
struct Part {
    path: PathBuf,
    file: File,
    digest: Sha256,
}

impl Part {
    fn create(path: &Path) -> Result<Part> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let path = path.with_file_name(format!(".{name}.{}.part", std::process::id()));
        let file = File::create(&path).map_err(Error::io(&path, "create"))?;
        Ok(Part { path, file, digest: Sha256::new() })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.digest.update(bytes);
        self.file.write_all(bytes).map_err(Error::io(&self.path, "write"))
    }

    /// Writes the digest and gives the file its name; answers its size.
    fn finish(mut self, path: &Path) -> Result<u64> {
        let digest = self.digest.finalize_reset();
        self.file.write_all(&digest).map_err(Error::io(&self.path, "write"))?;
        let size = self.file.metadata().map_err(Error::io(&self.path, "read the size of"))?.len();
        fs::rename(&self.path, path).map_err(Error::io(path, "write"))?;
        Ok(size)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // After the rename there is nothing by this name, and nobody to tell of a failure.
        let _ = fs::remove_file(&self.path);
    }
}
