//! The folders that the Python client keeps a model in, so that either finds what the other fetched:
//!
//! ```text
//! models--owner--name/blobs/ETAG                        contents, each once
//! models--owner--name/refs/REVISION                     the commit that a branch or tag stands for
//! models--owner--name/snapshots/COMMIT/FILE             → ../../blobs/ETAG
//! .locks/models--owner--name/ETAG.lock                  held by who fetches that blob
//! ```

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::DownloadObserver;
use super::id::ModelId;
use crate::error::{Error, Result};

/// One model's part of the cache.
pub(super) struct Cache {
    model: PathBuf,
    locks: PathBuf,
}

impl Cache {
    pub(super) fn new(root: &Path, id: &ModelId) -> Cache {
        let name = format!("models--{}", id.repository().replace('/', "--"));
        Cache { model: root.join(&name), locks: root.join(".locks").join(name) }
    }

    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.model.join("blobs").join(etag)
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.model.join("snapshots").join(commit)
    }

    /// The folder that a revision stood for when it was last fetched, if it is there.
    pub(super) fn known_snapshot(&self, revision: &str) -> Option<PathBuf> {
        let commit = match fs::read_to_string(self.model.join("refs").join(revision)) {
            Ok(commit) if is_commit(commit.trim()) => commit.trim().to_owned(),
            _ if is_commit(revision) => revision.to_owned(),
            _ => return None,
        };
        Some(self.snapshot(&commit)).filter(|folder| folder.is_dir())
    }

    /// Notes what commit a revision stands for.
    pub(super) fn write_ref(&self, revision: &str, commit: &str) -> Result<()> {
        let path = self.model.join("refs").join(revision);
        if revision == commit || fs::read_to_string(&path).is_ok_and(|known| known == commit) {
            return Ok(());
        }
        create_parent(&path)?;
        replace(&path, |beside| fs::write(beside, commit))
    }

    /// Puts a blob, whose lock is held, into a snapshot under a file's name: a link, or a copy where
    /// links do not work.
    pub(super) fn link(&self, etag: &str, snapshot: &Path, file: &str) -> Result<()> {
        let place = snapshot.join(file);
        create_parent(&place)?;
        if place.exists() {
            // Another process was quicker.
            return Ok(());
        }
        if place.is_symlink() {
            // Its blob had gone.
            fs::remove_file(&place).map_err(Error::io(&place, "replace"))?;
        }
        if symlink(&Path::new("../../blobs").join(etag), &place).is_ok() {
            return Ok(());
        }
        replace(&place, |beside| fs::copy(self.blob(etag), beside).map(drop))
    }

    /// Waits until no other process fetches this blob, and keeps others waiting until dropped.
    pub(super) fn lock(&self, etag: &str, file: &str, observer: &mut dyn DownloadObserver) -> Result<File> {
        let path = self.locks.join(format!("{etag}.lock"));
        create_parent(&path)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(Error::io(&path, "open"))?;
        let taken = match lock.try_lock() {
            Err(TryLockError::WouldBlock) => {
                observer.note(&format!("waiting for another process that fetches {file}"));
                lock.lock()
            }
            Err(TryLockError::Error(error)) => Err(error),
            Ok(()) => Ok(()),
        };
        match taken {
            // A file system without locks: the checksum still finds damage that two writers do.
            Err(error) if error.kind() != io::ErrorKind::Unsupported => Err(Error::io(&path, "lock")(error)),
            _ => Ok(lock),
        }
    }
}

/// The model whose snapshot a folder is, `owner/name`.
pub(in crate::checkpoint) fn model_of_snapshot(folder: &Path) -> Option<String> {
    let snapshots = folder.parent()?;
    let model = snapshots.parent()?.file_name()?.to_str()?.strip_prefix("models--")?;
    (snapshots.file_name()? == "snapshots").then(|| model.replacen("--", "/", 1))
}

/// A git commit: 40 hexadecimal digits.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

pub(super) fn create_parent(path: &Path) -> Result<&Path> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(Error::io(folder, "create"))?;
    Ok(folder)
}

/// Writes beside a file, then renames: nobody sees a half.
fn replace(path: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.tmp", std::process::id()));
    write(beside.as_ref()).and_then(|()| fs::rename(&beside, path)).map_err(Error::io(path, "write"))
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_named_after_its_model() {
        let name = |path: &str| model_of_snapshot(Path::new(path));
        assert_eq!(name("/hub/models--owner--a-name/snapshots/0123").as_deref(), Some("owner/a-name"));
        assert_eq!(name("/hub/models--gpt2/snapshots/0123").as_deref(), Some("gpt2"));
        assert_eq!(name("/hub/models--gpt2/blobs/0123"), None);
        assert_eq!(name("/models/snapshots/llama"), None);
    }
}
