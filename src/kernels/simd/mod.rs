//! Vectors in tiers: plain Rust, AVX2 with FMA and F16C, AVX-512, and each of these with VNNI, which
//! multiplies bytes. Above them is [AMX](super::amx), beside which vectors are those of VNNI.
//!
//! Kernels are written once over [`Simd`] and compiled once per tier; [`Isa`] says which tier to
//! run. An [`Isa`] value exists only for a tier that this CPU has, so passing one is the proof
//! that the vector code may run.

// Every method here is `unsafe` for one reason: its instructions must exist on the CPU, which
// `Isa` proves. Blocks of their own around each intrinsic would repeat that sentence 60 times.
#![allow(unsafe_op_in_unsafe_fn)]

use std::fmt;

use crate::error::{Error, Result};

/// An instruction set that this CPU has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Isa(Tier);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tier {
    Plain,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx2Vnni,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    #[cfg(target_arch = "x86_64")]
    Amx,
}

impl Isa {
    /// Numbers of a vector.
    pub(super) fn lanes(self) -> usize {
        // SAFETY: needs the tier alone.
        unsafe { lanes(self) }
    }

    /// Whether a thread reads memory faster in several streams than in one: CPUs of this tier do (AMD's
    /// Zen 3: 15 GB/s instead of 11).
    pub(super) fn reads_pairs(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self.0 == Tier::Avx2;
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// Whether a row or a few ask for memory before they need it. AMD's first CPUs with AVX-512, Zen 4, see for
    /// themselves what is read in order, and are up to an eighth slower where a program asks as well; their
    /// successors, Zen 5, are up to a third faster.
    pub(super) fn asks_ahead(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return !(matches!(self.0, Tier::Avx512 | Tier::Avx512Vnni) && x86::amd_family() == Some(0x19));
        #[cfg(not(target_arch = "x86_64"))]
        true
    }

    /// Every tier of this CPU, from the plain one to the best.
    pub fn available() -> Vec<Isa> {
        #[allow(unused_mut)]
        let mut found = vec![Isa(Tier::Plain)];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
            {
                found.push(Isa(Tier::Avx2));
                if is_x86_feature_detected!("avxvnni") {
                    found.push(Isa(Tier::Avx2Vnni));
                }
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                {
                    found.push(Isa(Tier::Avx512));
                    if is_x86_feature_detected!("avx512vnni") {
                        found.push(Isa(Tier::Avx512Vnni));
                        // Rows are cut with the instructions for bf16.
                        if is_x86_feature_detected!("avx512bf16") && super::amx::available() {
                            found.push(Isa(Tier::Amx));
                        }
                    }
                }
            }
        }
        found
    }

    /// The best tier, or the one that the environment variable `ATTEND_ISA` names.
    ///
    /// # Errors
    /// If `ATTEND_ISA` names a tier that does not exist or that this CPU lacks.
    pub fn detect() -> Result<Isa> {
        let available = Self::available();
        match std::env::var("ATTEND_ISA") {
            Err(_) => Ok(available[available.len() - 1]),
            Ok(name) => available.iter().copied().find(|isa| isa.name() == name).ok_or_else(|| {
                let names: Vec<&str> = available.iter().map(|isa| isa.name()).collect();
                Error::Usage(format!(
                    "ATTEND_ISA is {name:?}, but this CPU offers {}; unset it to take the best",
                    names.join(", ")
                ))
            }),
        }
    }

    /// `plain`, `avx2`, `avx2vnni`, `avx512`, `avx512vnni` or `amx`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Tier::Plain => "plain",
            #[cfg(target_arch = "x86_64")]
            Tier::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Tier::Avx2Vnni => "avx2vnni",
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512Vnni => "avx512vnni",
            #[cfg(target_arch = "x86_64")]
            Tier::Amx => "amx",
        }
    }

    pub(super) fn tier(self) -> Tier {
        self.0
    }

    /// Where tiles of bf16 are to be multiplied in one instruction.
    pub(super) fn amx(self) -> Option<Amx> {
        #[cfg(target_arch = "x86_64")]
        if self.0 == Tier::Amx {
            return Some(Amx(()));
        }
        None
    }
}

