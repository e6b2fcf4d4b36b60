//! `attend map`: an attention map as a table, of a text as the model reads it or of a dump.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::Result;
use attend::capture::memory::Both;
use attend::capture::{Dump, LayerMap, QuerySelection, ShownMap, TokenRecord};
use attend::model::{AttentionObserver, AttentionRows, Forward, Mask};
use attend::report::html::Chosen;
use attend::report::table::Window;
use attend::report::{ColourDepth, MapTable, Rollout, ValueWeighted, label};
use clap::{Args, ValueEnum};
use terminal_size::{Height, Width, terminal_size};
use unicode_width::UnicodeWidthStr;

use super::ablate_args::AblateArgs;
use super::capture_args::{CaptureArgs, RunInfo};
use super::model_args::{CacheDtype, ComputeArgs, Kernels, ModelArgs};
use super::output::{note, print};
use super::progress::load;
use super::prompt_args::{PromptArgs, records};
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
    /// Queries (rows) to show, such as 10-20 [default: what fits]
    #[arg(long, value_name = "A-B", value_parser = positions)]
    queries: Option<Range<usize>>,
    /// Keys (columns) to show, such as 0-9 [default: what fits]
    #[arg(long, value_name = "A-B", value_parser = positions)]
    keys: Option<Range<usize>>,
    /// What to show: the weights; value-weighted, how much of each key's value arrives (Kobayashi et al.
    /// 2020); or rollout, what the layers up to this one together attend to (Abnar and Zuidema 2020)
    #[arg(long, value_enum, default_value_t = View::Weights)]
    view: View,
    #[command(flatten)]
    ablate: AblateArgs,
    /// Write a page with all heads into one file instead, to be opened in a browser; where it would
    /// pass 50 MB, --layer and --head choose whose rows it keeps
    #[arg(long, value_name = "FILE", conflicts_with_all = ["step", "queries", "keys", "mask", "view", "ablate", "attention"])]
    html: Option<PathBuf>,
    #[command(flatten)]
    capture: CaptureArgs,
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

/// `7` or `3-7`, both ends included.
fn positions(text: &str) -> Result<Range<usize>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.trim().parse::<usize>(), last.trim().parse::<usize>()) {
        (Ok(first), Ok(last)) if first <= last && last < usize::MAX => Ok(first..last + 1),
        _ => Err("expected a position, or a range such as 3-7".into()),
    }
}

/// A map and what it is of.
struct Shown {
    map: ShownMap,
    /// `head 3`, or of how many heads it is the mean.
    of_heads: String,
    labels: Vec<String>,
    mask: Mask,
    /// The mask that the model learned with, where that is known.
    learned: Option<Mask>,
    layers: usize,
    /// What stands above the table.
    of: String,
    view: View,
}

