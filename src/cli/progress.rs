//! How long work looks on a terminal's standard error: a bar of bytes, for downloads and for loading.

use std::cell::RefCell;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use anyhow::Result;
use attend::model::Decoder;
use attend::{Checkpoint, LoadOptions};
use indicatif::{ProgressBar, ProgressStyle};

/// A bar of bytes, `size` of them where that is known.
pub fn bar(size: Option<u64>) -> ProgressBar {
    let (bar, template) = match size {
        Some(size) => (
            ProgressBar::new(size),
            "{msg:26} {wide_bar} {decimal_bytes:>9} of {decimal_total_bytes:>9} {decimal_bytes_per_sec:>11} {eta:>4}",
        ),
        None => {
            (ProgressBar::new_spinner(), "{msg:26} {spinner} {decimal_bytes:>9} {decimal_bytes_per_sec:>11}")
        }
    };
    // The template is ours and right; the plain style stands in if it ever were not.
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// Loading that takes longer shows a bar.
const PATIENCE: Duration = Duration::from_secs(1);

/// Loads the weights, with a bar on a terminal if it takes its time.
pub fn load(checkpoint: &Checkpoint, options: &LoadOptions) -> Result<Decoder> {
    let terminal = io::stderr().is_terminal();
    let started = Instant::now();
    let shown = RefCell::new(None);
    let progress = |taken: usize, all: usize| {
        if !terminal || started.elapsed() < PATIENCE {
            return;
        }
        let mut shown = shown.borrow_mut();
        let bar = shown.get_or_insert_with(|| {
            bar(Some(all as u64)).with_message("loading").with_elapsed(started.elapsed())
        });
        bar.set_position(taken as u64);
    };
    let decoder = checkpoint.load_telling(options, &progress);
    if let Some(bar) = shown.into_inner() {
        bar.finish_and_clear();
    }
    Ok(decoder?)
}
