//! What happens to each token's vector between the matrix products: norms, rotary positions,
//! activations, and the check that everything is a finite number.

// As in `simd`: unsafe because of the CPU's instructions, which `Isa` proves.
#![allow(unsafe_op_in_unsafe_fn)]

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};

use super::memory::written;
use super::simd::{Simd, dispatch};
use super::threads::SharedSlice;
use super::{Isa, Pool};

/// Tokens that one task takes: a prompt's rows are short, a task should not be.
const ROWS_PER_TASK: usize = 8;

/// What is taken out of a vector before its weight is applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NormKind {
    /// Its root mean square (Zhang and Sennrich 2019): x / √(mean(x²) + ε).
    Rms,
    /// Its mean and its standard deviation (Ba et al. 2016): (x − mean) / √(variance + ε).
    Layer,
}

/// A norm's numbers: the normed vector is multiplied by `weight`, and `bias` is added.
#[derive(Clone, Copy)]
pub struct NormArgs<'a> {
    pub kind: NormKind,
    pub weight: &'a [f32],
    pub bias: Option<&'a [f32]>,
    pub epsilon: f32,
}

impl<'a> NormArgs<'a> {
    /// Norms one vector of `x`'s length with the numbers from `at` on.
    ///
    /// # Safety
    /// `out` is as long as `x`, and weight and bias reach that far.
    unsafe fn row(&self, isa: Isa, at: usize, x: &[f32], out: &mut [MaybeUninit<f32>]) {
        let part = |values: &'a [f32]| &values[at..at + x.len()];
        let (weight, bias) = (part(self.weight), self.bias.map(part));
        match self.kind {
            NormKind::Rms => rms_norm_row(isa, x, weight, self.epsilon, out),
            NormKind::Layer => layer_norm_row(isa, x, weight, self.epsilon, out),
        }
        if let Some(bias) = bias {
            // SAFETY: the norm has been written.
            out.iter_mut().zip(bias).for_each(|(out, bias)| *unsafe { out.assume_init_mut() } += bias);
        }
    }
}

/// The norm of each row of `input`, `[tokens, weight.len()]`.
///
/// # Panics
/// If the lengths disagree.
pub fn norm(isa: Isa, pool: &Pool, input: &[f32], norm: NormArgs<'_>) -> Vec<f32> {
    let width = norm.weight.len();
    assert!(input.len().is_multiple_of(width));
    let write = |out: &mut [MaybeUninit<f32>]| {
        let shared = SharedSlice::new(out);
        pool.for_each(input.len() / width, ROWS_PER_TASK, |row| {
            let x = &input[row * width..(row + 1) * width];
            // SAFETY: each row is written by one thread; all slices are equally long.
            unsafe { norm.row(isa, 0, x, shared.part(row * width, width)) };
        });
    };
    // SAFETY: every row is written.
    unsafe { written(input.len(), write) }
}

/// The norm of single heads, in place: in each row of `rows`, `row_len` long, the `heads` heads of
/// `size` values from `at` on. The weight serves every head, or has `size` values for each.
///
/// # Panics
/// If a row is too short, or the weight has another length.
pub fn norm_heads(
    isa: Isa,
    rows: &mut [f32],
    row_len: usize,
    at: usize,
    heads: usize,
    size: usize,
    norm: NormArgs<'_>,
) {
    let own = norm.weight.len() == heads * size;
    assert!(own || norm.weight.len() == size);
    let mut normed = vec![MaybeUninit::uninit(); size];
    for row in rows.chunks_exact_mut(row_len) {
        for (index, head) in row[at..at + heads * size].chunks_exact_mut(size).enumerate() {
            let from = if own { index * size } else { 0 };
            // SAFETY: the slices are equally long, and the weight reaches as far.
            unsafe { norm.row(isa, from, head, &mut normed) };
            // SAFETY: it has just been written.
            head.copy_from_slice(unsafe { normed.assume_init_ref() });
        }
    }
}

dispatch!(
    /// # Safety
    /// The three slices are equally long.
    fn rms_norm_row = self::rms_norm_body [] (x: &[f32], weight: &[f32], epsilon: f32, out: &mut [MaybeUninit<f32>])
);

#[inline(always)]
unsafe fn rms_norm_body<S: Simd>(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [MaybeUninit<f32>]) {
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
        out.write(x * scale * weight);
    }
}

dispatch!(
    /// # Safety
    /// The three slices are equally long.
    fn layer_norm_row = self::layer_norm_body [] (x: &[f32], weight: &[f32], epsilon: f32, out: &mut [MaybeUninit<f32>])
);

