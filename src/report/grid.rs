//! A number of every head as a picture: layers are rows, heads columns, in the terminal or as PNG.

use std::fmt::Write as _;
use std::io;

use font8x8::legacy::BASIC_LEGACY;

use super::colour::{ColourDepth, cividis, shaded};
use super::label::right;

/// Side of a head's square in the PNG, and the line between two.
const CELL: usize = 22;
const GAP: usize = 2;
/// Each of a letter's 8 × 8 points is a square of this side.
const LETTER_SCALE: usize = 2;
const LETTER: usize = 8 * LETTER_SCALE;
const BACKGROUND: [u8; 3] = [255, 255, 255];
const INK: [u8; 3] = [32, 32, 32];
/// Where there is no number.
const ABSENT: [u8; 3] = [224, 224, 224];

/// Numbers from 0 up, the largest of which is brightest.
pub struct HeadGrid {
    /// In ASCII, a line.
    pub title: String,
    pub layers: usize,
    pub heads: usize,
    /// `[layers][heads]`; `None` where there is no number.
    pub values: Vec<Option<f32>>,
}

impl HeadGrid {
    fn largest(&self) -> f32 {
        self.values.iter().flatten().copied().fold(0.0, f32::max)
    }

    /// A number as a share of the largest.
    fn share(&self, value: f32) -> f32 {
        let largest = self.largest();
        if largest > 0.0 { value / largest } else { 0.0 }
    }

    /// Lines of numbers, on colours where the terminal has them.
    pub fn render(&self, colour: ColourDepth) -> String {
        let margin = self.layers.saturating_sub(1).to_string().len().max("layer".len());
        let mut out = format!("{}\n{}", self.title, right("layer", margin));
        (0..self.heads).for_each(|head| out.push_str(&right(&head.to_string(), 7)));
        out.push_str("  head\n");
        for (layer, row) in self.values.chunks(self.heads).enumerate() {
            out.push_str(&right(&layer.to_string(), margin));
            for value in row {
                let _ = match value {
                    Some(value) => {
                        // Small ones would all look alike.
                        let text = if self.largest() < 0.01 {
                            format!("{value:.1e}")
                        } else {
                            format!("{value:.4}")
                        };
                        let text = right(&text, 6);
                        write!(out, " {}", shaded(&text, self.share(*value), colour))
                    }
                    None => write!(out, " {}", right("-", 6)),
                };
            }
            out.push('\n');
        }
        out
    }

