//! A map in the terminal that is too large for numbers: coloured half-blocks, two rows a line, or shades
//! of characters where the terminal has no colours. A point is the maximum of what it stands for.

use std::ops::Range;

use unicode_width::UnicodeWidthStr;

use super::colour::{ColourDepth, dim, setting};
use super::label::{cut, left, right, wrapped};
use super::picture::Pooled;
use super::table::{MapTable, Window};

const LONGEST_LABEL: usize = 12;
/// Columns of the scale below.
const LEGEND: usize = 12;
const SHADES: &[u8; 10] = b" .:-=+*#%@";

impl MapTable<'_> {
    /// The window (what is not asked for is whole) in at most `width` columns and about `height` lines.
    pub fn draw(&self, window: &Window, width: usize, height: usize) -> String {
        let queries = window.queries.clone().unwrap_or(self.queries());
        let keys = window.keys.clone().unwrap_or(0..self.keys);
        let row = |query: usize| query.saturating_sub(self.first_query).div_ceil(self.stride);
        let rows = row(queries.start)..row(queries.end).min(self.seen.len());

        let digits = self.labels.len().saturating_sub(1).to_string().len();
        let longest = self.labels.iter().map(|label| label.width()).max().unwrap_or(0);
        // A narrow terminal has room for positions alone.
        let label_width = if width < 32 { 0 } else { longest.min(LONGEST_LABEL).min(width / 5) };
        let margin = digits + 1 + if label_width > 0 { label_width + 1 } else { 0 };
        let across = width.saturating_sub(margin).max(1);
        let below = wrapped(&self.below(1, 1), width).len() + 2;
        // In a low or narrow terminal rather scrolled than coarse.
        let down = 2 * height.saturating_sub(below).max(12);
        let block = keys.len().div_ceil(across).max(rows.len().div_ceil(down)).max(1);
        let pooled = self.pooled(rows.clone(), keys.clone(), block);

        let mut out = format!("{}{}\n", " ".repeat(margin), dim(&ruler(&keys, block, across), self.colour));
        for line in 0..pooled.rows.div_ceil(2) {
            let query = self.query(rows.start + 2 * line * block);
            let number = dim(&right(&query.to_string(), digits), self.colour);
            let name = match label_width {
                0 => String::new(),
                wide => format!("{} ", left(&cut(&self.labels[query], wide), wide)),
            };
            out.push_str(&format!("{number} {name}{}\n", self.line(&pooled, 2 * line).trim_end()));
        }
        out.push_str(&self.legend(width));
        for line in wrapped(&self.below(rows.len().min(block), block), width) {
            out.push_str(&line);
            out.push('\n');
        }
        out
    }

    fn pooled(&self, rows: Range<usize>, keys: Range<usize>, block: usize) -> Pooled {
        let mut pooled = Pooled::in_blocks(rows.len(), keys.len(), (block, block));
        for (place, row) in rows.enumerate() {
            let seen = &self.seen[row];
            let seen = seen.start.clamp(keys.start, keys.end)..seen.end.clamp(keys.start, keys.end);
            let weights = &self.weights[row * self.keys..][keys.clone()];
            pooled.add(place, weights, seen.start - keys.start..seen.end - keys.start);
        }
        pooled
    }

    /// Two rows of points as a line.
    fn line(&self, pooled: &Pooled, row: usize) -> String {
        let mut out = String::new();
        let mut current = String::new();
        for column in 0..pooled.columns {
            let upper = pooled.point(row, column);
            let lower = (row + 1 < pooled.rows).then(|| pooled.point(row + 1, column)).flatten();
            let (style, c) = match self.colour {
                ColourDepth::None => {
                    let share = upper.into_iter().chain(lower).map(|weight| self.scale.share(weight));
                    (String::new(), shade(share.fold(0.0, f32::max)))
                }
                depth => {
                    let colour =
                        |layer, weight| setting(layer, self.palette.colour(self.scale.share(weight)), depth);
                    match (upper, lower) {
                        (None, None) => (String::new(), ' '),
                        (Some(upper), None) => (colour(38, upper), '▀'),
                        (None, Some(lower)) => (colour(38, lower), '▄'),
                        (Some(upper), Some(lower)) => {
                            (format!("{};{}", colour(38, upper), colour(48, lower)), '▀')
                        }
                    }
                }
            };
            if style != current {
                out.push_str(if current.is_empty() { "" } else { "\x1b[0m" });
                if !style.is_empty() {
                    out.push_str(&format!("\x1b[{style}m"));
                }
                current = style;
            }
            out.push(c);
        }
        out.push_str(if current.is_empty() { "" } else { "\x1b[0m" });
        out
    }

    /// The scale from dark to bright, with its ends.
    fn legend(&self, width: usize) -> String {
        let ticks = self.scale.ticks();
        let (Some((_, least)), Some((_, most))) = (ticks.first(), ticks.last()) else { return String::new() };
        if least.width() + most.width() + LEGEND + 2 > width {
            return String::new();
        }
        let share = |column: usize| column as f32 / (LEGEND - 1) as f32;
        let bar: String = (0..LEGEND)
            .map(|column| match self.colour {
                ColourDepth::None => shade(share(column)).to_string(),
                depth => format!("\x1b[{}m \x1b[0m", setting(48, self.palette.colour(share(column)), depth)),
            })
            .collect();
        format!("{least} {bar} {most}\n")
    }

    fn below(&self, down: usize, across: usize) -> String {
        let point = if across > 1 {
            format!("a point is the maximum of {down} × {across}; ")
        } else {
            String::new()
        };
        format!("{}, {point}numbers: --queries A-B --keys A-B, in parts that fit", self.scale.words())
    }
}

