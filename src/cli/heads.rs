//! `attend heads`: what each head does, by its map, and what it is worth.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use attend::capture::{Dump, QuerySelection};
use attend::measure::{HeadEffect, HeadEffects};
use attend::model::{AttentionObserver, Forward, Silence};
use attend::report::heads::{Column, HeadScorer, HeadTable, KeySink, repeated, table};
use attend::report::label;
use attend::{Checkpoint, Error};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::model_args::{ComputeArgs, ModelArgs};
use super::output::{LINE_EVERY, interrupt_flag, note, print};
use super::prompt_args::{PromptArgs, PromptSource, records};
use super::{Outcome, usage};

/// Below the options in `--help` and the manual page.
const SCORES: &str = "\
Scores, with A[i,j] the weight of query i on key j, positions from 0:
  previous   mean of A[i,i-1] over all queries but the first
  duplicate  mean of A[i,i-n] over the second copy of n tokens that stand twice (Wang et al. 2023)
  induction  mean of A[i,i-n+1] over the second copy: prefix matching (Olsson et al. 2022)
  sink       mean of A[i,0] over all queries (Xiao et al. 2024, Gu et al. 2025)
  self       mean of A[i,i]
  local      mean weight on the last 8 keys up to the query, over queries that see more
  entropy    mean of the entropy of a row / ln(i+1), from the second query on; 1 is even attention
  distance   mean of the distance to the key, in tokens
A head is named for induction, duplicate token, previous token and self from 0.3 on, local from 0.6 (and none of \
those), even from an entropy of 0.9, sink where a key gets more than 0.3 in the mean over the queries that see it.

--effect silences one head after another as --ablate does, and sorts by how much the loss (mean of -ln p over all \
tokens but the first) rises without it.";

/// Of the random texts: tokens of each copy, and their seeds.
const RANDOM_TOKENS: usize = 64;
const SEEDS: [u64; 3] = [0, 1, 2];

