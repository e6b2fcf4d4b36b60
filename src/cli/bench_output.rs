//! Rows of `attend bench`, printed in five ways from one struct.

use std::fmt::Write as _;

use anyhow::Result;
use attend::generation::Acceptance;
use attend::measure::Speed;
use clap::ValueEnum;
use serde::Serialize;

use super::output::{counted, csv_quoted, megabytes};
use super::speculate_args::describe;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Md,
    Csv,
    Json,
    Jsonl,
}

/// One test of one model in one way.
#[derive(Serialize)]
pub struct Row {
    /// attend's.
    pub version: &'static str,
    pub cpu: String,
    pub model: String,
    pub family: String,
    pub parameters: usize,
    /// How weights are held.
    pub dtype: &'static str,
    /// How keys and values are held.
    pub cache_dtype: &'static str,
    /// Of keys and values, for each position.
    pub cache_bytes_per_token: usize,
    pub device: &'static str,
    /// Whose arithmetic: the kernels' tier, or `candle`.
    pub kernels: &'static str,
    pub threads: usize,
    /// From the open checkpoint to weights that are ready.
    pub load_seconds: f64,
    /// Bytes that the process held at most meanwhile (the mapped checkpoint among them).
    pub load_peak_memory: Option<u64>,
    /// `pp512`, `tg128`, `tg128 @ d2048`.
    pub test: String,
    pub depth: usize,
    pub tokens_per_second: Speed,
    /// With every layer's and head's map written to disk.
    pub tokens_per_second_capturing: Option<Speed>,
    /// Weights, and keys and values, that a token reads at least.
    pub bytes_per_token: usize,
    /// Bytes a second, read sequentially with these threads.
    pub memory_bandwidth: f64,
    /// `bytes_per_token` · tokens per second ÷ `memory_bandwidth`; on the CPU.
    pub bandwidth_share: Option<f64>,
    /// Bytes that the process held at most during the test (the mapped checkpoint among them),
    /// without capturing.
    pub peak_memory: Option<u64>,
    /// In the rows that speculate.
    pub speculation: Option<Speculation>,
}

/// What speculation gave.
#[derive(Serialize)]
pub struct Speculation {
    #[serde(flatten)]
    pub acceptance: Acceptance,
    /// How many times as fast as without it, measured by turns.
    pub gain: f64,
}

const HEADINGS: [&str; 9] =
    ["model", "dtype", "threads", "test", "t/s", "t/s capturing", "MB/token", "of bandwidth", "peak memory"];

impl Row {
    fn cells(&self) -> [String; 9] {
        let speed = |speed: &Speed| format!("{:.2} ± {:.2}", speed.mean, speed.deviation);
        [
            self.model.clone(),
            self.dtype.into(),
            self.threads.to_string(),
            self.test.clone(),
            speed(&self.tokens_per_second),
            self.tokens_per_second_capturing.as_ref().map_or_else(|| "-".into(), speed),
            format!("{:.2}", self.bytes_per_token as f64 / 1e6),
            self.bandwidth_share.map_or_else(|| "-".into(), |share| format!("{:.0} %", 100.0 * share)),
            self.peak_memory.map_or_else(|| "-".into(), megabytes),
        ]
    }
}

/// All rows in a format (for JSON lines nothing: those were printed as they came).
pub fn write_rows(rows: &[Row], format: Format) -> Result<String> {
    let cells: Vec<[String; 9]> = rows.iter().map(Row::cells).collect();
    Ok(match format {
        Format::Jsonl => String::new(),
        Format::Json => format!("{}\n", serde_json::to_string_pretty(rows)?),
        Format::Md => markdown(&cells) + &footer(rows),
        Format::Table => table(&cells) + &footer(rows),
        Format::Csv => csv(rows),
    })
}

fn markdown(cells: &[[String; 9]]) -> String {
    let mut out = format!("| {} |\n|{}\n", HEADINGS.join(" | "), " --- |".repeat(HEADINGS.len()));
    for row in cells {
        let _ = writeln!(out, "| {} |", row.join(" | "));
    }
    out
}

