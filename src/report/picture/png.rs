//! A scene as PNG.

use std::io;

use super::letters::{HEIGHT, WIDTH, glyph};
use super::scene::{Colour, INK, Image, PAPER, Scene, Thing};

/// Writes a scene.
///
/// # Errors
/// The writer's.
pub fn write(scene: &Scene, to: impl io::Write) -> io::Result<()> {
    let mut pixels = Pixels::new(scene.width, scene.height);
    for thing in &scene.things {
        match thing {
            Thing::Rectangle { x, y, width, height, colour } => pixels.fill(*x, *y, *width, *height, *colour),
            Thing::Text { x, y, text } => pixels.letters(text, |along, down| (x + along, y + down)),
            Thing::Upwards { x, y, text } => pixels.letters(text, |along, down| (x + down, y - 1 - along)),
            Thing::Image(image) => pixels.image(image),
        }
    }
    encode(&pixels, to)
}

/// An image alone.
///
/// # Errors
/// The writer's.
pub(super) fn write_image(image: &Image, to: impl io::Write) -> io::Result<()> {
    let mut pixels = Pixels::new(image.width(), image.height());
    pixels.image(&Image { x: 0, y: 0, ..image.clone() });
    encode(&pixels, to)
}

fn encode(pixels: &Pixels, to: impl io::Write) -> io::Result<()> {
    let mut encoder = png::Encoder::new(to, pixels.width as u32, pixels.height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(io::Error::other)?;
    writer.write_image_data(&pixels.bytes).map_err(io::Error::other)?;
    writer.finish().map_err(io::Error::other)
}

/// Red, green and blue, row by row.
struct Pixels {
    width: usize,
    height: usize,
    bytes: Vec<u8>,
}

impl Pixels {
    fn new(width: usize, height: usize) -> Pixels {
        Pixels { width, height, bytes: PAPER.repeat(width * height) }
    }

    fn fill(&mut self, x: usize, y: usize, width: usize, height: usize, colour: Colour) {
        let (right, bottom) = ((x + width).min(self.width), (y + height).min(self.height));
        for row in y..bottom {
            let from = 3 * (row * self.width + x.min(right));
            let to = 3 * (row * self.width + right);
            self.bytes[from..to].as_chunks_mut().0.fill(colour);
        }
    }

    /// `place` answers where a point along and down a line of text stands.
    fn letters(&mut self, text: &str, place: impl Fn(usize, usize) -> (usize, usize)) {
        for (number, c) in text.chars().enumerate() {
            let Some(glyph) = glyph(c) else { continue };
            for (down, bits) in glyph.iter().enumerate().take(HEIGHT) {
                for column in (0..WIDTH).filter(|column| bits >> (7 - column) & 1 == 1) {
                    let (x, y) = place(number * WIDTH + column, down);
                    self.fill(x, y, 1, 1, INK);
                }
            }
        }
    }

    fn image(&mut self, image: &Image) {
        let (wide, high) = image.point;
        for (place, colour) in image.colours.iter().enumerate() {
            let (row, column) = (place / image.columns, place % image.columns);
            self.fill(image.x + column * wide, image.y + row * high, wide, high, *colour);
        }
    }
}
