//! `attend convert`: what it writes loads again as if the type had been asked for, bit for bit.

mod common;

use std::path::Path;

use attend::checkpoint::convert::convert;
use attend::kernels::matmul::ElementType;
use attend::model::{Decoder, KernelChoice};
use attend::{Checkpoint, LoadOptions};
use common::*;

const TYPES: [ElementType; 7] = [
    ElementType::F32,
    ElementType::Bf16,
    ElementType::F16,
    ElementType::Q8_0,
    ElementType::Q4_0,
    ElementType::Q4_1,
    ElementType::Q4K,
];

fn logits(decoder: &Decoder) -> Vec<f32> {
    let ids: Vec<u32> = (0..40).map(|i| i * 37 % 256).collect();
    common::logits(decoder, &ids, ids.len())
}

fn written(checkpoint: &Checkpoint, out: &Path, element: ElementType) -> Checkpoint {
    convert(checkpoint, out, element, 2, &Default::default()).unwrap();
    Checkpoint::open(out).unwrap()
}

#[test]
fn a_converted_model_is_the_one_that_the_type_asked_for_gives() {
    let folder = tempfile::tempdir().unwrap();
    let mut sources: Vec<(String, Checkpoint)> =
        ["llama", "llama_biased", "qwen3", "gemma2", "gpt2", "phi3", "mixtral", "bloom", "stablelm", "opt"]
            .into_iter()
            .map(|name| (name.to_owned(), Checkpoint::open(&fixture(name)).unwrap()))
            .collect();
    // Its rows divide by 256.
    sources.push(("embedded".into(), Checkpoint::embedded().unwrap()));
    for (name, source) in &sources {
        for element in TYPES {
            let out = written(source, &folder.path().join(format!("{name}-{element}")), element);
            let options = LoadOptions { element: Some(element), threads: 2, ..LoadOptions::default() };
            let expected = logits(&source.load(&options).unwrap());
            let ours = logits(&out.load(&LoadOptions { threads: 2, ..LoadOptions::default() }).unwrap());
            assert!(ours == expected, "{name} {element}");
            let again = logits(&out.load(&options).unwrap());
            assert!(again == expected, "{name} {element}, asked for once more");
            assert_eq!(out.config_digest(), source.config_digest());
            assert_eq!(out.unused_tensors(), source.unused_tensors());
        }
    }
}

#[test]
fn a_quantised_file_is_as_small_as_its_bits_and_converts_back() {
    let folder = tempfile::tempdir().unwrap();
    let source = Checkpoint::embedded().unwrap();
    let small = written(&source, &folder.path().join("small"), ElementType::Q4K);
    let values = small.config().parameter_count();
    let (_, size) = small.weights().files().next().unwrap();
    // 4.5 bits a weight, 8.5 in the embedding (a quarter of this model), and a header.
    assert!(size * 8 < values * 6, "{size} bytes for {values} weights");
    let back = written(&small, &folder.path().join("back"), ElementType::F32);
    let options = LoadOptions { element: Some(ElementType::F32), threads: 2, ..LoadOptions::default() };
    assert!(logits(&back.load(&options).unwrap()) == logits(&small.load(&options).unwrap()));
    assert_eq!(small.tokenizer().unwrap().len(), source.tokenizer().unwrap().len());
}

#[test]
fn the_same_conversion_writes_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let source = Checkpoint::open(&fixture("llama")).unwrap();
    let bytes = |name: &str, threads| {
        let out = folder.path().join(name);
        convert(&source, &out, ElementType::Q4_1, threads, &Default::default()).unwrap();
        std::fs::read(out.join("model.safetensors")).unwrap()
    };
    assert!(bytes("a", 1) == bytes("b", 3));
}

#[test]
fn greedy_tokens_are_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let source = Checkpoint::open(&fixture("qwen3")).unwrap();
    let out = written(&source, &folder.path().join("out"), ElementType::Q8_0);
    let tokens = |checkpoint: &Checkpoint, element| {
        let options = LoadOptions { element, threads: 1, ..LoadOptions::default() };
        let decoder = checkpoint.load(&options).unwrap();
        let mut session =
            attend::generation::Session::new(&decoder, None, &[1, 2, 3], greedy_options(30)).unwrap();
        while session.step(None).unwrap().is_some() {}
        session.generated().to_vec()
    };
    assert_eq!(tokens(&out, None), tokens(&source, Some(ElementType::Q8_0)));
}

#[test]
fn a_place_that_is_taken_or_inside_the_source_is_refused_and_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let source_folder = folder.path().join("model");
    std::fs::create_dir(&source_folder).unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(fixture("llama").join(name), source_folder.join(name)).unwrap();
    }
    let source = Checkpoint::open(&source_folder).unwrap();
    let taken = folder.path().join("taken");
    std::fs::create_dir(&taken).unwrap();
    std::fs::write(taken.join("notes.txt"), "mine").unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    for (out, expected) in [
        (taken.clone(), "not empty"),
        (source_folder.clone(), "lies in the folder"),
        (source_folder.join("inside"), "lies in the folder"),
        (source_folder.join("../model/inside"), "lies in the folder"),
        (file, "cannot write the folder"),
        (folder.path().join("no/such/parent"), "cannot open"),
    ] {
        let error =
            convert(&source, &out, ElementType::Q8_0, 1, &Default::default()).unwrap_err().to_string();
        assert!(error.contains(expected), "{}: {error}", out.display());
    }
    assert_eq!(std::fs::read_to_string(taken.join("notes.txt")).unwrap(), "mine");
    let mut left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["file", "model", "taken"]);
    // An empty folder is no obstacle.
    std::fs::remove_file(taken.join("notes.txt")).unwrap();
    assert_eq!(logits(&load(&fixture("llama"), KernelChoice::Native, Some(ElementType::Q8_0))), {
        convert(&source, &taken, ElementType::Q8_0, 1, &Default::default()).unwrap();
        logits(&load(&taken, KernelChoice::Native, None))
    });
}

#[test]
fn an_interrupted_conversion_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let source = Checkpoint::open(&fixture("llama")).unwrap();
    let out = folder.path().join("out");
    let error = convert(&source, &out, ElementType::Q8_0, 1, &true.into()).unwrap_err();
    assert!(matches!(error, attend::Error::Interrupted), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
