//! The CSV file of `attend perplexity`: a line a token, in the text's order (RFC 4180, with plain
//! line ends).

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use attend::generation::Prompt;
use attend::measure::ScoredToken;

use super::output::{csv_quoted, note};
use super::usage;

/// A file being written: `FILE.part`, which becomes `FILE` when it is whole, and is removed if it
/// never is.
pub struct TokenCsv<'p> {
    out: BufWriter<Box<dyn Write>>,
    prompt: &'p Prompt,
    /// Tokens written so far.
    written: usize,
    target: Target,
}

enum Target {
    /// Written in place: standard output, a pipe, a device.
    Stream(String),
    File {
        path: PathBuf,
        part: PathBuf,
        /// Whether the part has its name, or is meant to stay.
        settled: bool,
    },
}

impl<'p> TokenCsv<'p> {
    /// Begins the file; `-` is standard output.
    pub fn create(path: &Path, prompt: &'p Prompt) -> Result<TokenCsv<'p>> {
        let cannot = || format!("{}: cannot write the CSV file there", path.display());
        let kind = fs::metadata(path).ok();
        let (out, target): (Box<dyn Write>, _) = if path.as_os_str() == "-" {
            (Box::new(io::stdout()), Target::Stream("standard output".into()))
        } else if kind.as_ref().is_some_and(fs::Metadata::is_dir) {
            return Err(usage(format!("--csv {}: this is a folder; name a file", path.display())));
        } else if kind.is_some_and(|kind| !kind.is_file()) {
            let file = File::options().write(true).open(path).with_context(cannot)?;
            (Box::new(file), Target::Stream(path.display().to_string()))
        } else {
            let mut part = path.as_os_str().to_owned();
            part.push(".part");
            let part = PathBuf::from(part);
            let file = File::create(&part).with_context(cannot)?;
            (Box::new(file), Target::File { path: path.to_path_buf(), part, settled: false })
        };
        let mut csv = TokenCsv { out: BufWriter::new(out), prompt, written: 0, target };
        csv.line("index,id,text,logprob")?;
        Ok(csv)
    }

    /// A scored token's line, behind lines of those before it that no window scores.
    pub fn write(&mut self, token: &ScoredToken) -> Result<()> {
        self.unscored_before(token.index)?;
        // Display writes the shortest digits that read back as the same number.
        self.token(&token.log_probability.to_string())
    }

    /// The lines that are left, and the file's name.
    pub fn finish(mut self) -> Result<()> {
        self.unscored_before(self.prompt.ids.len())?;
        self.flush()?;
        if let Target::File { path, part, settled } = &mut self.target {
            fs::rename(part, &path)
                .with_context(|| format!("{}: cannot give the CSV file its name", path.display()))?;
            *settled = true;
        }
        Ok(())
    }

    /// Leaves the tokens so far in `FILE.part`.
    pub fn keep_part(mut self) -> Result<()> {
        self.flush()?;
        if let Target::File { part, settled, .. } = &mut self.target {
            note(&format!("{}: holds the {} tokens so far", part.display(), self.written));
            *settled = true;
        }
        Ok(())
    }

    fn unscored_before(&mut self, index: usize) -> Result<()> {
        while self.written < index {
            self.token("")?;
        }
        Ok(())
    }

    fn token(&mut self, log_probability: &str) -> Result<()> {
        let (index, prompt) = (self.written, self.prompt);
        let text = csv_quoted(&prompt.texts[index]);
        self.line(&format!("{index},{},{text},{log_probability}", prompt.ids[index]))?;
        self.written += 1;
        Ok(())
    }

    fn line(&mut self, line: &str) -> Result<()> {
        let result = writeln!(self.out, "{line}");
        self.checked(result)
    }

    fn flush(&mut self) -> Result<()> {
        let result = self.out.flush();
        self.checked(result)
    }

    fn checked(&self, result: io::Result<()>) -> Result<()> {
        result.with_context(|| {
            let place = match &self.target {
                Target::Stream(name) => name.clone(),
                Target::File { part, .. } => part.display().to_string(),
            };
            format!("{place}: cannot write")
        })
    }
}

impl Drop for TokenCsv<'_> {
    fn drop(&mut self) {
        if let Target::File { part, settled: false, .. } = &self.target {
            // What ended it is reported; a part left over would only take room.
            let _ = fs::remove_file(part);
        }
    }
}
