//! What a head looks at while a text grows: the text with its tokens shaded, and under it those looked
//! at most, as lines for a terminal of a given size.
//!
//! The first token takes what a head has no use for, often most of it: it is named with its weight, and
//! neither shaded nor what the shades are measured by.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::colour::{ColourDepth, dim, shaded};
use super::label::{cut, label};
use super::picture::Palette;

/// Tokens named under the text, at most.
const NAMED: usize = 8;
/// Shares of the largest weight below which a token is not shaded.
const FAINT: f32 = 0.06;
/// From this share on a token is marked where there are no colours.
const MARKED: f32 = 0.4;
/// Columns below which a line has room for little.
const NARROW: usize = 36;
/// Weights are measured by the largest, but not by one below this: noise stays pale.
const LEAST: f32 = 0.02;

/// A token of the text.
pub struct Piece {
    /// What stands in the text for it: control characters escaped, part of a character as its bytes.
    shown: String,
    /// What it is called under the text.
    label: String,
    ends_line: bool,
}

impl Piece {
    pub fn new(bytes: &[u8], id: u32) -> Piece {
        let label = label(bytes, id);
        // A word's space is left out of its label; between words it is there.
        let space = bytes.starts_with(b" ") && !label.starts_with('␣') && !label.starts_with("\\x");
        let shown = if space { format!(" {label}") } else { label.clone() };
        Piece { shown, label, ends_line: bytes.ends_with(b"\n") }
    }
}

/// A moment of a growing text.
pub struct Frame<'a> {
    /// The text's tokens; the last ones, behind `weights`, were chosen just now.
    pub pieces: &'a [Piece],
    /// What the last query gave to each position.
    pub weights: &'a [f32],
    /// Whose weights they are.
    pub of: &'a str,
    pub colour: ColourDepth,
}

impl Frame<'_> {
    /// Lines of at most `width` columns (8 where it is less), at most `height` of them and at least two: the end of the text,
    /// then what it looks at.
    pub fn lines(&self, width: usize, height: usize) -> Vec<String> {
        let width = width.max(8);
        let mut lines = self.text(width);
        let room = height.saturating_sub(2).max(1);
        lines.drain(..lines.len().saturating_sub(room));
        lines.push(cut(&self.named(width), width));
        lines.push(dim(&cut(&self.source(), width), self.colour));
        lines.truncate(height.max(2));
        lines
    }

    /// Of each token its share of the largest weight.
    fn shares(&self) -> Vec<f32> {
        let brightest = self.weights.iter().skip(1).fold(LEAST, |most, weight| most.max(*weight));
        let share = |(position, weight): (usize, &f32)| if position == 0 { 0.0 } else { weight / brightest };
        self.weights.iter().enumerate().map(share).collect()
    }

    fn text(&self, width: usize) -> Vec<String> {
        let shares = self.shares();
        let mut lines = vec![];
        let (mut line, mut used) = (String::new(), 0);
        for (position, piece) in self.pieces.iter().enumerate() {
            let share = shares.get(position).copied().unwrap_or(0.0);
            let marked = self.colour == ColourDepth::None && share >= MARKED;
            let mut shown = if marked { bracketed(&piece.shown) } else { piece.shown.clone() };
            // A word that has room on a line of its own is not broken.
            if used > 0 && used + shown.width() > width && shown.trim_start().width() <= width {
                lines.push(std::mem::take(&mut line));
                used = 0;
                shown = shown.trim_start().to_owned();
            }
            let mut part = String::new();
            for c in shown.chars() {
                let columns = c.width().unwrap_or(0);
                if used + columns > width {
                    line.push_str(&self.painted(&part, position, share));
                    part.clear();
                    lines.push(std::mem::take(&mut line));
                    used = 0;
                }
                part.push(c);
                used += columns;
            }
            line.push_str(&self.painted(&part, position, share));
            if piece.ends_line {
                lines.push(std::mem::take(&mut line));
                used = 0;
            }
        }
        lines.push(line);
        lines
    }

    fn painted(&self, part: &str, position: usize, share: f32) -> String {
        if part.is_empty() || self.colour == ColourDepth::None {
            return part.to_owned();
        }
        if position >= self.weights.len() {
            return format!("\x1b[1m{part}\x1b[0m");
        }
        if share < FAINT {
            return part.to_owned();
        }
        // The space in front of a word stays between the words.
        let word = part.trim_start();
        format!(
            "{}{}",
            &part[..part.len() - word.len()],
            shaded(word, share.min(1.0), Palette::default(), self.colour)
        )
    }

    /// `“mat” ← cat 0.41  the 0.20`; without the new token where there is little room.
    fn named(&self, width: usize) -> String {
        let mut best: Vec<usize> = (1..self.weights.len()).collect();
        best.sort_by(|a, b| self.weights[*b].total_cmp(&self.weights[*a]));
        let least = self.weights.iter().skip(1).fold(0.0f32, |most, weight| most.max(*weight)) * FAINT;
        let named = best.iter().take(NAMED).filter(|at| self.weights[**at] > least);
        let name = |at: usize| format!("{} {:.2}", self.label(at), self.weights[at]);
        let mut names: Vec<String> = named.map(|at| name(*at)).collect();
        if names.is_empty() {
            names.push("nothing but the first token".into());
        }
        let chosen = self.pieces.get(self.weights.len()).filter(|_| width >= NARROW);
        let chosen = chosen.map_or_else(String::new, |piece| format!("“{}” ← ", piece.label));
        format!("{chosen}{}", names.join("  "))
    }

    fn source(&self) -> String {
        let first =
            self.weights.first().map_or_else(String::new, |weight| format!(" | first token {weight:.2}"));
        format!("{}{first}", self.of)
    }

    fn label(&self, position: usize) -> &str {
        self.pieces.get(position).map_or("?", |piece| &piece.label)
    }
}

