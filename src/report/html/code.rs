//! Weights as bytes, for pictures: a logarithmic code over [2⁻¹⁶, 1]. Numbers that a person reads
//! never come from it.

/// Powers of two that the code spans.
const OCTAVES: f32 = 16.0;
/// Codes of weights that are not 0.
const STEPS: f32 = 254.0;

/// The byte of a weight: 0 below 2⁻¹⁶, 1 for 2⁻¹⁶ and 255 for 1; a step is a factor of 1.0446.
///
/// A larger weight never has a smaller code, so the code of a maximum is the maximum of the codes.
pub fn code(weight: f32) -> u8 {
    if weight < (-OCTAVES).exp2() {
        return 0;
    }
    (1.0 + ((weight.log2() + OCTAVES) * (STEPS / OCTAVES)).round()).min(255.0) as u8
}

/// The weight that a code stands for.
pub fn weight(code: u8) -> f32 {
    match code {
        0 => 0.0,
        code => (f32::from(code - 1) * (OCTAVES / STEPS) - OCTAVES).exp2(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_within_half_a_step_of_its_weight() {
        for exponent in 0..=1600 {
            let exact = (-f64::from(exponent) / 100.0).exp2() as f32;
            let ratio = weight(code(exact)) / exact;
            assert!((ratio.log2() * STEPS / OCTAVES).abs() <= 0.501, "{exact}: {ratio}");
        }
    }

    #[test]
    fn the_ends_are_exact_and_the_order_is_kept() {
        assert_eq!(
            [code(0.0), code(1.5e-5), code(2f32.powi(-16)), code(1.0), code(1.1)],
            [0, 0, 1, 255, 255]
        );
        assert_eq!([weight(0), weight(1), weight(255)], [0.0, 2f32.powi(-16), 1.0]);
        assert!((0..=255u8).all(|byte| code(weight(byte)) == byte));
    }
}