#[derive(Args)]
#[command(after_long_help = SCORES)]
pub struct HeadsArgs {
    /// The folder of a dump, whose maps are scored [default: random tokens, twice, through the model]
    #[arg(value_name = "DIR")]
    dump: Option<PathBuf>,
    #[command(flatten)]
    prompt: PromptArgs,
    #[command(flatten)]
    model: ModelArgs,
    /// Rank heads by how much the loss on a text rises without each; in its place stands nothing (zero),
    /// its mean output, or uniform attention
    #[arg(long, value_enum, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "zero")]
    effect: Option<SilenceArg>,
    /// Tokens of the text that --effect reads [default: 256, or the whole text if it is shorter]
    #[arg(short, long, value_name = "N", requires = "effect", value_parser = clap::value_parser!(u32).range(2..))]
    context: Option<u32>,
    /// Show key positions instead: the weight that each gets, and the share of heads that give it more
    /// than 0.3 (Gu et al. 2025)
    #[arg(long, conflicts_with_all = ["effect", "sort"])]
    sinks: bool,
    /// Sort by a score, the largest first [default: by layer and head; with --effect by it]
    #[arg(long, value_enum, value_name = "SCORE", conflicts_with = "effect")]
    sort: Option<SortArg>,
    /// Show so many
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    /// CSV instead of a table
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// A JSON array with a row a head
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum SilenceArg {
    Zero,
    Mean,
    Uniform,
}

#[derive(Clone, Copy, ValueEnum)]
enum SortArg {
    #[value(alias = "previous_token", alias = "previous-token")]
    Previous,
    #[value(alias = "duplicate_token", alias = "duplicate-token")]
    Duplicate,
    Induction,
    Sink,
    #[value(name = "self")]
    Own,
    Local,
    Entropy,
    Distance,
}

impl SortArg {
    fn column(self) -> Column {
        match self {
            SortArg::Previous => Column::PreviousToken,
            SortArg::Duplicate => Column::DuplicateToken,
            SortArg::Induction => Column::Induction,
            SortArg::Sink => Column::Sink,
            SortArg::Own => Column::Own,
            SortArg::Local => Column::Local,
            SortArg::Entropy => Column::Entropy,
            SortArg::Distance => Column::Distance,
        }
    }
}

/// Scored maps, and what they are of.
struct Scored {
    scorer: HeadScorer,
    /// What stands above the table.
    of: String,
    /// Of each position, where all texts had the same.
    labels: Vec<String>,
}

pub fn run(args: HeadsArgs) -> Result<Outcome> {
    if let Some(how) = args.effect {
        return effect(&args, how);
    }
    let scored = match &args.dump {
        Some(folder) => from_dump(&args, folder)?,
        None => from_model(&args)?,
    };
    if args.sinks {
        return sinks(&args, &scored);
    }
    let all = scored.scorer.scores();
    let heads = HeadTable::new(all.clone(), args.sort.map(SortArg::column), args.top);
    if args.json {
        print(&format!("{}\n", serde_json::to_string(heads.heads())?))?;
    } else if args.csv {
        print(&heads.csv())?;
    } else {
        let found = table::summary(&all);
        let found = if found.is_empty() { "no head is named".into() } else { found };
        print(&format!("{}\n\n{}\n{found}", scored.of, heads.render()))?;
    }
    Ok(Outcome::Done)
}

/// Whether any option asks for a text or for how a model computes.
fn asks_for_a_model(args: &HeadsArgs) -> bool {
    let ComputeArgs { dtype, threads, device, .. } = &args.model.compute;
    let PromptArgs { prompt_option, file, prompt_ids } = &args.prompt;
    let has_text = prompt_option.is_some() || file.is_some() || prompt_ids.is_some();
    has_text || args.model.model.is_some() || dtype.is_some() || threads.is_some() || device != "auto"
}

fn from_dump(args: &HeadsArgs, folder: &Path) -> Result<Scored> {
    if !Dump::is_at(folder) {
        return Err(usage(format!(
            "{}: no dump is there; give a text with --prompt or --file, a model with -m",
            folder.display()
        )));
    }
    if asks_for_a_model(args) {
        return Err(usage(format!(
            "{} is a dump, which is scored without a model or a text: give one of them",
            folder.display()
        )));
    }
    let dump = Dump::open(folder)?;
    let manifest = dump.manifest();
    if manifest.queries != QuerySelection::All {
        return Err(usage(format!(
            "{}: scores are means over every query, and --queries was {}",
            folder.display(),
            manifest.queries
        )));
    }
    let queries = dump.steps().last().map_or(0, |step| step.keys);
    if queries < 2 {
        return Err(usage(format!("{}: {queries} tokens are too few to score heads by", folder.display())));
    }
    let ids: Vec<u32> = dump.tokens().iter().take(queries).map(|token| token.id).collect();
    let mut windows = vec![None; manifest.model.layers];
    for captured in &manifest.layers {
        if let Some(window) = windows.get_mut(captured.layer) {
            *window = captured.window;
        }
    }
    let copy = repeated(&ids).filter(|_| ids.len() == queries);
    let mut scorer = HeadScorer::new(manifest.mask, windows, copy);
    for captured in &manifest.layers {
        for step in 0..dump.steps().len() {
            let map = dump.layer_map(step, captured.layer)?;
            for (place, head) in captured.heads.iter().enumerate() {
                for (number, row) in map.head(place).chunks_exact(map.keys).enumerate() {
                    scorer.add(captured.layer, *head, map.query(number), row);
                }
            }
        }
    }
    let all = manifest.model.layers * manifest.model.heads;
    let captured: usize = manifest.layers.iter().map(|layer| layer.heads.len()).sum();
    if captured < all {
        note(&format!("the dump holds {captured} of the model's {all} heads; the others are not scored"));
    }
    Ok(Scored {
        scorer,
        of: format!("{}: {queries} tokens{}", manifest.model.name, of_copy(copy)),
        labels: dump.tokens().iter().map(|token| label(&token.bytes, token.id)).collect(),
    })
}

fn of_copy(copy: Option<usize>) -> String {
    match copy {
        Some(copy) => format!(", {copy} that stand twice"),
        None => ", whose second half does not repeat the first: no duplicate token, no induction".into(),
    }
}

fn from_model(args: &HeadsArgs) -> Result<Scored> {
    let given =
        args.prompt.prompt_option.is_some() || args.prompt.file.is_some() || args.prompt.prompt_ids.is_some();
    let source = given.then(|| args.prompt.read(None)).transpose()?;
    let checkpoint = args.model.open()?;
    let config = checkpoint.config();
    let (texts, labels, of) = match source {
        Some(source) => {
            let prompt = source.tokens(&checkpoint)?;
            if prompt.ids.len() < 2 {
                return Err(usage("one token is too short a text to score heads by; give at least 2"));
            }
            let labels = records(&prompt, &checkpoint).iter().map(|t| label(&t.bytes, t.id)).collect();
            let of = format!("{} tokens{}", prompt.ids.len(), of_copy(repeated(&prompt.ids)));
            (vec![prompt.ids], labels, of)
        }
        None => {
            let tokens = RANDOM_TOKENS.min(config.context / 2);
            let texts = SEEDS.iter().map(|seed| random_twice(&checkpoint, tokens, *seed)).collect();
            let seeds: Vec<String> = SEEDS.iter().map(u64::to_string).collect();
            let of = format!(
                "mean over {} texts of {tokens} random tokens, each twice; seeds {}",
                SEEDS.len(),
                seeds.join(", ")
            );
            (texts, vec![], of)
        }
    };
    let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
    if longest > config.context {
        let (needed, context) = (longest, config.context);
        let hint = "that is the model's own context; shorten the text".into();
        return Err(Error::ContextFull { needed, context, hint }.into());
    }
    let decoder = checkpoint.load(&args.model.compute.resolve()?)?;
    let copy = texts.first().and_then(|text| repeated(text));
    let mut scorer = HeadScorer::new(config.mask, config.windows.clone(), copy);
    for text in &texts {
        let mut cache = decoder.new_cache(text.len())?;
        let observer: &mut dyn AttentionObserver = &mut scorer;
        decoder.forward(text, &mut cache, Forward { observer: Some(observer), ..Forward::default() })?;
    }
    if args.json || args.csv {
        note(&of);
    }
    Ok(Scored { scorer, of: format!("{}: {of}", checkpoint.name()), labels })
}

/// Random ordinary tokens, and the same again.
fn random_twice(checkpoint: &Checkpoint, count: usize, seed: u64) -> Vec<u32> {
    let vocabulary = checkpoint.config().vocabulary as u64;
    let tokenizer = checkpoint.tokenizer().ok();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    // A vocabulary of added tokens alone has no ordinary ones.
    let none_ordinary = tokenizer.is_some_and(|t| (0..vocabulary as u32).all(|id| t.is_added(id)));
    let mut next = || loop {
        let id = (random.next_u64() % vocabulary) as u32;
        if none_ordinary || !tokenizer.is_some_and(|tokenizer| tokenizer.is_added(id)) {
            return id;
        }
    };
    let once: Vec<u32> = (0..count).map(|_| next()).collect();
    once.repeat(2)
}

fn sinks(args: &HeadsArgs, scored: &Scored) -> Result<Outcome> {
    let mut sinks = scored.scorer.sinks();
    let label_of = |sink: &KeySink| scored.labels.get(sink.position).cloned();
    if args.json || args.csv {
        sinks.truncate(args.top.unwrap_or(usize::MAX));
    } else {
        // What a person looks for first.
        sinks.sort_by(|a, b| {
            b.share_of_heads.total_cmp(&a.share_of_heads).then(b.mean_weight.total_cmp(&a.mean_weight))
        });
        sinks.truncate(args.top.unwrap_or(10));
    }
    if args.json {
        print(&format!("{}\n", serde_json::to_string(&sinks)?))?;
    } else if args.csv {
        let mut text = String::from("position,mean_weight,share_of_heads\n");
        for sink in &sinks {
            text.push_str(&format!("{},{},{}\n", sink.position, sink.mean_weight, sink.share_of_heads));
        }
        print(&text)?;
    } else {
        let mut text = format!("{}\n\nposition  mean weight  heads above 0.3  token\n", scored.of);
        for sink in &sinks {
            let KeySink { position, mean_weight, share_of_heads } = sink;
            let token = label_of(sink).unwrap_or_default();
            let share = 100.0 * share_of_heads;
            text.push_str(&format!("{position:>8}  {mean_weight:>11.3}  {share:>13.1} %  {token}\n"));
        }
        print(&text)?;
    }
    Ok(Outcome::Done)
}

fn effect(args: &HeadsArgs, how: SilenceArg) -> Result<Outcome> {
    if let Some(folder) = &args.dump {
        return Err(usage(format!(
            "{}: --effect runs a model over a text, not a dump; give one with --file or --prompt",
            folder.display()
        )));
    }
    let how = match how {
        SilenceArg::Zero => Silence::Zero,
        SilenceArg::Mean => Silence::Mean,
        SilenceArg::Uniform => Silence::Uniform,
    };
    let source: PromptSource = args.prompt.read(None::<OsString>)?;
    let checkpoint = args.model.open()?;
    let config = checkpoint.config();
    config.check_generates()?;
    let mut prompt = source.tokens(&checkpoint)?;
    let whole = prompt.ids.len();
    let most = args.context.map_or(256, |context| context as usize).min(config.context);
    if let Some(asked) = args.context.filter(|asked| *asked as usize > config.context) {
        let hint = "that is the model's own context; ask for no more with -c".into();
        return Err(Error::ContextFull { needed: asked as usize, context: config.context, hint }.into());
    }
    if whole > most {
        note(&format!("the first {most} of the text's {whole} tokens are read; more with -c"));
        prompt.ids.truncate(most);
    }
    let decoder = checkpoint.load(&args.model.compute.resolve()?)?;
    let mut effects = HeadEffects::new(&decoder, &prompt.ids, how, interrupt_flag())?;
    let mut progress = Progress::new(effects.heads());
    let started = Instant::now();
    let mut found: Vec<HeadEffect> = vec![];
    let interrupted = loop {
        match effects.step() {
            Ok(Some(effect)) => found.push(effect),
            Ok(None) => break false,
            Err(Error::Interrupted) => break true,
            Err(error) => return Err(error.into()),
        }
        progress.show(found.len());
    };
    progress.finish();
    if interrupted {
        note(&format!("interrupted: {} of {} heads were silenced", found.len(), effects.heads()));
    }
    found.sort_by(|a, b| b.rise.total_cmp(&a.rise));
    found.truncate(args.top.unwrap_or(usize::MAX));
    if args.json {
        print(&format!("{}\n", serde_json::to_string(&found)?))?;
    } else if args.csv {
        let mut text = String::from("layer,head,loss,rise\n");
        for HeadEffect { layer, head, loss, rise } in &found {
            text.push_str(&format!("{layer},{head},{loss},{rise}\n"));
        }
        print(&text)?;
    } else {
        let base = effects.base();
        let mut text = format!(
            "{}: loss of the whole model on {} tokens: {base:.4}; without each head ({}):\n\n  head      loss      rise\n",
            checkpoint.name(),
            prompt.ids.len(),
            how.name(),
        );
        for HeadEffect { layer, head, loss, rise } in &found {
            text.push_str(&format!("{:>6}  {loss:>8.4}  {rise:>+8.4}\n", format!("{layer}.{head}")));
        }
        print(&text)?;
    }
    note(&format!("time: {:.1} s", started.elapsed().as_secs_f64()));
    Ok(if interrupted { Outcome::Interrupted } else { Outcome::Done })
}

/// A bar on a terminal, else a line now and then.
struct Progress {
    bar: Option<ProgressBar>,
    heads: usize,
    last_line: Instant,
}

impl Progress {
    fn new(heads: usize) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let template = "{wide_bar} {pos} of {len} heads  {eta:>4}";
            // The template is ours and right; the plain style stands in if it ever were not.
            let style =
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(heads as u64).with_style(style)
        });
        Progress { bar, heads, last_line: Instant::now() }
    }

    fn show(&mut self, done: usize) {
        match &self.bar {
            Some(bar) => bar.set_position(done as u64),
            None if self.last_line.elapsed() >= LINE_EVERY => {
                self.last_line = Instant::now();
                note(&format!("{done} of {} heads", self.heads));
            }
            None => {}
        }
    }

    fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