/// ` cat` → ` [cat]`
fn bracketed(shown: &str) -> String {
    let word = shown.trim_start();
    format!("{}[{word}]", &shown[..shown.len() - word.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(texts: &[&[u8]]) -> Vec<Piece> {
        texts.iter().enumerate().map(|(id, bytes)| Piece::new(bytes, id as u32)).collect()
    }

    fn plain(line: &str) -> String {
        let mut plain = String::new();
        let mut rest = line;
        while let Some((before, after)) = rest.split_once('\x1b') {
            plain.push_str(before);
            rest = after.split_once('m').unwrap().1;
        }
        plain + rest
    }

    const OF: &str = "head 3.1";

    #[test]
    fn what_is_looked_at_most_is_named_and_marked() {
        let pieces = pieces(&[b"The", b" cat", b" sat", b"\n", b"on"]);
        let frame =
            Frame { pieces: &pieces, weights: &[0.5, 0.3, 0.15, 0.05], of: OF, colour: ColourDepth::None };
        assert_eq!(
            frame.lines(40, 10),
            ["The [cat] [sat]⏎", "on", "“on” ← cat 0.30  sat 0.15  ⏎ 0.05", "head 3.1 | first token 0.50"]
        );
        assert_eq!(frame.lines(40, 3)[0], "on", "the end of the text stays");
        for colour in [ColourDepth::Palette, ColourDepth::True] {
            let lines = Frame { colour, ..frame }.lines(40, 10);
            assert_eq!(plain(&lines[0]), "The cat sat⏎");
            assert!(lines[0].starts_with("The \x1b[48;"), "the first token is not shaded: {:?}", lines[0]);
            assert_eq!(lines[1], "\x1b[1mon\x1b[0m", "the new token is bold");
        }
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        // Hangul is two columns wide; half of one is its bytes; an emoji with a joiner; a long word; a
        // direction mark and an escape, which would do harm.
        let pieces = pieces(&[
            "안녕하세요".as_bytes(),
            &[0xec, 0x95],
            " 🙂".as_bytes(),
            "👩\u{200d}👧".as_bytes(),
            b" Donaudampfschifffahrtsgesellschaft",
            "\u{202e}x".as_bytes(),
            b"\x1b[2J",
            b"",
        ]);
        let weights = [0.1, 0.3, 0.2, 0.1, 0.1, 0.1, 0.1];
        for colour in [ColourDepth::None, ColourDepth::Palette, ColourDepth::True] {
            for width in [8, 19, 20, 33, 200] {
                for height in [1, 2, 3, 9, 40] {
                    let lines =
                        Frame { pieces: &pieces, weights: &weights, of: OF, colour }.lines(width, height);
                    assert!(lines.len() <= height.max(2));
                    for line in &lines {
                        let line = plain(line);
                        assert!(line.width() <= width, "{line:?} in {width}");
                        assert!(!line.contains(|c: char| c.is_control() || c == '\u{202e}'), "{line:?}");
                    }
                }
            }
        }
        let whole =
            Frame { pieces: &pieces, weights: &weights, of: OF, colour: ColourDepth::True }.lines(200, 40);
        assert!(plain(&whole[0]).contains("안녕하세요\\xEC\\x95 🙂"), "{:?}", whole[0]);
    }

    #[test]
    fn a_text_of_one_token_looks_at_nothing_else() {
        let pieces = pieces(&[b"Once", b" upon"]);
        let frame = Frame { pieces: &pieces, weights: &[1.0], of: OF, colour: ColourDepth::None };
        assert_eq!(
            frame.lines(60, 10),
            ["Once upon", "“upon” ← nothing but the first token", "head 3.1 | first token 1.00"]
        );
    }
}
