//! `attend bench`: tokens per second in the manner of llama-bench, and beside them what no one
//! else prints: the speed while capturing, bytes a token, and the share of the memory's bandwidth.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context, Result};
use attend::Checkpoint;
use attend::capture::{AttentionKind, Recorder, Selection};
use attend::kernels::Isa;
use attend::measure::{Speed, Test, TestKind, bandwidth, memory, run as time, speculation};
use attend::model::{Decoder, Mask};
use clap::Args;

use super::bench_output::{Format, Row, Speculation, write_rows};
use super::capture_args::StoredDtype;
use super::model_args::{CacheDtype, Dtype, Kernels, device_name, open};
use super::output::{interrupt_flag, note, print};
use super::progress::load;
use super::prompt_args::PromptArgs;
use super::speculate_args::SpeculateArgs;
use super::{Outcome, usage};

#[derive(Args)]
pub struct BenchArgs {
    /// Folder with config.json and model.safetensors, a GGUF file, or a model of the hub, OWNER/NAME or
    /// OWNER/NAME@REVISION, which is fetched [default: the embedded model]
    #[arg(short, long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Prompt tokens to read in one pass (a list; 0: none)
    #[arg(short = 'p', long, value_name = "N", value_delimiter = ',', default_value = "512")]
    n_prompt: Vec<u32>,
    /// Tokens to generate one at a time (a list; 0: none)
    #[arg(short = 'n', long, value_name = "N", value_delimiter = ',', default_value = "128")]
    n_gen: Vec<u32>,
    /// Tokens in the cache before the test (a list)
    #[arg(short = 'd', long, value_name = "N", value_delimiter = ',', default_value = "0")]
    n_depth: Vec<u32>,
    /// Repetitions
    #[arg(short, long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,
    /// Threads (a list) [default: the CPUs at hand]
    #[arg(short, long, value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Vec<u16>,
    /// How weights are held (a list) [default: as in the checkpoint]
    #[arg(long, value_enum, value_delimiter = ',')]
    dtype: Vec<Dtype>,
    /// How keys and values are held
    #[arg(long, value_enum, default_value_t = CacheDtype::F32, value_name = "DTYPE")]
    cache_dtype: CacheDtype,
    /// Where to compute: cpu, cuda, cuda:N, or auto
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: String,
    /// Whose arithmetic: ours, or candle's operations alone
    #[arg(long, value_enum, default_value_t = Kernels::Native)]
    kernels: Kernels,
    #[command(flatten)]
    speculation: SpeculateArgs,
    /// The text behind which --speculate is measured: greedy, -n tokens, with and without it by turns
    #[arg(short, long, value_name = "FILE", requires = "speculate")]
    file: Option<PathBuf>,
    /// Leave out the runs that capture attention
    #[arg(long)]
    no_capture: bool,
    /// How maps are stored in the runs that capture attention, below the folder for temporary files
    /// (TMPDIR)
    #[arg(long, value_enum, default_value_t = StoredDtype::F32, conflicts_with = "no_capture")]
    attention_dtype: StoredDtype,
    /// What is recorded in those runs: full, top:K or stats
    #[arg(long, value_name = "KIND", default_value = "full", conflicts_with = "no_capture")]
    attention_kind: AttentionKind,
    /// How to print the rows
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// What it took to load the weights from an open checkpoint.
#[derive(Clone, Copy)]
struct Load {
    seconds: f64,
    peak_memory: Option<u64>,
}

pub fn run(args: BenchArgs) -> Result<Outcome> {
    let checkpoint = open(args.model.as_deref())?;
    checkpoint.config().check_generates()?;
    let tests = args.tests(&checkpoint)?;
    let text = args.text(&checkpoint)?;
    if cfg!(debug_assertions) {
        note("warning: this is a debug build, many times slower; build with `cargo build --release`");
    }
    note("timed: forward passes alone, random tokens, after one warm-up that is not counted");
    note("not timed: loading, tokenising, sampling, printing");
    if text.is_some() {
        note("timed on the text: its greedy continuation, choosing tokens and looking up drafts included");
    }
    if args.kernels == Kernels::Reference && args.threads.len() > 1 {
        return Err(usage(
            "--kernels reference: candle's threads are set once a process; give one number with --threads",
        ));
    }
    let interrupt = interrupt_flag();
    let go_on = || !interrupt.load(Ordering::Relaxed);
    let mut rows = Vec::new();
    let dtypes: Vec<Option<Dtype>> =
        if args.dtype.is_empty() { vec![None] } else { args.dtype.iter().copied().map(Some).collect() };
    let threads: Vec<Option<u16>> =
        if args.threads.is_empty() { vec![None] } else { args.threads.iter().copied().map(Some).collect() };
    for threads in threads {
        let mut measured = None;
        for dtype in &dtypes {
            let compute = super::model_args::ComputeArgs {
                dtype: *dtype,
                cache_dtype: args.cache_dtype,
                threads,
                device: args.device.clone(),
                kernels: args.kernels,
            };
            let options = compute.resolve()?;
            // Before the weights: its gigabyte must not count as the model's memory.
            let bandwidth = match measured {
                Some(bandwidth) => bandwidth,
                None => *measured.insert(bandwidth::measure(Isa::detect()?, options.threads)?),
            };
            memory::reset_peak();
            let started = Instant::now();
            let decoder = load(&checkpoint, &options)?;
            let load = Load { seconds: started.elapsed().as_secs_f64(), peak_memory: memory::peak() };
            let bench = Bench { args: &args, checkpoint: &checkpoint, decoder: &decoder, load, bandwidth };
            let mut add = |row: Row| -> Result<()> {
                if args.output == Format::Jsonl {
                    print(&format!("{}\n", serde_json::to_string(&row)?))?;
                }
                rows.push(row);
                Ok(())
            };
            for test in &tests {
                bench.measure(*test, &go_on)?.map_or(Ok(()), &mut add)?;
            }
            if let Some(text) = &text {
                for tokens in args.n_gen.iter().filter(|tokens| **tokens > 0) {
                    bench.speculate(text, *tokens as usize, &go_on)?.into_iter().try_for_each(&mut add)?;
                }
            }
            if !go_on() {
                print(&write_rows(&rows, args.output)?)?;
                return Ok(Outcome::Interrupted);
            }
        }
    }
    print(&write_rows(&rows, args.output)?)?;
    Ok(Outcome::Done)
}

impl BenchArgs {
    /// The tests asked for, checked against the model's context.
    fn tests(&self, checkpoint: &Checkpoint) -> Result<Vec<Test>> {
        let mut tests = vec![];
        for depth in &self.n_depth {
            let depth = *depth as usize;
            let kinds = self.n_prompt.iter().map(|n| TestKind::Prompt(*n as usize));
            for kind in kinds.chain(self.n_gen.iter().map(|n| TestKind::Generation(*n as usize))) {
                let test = Test { kind, depth };
                if test.tokens() > 0 {
                    tests.push(test);
                }
            }
        }
        if tests.is_empty() {
            return Err(usage("nothing to measure: give -p or -n above 0"));
        }
        let context = checkpoint.config().context;
        match tests.iter().find(|test| test.context() > context) {
            Some(test) => Err(usage(format!(
                "{test} needs {} tokens of context, and the model has {context}; lower -p, -n or -d",
                test.context()
            ))),
            None => Ok(tests),
        }
    }

