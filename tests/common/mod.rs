//! What the integration tests share: fixtures, references, comparisons.
#![allow(dead_code)] // each test binary uses its own part

use std::path::{Path, PathBuf};

use attend::Result;
use attend::generation::{GenerationOptions, Sampling, Session};
use attend::kernels::matmul::ElementType;
use attend::model::{AttentionObserver, AttentionRows, Decoder, Forward, KernelChoice, LogitRows, StepShape};
use attend::{Checkpoint, LoadOptions};
use safetensors::SafeTensors;

/// A folder of `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

pub fn load(folder: &Path, kernels: KernelChoice, element: Option<ElementType>) -> Decoder {
    let options = LoadOptions { kernels, element, threads: 2, ..LoadOptions::default() };
    Checkpoint::open(folder).unwrap().load(&options).unwrap()
}

/// Answers of Transformers, as `scripts/hf_reference.py answers` wrote them.
pub struct Reference {
    bytes: Vec<u8>,
}

impl Reference {
    pub fn open(path: &Path) -> Reference {
        Reference { bytes: std::fs::read(path).unwrap() }
    }

    pub fn holds(&self, name: &str) -> bool {
        SafeTensors::deserialize(&self.bytes).unwrap().tensor(name).is_ok()
    }

    pub fn shape(&self, name: &str) -> Vec<usize> {
        SafeTensors::deserialize(&self.bytes).unwrap().tensor(name).unwrap().shape().to_vec()
    }

    pub fn f32s(&self, name: &str) -> Vec<f32> {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        let tensor = tensors.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), safetensors::Dtype::F32);
        tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    pub fn text(&self, name: &str) -> String {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        String::from_utf8(tensors.tensor(name).unwrap().data().to_vec()).unwrap()
    }

    pub fn ids(&self, name: &str) -> Vec<u32> {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        let tensor = tensors.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), safetensors::Dtype::I64);
        tensor.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect()
    }
}

/// The largest difference, after checking that both sides are finite and equally long.
pub fn largest_difference(ours: &[f32], theirs: &[f32], what: &str) -> f64 {
    assert_eq!(ours.len(), theirs.len(), "{what}: lengths");
    let mut largest = 0f64;
    for (at, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!(a.is_finite() && b.is_finite(), "{what}: {a} and {b} at {at}");
        largest = largest.max((f64::from(*a) - f64::from(*b)).abs());
    }
    largest
}

pub fn assert_close(ours: &[f32], theirs: &[f32], bound: f64, what: &str) {
    let difference = largest_difference(ours, theirs, what);
    assert!(difference <= bound, "{what}: the largest difference is {difference:e}, the bound {bound:e}");
}

