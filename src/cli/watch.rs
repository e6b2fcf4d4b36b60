//! `--watch`: what a head looks at, redrawn on the terminal while a text is generated.
//!
//! The text under way is drawn in place with its tokens shaded; at the end only the text stays, as it
//! would stand there without `--watch`.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use attend::capture::{LastRow, TokenRecord};
use attend::model::ModelConfig;
use attend::report::ColourDepth;
use attend::report::watch::{Frame, Piece};
use clap::Args;
use terminal_size::{Height, Width, terminal_size};

use super::output::{STOPPING, note, print};
use super::usage;

#[derive(Args)]
pub struct WatchArgs {
    /// Show on the terminal which earlier tokens the head looks at while it writes, such as 5.1 (layer.head)
    /// or 5 (the mean over a layer's heads) [default: the mean over all heads of all layers]. The first
    /// token, where heads park attention that they have no use for, is named and not shaded
    #[arg(long, value_name = "LAYER.HEAD", num_args = 0..=1, require_equals = true,
          default_missing_value = "", conflicts_with = "json")]
    watch: Option<String>,
}

/// Wide enough for a word and its number, where the terminal does not say.
const USUAL: (usize, usize) = (80, 24);

/// A text being watched.
pub struct Watch {
    pub row: LastRow,
    of: String,
    colour: ColourDepth,
    pieces: Vec<Piece>,
    /// What stays at the end.
    text: String,
    /// Lines drawn, the last of them without its end.
    drawn: usize,
    interrupt: Arc<AtomicBool>,
    /// Whether the note of an interrupt stands under the lines drawn.
    noted: bool,
}

impl WatchArgs {
    /// Checks the head against the model. `None` where nothing is to be watched, or there is no
    /// terminal to draw on, which is said.
    pub fn resolve(&self, config: &ModelConfig) -> Result<Option<Watch>> {
        let Some(asked) = &self.watch else { return Ok(None) };
        let (layer, head) = parse(asked, config)?;
        let dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
        if !std::io::stdout().is_terminal() || dumb {
            note(
                "--watch draws on a terminal, and standard output is none that can: the text comes without it",
            );
            return Ok(None);
        }
        let of = match (layer, head) {
            (Some(layer), Some(head)) => format!("head {layer}.{head}"),
            (Some(layer), None) => format!("layer {layer}, mean of {} heads", config.heads),
            _ => format!("mean of all {} heads", config.layers * config.heads),
        };
        Ok(Some(Watch {
            row: LastRow::of(layer, head),
            of,
            colour: ColourDepth::from_environment(true),
            pieces: vec![],
            text: String::new(),
            drawn: 0,
            interrupt: Arc::default(),
            noted: false,
        }))
    }
}

/// Nothing, `LAYER` or `LAYER.HEAD`.
fn parse(asked: &str, config: &ModelConfig) -> Result<(Option<usize>, Option<usize>)> {
    if asked.is_empty() {
        return Ok((None, None));
    }
    let (layer, head) = asked.split_once('.').map_or((asked, None), |(layer, head)| (layer, Some(head)));
    let number = |text: &str, what: &str, count: usize| match text.parse::<usize>() {
        Ok(number) if number < count => Ok(number),
        Ok(number) => Err(usage(format!(
            "--watch={asked}: there is no {what} {number}; this model has {count}, numbered 0 to {}",
            count - 1
        ))),
        Err(_) => {
            Err(usage(format!("--watch={asked}: expected a layer and a head, such as 5.1, or a layer")))
        }
    };
    let layer = number(layer, "layer", config.layers)?;
    let head = head.map(|head| number(head, "head", config.heads)).transpose()?;
    Ok((Some(layer), head))
}

impl Watch {
    /// The tokens before the first that is generated; and the flag that Ctrl-C raises, whose note then
    /// stands under what is drawn.
    pub fn start(&mut self, prompt: &[TokenRecord], interrupt: Arc<AtomicBool>) {
        self.interrupt = interrupt;
        self.pieces.extend(prompt.iter().map(|token| Piece::new(&token.bytes, token.id)));
    }

    /// Text that stays at the end.
    pub fn keep(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// A token was chosen, behind the row that was observed last.
    pub fn show(&mut self, bytes: &[u8], id: u32) -> Result<()> {
        self.pieces.push(Piece::new(bytes, id));
        let (width, height) = terminal_size()
            .map_or(USUAL, |(Width(width), Height(height))| (usize::from(width), usize::from(height)));
        let weights = self.row.weights();
        let frame = Frame { pieces: &self.pieces, weights: &weights, of: &self.of, colour: self.colour };
        // A cursor behind the last column is in one place on one terminal and in another on the next.
        let lines = frame.lines(width.saturating_sub(1), height.saturating_sub(1));
        // Each line is written over the one before, so that nothing flickers.
        let drawing = format!("{}{}\x1b[K\x1b[J", self.back(width), lines.join("\x1b[K\r\n"));
        self.drawn = lines.len();
        print(&drawing)
    }

    /// To the start of what is drawn.
    fn back(&mut self, width: usize) -> String {
        let mut up = self.drawn.saturating_sub(1);
        if !self.noted && self.interrupt.load(Ordering::Relaxed) {
            self.noted = true;
            up += 1 + STOPPING.len().div_ceil(width.max(1));
        }
        if up == 0 { "\r".into() } else { format!("\r\x1b[{up}A") }
    }

    /// Takes away what was drawn; the text stays. Answers whether it ends its line.
    pub fn finish(mut self) -> Result<bool> {
        let width = terminal_size().map_or(USUAL.0, |(Width(width), _)| usize::from(width));
        let back = self.back(width);
        print(&format!("{back}\x1b[J{}", self.text))?;
        Ok(self.text.is_empty() || self.text.ends_with('\n'))
    }
}