#[inline(always)]
unsafe fn layer_norm_body<S: Simd>(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [MaybeUninit<f32>]) {
    let whole = x.len() / S::LANES * S::LANES;
    let mut total = S::splat(0.0);
    for at in (0..whole).step_by(S::LANES) {
        total = S::add(total, S::load(x.as_ptr().add(at)));
    }
    let mean = (S::sum(total) + x[whole..].iter().sum::<f32>()) / x.len() as f32;
    let mut squares = S::splat(0.0);
    for at in (0..whole).step_by(S::LANES) {
        let value = S::add(S::load(x.as_ptr().add(at)), S::splat(-mean));
        squares = S::fma(value, value, squares);
    }
    let mut sum = S::sum(squares);
    for value in &x[whole..] {
        sum += (value - mean) * (value - mean);
    }
    let scale = 1.0 / (sum / x.len() as f32 + epsilon).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        out.write((x - mean) * scale * weight);
    }
}

/// Which values of a head turn together (Su et al. 2021).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RotaryLayout {
    pub head_dim: usize,
    /// Values of each head that turn, from its first on.
    pub dims: usize,
    /// Pair *i* is values 2i and 2i + 1, instead of i and i + dims/2.
    pub interleaved: bool,
}

/// Turns pair *i* of each head by its position's angle *i*.
///
/// `rows` is `[tokens, row_len]`; the first `heads · head_dim` values of each row are heads.
/// `cosines` and `sines` are `[tokens, dims/2]`.
///
/// # Panics
/// If the lengths disagree.
pub fn rotary(
    pool: &Pool,
    rows: &mut [f32],
    row_len: usize,
    heads: usize,
    layout: RotaryLayout,
    cosines: &[f32],
    sines: &[f32],
) {
    let RotaryLayout { head_dim, dims, interleaved } = layout;
    let half = dims / 2;
    assert!(dims <= head_dim && heads * head_dim <= row_len && cosines.len() == sines.len());
    assert_eq!(rows.len() / row_len * half, cosines.len());
    let turn = |a: &mut f32, b: &mut f32, cosine: f32, sine: f32| {
        (*a, *b) = (*a * cosine - *b * sine, *b * cosine + *a * sine);
    };
    let count = rows.len() / row_len;
    let shared = SharedSlice::new(rows);
    pool.for_each(count, ROWS_PER_TASK, |index| {
        // SAFETY: each row is turned by one thread.
        let row = unsafe { shared.part(index * row_len, row_len) };
        let (cosines, sines) = (&cosines[index * half..][..half], &sines[index * half..][..half]);
        for head in row[..heads * head_dim].chunks_exact_mut(head_dim) {
            let angles = cosines.iter().zip(sines);
            if interleaved {
                for (pair, (cosine, sine)) in head[..dims].chunks_exact_mut(2).zip(angles) {
                    let (a, b) = pair.split_at_mut(1);
                    turn(&mut a[0], &mut b[0], *cosine, *sine);
                }
            } else {
                let (first, second) = head[..dims].split_at_mut(half);
                for ((a, b), (cosine, sine)) in first.iter_mut().zip(second).zip(angles) {
                    turn(a, b, *cosine, *sine);
                }
            }
        }
    });
}

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
    let row = match activation {
        Activation::Silu => silu_gate_row,
        Activation::Gelu => gelu_gate_row,
        Activation::GeluTanh => gelu_tanh_gate_row,
        Activation::Relu => relu_gate_row,
    };
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

/// `sum += other`, in rows of `width`.
///
/// # Panics
/// If the lengths disagree.
pub fn add(pool: &Pool, sum: &mut [f32], other: &[f32], width: usize) {
    assert!(sum.len() == other.len() && sum.len().is_multiple_of(width));
    let rows = sum.len() / width;
    let shared = SharedSlice::new(sum);
    pool.for_each(rows, ROWS_PER_TASK, |row| {
        // SAFETY: each row is written by one thread.
        let sum = unsafe { shared.part(row * width, width) };
        sum.iter_mut().zip(&other[row * width..]).for_each(|(sum, other)| *sum += other);
    });
}

