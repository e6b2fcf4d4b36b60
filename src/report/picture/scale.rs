//! Where a weight stands between dark and bright, and the numbers beside a scale bar.

/// How weights are spread over the colours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Curve {
    #[default]
    Linear,
    /// Over [2⁻¹⁶, 1], as on the page; smaller weights are as dark as 2⁻¹⁶.
    Log,
}

/// Powers of two that the logarithmic scale spans.
const OCTAVES: f32 = 16.0;

/// From a weight to a share of the colours.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Scale {
    pub curve: Curve,
    /// The weight that is brightest: 1, or of a view whose rows do not sum to 1 its largest.
    pub brightest: f32,
}

impl Scale {
    /// 0 to 1.
    pub fn share(&self, weight: f32) -> f32 {
        let linear = weight / self.brightest;
        match self.curve {
            // Also of a map of zeros alone, which has no brightest.
            _ if linear.is_nan() || linear <= 0.0 => 0.0,
            Curve::Linear => linear.min(1.0),
            Curve::Log => (1.0 + linear.log2() / OCTAVES).clamp(0.0, 1.0),
        }
    }

    /// Shares of the scale, from dark to bright, and the weights that they stand for.
    pub fn ticks(&self) -> Vec<(f32, String)> {
        let brightest = self.brightest;
        match self.curve {
            Curve::Linear => {
                [0.0, 0.25, 0.5, 0.75, 1.0].map(|share| (share, number(share * brightest))).to_vec()
            }
            Curve::Log => {
                let darkest = brightest * (-OCTAVES).exp2();
                let tens = (-45i32..=38).map(|exponent| 10f32.powi(exponent));
                let tens = tens.filter(|ten| *ten > darkest * 1.001 && *ten < brightest * 0.999);
                let tens = tens.map(|ten| (self.share(ten), number(ten)));
                let ends = |share, weight| std::iter::once((share, number(weight)));
                ends(0.0, darkest).chain(tens).chain(ends(1.0, brightest)).collect()
            }
        }
    }

    /// For a title.
    pub fn words(&self) -> &'static str {
        match self.curve {
            Curve::Linear => "linear scale",
            Curve::Log => "log scale",
        }
    }
}

/// Short, with three digits that matter.
fn number(value: f32) -> String {
    if value == 0.0 {
        return "0".into();
    }
    if !(0.0009..10_000.0).contains(&value) {
        return format!("{value:.1e}");
    }
    let decimals = (2 - value.log10().floor() as i32).clamp(0, 5) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINEAR: Scale = Scale { curve: Curve::Linear, brightest: 1.0 };
    const LOG: Scale = Scale { curve: Curve::Log, brightest: 1.0 };

    #[test]
    fn shares_are_those_of_the_two_scales() {
        assert_eq!([0.0, 0.25, 1.0, 2.0].map(|w| LINEAR.share(w)), [0.0, 0.25, 1.0, 1.0]);
        let at = |exponent: i32| LOG.share(2f32.powi(exponent));
        assert_eq!([at(0), at(-4), at(-8), at(-16), at(-20)], [1.0, 0.75, 0.5, 0.0, 0.0]);
        assert_eq!(LOG.share(0.0), 0.0);
        assert_eq!(Scale { curve: Curve::Linear, brightest: 0.0 }.share(0.0), 0.0);
        assert_eq!(Scale { curve: Curve::Log, brightest: 8.0 }.share(2.0), 0.875);
    }

    #[test]
    fn ticks_name_the_ends() {
        let words = |scale: Scale| scale.ticks().into_iter().map(|(_, text)| text).collect::<Vec<_>>();
        assert_eq!(words(LINEAR), ["0", "0.25", "0.5", "0.75", "1"]);
        assert_eq!(words(LOG), ["1.5e-5", "1.0e-4", "0.001", "0.01", "0.1", "1"]);
        assert_eq!(words(Scale { brightest: 12.3456, ..LINEAR })[4], "12.3");
        for scale in [LINEAR, LOG] {
            let shares: Vec<f32> = scale.ticks().into_iter().map(|(share, _)| share).collect();
            assert!(shares.is_sorted() && shares[0] == 0.0 && shares.last() == Some(&1.0));
        }
    }
}
