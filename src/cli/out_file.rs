//! A file that is written beside its place and gets its name once it is whole.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::Result;
use tempfile::NamedTempFile;

use super::output::{megabytes, note};
use super::usage;

pub struct OutFile {
    path: PathBuf,
    part: NamedTempFile,
    /// Standard output, or something that is no regular file: gets a copy.
    is_stream: bool,
}

impl OutFile {
    /// Makes room for a file that an option names; `-` is standard output.
    pub fn begin(option: &str, path: &Path) -> Result<OutFile> {
        if path.is_dir() {
            return Err(usage(format!("{option} {}: this is a folder; name a file", path.display())));
        }
        let is_stream = path.as_os_str() == "-" || std::fs::metadata(path).is_ok_and(|kind| !kind.is_file());
        let mut prefix = OsString::from(".");
        prefix.push(path.file_name().unwrap_or_default());
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(".part");
        // As any new file, not for its owner alone.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let folder = match path.parent() {
            Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
            Some(folder) => folder,
            None => Path::new("."),
        };
        let part = if is_stream { builder.tempfile() } else { builder.tempfile_in(folder) };
        let cannot = |cause: io::Error| attend::Error::Io { path: path.into(), action: "create", cause };
        Ok(OutFile { path: path.into(), part: part.map_err(|error| cannot(plain(error)))?, is_stream })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn file(&self) -> &File {
        self.part.as_file()
    }

    /// Gives it its name.
    pub fn finish(self) -> Result<()> {
        let OutFile { path, part, is_stream } = self;
        let cannot = |cause| attend::Error::Io { path: path.clone(), action: "write", cause };
        if is_stream {
            let mut file = part.as_file();
            file.seek(SeekFrom::Start(0)).map_err(cannot)?;
            if path.as_os_str() == "-" {
                io::copy(&mut file, &mut io::stdout().lock())?;
            } else {
                let to = File::options().write(true).open(&path);
                to.and_then(|mut to| io::copy(&mut file, &mut to)).map_err(cannot)?;
            }
            return Ok(());
        }
        let size = part.as_file().metadata().map_or(0, |file| file.len());
        part.persist(&path).map_err(|error| cannot(error.error))?;
        note(&format!("{}: {}", path.display(), megabytes(size)));
        Ok(())
    }
}

/// The system's error, without the name of the part that nobody asked for.
fn plain(error: io::Error) -> io::Error {
    let source = error.get_ref().and_then(|error| error.source()).and_then(|e| e.downcast_ref::<io::Error>());
    source.and_then(io::Error::raw_os_error).map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}
