//! What a picture shows, in pixels from its top left corner, before anything is drawn.

use super::letters::{HEIGHT, width};

pub type Colour = [u8; 3];

pub const PAPER: Colour = [255, 255, 255];
pub const INK: Colour = [32, 32, 32];

/// Things to draw, one over the other.
#[derive(Clone, Debug, Default)]
pub struct Scene {
    pub width: usize,
    pub height: usize,
    pub things: Vec<Thing>,
}

#[derive(Clone, Debug)]
pub enum Thing {
    Rectangle {
        x: usize,
        y: usize,
        width: usize,
        height: usize,
        colour: Colour,
    },
    /// A line of text; `x`, `y` is the top left of its first letter's cell.
    Text {
        x: usize,
        y: usize,
        text: String,
    },
    /// A line that reads upwards; `x`, `y` is the bottom left of what it fills.
    Upwards {
        x: usize,
        y: usize,
        text: String,
    },
    Image(Image),
}

/// Points, each a rectangle of pixels.
#[derive(Clone, Debug)]
pub struct Image {
    pub x: usize,
    pub y: usize,
    /// Points across.
    pub columns: usize,
    /// Pixels of a point, across and down.
    pub point: (usize, usize),
    /// Row by row.
    pub colours: Vec<Colour>,
}

impl Image {
    /// Pixels across.
    pub fn width(&self) -> usize {
        self.columns * self.point.0
    }

    /// Pixels down.
    pub fn height(&self) -> usize {
        self.colours.len() / self.columns.max(1) * self.point.1
    }
}

impl Scene {
    pub fn rectangle(&mut self, x: usize, y: usize, width: usize, height: usize, colour: Colour) {
        self.things.push(Thing::Rectangle { x, y, width, height, colour });
        self.hold(x + width, y + height);
    }

    /// A drawable text.
    pub fn text(&mut self, x: usize, y: usize, text: &str) {
        self.things.push(Thing::Text { x, y, text: text.into() });
        self.hold(x + width(text), y + HEIGHT);
    }

    /// A drawable text whose right end is given.
    pub fn text_before(&mut self, right: usize, y: usize, text: &str) {
        self.text(right.saturating_sub(width(text)), y, text);
    }

    pub fn upwards(&mut self, x: usize, y: usize, text: &str) {
        self.things.push(Thing::Upwards { x, y, text: text.into() });
        self.hold(x + HEIGHT, y);
    }

    pub fn image(&mut self, image: Image) {
        self.hold(image.x + image.width(), image.y + image.height());
        self.things.push(Thing::Image(image));
    }

    fn hold(&mut self, right: usize, bottom: usize) {
        self.width = self.width.max(right);
        self.height = self.height.max(bottom);
    }

    /// Puts another scene's things in, so far down.
    pub fn append(&mut self, other: Scene, down: usize) {
        self.hold(other.width, other.height + down);
        self.things.extend(other.things.into_iter().map(|thing| match thing {
            Thing::Rectangle { x, y, width, height, colour } => {
                Thing::Rectangle { x, y: y + down, width, height, colour }
            }
            Thing::Text { x, y, text } => Thing::Text { x, y: y + down, text },
            Thing::Upwards { x, y, text } => Thing::Upwards { x, y: y + down, text },
            Thing::Image(image) => Thing::Image(Image { y: image.y + down, ..image }),
        }));
    }

    /// Leaves room at the right and at the bottom.
    #[must_use]
    pub fn with_margin(mut self, margin: usize) -> Scene {
        self.width += margin;
        self.height += margin;
        self
    }
}
