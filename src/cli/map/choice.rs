//! Which maps `attend map` shows, and what is said of them.

use std::ops::Range;

use anyhow::Result;
use attend::capture::Rows;
use attend::model::Mask;
use attend::report::MapOf;
use attend::report::picture::Arrangement;

use super::super::output::counted;
use super::super::usage;
use super::source::Facts;
use super::{MapArgs, Show, View};

/// The maps that are shown.
pub struct Choice {
    /// In the order of their layers.
    pub maps: Vec<MapOf>,
    pub arrangement: Arrangement,
    /// `layer 3 of 12, head 4`.
    pub place: String,
    /// What the numbers of a row come to.
    pub sums: String,
}

/// What contradicts itself, before anything is opened.
pub fn check(args: &MapArgs) -> Result<()> {
    let show = args.files.show;
    let name = if show == Show::Layer { "layer" } else { "all" };
    let files = &args.files;
    let in_a_file = files.png.is_some() || files.svg.is_some() || files.csv.is_some() || files.npy.is_some();
    match (args.view, show, args.layer, args.head) {
        (View::Rollout, Show::Head, _, Some(head)) => Err(usage(format!(
            "--view rollout goes through all heads of the layers up to --layer: leave --head {head} away"
        ))),
        (View::Rollout, Show::Layer | Show::All, ..) => Err(usage(format!(
            "--view rollout is one map of all heads of the layers up to --layer: leave --show {name} away"
        ))),
        (_, Show::Layer, _, Some(head)) => {
            Err(usage(format!("--show layer has all heads of the layer: leave --head {head} away")))
        }
        (_, Show::All, Some(_), _) | (_, Show::All, _, Some(_)) => {
            Err(usage("--show all has all layers and heads: leave --layer and --head away"))
        }
        (_, Show::Layer | Show::All, ..) if !in_a_file => {
            Err(usage(format!("--show {name} is for files: give --png FILE, --svg, --csv or --npy besides")))
        }
        _ => Ok(()),
    }
}

/// The maps that the arguments ask for.
pub fn choose(args: &MapArgs, facts: &Facts) -> Result<Choice> {
    let layer = args.layer.unwrap_or_else(|| facts.last_layer());
    let heads = facts.heads_of(layer);
    check_head(args.head, heads)?;
    let one = |layer, head: &usize| MapOf { layer, head: Some(*head) };
    let (maps, arrangement, what) = match args.files.show {
        Show::Head => {
            // The mean of one head is that head.
            let head = args.head.or(match heads {
                [head] if args.view != View::Rollout => Some(*head),
                _ => None,
            });
            let of_heads = of_heads(head, heads, facts.all_heads);
            let what = format!("layer {layer} of {}, {of_heads}", facts.layers);
            (vec![MapOf { layer, head }], Arrangement::One, what)
        }
        Show::Layer => {
            let titles = heads.iter().map(|head| format!("head {head}")).collect();
            let what = format!("layer {layer} of {}, {}", facts.layers, counted(heads.len(), "head"));
            (heads.iter().map(|head| one(layer, head)).collect(), Arrangement::Grid(titles), what)
        }
        Show::All => {
            let maps = facts.heads.iter().flat_map(|(layer, heads)| heads.iter().map(|h| one(*layer, h)));
            let maps: Vec<MapOf> = maps.collect();
            let mut columns: Vec<usize> = maps.iter().filter_map(|map| map.head).collect();
            columns.sort_unstable();
            columns.dedup();
            let layers: Vec<usize> = facts.heads.iter().map(|(layer, _)| *layer).collect();
            let place = |map: &MapOf| {
                let line = layers.iter().position(|layer| *layer == map.layer)?;
                Some((line, columns.iter().position(|head| Some(*head) == map.head)?))
            };
            let places = maps.iter().filter_map(place).collect();
            let what = format!("{} of {}", counted(maps.len(), "head"), counted(layers.len(), "layer"));
            (maps, Arrangement::Overview { layers, heads: columns, places }, what)
        }
    };
    let (place, sums) = match args.view {
        View::Rollout => (format!("rollout through layers 0 to {layer} of {}", facts.layers), ""),
        View::Weights => (what, ""),
        View::ValueWeighted => {
            (format!("{what}, weighted by values"), "a cell is the norm of what the key adds to the stream")
        }
    };
    let sums = match (args.look.hide_first, sums) {
        (0, "") => "each row sums to 1".into(),
        (0, sums) => sums.into(),
        (hidden, _) => {
            let keys = if hidden == 1 { "key".into() } else { format!("{hidden} keys") };
            format!("first {keys} hidden, the rest of each row brought back to a sum of 1")
        }
    };
    Ok(Choice { maps, arrangement, place, sums })
}

fn of_heads(head: Option<usize>, heads: &[usize], all: usize) -> String {
    match head {
        Some(head) => format!("head {head}"),
        None if heads.len() == all => format!("mean of {all} heads"),
        None => {
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

/// What a query may attend to.
pub fn of_mask(facts: &Facts) -> String {
    let of_mask = match facts.mask {
        Mask::Causal => "causal mask: a token attends to itself and what comes before it",
        Mask::None => "no mask: every token attends to every token",
    };
    let though = match (facts.mask, facts.learned) {
        (Mask::None, Some(Mask::Causal)) => ", though the model learned with the causal mask",
        (Mask::Causal, Some(Mask::None)) => ", though the model learned without a mask",
        _ => "",
    };
    format!("{of_mask}{though}")
}

/// Positions from the first row's query to behind the last's.
pub fn span(rows: &Rows) -> Range<usize> {
    rows.first..if rows.count == 0 { rows.first } else { rows.position(rows.count - 1) + 1 }
}

/// A range asked for, checked; positions outside are an error, not an empty table.
pub fn within(
    asked: Option<&Range<usize>>,
    whole: &Range<usize>,
    option: &str,
) -> Result<Option<Range<usize>>> {
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
