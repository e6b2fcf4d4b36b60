//! Activations: of an MLP's gate, or of its inner layer.

// As in `simd`: unsafe because of the CPU's instructions, which `Isa` proves.
#![allow(unsafe_op_in_unsafe_fn)]

use std::mem::MaybeUninit;

use super::elementwise::ROWS_PER_TASK;
use super::memory::written;
use super::simd::{Simd, dispatch};
use super::threads::SharedSlice;
use super::{Isa, Pool};

/// What a gate passes through, or the inner layer of an MLP without one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x·σ(x), σ(x) = 1 / (1 + e⁻ˣ): SwiGLU (Shazeer 2020).
    Silu,
    /// GELU (Hendrycks and Gimpel 2016): x·Φ(x), Φ(x) = (1 + erf(x/√2)) / 2.
    Gelu,
    /// GELU by its tanh approximation, x·σ(2√(2/π)(x + 0.044715x³)).
    GeluTanh,
    /// max(x, 0).
    Relu,
}

/// The gated activation, `activation(gate) · up`: `[tokens, 2 · width]` → `[tokens, width]`. Each row of
/// `gate_up` holds the gate's `width` values, then up's.
///
/// # Panics
/// If `gate_up` is no whole number of rows.
pub fn gated(isa: Isa, pool: &Pool, activation: Activation, gate_up: &[f32], width: usize) -> Vec<f32> {
    assert!(gate_up.len().is_multiple_of(2 * width));
    let row = gate_row(activation);
    let write = |out: &mut [MaybeUninit<f32>]| {
        let shared = SharedSlice::new(out);
        pool.for_each(gate_up.len() / (2 * width), ROWS_PER_TASK, |index| {
            let (gate, up) = gate_up[2 * index * width..2 * (index + 1) * width].split_at(width);
            // SAFETY: each row is written by one thread; the three slices are equally long.
            unsafe { row(isa, gate, up, shared.part(index * width, width)) };
        });
    };
    // SAFETY: every row is written.
    unsafe { written(gate_up.len() / 2, write) }
}

/// Writes `activation(gate) · up` of the gate's values and up's; the three slices are equally long.
pub(super) type GateRow = unsafe fn(Isa, &[f32], &[f32], &mut [MaybeUninit<f32>]);

pub(super) fn gate_row(activation: Activation) -> GateRow {
    match activation {
        Activation::Silu => silu_gate_row,
        Activation::Gelu => gelu_gate_row,
        Activation::GeluTanh => gelu_tanh_gate_row,
        Activation::Relu => relu_gate_row,
    }
}

/// `values = activation(values)`, in rows of `width`.
///
/// # Panics
/// If the lengths disagree.
pub fn activate(isa: Isa, pool: &Pool, activation: Activation, values: &mut [f32], width: usize) {
    assert!(values.len().is_multiple_of(width));
    let row = match activation {
        Activation::Silu => silu_row,
        Activation::Gelu => gelu_row,
        Activation::GeluTanh => gelu_tanh_row,
        Activation::Relu => relu_row,
    };
    let rows = values.len() / width;
    let shared = SharedSlice::new(values);
    pool.for_each(rows, ROWS_PER_TASK, |index| {
        // SAFETY: each row is written by one thread.
        unsafe { row(isa, shared.part(index * width, width)) };
    });
}

macro_rules! activation_rows {
    ($($gate:ident $alone:ident $function:ident;)*) => {$(
        dispatch!(
            /// # Safety
            /// The three slices are equally long.
            fn $gate = self::gate_body [$function] (gate: &[f32], up: &[f32], out: &mut [MaybeUninit<f32>])
        );
        dispatch!(
            /// # Safety
            /// None besides the tier's.
            fn $alone = self::activate_body [$function] (values: &mut [f32])
        );
    )*};
}
activation_rows! {
    silu_gate_row silu_row Silu;
    gelu_gate_row gelu_row Gelu;
    gelu_tanh_gate_row gelu_tanh_row GeluTanh;
    relu_gate_row relu_row Relu;
}

/// An activation of a vector's values.
trait Activate {
    /// # Safety
    /// The tier's instructions exist.
    unsafe fn apply<S: Simd>(x: S::Vector) -> S::Vector;
}

struct Silu;
struct Gelu;
struct GeluTanh;
struct Relu;

/// x·σ(f), given −f.
#[inline(always)]
unsafe fn times_sigmoid<S: Simd>(x: S::Vector, negated: S::Vector) -> S::Vector {
    S::div(x, S::add(S::splat(1.0), S::exp(negated)))
}

impl Activate for Silu {
    #[inline(always)]
    unsafe fn apply<S: Simd>(x: S::Vector) -> S::Vector {
        times_sigmoid::<S>(x, S::negate(x))
    }
}

impl Activate for Gelu {
    /// With erfc by formula 7.1.26 of Abramowitz and Stegun (1964), which is off by at most 1.5e-7.
    #[inline(always)]
    unsafe fn apply<S: Simd>(x: S::Vector) -> S::Vector {
        let size = S::max(x, S::negate(x));
        let z = S::mul(size, S::splat(std::f32::consts::FRAC_1_SQRT_2));
        let t = S::div(S::splat(1.0), S::fma(z, S::splat(0.327_591_1), S::splat(1.0)));
        let mut polynomial = S::splat(1.061_405_4);
        for coefficient in [-1.453_152, 1.421_413_8, -0.284_496_72, 0.254_829_6] {
            polynomial = S::fma(polynomial, t, S::splat(coefficient));
        }
        let power = S::exp(S::negate(S::mul(z, z)));
        let half_erfc = S::mul(S::mul(S::mul(polynomial, t), power), S::splat(0.5));
        // Below 0 x·erfc/2, above 0 x − x·erfc/2. A NaN stays one: `max` answers its second operand.
        S::add(S::max(S::splat(0.0), x), S::negate(S::mul(size, half_erfc)))
    }
}

