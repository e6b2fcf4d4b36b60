//! How a download from the hub looks on standard error: a bar a file on a terminal, else a few lines.

use std::io::{self, IsTerminal};
use std::time::Instant;

use attend::checkpoint::hub::DownloadObserver;
use indicatif::ProgressBar;

use super::output::{LINE_EVERY, megabytes, note};
use super::progress::bar;

/// Shows one file at a time.
pub struct DownloadProgress {
    /// Whether there is a terminal to draw on.
    terminal: bool,
    /// Of the file under way.
    bar: Option<ProgressBar>,
    file: String,
    size: Option<u64>,
    last_line: Instant,
}

impl DownloadProgress {
    pub fn new() -> DownloadProgress {
        DownloadProgress {
            terminal: io::stderr().is_terminal(),
            bar: None,
            file: String::new(),
            size: None,
            last_line: Instant::now(),
        }
    }

    /// `10.0 MB of 20.0 MB`.
    fn share(&self, there: u64) -> String {
        match self.size {
            Some(size) => format!("{} of {}", megabytes(there), megabytes(size)),
            None => megabytes(there),
        }
    }
}

impl DownloadObserver for DownloadProgress {
    fn begin(&mut self, file: &str, there: u64, size: Option<u64>) {
        (self.file, self.size, self.last_line) = (file.into(), size, Instant::now());
        if self.terminal {
            let bar = bar(size);
            bar.set_message(file.to_owned());
            bar.set_position(there);
            // What is there from an earlier try says nothing of the speed.
            bar.reset_eta();
            self.bar = Some(bar);
        } else if there > 0 {
            note(&format!("fetching {file}: continuing after {}", self.share(there)));
        } else {
            note(&format!(
                "fetching {file}{}",
                size.map_or_else(String::new, |s| format!(" ({})", megabytes(s)))
            ));
        }
    }

    fn progress(&mut self, there: u64) {
        match &self.bar {
            Some(bar) => bar.set_position(there),
            None if self.last_line.elapsed() >= LINE_EVERY => {
                self.last_line = Instant::now();
                note(&format!("fetching {}: {}", self.file, self.share(there)));
            }
            None => {}
        }
    }

    fn finished(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish();
        }
    }

    fn note(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| note(text)),
            None => note(text),
        }
    }
}