fn table(cells: &[[String; 9]]) -> String {
    let width = |column: usize| {
        let longest = cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        longest.max(HEADINGS[column].chars().count())
    };
    let line = |cell: &dyn Fn(usize) -> String| -> String {
        let cells: Vec<String> = (0..HEADINGS.len())
            .map(|column| {
                let text = cell(column);
                let padding = " ".repeat(width(column) - text.chars().count());
                // Names on the left, numbers on the right.
                if column < 2 { format!("{text}{padding}") } else { format!("{padding}{text}") }
            })
            .collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    let mut out = line(&|column| HEADINGS[column].into());
    cells.iter().for_each(|row| out.push_str(&line(&|column| row[column].clone())));
    out
}

/// The machine, what the shares are of, and what a position takes in the cache.
fn footer(rows: &[Row]) -> String {
    let mut out = String::new();
    let mut threads = 0;
    for row in rows.iter().filter(|row| std::mem::replace(&mut threads, row.threads) != row.threads) {
        let _ = writeln!(
            out,
            "\n{}, {}, {}: {:.1} GB/s from memory with {}",
            row.cpu,
            row.device,
            row.kernels,
            row.memory_bandwidth / 1e9,
            counted(row.threads, "thread"),
        );
    }
    let mut loaded = (0, "");
    for row in rows.iter().filter(|row| {
        let of = (row.threads, row.dtype);
        std::mem::replace(&mut loaded, of) != of
    }) {
        let _ = write!(out, "loading as {}: {:.2} s", row.dtype, row.load_seconds);
        let _ = match row.load_peak_memory {
            Some(peak) => writeln!(out, ", at most {} held", megabytes(peak)),
            None => writeln!(out),
        };
    }
    if let Some(row) = rows.first() {
        let cache = megabytes(row.cache_bytes_per_token as u64);
        let _ = writeln!(out, "keys and values of a token: {cache} in {}", row.cache_dtype);
    }
    for row in rows {
        if let Some(Speculation { acceptance, gain }) = &row.speculation {
            let _ = writeln!(
                out,
                "{}, {}: {}, {gain:.2} times as fast",
                row.dtype,
                row.test,
                describe(*acceptance)
            );
        }
    }
    if rows.iter().any(|row| row.bandwidth_share.is_some_and(|share| share > 1.0)) {
        out.push_str("above 100 %: some of the model is read from the CPU's cache\n");
    }
    out
}

fn csv(rows: &[Row]) -> String {
    let mut out = String::from(
        "version,cpu,model,family,parameters,dtype,cache_dtype,cache_bytes_per_token,device,kernels,threads,test,depth,tokens_per_second,\
         tokens_per_second_deviation,tokens_per_second_capturing,tokens_per_second_capturing_deviation,\
         bytes_per_token,memory_bandwidth,bandwidth_share,peak_memory,passes,drafted,accepted,gain,\
         load_seconds,load_peak_memory\n",
    );
    for row in rows {
        let capturing = row.tokens_per_second_capturing.as_ref();
        let optional = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
        let speculation = row.speculation.as_ref();
        let count = |of: fn(&Acceptance) -> usize| {
            speculation.map_or_else(String::new, |speculation| of(&speculation.acceptance).to_string())
        };
        let fields = [
            row.version.to_owned(),
            csv_quoted(&row.cpu),
            csv_quoted(&row.model),
            csv_quoted(&row.family),
            row.parameters.to_string(),
            row.dtype.into(),
            row.cache_dtype.into(),
            row.cache_bytes_per_token.to_string(),
            row.device.into(),
            csv_quoted(row.kernels),
            row.threads.to_string(),
            csv_quoted(&row.test),
            row.depth.to_string(),
            row.tokens_per_second.mean.to_string(),
            row.tokens_per_second.deviation.to_string(),
            optional(capturing.map(|speed| speed.mean)),
            optional(capturing.map(|speed| speed.deviation)),
            row.bytes_per_token.to_string(),
            row.memory_bandwidth.to_string(),
            optional(row.bandwidth_share),
            row.peak_memory.map_or_else(String::new, |peak| peak.to_string()),
            count(|acceptance| acceptance.passes),
            count(|acceptance| acceptance.drafted),
            count(|acceptance| acceptance.accepted),
            optional(speculation.map(|speculation| speculation.gain)),
            row.load_seconds.to_string(),
            row.load_peak_memory.map_or_else(String::new, |peak| peak.to_string()),
        ];
        let _ = writeln!(out, "{}", fields.join(","));
    }
    out
}
