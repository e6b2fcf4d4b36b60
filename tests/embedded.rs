//! The model inside the binary: against Transformers on the same folder, and what its heads can do.

mod common;
#[path = "common/program.rs"]
mod program;

use attend::model::{Decoder, Forward, KernelChoice};
use attend::{Checkpoint, LoadOptions};
use common::*;
use program::*;

fn load(kernels: KernelChoice) -> Decoder {
    let options = LoadOptions { kernels, threads: 2, ..LoadOptions::default() };
    Checkpoint::embedded().unwrap().load(&options).unwrap()
}

#[test]
fn its_answers_are_those_of_transformers() {
    // scripts/make-fixtures asked Transformers (eager attention, f32) about models/embedded.
    let reference = Reference::open(&fixture("embedded/answers.safetensors"));
    for kernels in [KernelChoice::Native, KernelChoice::Reference] {
        let decoder = load(kernels);
        assert_prompt_agrees(&decoder, &reference, &format!("{kernels:?}"));
        assert_steps_agree(&decoder, &reference, &format!("{kernels:?}"));
    }
}

/// Mean weight on the previous token (all queries but the first) and on the token after the earlier
/// copy (queries of the second copy), of each head, over 20 draws of 40 random tokens repeated once.
#[test]
fn a_head_looks_at_the_previous_token_and_one_continues_what_was_there_before() {
    const TOKENS: usize = 40;
    const SEEDS: u64 = 20;
    let decoder = load(KernelChoice::Native);
    let config = decoder.config();
    let specials = 1; // the first token of the vocabulary is the end of a text
    let mut previous = vec![0f64; config.layers * config.heads];
    let mut induction = previous.clone();
    for seed in 1..=SEEDS {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let once: Vec<u32> = (0..TOKENS).map(|_| specials + random.token(config.vocabulary - 1)).collect();
        let ids = [once.clone(), once].concat();
        let mut maps = KeepMaps::default();
        let mut cache = decoder.new_cache(ids.len()).unwrap();
        decoder
            .forward(&ids, &mut cache, Forward { observer: Some(&mut maps), ..Forward::default() })
            .unwrap();
        let n = ids.len();
        for (layer, map) in maps.steps[0].1.iter().enumerate() {
            for (head, map) in map.chunks_exact(n * n).enumerate() {
                let at = |query: usize, key: usize| f64::from(map[query * n + key]);
                let mean = |queries: std::ops::Range<usize>, back: usize| {
                    let count = queries.len() as f64;
                    queries.map(|query| at(query, query - back)).sum::<f64>() / count / SEEDS as f64
                };
                previous[layer * config.heads + head] += mean(1..n, 1);
                induction[layer * config.heads + head] += mean(TOKENS..n, TOKENS - 1);
            }
        }
    }
    let best = |scores: &[f64]| {
        let (at, score) = scores.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
        (format!("{}.{}", at / config.heads, at % config.heads), *score)
    };
    let (previous, induction) = (best(&previous), best(&induction));
    println!(
        "previous token: head {} {:.3}; induction: head {} {:.3}",
        previous.0, previous.1, induction.0, induction.1
    );
    assert!(previous.1 > 0.5, "the best previous-token head is {previous:?}");
    assert!(induction.1 > 0.5, "the best induction head is {induction:?}");
}

#[test]
fn every_command_runs_without_a_model_given() {
    let text = stdout(&["generate", "Once upon a time", "--seed", "1", "-n", "40"]);
    assert!(text.len() > 60 && text.is_ascii(), "{text}");
    assert_eq!(text, stdout(&["generate", "Once upon a time", "--seed", "1", "-n", "40"]));
    let map = stdout(&["map", "The cat sat on the mat"]);
    assert_eq!(map.lines().count(), 3 + 1 + 2 + 6, "{map}");
    let info = stdout(&["info"]);
    assert!(info.contains("inside this program") && info.contains("4096 tokens"), "{info}");
    stdout(&["bench", "-p", "8", "-n", "2", "-r", "1"]);
    let dump = tempfile::tempdir().unwrap();
    stdout(&["generate", "Once upon a time", "-n", "3", "--attention", arg(dump.path())]);
    assert_eq!(attend::capture::Dump::open(dump.path()).unwrap().steps().len(), 3);
}

#[test]
fn it_is_small_enough_to_publish() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/embedded");
    let bytes: u64 =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes <= 9_000_000, "{bytes} bytes");
}
