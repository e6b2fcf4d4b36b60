//! A map as a table of numbers in the terminal: rows are queries, columns keys.

use std::fmt::Write as _;
use std::ops::Range;

use unicode_width::UnicodeWidthStr;

use super::colour::{ColourDepth, dim, shaded};
use super::label::{cut, left, right};
use super::picture::{Palette, Scale};

/// Columns of a cell: a space, and `0.42`.
const CELL: usize = 6;
const LONGEST_LABEL: usize = 16;
/// What says that there is more than is shown.
const MORE: usize = 84;

/// One head's map (or a mean of heads), and what to show of it.
pub struct MapTable<'a> {
    /// `[queries, keys]`
    pub weights: &'a [f32],
    pub keys: usize,
    /// Position of the first query.
    pub first_query: usize,
    /// From one query to the next.
    pub stride: usize,
    /// Of every key's position (and so of every query's).
    pub labels: &'a [String],
    /// Of each row the keys that are neither masked nor hidden.
    pub seen: &'a [Range<usize>],
    pub palette: Palette,
    pub scale: Scale,
    pub colour: ColourDepth,
    /// Whether ranges that are asked for are cut to the width and height too.
    pub clip: bool,
}

/// Ranges of positions to show; `None` means as many as fit from the first on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    pub queries: Option<Range<usize>>,
    pub keys: Option<Range<usize>>,
}

