//! Positions: the angles by which queries and keys turn (Su et al. 2021), with the stretchings for
//! contexts longer than a model was first trained on, and the slopes of ALiBi.

use std::f64::consts::TAU;

use half::bf16;
use serde::Serialize;

use super::config::Alibi;

/// Rotary positions: of each head's first `dims` values, pair *i* turns by position / base^(2i/dims).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rotary {
    pub base: f64,
    /// Values of each head that turn.
    pub dims: usize,
    /// Whether pair *i* is values 2i and 2i + 1 (GPT-J), instead of i and i + dims/2.
    pub interleaved: bool,
    pub scaling: RotaryScaling,
}

/// How the angles are stretched.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RotaryScaling {
    None,
    /// Every angle divided by `factor` (Chen et al. 2023).
    Linear {
        factor: f64,
    },
    /// Llama 3.1: slow angles divided by `factor`, fast ones kept, those between interpolated.
    Llama3 {
        factor: f64,
        low_frequency_factor: f64,
        high_frequency_factor: f64,
        original_context: f64,
    },
    /// The base grows with the text once it is longer than the original context ("dynamic NTK").
    Dynamic {
        factor: f64,
        original_context: f64,
    },
    /// Angles that turn less than `slow` times within the original context are divided by `factor`,
    /// those that turn more than `fast` times kept, those between interpolated (Peng et al. 2023).
    Yarn {
        factor: f64,
        fast: f64,
        slow: f64,
        original_context: f64,
        /// Whether the borders are whole pairs.
        truncate: bool,
        /// Cosines and sines are multiplied by it.
        attention_factor: f64,
    },
    /// A divisor for each angle: one list for texts that fit the original context, one for longer
    /// ones (Ding et al. 2024).
    LongRope {
        short: Vec<f32>,
        long: Vec<f32>,
        original_context: usize,
        /// Cosines and sines are multiplied by it.
        attention_factor: f64,
    },
}

impl RotaryScaling {
    /// The longest text that positions are made for, where a model states `context`.
    pub(crate) fn longest(&self, context: usize) -> usize {
        match self {
            // The stated context is where the base begins to grow.
            RotaryScaling::Dynamic { factor, .. } => (context as f64 * factor.max(1.0)) as usize,
            _ => context,
        }
    }
}

/// What a position turns by.
#[derive(Clone, Debug, PartialEq)]
pub struct Frequencies {
    /// `[dims/2]`
    angles: Vec<f32>,
    /// Cosines and sines are multiplied by it.
    factor: f32,
}

/// Cosines and sines of consecutive positions, each `[positions, dims/2]`.
#[derive(Clone)]
pub struct Angles {
    pub cosines: Vec<f32>,
    pub sines: Vec<f32>,
}

impl Rotary {
    pub(super) fn validate(&self, head_dim: usize) -> Result<(), String> {
        if !(self.base > 0.0 && self.base.is_finite()) {
            return Err(format!("rope_theta is {}, expected a positive number", self.base));
        }
        if self.dims == 0 || self.dims > head_dim || !self.dims.is_multiple_of(2) {
            return Err(format!(
                "{} values of each head turn, expected an even number up to head_dim ({head_dim})",
                self.dims
            ));
        }
        match &self.scaling {
            RotaryScaling::Llama3 {
                low_frequency_factor: low,
                high_frequency_factor: high,
                original_context,
                ..
            } if !(low < high && *original_context > 0.0) => Err(format!(
                "rope scaling llama3 has low_freq_factor {low}, high_freq_factor {high} and \
                 original_max_position_embeddings {original_context}, expected rising factors and a positive number"
            )),
            RotaryScaling::Dynamic { .. } if self.dims < 4 => {
                Err("rope scaling dynamic needs at least 4 values of each head to turn".into())
            }
            RotaryScaling::Yarn { attention_factor, .. }
                if self.base <= 1.0 || !(*attention_factor > 0.0 && attention_factor.is_finite()) =>
            {
                Err(format!(
                    "rope scaling yarn has rope_theta {} and the attention factor {attention_factor}, expected \
                     a number above 1 and a positive one",
                    self.base
                ))
            }
            RotaryScaling::LongRope { short, long, .. }
                if short.len() != self.dims / 2 || long.len() != self.dims / 2 =>
            {
                Err(format!(
                    "rope scaling longrope has {} short_factor and {} long_factor, expected {} of each",
                    short.len(),
                    long.len(),
                    self.dims / 2
                ))
            }
            RotaryScaling::LongRope { short, long, .. }
                if !short.iter().chain(long).all(|factor| *factor > 0.0 && factor.is_finite()) =>
            {
                Err("rope scaling longrope has a short_factor or long_factor that is no positive number"
                    .into())
            }
            _ => Ok(()),
        }
    }