    /// The tokens of the text behind which speculation is measured.
    fn text(&self, checkpoint: &Checkpoint) -> Result<Option<Vec<u32>>> {
        let Some(file) = &self.file else {
            return match self.speculation.most() {
                0 => Ok(None),
                _ => Err(usage(
                    "--speculate is measured on a text, as random tokens have nothing to guess: give one with -f FILE",
                )),
            };
        };
        if checkpoint.config().positions_depend_on_length() {
            return Err(usage(
                "--speculate: this model's positions depend on the text's length, so nothing is guessed",
            ));
        }
        let prompt = PromptArgs { prompt_option: None, file: Some(file.clone()), prompt_ids: None };
        let text = prompt.read(None)?.tokens(checkpoint)?.ids;
        let new = self.n_gen.iter().max().map_or(0, |tokens| *tokens as usize);
        if new == 0 {
            return Err(usage("--speculate: nothing to generate; give -n above 0"));
        }
        let context = checkpoint.config().context;
        if text.len() + new >= context {
            return Err(usage(format!(
                "{}: its {} tokens and {new} new ones do not fit the model's context of {context}; shorten it, or lower -n",
                file.display(),
                text.len()
            )));
        }
        Ok(Some(text))
    }
}

/// A model that is measured.
struct Bench<'a> {
    args: &'a BenchArgs,
    checkpoint: &'a Checkpoint,
    decoder: &'a Decoder,
    load: Load,
    /// Bytes a second from memory.
    bandwidth: f64,
}