    /// A PNG with the heads' squares, numbered axes and a scale.
    ///
    /// # Errors
    /// The writer's.
    pub fn write_png(&self, to: impl io::Write) -> io::Result<()> {
        let canvas = self.draw();
        let (width, height) = (canvas.width as u32, canvas.height as u32);
        let mut encoder = png::Encoder::new(to, width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().map_err(io::Error::other)?;
        writer.write_image_data(&canvas.pixels).map_err(io::Error::other)?;
        writer.finish().map_err(io::Error::other)
    }

    fn draw(&self) -> Canvas {
        let step = CELL + GAP;
        let margin = LETTER / 2;
        let layer_digits = self.layers.saturating_sub(1).to_string().len();
        let left = margin + layer_digits.max(5) * LETTER + margin;
        let top = margin + 2 * (LETTER + margin);
        let (wide, high) = (self.heads * step, self.layers * step);
        // The scale on the right: a bar, and its ends.
        let largest = self.largest();
        let largest = if largest < 0.01 { format!("{largest:.1e}") } else { format!("{largest:.4}") };
        let scale = left + wide + 2 * margin;
        let width = (scale + CELL + margin + largest.len() * LETTER).max(left + self.title.len() * LETTER);
        let height = top + high.max(3 * LETTER) + LETTER + margin;
        let mut canvas = Canvas::new(width + margin, height);

        canvas.write(margin, margin, &self.title);
        canvas.write(margin, top - LETTER - margin / 2, "layer");
        // Every label that fits above its column.
        let head_width = self.heads.saturating_sub(1).to_string().len() * LETTER;
        for head in (0..self.heads).step_by((head_width + LETTER / 2).div_ceil(step).max(1)) {
            let text = head.to_string();
            let at = left + head * step + (CELL / 2).saturating_sub(text.len() * LETTER / 2);
            canvas.write(at, top - LETTER - margin / 2, &text);
        }
        for (layer, row) in self.values.chunks(self.heads).enumerate() {
            let y = top + layer * step;
            let text = layer.to_string();
            canvas.write(left - margin - text.len() * LETTER, y + (CELL - LETTER) / 2, &text);
            for (head, value) in row.iter().enumerate() {
                let colour = value.map_or(ABSENT, |value| cividis(self.share(value)));
                canvas.fill(left + head * step, y, CELL, CELL, colour);
            }
        }
        canvas.write(left, top + high + margin / 2, "head");
        let bar = high.max(3 * LETTER);
        for y in 0..bar {
            canvas.fill(scale, top + y, CELL, 1, cividis(1.0 - y as f32 / (bar - 1) as f32));
        }
        canvas.write(scale + CELL + margin, top, &largest);
        canvas.write(scale + CELL + margin, top + bar - LETTER, "0");
        canvas
    }
}

/// Pixels of red, green and blue, row by row.
struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Canvas {
    fn new(width: usize, height: usize) -> Canvas {
        Canvas { width, height, pixels: BACKGROUND.repeat(width * height) }
    }

    fn fill(&mut self, x: usize, y: usize, width: usize, height: usize, colour: [u8; 3]) {
        for row in y..(y + height).min(self.height) {
            for column in x..(x + width).min(self.width) {
                let at = 3 * (row * self.width + column);
                self.pixels[at..at + 3].copy_from_slice(&colour);
            }
        }
    }

    fn write(&mut self, x: usize, y: usize, text: &str) {
        for (place, letter) in text.chars().enumerate() {
            let glyph = BASIC_LEGACY.get(letter as usize).unwrap_or(&BASIC_LEGACY[usize::from(b'?')]);
            for (row, bits) in glyph.iter().enumerate() {
                for column in (0..8).filter(|column| bits >> column & 1 == 1) {
                    let at = x + place * LETTER + column * LETTER_SCALE;
                    self.fill(at, y + row * LETTER_SCALE, LETTER_SCALE, LETTER_SCALE, INK);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> HeadGrid {
        let values = vec![Some(0.5), Some(0.0), None, Some(1.0), Some(0.25), Some(0.125)];
        HeadGrid { title: "divergence".into(), layers: 2, heads: 3, values }
    }

    #[test]
    fn rows_are_layers_and_columns_heads() {
        let text = grid().render(ColourDepth::None);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "layer      0      1      2  head");
        assert_eq!(lines[2], "    0 0.5000 0.0000      -");
        assert_eq!(lines[3], "    1 1.0000 0.2500 0.1250");
    }

    #[test]
    fn the_picture_has_each_heads_colour_in_its_place() {
        let grid = grid();
        let mut bytes = vec![];
        grid.write_png(&mut bytes).unwrap();
        let mut reader = png::Decoder::new(io::Cursor::new(bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        let colours: Vec<[u8; 3]> = pixels.chunks_exact(3).map(|p| [p[0], p[1], p[2]]).collect();
        assert_eq!(colours.len(), (info.width * info.height) as usize);
        // Whole squares, row by row; the scale on the right has no row as wide.
        let squares: Vec<[u8; 3]> = colours
            .chunks_exact(info.width as usize)
            .flat_map(|row| row.chunk_by(|a, b| a == b).filter(|run| run.len() == CELL).map(|run| run[0]))
            .collect();
        for value in grid.values {
            let colour = value.map_or(ABSENT, cividis);
            assert!(squares.iter().filter(|square| **square == colour).count() >= CELL, "{value:?}");
        }
    }
}
