//! `attend bench`: tokens per second in the manner of llama-bench, and beside them what no one
//! else prints: the speed while capturing, bytes a token, and the share of the memory's bandwidth.

use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context, Result};
use attend::Checkpoint;
use attend::capture::{Recorder, Selection};
use attend::kernels::Isa;
use attend::measure::{Speed, Test, TestKind, bandwidth, memory, run as time};
use attend::model::{Decoder, Mask};
use clap::Args;

use super::bench_output::{Format, Row, write_rows};
use super::capture_args::StoredDtype;
use super::model_args::{Dtype, Kernels, device_name, open};
use super::output::{interrupt_flag, note, print};
use super::{Outcome, usage};

#[derive(Args)]
pub struct BenchArgs {
    /// Folder with config.json and model.safetensors, or a model of the hub, OWNER/NAME or
    /// OWNER/NAME@REVISION, which is fetched [default: the embedded model]
    #[arg(short, long, value_name = "MODEL")]
    model: Option<std::path::PathBuf>,
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
    /// Where to compute: cpu, cuda, cuda:N, or auto
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: String,
    /// Whose arithmetic: ours, or candle's operations alone
    #[arg(long, value_enum, default_value_t = Kernels::Native)]
    kernels: Kernels,
    /// Leave out the runs that capture attention
    #[arg(long)]
    no_capture: bool,
    /// How maps are stored in the runs that capture attention, below the folder for temporary files
    /// (TMPDIR)
    #[arg(long, value_enum, default_value_t = StoredDtype::F32, conflicts_with = "no_capture")]
    attention_dtype: StoredDtype,
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
    if cfg!(debug_assertions) {
        note("warning: this is a debug build, many times slower; build with `cargo build --release`");
    }
    note("timed: forward passes alone, random tokens, after one warm-up that is not counted");
    note("not timed: loading, tokenising, sampling, printing");
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
                threads,
                device: args.device.clone(),
                kernels: args.kernels,
            };
            let options = compute.resolve()?;
            // Before the weights: its gigabyte must not count as the model's memory.
            let bandwidth = match measured {
                Some(bandwidth) => bandwidth,
                None => *measured.insert(bandwidth::measure(Isa::detect()?, options.threads)),
            };
            memory::reset_peak();
            let started = Instant::now();
            let decoder = checkpoint.load(&options)?;
            let load = Load { seconds: started.elapsed().as_secs_f64(), peak_memory: memory::peak() };
            for test in &tests {
                if let Some(row) = args.measure(&checkpoint, &decoder, *test, load, bandwidth, &go_on)? {
                    if args.output == Format::Jsonl {
                        print(&format!("{}\n", serde_json::to_string(&row)?))?;
                    }
                    rows.push(row);
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

    fn measure(
        &self,
        checkpoint: &Checkpoint,
        decoder: &Decoder,
        test: Test,
        load: Load,
        bandwidth: f64,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Option<Row>> {
        let repetitions = self.repetitions as usize;
        memory::reset_peak();
        let Some(plain) = time(decoder, test, repetitions, || Ok(None::<Recorder>), go_on)? else {
            return Ok(None);
        };
        let peak = memory::peak();
        let capturing = match self.no_capture {
            true => None,
            false => self.capturing(checkpoint, decoder, test, go_on)?,
        };
        let bytes = test.bytes_per_token(decoder);
        let config = decoder.config();
        let on_cpu = decoder.ops().device().is_cpu();
        Ok(Some(Row {
            version: env!("CARGO_PKG_VERSION"),
            cpu: cpu_name(),
            model: checkpoint.name(),
            family: config.family.clone(),
            parameters: config.parameter_count(),
            dtype: decoder.ops().element().name(),
            device: device_name(decoder.ops().device()),
            kernels: decoder.ops().arithmetic(),
            threads: decoder.ops().threads(),
            load_seconds: load.seconds,
            load_peak_memory: load.peak_memory,
            test: test.to_string(),
            depth: test.depth,
            bytes_per_token: bytes,
            memory_bandwidth: bandwidth,
            bandwidth_share: on_cpu.then_some(plain.mean * bytes as f64 / bandwidth),
            peak_memory: peak,
            tokens_per_second: plain,
            tokens_per_second_capturing: capturing,
        }))
    }

    /// The same test while every layer and head is recorded, to a folder that is removed again.
    fn capturing(
        &self,
        checkpoint: &Checkpoint,
        decoder: &Decoder,
        test: Test,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Option<Speed>> {
        let folder = tempfile::Builder::new()
            .prefix("attend-bench-")
            .tempdir()
            .context("cannot make a temporary folder for the dump; --no-capture leaves these runs out")?;
        let config = decoder.config();
        let selection = Selection::all(config.layers, config.heads);
        let manifest = Recorder::manifest(
            checkpoint,
            decoder.ops().element().name(),
            &selection,
            self.attention_dtype.resolve(),
            Mask::Causal,
            0,
            None,
        );
        let recorder = || Recorder::create(folder.path(), &manifest, true).map(Some);
        Ok(time(decoder, test, self.repetitions as usize, recorder, go_on)?)
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
