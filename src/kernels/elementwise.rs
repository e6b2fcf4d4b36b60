//! What happens to each token's vector between the matrix products: RMS norm, rotary positions,
//! the gated activation, and the check that everything is a finite number.

// As in `simd`: unsafe because of the CPU's instructions, which `Isa` proves.
#![allow(unsafe_op_in_unsafe_fn)]

use super::simd::{Simd, dispatch};
use super::threads::SharedSlice;
use super::{Isa, Pool};

/// Tokens that one task takes: a prompt's rows are short, a task should not be.
const ROWS_PER_TASK: usize = 8;

/// Root-mean-square norm (Zhang and Sennrich 2019): `out = x / √(mean(x²) + ε) · weight`, for each
/// row of `input` `[tokens, weight.len()]`.
///
/// # Panics
/// If the lengths disagree.
pub fn rms_norm(isa: Isa, pool: &Pool, input: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let width = weight.len();
    assert!(input.len() == out.len() && input.len().is_multiple_of(width));
    let shared = SharedSlice::new(out);
    pool.for_each(input.len() / width, ROWS_PER_TASK, |row| {
        let x = &input[row * width..(row + 1) * width];
        // SAFETY: each row is written by one thread; the three slices are equally long.
        unsafe { rms_norm_row(isa, x, weight, epsilon, shared.part(row * width, width)) };
    });
}

/// RMS norm of single heads, in place: in each row of `rows`, `row_len` long, the `heads` heads of
/// `weight.len()` values from `at` on.
///
/// # Panics
/// If a row is too short.
pub fn rms_norm_heads(
    isa: Isa,
    rows: &mut [f32],
    row_len: usize,
    at: usize,
    heads: usize,
    weight: &[f32],
    epsilon: f32,
) {
    let mut normed = vec![0f32; weight.len()];
    for row in rows.chunks_exact_mut(row_len) {
        for head in row[at..at + heads * weight.len()].chunks_exact_mut(weight.len()) {
            // SAFETY: the three slices are equally long.
            unsafe { rms_norm_row(isa, head, weight, epsilon, &mut normed) };
            head.copy_from_slice(&normed);
        }
    }
}

dispatch!(
    /// # Safety
    /// The three slices are equally long.
    fn rms_norm_row = self::rms_norm_body [] (x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32])
);

#[inline(always)]
unsafe fn rms_norm_body<S: Simd>(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let whole = x.len() / S::LANES * S::LANES;
    let mut squares = S::splat(0.0);
    for at in (0..whole).step_by(S::LANES) {
        let value = S::load(x.as_ptr().add(at));
        squares = S::fma(value, value, squares);
    }
    let mut sum = S::sum(squares);
    for value in &x[whole..] {
        sum += value * value;
    }
    let scale = 1.0 / (sum / x.len() as f32 + epsilon).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * scale * weight;
    }
}

/// Rotary positions (Su et al. 2021) in Llama's layout: of each head's `head_dim` values, value *i*
/// and value *i* + `head_dim`/2 turn together by their position's angle *i*.
///
/// `rows` is `[tokens, row_len]`; the first `heads · head_dim` values of each row are turned.
/// `cosines` and `sines` are `[tokens, head_dim/2]`.
///
/// # Panics
/// If the lengths disagree.
pub fn rotary(
    rows: &mut [f32],
    row_len: usize,
    heads: usize,
    head_dim: usize,
    cosines: &[f32],
    sines: &[f32],
) {
    let half = head_dim / 2;
    assert!(heads * head_dim <= row_len && cosines.len() == sines.len());
    assert_eq!(rows.len() / row_len * half, cosines.len());
    for ((row, cosines), sines) in
        rows.chunks_exact_mut(row_len).zip(cosines.chunks_exact(half)).zip(sines.chunks_exact(half))
    {
        for head in row[..heads * head_dim].chunks_exact_mut(head_dim) {
            let (first, second) = head.split_at_mut(half);
            for (((a, b), cosine), sine) in first.iter_mut().zip(second).zip(cosines).zip(sines) {
                (*a, *b) = (*a * cosine - *b * sine, *b * cosine + *a * sine);
            }
        }
    }
}