    /// Whether [`Rotary::frequencies`] differ from length to length.
    pub(super) fn depends_on_length(&self) -> bool {
        match &self.scaling {
            RotaryScaling::Dynamic { .. } => true,
            RotaryScaling::LongRope { short, long, .. } => short != long,
            _ => false,
        }
    }

    /// Whether keys that were turned as part of a text of `before` tokens have to be turned anew for
    /// one of `now`. As in Transformers: with the other list of factors they do, and where the base
    /// merely grows they stay.
    pub(super) fn outgrown(&self, before: usize, now: usize) -> bool {
        match self.scaling {
            RotaryScaling::LongRope { original_context, .. } if self.depends_on_length() => {
                (before > original_context) != (now > original_context)
            }
            _ => false,
        }
    }

    /// What each position of a text of `length` tokens turns by.
    ///
    /// Each angle is rounded to f32 before it meets a position, as in Transformers, so that long
    /// positions agree with it.
    pub fn frequencies(&self, length: usize) -> Frequencies {
        let pairs = self.dims / 2;
        let exponent = |i: usize| 2.0 * i as f64 / self.dims as f64;
        let plain = |base: f64| (0..pairs).map(move |i| (1.0 / base.powf(exponent(i))) as f32);
        let unscaled = |angles: Vec<f32>| Frequencies { angles, factor: 1.0 };
        match &self.scaling {
            RotaryScaling::None => unscaled(plain(self.base).collect()),
            RotaryScaling::Linear { factor } => {
                unscaled(plain(self.base).map(|angle| angle / *factor as f32).collect())
            }
            RotaryScaling::Llama3 {
                factor,
                low_frequency_factor: low,
                high_frequency_factor: high,
                original_context,
            } => unscaled(
                plain(self.base)
                    .map(|angle| {
                        let wavelength = TAU / f64::from(angle);
                        if wavelength > original_context / low {
                            angle / *factor as f32
                        } else if wavelength < original_context / high {
                            angle
                        } else {
                            let smooth = (original_context / wavelength - low) / (high - low);
                            let angle = f64::from(angle);
                            ((1.0 - smooth) * angle / factor + smooth * angle) as f32
                        }
                    })
                    .collect(),
            ),
            RotaryScaling::Dynamic { factor, original_context } => {
                let length = (length as f64).max(*original_context);
                let growth = factor * length / original_context - (factor - 1.0);
                let dims = self.dims as f64;
                unscaled(plain(self.base * growth.powf(dims / (dims - 2.0))).collect())
            }
            RotaryScaling::Yarn { factor, fast, slow, original_context, truncate, attention_factor } => {
                // The pair that turns so many times within the original context.
                let pair = |turns: f64| {
                    self.dims as f64 * (original_context / (turns * TAU)).ln() / (2.0 * self.base.ln())
                };
                let (mut low, mut high) = (pair(*fast), pair(*slow));
                if *truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                let (low, mut high) = (low.max(0.0), high.min(self.dims as f64 - 1.0));
                if low == high {
                    high += 0.001;
                }
                let stretched = |(i, angle): (usize, f32)| {
                    let share = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0) as f32;
                    angle / *factor as f32 * share + angle * (1.0 - share)
                };
                Frequencies {
                    angles: plain(self.base).enumerate().map(stretched).collect(),
                    factor: *attention_factor as f32,
                }
            }
            RotaryScaling::LongRope { short, long, original_context, attention_factor } => {
                let factors = if length > *original_context { long } else { short };
                let angle = |(i, factor): (usize, &f32)| {
                    (1.0 / (f64::from(*factor) * self.base.powf(exponent(i)))) as f32
                };
                Frequencies {
                    angles: factors.iter().enumerate().map(angle).collect(),
                    factor: *attention_factor as f32,
                }
            }
        }
    }
}

