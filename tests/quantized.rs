//! Weights held quantised: the kernels against candle's operations on the same values, and their
//! promises bit for bit. The embedded model has rows of 256, which every type's blocks divide.

mod common;

use attend::kernels::cache::CacheType;
use attend::kernels::matmul::ElementType;
use attend::model::precision::Instead;
use attend::model::{Decoder, KernelChoice};
use attend::{Checkpoint, LoadOptions};
use common::*;

const QUANTIZED: [ElementType; 4] =
    [ElementType::Q8_0, ElementType::Q4_0, ElementType::Q4_1, ElementType::Q4K];

fn embedded(element: Option<ElementType>, kernels: KernelChoice, threads: usize) -> Decoder {
    let options = LoadOptions { element, kernels, threads, ..LoadOptions::default() };
    Checkpoint::embedded().unwrap().load(&options).unwrap()
}

fn ids() -> Vec<u32> {
    let text = "Once upon a time there was a little girl who lived in a small house near the forest. \
        She had a red ball and a brown dog, and every day they went out to play.";
    Checkpoint::embedded().unwrap().tokenizer().unwrap().encode(text).unwrap().ids
}

/// Of the logits' range. Activations are rounded to integers: where the last bits of two sums differ,
/// one may fall to the other side, a step of 1/127 of its group.
const ROUNDED: f64 = 6e-3;
/// The same of many tokens: what one of them may reach (7.7e-3 was seen), and the root of the mean square
/// (6.9e-4 to 8.1e-4 were seen, of every type on the tiers `plain` and `avx2`).
const ONE_ROUNDED: f64 = 2e-2;
const ROUNDED_ON_AVERAGE: f64 = 1.2e-3;

/// The root of the mean square of differences may be `bound` times the logits' range.
fn assert_near_on_average(ours: &[f32], theirs: &[f32], bound: f64, what: &str) {
    let squares = ours.iter().zip(theirs).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
    let difference = (squares.sum::<f64>() / ours.len() as f64).sqrt() / range(theirs);
    assert!(difference <= bound, "{what}: on average {difference:e} of the range, the bound is {bound:e}");
}

#[test]
fn the_kernels_agree_with_candle_on_the_values_held() {
    for element in QUANTIZED {
        let ids = ids();
        let ours = logits(&embedded(Some(element), KernelChoice::Native, 2), &ids, ids.len());
        let theirs = logits(&embedded(Some(element), KernelChoice::Reference, 2), &ids, ids.len());
        assert_logits_close(&ours, &theirs, ONE_ROUNDED, element.name());
        assert_near_on_average(&ours, &theirs, ROUNDED_ON_AVERAGE, element.name());
        for name in ["llama", "gemma2", "qwen3"] {
            let ours =
                logits(&load(&fixture(name), KernelChoice::Native, Some(element)), &[3, 1, 4, 1, 5], 5);
            let theirs =
                logits(&load(&fixture(name), KernelChoice::Reference, Some(element)), &[3, 1, 4, 1, 5], 5);
            assert_logits_close(&ours, &theirs, ROUNDED, &format!("{name} {element}"));
        }
    }
}

#[test]
fn quantised_weights_stay_near_those_of_the_checkpoint() {
    let ids = ids();
    let whole = logits(&embedded(None, KernelChoice::Native, 2), &ids, ids.len());
    for (element, bound) in [
        // Weights rounded to 1/127 and 1/8 of their block's largest; the bounds are some times what was seen.
        (ElementType::Q8_0, 0.01),
        (ElementType::Q4_0, 0.15),
        (ElementType::Q4_1, 0.15),
        (ElementType::Q4K, 0.15),
    ] {
        let ours = logits(&embedded(Some(element), KernelChoice::Native, 2), &ids, ids.len());
        assert_logits_close(&ours, &whole, bound, element.name());
        assert_ne!(ours, whole, "{element}: nothing was quantised");
    }
}

#[test]
fn pieces_and_threads_do_not_change_a_bit() {
    let ids = ids();
    for element in QUANTIZED {
        let decoder = embedded(Some(element), KernelChoice::Native, 2);
        let whole = logits(&decoder, &ids, ids.len());
        for piece in [1, 2, 13] {
            assert_eq!(logits(&decoder, &ids, piece), whole, "{element} in pieces of {piece}");
        }
        let one = embedded(Some(element), KernelChoice::Native, 1);
        assert_eq!(logits(&one, &ids, ids.len()), whole, "{element} with one thread");
    }
}