/// What a gate passes through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x·σ(x), σ(x) = 1 / (1 + e⁻ˣ): SwiGLU (Shazeer 2020).
    Silu,
    /// GELU (Hendrycks and Gimpel 2016) by its tanh approximation, x·σ(2√(2/π)(x + 0.044715x³)): GeGLU.
    GeluTanh,
}

/// The gated activation: `out = activation(gate) · up`. Each row of `gate_up` holds the gate's
/// `width` values, then up's.
///
/// # Panics
/// If the lengths disagree.
pub fn gated(isa: Isa, pool: &Pool, activation: Activation, gate_up: &[f32], width: usize, out: &mut [f32]) {
    assert_eq!(gate_up.len(), 2 * out.len());
    assert!(out.len().is_multiple_of(width));
    let gate_row = match activation {
        Activation::Silu => silu_row,
        Activation::GeluTanh => gelu_tanh_row,
    };
    let shared = SharedSlice::new(out);
    pool.for_each(gate_up.len() / (2 * width), ROWS_PER_TASK, |row| {
        let (gate, up) = gate_up[2 * row * width..2 * (row + 1) * width].split_at(width);
        // SAFETY: each row is written by one thread; the three slices are equally long.
        unsafe { gate_row(isa, gate, up, shared.part(row * width, width)) };
    });
}

dispatch!(
    /// # Safety
    /// The three slices are equally long.
    fn silu_row = self::gate_body [SiluArgument] (gate: &[f32], up: &[f32], out: &mut [f32])
);
dispatch!(
    /// # Safety
    /// The three slices are equally long.
    fn gelu_tanh_row = self::gate_body [GeluTanhArgument] (gate: &[f32], up: &[f32], out: &mut [f32])
);

/// An activation x·σ(f(x)): this is −f(x).
trait GateArgument {
    /// # Safety
    /// The tier's instructions exist.
    unsafe fn negated<S: Simd>(x: S::Vector) -> S::Vector;
}

struct SiluArgument;

impl GateArgument for SiluArgument {
    #[inline(always)]
    unsafe fn negated<S: Simd>(x: S::Vector) -> S::Vector {
        S::negate(x)
    }
}

struct GeluTanhArgument;

impl GateArgument for GeluTanhArgument {
    #[inline(always)]
    unsafe fn negated<S: Simd>(x: S::Vector) -> S::Vector {
        // −2·√(2/π)
        let factor = S::splat(-1.595_769);
        let cubic = S::mul(S::mul(x, x), x);
        S::mul(factor, S::fma(S::splat(0.044_715), cubic, x))
    }
}

#[inline(always)]
unsafe fn gate_body<S: Simd, A: GateArgument>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    let whole = out.len() / S::LANES * S::LANES;
    for at in (0..whole).step_by(S::LANES) {
        let result = gate_vector::<S, A>(S::load(gate.as_ptr().add(at)), S::load(up.as_ptr().add(at)));
        S::store(out.as_mut_ptr().add(at), result);
    }
    // The tail goes through the same arithmetic, in a vector filled up with zeros.
    let tail = out.len() - whole;
    if tail > 0 {
        let (mut g, mut u, mut o) = ([0f32; 16], [0f32; 16], [0f32; 16]);
        g[..tail].copy_from_slice(&gate[whole..]);
        u[..tail].copy_from_slice(&up[whole..]);
        S::store(o.as_mut_ptr(), gate_vector::<S, A>(S::load(g.as_ptr()), S::load(u.as_ptr())));
        out[whole..].copy_from_slice(&o[..tail]);
    }
}

