//! SmolLM2-135M-Instruct, a real checkpoint: against Transformers (eager attention, f32), whose
//! answers `tests/fixtures/smollm2/make.py` wrote. `scripts/check-real-model` makes the checkpoint
//! and names its folder in `ATTEND_REAL_MODEL`; it holds `f32`, `bf16`, `f16` and `f32-sharded`, and the
//! GGUF file that they were made from.

mod common;

use std::path::PathBuf;

use attend::generation::Session;
use attend::kernels::cache::CacheType;
use attend::kernels::matmul::ElementType;
use attend::measure::{Perplexity, SlidingWindow};
use attend::model::precision::Instead;
use attend::model::{Decoder, Forward, KernelChoice};
use attend::{Checkpoint, LoadOptions};
use common::*;

const KERNELS: [KernelChoice; 2] = [KernelChoice::Native, KernelChoice::Reference];

fn folder(variant: &str) -> PathBuf {
    let root = std::env::var_os("ATTEND_REAL_MODEL")
        .expect("ATTEND_REAL_MODEL names no folder; run scripts/check-real-model");
    PathBuf::from(root).join(variant)
}

#[derive(serde::Deserialize)]
struct Prompt {
    name: String,
    text: String,
    ids: Vec<u32>,
    greedy_ids: Vec<u32>,
}

fn prompts() -> Vec<Prompt> {
    serde_json::from_slice(&std::fs::read(fixture("smollm2/prompts.json")).unwrap()).unwrap()
}

fn greedy(decoder: &Decoder, prompt: &Prompt) -> Vec<u32> {
    // The reference did not stop at the end of a sequence.
    let options = greedy_options(prompt.greedy_ids.len());
    let mut session = Session::new(decoder, None, &prompt.ids, options).unwrap();
    while session.step(None).unwrap().is_some() {}
    session.generated().to_vec()
}

#[test]
fn prompts_have_the_tokens_of_transformers() {
    let checkpoint = Checkpoint::open(&folder("f32")).unwrap();
    for prompt in prompts() {
        let ours =
            attend::generation::Prompt::from_text(checkpoint.tokenizer().unwrap(), &prompt.text).unwrap();
        assert_eq!(ours.ids, prompt.ids, "{}", prompt.name);
        assert_eq!(ours.text(), prompt.text, "{}", prompt.name);
    }
}

#[test]
fn sixty_four_greedy_tokens_of_every_prompt_are_those_of_transformers() {
    let prompts = prompts();
    assert_eq!(prompts.len(), 5);
    assert!(prompts.iter().any(|prompt| prompt.ids.len() >= 500));
    for kernels in KERNELS {
        let decoder = load(&folder("f32"), kernels, None);
        for prompt in &prompts {
            assert_eq!(prompt.greedy_ids.len(), 64);
            assert_eq!(greedy(&decoder, prompt), prompt.greedy_ids, "{} with {kernels:?}", prompt.name);
        }
    }
}

#[test]
fn shards_give_the_same_tokens_as_the_whole_file() {
    let decoder = load(&folder("f32-sharded"), KernelChoice::Native, None);
    let prompts = prompts();
    assert_eq!(greedy(&decoder, &prompts[0]), prompts[0].greedy_ids);
}

#[test]
fn the_gguf_file_has_the_tokens_of_the_checkpoint_made_from_it() {
    let prompts = prompts();
    let wide = Some(ElementType::F32);
    for kernels in KERNELS {
        let decoder = load(&folder("model.gguf"), kernels, wide);
        for prompt in &prompts {
            assert_eq!(greedy(&decoder, prompt), prompt.greedy_ids, "{} with {kernels:?}", prompt.name);
        }
    }
}