impl Bench<'_> {
    fn measure(&self, test: Test, go_on: &dyn Fn() -> bool) -> Result<Option<Row>> {
        let repetitions = self.args.repetitions as usize;
        memory::reset_peak();
        let Some(plain) = time(self.decoder, test, repetitions, || Ok(None::<Recorder>), go_on)? else {
            return Ok(None);
        };
        let peak_memory = memory::peak();
        let tokens_per_second_capturing = match self.args.no_capture {
            true => None,
            false => self.capturing(test, go_on)?,
        };
        let bytes = test.bytes_per_token(self.decoder);
        let row = self.row(test.to_string(), test.depth, bytes, plain);
        Ok(Some(Row { peak_memory, tokens_per_second_capturing, ..row }))
    }

    /// The greedy text behind `text`, without speculation and with it.
    fn speculate(&self, text: &[u32], tokens: usize, go_on: &dyn Fn() -> bool) -> Result<Vec<Row>> {
        let (most, repetitions) = (self.args.speculation.most(), self.args.repetitions as usize);
        let Some(measured) = speculation::compare(self.decoder, text, tokens, most, repetitions, go_on)?
        else {
            return Ok(vec![]);
        };
        let file = self.args.file.as_deref().and_then(Path::file_name).unwrap_or_default();
        let name = format!("tg{tokens} @ {}", file.display());
        let bytes =
            Test { kind: TestKind::Generation(tokens), depth: text.len() }.bytes_per_token(self.decoder);
        let gain = measured.speculating.mean / measured.plain.mean;
        let fewer = (bytes as f64 / measured.acceptance.tokens_per_pass()) as usize;
        let speculation = Some(Speculation { acceptance: measured.acceptance, gain });
        let plain = self.row(name.clone(), text.len(), bytes, measured.plain);
        let row = self.row(format!("{name}, speculating"), text.len(), fewer, measured.speculating);
        Ok(vec![plain, Row { speculation, ..row }])
    }

    fn row(&self, test: String, depth: usize, bytes: usize, speed: Speed) -> Row {
        let (config, ops) = (self.decoder.config(), self.decoder.ops());
        let share = speed.mean * bytes as f64 / self.bandwidth;
        Row {
            version: env!("CARGO_PKG_VERSION"),
            cpu: cpu_name(),
            model: self.checkpoint.name(),
            family: config.family.clone(),
            parameters: config.parameter_count(),
            dtype: ops.element().name(),
            cache_dtype: ops.cache_type().name(),
            cache_bytes_per_token: config.cache_bytes_per_token(ops.cache_type()),
            device: device_name(ops.device()),
            kernels: ops.arithmetic(),
            threads: ops.threads(),
            load_seconds: self.load.seconds,
            load_peak_memory: self.load.peak_memory,
            test,
            depth,
            bytes_per_token: bytes,
            memory_bandwidth: self.bandwidth,
            bandwidth_share: ops.device().is_cpu().then_some(share),
            peak_memory: None,
            tokens_per_second: speed,
            tokens_per_second_capturing: None,
            speculation: None,
        }
    }

    /// The same test while every layer and head is recorded, to a folder that is removed again.
    fn capturing(&self, test: Test, go_on: &dyn Fn() -> bool) -> Result<Option<Speed>> {
        let folder = tempfile::Builder::new()
            .prefix("attend-bench-")
            .tempdir()
            .context("cannot make a temporary folder for the dump; --no-capture leaves these runs out")?;
        let config = self.decoder.config();
        let selection = Selection::all(config.layers, config.heads).with_kind(self.args.attention_kind);
        let manifest = Recorder::manifest(
            self.checkpoint,
            self.decoder.ops().element().name(),
            &selection,
            self.args.attention_dtype.resolve(),
            Mask::Causal,
            0,
            None,
        );
        let pool = self.decoder.ops().pool();
        let recorder = || Ok(Some(Recorder::create(folder.path(), &manifest, true)?.with_pool(pool.clone())));
        Ok(time(self.decoder, test, self.args.repetitions as usize, recorder, go_on)?)
    }
}

fn cpu_name() -> String {
    std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|info| {
            let line = info.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        })
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}