/// The proof that this CPU and the system have AMX.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub(super) struct Amx(());

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Compiles a generic kernel `$body::<S>` once per tier and makes `$name(isa, …)` choose among
/// them. The body must be `#[inline(always)]`, so that it takes on the tier's features.
macro_rules! dispatch {
    ($(#[$doc:meta])* $vis:vis fn $name:ident = $body:path [$($generic:ty),*] ($($arg:ident: $type:ty),* $(,)?) $(-> $ret:ty)?) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        $vis unsafe fn $name(isa: $crate::kernels::simd::Isa, $($arg: $type),*) $(-> $ret)? {
            use $body as body;
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments)]
            unsafe fn avx2($($arg: $type),*) $(-> $ret)? {
                // SAFETY: the caller's promises are passed on unchanged.
                unsafe { body::<$crate::kernels::simd::Avx2, $($generic),*>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
            #[allow(clippy::too_many_arguments)]
            unsafe fn avx2vnni($($arg: $type),*) $(-> $ret)? {
                // SAFETY: the caller's promises are passed on unchanged.
                unsafe { body::<$crate::kernels::simd::Avx2Vnni, $($generic),*>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
            #[allow(clippy::too_many_arguments)]
            unsafe fn avx512($($arg: $type),*) $(-> $ret)? {
                // SAFETY: the caller's promises are passed on unchanged.
                unsafe { body::<$crate::kernels::simd::Avx512, $($generic),*>($($arg),*) }
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
            #[allow(clippy::too_many_arguments)]
            unsafe fn avx512vnni($($arg: $type),*) $(-> $ret)? {
                // SAFETY: the caller's promises are passed on unchanged.
                unsafe { body::<$crate::kernels::simd::Avx512Vnni, $($generic),*>($($arg),*) }
            }
            // SAFETY: an `Isa` exists only where the CPU has its instructions.
            unsafe {
                match isa.tier() {
                    $crate::kernels::simd::Tier::Plain => {
                        body::<$crate::kernels::simd::Plain, $($generic),*>($($arg),*)
                    }
                    #[cfg(target_arch = "x86_64")]
                    $crate::kernels::simd::Tier::Avx2 => avx2($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::kernels::simd::Tier::Avx2Vnni => avx2vnni($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::kernels::simd::Tier::Avx512 => avx512($($arg),*),
                    #[cfg(target_arch = "x86_64")]
                    $crate::kernels::simd::Tier::Avx512Vnni | $crate::kernels::simd::Tier::Amx => {
                        avx512vnni($($arg),*)
                    }
                }
            }
        }
    };
}
pub(super) use dispatch;

dispatch!(
    /// # Safety
    /// None beyond the tier's instructions.
    fn lanes = self::lanes_body [] () -> usize
);

#[inline(always)]
unsafe fn lanes_body<S: Simd>() -> usize {
    S::LANES
}

/// Asks for a cache line; one past the end of the memory is harmless.
#[inline(always)]
pub(super) fn prefetch<T>(from: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is only advice, whatever the address; every x86-64 has it.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch(from.cast::<i8>(), _MM_HINT_T0);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = from;
}

/// Asks for the cache lines of some bytes.
#[inline(always)]
pub(super) fn prefetch_lines<T>(from: *const T, bytes: usize) {
    for line in (0..bytes).step_by(64) {
        prefetch(from.wrapping_byte_add(line));
    }
}

/// A vector of `LANES` f32, or of as many i32 or groups of four bytes, and what the kernels do with it.
///
/// # Safety
/// Every method may run only where the tier's instructions exist; pointers must be valid for
/// `LANES` elements (they need no alignment).
pub(super) trait Simd: Copy + 'static {
    type Vector: Copy;
    type Integers: Copy;
    /// Four bytes a lane.
    type Bytes: Copy;
    const LANES: usize;
    /// What [`dot_bytes`](Self::dot_bytes) takes weights to be biased by.
    const DOT_BIAS: i32;

    unsafe fn splat(value: f32) -> Self::Vector;
    unsafe fn load(from: *const f32) -> Self::Vector;
    unsafe fn load_bf16(from: *const half::bf16) -> Self::Vector;
    unsafe fn load_f16(from: *const half::f16) -> Self::Vector;
    unsafe fn load_i8(from: *const i8) -> Self::Vector;
    unsafe fn store(to: *mut f32, value: Self::Vector);
    /// Rounded to the nearest f16, of two as near to the even one.
    unsafe fn store_f16(to: *mut half::f16, value: Self::Vector);
    /// Integers of −128 to 127, a byte each.
    unsafe fn store_i8(to: *mut i8, value: Self::Vector);
    unsafe fn add(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    unsafe fn mul(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    unsafe fn div(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The larger one; `b` where either is NaN.
    unsafe fn max(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a · b + c`; rounded once, except in the plain tier.
    unsafe fn fma(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// The nearest integer.
    unsafe fn round(a: Self::Vector) -> Self::Vector;
    /// 2ⁿ for integral n in −126..=127.
    unsafe fn power_of_two(n: Self::Vector) -> Self::Vector;
    /// (n, m) with x = 2ⁿ·m and m in √½..√2, for positive x that are not subnormal; (−127, 1) for 0.
    unsafe fn split(x: Self::Vector) -> (Self::Vector, Self::Vector);
    /// 0 where `x < limit`, `value` elsewhere (also where `x` is NaN).
    unsafe fn zero_below(x: Self::Vector, limit: Self::Vector, value: Self::Vector) -> Self::Vector;
    /// A bit for each lane, set where `x < limit`.
    unsafe fn bits_below(x: Self::Vector, limit: Self::Vector) -> u32;
    unsafe fn sum(a: Self::Vector) -> f32;
    unsafe fn maximum(a: Self::Vector) -> f32;

    unsafe fn splat_i32(value: i32) -> Self::Integers;
    unsafe fn to_f32(a: Self::Integers) -> Self::Vector;
    /// Loads four bytes a lane.
    unsafe fn load_bytes(from: *const u8) -> Self::Bytes;
    /// The same four bytes in each lane.
    unsafe fn splat_bytes(from: *const i8) -> Self::Bytes;
    /// One of each lane's four bytes, as a number of 0 to 255.
    unsafe fn byte(a: Self::Bytes, which: usize) -> Self::Integers;
    /// The low four bits of each byte, and the high ones.
    unsafe fn nibbles(a: Self::Bytes) -> (Self::Bytes, Self::Bytes);
    /// 16 bytes, again and again.
    unsafe fn repeat_16(from: *const u8) -> Self::Bytes;
    /// For each byte of 0 to 15 that one of the table, which holds 16 again and again.
    unsafe fn look_up(table: Self::Bytes, places: Self::Bytes) -> Self::Bytes;
    /// Pairs of a byte of `a` and one of `b`: of the first 8 bytes of each 16, and of the other 8.
    unsafe fn interleave(a: Self::Bytes, b: Self::Bytes) -> (Self::Bytes, Self::Bytes);
    /// The first two bytes of each lane as a bf16, and the last two.
    unsafe fn bf16_pairs(a: Self::Bytes) -> [Self::Vector; 2];
    /// What a group's [`dot_nibbles`](Self::dot_nibbles) are added to: `value` is −8·Σx, or 0.
    #[inline(always)]
    unsafe fn start_nibbles(value: i32) -> Self::Integers {
        Self::splat_i32(value)
    }
    /// The sum after at most eight [`dot_nibbles`](Self::dot_nibbles), all columns of a group.
    #[inline(always)]
    unsafe fn end_nibbles(sum: Self::Integers) -> Self::Integers {
        sum
    }
    /// `sum + Σ weight · x` over each lane's four bytes; weights of 0 to 15, x of −127 to 127. Between
    /// [`start_nibbles`](Self::start_nibbles) and [`end_nibbles`](Self::end_nibbles) a tier may keep the sum
    /// in its own way.
    unsafe fn dot_nibbles(sum: Self::Integers, weights: Self::Bytes, x: Self::Bytes) -> Self::Integers;
    /// `sum + Σ (weight − 128 + DOT_BIAS) · x` over each lane's four bytes; x of −127 to 127.
    unsafe fn dot_bytes(sum: Self::Integers, weights: Self::Bytes, x: Self::Bytes) -> Self::Integers;

    /// eˣ, relative error below 2⁻²²; 0 below −87.3 (and for −∞), e⁸⁸ above 88, NaN for NaN.
    #[inline(always)]
    unsafe fn exp(x: Self::Vector) -> Self::Vector {
        let lowest = Self::splat(-87.3);
        // In this order of operands, a NaN goes through.
        let clamped = Self::negate(Self::max(Self::splat(-88.0), Self::negate(Self::max(lowest, x))));
        Self::zero_below(x, lowest, Self::exp_inside(clamped))
    }

    /// [`exp`](Self::exp) of a number that is not above 0, or NaN.
    #[inline(always)]
    unsafe fn exp_below(x: Self::Vector) -> Self::Vector {
        Self::zero_below(x, Self::splat(-87.3), Self::exp_inside(x))
    }

    /// eˣ for −87.3 ≤ x ≤ 88; NaN for NaN.
    ///
    /// x = n·ln 2 + r with |r| ≤ ln 2 / 2; eʳ by its Taylor polynomial of degree 7.
    #[inline(always)]
    unsafe fn exp_inside(x: Self::Vector) -> Self::Vector {
        let n = Self::round(Self::mul(x, Self::splat(std::f32::consts::LOG2_E)));
        // ln 2 in two parts, the first with trailing zeros, so that n·ln 2 loses nothing.
        let r = Self::fma(n, Self::splat(-0.693_359_4), x);
        let r = Self::fma(n, Self::splat(2.121_944_4e-4), r);
        let mut p = Self::splat(1.0 / 5040.0);
        for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            p = Self::fma(p, r, Self::splat(coefficient));
        }
        Self::mul(p, Self::power_of_two(n))
    }

    /// The natural logarithm of positive numbers that are not subnormal, relative error below 2⁻²¹ but
    /// near 1, where the absolute error is below 2⁻²³; −88.03 for 0.
    ///
    /// ln x = n·ln 2 + ln m, and ln m = 2·artanh((m − 1)/(m + 1)) by its Taylor polynomial of degree 9.
    #[inline(always)]
    unsafe fn ln(x: Self::Vector) -> Self::Vector {
        let (n, m) = Self::split(x);
        let one = Self::splat(1.0);
        let s = Self::div(Self::add(m, Self::splat(-1.0)), Self::add(m, one));
        let square = Self::mul(s, s);
        let mut p = Self::splat(2.0 / 9.0);
        for coefficient in [2.0 / 7.0, 2.0 / 5.0, 2.0 / 3.0, 2.0] {
            p = Self::fma(p, square, Self::splat(coefficient));
        }
        Self::fma(n, Self::splat(std::f32::consts::LN_2), Self::mul(p, s))
    }

    #[inline(always)]
    unsafe fn negate(a: Self::Vector) -> Self::Vector {
        Self::mul(a, Self::splat(-1.0))
    }
}

/// The bits of √½.
const ROOT_HALF: i32 = 0x3f35_04f3;

/// Arrays of eight: whatever the compiler makes of them on this architecture.
#[derive(Clone, Copy)]
pub(super) struct Plain;

#[inline(always)]
fn zip(a: [f32; 8], b: [f32; 8], op: impl Fn(f32, f32) -> f32) -> [f32; 8] {
    std::array::from_fn(|lane| op(a[lane], b[lane]))
}

/// `sum + Σ (weight − bias) · x` in each lane.
#[inline(always)]
fn dot(sum: [i32; 8], weights: [[u8; 4]; 8], x: [[u8; 4]; 8], bias: i32) -> [i32; 8] {
    std::array::from_fn(|lane| {
        let products = weights[lane].into_iter().zip(x[lane]);
        products.fold(sum[lane], |sum, (w, x)| sum + (i32::from(w) - bias) * i32::from(x as i8))
    })
}

impl Simd for Plain {
    type Vector = [f32; 8];
    type Integers = [i32; 8];
    type Bytes = [[u8; 4]; 8];
    const LANES: usize = 8;
    const DOT_BIAS: i32 = 0;

    #[inline(always)]
    unsafe fn splat(value: f32) -> [f32; 8] {
        [value; 8]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> [f32; 8] {
        from.cast::<[f32; 8]>().read_unaligned()
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const half::bf16) -> [f32; 8] {
        let bits = from.cast::<[u16; 8]>().read_unaligned();
        bits.map(|bits| f32::from_bits(u32::from(bits) << 16))
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const half::f16) -> [f32; 8] {
        let bits = from.cast::<[u16; 8]>().read_unaligned();
        bits.map(|bits| half::f16::from_bits(bits).to_f32_const())
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> [f32; 8] {
        from.cast::<[i8; 8]>().read_unaligned().map(f32::from)
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: [f32; 8]) {
        to.cast::<[f32; 8]>().write_unaligned(value);
    }
    #[inline(always)]
    unsafe fn store_f16(to: *mut half::f16, value: [f32; 8]) {
        to.cast::<[half::f16; 8]>().write_unaligned(value.map(half::f16::from_f32_const));
    }
    #[inline(always)]
    unsafe fn store_i8(to: *mut i8, value: [f32; 8]) {
        to.cast::<[i8; 8]>().write_unaligned(value.map(|value| value as i8));
    }
    #[inline(always)]
    unsafe fn add(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn mul(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn max(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn fma(a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|lane| a[lane] * b[lane] + c[lane])
    }
    #[inline(always)]
    unsafe fn round(a: [f32; 8]) -> [f32; 8] {
        a.map(f32::round_ties_even)
    }
    #[inline(always)]
    unsafe fn power_of_two(n: [f32; 8]) -> [f32; 8] {
        n.map(|n| f32::from_bits(((n as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    unsafe fn split(x: [f32; 8]) -> ([f32; 8], [f32; 8]) {
        let exponent = x.map(|x| (x.to_bits() as i32 - ROOT_HALF) >> 23);
        let mantissa = std::array::from_fn(|lane| {
            f32::from_bits((x[lane].to_bits() as i32 - (exponent[lane] << 23)) as u32)
        });
        (exponent.map(|n| n as f32), mantissa)
    }
    #[inline(always)]
    unsafe fn zero_below(x: [f32; 8], limit: [f32; 8], value: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|lane| if x[lane] < limit[lane] { 0.0 } else { value[lane] })
    }
    #[inline(always)]
    unsafe fn bits_below(x: [f32; 8], limit: [f32; 8]) -> u32 {
        (0..8).fold(0, |bits, lane| bits | u32::from(x[lane] < limit[lane]) << lane)
    }
    #[inline(always)]
    unsafe fn sum(a: [f32; 8]) -> f32 {
        let four: [f32; 4] = std::array::from_fn(|lane| a[lane] + a[lane + 4]);
        (four[0] + four[2]) + (four[1] + four[3])
    }
    #[inline(always)]
    unsafe fn maximum(a: [f32; 8]) -> f32 {
        a.into_iter().fold(f32::NEG_INFINITY, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn splat_i32(value: i32) -> [i32; 8] {
        [value; 8]
    }
    #[inline(always)]
    unsafe fn to_f32(a: [i32; 8]) -> [f32; 8] {
        a.map(|value| value as f32)
    }
    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> [[u8; 4]; 8] {
        from.cast::<[[u8; 4]; 8]>().read_unaligned()
    }
    #[inline(always)]
    unsafe fn splat_bytes(from: *const i8) -> [[u8; 4]; 8] {
        [from.cast::<[u8; 4]>().read_unaligned(); 8]
    }
    #[inline(always)]
    unsafe fn byte(a: [[u8; 4]; 8], which: usize) -> [i32; 8] {
        a.map(|bytes| bytes[which].into())
    }
    #[inline(always)]
    unsafe fn nibbles(a: [[u8; 4]; 8]) -> ([[u8; 4]; 8], [[u8; 4]; 8]) {
        (a.map(|bytes| bytes.map(|byte| byte & 15)), a.map(|bytes| bytes.map(|byte| byte >> 4)))
    }
    #[inline(always)]
    unsafe fn repeat_16(from: *const u8) -> [[u8; 4]; 8] {
        let four = from.cast::<[[u8; 4]; 4]>().read_unaligned();
        std::array::from_fn(|lane| four[lane % 4])
    }
    #[inline(always)]
    unsafe fn look_up(table: [[u8; 4]; 8], places: [[u8; 4]; 8]) -> [[u8; 4]; 8] {
        places.map(|places| places.map(|place| table.as_flattened()[usize::from(place)]))
    }
    #[inline(always)]
    unsafe fn interleave(a: [[u8; 4]; 8], b: [[u8; 4]; 8]) -> ([[u8; 4]; 8], [[u8; 4]; 8]) {
        let (a, b) = (a.as_flattened(), b.as_flattened());
        let pairs = |first: usize| {
            std::array::from_fn(|lane| {
                let at = lane / 4 * 16 + first + lane % 4 * 2;
                [a[at], b[at], a[at + 1], b[at + 1]]
            })
        };
        (pairs(0), pairs(8))
    }
    #[inline(always)]
    unsafe fn bf16_pairs(a: [[u8; 4]; 8]) -> [[f32; 8]; 2] {
        let widen = |low: u8, high: u8| f32::from_bits(u32::from_le_bytes([0, 0, low, high]));
        [a.map(|bytes| widen(bytes[0], bytes[1])), a.map(|bytes| widen(bytes[2], bytes[3]))]
    }
    #[inline(always)]
    unsafe fn dot_nibbles(sum: [i32; 8], weights: [[u8; 4]; 8], x: [[u8; 4]; 8]) -> [i32; 8] {
        dot(sum, weights, x, 0)
    }
    #[inline(always)]
    unsafe fn dot_bytes(sum: [i32; 8], weights: [[u8; 4]; 8], x: [[u8; 4]; 8]) -> [i32; 8] {
        dot(sum, weights, x, 128)
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx2Vnni, Avx512, Avx512Vnni};

#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(always)]
    unsafe fn exp_body<S: Simd>(values: &[f32], out: &mut [f32]) {
        for (from, to) in values.chunks_exact(S::LANES).zip(out.chunks_exact_mut(S::LANES)) {
            S::store(to.as_mut_ptr(), S::exp(S::load(from.as_ptr())));
        }
    }
    dispatch!(fn exp_all = self::exp_body [] (values: &[f32], out: &mut [f32]));

    #[test]
    fn exp_is_within_its_bound_on_every_tier() {
        let values: Vec<f32> = (0..16_000).map(|i| -87.25 + i as f32 * 0.010_95).collect();
        for isa in Isa::available() {
            let mut out = vec![f32::NAN; values.len()];
            // SAFETY: both slices are the same whole number of vectors long.
            unsafe { exp_all(isa, &values, &mut out) };
            for (x, y) in values.iter().zip(&out) {
                let expected = f64::from(*x).exp();
                let relative = (f64::from(*y) - expected).abs() / expected;
                assert!(relative < 2f64.powi(-22), "{isa}: exp({x}) = {y}, relative error {relative:e}");
            }
        }
    }

    #[inline(always)]
    unsafe fn ln_body<S: Simd>(values: &[f32], out: &mut [f32]) {
        for (from, to) in values.chunks_exact(S::LANES).zip(out.chunks_exact_mut(S::LANES)) {
            S::store(to.as_mut_ptr(), S::ln(S::load(from.as_ptr())));
        }
    }
    dispatch!(fn ln_all = self::ln_body [] (values: &[f32], out: &mut [f32]));

    #[test]
    fn ln_is_within_its_bound_on_every_tier() {
        let mut values: Vec<f32> = (0..16_000).map(|i| f32::from_bits(0x0080_0000 + i * 130_000)).collect();
        values[0] = 0.0;
        values[1] = 1.0;
        for isa in Isa::available() {
            let mut out = vec![f32::NAN; values.len()];
            // SAFETY: both slices are the same whole number of vectors long.
            unsafe { ln_all(isa, &values, &mut out) };
            assert!(out[0] < -88.0 && out[0].is_finite(), "{isa}: ln(0) = {}", out[0]);
            assert_eq!(out[1], 0.0, "{isa}");
            for (x, y) in values.iter().zip(&out).skip(1) {
                let expected = f64::from(*x).ln();
                let bound = expected.abs() * 2f64.powi(-21) + 2f64.powi(-23);
                assert!((f64::from(*y) - expected).abs() < bound, "{isa}: ln({x:e}) = {y} for {expected}");
            }
        }
    }

    #[inline(always)]
    unsafe fn group_body<S: Simd>(weights: &[[u8; 4]; 8], x: &[[i8; 4]; 8]) -> [f32; 16] {
        let total: i32 = x.as_flattened().iter().map(|x| i32::from(*x)).sum();
        let mut sum = S::start_nibbles(-8 * total);
        for (weights, x) in weights.iter().zip(x) {
            sum = S::dot_nibbles(sum, S::splat_bytes(weights.as_ptr().cast()), S::splat_bytes(x.as_ptr()));
        }
        let mut out = [0f32; 16];
        S::store(out.as_mut_ptr(), S::to_f32(S::end_nibbles(sum)));
        out
    }
    dispatch!(fn group = self::group_body [] (weights: &[[u8; 4]; 8], x: &[[i8; 4]; 8]) -> [f32; 16]);

    #[test]
    fn nibbles_largest_sums_are_exact_on_every_tier() {
        // Whatever two columns share 16 bits: each of a quad's four has its weight and its x.
        for case in 0..1 << 8 {
            let weights = [std::array::from_fn(|column| if case >> column & 1 == 1 { 15 } else { 0 }); 8];
            let x = [std::array::from_fn(|column| if case >> (4 + column) & 1 == 1 { 127 } else { -127 }); 8];
            let sum = |column: usize| 8 * (i32::from(weights[0][column]) - 8) * i32::from(x[0][column]);
            let expected: i32 = (0..4).map(sum).sum();
            for isa in Isa::available() {
                // SAFETY: sixteen lanes are as many as a tier has, or more.
                let out = unsafe { group(isa, &weights, &x) };
                assert_eq!(out[0], expected as f32, "{isa}: {weights:?} times {x:?}");
            }
        }
    }

    #[test]
    fn exp_of_masked_scores_is_exactly_zero_and_nan_stays() {
        let mut values = [f32::NEG_INFINITY; 16];
        values[3] = -1e30;
        values[5] = 0.0;
        values[9] = f32::NAN;
        for isa in Isa::available() {
            let mut out = [f32::NAN; 16];
            // SAFETY: sixteen is a whole number of vectors on every tier.
            unsafe { exp_all(isa, &values, &mut out) };
            for (lane, y) in out.iter().enumerate() {
                match lane {
                    5 => assert_eq!(*y, 1.0, "{isa}"),
                    9 => assert!(y.is_nan(), "{isa}: NaN became {y}"),
                    _ => assert_eq!(*y, 0.0, "{isa}: lane {lane}"),
                }
            }
        }
    }
}
