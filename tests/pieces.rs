//! A prompt in one pass, in pieces, and token by token: the same logits and the same maps.

mod common;

use attend::generation::Session;
use attend::model::{Decoder, Forward, KernelChoice, LogitRows};
use common::*;
use proptest::prelude::*;

/// Logits of every token and maps of every layer, `[heads][queries][keys]` over the whole prompt.
fn run(decoder: &Decoder, ids: &[u32], pieces: &[usize], capture: bool) -> (Vec<f32>, Vec<Vec<f32>>) {
    let mut cache = decoder.new_cache(ids.len()).unwrap();
    let mut observer = KeepMaps::default();
    let mut logits = vec![];
    let mut start = 0;
    for piece in pieces {
        let mut request = Forward { logits: LogitRows::All, ..Forward::default() };
        if capture {
            request.observer = Some(&mut observer);
        }
        let rows = decoder.forward(&ids[start..start + piece], &mut cache, request).unwrap();
        logits.extend(rows.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        start += piece;
    }
    assert_eq!(start, ids.len());
    let (heads, total) = (decoder.config().heads, ids.len());
    let mut maps = vec![vec![0f32; heads * total * total]; if capture { decoder.config().layers } else { 0 }];
    for (step, layers) in &observer.steps {
        assert_eq!(layers.len(), decoder.config().layers);
        for (layer, map) in layers.iter().enumerate() {
            for (row, weights) in map.chunks_exact(step.keys).enumerate() {
                let (head, query) = (row / step.queries, step.first_query + row % step.queries);
                let at = (head * total + query) * total;
                maps[layer][at..at + step.keys].copy_from_slice(weights);
            }
        }
    }
    (logits, maps)
}

/// Cuts `len` where a bit of `cuts` is set.
fn pieces(len: usize, cuts: &[bool]) -> Vec<usize> {
    let mut pieces = vec![1];
    for cut in cuts.iter().take(len - 1) {
        if *cut {
            pieces.push(1);
        } else {
            *pieces.last_mut().unwrap() += 1;
        }
    }
    pieces
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_split_gives_the_same_logits_and_maps(
        ids in prop::collection::vec(0u32..256, 1..100),
        cuts in prop::collection::vec(prop::bool::weighted(0.3), 100),
    ) {
        for name in ["llama", "llama3_scaled", "mistral", "qwen3", "granite", "gemma2", "gemma3_text"] {
            for kernels in [KernelChoice::Native, KernelChoice::Reference] {
                let decoder = load(&fixture(name), kernels, None);
                let (whole_logits, whole_maps) = run(&decoder, &ids, &[ids.len()], true);
                for split in [pieces(ids.len(), &cuts), vec![1; ids.len()]] {
                    let (logits, maps) = run(&decoder, &ids, &split, true);
                    let what = format!("{name} {kernels:?} {split:?}");
                    assert_logits_close(&logits, &whole_logits, 1e-4, &what);
                    for (ours, whole) in maps.iter().zip(&whole_maps) {
                        assert_close(ours, whole, 2e-5, &what);
                    }
                    if kernels == KernelChoice::Native {
                        // The kernels promise more: not a bit differs, with or without capture.
                        prop_assert_eq!(&logits, &whole_logits);
                        prop_assert_eq!(&maps, &whole_maps);
                        prop_assert_eq!(&run(&decoder, &ids, &split, false).0, &whole_logits);
                    }
                }
            }
        }
    }
}

#[test]
fn a_prompt_longer_than_a_chunk_of_keys_can_be_split_anywhere() {
    // The tiny checkpoint has 128 positions; this one has the same weights and more room.
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(fixture("llama").join("model.safetensors"), folder.path().join("model.safetensors"))
        .unwrap();
    let config = std::fs::read_to_string(fixture("llama").join("config.json")).unwrap();
    let config = config.replace("\"max_position_embeddings\": 128", "\"max_position_embeddings\": 1024");
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    let decoder = load(folder.path(), KernelChoice::Native, None);
    let reference = load(folder.path(), KernelChoice::Reference, None);
    let mut random = Random(1);
    let ids: Vec<u32> = (0..700).map(|_| random.token(256)).collect();
    let (whole, maps) = run(&decoder, &ids, &[700], true);
    let (theirs, their_maps) = run(&reference, &ids, &[700], true);
    assert_logits_close(&whole, &theirs, 1e-4, "against candle");
    for (layer, (ours, theirs)) in maps.iter().zip(&their_maps).enumerate() {
        assert_close(ours, theirs, 2e-5, &format!("layer {layer} against candle"));
    }
    for split in [vec![256, 256, 188], vec![255, 2, 443], [vec![600], vec![1; 100]].concat()] {
        let (logits, split_maps) = run(&decoder, &ids, &split, true);
        assert_eq!(logits, whole, "{split:?}");
        assert_eq!(split_maps, maps, "{split:?}");
    }
}

/// Logits of every token, fed in these pieces as parts of a text so long.
fn logits_of(decoder: &Decoder, ids: &[u32], pieces: &[usize], text_length: usize) -> Vec<f32> {
    let mut cache = decoder.new_cache(ids.len()).unwrap();
    let (mut logits, mut start) = (vec![], 0);
    for piece in pieces {
        let request = Forward { logits: LogitRows::All, text_length, ..Forward::default() };
        let rows = decoder.forward(&ids[start..start + piece], &mut cache, request).unwrap();
        logits.extend(rows.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        start += piece;
    }
    assert_eq!(start, ids.len());
    logits
}

#[test]
fn positions_that_depend_on_length_are_those_of_the_whole_prompt_however_it_is_split() {
    let mut random = Random(2);
    let ids: Vec<u32> = (0..40).map(|_| random.token(256)).collect();
    for name in ["phi3_longrope", "llama_dynamic"] {
        let decoder = load(&fixture(name), KernelChoice::Native, None);
        let whole = logits_of(&decoder, &ids, &[40], 0);
        // Both models were first trained on 16 positions.
        for split in [vec![8, 32], vec![16, 1, 23], vec![17, 23], vec![1; 40]] {
            assert_eq!(logits_of(&decoder, &ids, &split, 40), whole, "{name} {split:?}");
        }
        // The first tokens alone are a short text, with other angles: the length does matter.
        let short = logits_of(&decoder, &ids[..16], &[16], 0);
        assert_ne!(short, whole[..short.len()], "{name}");
    }
}

#[test]
fn longrope_generation_across_the_boundary_is_a_fresh_reading_of_the_whole_text() {
    let decoder = load(&fixture("phi3_longrope"), KernelChoice::Native, None);
    let vocabulary = decoder.config().vocabulary;
    let ids: Vec<u32> = (0..12).map(|id| (id * 19 + 3) % 256).collect();
    // 16 positions are short: the fifth step crosses.
    let mut session = Session::new(&decoder, None, &ids, greedy_options(10)).unwrap();
    while session.step(None).unwrap().is_some() {}
    let text = [&ids, session.generated()].concat();
    assert_eq!(text.len(), 22);
    let mut cache = decoder.new_cache(text.len()).unwrap();
    let mut logits = vec![];
    for (start, end) in std::iter::once((0, 12)).chain((12..text.len()).map(|at| (at, at + 1))) {
        let row = decoder.forward(&text[start..end], &mut cache, Forward::default()).unwrap();
        logits.push(row.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        let fresh = logits_of(&decoder, &text[..end], &[end], 0);
        let (step, last) = (logits.last().unwrap(), &fresh[(end - 1) * vocabulary..]);
        assert_eq!(step, last, "{end} tokens");
        let likeliest = (0..vocabulary).max_by(|a, b| last[*a].total_cmp(&last[*b])).unwrap();
        if let Some(next) = text.get(end) {
            assert_eq!(*next as usize, likeliest, "{end} tokens");
        }
    }
    // Back before the boundary, and on with another token: short again.
    cache.truncate(10);
    let row = decoder.forward(&[7], &mut cache, Forward::default()).unwrap();
    let shorter = [&text[..10], &[7]].concat();
    let fresh = logits_of(&decoder, &shorter, &[11], 0);
    assert_eq!(row.flatten_all().unwrap().to_vec1::<f32>().unwrap(), fresh[10 * vocabulary..]);
}