#[inline(always)]
unsafe fn gate_vector<S: Simd, A: GateArgument>(gate: S::Vector, up: S::Vector) -> S::Vector {
    let one = S::splat(1.0);
    S::mul(S::div(gate, S::add(one, S::exp(A::negated::<S>(gate)))), up)
}

/// Whether no value is infinite or NaN.
pub fn all_finite(values: &[f32]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    // Folded without a branch, so that the compiler makes vectors of it.
    !values.iter().fold(false, |bad, value| bad | (value.to_bits() & EXPONENT == EXPONENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(len: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7919 % 1000) as f32 - 500.0) / 125.0).collect()
    }

    #[test]
    fn rms_norm_agrees_with_its_definition() {
        let pool = Pool::new(2);
        for isa in Isa::available() {
            for width in [1, 7, 16, 33, 576] {
                let (x, weight) = (values(3 * width), values(width));
                let mut out = vec![f32::NAN; x.len()];
                rms_norm(isa, &pool, &x, &weight, 1e-5, &mut out);
                for (x, out) in x.chunks_exact(width).zip(out.chunks_exact(width)) {
                    let mean = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / width as f64;
                    for ((x, weight), out) in x.iter().zip(&weight).zip(out) {
                        let expected = f64::from(*x) / (mean + 1e-5).sqrt() * f64::from(*weight);
                        assert!(
                            (f64::from(*out) - expected).abs() <= 1e-6 * (1.0 + expected.abs()),
                            "{isa} {width}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn gates_agree_with_their_definitions() {
        let pool = Pool::new(1);
        let silu = |x: f64| x / (1.0 + (-x).exp());
        let gelu_tanh = |x: f64| {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
        };
        let definitions: [(Activation, &dyn Fn(f64) -> f64); 2] =
            [(Activation::Silu, &silu), (Activation::GeluTanh, &gelu_tanh)];
        for (isa, (activation, definition)) in
            Isa::available().into_iter().flat_map(|isa| definitions.map(|definition| (isa, definition)))
        {
            for width in [1, 5, 16, 31, 64] {
                let mut gate_up = values(2 * 2 * width);
                gate_up[0] = -120.0;
                gate_up[width - 1] = if width > 1 { 120.0 } else { -120.0 };
                let mut out = vec![f32::NAN; 2 * width];
                gated(isa, &pool, activation, &gate_up, width, &mut out);
                for (row, out) in gate_up.chunks_exact(2 * width).zip(out.chunks_exact(width)) {
                    for (i, out) in out.iter().enumerate() {
                        let (gate, up) = (f64::from(row[i]), f64::from(row[width + i]));
                        let expected = definition(gate) * up;
                        assert!(
                            (f64::from(*out) - expected).abs() <= 1e-6 * (1.0 + expected.abs()),
                            "{isa} {width}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn rotary_turns_each_pair_by_its_angle() {
        let (head_dim, heads) = (4, 2);
        let mut rows = values(2 * 9);
        let before = rows.clone();
        let angles = [0.0f32, 0.0, 0.5, 2.0];
        let cosines = angles.map(f32::cos);
        let sines = angles.map(f32::sin);
        rotary(&mut rows, 9, heads, head_dim, &cosines, &sines);
        assert_eq!(rows[..9], before[..9], "an angle of 0 turns nothing");
        assert_eq!(rows[17], before[17], "values behind the heads stay");
        for head in 0..heads {
            for i in 0..2 {
                let (a, b) = (before[9 + head * 4 + i], before[9 + head * 4 + i + 2]);
                let (cosine, sine) = (angles[2 + i].cos(), angles[2 + i].sin());
                assert_eq!(rows[9 + head * 4 + i], a * cosine - b * sine);
                assert_eq!(rows[9 + head * 4 + i + 2], b * cosine + a * sine);
            }
        }
    }

    #[test]
    fn one_infinity_or_nan_is_found() {
        let mut x = values(100);
        assert!(all_finite(&x));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            x[77] = bad;
            assert!(!all_finite(&x));
        }
    }
}
