//! [`Simd`] on x86-64: AVX2 with FMA and F16C, and AVX-512, each with VNNI and without.

// As in the parent: unsafe because of the CPU's instructions, which `Isa` proves.
#![allow(unsafe_op_in_unsafe_fn)]

use std::arch::x86_64::*;

use super::{ROOT_HALF, Simd};

/// The family of CPUs that this one is of, if AMD made it: 19h is Zen 3 and 4, 1Ah Zen 5.
pub(super) fn amd_family() -> Option<u32> {
    static FAMILY: std::sync::OnceLock<Option<u32>> = std::sync::OnceLock::new();
    *FAMILY.get_or_init(|| {
        let CpuidResult { ebx, edx, ecx, .. } = __cpuid(0);
        let is_amd = [ebx, edx, ecx].map(u32::to_le_bytes).as_flattened() == b"AuthenticAMD";
        // The base family, and what AMD's have had besides it since 2003.
        is_amd.then(|| __cpuid(1).eax).map(|bits| (bits >> 8 & 0xf) + (bits >> 20 & 0xff))
    })
}

/// AVX2, with VNNI (AVX-VNNI, for vectors of this size) or without.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct WithAvx2<const VNNI: bool>;

pub(in crate::kernels) type Avx2 = WithAvx2<false>;
pub(in crate::kernels) type Avx2Vnni = WithAvx2<true>;

impl<const VNNI: bool> Simd for WithAvx2<VNNI> {
    type Vector = __m256;
    type Integers = __m256i;
    type Bytes = __m256i;
    const LANES: usize = 8;
    const DOT_BIAS: i32 = if VNNI { 128 } else { 0 };

