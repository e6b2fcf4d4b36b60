//! The whole forward pass against Transformers (eager attention, f32): `scripts/make-fixtures`
//! made the tiny random checkpoints and their answers.

mod common;

use attend::Checkpoint;
use attend::generation::{GenerationOptions, Session};
use attend::kernels::matmul::ElementType;
use attend::model::{Forward, KernelChoice, LogitRows, Mask};
use common::*;

const CHECKPOINTS: [&str; 32] = [
    "llama",
    "llama3_scaled",
    "llama_biased",
    "llama_linear",
    "llama_dynamic",
    "llama_yarn",
    "mistral",
    "mixtral",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_moe",
    "granite",
    "olmo",
    "olmo2",
    "gemma",
    "gemma2",
    "gemma3_text",
    "smollm3",
    "phi",
    "phi3",
    "phi3_longrope",
    "stablelm",
    "starcoder2",
    "gpt2",
    "gpt_neo",
    "gpt_neox",
    "gptj",
    "opt",
    "falcon",
    "falcon_new",
    "bloom",
];
const ENCODERS: [&str; 4] = ["bert", "roberta", "xlm_roberta", "distilbert"];
const KERNELS: [KernelChoice; 2] = [KernelChoice::Native, KernelChoice::Reference];

#[test]
fn prompt_logits_and_maps_agree_with_transformers() {
    for name in CHECKPOINTS.into_iter().chain(ENCODERS) {
        let reference = Reference::open(&fixture(name).join("answers.safetensors"));
        for kernels in KERNELS {
            assert_prompt_agrees(
                &load(&fixture(name), kernels, None),
                &reference,
                &format!("{name} {kernels:?}"),
            );
        }
    }
}

#[test]
fn greedy_tokens_and_every_steps_rows_agree_with_transformers() {
    for name in CHECKPOINTS {
        let reference = Reference::open(&fixture(name).join("answers.safetensors"));
        for kernels in KERNELS {
            assert_steps_agree(
                &load(&fixture(name), kernels, None),
                &reference,
                &format!("{name} {kernels:?}"),
            );
        }
    }
}

#[test]
fn an_encoder_reads_its_text_once_and_does_not_generate() {
    let decoder = load(&fixture("bert"), KernelChoice::Native, None);
    let mut cache = decoder.new_cache(4).unwrap();
    decoder.forward(&[1, 2], &mut cache, Forward::default()).unwrap();
    let error = decoder.forward(&[3], &mut cache, Forward::default()).unwrap_err();
    assert!(error.to_string().contains("one step"), "{error}");
    let error = Session::new(&decoder, None, &[1], greedy_options(1)).err().unwrap();
    assert!(error.to_string().contains("attend map"), "{error}");
}

#[test]
fn every_row_sums_to_one_and_nothing_attends_to_a_later_position() {
    for kernels in KERNELS {
        for mask in [Mask::Causal, Mask::None] {
            let decoder = load(&fixture("llama"), kernels, None);
            let ids: Vec<u32> = (0..100).map(|i| i * 37 % 256).collect();
            let mut maps = KeepMaps::default();
            let mut cache = decoder.new_cache(ids.len()).unwrap();
            let request = Forward { mask: Some(mask), observer: Some(&mut maps), ..Forward::default() };
            decoder.forward(&ids, &mut cache, request).unwrap();
            for map in &maps.steps[0].1 {
                for (row, weights) in map.chunks_exact(ids.len()).enumerate() {
                    let sum: f64 = weights.iter().map(|w| f64::from(*w)).sum();
                    assert!((sum - 1.0).abs() < 1e-5, "a row sums to {sum}");
                    let later = &weights[row % ids.len() + 1..];
                    match mask {
                        Mask::Causal => assert!(later.iter().all(|w| *w == 0.0)),
                        Mask::None => assert!(later.iter().all(|w| *w > 0.0)),
                    }
                }
            }
        }
    }
}

