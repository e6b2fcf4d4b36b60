//! Colour maps: a share of the scale becomes red, green and blue, in pictures and in the terminal.

/// Which colours a weight gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Palette {
    /// Nuñez et al. 2018: read alike with any colour vision.
    #[default]
    Cividis,
    /// Matplotlib's.
    Viridis,
    Grey,
}

/// Where there is no number: behind the mask, hidden, or not recorded. In none of the colour maps.
pub const NOTHING: [u8; 3] = [214, 224, 240];

/// At 0, 1/16, … 1.
type Stops = [u32; 17];

const CIVIDIS: Stops = [
    0x00224e, 0x002e6a, 0x1a386f, 0x32436d, 0x434e6c, 0x535a6d, 0x61656f, 0x6f7073, 0x7d7c78, 0x8c8878,
    0x9b9476, 0xaba072, 0xbcae6c, 0xcdbb63, 0xdec958, 0xf0d846, 0xfee838,
];
const VIRIDIS: Stops = [
    0x440154, 0x48186a, 0x472d7b, 0x424086, 0x3b528b, 0x33638d, 0x2c728e, 0x26828e, 0x21918c, 0x1fa088,
    0x28ae80, 0x3fbc73, 0x5ec962, 0x84d44b, 0xaddc30, 0xd8e219, 0xfde725,
];

impl Palette {
    /// The colour at a share of the scale, 0 to 1.
    pub fn colour(self, share: f32) -> [u8; 3] {
        let share = share.clamp(0.0, 1.0);
        let stops = match self {
            Palette::Cividis => &CIVIDIS,
            Palette::Viridis => &VIRIDIS,
            Palette::Grey => return [(16.0 + 239.0 * share).round() as u8; 3],
        };
        let at = share * (stops.len() - 1) as f32;
        let low = (at as usize).min(stops.len() - 2);
        let between = at - low as f32;
        std::array::from_fn(|channel| {
            let part = |stop: u32| f32::from(stop.to_be_bytes()[channel + 1]);
            (part(stops[low]) * (1.0 - between) + part(stops[low + 1]) * between).round() as u8
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_and_middles_are_those_of_the_colour_maps() {
        assert_eq!(Palette::Cividis.colour(0.0), [0x00, 0x22, 0x4e]);
        assert_eq!(Palette::Cividis.colour(1.0), [0xfe, 0xe8, 0x38]);
        assert_eq!(Palette::Viridis.colour(0.5), [0x21, 0x91, 0x8c]);
        assert_eq!(Palette::Grey.colour(1.0), [255; 3]);
        // Half way between two stops.
        assert_eq!(Palette::Cividis.colour(0.53125), [0x85, 0x82, 0x78]);
        assert_eq!(Palette::Viridis.colour(7.0), Palette::Viridis.colour(1.0));
    }

    #[test]
    fn brighter_means_more() {
        let luminance =
            |[r, g, b]: [u8; 3]| 0.2126 * f32::from(r) + 0.7152 * f32::from(g) + 0.0722 * f32::from(b);
        for palette in [Palette::Cividis, Palette::Viridis, Palette::Grey] {
            let steps: Vec<f32> =
                (0..=64).map(|step| luminance(palette.colour(step as f32 / 64.0))).collect();
            assert!(steps.windows(2).all(|pair| pair[0] < pair[1]), "{palette:?}: {steps:?}");
            assert!((0..=1000).all(|step| palette.colour(step as f32 / 1000.0) != NOTHING), "{palette:?}");
        }
    }
}