pub fn run(args: MapArgs) -> Result<Outcome> {
    if let Some(file) = &args.html {
        return write_page(&args, file);
    }
    let dump = args.positional.as_ref().map(PathBuf::from).filter(|path| Dump::is_at(path));
    let shown = match &dump {
        Some(folder) => from_dump(&args, folder)?,
        None => {
            if let Some(folder) = args.positional.as_ref().map(Path::new).filter(|path| path.is_dir()) {
                if folder.join("config.json").is_file() {
                    return Err(usage(format!(
                        "{} is a model, not a text or a dump: give it with -m, and a text",
                        folder.display()
                    )));
                }
                note(&format!("{} is a folder without a dump; it is read as a text", folder.display()));
            }
            from_text(&args)?
        }
    };
    print(&render(&args, &shown)?)?;
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

fn from_dump(args: &MapArgs, folder: &Path) -> Result<Shown> {
    let ComputeArgs { dtype, cache_dtype, threads, device, kernels } = &args.model.compute;
    let PromptArgs { prompt_option, file, prompt_ids } = &args.prompt;
    if prompt_option.is_some() || file.is_some() || prompt_ids.is_some() {
        return Err(usage(format!(
            "{} is a dump, and there is a text besides: give one of them",
            folder.display()
        )));
    }
    let runs_a_model = args.model.model.is_some() || args.mask.is_some() || args.capture.attention.is_some();
    let runs_a_model = runs_a_model || *cache_dtype != CacheDtype::F32 || args.ablate.is_given();
    if runs_a_model || dtype.is_some() || threads.is_some() || device != "auto" || *kernels != Kernels::Native
    {
        return Err(usage(format!(
            "{} is a dump, which is read without a model: only --step, --layer, --head, --view, --queries and --keys apply",
            folder.display()
        )));
    }
    let dump = Dump::open(folder)?;
    let manifest = dump.manifest();
    let captured: Vec<usize> = manifest.layers.iter().map(|captured| captured.layer).collect();
    let layer = args.layer.or(captured.last().copied()).unwrap_or(0);
    let step = args.step.unwrap_or(0);
    check_view(args)?;
    let all = dump.layer_map(step, layer)?;
    if all.queries == 0 {
        let problem = format!("step {step} has no recorded query: --queries was {}", manifest.queries);
        return Err(attend::Error::Dump { path: folder.to_path_buf(), problem }.into());
    }
    let heads = manifest.layers.iter().find(|l| l.layer == layer).map_or_else(Vec::new, |l| l.heads.clone());
    check_head(args.head, &heads)?;
    let place = args.head.and_then(|head| heads.iter().position(|known| *known == head));
    let map = match args.view {
        View::Weights => all.shown(place),
        View::Rollout => rollout_of_dump(&dump, folder, step, layer)?,
        View::ValueWeighted => {
            return Err(usage(
                "a dump holds weights and no values; --view value-weighted needs the model: `attend map -m MODEL TEXT`",
            ));
        }
    };
    let tokens = dump.tokens();
    let labels = (0..map.keys).map(|position| token_label(tokens.get(position), position)).collect();
    Ok(Shown {
        of_heads: of_heads(args.head, &heads, manifest.model.heads),
        labels,
        mask: manifest.mask,
        learned: None,
        layers: manifest.model.layers,
        of: format!("{}, step {step} of {}, ", manifest.model.name, dump.steps().len()),
        view: args.view,
        map,
    })
}

fn token_label(token: Option<&TokenRecord>, position: usize) -> String {
    match token {
        Some(token) => label(&token.bytes, token.id),
        None => format!("@{position}"),
    }
}

fn from_text(args: &MapArgs) -> Result<Shown> {
    if args.step.is_some() {
        return Err(usage("--step is for dumps; a text has one map"));
    }
    let source = args.prompt.read(args.positional.clone())?;
    let checkpoint = args.model.open()?;
    let prompt = source.tokens(&checkpoint)?;
    let config = checkpoint.config();
    let layer = args.layer.unwrap_or(config.layers - 1);
    if layer >= config.layers {
        return Err(usage(format!(
            "--layer {layer}: the model has {}, numbered 0 to {}",
            config.layers,
            config.layers - 1
        )));
    }
    check_head(args.head, &(0..config.heads).collect::<Vec<_>>())?;
    check_view(args)?;
    let ablated = args.ablate.resolve(config)?;
    if prompt.ids.len() > config.context {
        return Err(attend::Error::ContextFull {
            needed: prompt.ids.len(),
            context: config.context,
            hint: "that is the model's own context; shorten the text".into(),
        }
        .into());
    }
    let mask = match args.mask {
        Some(MaskArg::None) => Mask::None,
        Some(MaskArg::Causal) => Mask::Causal,
        None => config.mask,
    };
    let options = args.model.compute.resolve()?;
    let element = checkpoint.element(options.element)?;
    let plan = args.capture.plan(None, &checkpoint, args.model.model.as_deref())?;
    plan.iter().try_for_each(|plan| plan.announce(&checkpoint, prompt.ids.len(), 0))?;
    let decoder = load(&checkpoint, &options)?;
    let mut cache = decoder.new_cache(prompt.ids.len())?;
    if let Some(ablated) = &ablated {
        cache.silence(ablated.clone())?;
    }
    let tokens = prompt.ids.len();
    let mut map = ShownMap::of(layer, args.head);
    let mut rollout = (args.view == View::Rollout).then(|| Rollout::new(layer, tokens)).transpose()?;
    let mut weighted = (args.view == View::ValueWeighted).then(|| ValueWeighted::of(layer, args.head));
    let view: &mut dyn AttentionObserver = match (&mut rollout, &mut weighted) {
        (Some(rollout), _) => rollout,
        (_, Some(weighted)) => weighted,
        _ => &mut map,
    };
    let mut both;
    let run = RunInfo { element, mask, sampling: None, ablated: ablated.as_ref() };
    let mut recorder = plan.map(|plan| plan.start(&checkpoint, &decoder, &prompt, &run)).transpose()?;
    let observer: &mut dyn AttentionObserver = match &mut recorder {
        Some(recorder) => {
            both = Both(view, recorder);
            &mut both
        }
        None => view,
    };
    decoder.forward(
        &prompt.ids,
        &mut cache,
        Forward { mask: Some(mask), observer: Some(observer), ..Forward::default() },
    )?;
    if let Some(recorder) = &mut recorder {
        recorder.flush()?;
        note(&format!("attention: {} step recorded", recorder.steps()));
    }
    let seen = match (rollout, weighted) {
        (Some(rollout), _) => Some(rollout.finish()?),
        (_, Some(weighted)) => Some(weighted.finish()),
        _ => None,
    };
    if let Some(weights) = seen {
        map = ShownMap { queries: tokens, keys: tokens, weights, ..map };
    }
    let records = records(&prompt, &checkpoint);
    Ok(Shown {
        of_heads: of_heads(args.head, &(0..config.heads).collect::<Vec<_>>(), config.heads),
        labels: records.iter().map(|token| label(&token.bytes, token.id)).collect(),
        mask,
        learned: Some(config.mask),
        layers: config.layers,
        of: format!("{}, ", checkpoint.name()),
        view: args.view,
        map,
    })
}

/// A rollout is of all heads.
fn check_view(args: &MapArgs) -> Result<()> {
    match (args.view, args.head) {
        (View::Rollout, Some(head)) => Err(usage(format!(
            "--view rollout goes through all heads of the layers up to --layer: leave --head {head} away"
        ))),
        _ => Ok(()),
    }
}

/// The rollout of a dump's text up to the end of a step; the step's rows are shown.
fn rollout_of_dump(dump: &Dump, folder: &Path, step: usize, last_layer: usize) -> Result<ShownMap> {
    let (manifest, shown) = (dump.manifest(), &dump.steps()[step]);
    if manifest.queries != QuerySelection::All {
        return Err(usage(format!(
            "{}: a rollout needs every query, and --queries was {}",
            folder.display(),
            manifest.queries
        )));
    }
    let mut rollout = Rollout::new(last_layer, shown.keys)?;
    for layer in 0..=last_layer {
        let captured = manifest.layers.iter().find(|captured| captured.layer == layer);
        if captured.is_none_or(|captured| captured.heads.len() != manifest.model.heads) {
            return Err(usage(format!(
                "{}: a rollout to layer {last_layer} needs every head of the layers up to it, and of layer {layer} \
                 not all were captured",
                folder.display()
            )));
        }
        for step in 0..=step {
            let LayerMap { layer, heads, first_query, queries, keys, weights, .. } =
                dump.layer_map(step, layer)?;
            rollout.add(AttentionRows { layer, first_query, heads, queries, keys, weights: &weights })?;
        }
    }
    let weights = rollout.finish()?.split_off(shown.first_query * shown.keys);
    let (first_query, queries, keys) = (shown.first_query, shown.queries, shown.keys);
    Ok(ShownMap { layer: last_layer, head: None, first_query, stride: 1, queries, keys, weights })
}

fn of_heads(head: Option<usize>, heads: &[usize], all: usize) -> String {
    match (head, heads) {
        (Some(head), _) | (None, &[head]) => format!("head {head}"),
        (None, heads) if heads.len() == all => format!("mean of {all} heads"),
        (None, heads) => {
            let captured: Vec<String> = heads.iter().map(usize::to_string).collect();
            format!("mean of the captured heads {}", captured.join(", "))
        }
    }
}

fn check_head(head: Option<usize>, heads: &[usize]) -> Result<()> {
    match head {
        Some(head) if !heads.contains(&head) => {
            let known: Vec<String> = heads.iter().map(usize::to_string).collect();
            Err(usage(format!("--head {head}: no such head in this layer; it has {}", known.join(", "))))
        }
        _ => Ok(()),
    }
}

fn render(args: &MapArgs, shown: &Shown) -> Result<String> {
    let Shown { map, of_heads, labels, mask, learned, layers, of, view } = shown;
    let table = MapTable {
        weights: &map.weights,
        keys: map.keys,
        first_query: map.first_query,
        stride: map.stride,
        labels,
        causal: *mask == Mask::Causal,
        colour: ColourDepth::from_environment(std::io::stdout().is_terminal()),
        clip: std::io::stdout().is_terminal(),
        brightest: match view {
            View::ValueWeighted => map.weights.iter().copied().fold(f32::MIN_POSITIVE, f32::max),
            View::Weights | View::Rollout => 1.0,
        },
    };
    let window = Window {
        queries: within(args.queries.as_ref(), &table.queries(), "--queries")?,
        keys: within(args.keys.as_ref(), &(0..map.keys), "--keys")?,
    };
    let of_mask = match mask {
        Mask::Causal => "causal mask: a token attends to itself and what comes before it",
        Mask::None => "no mask: every token attends to every token",
    };
    let though = match learned {
        Some(Mask::Causal) if *mask == Mask::None => ", though the model learned with the causal mask",
        Some(Mask::None) if *mask == Mask::Causal => ", though the model learned without a mask",
        _ => "",
    };
    let (width, height) = size();
    let (place, sums) = match view {
        View::Weights => (format!("layer {} of {layers}, {of_heads}", map.layer), "each row sums to 1"),
        View::Rollout => {
            (format!("rollout through layers 0 to {} of {layers}", map.layer), "each row sums to 1")
        }
        View::ValueWeighted => {
            let place = format!("layer {} of {layers}, {of_heads}, weighted by values", map.layer);
            (place, "a cell is the norm of what the key adds to the stream")
        }
    };
    let title = format!("{of}{place}\n{of_mask}{though}\nrows are queries, columns keys; {sums}\n");
    // The table has what the lines above it leave, wrapped as the terminal wraps them.
    let above: usize = title.lines().map(|line| line.width().div_ceil(width.max(1))).sum();
    Ok(format!("{title}\n{}", table.render(&window, width, height.saturating_sub(above + 2))))
}

/// A range asked for, checked; positions outside are an error, not an empty table.
fn within(asked: Option<&Range<usize>>, whole: &Range<usize>, option: &str) -> Result<Option<Range<usize>>> {
    match asked {
        Some(asked) if asked.start < whole.start || asked.end > whole.end => Err(usage(format!(
            "{option} {}-{}: the map has positions {}-{}",
            asked.start,
            asked.end - 1,
            whole.start,
            whole.end - 1
        ))),
        asked => Ok(asked.cloned()),
    }
}

/// Columns and lines of the terminal; where there is none, what `COLUMNS` says, or a page.
fn size() -> (usize, usize) {
    match terminal_size() {
        Some((Width(width), Height(height))) if std::io::stdout().is_terminal() => {
            (width.into(), height.into())
        }
        _ => (std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).unwrap_or(160), 60),
    }
}
