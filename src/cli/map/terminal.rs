//! One map in the terminal: a table of numbers, or coloured half-blocks where numbers do not fit.

use std::io::IsTerminal;

use anyhow::Result;
use attend::report::label::wrapped;
use attend::report::picture::Scale;
use attend::report::rows::{KeptMap, Shown};
use attend::report::table::Window;
use attend::report::{ColourDepth, MapRows, MapTable};
use terminal_size::{Height, Width, terminal_size};
use unicode_width::UnicodeWidthStr;

use super::super::output::print;
use super::choice::{Choice, of_mask, span, within};
use super::source::Source;
use super::{MapArgs, View};

pub fn show(args: &MapArgs, source: Source, choice: Choice) -> Result<()> {
    let facts = source.facts();
    let window = Window {
        queries: within(args.queries.as_ref(), &span(&facts.rows), "--queries")?,
        keys: within(args.keys.as_ref(), &(0..facts.keys), "--keys")?,
    };
    let shown = Shown {
        rows: facts.rows,
        queries: 0..facts.rows.count,
        whole_keys: facts.keys,
        keys: 0..facts.keys,
        causal: facts.mask == attend::model::Mask::Causal,
        hide_first: args.look.hide_first,
    };
    let mut kept = KeptMap::default();
    let mut rows = MapRows::new(choice.maps.clone(), shown, vec![&mut kept]);
    source.feed(args, &choice.maps, &mut rows)?;
    rows.finish()?;

    let is_terminal = std::io::stdout().is_terminal();
    let table = MapTable {
        weights: &kept.weights,
        seen: &kept.seen,
        keys: facts.keys,
        first_query: facts.rows.first,
        stride: facts.rows.stride,
        labels: &facts.labels,
        palette: args.look.palette(),
        scale: Scale {
            curve: args.look.curve(),
            brightest: brightest(args, || kept.weights.iter().copied().fold(f32::MIN_POSITIVE, f32::max)),
        },
        colour: ColourDepth::from_environment(is_terminal),
        clip: is_terminal,
    };
    let (width, height) = size();
    let mut title = format!(
        "{}, {}\n{}\nrows are queries, columns keys; {}\n",
        facts.of(),
        choice.place,
        of_mask(facts),
        choice.sums
    );
    if is_terminal {
        let lines = title.lines().flat_map(|line| wrapped(line, width));
        title = lines.map(|line| line + "\n").collect();
    }
    // The map has what the lines above it leave.
    let above: usize = title.lines().map(|line| line.width().div_ceil(width.max(1))).sum();
    let height = height.saturating_sub(above + 2);
    let map = if is_terminal && !table.fits(&window, width, height) {
        table.draw(&window, width, height)
    } else {
        table.render(&window, width, height)
    };
    print(&format!("{title}\n{map}"))
}

/// The weight that is brightest: 1, but for a view whose rows do not sum to 1 the largest.
pub fn brightest(args: &MapArgs, largest: impl FnOnce() -> f32) -> f32 {
    match args.view {
        View::ValueWeighted if args.look.hide_first == 0 => largest(),
        _ => 1.0,
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
