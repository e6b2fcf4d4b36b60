//! `attend perplexity`: how well a model predicts a text, as a whole and token by token.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use attend::Error;
use attend::generation::Prompt;
use attend::measure::perplexity::check_length;
use attend::measure::{Perplexity, SlidingWindow};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::ablate_args::AblateArgs;
use super::model_args::ModelArgs;
use super::output::{LINE_EVERY, counted, interrupt_flag, note, print};
use super::perplexity_csv::TokenCsv;
use super::progress::load;
use super::prompt_args::PromptArgs;
use super::{Outcome, usage};

/// Below the options in `--help` and the manual page.
const CONVENTION: &str = "\
Windows slide over the text as in Transformers' guide \"Perplexity of fixed-length models\": each scores the \
tokens that none before it scored, behind the tokens that it holds before them. A window's first token is not \
predicted; with a stride below the window, that is the text's first token alone. The tokens are those of the \
model's tokenizer: a begin token that it adds stands once, at the text's start.

Perplexity is exp of the mean of -ln p over exactly the tokens scored. The guide's loop subtracts one token from \
every window's count, which is right for the first window and for windows side by side; where windows overlap, \
its result differs slightly. Its windows are -c with the model's whole context and --stride 512. \
llama.cpp's llama-perplexity scores the second half of windows of 512 that stand side by side: -c 512 comes \
closest to that. Bits per byte are of the UTF-8 text that the scored tokens stand for.";

#[derive(Args)]
#[command(after_long_help = CONVENTION)]
pub struct PerplexityArgs {
    /// The text [default: standard input]
    #[arg(value_name = "TEXT")]
    positional: Option<OsString>,
    #[command(flatten)]
    prompt: PromptArgs,
    #[command(flatten)]
    model: ModelArgs,
    /// Tokens of a window [default: the model's context, at most 2048]
    #[arg(short, long, value_name = "N")]
    context: Option<usize>,
    /// Tokens from one window's start to the next one's [default: half the window]
    #[arg(long, value_name = "N")]
    stride: Option<usize>,
    /// Write a line a token, index,id,text,logprob, to a file, or to standard output with -;
    /// logprob is natural, and empty for a token that is not predicted
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    #[command(flatten)]
    ablate: AblateArgs,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

pub fn run(args: PerplexityArgs) -> Result<Outcome> {
    let csv_on_stdout = args.csv.as_ref().is_some_and(|csv| csv.as_os_str() == "-");
    if csv_on_stdout && args.json {
        return Err(usage("--csv - and --json both write to standard output: name a file with --csv"));
    }
    let source = args.prompt.read(args.positional)?;
    let checkpoint = args.model.open()?;
    let config = checkpoint.config();
    config.check_generates()?;
    let sliding = SlidingWindow::new(args.context, args.stride, config.context)?;
    let ablated = args.ablate.resolve(config)?;
    let prompt = source.tokens(&checkpoint)?;
    check_length(prompt.ids.len())?;
    let decoder = load(&checkpoint, &args.model.compute.resolve()?)?;

    let mut perplexity = Perplexity::new(&decoder, &prompt.ids, sliding, interrupt_flag())?;
    if let Some(ablated) = ablated {
        perplexity.silence(ablated)?;
    }
    let mut csv = args.csv.as_deref().map(|path| TokenCsv::create(path, &prompt)).transpose()?;
    let mut progress = Progress::new(prompt.ids.len(), !csv_on_stdout || !io::stdout().is_terminal());
    let started = Instant::now();
    let mut bytes = 0;
    let interrupted = loop {
        let scored = match perplexity.step() {
            Ok(Some(scored)) => scored,
            Ok(None) => break false,
            Err(Error::Interrupted) => break true,
            Err(error) => return Err(error.into()),
        };
        for token in &scored {
            bytes += prompt.texts[token.index].len();
            if let Some(csv) = &mut csv {
                csv.write(token)?;
            }
        }
        if let Some(last) = scored.last() {
            progress.show(last.index + 1, &perplexity);
        }
    };
    progress.finish();
    let seconds = started.elapsed().as_secs_f64();
    match csv {
        Some(csv) if interrupted => csv.keep_part()?,
        Some(csv) => csv.finish()?,
        None => {}
    }
    if perplexity.scored() == 0 {
        note("interrupted before the first token was scored");
        return Ok(Outcome::Interrupted);
    }
    let result = Summary::new(&perplexity, &prompt, sliding, bytes, seconds, interrupted);
    if args.json {
        print(&format!("{}\n", serde_json::to_string(&result)?))?;
    } else if csv_on_stdout {
        note(&result.text());
    } else {
        print(&format!("{}\n", result.text()))?;
    }
    Ok(if interrupted { Outcome::Interrupted } else { Outcome::Done })
}

/// What `--json` prints.
#[derive(Serialize)]
struct Summary {
    /// Whether Ctrl-C ended it: the numbers are then of the text's beginning alone.
    partial: bool,
    perplexity: f64,
    /// Of the perplexity; tokens are taken as independent. `null` for one token.
    standard_error: f64,
    tokens: usize,
    tokens_scored: usize,
    /// A token, in nats.
    mean_negative_log_likelihood: f64,
    /// Of the UTF-8 text that the scored tokens stand for; `null` where the tokens have none.
    bits_per_byte: Option<f64>,
    windows: usize,
    window: usize,
    stride: usize,
    /// Without loading.
    seconds: f64,
}

impl Summary {
    fn new(
        perplexity: &Perplexity<'_>,
        prompt: &Prompt,
        sliding: SlidingWindow,
        bytes: usize,
        seconds: f64,
        partial: bool,
    ) -> Summary {
        Summary {
            partial,
            perplexity: perplexity.value(),
            standard_error: perplexity.standard_error(),
            tokens: prompt.ids.len(),
            tokens_scored: perplexity.scored(),
            mean_negative_log_likelihood: perplexity.mean_negative_log_likelihood(),
            bits_per_byte: (bytes > 0).then(|| perplexity.bits() / bytes as f64),
            windows: perplexity.windows(),
            window: sliding.window(),
            stride: sliding.stride(),
            seconds,
        }
    }

