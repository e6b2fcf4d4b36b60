//! The tokens beside a map: all of them where there is room for their letters, else every so many.

use super::letters::{HEIGHT, Letters, width};
use super::scene::{INK, Scene};
use crate::report::label::cut;

/// Columns of a label, at most.
const LONGEST: usize = 18;
/// Between a label and the map, with a short line in it.
pub const GAP: usize = 6;
const TICK: usize = 3;

/// The labels of a map's rows or columns.
pub struct Axis {
    /// The middle of each label's point, in pixels from the first point's edge; and the label.
    labels: Vec<(usize, String)>,
}

impl Axis {
    /// `names` and `positions` of all rows (or columns), of which `block` share a point of `point`
    /// pixels.
    pub fn new(names: &[String], positions: &[usize], block: usize, point: usize, letters: Letters) -> Axis {
        // Lines of text follow each other at their height.
        let step = (HEIGHT + 1).div_ceil(point) * block;
        let labels =
            names.iter().zip(positions).enumerate().step_by(step).map(|(place, (name, position))| {
                // Where labels are missing, a number tells where one is.
                let name = if step > 1 { format!("{position} {name}") } else { name.clone() };
                let name = cut(&letters.drawable(&name), LONGEST);
                (place / block * point + point / 2, name)
            });
        Axis { labels: labels.collect() }
    }

    /// Pixels that the longest label takes, with the gap.
    pub fn room(&self) -> usize {
        self.labels.iter().map(|(_, label)| width(label)).max().unwrap_or(0) + GAP
    }

    /// Labels left of a map whose top left corner is given.
    pub fn beside(&self, scene: &mut Scene, x: usize, y: usize) {
        for (middle, label) in &self.labels {
            scene.text_before(x - GAP, (y + middle).saturating_sub(HEIGHT / 2), label);
            scene.rectangle(x - TICK - 1, y + middle, TICK, 1, INK);
        }
    }

    /// Labels above a map whose top left corner is given, reading upwards.
    pub fn above(&self, scene: &mut Scene, x: usize, y: usize) {
        for (middle, label) in &self.labels {
            scene.upwards((x + middle).saturating_sub(HEIGHT / 2), y - GAP, label);
            scene.rectangle(x + middle, y - TICK - 1, 1, TICK, INK);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::picture::scene::Thing;

    /// Left and right ends (or tops and bottoms) of labels along an axis, and their texts.
    fn labels(count: usize, block: usize, point: usize) -> Vec<(usize, String)> {
        let names: Vec<String> = (0..count).map(|place| format!("word{place}")).collect();
        let positions: Vec<usize> = (0..count).collect();
        let mut scene = Scene::default();
        Axis::new(&names, &positions, block, point, Letters::Pixels).beside(&mut scene, 400, 50);
        let text = |thing: Thing| match thing {
            Thing::Text { y, text, .. } => Some((y, text)),
            _ => None,
        };
        scene.things.into_iter().filter_map(text).collect()
    }

    #[test]
    fn all_labels_stand_at_64_tokens_and_never_overlap() {
        let all = labels(64, 1, 16);
        assert_eq!(all.len(), 64);
        assert_eq!(all[63].1, "word63");
        for (count, block, point) in [(64, 1, 16), (100, 1, 10), (1000, 1, 1), (4096, 4, 1), (65, 2, 5)] {
            let labels = labels(count, block, point);
            assert!(labels.windows(2).all(|pair| pair[1].0 - pair[0].0 >= HEIGHT), "{count}");
        }
        assert_eq!(labels(4096, 4, 1)[1].1, "56 word56");
    }
}