impl Activate for GeluTanh {
    #[inline(always)]
    unsafe fn apply<S: Simd>(x: S::Vector) -> S::Vector {
        // −2·√(2/π)
        let factor = S::splat(-1.595_769);
        let cubic = S::mul(S::mul(x, x), x);
        times_sigmoid::<S>(x, S::mul(factor, S::fma(S::splat(0.044_715), cubic, x)))
    }
}

impl Activate for Relu {
    #[inline(always)]
    unsafe fn apply<S: Simd>(x: S::Vector) -> S::Vector {
        // A NaN stays one: `max` answers its second operand.
        S::max(S::splat(0.0), x)
    }
}

#[inline(always)]
unsafe fn gate_body<S: Simd, A: Activate>(gate: &[f32], up: &[f32], out: &mut [MaybeUninit<f32>]) {
    let whole = out.len() / S::LANES * S::LANES;
    for at in (0..whole).step_by(S::LANES) {
        let gate = A::apply::<S>(S::load(gate.as_ptr().add(at)));
        S::store(out.as_mut_ptr().add(at).cast(), S::mul(gate, S::load(up.as_ptr().add(at))));
    }
    let tail = activate_tail::<S, A>(&gate[whole..]);
    for ((out, gate), up) in out[whole..].iter_mut().zip(tail).zip(&up[whole..]) {
        out.write(gate * up);
    }
}

#[inline(always)]
unsafe fn activate_body<S: Simd, A: Activate>(values: &mut [f32]) {
    let whole = values.len() / S::LANES * S::LANES;
    let (vectors, tail) = values.split_at_mut(whole);
    for vector in vectors.chunks_exact_mut(S::LANES) {
        S::store(vector.as_mut_ptr(), A::apply::<S>(S::load(vector.as_ptr())));
    }
    let activated = activate_tail::<S, A>(tail);
    tail.copy_from_slice(&activated[..tail.len()]);
}

/// Fewer values than a vector has, through the same arithmetic: in one filled up with zeros.
#[inline(always)]
unsafe fn activate_tail<S: Simd, A: Activate>(x: &[f32]) -> [f32; 16] {
    let (mut filled, mut result) = ([0f32; 16], [0f32; 16]);
    filled[..x.len()].copy_from_slice(x);
    S::store(result.as_mut_ptr(), A::apply::<S>(S::load(filled.as_ptr())));
    result
}

#[cfg(test)]
mod tests {
    use super::super::elementwise::tests::{assert_near, values};
    use super::*;

    /// In f64, without an approximation but candle's own erf.
    fn activated(activation: Activation, x: f64) -> f64 {
        match activation {
            Activation::Silu => x / (1.0 + (-x).exp()),
            Activation::Gelu => {
                0.5 * x * (1.0 + candle_core::cpu::erf::erf_f64(x / std::f64::consts::SQRT_2))
            }
            Activation::GeluTanh => {
                0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
            }
            Activation::Relu => x.max(0.0),
        }
    }

    const ACTIVATIONS: [Activation; 4] =
        [Activation::Silu, Activation::Gelu, Activation::GeluTanh, Activation::Relu];

    #[test]
    fn activations_agree_with_their_definitions() {
        let pool = Pool::new(1);
        for (isa, activation) in
            Isa::available().into_iter().flat_map(|isa| ACTIVATIONS.map(|activation| (isa, activation)))
        {
            for width in [1, 5, 16, 31, 64] {
                let mut gate_up = values(2 * 2 * width);
                gate_up[0] = -120.0;
                gate_up[width - 1] = if width > 1 { 120.0 } else { -120.0 };
                let what = format!("{isa} {activation:?} {width}");
                let expected: Vec<f64> =
                    gate_up.iter().map(|x| activated(activation, f64::from(*x))).collect();
                let mut alone = gate_up.clone();
                activate(isa, &pool, activation, &mut alone, width);
                assert_near(&alone, &expected, &what);

                let out = gated(isa, &pool, activation, &gate_up, width);
                assert_eq!(out.len(), 2 * width);
                for row in 0..2 {
                    let gate = 2 * row * width..(2 * row + 1) * width;
                    let up = &gate_up[gate.end..gate.end + width];
                    let expected: Vec<f64> =
                        expected[gate].iter().zip(up).map(|(gate, up)| gate * f64::from(*up)).collect();
                    assert_near(&out[row * width..(row + 1) * width], &expected, &what);
                }
            }
        }
    }

    #[test]
    fn no_activation_hides_a_nan() {
        let pool = Pool::new(1);
        for (isa, activation) in
            Isa::available().into_iter().flat_map(|isa| ACTIVATIONS.map(|activation| (isa, activation)))
        {
            let mut values = vec![f32::NAN; 17];
            activate(isa, &pool, activation, &mut values, 17);
            assert!(values.iter().all(|value| value.is_nan()), "{isa} {activation:?}");
        }
    }
}
