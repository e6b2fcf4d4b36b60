//! `attend generate`: continues a text, and records what each head attended to if asked.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::time::Instant;

use anyhow::{Context, Result};
use attend::Checkpoint;
use attend::capture::memory::Both;
use attend::capture::{Recorder, TokenRecord, TokenRole};
use attend::generation::session::context_for;
use attend::generation::{
    Acceptance, Finish, GenerationOptions, PromptCache, Sampling, Session, Token, sampler,
};
use attend::measure::memory;
use attend::model::{AttentionObserver, Mask};
use clap::Args;

use super::ablate_args::AblateArgs;
use super::capture_args::{CaptureArgs, QueriesArg, RunInfo};
use super::model_args::ModelArgs;
use super::output::{counted, interrupt_flag, megabytes, note, print};
use super::progress::load;
use super::prompt_args::{PromptArgs, records, token_bytes};
use super::prompt_cache_args::{PromptCacheArgs, restore};
use super::speculate_args::{self, SpeculateArgs};
use super::watch::{Watch, WatchArgs};
use super::{Outcome, usage};

#[derive(Args)]
pub struct GenerateArgs {
    /// The text to continue, exactly as given [default: standard input]
    #[arg(value_name = "PROMPT")]
    positional: Option<OsString>,
    #[command(flatten)]
    prompt: PromptArgs,
    #[command(flatten)]
    model: ModelArgs,
    /// New tokens, at most; -1 means until the text or the context ends [default: the model's own, else 256]
    #[arg(short = 'n', long, visible_alias = "max-tokens", value_name = "N",
          allow_negative_numbers = true, value_parser = new_tokens)]
    predict: Option<i64>,
    /// Positions of prompt and new tokens together [default: what is needed, up to the model's]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    context: Option<u32>,
    #[command(flatten)]
    prompt_cache: PromptCacheArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    speculation: SpeculateArgs,
    /// End at this text, without printing it (may be given several times)
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// Print the prompt first
    #[arg(long, conflicts_with = "json")]
    echo: bool,
    /// One JSON line a token: {"id":…,"text":…,"logprob":…}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    watch: WatchArgs,
    #[command(flatten)]
    ablate: AblateArgs,
    #[command(flatten)]
    capture: CaptureArgs,
    #[command(flatten)]
    queries: QueriesArg,
}

const DEFAULT_NEW_TOKENS: usize = 256;

#[derive(Args)]
struct SamplingArgs {
    /// Temperature; 0 takes the likeliest token each time [default: the model's own, else 0]
    #[arg(long, visible_alias = "temp", value_name = "T", allow_negative_numbers = true, value_parser = at_least_0)]
    temperature: Option<f64>,
    /// Sample among the K likeliest tokens; 0 means all
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Sample among the likeliest tokens that together have probability P
    #[arg(long, value_name = "P", allow_negative_numbers = true, value_parser = share)]
    top_p: Option<f64>,
    /// Leave out tokens below this share of the likeliest one's probability
    #[arg(long, value_name = "P", allow_negative_numbers = true, value_parser = share)]
    min_p: Option<f64>,
    /// Divide the scores of tokens seen before by this; 1 is off
    #[arg(long, value_name = "X", allow_negative_numbers = true, value_parser = above_0)]
    repeat_penalty: Option<f64>,
    /// How many tokens back the penalty looks; -1 means all
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1..))]
    repeat_last_n: Option<i64>,
    /// Seed of the sampling [default: a new one each time, printed]
    #[arg(short, long)]
    seed: Option<u64>,
}

fn new_tokens(text: &str) -> Result<i64, String> {
    match text.parse() {
        Ok(n) if n == -1 || n > 0 => Ok(n),
        _ => Err("expected a number of at least 1, or -1".into()),
    }
}

fn number(text: &str, fits: impl Fn(f64) -> bool, expected: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && fits(value) => Ok(value),
        _ => Err(format!("expected {expected}")),
    }
}

fn at_least_0(text: &str) -> Result<f64, String> {
    number(text, |value| value >= 0.0, "a number of at least 0")
}

fn above_0(text: &str) -> Result<f64, String> {
    number(text, |value| value > 0.0, "a number above 0")
}

fn share(text: &str) -> Result<f64, String> {
    number(text, |value| (0.0..=1.0).contains(&value), "a number from 0 to 1")
}

