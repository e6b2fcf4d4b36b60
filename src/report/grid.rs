//! A number of every head as a picture: layers are rows, heads columns, in the terminal or as PNG.

use std::fmt::Write as _;
use std::io;

use super::colour::{ColourDepth, shaded};
use super::label::right;
use super::picture::layout::bar;
use super::picture::letters::{HEIGHT, Letters, WIDTH, width};
use super::picture::palette::{NOTHING, Palette};
use super::picture::scene::{Image, Scene};
use super::picture::{Curve, Scale, png};

/// Side of a head's square in the PNG, and the line between two.
const CELL: usize = 22;
const GAP: usize = 2;
const MARGIN: usize = 12;

/// Numbers from 0 up, the largest of which is brightest.
pub struct HeadGrid {
    /// A line.
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
                        write!(out, " {}", shaded(&text, self.share(*value), Palette::default(), colour))
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
        png::write(&self.draw(), to)
    }

    fn draw(&self) -> Scene {
        let step = CELL + GAP;
        let mut scene = Scene::default();
        let digits = self.layers.saturating_sub(1).to_string().len();
        let left = MARGIN + digits.max("layer".len()) * WIDTH + GAP * 3;
        let top = MARGIN + 2 * (HEIGHT + MARGIN);
        let heading = top - HEIGHT - GAP * 2;
        scene.text(MARGIN, MARGIN, &Letters::Pixels.drawable(&self.title));
        scene.text(MARGIN, heading, "layer");
        // Every label that fits above its column.
        let head_width = width(&self.heads.saturating_sub(1).to_string());
        for head in (0..self.heads).step_by((head_width + WIDTH / 2).div_ceil(step).max(1)) {
            let text = head.to_string();
            let at = left + head * step + (CELL / 2).saturating_sub(width(&text) / 2);
            scene.text(at, heading, &text);
        }
        for (layer, row) in self.values.chunks(self.heads).enumerate() {
            let y = top + layer * step;
            scene.text_before(left - GAP * 3, y + (CELL - HEIGHT) / 2, &layer.to_string());
            for (head, value) in row.iter().enumerate() {
                let colour = value.map_or(NOTHING, |value| Palette::default().colour(self.share(value)));
                let (x, point) = (left + head * step, (CELL, CELL));
                scene.image(Image { x, y, columns: 1, point, colours: vec![colour] });
            }
        }
        let (wide, high) = (self.heads * step, self.layers * step);
        scene.text(left, top + high + GAP * 2, "head");
        let scale = Scale { curve: Curve::Linear, brightest: self.largest() };
        bar(
            &mut scene,
            (left + wide + MARGIN, top),
            (CELL, high.max(6 * HEIGHT)),
            Palette::default(),
            &scale,
        );
        scene.with_margin(MARGIN)
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
        let mut reader = ::png::Decoder::new(io::Cursor::new(bytes)).read_info().unwrap();
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
            let colour = value.map_or(NOTHING, |value| Palette::default().colour(value));
            assert!(squares.iter().filter(|square| **square == colour).count() >= CELL, "{value:?}");
        }
    }
}
