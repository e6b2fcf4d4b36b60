//! Times candle-transformers' own Llama on the CPU, in the manner of llama-bench.
//!
//!     RAYON_NUM_THREADS=2 candle-llama-peer -m FOLDER -p 512 -n 128 -r 5 --dtype f32
//!
//! `pp512` is one forward call on 512 tokens with an empty cache; `tg128` is 128 forward calls on one token each,
//! from an empty cache, with no sampling. Each test runs once uncounted, then `-r` times, every time with a new
//! cache, made outside the timed part. One JSON object is printed per test.

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::llama::{Cache, Config, Llama, LlamaConfig};
use clap::{Parser, ValueEnum};
use serde_json::json;

/// Time candle-transformers' Llama; RAYON_NUM_THREADS sets the threads
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Folder with config.json and model.safetensors
    #[arg(short, long)]
    model: PathBuf,
    /// Tokens of the prompt test, 0 for none
    #[arg(short = 'p', long, default_value_t = 512)]
    n_prompt: usize,
    /// Tokens of the generation test, 0 for none
    #[arg(short = 'n', long, default_value_t = 128)]
    n_gen: usize,
    /// Counted repetitions of each test
    #[arg(short, long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,
    /// Type of the weights and activations, converted to on load
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    dtype: Precision,
}

#[derive(Clone, Copy, ValueEnum)]
enum Precision {
    F32,
    Bf16,
    F16,
}

impl Precision {
    fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
        }
    }
}

struct Bench {
    llama: Llama,
    config: Config,
    dtype: DType,
    device: Device,
    random: u64,
}

impl Bench {
    fn load(folder: &Path, dtype: DType) -> Result<Self> {
        let path = folder.join("config.json");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let config: LlamaConfig = serde_json::from_str(&text)
            .with_context(|| format!("{} is no Llama configuration", path.display()))?;
        let config = config.into_config(false);
        let path = folder.join("model.safetensors");
        let device = Device::Cpu;
        // SAFETY: the file is mapped, and is not to be changed while this runs
        let weights = unsafe { VarBuilder::from_mmaped_safetensors(&[&path], dtype, &device) }
            .with_context(|| format!("cannot load {}", path.display()))?;
        let llama = Llama::load(weights, &config)?;
        Ok(Self { llama, config, dtype, device, random: 0 })
    }

    /// Random tokens, the same in every run (SplitMix64).
    fn tokens(&mut self, count: usize) -> Vec<u32> {
        let vocabulary = self.config.vocab_size as u64;
        (0..count)
            .map(|_| {
                self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut z = self.random;
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                ((z ^ (z >> 31)) % vocabulary) as u32
            })
            .collect()
    }

    /// Feeds `count` tokens to the model with an empty cache, `chunk` a call; returns tokens per second.
    fn measure(&mut self, count: usize, chunk: usize) -> Result<f64> {
        let tokens = self.tokens(count);
        let mut cache = Cache::new(true, self.dtype, &self.config, &self.device)?;
        let start = Instant::now();
        let mut position = 0;
        let mut logits = None;
        for chunk in tokens.chunks(chunk) {
            let input = Tensor::new(chunk, &self.device)?.unsqueeze(0)?;
            logits = Some(black_box(self.llama.forward(&input, position, &mut cache)?));
            position += chunk.len();
        }
        let seconds = start.elapsed().as_secs_f64();
        let logits = logits.context("no token to feed")?.flatten_all()?.to_vec1::<f32>()?;
        ensure!(logits.iter().all(|logit| logit.is_finite()), "the model gave logits that are not finite");
        Ok(count as f64 / seconds)
    }
}

fn mean_and_deviation(samples: &[f64]) -> (f64, f64) {
    let count = samples.len() as f64;
    let mean = samples.iter().sum::<f64>() / count;
    if samples.len() < 2 {
        return (mean, 0.0);
    }
    let variance = samples.iter().map(|sample| (sample - mean).powi(2)).sum::<f64>() / (count - 1.0);
    (mean, variance.sqrt())
}

fn main() -> Result<()> {
    let args = Args::parse();
    let dtype = args.dtype.dtype();
    let mut bench = Bench::load(&args.model, dtype)?;
    let tests = [
        (format!("pp{}", args.n_prompt), args.n_prompt, args.n_prompt),
        (format!("tg{}", args.n_gen), args.n_gen, 1),
    ];
    for (test, count, chunk) in tests {
        if count == 0 {
            continue;
        }
        bench.measure(count, chunk)?;
        let samples =
            (0..args.repetitions).map(|_| bench.measure(count, chunk)).collect::<Result<Vec<_>>>()?;
        let (mean, deviation) = mean_and_deviation(&samples);
        println!(
            "{}",
            json!({
                "test": test,
                "dtype": dtype.as_str(),
                "threads": candle_core::utils::get_num_threads(),
                "tokens_per_second": { "mean": mean, "deviation": deviation, "samples": samples },
            })
        );
    }
    Ok(())
}
