//! `attend map`: attention maps of a text as the model reads it or of a dump, as a table in the terminal
//! or as files. [`source`] gives rows, [`choice`] says of which maps, [`terminal`] and [`files`] show them.

mod choice;
mod files;
mod source;
mod terminal;

use std::ffi::OsString;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::Result;
use attend::report::html::Chosen;
use attend::report::picture::{Curve, Palette};
use clap::{Args, ValueEnum};

use self::source::Source;
use super::ablate_args::AblateArgs;
use super::capture_args::CaptureArgs;
use super::model_args::ModelArgs;
use super::prompt_args::PromptArgs;
use super::{Outcome, page, usage};

#[derive(Args)]
pub struct MapArgs {
    /// A text, or the folder of a dump [default: standard input]
    #[arg(value_name = "TEXT|DIR")]
    positional: Option<OsString>,
    #[command(flatten)]
    prompt: PromptArgs,
    #[command(flatten)]
    model: ModelArgs,
    /// Layer to show [default: the last]
    #[arg(long, value_name = "N")]
    layer: Option<usize>,
    /// Head to show [default: the mean over all heads]
    #[arg(long, value_name = "N")]
    head: Option<usize>,
    /// Step of a dump to show; 0 is the prompt
    #[arg(long, value_name = "N")]
    step: Option<usize>,
    /// What a query may attend to: earlier positions and its own, or every position [default: what the
    /// model learned with]
    #[arg(long, value_enum)]
    mask: Option<MaskArg>,
    /// Queries (rows) to show, such as 10-20 [default: what fits; in a file all]
    #[arg(long, value_name = "A-B", value_parser = positions)]
    queries: Option<Range<usize>>,
    /// Keys (columns) to show, such as 0-9 [default: what fits; in a file all]
    #[arg(long, value_name = "A-B", value_parser = positions)]
    keys: Option<Range<usize>>,
    /// What to show: the weights; value-weighted, how much of each key's value arrives (Kobayashi et al.
    /// 2020); or rollout, what the layers up to this one together attend to (Abnar and Zuidema 2020)
    #[arg(long, value_enum, default_value_t = View::Weights)]
    view: View,
    #[command(flatten)]
    ablate: AblateArgs,
    #[command(flatten)]
    look: LookArgs,
    #[command(flatten)]
    files: FileArgs,
    /// Write a page with all heads into one file instead, to be opened in a browser; where it would
    /// pass 50 MB, --layer and --head choose whose rows it keeps
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "step", "queries", "keys", "mask", "view", "ablate", "attention", "show", "colour_map", "scale",
        "hide_first", "png", "svg", "csv", "npy",
    ])]
    html: Option<PathBuf>,
    #[command(flatten)]
    capture: CaptureArgs,
}

/// How weights look.
#[derive(Args)]
struct LookArgs {
    /// Colours, from little to much
    #[arg(long, visible_alias = "cmap", alias = "color-map", value_enum, value_name = "NAME", default_value_t = ColourMapArg::Cividis)]
    colour_map: ColourMapArg,
    /// How weights are spread over the colours: linear from 0 to 1, or log from 2^-16 to 1
    #[arg(long, value_enum, default_value_t = ScaleArg::Linear)]
    scale: ScaleArg,
    /// Leave out the first K keys, where heads park attention they have no use for, and bring the rest of
    /// each row back to a sum of 1
    #[arg(long, value_name = "K", default_value_t = 0)]
    hide_first: usize,
}

/// Files instead of the table.
#[derive(Args)]
struct FileArgs {
    /// What a file shows: one map (--head, or the mean over heads); all heads of a layer side by side; or
    /// all layers by all heads
    #[arg(long, value_enum, default_value_t = Show::Head)]
    show: Show,
    /// Draw a picture; of a map of more than 1,024 tokens (400 or fewer side by side, 128 or fewer in an
    /// overview of all) a point is the maximum of a block of weights, as its title says
    #[arg(long, value_name = "FILE")]
    png: Option<PathBuf>,
    /// Draw the same picture with text as text
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Write weights other than 0 as lines of layer,head,query,key,weight,query_token,key_token
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write one NumPy array of f32: [queries, keys], of a layer [heads, queries, keys], of all [layers,
    /// heads, queries, keys]
    #[arg(long, value_name = "FILE")]
    npy: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum View {
    Weights,
    Rollout,
    ValueWeighted,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MaskArg {
    Causal,
    None,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Show {
    Head,
    Layer,
    All,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ColourMapArg {
    Cividis,
    Viridis,
    #[value(alias = "gray")]
    Grey,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ScaleArg {
    Linear,
    Log,
}

impl LookArgs {
    fn palette(&self) -> Palette {
        match self.colour_map {
            ColourMapArg::Cividis => Palette::Cividis,
            ColourMapArg::Viridis => Palette::Viridis,
            ColourMapArg::Grey => Palette::Grey,
        }
    }

    fn curve(&self) -> Curve {
        match self.scale {
            ScaleArg::Linear => Curve::Linear,
            ScaleArg::Log => Curve::Log,
        }
    }
}

/// `7` or `3-7`, both ends included.
fn positions(text: &str) -> Result<Range<usize>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.trim().parse::<usize>(), last.trim().parse::<usize>()) {
        (Ok(first), Ok(last)) if first <= last && last < usize::MAX => Ok(first..last + 1),
        _ => Err("expected a position, or a range such as 3-7".into()),
    }
}

pub fn run(args: MapArgs) -> Result<Outcome> {
    if let Some(file) = &args.html {
        return write_page(&args, file);
    }
    choice::check(&args)?;
    // Before any work: a place that cannot be written is a pity later.
    let files = files::Files::begin(&args.files)?;
    let source = Source::open(&args)?;
    let choice = choice::choose(&args, source.facts())?;
    if files.is_empty() {
        terminal::show(&args, source, choice)?;
    } else {
        files.write(&args, source, choice)?;
    }
    Ok(Outcome::Done)
}

/// `--html`: the page of a dump or a text.
fn write_page(args: &MapArgs, file: &Path) -> Result<Outcome> {
    let shown = page::open(args.positional.as_deref(), &args.prompt, &args.model)?;
    let wanted = |number: Option<usize>, known: usize| number.is_none_or(|number| number == known);
    let heads = shown.page.maps(0).map_or(&[][..], |maps| maps.heads());
    let heads = heads.iter().map(|head| (head.layer, head.head));
    let heads: Vec<_> = heads.filter(|(l, h)| wanted(args.layer, *l) && wanted(args.head, *h)).collect();
    if heads.is_empty() {
        return Err(usage("--layer and --head together name no head of these maps"));
    }
    let chosen = match (args.layer, args.head) {
        (None, None) => Chosen::Best,
        _ => Chosen::Heads(heads),
    };
    page::write_file(&shown, &chosen, file)?;
    Ok(Outcome::Done)
}
