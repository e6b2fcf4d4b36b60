//! Where everything stands in a picture: one map with its tokens, the heads of a layer side by side, or
//! layers by heads.

use super::axis::Axis;
use super::letters::{HEIGHT, Letters, WIDTH, width};
use super::palette::{NOTHING, Palette};
use super::pooling::Pooled;
use super::scale::Scale;
use super::scene::{INK, Image, Scene};
use crate::report::label::wrapped;

/// How the maps of a picture stand, and how large each may be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Arrangement {
    One,
    /// Side by side in several lines, each with its title.
    Grid(Vec<String>),
    /// A line a layer, a column a head: the numbers of both, and of each map its line and column.
    Overview {
        layers: Vec<usize>,
        heads: Vec<usize>,
        places: Vec<(usize, usize)>,
    },
}

/// Pixels around everything, and between maps of a grid.
const MARGIN: usize = 12;
const BETWEEN: usize = 16;
/// Pixels of the narrowest picture, so that titles stay short.
const NARROWEST: usize = 560;
/// Pixels of a small map's point, at most.
const LARGEST_POINT: usize = 40;
/// A map of few rows is drawn at least so high.
const LEAST: usize = 96;
const BAR: (usize, usize) = (16, 240);

impl Arrangement {
    /// Points of each map, down and across, at most.
    pub fn points(&self, maps: usize) -> usize {
        match self {
            Arrangement::One => 1024,
            Arrangement::Grid(_) => (1600 / columns(maps)).clamp(96, 400),
            Arrangement::Overview { layers, heads, .. } => {
                (3200 / layers.len().max(heads.len()).max(1)).clamp(16, 128)
            }
        }
    }
}

/// Columns of a grid of so many maps.
fn columns(maps: usize) -> usize {
    (1..).find(|columns| columns * columns >= maps).unwrap_or(1)
}

/// Maps and all that stands around them.
pub struct Picture<'a> {
    /// Lines above everything.
    pub title: &'a [String],
    pub arrangement: &'a Arrangement,
    /// All of one size.
    pub maps: &'a [Pooled],
    /// Of each row and column before pooling: its token and its position.
    pub queries: (&'a [String], &'a [usize]),
    pub keys: (&'a [String], &'a [usize]),
    pub palette: Palette,
    pub scale: Scale,
}

