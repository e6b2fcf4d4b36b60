//! The command: parses arguments, calls one of `cli`'s commands, prints its error.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
