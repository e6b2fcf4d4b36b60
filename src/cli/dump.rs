//! `attend dump`: what lies in a dump's folder, checked, or written for other programs.

use std::path::PathBuf;

use anyhow::Result;
use attend::capture::{self, Dump};
use attend::report::export;
use clap::{Args, Subcommand, ValueEnum};

use super::Outcome;
use super::output::{counted, note, print};

#[derive(Args)]
pub struct DumpArgs {
    #[command(subcommand)]
    command: DumpCommand,
}

#[derive(Subcommand)]
enum DumpCommand {
    /// Check every row of a dump, and name the first fault
    Check {
        /// The folder of the dump
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Write a dump as NumPy arrays (an array a layer, of all steps' rows) or as CSV (a line a weight)
    Convert {
        /// The folder of the dump
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// npy: a folder of arrays; csv: one file
        #[arg(long, value_enum, value_name = "FORMAT")]
        to: To,
        /// What to write; it must not exist yet
        #[arg(short, long, value_name = "OUT")]
        output: PathBuf,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum To {
    Npy,
    Csv,
}

pub fn run(args: DumpArgs) -> Result<Outcome> {
    match args.command {
        DumpCommand::Check { folder } => {
            let checked = capture::check(&folder)?;
            for ignored in &checked.ignored {
                note(&format!("ignored, as every reader does: {ignored}"));
            }
            print(&format!(
                "{}: whole: {}, {}, {}\n",
                folder.display(),
                counted(checked.steps, "step"),
                counted(checked.tokens, "token"),
                counted(checked.rows, "row"),
            ))?;
        }
        DumpCommand::Convert { folder, to, output } => {
            let dump = Dump::open(&folder)?;
            match to {
                To::Npy => export::npy(&dump, &output)?,
                To::Csv => export::csv(&dump, &output)?,
            }
            note(&format!("wrote {}", output.display()));
        }
    }
    Ok(Outcome::Done)
}
