//! Which model, held how, computed where: what every command that runs a model takes.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result};
use attend::checkpoint::hub::{self, ModelId, Settings};
use attend::kernels::cache::CacheType;
use attend::kernels::matmul::ElementType;
use attend::kernels::threads::available_threads;
use attend::model::KernelChoice;
use attend::{Checkpoint, LoadOptions};
use candle_core::Device;
use clap::{Args, ValueEnum};

use super::download::DownloadProgress;
use super::output::{counted, note};
use super::usage;

#[derive(Args)]
pub struct ModelArgs {
    /// Folder with config.json, tokenizer.json and model.safetensors, a GGUF file, or a model of the
    /// hub, OWNER/NAME or OWNER/NAME@REVISION, which is fetched [default: the embedded model]
    #[arg(short, long, value_name = "MODEL")]
    pub model: Option<PathBuf>,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

#[derive(Args)]
pub struct ComputeArgs {
    /// How weights are held in memory, as far as each allows (see `attend info`) [default: as in the
    /// checkpoint]
    #[arg(long, value_enum)]
    pub dtype: Option<Dtype>,
    /// How keys and values are held in memory
    #[arg(long, value_enum, default_value_t = CacheDtype::F32, value_name = "DTYPE")]
    pub cache_dtype: CacheDtype,
    /// Threads that compute [default: the CPUs at hand]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Where to compute: cpu, cuda, cuda:N, or auto (CUDA where this build and machine have it)
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: String,
    /// Whose arithmetic: ours, or candle's operations alone (slower; to compare with)
    #[arg(long, value_enum, default_value_t = Kernels::Native)]
    pub kernels: Kernels,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    F32,
    Bf16,
    F16,
    #[value(name = "q8_0")]
    Q8_0,
    #[value(name = "q4_0")]
    Q4_0,
    #[value(name = "q4_1")]
    Q4_1,
    #[value(name = "q4_k")]
    Q4K,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CacheDtype {
    F32,
    F16,
    #[value(name = "q8_0")]
    Q8_0,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kernels {
    Native,
    Reference,
}

impl ModelArgs {
    /// Opens the checkpoint, with a warning for what in it is left unused.
    pub fn open(&self) -> Result<Checkpoint> {
        open(self.model.as_deref())
    }
}

/// Opens a checkpoint, fetched from the hub if it is there, with a warning for what in it is left
/// unused.
pub fn open(model: Option<&Path>) -> Result<Checkpoint> {
    let checkpoint = match model {
        Some(model) => match ModelId::from_argument(model) {
            Some(id) => Checkpoint::open(&fetch(&id)?)?,
            None => Checkpoint::open(model)?,
        },
        None => Checkpoint::embedded()?,
    };
    let unused = checkpoint.unused_tensors();
    if let Some(first) = unused.first() {
        note(&format!(
            "warning: {} tensors of {} are not used, {first} among them; are config and weights from the same model?",
            unused.len(),
            checkpoint.name()
        ));
    }
    Ok(checkpoint)
}

/// Fetches a model of the hub.
fn fetch(id: &ModelId) -> Result<PathBuf> {
    hub::fetch(id, &Settings::from_environment()?, &mut DownloadProgress::new())
        .with_context(|| format!("{id} is no folder here, so it was looked for on the hub"))
}

impl ComputeArgs {
    /// As many as were asked for, and as there are CPUs.
    fn threads(&self) -> usize {
        let available = available_threads();
        let asked = self.threads.map_or(available, usize::from);
        if asked > available {
            let cpus = counted(available, "CPU");
            note(&format!("--threads {asked}: this process may use {cpus}, and takes as many threads"));
        }
        asked.min(available)
    }

    /// Checks the device and prepares the threads.
    pub fn resolve(&self) -> Result<LoadOptions> {
        let threads = self.threads();
        let kernels = match self.kernels {
            Kernels::Native => KernelChoice::Native,
            Kernels::Reference => KernelChoice::Reference,
        };
        if kernels == KernelChoice::Reference {
            // candle computes on rayon's global pool, which is made once a process; a second call
            // (another dtype of `bench`) finds the pool that it would have made.
            static POOL: OnceLock<Result<(), rayon::ThreadPoolBuildError>> = OnceLock::new();
            let build = || rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
            if let Err(error) = POOL.get_or_init(build) {
                anyhow::bail!("cannot start the threads of the reference operations: {error}");
            }
        }
        let element = self.dtype.map(Dtype::element);
        let cache = self.cache_dtype.held();
        Ok(LoadOptions { device: device(&self.device)?, kernels, element, cache, threads })
    }
}

impl Dtype {
    pub fn element(self) -> ElementType {
        match self {
            Dtype::F32 => ElementType::F32,
            Dtype::Bf16 => ElementType::Bf16,
            Dtype::F16 => ElementType::F16,
            Dtype::Q8_0 => ElementType::Q8_0,
            Dtype::Q4_0 => ElementType::Q4_0,
            Dtype::Q4_1 => ElementType::Q4_1,
            Dtype::Q4K => ElementType::Q4K,
        }
    }
}

impl CacheDtype {
    pub fn held(self) -> CacheType {
        match self {
            CacheDtype::F32 => CacheType::F32,
            CacheDtype::F16 => CacheType::F16,
            CacheDtype::Q8_0 => CacheType::Q8_0,
        }
    }
}

/// What the device is called in output: `cpu` or `cuda`.
pub fn device_name(device: &Device) -> &'static str {
    if device.is_cuda() { "cuda" } else { "cpu" }
}

fn device(name: &str) -> Result<Device> {
    let cuda = |ordinal: usize| -> Result<Device> {
        if !cfg!(feature = "cuda") {
            return Err(usage(
                "--device cuda: this build has no CUDA; build it with `cargo build --release --features cuda`, or use --device cpu",
            ));
        }
        Device::new_cuda(ordinal)
            .with_context(|| format!("cannot use CUDA device {ordinal}; try --device cpu"))
    };
    match name {
        "cpu" => Ok(Device::Cpu),
        "auto" if candle_core::utils::cuda_is_available() => Ok(Device::new_cuda(0).unwrap_or(Device::Cpu)),
        "auto" => Ok(Device::Cpu),
        "cuda" => cuda(0),
        other => match other.strip_prefix("cuda:").and_then(|ordinal| ordinal.parse().ok()) {
            Some(ordinal) => cuda(ordinal),
            None => Err(usage(format!("--device {other}: expected cpu, cuda, cuda:N or auto"))),
        },
    }
}