impl Frequencies {
    /// The angles of `count` positions from `first` on.
    pub fn angles(&self, first: usize, count: usize) -> Angles {
        let turned = |f: fn(f32) -> f32| {
            (first..first + count)
                .flat_map(|p| self.angles.iter().map(move |angle| f(p as f32 * angle) * self.factor))
                .collect()
        };
        Angles { cosines: turned(f32::cos), sines: turned(f32::sin) }
    }
}

impl Alibi {
    /// Slopes of `heads` heads: powers of 2^(−8/heads), and where `heads` is no power of 2, every
    /// second power of the next one's.
    pub fn slopes(heads: usize) -> Vec<f32> {
        // No more than any model has, whatever a config says before it has been checked.
        let heads = heads.min(1 << 16);
        let powers = |heads: usize| {
            let base = 2f64.powf(-8.0 / heads as f64);
            (1..).map(move |power| base.powi(power) as f32)
        };
        let whole = if heads.is_power_of_two() { heads } else { heads.next_power_of_two() / 2 };
        powers(whole).take(whole).chain(powers(2 * whole).step_by(2)).take(heads).collect()
    }

    /// What each head adds to the scores of keys 0 to `keys`: `[heads, keys]`.
    pub(super) fn biases(&self, keys: usize, attention_scale: f64) -> Vec<f32> {
        let bias = |slope: &f32, key: usize| {
            if self.rounded_and_scaled {
                // Both rounded to bf16, and so is their product.
                let product = bf16::from_f32(*slope).to_f32() * bf16::from_f32(key as f32).to_f32();
                bf16::from_f32(product).to_f32() * attention_scale as f32
            } else {
                slope * key as f32
            }
        };
        self.slopes.iter().flat_map(|slope| (0..keys).map(move |key| bias(slope, key))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of Transformers' `build_alibi_tensor`, Falcon's and BLOOM's, in f32.
    #[test]
    fn far_keys_have_the_biases_of_transformers() {
        let places = |heads: usize| [(0, 257), (1, 259), (heads - 1, 513), (4, 999), (heads - 2, 771)];
        for (heads, falcon, bloom) in [
            (6, [64.0, 16.25, 64.0, 500.0, 386.0], [64.25, 16.1875, 64.125, 499.5, 385.5]),
            (12, [128.0, 65.0, 45.25, 31.25, 136.0], [128.5, 64.75, 45.343_216, 31.21875, 136.294_82]),
            (
                71,
                [235.0, 218.0, 292.0, 648.0, 480.0],
                [235.670_04, 217.792_18, 292.099_27, 647.771_36, 478.736_18],
            ),
        ] {
            for (rounded_and_scaled, expected) in [(true, falcon), (false, bloom)] {
                let alibi = Alibi { slopes: Alibi::slopes(heads), rounded_and_scaled };
                let biases = alibi.biases(1000, 1.0);
                for ((head, key), expected) in places(heads).into_iter().zip(expected) {
                    let bias = biases[head * 1000 + key];
                    let within = if rounded_and_scaled { 0.0 } else { 3e-7 * expected };
                    assert!((bias - expected).abs() <= within, "{heads} {head} {key}: {bias} {expected}");
                }
            }
        }
    }
}