impl SamplingArgs {
    /// The model's defaults, changed by what was given. Asking for any kind of sampling turns it on.
    fn resolve(&self, checkpoint: &Checkpoint) -> Sampling {
        let config = checkpoint.generation();
        let mut sampling = Sampling::from_model(config, self.seed.unwrap_or_else(sampler::random_seed));
        let asked = self.top_k.is_some() || self.top_p.is_some() || self.min_p.is_some();
        if asked && sampling.temperature == 0.0 {
            sampling.temperature = if config.temperature > 0.0 { config.temperature } else { 1.0 };
        }
        if let Some(temperature) = self.temperature {
            sampling.temperature = temperature;
        }
        sampling.top_k = self.top_k.unwrap_or(sampling.top_k);
        sampling.top_p = self.top_p.unwrap_or(sampling.top_p);
        sampling.min_p = self.min_p.unwrap_or(sampling.min_p);
        sampling.repeat_penalty = self.repeat_penalty.unwrap_or(sampling.repeat_penalty);
        sampling.repeat_last_n = self.repeat_last_n.and_then(|n| usize::try_from(n).ok());
        sampling
    }
}

pub fn run(args: GenerateArgs) -> Result<Outcome> {
    let started = Instant::now();
    let source = args.prompt.read(args.positional.clone())?;
    let checkpoint = args.model.open()?;
    let config = checkpoint.config();
    config.check_generates()?;
    let prompt = source.tokens(&checkpoint)?;
    let new_tokens = match args.predict {
        Some(number) => usize::try_from(number).unwrap_or(usize::MAX),
        None => checkpoint.generation().max_new_tokens.unwrap_or(DEFAULT_NEW_TOKENS),
    };
    let context = args.context.map(|context| context as usize);
    let positions = context_for(prompt.ids.len(), new_tokens, context, config.context)?;
    let sampling = args.sampling.resolve(&checkpoint);
    if !args.stop.is_empty() {
        checkpoint.tokenizer().context("--stop is a text")?;
    }
    let ablated = args.ablate.resolve(config)?;
    if ablated.is_some() && args.prompt_cache.is_given() {
        return Err(usage(
            "--ablate and --prompt-cache do not go together: the file holds what the whole model made of the prompt",
        ));
    }
    warn_of_ignored(&checkpoint);
    if args.speculation.most() > 0 && config.positions_depend_on_length() {
        note("warning: --speculate is off: this model's positions depend on the text's length");
    }
    let watch = args.watch.resolve(config)?;
    let options = args.model.compute.resolve()?;
    let asked = options.element;
    let element = checkpoint.element(asked)?;
    let queries = args.queries.queries.as_deref();
    let plan = args.capture.plan(queries, &checkpoint, args.model.model.as_deref())?;
    let room = new_tokens.min(positions - prompt.ids.len());
    plan.iter().try_for_each(|plan| plan.announce(&checkpoint, prompt.ids.len(), room))?;
    let decoder = load(&checkpoint, &options)?;
    let loaded = started.elapsed().as_secs_f64();

    let interrupt = interrupt_flag();
    let options = GenerationOptions {
        max_new_tokens: new_tokens,
        context,
        sampling: sampling.clone(),
        speculate: args.speculation.most(),
        end_tokens: checkpoint.generation().end_tokens.clone(),
        stop: args.stop.clone(),
        interrupt: interrupt.clone(),
    };
    let tokenizer = checkpoint.tokenizer().ok();
    let mut session = Session::new(&decoder, tokenizer, &prompt.ids, options)?;
    if let Some(ablated) = &ablated {
        session.silence(ablated.clone())?;
    }
    let prompt_cache = args.prompt_cache.open(&checkpoint, &decoder, asked, &prompt)?;
    let restored = match &prompt_cache {
        Some(file) => restore(file, &mut session, &prompt, plan.is_some())?,
        None => 0,
    };
    let run = RunInfo { element, mask: Mask::Causal, sampling: Some(&sampling), ablated: ablated.as_ref() };
    let recorder = plan.map(|plan| plan.start(&checkpoint, &decoder, &prompt, &run)).transpose()?;
    let mut writer = Writer {
        json: args.json,
        checkpoint: &checkpoint,
        recorder,
        watch,
        position: prompt.ids.len(),
        previous: checkpoint.tokenizer().ok().and_then(|tokenizer| tokenizer.last_ordinary(&prompt.ids)),
        ends_line: true,
    };
    if let Some(watch) = &mut writer.watch {
        watch.start(&records(&prompt, &checkpoint), interrupt);
    }
    if args.echo {
        writer.show(&prompt.text())?;
    }
    let timing = Timing::new(started, loaded, prompt.ids.len() - restored);
    generate(session, writer, prompt_cache, timing, &sampling)
}

