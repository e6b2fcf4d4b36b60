//! One blob from the hub into the cache: continued where an earlier try ended, tried again when the
//! connection is cut, checked, and only then given its name.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use sha2::{Digest, Sha256};
use ureq::Body;
use ureq::http::{Response, header};

use super::DownloadObserver;
use super::cache::create_parent;
use super::client::{Client, Failure, Remote, explained};
use super::id::ModelId;
use super::settings::Settings;
use crate::error::{Error, Result};

/// How long to wait before each further try; one that brought something starts over.
const WAITS: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];
const CHUNK: usize = 1 << 17;

/// Asks again where waiting may help.
pub(super) fn patiently<T>(request: impl Fn() -> Result<T, Failure>) -> Result<T, Failure> {
    for wait in WAITS {
        match request() {
            Err(failure) if failure.is_passing() => sleep(wait),
            answer => return answer,
        }
    }
    request()
}

/// A file to fetch.
pub(super) struct Download<'a> {
    pub(super) id: &'a ModelId,
    pub(super) settings: &'a Settings,
    pub(super) client: &'a Client,
    pub(super) url: &'a str,
    pub(super) file: &'a str,
    pub(super) remote: &'a Remote,
}

/// Why a try ended before the file did.
enum Stop {
    /// Something that may pass.
    Cut(String),
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Failed(error)
    }
}

impl Download<'_> {
    /// Fetches into `blob`, by way of `blob.incomplete`.
    pub(super) fn run(&self, blob: &Path, observer: &mut dyn DownloadObserver) -> Result<()> {
        create_parent(blob)?;
        let is_sha256 =
            self.remote.etag.len() == 64 && self.remote.etag.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut partial = Partial::open(blob, is_sha256)?;
        if self.remote.size.is_some_and(|size| partial.len > size) {
            partial.restart()?;
        }
        observer.begin(self.file, partial.len, self.remote.size);
        let mut furthest = partial.len;
        let mut tries = 0;
        while let Err(stop) = self.receive(&mut partial, observer) {
            let cause = match stop {
                Stop::Cut(cause) => cause,
                Stop::Failed(error) => return Err(error),
            };
            if partial.len > furthest {
                (furthest, tries) = (partial.len, 0);
            }
            let Some(wait) = WAITS.get(tries) else {
                let size = self.remote.size.map_or_else(|| "an unknown number".into(), |s| s.to_string());
                return Err(self.error(
                    format!(
                        "{} broke off {} times ({cause}); {} of {size} bytes are there",
                        self.file,
                        tries + 1,
                        partial.len
                    ),
                    "run it again to continue from there",
                ));
            };
            tries += 1;
            observer.note(&format!("{}: {cause}; trying again", self.file));
            sleep(*wait);
        }
        self.check(&partial)?;
        partial.finish(blob)?;
        observer.finished();
        Ok(())
    }

    /// One request, up to the file's end.
    fn receive(&self, partial: &mut Partial, observer: &mut dyn DownloadObserver) -> Result<(), Stop> {
        if self.remote.size == Some(partial.len) {
            return Ok(());
        }
        let mut response = self.client.get(self.url, partial.len).map_err(|failure| {
            if failure.is_passing() {
                Stop::Cut(failure.problem(&self.settings.endpoint))
            } else {
                Stop::Failed(explained(&failure, self.id, self.settings))
            }
        })?;
        if response.status() == 416 {
            partial.restart()?;
            return Err(Stop::Cut("the server does not know the rest of what is there".into()));
        }
        if first_byte(&response) != partial.len {
            partial.restart()?;
            observer.progress(0);
            if first_byte(&response) != 0 {
                return Err(Stop::Cut("the server sent another part than the one asked for".into()));
            }
        }
        let length = text(&response, header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
        let end = self.remote.size.or(length.map(|length| partial.len.saturating_add(length)));
        let mut reader = response.body_mut().as_reader();
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = match reader.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Stop::Cut(format!("the connection was cut ({error})"))),
            };
            partial.write(&chunk[..read])?;
            observer.progress(partial.len);
            if end.is_some_and(|end| partial.len > end) {
                break;
            }
        }
        match end {
            Some(end) if partial.len < end => Err(Stop::Cut("the connection was cut".into())),
            _ => Ok(()),
        }
    }

    /// Compares what came with what the hub promised. What differs is removed: more of it would not
    /// make it right.
    fn check(&self, partial: &Partial) -> Result<()> {
        let found = partial.hash.clone().map(|hash| hexadecimal(&hash.finalize()));
        let wrong = match (self.remote.size, found) {
            (Some(size), _) if size != partial.len => {
                format!("came with {} bytes, expected {size}", partial.len)
            }
            (_, Some(found)) if found != self.remote.etag.to_lowercase() => {
                format!("came with the SHA-256 {found}, expected {}", self.remote.etag)
            }
            _ => return Ok(()),
        };
        fs::remove_file(&partial.path).map_err(Error::io(&partial.path, "remove"))?;
        Err(self
            .error(format!("{} {wrong}", self.file), "what came was removed; run it again to fetch it anew"))
    }

    fn error(&self, problem: String, hint: &str) -> Error {
        Error::Hub { model: self.id.to_string(), problem, hint: hint.into() }
    }
}

/// A blob that is not yet whole, `ETAG.incomplete`.
struct Partial {
    path: PathBuf,
    file: File,
    /// Bytes that are there.
    len: u64,
    /// Of these bytes, where the etag is a SHA-256.
    hash: Option<Sha256>,
}

impl Partial {
    /// Opens what an earlier try left, or a new one.
    fn open(blob: &Path, hashed: bool) -> Result<Partial> {
        let mut path = blob.as_os_str().to_owned();
        path.push(".incomplete");
        let path = PathBuf::from(path);
        let file = File::options().read(true).append(true).create(true).open(&path);
        let mut file = file.map_err(Error::io(&path, "open"))?;
        let mut hash = hashed.then(Sha256::new);
        let len = match &mut hash {
            Some(hash) => io::copy(&mut file, hash),
            None => file.metadata().map(|metadata| metadata.len()),
        };
        Ok(Partial { len: len.map_err(Error::io(&path, "read"))?, path, file, hash })
    }

    fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).map_err(Error::io(&self.path, "write"))?;
        self.len = 0;
        self.hash = self.hash.take().map(|_| Sha256::new());
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::io(&self.path, "write"))?;
        self.len += bytes.len() as u64;
        if let Some(hash) = &mut self.hash {
            hash.update(bytes);
        }
        Ok(())
    }

    /// Gives the whole blob its name.
    fn finish(self, blob: &Path) -> Result<()> {
        self.file.sync_all().map_err(Error::io(&self.path, "write"))?;
        // Windows renames no open file.
        drop(self.file);
        fs::rename(&self.path, blob).map_err(Error::io(blob, "write"))
    }
}

fn text(response: &Response<Body>, name: header::HeaderName) -> Option<&str> {
    response.headers().get(name)?.to_str().ok()
}

/// Where a response begins in the file: `content-range: bytes 100-199/200` → 100.
fn first_byte(response: &Response<Body>) -> u64 {
    let range = text(response, header::CONTENT_RANGE).filter(|_| response.status() == 206);
    let start = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
    start.unwrap_or(0)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
