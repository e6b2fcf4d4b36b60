//! `--prompt-cache FILE`: what of the prompt need not be read.

use std::path::PathBuf;

use anyhow::Result;
use attend::Checkpoint;
use attend::generation::prompt_cache::{Identity, PromptCache};
use attend::generation::{Prompt, Session};
use attend::kernels::matmul::ElementType;
use attend::model::Decoder;
use clap::Args;

use super::output::note;

#[derive(Args)]
pub struct PromptCacheArgs {
    /// Keep what the model made of the prompt in this file, and read only what of the prompt differs
    /// from what it holds; a longer prompt replaces a shorter one
    #[arg(long, value_name = "FILE")]
    prompt_cache: Option<PathBuf>,
}

impl PromptCacheArgs {
    pub fn is_given(&self) -> bool {
        self.prompt_cache.is_some()
    }

    /// Opens the file, if one is given, and checks that it can be written if it will be.
    pub fn open(
        &self,
        checkpoint: &Checkpoint,
        decoder: &Decoder,
        element: Option<ElementType>,
        prompt: &Prompt,
    ) -> Result<Option<PromptCache>> {
        let Some(path) = &self.prompt_cache else { return Ok(None) };
        let file = PromptCache::open(path, decoder, Identity::new(checkpoint, decoder, element)?)?;
        if file.is_outgrown_by(&prompt.ids) {
            file.check_writable()?;
        }
        Ok(Some(file))
    }
}

/// Restores what the file holds of the prompt, but not where its maps are to be recorded; answers the
/// tokens that need not be read.
pub fn restore(
    file: &PromptCache,
    session: &mut Session<'_>,
    prompt: &Prompt,
    recorded: bool,
) -> Result<usize> {
    if recorded {
        note("prompt cache: the whole prompt is read, as its attention is recorded");
        return Ok(0);
    }
    let restored = session.restore(file)?;
    note(&format!("prompt cache: {restored} of {} tokens restored", prompt.ids.len()));
    Ok(restored)
}