impl Picture<'_> {
    /// The whole picture, for one kind of letters.
    pub fn scene(&self, letters: Letters) -> Scene {
        let Some(first) = self.maps.first() else { return Scene::default() };
        let point = self.point(first);
        // The body stands below the title, whose lines are as long as the body is wide.
        let mut body = Scene::default();
        let (right, top) = match self.arrangement {
            Arrangement::One => self.grid(&mut body, 1, &[], point, letters),
            Arrangement::Grid(titles) => {
                self.grid(&mut body, columns(self.maps.len()), titles, point, letters)
            }
            Arrangement::Overview { layers, heads, places } => {
                self.overview(&mut body, layers, heads, places, point)
            }
        };
        self.bar(&mut body, right + BETWEEN, top);
        let mut scene = Scene { width: NARROWEST.max(body.width), ..Scene::default() };
        let mut y = MARGIN;
        for line in self.title {
            for line in wrapped(&letters.drawable(line), (scene.width - MARGIN) / WIDTH) {
                scene.text(MARGIN, y, &line);
                y += HEIGHT + 3;
            }
        }
        scene.append(body, y + MARGIN);
        scene.with_margin(MARGIN)
    }

    /// Pixels of a point, across and down: as large as the room allows, square if the map is not flat.
    fn point(&self, map: &Pooled) -> (usize, usize) {
        let room = self.arrangement.points(self.maps.len());
        let side = (room / map.rows.max(map.columns).max(1)).clamp(1, LARGEST_POINT);
        let flat = |count: usize| match self.arrangement {
            Arrangement::One => side.max((LEAST / count.max(1)).min(HEIGHT + 3)),
            _ => side,
        };
        (flat(map.columns), flat(map.rows))
    }

    /// Lines of maps, tokens beside the first of each line and above the first line. Answers the right
    /// end and the top of the maps.
    fn grid(
        &self,
        scene: &mut Scene,
        columns: usize,
        titles: &[String],
        point: (usize, usize),
        letters: Letters,
    ) -> (usize, usize) {
        let size = |map: &Pooled| (map.columns * point.0, map.rows * point.1);
        let (wide, high) = self.maps.first().map_or((0, 0), size);
        let block = self.maps.first().map_or((1, 1), |map| map.block);
        let rows = Axis::new(self.queries.0, self.queries.1, block.0, point.1, letters);
        let keys = Axis::new(self.keys.0, self.keys.1, block.1, point.0, letters);
        let heading = if titles.is_empty() { 0 } else { HEIGHT + 8 };
        let (left, top) = (MARGIN + rows.room(), keys.room() + heading);
        // A title may be wider than a small map.
        let titles_width = titles.iter().map(|title| width(title)).max().unwrap_or(0);
        let step = (wide.max(titles_width) + BETWEEN, high + heading + BETWEEN);
        for (place, map) in self.maps.iter().enumerate() {
            let (x, y) = (left + place % columns * step.0, top + place / columns * step.1);
            if let Some(title) = titles.get(place) {
                // In the first line above the tokens, which belong to the map.
                let above = if place < columns { top } else { y };
                let up = if place < columns { keys.room() + 4 } else { 4 };
                scene.text(x, above.saturating_sub(up + HEIGHT), &letters.drawable(title));
            }
            if place % columns == 0 {
                rows.beside(scene, x, y);
            }
            if place < columns {
                keys.above(scene, x, y);
            }
            scene.image(self.image(map, x, y, point));
        }
        let across = self.maps.len().min(columns);
        (left + (across - 1) * step.0 + step.0 - BETWEEN, top)
    }

    /// Small maps with the numbers of layers and heads.
    fn overview(
        &self,
        scene: &mut Scene,
        layers: &[usize],
        heads: &[usize],
        places: &[(usize, usize)],
        point: (usize, usize),
    ) -> (usize, usize) {
        const LINE: usize = 3;
        let (wide, high) =
            self.maps.first().map_or((0, 0), |map| (map.columns * point.0 + LINE, map.rows * point.1 + LINE));
        let digits = layers.iter().map(|layer| width(&layer.to_string())).max().unwrap_or(0);
        let left = MARGIN + digits.max(width("layer")) + 6;
        let top = 2 * HEIGHT + 8;
        scene.text(left, 0, "head");
        scene.text(MARGIN, HEIGHT + 4, "layer");
        // Every number that fits.
        let longest = heads.iter().map(|head| width(&head.to_string())).max().unwrap_or(0);
        for (place, head) in heads.iter().enumerate().step_by((longest + WIDTH).div_ceil(wide.max(1)).max(1))
        {
            scene.text(left + place * wide, HEIGHT + 4, &head.to_string());
        }
        for (place, layer) in layers.iter().enumerate().step_by((HEIGHT + 1).div_ceil(high.max(1)).max(1)) {
            let middle = (high - LINE) / 2;
            let y = (top + place * high + middle).saturating_sub(HEIGHT / 2);
            scene.text_before(left - 6, y, &layer.to_string());
        }
        for (map, (line, column)) in self.maps.iter().zip(places) {
            scene.image(self.image(map, left + column * wide, top + line * high, point));
        }
        (left + heads.len() * wide - LINE, top)
    }

    fn image(&self, map: &Pooled, x: usize, y: usize, point: (usize, usize)) -> Image {
        let points = (0..map.rows * map.columns).map(|at| map.point(at / map.columns, at % map.columns));
        let colour = |weight| self.palette.colour(self.scale.share(weight));
        let colours = points.map(|point| point.map_or(NOTHING, colour)).collect();
        Image { x, y, columns: map.columns, point, colours }
    }

    /// The scale, bright at its top, with numbers.
    fn bar(&self, scene: &mut Scene, x: usize, y: usize) {
        bar(scene, (x, y), BAR, self.palette, &self.scale);
    }
}

/// A scale bar of so many pixels across and down, bright at its top, with numbers.
pub fn bar(
    scene: &mut Scene,
    (x, y): (usize, usize),
    (wide, high): (usize, usize),
    palette: Palette,
    scale: &Scale,
) {
    let colours = (0..high).map(|row| palette.colour(1.0 - row as f32 / (high - 1) as f32)).collect();
    scene.image(Image { x, y, columns: 1, point: (wide, 1), colours });
    let mut last = usize::MAX;
    // The ends first, then what fits between.
    let mut ticks = scale.ticks();
    let end = ticks.pop();
    for (share, text) in end.into_iter().chain(ticks) {
        let at = ((1.0 - share) * (high - 1) as f32).round() as usize;
        if last != usize::MAX && (at + HEIGHT > last || at < HEIGHT) {
            continue;
        }
        last = if share == 1.0 { high + HEIGHT } else { at };
        scene.rectangle(x + wide, y + at, 3, 1, INK);
        scene.text(x + wide + 6, (y + at).saturating_sub(HEIGHT / 2), &text);
    }
}