impl MapTable<'_> {
    /// The position of a row's query.
    pub(super) fn query(&self, row: usize) -> usize {
        self.first_query + row * self.stride
    }

    /// From the first query's position to behind the last's.
    pub fn queries(&self) -> Range<usize> {
        let rows = self.weights.len() / self.keys;
        self.first_query..self.first_query + rows.saturating_sub(1) * self.stride + rows.min(1)
    }

    /// Of a table in so many columns and lines: columns of labels, of the positions beside them, and the
    /// rows and columns of numbers that there is room for.
    fn room(&self, width: usize, height: usize) -> (usize, usize, usize, usize) {
        let number_width = self.labels.len().saturating_sub(1).to_string().len();
        // Narrow terminals need their columns for numbers.
        let longest = (width / 2).min(width.saturating_sub(1 + CELL)).saturating_sub(number_width);
        let longest = longest.min(LONGEST_LABEL);
        let label_width = self.labels.iter().map(|label| label.width()).max().unwrap_or(0).min(longest);
        // Two lines of heading, and those that say what is left out.
        let rows = height.saturating_sub(2 + MORE.div_ceil(width.max(1))).max(1);
        let columns = (width.saturating_sub(number_width + 1 + label_width) / CELL).max(1);
        (label_width, number_width, rows, columns)
    }

    /// Whether the whole window has room as numbers.
    pub fn fits(&self, window: &Window, width: usize, height: usize) -> bool {
        let (.., rows, columns) = self.room(width, height);
        let queries = window.queries.clone().unwrap_or(self.queries());
        let keys = window.keys.as_ref().map_or(self.keys, |keys| keys.len());
        // A whole table has no line that says what is left out.
        let rows = if window == &Window::default() { rows + MORE.div_ceil(width.max(1)) } else { rows };
        queries.len().div_ceil(self.stride) <= rows && keys <= columns
    }

    /// The table, in at most `width` columns and `height` lines where the window leaves a choice.
    pub fn render(&self, window: &Window, width: usize, height: usize) -> String {
        let (label_width, number_width, rows, columns) = self.room(width, height);
        let rows = if self.fits(window, width, height) { usize::MAX / self.stride } else { rows };
        let margin = number_width + 1 + label_width;
        let fitting = |asked: &Option<Range<usize>>, whole: Range<usize>, count: usize| match asked {
            Some(asked) if !self.clip => asked.clone(),
            asked => {
                let range = asked.clone().unwrap_or(whole);
                range.start..range.end.min(range.start.saturating_add(count))
            }
        };
        let queries = fitting(&window.queries, self.queries(), rows * self.stride);
        // Of a later step, the keys next to its queries; of a prompt, the first.
        let last = self.keys.saturating_sub(columns);
        let whole = if self.first_query > 0 { last..self.keys } else { 0..self.keys };
        let keys = fitting(&window.keys, whole, columns);

        let mut out = String::new();
        let header = |text: &dyn Fn(usize) -> String| -> String {
            keys.clone().map(|key| right(&cut(&text(key), CELL - 1), CELL)).collect()
        };
        let _ = writeln!(out, "{}{}", " ".repeat(margin), dim(&header(&|key| key.to_string()), self.colour));
        let _ = writeln!(out, "{}{}", " ".repeat(margin), header(&|key| self.labels[key].clone()));
        let shown = |query: &usize| (query - self.first_query).is_multiple_of(self.stride);
        for query in queries.clone().filter(shown) {
            let number = dim(&right(&query.to_string(), number_width), self.colour);
            let name = left(&cut(&self.labels[query], label_width), label_width);
            let cells: String = keys.clone().map(|key| self.cell(query, key)).collect();
            let _ = writeln!(out, "{number} {name}{}", cells.trim_end());
        }
        if queries != self.queries() || keys != (0..self.keys) {
            let inclusive = |range: &Range<usize>| format!("{}-{}", range.start, range.end.saturating_sub(1));
            let _ = writeln!(
                out,
                "shown: queries {} of {}, keys {} of {}; others with --queries A-B --keys A-B",
                inclusive(&queries),
                inclusive(&self.queries()),
                inclusive(&keys),
                inclusive(&(0..self.keys)),
            );
        }
        out
    }

    fn cell(&self, query: usize, key: usize) -> String {
        let row = (query - self.first_query) / self.stride;
        if !self.seen[row].contains(&key) {
            return dim(&right("·", CELL), self.colour);
        }
        let weight = self.weights[row * self.keys + key];
        // Four characters of a number, however large.
        let decimals = 2 - (weight >= 10.0) as usize - (weight >= 100.0) as usize;
        let number = right(&format!("{weight:.decimals$}"), CELL - 1);
        format!(" {}", shaded(&number, self.scale.share(weight), self.palette, self.colour))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::picture::Curve;

    fn labels() -> Vec<String> {
        ["The", "고양이", "extraordinary", "⏎"].map(String::from).to_vec()
    }

    const WEIGHTS: [f32; 16] =
        [1.0, 0.0, 0.0, 0.0, 0.75, 0.25, 0.0, 0.0, 0.5, 0.25, 0.25, 0.0, 0.125, 0.125, 0.25, 0.5];

    const SEEN: [Range<usize>; 4] = [0..1, 0..2, 0..3, 0..4];

    fn table(labels: &[String], colour: ColourDepth) -> MapTable<'_> {
        let (keys, first_query, stride, clip, palette) = (4, 0, 1, false, Palette::default());
        let scale = Scale { curve: Curve::Linear, brightest: 1.0 };
        let (weights, seen) = (&WEIGHTS, &SEEN);
        MapTable { weights, keys, first_query, stride, labels, seen, palette, scale, colour, clip }
    }

    #[test]
    fn rows_are_queries_and_columns_keys() {
        let labels = labels();
        let text = table(&labels, ColourDepth::None).render(&Window::default(), 80, 24);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 6);
        assert_eq!(lines[0], "                    0     1     2     3");
        assert_eq!(lines[1], "                  The 고양… extr…     ⏎");
        assert_eq!(lines[2], "0 The            1.00     ·     ·     ·");
        assert_eq!(lines[3], "1 고양이         0.75  0.25     ·     ·");
        assert_eq!(lines[5], "3 ⏎              0.12  0.12  0.25  0.50");
    }

    #[test]
    fn what_does_not_fit_is_said_and_reachable() {
        let labels = labels();
        let small = table(&labels, ColourDepth::None);
        let text = small.render(&Window::default(), 28, 7);
        assert!(text.contains("shown: queries 0-1 of 0-3, keys 0-1 of 0-3"), "{text}");
        assert!(text.lines().take(4).all(|line| line.width() <= 28), "{text}");
        let window = Window { queries: Some(3..4), keys: Some(2..4) };
        let text = small.render(&window, 28, 7);
        assert!(text.contains("3 ⏎              0.25  0.50"), "{text}");
    }

    #[test]
    fn a_narrow_terminal_is_not_overrun() {
        let labels = labels();
        for width in [12, 16, 20, 24] {
            let text = table(&labels, ColourDepth::None).render(&Window::default(), width, 24);
            assert!(
                text.lines().filter(|l| !l.contains("shown")).all(|line| line.width() <= width),
                "{text}"
            );
        }
    }

    #[test]
    fn colours_change_nothing_but_colours() {
        let labels = labels();
        let plain = table(&labels, ColourDepth::None).render(&Window::default(), 80, 24);
        for depth in [ColourDepth::Palette, ColourDepth::True] {
            let mut text = table(&labels, depth).render(&Window::default(), 80, 24);
            assert!(text.contains("\x1b["));
            while let Some(start) = text.find('\x1b') {
                let end = start + text[start..].find('m').unwrap();
                text.replace_range(start..=end, "");
            }
            assert_eq!(text, plain);
        }
    }
}
