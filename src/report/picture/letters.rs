//! Letters as pictures have them: X11's misc-fixed fonts in a PNG, the reader's own in an SVG. A letter
//! that the PNG's fonts lack is drawn as its escape, `\ud55c`.

use std::collections::HashMap;
use std::sync::OnceLock;

use embedded_graphics::geometry::{OriginDimensions, Point};
use embedded_graphics::image::GetPixel;
use embedded_graphics::mono_font::mapping::{self, StrGlyphMapping};
use embedded_graphics::mono_font::{
    MonoFont, ascii, iso_8859_1, iso_8859_2, iso_8859_3, iso_8859_4, iso_8859_5, iso_8859_7, iso_8859_9,
    iso_8859_10, iso_8859_13, iso_8859_14, iso_8859_15, iso_8859_16, jis_x0201,
};
use embedded_graphics::pixelcolor::BinaryColor;
use unicode_width::UnicodeWidthStr;

/// Pixels of a letter's cell.
pub const WIDTH: usize = 8;
pub const HEIGHT: usize = 13;

/// Who draws a picture's letters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Letters {
    /// The fonts in this program.
    Pixels,
    /// The fonts of whoever looks at it, which have every letter.
    Readers,
}

impl Letters {
    /// A text as it will be drawn.
    pub fn drawable(self, text: &str) -> String {
        match self {
            Letters::Readers => text.into(),
            Letters::Pixels => {
                let mut drawable = String::new();
                for c in text.chars() {
                    match glyph(c) {
                        Some(_) => drawable.push(c),
                        None => drawable.push_str(&format!("\\u{:x}", u32::from(c))),
                    }
                }
                drawable
            }
        }
    }
}

/// Pixels across of a text that is drawable.
pub fn width(text: &str) -> usize {
    text.width() * WIDTH
}

/// A letter's pixels: rows from the top, bit 7 the leftmost.
pub type Glyph = [u8; HEIGHT];

/// The pixels of a letter, if the fonts have it.
pub fn glyph(c: char) -> Option<&'static Glyph> {
    static GLYPHS: OnceLock<HashMap<char, Glyph>> = OnceLock::new();
    GLYPHS.get_or_init(glyphs).get(&c)
}

fn glyphs() -> HashMap<char, Glyph> {
    let fonts: [(&MonoFont<'_>, &StrGlyphMapping<'_>); 14] = [
        (&ascii::FONT_8X13, &mapping::ASCII),
        (&iso_8859_1::FONT_8X13, &mapping::ISO_8859_1),
        (&iso_8859_2::FONT_8X13, &mapping::ISO_8859_2),
        (&iso_8859_3::FONT_8X13, &mapping::ISO_8859_3),
        (&iso_8859_4::FONT_8X13, &mapping::ISO_8859_4),
        (&iso_8859_5::FONT_8X13, &mapping::ISO_8859_5),
        (&iso_8859_7::FONT_8X13, &mapping::ISO_8859_7),
        (&iso_8859_9::FONT_8X13, &mapping::ISO_8859_9),
        (&iso_8859_10::FONT_8X13, &mapping::ISO_8859_10),
        (&iso_8859_13::FONT_8X13, &mapping::ISO_8859_13),
        (&iso_8859_14::FONT_8X13, &mapping::ISO_8859_14),
        (&iso_8859_15::FONT_8X13, &mapping::ISO_8859_15),
        (&iso_8859_16::FONT_8X13, &mapping::ISO_8859_16),
        (&jis_x0201::FONT_8X13, &mapping::JIS_X0201),
    ];
    let mut glyphs = HashMap::from(OURS);
    for (font, mapping) in fonts {
        let absent = pixels(font, '\u{7f}');
        for c in mapping.chars().filter(|c| !c.is_control()) {
            let glyph = pixels(font, c);
            // Places that a font does not fill are blank, or look like a control character's.
            let drawn = c.is_ascii() || c.is_whitespace() || (glyph != absent && glyph != [0; HEIGHT]);
            if drawn {
                glyphs.entry(c).or_insert(glyph);
            }
        }
    }
    glyphs
}

fn pixels(font: &MonoFont<'_>, c: char) -> Glyph {
    let across = font.image.size().width as usize / WIDTH;
    let index = font.glyph_mapping.index(c);
    let (left, top) = (index % across * WIDTH, index / across * HEIGHT);
    std::array::from_fn(|row| {
        (0..WIDTH).fold(0, |bits, column| {
            let at = Point::new((left + column) as i32, (top + row) as i32);
            let on = font.image.pixel(at) == Some(BinaryColor::On);
            bits | (u8::from(on) << (7 - column))
        })
    })
}

/// What [`label`](crate::report::label) writes for spaces, ends of lines and tabs, and where it cuts.
const OURS: [(char, Glyph); 4] = [
    ('␣', [0, 0, 0, 0, 0, 0, 0, 0, 0x82, 0x82, 0xfe, 0, 0]),
    ('⏎', [0, 0, 0x02, 0x02, 0x02, 0x22, 0x62, 0xfe, 0x60, 0x20, 0, 0, 0]),
    ('⇥', [0, 0, 0, 0x0a, 0x06 << 1 | 0x02, 0xfe, 0x0e, 0x0a, 0, 0, 0, 0, 0]),
    ('…', [0, 0, 0, 0, 0, 0, 0, 0, 0, 0x92, 0x92, 0, 0]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_of_many_scripts_are_drawn_and_the_rest_escaped() {
        let drawn = "AZaz09~éßŁőğŞñ…␣⏎⇥ΑΩαωЖяЁёｶ€×·";
        assert_eq!(Letters::Pixels.drawable(drawn), drawn);
        assert!(drawn.chars().all(|c| glyph(c).unwrap().iter().any(|row| *row != 0)));
        let ascii: String = (' '..='~').collect();
        assert_eq!(Letters::Pixels.drawable(&ascii), ascii);
        assert_eq!(Letters::Pixels.drawable("한a"), "\\ud55ca");
        assert_eq!(Letters::Pixels.drawable("🙂"), "\\u1f642");
        assert_eq!(Letters::Readers.drawable("한a"), "한a");
        // A is symmetric, and wider at its foot than at its top.
        let a = glyph('A').unwrap();
        assert!(a.iter().all(|row| *row == row.reverse_bits()), "{a:?}");
    }
}