    fn text(&self) -> String {
        let partial = if self.partial { " of the beginning alone (interrupted)" } else { "" };
        let error = if self.standard_error.is_finite() {
            format!(" ± {:.4}", self.standard_error)
        } else {
            String::new()
        };
        let bits = self.bits_per_byte.map_or_else(|| "-".into(), |bits| format!("{bits:.4}"));
        format!(
            "perplexity{partial}: {:.4}{error}\n\
             tokens scored: {} of {}, in {} of {}, stride {}\n\
             bits per byte: {bits}\n\
             time: {:.2} s, {:.1} scored tokens/s",
            self.perplexity,
            self.tokens_scored,
            self.tokens,
            counted(self.windows, "window"),
            self.window,
            self.stride,
            self.seconds,
            self.tokens_scored as f64 / self.seconds,
        )
    }
}

/// A bar on a terminal, else a line now and then.
struct Progress {
    bar: Option<ProgressBar>,
    tokens: usize,
    last_line: Instant,
}

impl Progress {
    /// `free`: whether nothing else is written to the terminal meanwhile.
    fn new(tokens: usize, free: bool) -> Progress {
        let bar = (free && io::stderr().is_terminal()).then(|| {
            let template = "{wide_bar} {pos} of {len} tokens  {msg}  {eta:>4}";
            // The template is ours and right; the plain style stands in if it ever were not.
            let style =
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(tokens as u64).with_style(style)
        });
        Progress { bar, tokens, last_line: Instant::now() }
    }

    fn show(&mut self, done: usize, perplexity: &Perplexity<'_>) {
        match &self.bar {
            Some(bar) => {
                bar.set_message(format!("perplexity {:.4}", perplexity.value()));
                bar.set_position(done as u64);
            }
            None if self.last_line.elapsed() >= LINE_EVERY => {
                self.last_line = Instant::now();
                let value = perplexity.value();
                note(&format!("{done} of {} tokens, perplexity so far {value:.4}", self.tokens));
            }
            None => {}
        }
    }

    /// What is printed next says how it ended.
    fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