    #[inline(always)]
    unsafe fn splat(value: f32) -> __m256 {
        _mm256_set1_ps(value)
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m256 {
        _mm256_loadu_ps(from)
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const half::bf16) -> __m256 {
        let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
        _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16))
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const half::f16) -> __m256 {
        _mm256_cvtph_ps(_mm_loadu_si128(from.cast()))
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> __m256 {
        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast())))
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: __m256) {
        _mm256_storeu_ps(to, value);
    }
    #[inline(always)]
    unsafe fn store_f16(to: *mut half::f16, value: __m256) {
        _mm_storeu_si128(to.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value));
    }
    #[inline(always)]
    unsafe fn store_i8(to: *mut i8, value: __m256) {
        let integers = _mm256_cvtps_epi32(value);
        let pairs = _mm_packs_epi32(_mm256_castsi256_si128(integers), _mm256_extracti128_si256(integers, 1));
        _mm_storel_epi64(to.cast(), _mm_packs_epi16(pairs, pairs));
    }
    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        _mm256_add_ps(a, b)
    }
    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        _mm256_mul_ps(a, b)
    }
    #[inline(always)]
    unsafe fn div(a: __m256, b: __m256) -> __m256 {
        _mm256_div_ps(a, b)
    }
    #[inline(always)]
    unsafe fn max(a: __m256, b: __m256) -> __m256 {
        _mm256_max_ps(a, b)
    }
    #[inline(always)]
    unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        _mm256_fmadd_ps(a, b, c)
    }
    #[inline(always)]
    unsafe fn round(a: __m256) -> __m256 {
        _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
    }
    #[inline(always)]
    unsafe fn power_of_two(n: __m256) -> __m256 {
        let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
        _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23))
    }
    #[inline(always)]
    unsafe fn split(x: __m256) -> (__m256, __m256) {
        let bits = _mm256_castps_si256(x);
        let n = _mm256_srai_epi32(_mm256_sub_epi32(bits, _mm256_set1_epi32(ROOT_HALF)), 23);
        let mantissa = _mm256_sub_epi32(bits, _mm256_slli_epi32(n, 23));
        (_mm256_cvtepi32_ps(n), _mm256_castsi256_ps(mantissa))
    }
    #[inline(always)]
    unsafe fn zero_below(x: __m256, limit: __m256, value: __m256) -> __m256 {
        _mm256_and_ps(_mm256_cmp_ps(x, limit, _CMP_NLT_UQ), value)
    }
    #[inline(always)]
    unsafe fn bits_below(x: __m256, limit: __m256) -> u32 {
        _mm256_movemask_ps(_mm256_cmp_ps(x, limit, _CMP_LT_OQ)) as u32
    }
    #[inline(always)]
    unsafe fn sum(a: __m256) -> f32 {
        let four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }
    #[inline(always)]
    unsafe fn maximum(a: __m256) -> f32 {
        let four = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
        let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
    }
    #[inline(always)]
    unsafe fn splat_i32(value: i32) -> __m256i {
        _mm256_set1_epi32(value)
    }
    #[inline(always)]
    unsafe fn to_f32(a: __m256i) -> __m256 {
        _mm256_cvtepi32_ps(a)
    }
    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> __m256i {
        _mm256_loadu_si256(from.cast())
    }
    #[inline(always)]
    unsafe fn splat_bytes(from: *const i8) -> __m256i {
        _mm256_set1_epi32(from.cast::<i32>().read_unaligned())
    }
    #[inline(always)]
    unsafe fn byte(a: __m256i, which: usize) -> __m256i {
        let shifted = _mm256_srl_epi32(a, _mm_cvtsi32_si128(8 * which as i32));
        _mm256_and_si256(shifted, _mm256_set1_epi32(255))
    }
    #[inline(always)]
    unsafe fn nibbles(a: __m256i) -> (__m256i, __m256i) {
        let low = _mm256_set1_epi8(15);
        (_mm256_and_si256(a, low), _mm256_and_si256(_mm256_srli_epi16(a, 4), low))
    }
    // Two sums of 16 bits a lane, each of two columns of every quad. In a group, both stay within
    // ±15·127·16, and the lower one, where −8·Σx comes in, within ±2·8·127·16: they fit.
    #[inline(always)]
    unsafe fn start_nibbles(value: i32) -> __m256i {
        _mm256_set1_epi32(if VNNI { value } else { value & 0xffff })
    }
    #[inline(always)]
    unsafe fn end_nibbles(sum: __m256i) -> __m256i {
        if VNNI { sum } else { _mm256_madd_epi16(sum, _mm256_set1_epi16(1)) }
    }
    #[inline(always)]
    unsafe fn repeat_16(from: *const u8) -> __m256i {
        _mm256_broadcastsi128_si256(_mm_loadu_si128(from.cast()))
    }
    #[inline(always)]
    unsafe fn look_up(table: __m256i, places: __m256i) -> __m256i {
        _mm256_shuffle_epi8(table, places)
    }
    #[inline(always)]
    unsafe fn interleave(a: __m256i, b: __m256i) -> (__m256i, __m256i) {
        (_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b))
    }
    #[inline(always)]
    unsafe fn bf16_pairs(a: __m256i) -> [__m256; 2] {
        let last = _mm256_and_si256(a, _mm256_set1_epi32(0xffff_0000_u32 as i32));
        [_mm256_castsi256_ps(_mm256_slli_epi32(a, 16)), _mm256_castsi256_ps(last)]
    }
    #[inline(always)]
    unsafe fn dot_nibbles(sum: __m256i, weights: __m256i, x: __m256i) -> __m256i {
        if VNNI {
            return _mm256_dpbusd_avx_epi32(sum, weights, x);
        }
        _mm256_add_epi16(sum, _mm256_maddubs_epi16(weights, x))
    }
    // Weights' sizes as unsigned bytes, their signs given to x: pairs reach 2 · 128 · 127, and fit.
    #[inline(always)]
    unsafe fn dot_bytes(sum: __m256i, weights: __m256i, x: __m256i) -> __m256i {
        if VNNI {
            return _mm256_dpbusd_avx_epi32(sum, weights, x);
        }
        let signed = _mm256_xor_si256(weights, _mm256_set1_epi8(-128));
        let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(signed), _mm256_sign_epi8(x, signed));
        _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
    }
}

/// AVX-512, with VNNI or without.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct WithAvx512<const VNNI: bool>;

pub(in crate::kernels) type Avx512 = WithAvx512<false>;
pub(in crate::kernels) type Avx512Vnni = WithAvx512<true>;

impl<const VNNI: bool> Simd for WithAvx512<VNNI> {
    type Vector = __m512;
    type Integers = __m512i;
    type Bytes = __m512i;
    const LANES: usize = 16;
    const DOT_BIAS: i32 = if VNNI { 128 } else { 0 };