#[test]
fn the_gguf_file_keeps_its_types_for_less_than_half_a_per_cent_of_perplexity() {
    let held = Checkpoint::open(&folder("model.gguf")).unwrap().held(None).unwrap();
    let count = |element| held.iter().filter(|matrix| matrix.held == element).count();
    assert_eq!((count(ElementType::Q4_1), count(ElementType::Q8_0), held.len()), (210, 1, 211));
    let wide = LoadOptions { element: Some(ElementType::F32), threads: 2, ..LoadOptions::default() };
    let whole = perplexity_with("model.gguf", &wide);
    assert_eq!(whole, perplexity("f32", KernelChoice::Native));
    for kernels in KERNELS {
        let own = perplexity("model.gguf", kernels);
        println!(
            "perplexity of the GGUF file's types {kernels:?}: {own:.4} ({:+.3} %)",
            100.0 * (own / whole - 1.0)
        );
        assert!((own / whole - 1.0).abs() < 0.005, "{kernels:?}: {own} for {whole}");
    }
}

#[test]
fn the_gguf_files_tokenizer_is_that_of_the_checkpoint() {
    let [gguf, folder] = ["model.gguf", "f32"].map(|name| Checkpoint::open(&folder(name)).unwrap());
    let (ours, theirs) = (gguf.tokenizer().unwrap(), folder.tokenizer().unwrap());
    let own = [
        "",
        " ",
        "  two  spaces,   three spaces\t\ttabs and one at the end ",
        "first line\nsecond line\r\n\n\n\tindented\n ",
        "1 12 123 1234567 3.14 2024-11-24 ٣٤ ½ Ⅷ 0x1F",
        "It's 8 o'clock, WE'RE late; they'll say I'd better've gone",
        "a crab 🦀 and a family 👩‍👩‍👧, flags 🇰🇷",
        "안녕하세요, 방앗간 2024년",
        "水車小屋の漢字、カタカナ",
        "Café, naïve (decomposed: Cafe\u{301}): 3.14 ≠ 22/7!",
        "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n<|endoftext|><repo_name>x<|im_start",
        "…\u{a0}—\u{2003}!?\u{0}\u{7f}\u{fffd}",
        "def f(x):\n    return x**2  # CamelCase und Straßen_namen",
    ];
    let prompts = prompts();
    let texts = own.into_iter().chain(prompts.iter().map(|prompt| prompt.text.as_str()));
    for text in texts {
        let (ours, theirs) = (ours.encode(text).unwrap(), theirs.encode(text).unwrap());
        assert_eq!(ours, theirs, "{text:?}");
    }
    assert_eq!(ours.special_tokens(), theirs.special_tokens());
    for id in 0..gguf.config().vocabulary as u32 {
        assert_eq!(ours.bytes(id, None), theirs.bytes(id, None), "token {id}");
    }
    assert_eq!(gguf.generation(), folder.generation());
}

#[test]
fn maps_and_logits_agree_with_transformers() {
    let reference = Reference::open(&fixture("smollm2/maps.safetensors"));
    let ids = reference.ids("input_ids");
    for kernels in KERNELS {
        let decoder = load(&folder("f32"), kernels, None);
        let mut cache = decoder.new_cache(ids.len()).unwrap();
        let mut maps = KeepMaps::default();
        let request = Forward { observer: Some(&mut maps), ..Forward::default() };
        let logits = decoder.forward(&ids, &mut cache, request).unwrap();
        let logits = logits.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_logits_close(&logits, &reference.f32s("logits"), 1e-4, &format!("{kernels:?}"));
        let (_, layers) = &maps.steps[0];
        assert_eq!(layers.len(), 30);
        for (layer, map) in layers.iter().enumerate() {
            let expected = reference.f32s(&format!("attention.{layer}"));
            assert_close(map, &expected, 2e-5, &format!("{kernels:?} layer {layer}"));
        }
    }
}

/// Perplexity of the fixed text, in one window.
fn perplexity(variant: &str, kernels: KernelChoice) -> f64 {
    perplexity_with(variant, &LoadOptions { kernels, threads: 2, ..LoadOptions::default() })
}