/// From the smallest logit to the largest.
pub fn range(logits: &[f32]) -> f64 {
    let (low, high) = logits.iter().fold((f32::MAX, f32::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
    f64::from(high - low)
}

/// Logits may differ by `bound` times their range.
pub fn assert_logits_close(ours: &[f32], theirs: &[f32], bound: f64, what: &str) {
    assert_close(ours, theirs, bound * range(theirs), what);
}

/// Keeps every map: one `[layer]` of `[heads][queries][keys]` a step.
#[derive(Default)]
pub struct KeepMaps {
    pub steps: Vec<(StepShape, Vec<Vec<f32>>)>,
    heads: usize,
}

impl KeepMaps {
    pub fn heads(&self) -> usize {
        self.heads
    }
}

impl AttentionObserver for KeepMaps {
    fn wants(&self, _layer: usize) -> bool {
        true
    }

    fn begin_step(&mut self, step: StepShape) -> Result<()> {
        self.steps.push((step, vec![]));
        Ok(())
    }

    fn observe(&mut self, rows: AttentionRows<'_>) -> Result<()> {
        let (step, layers) = self.steps.last_mut().unwrap();
        self.heads = rows.heads;
        if layers.len() == rows.layer {
            layers.push(vec![0.0; rows.heads * step.queries * step.keys]);
        }
        let map = &mut layers[rows.layer];
        for head in 0..rows.heads {
            for (query, weights) in rows.head(head).chunks_exact(rows.keys).enumerate() {
                let row = rows.first_query - step.first_query + query;
                let start = (head * step.queries + row) * step.keys;
                map[start..start + rows.keys].copy_from_slice(weights);
            }
        }
        Ok(())
    }
}

/// Absolute, for attention weights.
pub const MAPS: f64 = 2e-5;
/// Of the logits' range.
pub const LOGITS: f64 = 1e-4;

/// The prompt of a reference in one pass: logits of every token (an encoder's last hidden states)
/// and every layer's map.
pub fn assert_prompt_agrees(decoder: &Decoder, reference: &Reference, what: &str) {
    let ids = reference.ids("input_ids");
    let mut cache = decoder.new_cache(ids.len()).unwrap();
    let mut maps = KeepMaps::default();
    let request = Forward { logits: LogitRows::All, observer: Some(&mut maps), ..Forward::default() };
    let logits = decoder.forward(&ids, &mut cache, request).unwrap();
    let output = if reference.holds("hidden") { "hidden" } else { "logits" };
    assert_eq!(logits.dims(), reference.shape(output));
    let logits = logits.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_logits_close(&logits, &reference.f32s(output), LOGITS, what);
    let (_, layers) = &maps.steps[0];
    assert_eq!(layers.len(), decoder.config().layers);
    for (layer, map) in layers.iter().enumerate() {
        let expected = format!("attention.{layer}");
        assert_eq!(reference.shape(&expected), [maps.heads(), ids.len(), ids.len()]);
        assert_close(map, &reference.f32s(&expected), MAPS, &format!("{what} layer {layer}"));
    }
}

/// Greedy generation from a reference's prompt: its tokens, and the rows of every step.
pub fn assert_steps_agree(decoder: &Decoder, reference: &Reference, what: &str) {
    let (ids, greedy) = (reference.ids("input_ids"), reference.ids("greedy_ids"));
    // The reference fed its last token too.
    let options = greedy_options(greedy.len() + 1);
    let mut session = Session::new(decoder, None, &ids, options).unwrap();
    let mut maps = KeepMaps::default();
    while session.step(Some(&mut maps)).unwrap().is_some() {}
    assert_eq!(session.generated()[..greedy.len()], greedy, "{what}");
    assert_eq!(maps.steps.len(), greedy.len() + 1);
    for (number, (step, layers)) in maps.steps[1..].iter().enumerate() {
        assert_eq!((step.queries, step.keys), (1, ids.len() + number + 1));
        assert_eq!(layers.len(), decoder.config().layers);
        for (layer, map) in layers.iter().enumerate() {
            let expected = reference.f32s(&format!("step_attention.{number}.{layer}"));
            // Transformers drops keys that a window has left behind; ours keep their places, at 0.
            let kept = expected.len() / maps.heads();
            let rows = map.chunks_exact(step.keys);
            assert!(rows.clone().all(|row| row[..step.keys - kept].iter().all(|weight| *weight == 0.0)));
            let ours: Vec<f32> = rows.flat_map(|row| row[step.keys - kept..].to_vec()).collect();
            assert_close(&ours, &expected, MAPS, &format!("{what} step {number} layer {layer}"));
        }
    }
}

/// Every token's logits, of a text fed in pieces of `piece` tokens.
pub fn logits(decoder: &Decoder, ids: &[u32], piece: usize) -> Vec<f32> {
    let mut cache = decoder.new_cache(ids.len()).unwrap();
    let mut logits = vec![];
    for piece in ids.chunks(piece) {
        let request = Forward { logits: LogitRows::All, ..Forward::default() };
        let rows = decoder.forward(piece, &mut cache, request).unwrap();
        logits.extend(rows.flatten_all().unwrap().to_vec1::<f32>().unwrap());
    }
    logits
}

/// The likeliest token each time, and no end but this many.
pub fn greedy_options(max_new_tokens: usize) -> GenerationOptions {
    GenerationOptions {
        max_new_tokens,
        context: None,
        sampling: Sampling::greedy(),
        speculate: 0,
        end_tokens: vec![],
        stop: vec![],
        interrupt: Default::default(),
    }
}

/// Numbers in 0..1, the same every time for a seed.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f64 / (1u64 << 31) as f64
    }

    pub fn token(&mut self, vocabulary: usize) -> u32 {
        (self.next() * vocabulary as f64) as u32
    }
}