    #[inline(always)]
    unsafe fn splat(value: f32) -> __m512 {
        _mm512_set1_ps(value)
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        _mm512_loadu_ps(from)
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const half::bf16) -> __m512 {
        let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
        _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const half::f16) -> __m512 {
        _mm512_cvtph_ps(_mm256_loadu_si256(from.cast()))
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> __m512 {
        _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast())))
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: __m512) {
        _mm512_storeu_ps(to, value);
    }
    #[inline(always)]
    unsafe fn store_f16(to: *mut half::f16, value: __m512) {
        _mm256_storeu_si256(to.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value));
    }
    #[inline(always)]
    unsafe fn store_i8(to: *mut i8, value: __m512) {
        _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(value)));
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        _mm512_add_ps(a, b)
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        _mm512_mul_ps(a, b)
    }
    #[inline(always)]
    unsafe fn div(a: __m512, b: __m512) -> __m512 {
        _mm512_div_ps(a, b)
    }
    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        _mm512_max_ps(a, b)
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        _mm512_fmadd_ps(a, b, c)
    }
    #[inline(always)]
    unsafe fn round(a: __m512) -> __m512 {
        _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
    }
    #[inline(always)]
    unsafe fn power_of_two(n: __m512) -> __m512 {
        let biased = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
        _mm512_castsi512_ps(_mm512_slli_epi32(biased, 23))
    }
    #[inline(always)]
    unsafe fn split(x: __m512) -> (__m512, __m512) {
        let bits = _mm512_castps_si512(x);
        let n = _mm512_srai_epi32(_mm512_sub_epi32(bits, _mm512_set1_epi32(ROOT_HALF)), 23);
        let mantissa = _mm512_sub_epi32(bits, _mm512_slli_epi32(n, 23));
        (_mm512_cvtepi32_ps(n), _mm512_castsi512_ps(mantissa))
    }
    #[inline(always)]
    unsafe fn zero_below(x: __m512, limit: __m512, value: __m512) -> __m512 {
        _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, limit, _CMP_NLT_UQ), value)
    }
    #[inline(always)]
    unsafe fn bits_below(x: __m512, limit: __m512) -> u32 {
        _mm512_cmp_ps_mask(x, limit, _CMP_LT_OQ).into()
    }
    #[inline(always)]
    unsafe fn sum(a: __m512) -> f32 {
        _mm512_reduce_add_ps(a)
    }
    #[inline(always)]
    unsafe fn maximum(a: __m512) -> f32 {
        _mm512_reduce_max_ps(a)
    }
    #[inline(always)]
    unsafe fn splat_i32(value: i32) -> __m512i {
        _mm512_set1_epi32(value)
    }
    #[inline(always)]
    unsafe fn to_f32(a: __m512i) -> __m512 {
        _mm512_cvtepi32_ps(a)
    }
    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> __m512i {
        _mm512_loadu_si512(from.cast())
    }
    #[inline(always)]
    unsafe fn splat_bytes(from: *const i8) -> __m512i {
        _mm512_set1_epi32(from.cast::<i32>().read_unaligned())
    }
    #[inline(always)]
    unsafe fn byte(a: __m512i, which: usize) -> __m512i {
        let shifted = _mm512_srl_epi32(a, _mm_cvtsi32_si128(8 * which as i32));
        _mm512_and_si512(shifted, _mm512_set1_epi32(255))
    }
    #[inline(always)]
    unsafe fn nibbles(a: __m512i) -> (__m512i, __m512i) {
        let low = _mm512_set1_epi8(15);
        (_mm512_and_si512(a, low), _mm512_and_si512(_mm512_srli_epi16(a, 4), low))
    }
    // Without VNNI, as on AVX2.
    #[inline(always)]
    unsafe fn start_nibbles(value: i32) -> __m512i {
        _mm512_set1_epi32(if VNNI { value } else { value & 0xffff })
    }
    #[inline(always)]
    unsafe fn end_nibbles(sum: __m512i) -> __m512i {
        if VNNI { sum } else { _mm512_madd_epi16(sum, _mm512_set1_epi16(1)) }
    }
    #[inline(always)]
    unsafe fn repeat_16(from: *const u8) -> __m512i {
        _mm512_broadcast_i32x4(_mm_loadu_si128(from.cast()))
    }
    #[inline(always)]
    unsafe fn look_up(table: __m512i, places: __m512i) -> __m512i {
        _mm512_shuffle_epi8(table, places)
    }
    #[inline(always)]
    unsafe fn interleave(a: __m512i, b: __m512i) -> (__m512i, __m512i) {
        (_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b))
    }
    #[inline(always)]
    unsafe fn bf16_pairs(a: __m512i) -> [__m512; 2] {
        let last = _mm512_and_si512(a, _mm512_set1_epi32(0xffff_0000_u32 as i32));
        [_mm512_castsi512_ps(_mm512_slli_epi32(a, 16)), _mm512_castsi512_ps(last)]
    }
    #[inline(always)]
    unsafe fn dot_nibbles(sum: __m512i, weights: __m512i, x: __m512i) -> __m512i {
        if VNNI {
            return _mm512_dpbusd_epi32(sum, weights, x);
        }
        _mm512_add_epi16(sum, _mm512_maddubs_epi16(weights, x))
    }
    #[inline(always)]
    unsafe fn dot_bytes(sum: __m512i, weights: __m512i, x: __m512i) -> __m512i {
        if VNNI {
            return _mm512_dpbusd_epi32(sum, weights, x);
        }
        // As on AVX2; below zero are the weights whose biased byte has no high bit.
        let signed = _mm512_xor_si512(weights, _mm512_set1_epi8(-128));
        let negative = _mm512_movepi8_mask(signed);
        let x = _mm512_mask_sub_epi8(x, negative, _mm512_setzero_si512(), x);
        let pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(signed), x);
        _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))
    }
}