#[test]
fn unmasked_attention_of_the_kernels_agrees_with_candle() {
    let ids: Vec<u32> = (0..70).map(|i| i * 11 % 256).collect();
    let maps: Vec<KeepMaps> = KERNELS
        .iter()
        .map(|kernels| {
            let decoder = load(&fixture("llama3_scaled"), *kernels, None);
            let mut maps = KeepMaps::default();
            let mut cache = decoder.new_cache(ids.len()).unwrap();
            let request = Forward { mask: Some(Mask::None), observer: Some(&mut maps), ..Forward::default() };
            decoder.forward(&ids, &mut cache, request).unwrap();
            maps
        })
        .collect();
    for (layer, (ours, theirs)) in maps[0].steps[0].1.iter().zip(&maps[1].steps[0].1).enumerate() {
        assert_close(ours, theirs, MAPS, &format!("layer {layer}"));
    }
}

#[test]
fn weights_held_in_half_the_bytes_stay_close() {
    let reference = Reference::open(&fixture("llama").join("answers.safetensors"));
    let ids = reference.ids("input_ids");
    for kernels in KERNELS {
        // Rounding each weight to 8 (bf16) or 11 (f16) bits; the bounds are some times that.
        for (element, bound) in [(ElementType::Bf16, 2e-2), (ElementType::F16, 3e-3)] {
            let decoder = load(&fixture("llama"), kernels, Some(element));
            let mut cache = decoder.new_cache(ids.len()).unwrap();
            let request = Forward { logits: LogitRows::All, ..Forward::default() };
            let logits = decoder.forward(&ids, &mut cache, request).unwrap();
            let logits = logits.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_logits_close(&logits, &reference.f32s("logits"), bound, &format!("{kernels:?} {element}"));
        }
    }
}

#[test]
fn a_rewound_cache_continues_as_a_fresh_one() {
    for kernels in KERNELS {
        let decoder = load(&fixture("llama"), kernels, None);
        let (kept, first, second) = ([1u32, 2, 3], [4u32, 5], [6u32, 7, 8]);
        let run = |cache: &mut _, ids: &[u32]| {
            let logits = decoder.forward(ids, cache, Forward::default()).unwrap();
            logits.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let mut cache = decoder.new_cache(10).unwrap();
        run(&mut cache, &kept);
        run(&mut cache, &first);
        cache.truncate(kept.len());
        let rewound = run(&mut cache, &second);
        let mut fresh = decoder.new_cache(10).unwrap();
        run(&mut fresh, &kept);
        assert_eq!(rewound, run(&mut fresh, &second), "{kernels:?}");
    }
}

#[test]
fn an_interrupt_ends_the_prompt_pass_and_a_running_generation() {
    use attend::generation::Finish;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    let decoder = load(&fixture("llama"), KernelChoice::Native, None);
    for steps in [0, 2] {
        let interrupt = Arc::new(AtomicBool::new(false));
        let options = GenerationOptions { interrupt: interrupt.clone(), ..greedy_options(10) };
        let mut session = Session::new(&decoder, None, &[1, 2, 3], options).unwrap();
        for _ in 0..steps {
            assert!(session.step(None).unwrap().is_some());
        }
        interrupt.store(true, Ordering::Relaxed);
        // The prompt pass is left; a later step is finished, and its token is the last.
        let token = session.step(None).unwrap();
        assert_eq!(token.is_some(), steps > 0);
        assert_eq!(session.finish(), Some(Finish::Interrupted));
        assert!(session.step(None).unwrap().is_none());
    }
}

#[test]
fn a_cache_of_another_decoder_is_refused() {
    let (ours, theirs) = (
        load(&fixture("llama"), KernelChoice::Native, None),
        load(&fixture("llama"), KernelChoice::Reference, None),
    );
    let mut cache = theirs.new_cache(4).unwrap();
    let error = ours.forward(&[1], &mut cache, Forward::default()).unwrap_err();
    assert!(error.to_string().contains("another decoder"), "{error}");
}

#[test]
fn the_fixtures_are_read_as_what_they_are() {
    let checkpoint = Checkpoint::open(&fixture("llama3_scaled")).unwrap();
    assert_eq!(checkpoint.element(None).unwrap(), ElementType::F32);
    assert!(checkpoint.config().tied_head && checkpoint.unused_tensors().is_empty());
    assert_eq!(checkpoint.config().kv_heads, 2);
}
