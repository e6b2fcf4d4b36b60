//! A scene as SVG: text stays text, and points are an embedded PNG, never an element each.

use std::fmt::Write as _;
use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::letters::{HEIGHT, width};
use super::png;
use super::scene::{Colour, INK, PAPER, Scene, Thing};

/// Writes a scene.
///
/// # Errors
/// The writer's.
pub fn write(scene: &Scene, mut to: impl io::Write) -> io::Result<()> {
    let Scene { width: wide, height: high, things } = scene;
    // A monospaced letter is about 0.6 of its size wide.
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {wide} {high}\" width=\"{wide}\" \
         height=\"{high}\" font-family=\"ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace\" \
         font-size=\"13\" fill=\"{}\">\n<rect width=\"{wide}\" height=\"{high}\" fill=\"{}\"/>\n",
        hex(INK),
        hex(PAPER)
    );
    for thing in things {
        // Writing to a String cannot fail.
        let _ = match thing {
            Thing::Rectangle { x, y, width, height, colour } => writeln!(
                out,
                "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"{}\"/>",
                hex(*colour)
            ),
            Thing::Text { x, y, text } => writeln!(
                out,
                "<text x=\"{x}\" y=\"{}\" {}>{}</text>",
                y + BASELINE,
                as_wide(text),
                escaped(text)
            ),
            Thing::Upwards { x, y, text } => writeln!(
                out,
                "<text transform=\"translate({} {y}) rotate(-90)\" {}>{}</text>",
                x + BASELINE,
                as_wide(text),
                escaped(text)
            ),
            Thing::Image(image) => {
                let mut bytes = vec![];
                png::write_image(image, &mut bytes)?;
                writeln!(
                    out,
                    "<image x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" \
                     image-rendering=\"pixelated\" href=\"data:image/png;base64,{}\"/>",
                    image.x,
                    image.y,
                    image.width(),
                    image.height(),
                    STANDARD.encode(bytes)
                )
            }
        };
    }
    out.push_str("</svg>\n");
    to.write_all(out.as_bytes())
}

/// From the top of a letter's cell to its baseline.
const BASELINE: usize = HEIGHT - 2;

/// Whatever font the reader has, the text takes the room that was made for it.
fn as_wide(text: &str) -> String {
    format!("xml:space=\"preserve\" textLength=\"{}\" lengthAdjust=\"spacingAndGlyphs\"", width(text))
}

fn hex([red, green, blue]: Colour) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// A text as XML has it; what XML 1.0 cannot hold at all becomes an escape.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            '\u{fffe}' | '\u{ffff}' => {
                let _ = write!(out, "\\u{:x}", u32::from(c));
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{:x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_is_markup() {
        assert_eq!(
            escaped("<script>\"a\" & 'b'\u{0}\u{ffff}"),
            "&lt;script&gt;&quot;a&quot; &amp; &apos;b&apos;\\u0\\uffff"
        );
    }
}