/// Whether no value is infinite or NaN.
pub fn all_finite(pool: &Pool, values: &[f32]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    const VALUES_PER_TASK: usize = 16 << 10;
    let found = AtomicBool::new(false);
    pool.for_each(values.len().div_ceil(VALUES_PER_TASK), 1, |task| {
        let values = &values[task * VALUES_PER_TASK..values.len().min((task + 1) * VALUES_PER_TASK)];
        // Folded without a branch, so that the compiler makes vectors of it.
        if values.iter().fold(false, |bad, value| bad | (value.to_bits() & EXPONENT == EXPONENT)) {
            found.store(true, Ordering::Relaxed);
        }
    });
    !found.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(len: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7919 % 1000) as f32 - 500.0) / 125.0).collect()
    }

    /// A norm by its definition, in f64.
    fn defined(x: &[f32], norm: &NormArgs<'_>) -> Vec<f64> {
        let count = x.len() as f64;
        let mean = match norm.kind {
            NormKind::Rms => 0.0,
            NormKind::Layer => x.iter().map(|x| f64::from(*x)).sum::<f64>() / count,
        };
        let variance = x.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / count;
        let scale = 1.0 / (variance + f64::from(norm.epsilon)).sqrt();
        let bias = |i: usize| norm.bias.map_or(0.0, |bias| f64::from(bias[i]));
        (0..x.len()).map(|i| (f64::from(x[i]) - mean) * scale * f64::from(norm.weight[i]) + bias(i)).collect()
    }

    fn assert_near(ours: &[f32], expected: &[f64], what: &str) {
        assert_eq!(ours.len(), expected.len());
        for (ours, expected) in ours.iter().zip(expected) {
            assert!(
                (f64::from(*ours) - expected).abs() <= 2e-6 * (1.0 + expected.abs()),
                "{what}: {ours} {expected}"
            );
        }
    }

    #[test]
    fn norms_agree_with_their_definitions() {
        let pool = Pool::new(2);
        for isa in Isa::available() {
            for kind in [NormKind::Rms, NormKind::Layer] {
                for width in [1, 7, 16, 33, 576] {
                    let (x, weight) = (values(3 * width), values(width));
                    let biases = values(2 * width);
                    for bias in [None, Some(&biases[width..])] {
                        let args = NormArgs { kind, weight: &weight, bias, epsilon: 1e-5 };
                        let out = norm(isa, &pool, &x, args);
                        let expected: Vec<f64> =
                            x.chunks_exact(width).flat_map(|x| defined(x, &args)).collect();
                        assert_near(&out, &expected, &format!("{isa} {kind:?} {width}"));
                    }
                }
            }
        }
    }

    #[test]
    fn heads_are_normed_alone_with_shared_weights_or_their_own() {
        let (heads, size, at, row_len) = (3, 5, 2, 20);
        for own in [false, true] {
            let weight = values(if own { heads * size } else { size });
            let args = NormArgs { kind: NormKind::Layer, weight: &weight, bias: None, epsilon: 1e-5 };
            let before = values(2 * row_len);
            let mut rows = before.clone();
            norm_heads(Isa::available()[0], &mut rows, row_len, at, heads, size, args);
            for (row, old) in rows.chunks_exact(row_len).zip(before.chunks_exact(row_len)) {
                assert_eq!((&row[..at], &row[at + heads * size..]), (&old[..at], &old[at + heads * size..]));
                for head in 0..heads {
                    let from = if own { head * size } else { 0 };
                    let head = at + head * size..at + (head + 1) * size;
                    let expected = defined(&old[head.clone()], &NormArgs { weight: &weight[from..], ..args });
                    assert_near(&row[head], &expected, "head");
                }
            }
        }
    }

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

    #[test]
    fn rotary_turns_each_pair_by_its_angle() {
        // The last value of each head does not turn.
        let (head_dim, heads) = (5, 2);
        let angles = [0.0f32, 0.0, 0.5, 2.0];
        let (cosines, sines) = (angles.map(f32::cos), angles.map(f32::sin));
        for interleaved in [false, true] {
            let mut rows = values(2 * 11);
            let before = rows.clone();
            let layout = RotaryLayout { head_dim, dims: 4, interleaved };
            rotary(&Pool::new(2), &mut rows, 11, heads, layout, &cosines, &sines);
            assert_eq!(rows[..11], before[..11], "an angle of 0 turns nothing");
            assert_eq!(rows[21], before[21], "values behind the heads stay");
            for head in 0..heads {
                let start = 11 + head * head_dim;
                assert_eq!(rows[start + 4], before[start + 4], "values that do not turn stay");
                for i in 0..2 {
                    let (a, b) = if interleaved { (2 * i, 2 * i + 1) } else { (i, i + 2) };
                    let (a, b) = (start + a, start + b);
                    let (cosine, sine) = (angles[2 + i].cos(), angles[2 + i].sin());
                    assert_eq!(rows[a], before[a] * cosine - before[b] * sine);
                    assert_eq!(rows[b], before[b] * cosine + before[a] * sine);
                }
            }
        }
    }

    #[test]
    fn one_infinity_or_nan_is_found() {
        let mut x = values(100);
        assert!(all_finite(&Pool::new(2), &x));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            x[77] = bad;
            assert!(!all_finite(&Pool::new(2), &x));
        }
    }
}
