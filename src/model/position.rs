//! Rotary positions: the angles by which queries and keys turn (Su et al. 2021), with the
//! stretchings of Chen et al. 2023 (linear) and of Llama 3.1's model card.

use std::f64::consts::TAU;

use super::config::{Rotary, RotaryScaling};

/// Cosines and sines of consecutive positions, each `[positions, head_dim/2]`.
pub struct Angles {
    pub cosines: Vec<f32>,
    pub sines: Vec<f32>,
}

/// Angle *i* that one position turns, for *i* in `0..head_dim/2`.
///
/// Each is rounded to f32 before it meets a position, as in Transformers, so that long positions
/// agree with it.
pub fn frequencies(rotary: &Rotary, head_dim: usize) -> Vec<f32> {
    (0..head_dim / 2)
        .map(|i| {
            let frequency = (1.0 / rotary.base.powf(2.0 * i as f64 / head_dim as f64)) as f32;
            match rotary.scaling {
                RotaryScaling::None => frequency,
                RotaryScaling::Linear { factor } => frequency / factor as f32,
                RotaryScaling::Llama3 {
                    factor,
                    low_frequency_factor,
                    high_frequency_factor,
                    original_context,
                } => {
                    let (low, high) = (low_frequency_factor, high_frequency_factor);
                    let wavelength = TAU / f64::from(frequency);
                    if wavelength > original_context / low {
                        frequency / factor as f32
                    } else if wavelength < original_context / high {
                        frequency
                    } else {
                        let smooth = (original_context / wavelength - low) / (high - low);
                        let frequency = f64::from(frequency);
                        ((1.0 - smooth) * frequency / factor + smooth * frequency) as f32
                    }
                }
            }
        })
        .collect()
}

/// The angles of `count` positions from `first` on.
pub fn angles(frequencies: &[f32], first: usize, count: usize) -> Angles {
    let turned = |f: fn(f32) -> f32| {
        (first..first + count).flat_map(|p| frequencies.iter().map(move |a| f(p as f32 * a))).collect()
    };
    Angles { cosines: turned(f32::cos), sines: turned(f32::sin) }
}
