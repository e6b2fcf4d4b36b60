//! The command line: one file a command; typed arguments first, then resolved and checked ones.

mod ablate_args;
mod bench;
mod bench_output;
mod capture_args;
mod compare;
mod convert;
mod download;
mod dump;
mod generate;
mod heads;
mod held;
mod http;
mod info;
mod map;
mod model_args;
mod out_file;
mod output;
mod page;
mod perplexity;
mod perplexity_csv;
mod progress;
mod prompt_args;
mod prompt_cache_args;
mod shell;
mod speculate_args;
mod view;
mod watch;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Generate text with transformers, and see what every head attended to.
#[derive(Parser)]
#[command(name = "attend", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Continue a text
    Generate(generate::GenerateArgs),
    /// Show what a head attends to, for a text or from a dump
    Map(map::MapArgs),
    /// Look at attention in a browser: of a dump, or of a text
    View(view::ViewArgs),
    /// Score what each head does, or rank heads by what is lost without each
    Heads(heads::HeadsArgs),
    /// Show how far two runs' heads are apart on the same text
    Compare(compare::CompareArgs),
    /// Check a dump of attention, or convert it to NumPy or CSV
    Dump(dump::DumpArgs),
    /// Measure tokens per second, with and without capturing attention
    Bench(bench::BenchArgs),
    /// Measure how well a model predicts a text
    Perplexity(perplexity::PerplexityArgs),
    /// Write a model again with its weights in another type
    Convert(convert::ConvertArgs),
    /// Describe a model
    Info(info::InfoArgs),
    /// Print a completion script for a shell
    Completions(shell::CompletionsArgs),
    /// Print the manual page (roff)
    Man,
}

/// The exit code of a wrong call, as clap's.
const USAGE: u8 = 2;
const FAILURE: u8 = 1;
/// As a shell reports a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// How a command ended when nothing went wrong.
enum Outcome {
    Done,
    Interrupted,
}

pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Generate(args) => generate::run(args),
        Command::Map(args) => map::run(args),
        Command::View(args) => view::run(args),
        Command::Heads(args) => heads::run(args),
        Command::Compare(args) => compare::run(args),
        Command::Dump(args) => dump::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Perplexity(args) => perplexity::run(args),
        Command::Convert(args) => convert::run(args),
        Command::Info(args) => info::run(args),
        Command::Completions(args) => shell::completions(args),
        Command::Man => shell::man(),
    };
    match result {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Interrupted) => ExitCode::from(INTERRUPTED),
        // Whoever read our output has had enough: not a failure.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // With standard error gone too there is nobody left to tell.
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::from(if is_usage(&error) { USAGE } else { FAILURE })
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn is_usage(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<attend::Error>(), Some(attend::Error::Usage(_)))
}

/// A wrong call: exit code 2.
fn usage(message: impl Into<String>) -> anyhow::Error {
    attend::Error::Usage(message.into()).into()
}
