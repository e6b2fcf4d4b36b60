//! Whether to speculate: `--speculate[=N]`, and how it went.

use attend::generation::Acceptance;
use clap::Args;

use super::output::counted;

#[derive(Args)]
pub struct SpeculateArgs {
    /// Guess up to N tokens from what followed the last ones before, and check them in one pass: the
    /// same text, sooner where it repeats itself or the prompt [default: off; without a number: 16]
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "16",
          value_parser = clap::value_parser!(u16).range(1..=64))]
    pub speculate: Option<u16>,
}

impl SpeculateArgs {
    /// Tokens guessed at most; 0: none.
    pub fn most(&self) -> usize {
        self.speculate.map_or(0, usize::from)
    }
}

/// `speculation: 120 of 200 drafted tokens accepted, 2.1 tokens a pass`.
pub fn describe(acceptance: Acceptance) -> String {
    format!(
        "speculation: {} of {} accepted, {:.1} tokens a pass",
        acceptance.accepted,
        counted(acceptance.drafted, "drafted token"),
        acceptance.tokens_per_pass()
    )
}