/// Darker is less; what is not 0 is never blank.
fn shade(share: f32) -> char {
    let place = (share * (SHADES.len() - 1) as f32).ceil() as usize;
    char::from(SHADES[place.min(SHADES.len() - 1)])
}

/// Positions of keys above their columns, as many as fit.
fn ruler(keys: &Range<usize>, block: usize, across: usize) -> String {
    let step = keys.end.to_string().len() + 2;
    let mut out = String::new();
    for column in (0..keys.len().div_ceil(block)).step_by(step) {
        let number = (keys.start + column * block).to_string();
        if column + number.len() > across {
            break;
        }
        out.push_str(&" ".repeat(column - out.len()));
        out.push_str(&number);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::picture::{Curve, Palette, Scale};

    fn plain(text: &str) -> String {
        let mut text = text.to_owned();
        while let Some(start) = text.find('\x1b') {
            let end = start + text[start..].find('m').unwrap();
            text.replace_range(start..=end, "");
        }
        text
    }

    fn drawn(size: usize, colour: ColourDepth, width: usize, height: usize) -> String {
        let words = ["한국어", "🙂", "the", "extraordinarily", "⏎"];
        let labels: Vec<String> = (0..size).map(|at| words[at % words.len()].to_owned()).collect();
        let mut weights = vec![0f32; size * size];
        weights[(size - 2) * size + size / 3] = 0.5;
        let seen: Vec<Range<usize>> = (0..size).map(|query| 0..query + 1).collect();
        let scale = Scale { curve: Curve::Linear, brightest: 1.0 };
        let (keys, first_query, stride, clip, palette) = (size, 0, 1, true, Palette::default());
        let (weights, labels, seen) = (&weights[..], &labels[..], &seen[..]);
        let table =
            MapTable { weights, keys, first_query, stride, labels, seen, palette, scale, colour, clip };
        assert!(!table.fits(&Window::default(), width, height));
        table.draw(&Window::default(), width, height)
    }

    #[test]
    fn no_line_is_too_long_and_no_picture_too_high() {
        for depth in [ColourDepth::None, ColourDepth::Palette, ColourDepth::True] {
            for (width, height) in [(20, 24), (8, 24), (40, 10), (100, 50), (200, 60), (80, 3)] {
                for size in [40, 100, 700] {
                    let text = plain(&drawn(size, depth, width, height));
                    assert!(text.lines().all(|line| line.width() <= width), "{width}\n{text}");
                    assert!(text.lines().count() <= height.max(20), "{height}\n{text}");
                }
            }
        }
    }

    #[test]
    fn a_lone_weight_is_seen_with_colours_and_without() {
        for size in [40, 700] {
            let text = drawn(size, ColourDepth::None, 60, 20);
            let map = text.split_once("linear").unwrap().0.trim_end().rsplit_once('\n').unwrap().0;
            assert_eq!(map.matches('+').count(), 1, "{text}");
            let bright = setting(38, Palette::default().colour(0.5), ColourDepth::True);
            let behind = setting(48, Palette::default().colour(0.5), ColourDepth::True);
            let text = drawn(size, ColourDepth::True, 60, 20);
            assert_eq!(text.matches(&bright).count() + text.matches(&behind).count(), 1, "{size}");
        }
    }

    #[test]
    fn two_rows_share_a_line() {
        let text = plain(&drawn(40, ColourDepth::True, 80, 40));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0].trim_start(), "0   4   8   12  16  20  24  28  32  36");
        assert!(lines[1].ends_with("▀▄"), "{text}");
        assert!(lines[2].starts_with(" 2 the") && lines[2].ends_with("▀▀▀▄"), "{text}");
        assert_eq!(lines.len(), 1 + 20 + 1 + 1);
    }
}
