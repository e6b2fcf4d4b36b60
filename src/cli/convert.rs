//! `attend convert`: a checkpoint written once with its weights in another type, so that it loads
//! without that work.

use std::path::PathBuf;

use anyhow::Result;
use attend::checkpoint::convert::convert;
use attend::kernels::threads::available_threads;
use clap::Args;

use super::Outcome;
use super::held::held_lines;
use super::model_args::{Dtype, open};
use super::output::{interrupt_flag, note};

#[derive(Args)]
pub struct ConvertArgs {
    /// Folder with config.json and model.safetensors, or a model of the hub, OWNER/NAME or
    /// OWNER/NAME@REVISION, which is fetched
    #[arg(value_name = "IN")]
    model: PathBuf,
    /// Folder to write; it must not exist yet, or be empty
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// How the weights are written, as far as each allows
    #[arg(long, value_enum)]
    dtype: Dtype,
    /// Threads that compute [default: the CPUs at hand]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

pub fn run(args: ConvertArgs) -> Result<Outcome> {
    let checkpoint = open(Some(&args.model))?;
    let threads = args.threads.map_or_else(available_threads, usize::from);
    let element = args.dtype.element();
    let held = match convert(&checkpoint, &args.out, element, threads, &interrupt_flag()) {
        Err(attend::Error::Interrupted) => {
            note("interrupted: nothing was written");
            return Ok(Outcome::Interrupted);
        }
        held => held?,
    };
    for line in held_lines(&held, Some(element)) {
        note(&line);
    }
    note(&format!("wrote {}", args.out.display()));
    Ok(Outcome::Done)
}