/// Where tokens go: standard output, and the dump.
struct Writer<'c> {
    json: bool,
    checkpoint: &'c Checkpoint,
    recorder: Option<Recorder>,
    watch: Option<Watch>,
    /// Of the next token, and the ordinary token before it: for the recorder and the watch.
    position: usize,
    previous: Option<u32>,
    /// Whether the text printed so far ends in a new line.
    ends_line: bool,
}

struct Timing {
    started: Instant,
    loaded: f64,
    /// Tokens of the prompt that were read.
    prompt: usize,
    generated: usize,
    /// Seconds of the prompt pass, and of all later steps.
    prompt_seconds: f64,
    generation_seconds: f64,
    first_token: f64,
}

fn generate(
    mut session: Session<'_>,
    mut writer: Writer<'_>,
    mut prompt_cache: Option<PromptCache>,
    mut timing: Timing,
    sampling: &Sampling,
) -> Result<Outcome> {
    let mut saved = None;
    loop {
        let step = Instant::now();
        let recorder = writer.recorder.as_mut().map(|recorder| recorder as &mut dyn AttentionObserver);
        let row = writer.watch.as_mut().map(|watch| &mut watch.row as &mut dyn AttentionObserver);
        let mut both;
        let observer = match (recorder, row) {
            (Some(recorder), Some(row)) => {
                both = Both(recorder, row);
                Some(&mut both as &mut dyn AttentionObserver)
            }
            (recorder, row) => recorder.or(row),
        };
        let token = match session.step(observer) {
            Ok(Some(token)) => token,
            Ok(None) => break,
            Err(error) => {
                writer.show(&session.unfinished_text())?;
                writer.end_line()?;
                return Err(writer.give_up(error.into()));
            }
        };
        timing.count(step.elapsed().as_secs_f64());
        writer.write(&token).map_err(|error| writer.give_up(error))?;
        if let Some(file) = prompt_cache.take() {
            saved = session.save(file).or_else(|error| writer.end_line().and(Err(error.into())))?;
        }
    }
    writer.end_line()?;
    let recorded = writer.recorder.as_mut().map_or(Ok(()), Recorder::flush);
    recorded.map_err(|error| writer.give_up(error.into()))?;
    if session.finish() == Some(Finish::ContextFull) {
        note(&format!(
            "stopped: the context of {} tokens is full{}",
            session.context(),
            if session.context() < writer.checkpoint.config().context {
                "; raise it with -c"
            } else {
                ", which is all that the model has"
            }
        ));
    }
    if let Some(size) = saved {
        note(&format!("prompt cache: the prompt is saved, {}", megabytes(size)));
    }
    timing.print(sampling, session.acceptance(), writer.recorder.as_ref());
    Ok(match session.finish() {
        Some(Finish::Interrupted) => Outcome::Interrupted,
        _ => Outcome::Done,
    })
}

impl Writer<'_> {
    /// Ends the dump where an error ends the generation, and says what is left of it.
    fn give_up(&mut self, error: anyhow::Error) -> anyhow::Error {
        if self.watch.is_some() {
            // What ended the generation is reported; what was drawn should not stay above it.
            let _ = self.end_line();
        }
        if let Some(recorder) = &mut self.recorder {
            // The error at hand is the first, and is the one to report.
            let _ = recorder.flush();
            note(&format!("attention: {} kept", counted(recorder.steps(), "whole step")));
        }
        error
    }

    /// Without a tokenizer there is no text: the tokens' numbers are shown, as --prompt-ids takes them.
    fn write(&mut self, token: &Token) -> Result<()> {
        let bytes = token_bytes(self.checkpoint, token.id, &mut self.previous);
        if let Some(watch) = &mut self.watch {
            watch.show(&bytes, token.id)?;
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.token(&TokenRecord {
                index: self.position,
                id: token.id,
                text: token.text.clone(),
                bytes,
                role: TokenRole::Generated,
                logprob: Some(token.log_probability),
            })?;
            self.position += 1;
        }
        if self.json {
            #[derive(serde::Serialize)]
            struct Line<'a> {
                id: u32,
                text: &'a str,
                logprob: f64,
            }
            let line = Line { id: token.id, text: &token.text, logprob: token.log_probability };
            print(&format!("{}\n", serde_json::to_string(&line)?))?;
        } else if self.checkpoint.tokenizer().is_ok() {
            self.show(&token.text)?;
        } else {
            let comma = if token.finish.is_none() { "," } else { "" };
            self.show(&format!("{}{comma}", token.id))?;
        }
        Ok(())
    }

    fn show(&mut self, text: &str) -> Result<()> {
        if let Some(watch) = &mut self.watch {
            watch.keep(text);
        } else if !self.json && !text.is_empty() {
            print(text)?;
            self.ends_line = text.ends_with('\n');
        }
        Ok(())
    }

    /// What comes next on the screen should not follow the text on its line.
    fn end_line(&mut self) -> Result<()> {
        if let Some(watch) = self.watch.take() {
            self.ends_line = watch.finish()?;
        }
        if !self.ends_line {
            if std::io::stdout().is_terminal() { print("\n")? } else { note("") }
        }
        self.ends_line = true;
        Ok(())
    }
}