fn perplexity_with(variant: &str, options: &LoadOptions) -> f64 {
    let text = std::fs::read_to_string(fixture("smollm2/perplexity.txt")).unwrap();
    let checkpoint = Checkpoint::open(&folder(variant)).unwrap();
    let decoder = checkpoint.load(options).unwrap();
    let ids = checkpoint.tokenizer().unwrap().encode(&text).unwrap().ids;
    assert!(ids.len() > 400);
    let sliding = SlidingWindow::new(None, None, decoder.config().context).unwrap();
    let mut run = Perplexity::new(&decoder, &ids, sliding, Default::default()).unwrap();
    while run.step().unwrap().is_some() {}
    assert_eq!((run.windows(), run.scored()), (1, ids.len() - 1));
    run.value()
}

#[test]
fn half_the_bytes_cost_less_than_one_per_cent_of_perplexity() {
    let whole = perplexity("f32", KernelChoice::Native);
    println!("perplexity f32: {whole:.4}");
    assert!(whole.is_finite() && whole > 1.0);
    for kernels in KERNELS {
        for variant in ["bf16", "f16"] {
            let half = perplexity(variant, kernels);
            println!("perplexity {variant} {kernels:?}: {half:.4} ({:+.3} %)", 100.0 * (half / whole - 1.0));
            assert!((half / whole - 1.0).abs() < 0.01, "{variant} {kernels:?}: {half} for {whole}");
        }
    }
}

#[test]
fn eight_bits_cost_less_than_half_a_per_cent_of_perplexity() {
    let with =
        |element| perplexity_with("f32", &LoadOptions { element, threads: 2, ..LoadOptions::default() });
    let whole = with(None);
    // The checkpoint was itself made from q4_1, whose weights come back whole; activations are rounded.
    for (element, bound) in [
        (ElementType::Q8_0, 0.005),
        (ElementType::Q4_0, 0.20),
        (ElementType::Q4_1, 0.005),
        (ElementType::Q4K, 0.02),
    ] {
        let quantised = with(Some(element));
        println!("perplexity {element}: {quantised:.4} ({:+.3} %)", 100.0 * (quantised / whole - 1.0));
        assert!((quantised / whole - 1.0).abs() < bound, "{element}: {quantised} for {whole}");
    }
}

#[test]
fn a_cache_of_eight_bits_costs_less_than_half_a_per_cent_of_perplexity() {
    let with = |cache| perplexity_with("f32", &LoadOptions { cache, threads: 2, ..LoadOptions::default() });
    let whole = with(CacheType::F32);
    for (cache, bound) in [(CacheType::F16, 0.001), (CacheType::Q8_0, 0.005)] {
        let narrow = with(cache);
        println!("perplexity cache {}: {narrow:.4} ({:+.3} %)", cache.name(), 100.0 * (narrow / whole - 1.0));
        assert!((narrow / whole - 1.0).abs() < bound, "{cache:?}: {narrow} for {whole}");
    }
}

#[test]
fn q4_k_falls_back_where_rows_do_not_divide() {
    let matrices = Checkpoint::open(&folder("f32")).unwrap().held(Some(ElementType::Q4K)).unwrap();
    let count = |held| matrices.iter().filter(|matrix| matrix.held == held).count();
    // Rows of 1536 divide by 256, those of 576 only by 32.
    assert_eq!((count(ElementType::Q4K), count(ElementType::Q8_0), matrices.len()), (30, 181, 211));
    assert_eq!(matrices.iter().filter(|m| m.instead == Some(Instead::Indivisible)).count(), 180);
}

#[test]
fn shards_converted_to_one_quantised_file_give_the_tokens_of_the_type_asked_for() {
    let out = tempfile::tempdir().unwrap();
    let source = Checkpoint::open(&folder("f32-sharded")).unwrap();
    attend::checkpoint::convert::convert(&source, out.path(), ElementType::Q4_1, 2, &Default::default())
        .unwrap();
    let prompt = &prompts()[0];
    let expected = greedy(&load(&folder("f32"), KernelChoice::Native, Some(ElementType::Q4_1)), prompt);
    assert_eq!(greedy(&load(out.path(), KernelChoice::Native, None), prompt), expected);
}