#[test]
fn fewer_bits_take_fewer_bytes() {
    let bytes = |element| embedded(Some(element), KernelChoice::Native, 1).weight_bytes_per_token();
    let config = Checkpoint::embedded().unwrap().config().clone();
    // The embedding serves as the head, and stays at 8 bits.
    let table = config.vocabulary * config.hidden;
    let norms = config.hidden * (2 * config.layers + 1);
    let rest = config.parameter_count() - table - norms;
    let tables = table / 32 * 34;
    assert_eq!(bytes(ElementType::Q8_0), tables + rest / 32 * 34);
    assert_eq!(bytes(ElementType::Q4_0), tables + rest / 32 * 18);
    assert_eq!(bytes(ElementType::Q4_1), tables + rest / 32 * 20);
    // Its 6-bit scales take a byte each in memory.
    assert_eq!(bytes(ElementType::Q4K), tables + rest / 256 * 148);
}

#[test]
fn a_matrix_that_does_not_divide_is_held_finer_and_said_to_be() {
    let held = |name: &str, element| Checkpoint::open(&fixture(name)).unwrap().held(Some(element)).unwrap();
    // Rows of 64 and 96: no blocks of 256.
    for matrix in held("llama", ElementType::Q4K) {
        assert_eq!(matrix.held, ElementType::Q8_0, "{matrix:?}");
        assert!(matrix.instead.is_some(), "{matrix:?}");
    }
    for matrix in held("llama", ElementType::Q8_0) {
        assert_eq!((matrix.held, matrix.instead), (ElementType::Q8_0, None), "{matrix:?}");
    }
    let tables: Vec<_> = held("llama", ElementType::Q4_1)
        .into_iter()
        .filter(|matrix| matrix.instead == Some(Instead::Table))
        .collect();
    assert!(!tables.is_empty() && tables.iter().all(|matrix| matrix.held == ElementType::Q8_0));
}

fn with_cache(cache: CacheType, kernels: KernelChoice, threads: usize) -> Decoder {
    let options = LoadOptions { cache, kernels, threads, ..LoadOptions::default() };
    Checkpoint::embedded().unwrap().load(&options).unwrap()
}

#[test]
fn a_narrow_cache_agrees_with_candle_and_stays_near_a_wide_one() {
    let ids = ids();
    let whole = logits(&with_cache(CacheType::F32, KernelChoice::Native, 2), &ids, ids.len());
    for (cache, bound, same) in [(CacheType::F16, 5e-4, 1e-4), (CacheType::Q8_0, 1e-2, 1e-3)] {
        let ours = logits(&with_cache(cache, KernelChoice::Native, 2), &ids, ids.len());
        assert_logits_close(&ours, &whole, bound, cache.name());
        assert_ne!(ours, whole, "{}: nothing was rounded", cache.name());
        // A value on the border between two roundings may fall to either side.
        let theirs = logits(&with_cache(cache, KernelChoice::Reference, 2), &ids, ids.len());
        assert_logits_close(&ours, &theirs, same, &format!("{} against candle", cache.name()));
    }
}

#[test]
fn pieces_and_threads_do_not_change_a_bit_with_a_narrow_cache() {
    let ids = ids();
    for cache in [CacheType::F16, CacheType::Q8_0] {
        let decoder = with_cache(cache, KernelChoice::Native, 2);
        let whole = logits(&decoder, &ids, ids.len());
        for piece in [1, 2, 13] {
            assert_eq!(logits(&decoder, &ids, piece), whole, "{cache:?} in pieces of {piece}");
        }
        let one = with_cache(cache, KernelChoice::Native, 1);
        assert_eq!(logits(&one, &ids, ids.len()), whole, "{cache:?} with one thread");
        // Heads of 16: their blocks are filled up.
        let options = LoadOptions { cache, threads: 2, ..LoadOptions::default() };
        let small = Checkpoint::open(&fixture("mistral")).unwrap().load(&options).unwrap();
        let ids: Vec<u32> = (0..60).map(|i| i * 37 % 256).collect();
        assert_eq!(logits(&small, &ids, 7), logits(&small, &ids, 60), "{cache:?} mistral");
    }
}
