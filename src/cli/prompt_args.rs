//! The prompt, from wherever it comes: exactly as given, nothing trimmed.

use std::ffi::OsString;
use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use anyhow::{Context, Result};
use attend::Checkpoint;
use attend::capture::{TokenRecord, TokenRole};
use attend::generation::Prompt;
use clap::Args;

use super::usage;

#[derive(Args)]
pub struct PromptArgs {
    /// The text, the same as the argument without a name
    #[arg(short, long = "prompt", value_name = "TEXT", allow_hyphen_values = true, conflicts_with_all = ["file", "prompt_ids"])]
    pub prompt_option: Option<OsString>,
    /// Read the prompt from a file, or from standard input with -
    #[arg(short, long, value_name = "FILE", conflicts_with = "prompt_ids")]
    pub file: Option<PathBuf>,
    /// The prompt as exact tokens; the model then needs no tokenizer
    #[arg(long, value_name = "1,2,3", value_delimiter = ',', value_parser = token_number)]
    pub prompt_ids: Option<Vec<u32>>,
}

fn token_number(text: &str) -> Result<u32, String> {
    text.trim().parse().map_err(|_| "expected token numbers with commas between, such as 1,2,3".into())
}

/// A prompt, before it meets a model.
#[derive(Clone)]
pub enum PromptSource {
    Text(String),
    Ids(Vec<u32>),
}

impl PromptArgs {
    /// Reads the prompt; `positional` is the argument without a name.
    pub fn read(&self, positional: Option<OsString>) -> Result<PromptSource> {
        let given = [
            positional.is_some(),
            self.prompt_option.is_some(),
            self.file.is_some(),
            self.prompt_ids.is_some(),
        ];
        if given.iter().filter(|given| **given).count() > 1 {
            return Err(usage("more than one prompt: give one of PROMPT, --prompt, --file and --prompt-ids"));
        }
        if let Some(ids) = &self.prompt_ids {
            return Ok(PromptSource::Ids(ids.clone()));
        }
        let text = if let Some(text) = positional.or_else(|| self.prompt_option.clone()) {
            text.into_string()
                .map_err(|_| usage("the prompt is not UTF-8; give its tokens with --prompt-ids"))?
        } else if let Some(file) = self.file.as_ref().filter(|file| file.as_os_str() != "-") {
            let bytes =
                std::fs::read(file).with_context(|| format!("{}: cannot read the prompt", file.display()))?;
            utf8(bytes, &file.display().to_string())?
        } else {
            if self.file.is_none() && std::io::stdin().is_terminal() {
                return Err(usage(
                    "no prompt: give one as an argument, with --file, or on standard input \
                     (`attend generate \"Once upon a time\"`)",
                ));
            }
            let mut bytes = Vec::new();
            std::io::stdin().read_to_end(&mut bytes).context("standard input: cannot read the prompt")?;
            utf8(bytes, "standard input")?
        };
        if text.is_empty() {
            return Err(usage("the prompt is empty; give at least one character"));
        }
        Ok(PromptSource::Text(text))
    }
}

fn utf8(bytes: Vec<u8>, from: &str) -> Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        usage(format!(
            "{from}: the prompt is not UTF-8 (at byte {at}); save it as UTF-8, or give its tokens with --prompt-ids"
        ))
    })
}

impl PromptSource {
    /// Tokens, through the model's tokenizer where there is text.
    pub fn tokens(self, checkpoint: &Checkpoint) -> Result<Prompt> {
        let prompt = match self {
            PromptSource::Text(text) => Prompt::from_text(checkpoint.tokenizer()?, &text)?,
            PromptSource::Ids(ids) => Prompt::from_ids(checkpoint.tokenizer().ok(), ids),
        };
        let vocabulary = checkpoint.config().vocabulary;
        if prompt.ids.is_empty() {
            return Err(usage("the prompt has no tokens; give at least one"));
        }
        if let Some(id) = prompt.ids.iter().find(|id| **id as usize >= vocabulary) {
            return Err(usage(format!(
                "--prompt-ids: {id} is no token of this model; it has {vocabulary}, numbered 0 to {}",
                vocabulary - 1
            )));
        }
        Ok(prompt)
    }
}

/// A prompt's lines of a dump.
pub fn records(prompt: &Prompt, checkpoint: &Checkpoint) -> Vec<TokenRecord> {
    let mut previous = None;
    prompt
        .ids
        .iter()
        .zip(&prompt.texts)
        .enumerate()
        .map(|(index, (id, text))| TokenRecord {
            index,
            id: *id,
            text: text.clone(),
            bytes: token_bytes(checkpoint, *id, &mut previous),
            role: TokenRole::Prompt,
            logprob: None,
        })
        .collect()
}

/// The bytes that a token stands for behind `previous`, which it replaces if it is an ordinary one.
pub fn token_bytes(checkpoint: &Checkpoint, id: u32, previous: &mut Option<u32>) -> Vec<u8> {
    let Ok(tokenizer) = checkpoint.tokenizer() else { return vec![] };
    let bytes = tokenizer.bytes(id, *previous);
    if !tokenizer.is_added(id) {
        *previous = Some(id);
    }
    bytes
}