impl Timing {
    fn new(started: Instant, loaded: f64, prompt: usize) -> Timing {
        let (prompt_seconds, generation_seconds, first_token) = (0.0, 0.0, 0.0);
        Timing { started, loaded, prompt, generated: 0, prompt_seconds, generation_seconds, first_token }
    }

    fn count(&mut self, seconds: f64) {
        if self.generated == 0 {
            self.prompt_seconds = seconds;
            self.first_token = self.started.elapsed().as_secs_f64();
        } else {
            self.generation_seconds += seconds;
        }
        self.generated += 1;
    }

    fn print(&self, sampling: &Sampling, speculation: Option<Acceptance>, recorder: Option<&Recorder>) {
        if self.generated == 0 {
            return note("interrupted before the first token");
        }
        let rate = |tokens: usize, seconds: f64| match tokens {
            // The first token comes out of the prompt pass: one alone has no speed of its own.
            0 => "- tokens/s".into(),
            _ => format!("{:.1} tokens/s", tokens as f64 / seconds),
        };
        note(&format!(
            "prompt: {}, {} | generation: {}, {}",
            counted(self.prompt, "token"),
            rate(self.prompt, self.prompt_seconds),
            counted(self.generated, "token"),
            rate(self.generated - 1, self.generation_seconds),
        ));
        let peak = memory::peak().map_or_else(|| "unknown".into(), megabytes);
        note(&format!(
            "first token: {:.3} s after the start, {:.3} s after loading | peak memory: {peak}",
            self.first_token,
            self.first_token - self.loaded,
        ));
        note(&describe(sampling));
        if let Some(acceptance) = speculation {
            note(&speculate_args::describe(acceptance));
        }
        if let Some(recorder) = recorder {
            note(&format!("attention: {} recorded", counted(recorder.steps(), "step")));
        }
    }
}

fn describe(sampling: &Sampling) -> String {
    let mut text = if sampling.temperature == 0.0 {
        String::from("sampling: greedy")
    } else {
        format!("sampling: temperature {}", sampling.temperature)
    };
    if sampling.temperature > 0.0 {
        if sampling.top_k > 0 {
            text.push_str(&format!(", top-k {}", sampling.top_k));
        }
        if sampling.top_p < 1.0 {
            text.push_str(&format!(", top-p {}", sampling.top_p));
        }
        if sampling.min_p > 0.0 {
            text.push_str(&format!(", min-p {}", sampling.min_p));
        }
    }
    if sampling.repeat_penalty != 1.0 {
        text.push_str(&format!(", repeat penalty {}", sampling.repeat_penalty));
    }
    format!("{text}, seed {}", sampling.seed)
}

fn warn_of_ignored(checkpoint: &Checkpoint) {
    let vocabulary = checkpoint.config().vocabulary;
    if let Some(id) = checkpoint.generation().end_tokens.iter().find(|id| **id as usize >= vocabulary) {
        note(&format!(
            "warning: the end token {id} is outside the vocabulary of {vocabulary}: it will never come"
        ));
    }
    let ignored = &checkpoint.generation().ignored;
    if !ignored.is_empty() {
        note(&format!(
            "warning: generation_config.json asks for {}, which attend does not follow; Transformers' text may differ",
            ignored.join(", ")
        ));
    }
}
