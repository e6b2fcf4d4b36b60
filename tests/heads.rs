//! What heads do and what is lost without them, against Transformers and numpy formulas of the papers:
//! `tests/fixtures/heads/make` made the answers for tiny checkpoints, `scripts/check-heads` those for
//! SmolLM2, in the folder that `ATTEND_HEADS` names.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use attend::capture::ShownMap;
use attend::generation::Session;
use attend::measure::HeadEffects;
use attend::model::{Decoder, Forward, HeadIntervention, KernelChoice, LogitRows, Silence};
use attend::report::{Rollout, ValueWeighted};
use common::*;
use safetensors::SafeTensors;

const KERNELS: [KernelChoice; 2] = [KernelChoice::Native, KernelChoice::Reference];
const TINY: [&str; 4] = ["llama", "mistral", "gpt2", "bloom"];

fn reference(name: &str) -> Reference {
    Reference::open(&fixture("heads").join(format!("{name}.safetensors")))
}

fn attend(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_attend")).args(arguments).output().unwrap()
}

fn json(arguments: &[&str]) -> Vec<serde_json::Value> {
    let output = attend(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn fails(arguments: &[&str], code: i32, word: &str) {
    let output = attend(arguments);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
    assert!(message.contains(word), "{arguments:?}: {message}");
}

fn joined(ids: &[u32]) -> String {
    ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// `[rows][columns]` of f64.
fn table(path: &Path, name: &str) -> Vec<Vec<f64>> {
    let bytes = std::fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = tensors.tensor(name).unwrap();
    let columns = tensor.shape().get(1).copied().unwrap_or(1);
    let numbers = tensor.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap()));
    numbers.collect::<Vec<_>>().chunks(columns).map(<[f64]>::to_vec).collect()
}

/// `0.1=zero 2.0=mean`.
fn intervention(decoder: &Decoder, silenced: &str) -> HeadIntervention {
    let mut intervention = HeadIntervention::new(decoder.config());
    for item in silenced.split(' ') {
        let (place, how) = item.split_once('=').unwrap();
        let (layer, head) = place.split_once('.').unwrap();
        let how = match how {
            "zero" => Silence::Zero,
            "mean" => Silence::Mean,
            "uniform" => Silence::Uniform,
            other => panic!("{other}"),
        };
        intervention.silence(layer.parse().unwrap(), head.parse().unwrap(), how).unwrap();
    }
    intervention
}

/// Every token's logits without some heads, fed in pieces.
fn silenced_logits(decoder: &Decoder, ids: &[u32], silenced: &str, piece: usize) -> Vec<f32> {
    let mut cache = decoder.new_cache(ids.len()).unwrap();
    cache.silence(intervention(decoder, silenced)).unwrap();
    let feed = |piece: &[u32]| {
        let request = Forward { logits: LogitRows::All, ..Forward::default() };
        let rows = decoder.forward(piece, &mut cache, request).unwrap();
        rows.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    ids.chunks(piece).flat_map(feed).collect()
}

fn assert_ablations_agree(decoder: &Decoder, reference: &Reference, pieces: &[usize], what: &str) {
    let ids = reference.ids("input_ids");
    let whole = logits(decoder, &ids, ids.len());
    let mut cases = 0;
    while reference.holds(&format!("ablate.{cases}")) {
        let silenced = reference.text(&format!("ablate.{cases}"));
        let expected = reference.f32s(&format!("ablate.{cases}.logits"));
        let every = whole.len() / expected.len();
        let columns: Vec<f32> = whole.iter().step_by(every).copied().collect();
        let effect = largest_difference(&columns, &expected, what);
        let range = expected.iter().copied().fold(f32::MIN, f32::max)
            - expected.iter().copied().fold(f32::MAX, f32::min);
        assert!(effect > 1e-3 * f64::from(range), "{what}: silencing {silenced} changes nothing");
        for piece in pieces {
            let ours = silenced_logits(decoder, &ids, &silenced, *piece);
            let ours: Vec<f32> = ours.iter().step_by(every).copied().collect();
            let what = format!("{what} without {silenced}, {piece} tokens at a time");
            assert_logits_close(&ours, &expected, LOGITS, &what);
        }
        cases += 1;
    }
    assert!(cases > 0, "{what}");
}

#[test]
fn silenced_heads_agree_with_hooks_in_transformers() {
    for name in TINY {
        for kernels in KERNELS {
            let decoder = load(&fixture(name), kernels, None);
            assert_ablations_agree(&decoder, &reference(name), &[100, 3, 1], &format!("{name} {kernels:?}"));
        }
    }
}

#[test]
fn without_some_heads_too_pieces_and_rewound_caches_change_no_bit() {
    let decoder = load(&fixture("llama"), KernelChoice::Native, None);
    let silenced = "0.2=zero 1.1=mean 1.3=uniform 2.2=mean";
    let ids: Vec<u32> = (0..90).map(|i| i * 37 % 256).collect();
    let whole = silenced_logits(&decoder, &ids, silenced, ids.len());
    for piece in [1, 7, 64] {
        assert_eq!(silenced_logits(&decoder, &ids, silenced, piece), whole, "{piece}");
    }
    let mut cache = decoder.new_cache(ids.len()).unwrap();
    cache.silence(intervention(&decoder, silenced)).unwrap();
    decoder.forward(&ids[..50], &mut cache, Forward::default()).unwrap();
    decoder.forward(&[1, 2, 3, 4], &mut cache, Forward::default()).unwrap();
    cache.truncate(20);
    let last = decoder.forward(&ids[20..], &mut cache, Forward::default()).unwrap();
    let last = last.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(last, whole[whole.len() - last.len()..]);
    assert!(cache.silence(HeadIntervention::new(decoder.config())).is_err(), "positions were read already");
}

#[test]
fn speculation_changes_no_token_without_some_heads() {
    let decoder = load(&fixture("llama"), KernelChoice::Native, None);
    let generated = |prompt: &[u32], speculate| {
        let options = attend::generation::GenerationOptions { speculate, ..greedy_options(40) };
        let mut session = Session::new(&decoder, None, prompt, options).unwrap();
        session.silence(intervention(&decoder, "0.1=mean 1.2=uniform 2.3=zero 2.0=mean")).unwrap();
        let mut tokens = vec![];
        while let Some(token) = session.step(None).unwrap() {
            tokens.push((token.id, token.log_probability));
        }
        (tokens, session.acceptance())
    };
    let (mut drafted, mut accepted) = (0, 0);
    for start in 0..12 {
        let prompt: Vec<u32> = (0..40).map(|i| (start * 19 + i * i % 7) % 256).collect();
        let (found, acceptance) = generated(&prompt, 8);
        assert_eq!(found, generated(&prompt, 0).0, "{start}");
        let acceptance = acceptance.unwrap();
        (drafted, accepted) = (drafted + acceptance.drafted, accepted + acceptance.accepted);
    }
    // Both happened: passes that counted, and passes that were taken back.
    assert!(accepted > 0 && accepted < drafted, "{accepted} of {drafted}");
}

#[test]
fn the_mean_without_a_mask_is_that_of_the_whole_text() {
    let decoder = load(&fixture("bert"), KernelChoice::Native, None);
    let ids = [5u32, 9, 31, 7];
    let run = |silenced: &str, ids: &[u32]| {
        let mut cache = decoder.new_cache(ids.len()).unwrap();
        if !silenced.is_empty() {
            cache.silence(intervention(&decoder, silenced)).unwrap();
        }
        let mut maps = KeepMaps::default();
        let request = Forward { logits: LogitRows::All, observer: Some(&mut maps), ..Forward::default() };
        let out = decoder.forward(ids, &mut cache, request).unwrap();
        (out.flatten_all().unwrap().to_vec1::<f32>().unwrap(), maps)
    };
    // One token's mean output is its output.
    assert_eq!(run("0.1=mean", &ids[..1]).0, run("", &ids[..1]).0);
    let (uniform, maps) = run("2.1=uniform", &ids);
    assert!(maps.steps[0].1[2][16..32].iter().all(|weight| (weight - 0.25).abs() < 1e-6));
    assert_ne!(uniform, run("2.1=mean", &ids).0);
}

const SCORES: [&str; 9] = [
    "previous_token",
    "duplicate_token",
    "induction",
    "sink",
    "self",
    "local",
    "entropy",
    "distance",
    "sink_weight",
];

/// `bound`: absolute, of distance relative to the tokens.
fn assert_scores_agree(
    rows: &[serde_json::Value],
    expected: &[Vec<f64>],
    heads: usize,
    bound: f64,
    what: &str,
) {
    assert_eq!(rows.len(), expected.len(), "{what}");
    for (number, (row, expected)) in rows.iter().zip(expected).enumerate() {
        assert_eq!(
            (row["layer"].as_u64(), row["head"].as_u64()),
            (Some((number / heads) as u64), Some((number % heads) as u64))
        );
        for (name, expected) in SCORES.iter().zip(expected) {
            if expected.is_nan() {
                assert!(row[name].is_null(), "{what} {number} {name}");
                continue;
            }
            let ours = row[name].as_f64().unwrap_or(f64::NAN);
            let bound = if *name == "distance" { bound * 100.0 } else { bound };
            assert!((ours - expected).abs() <= bound, "{what} {number} {name}: {ours} and {expected}");
        }
    }
}

#[test]
fn scores_of_a_model_and_of_its_dump_are_those_of_transformers_maps() {
    let folder = tempfile::tempdir().unwrap();
    for name in TINY {
        let path = fixture("heads").join(format!("{name}.safetensors"));
        let (ids, expected) = (joined(&reference(name).ids("input_ids")), table(&path, "scores"));
        let model = fixture(name);
        let model = model.to_str().unwrap();
        for kernels in ["native", "reference"] {
            let rows = json(&["heads", "-m", model, "--prompt-ids", &ids, "--json", "--kernels", kernels]);
            assert_scores_agree(&rows, &expected, 4, 1e-5, name);
        }
        let dump = folder.path().join(name);
        let dump = dump.to_str().unwrap();
        assert!(attend(&["map", "-m", model, "--prompt-ids", &ids, "--attention", dump]).status.success());
        assert_scores_agree(
            &json(&["heads", dump, "--json"]),
            &expected,
            4,
            1e-5,
            &format!("dump of {name}"),
        );
    }
}

#[test]
fn a_dump_with_some_heads_has_scores_of_these() {
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("dump");
    let dump = dump.to_str().unwrap();
    let recorded = attend(&["map", "one two one two", "--attention", dump, "--heads", "1.2,2.0"]);
    assert!(recorded.status.success());
    let output = attend(&["heads", dump, "--json"]);
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let places: Vec<_> = rows.iter().map(|row| (row["layer"].as_u64(), row["head"].as_u64())).collect();
    assert_eq!(places, [(Some(1), Some(2)), (Some(2), Some(0))]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("2 of the model's 40 heads"));
    fails(&["map", dump, "--view", "rollout"], 2, "layer 0");
    fails(&["map", dump, "--view", "value-weighted"], 2, "needs the model");
}

#[test]
fn a_dump_with_some_queries_is_compared_by_these_and_not_scored() {
    let folder = tempfile::tempdir().unwrap();
    let dump = |name: &str, queries: &str| {
        let dump = folder.path().join(name).to_str().unwrap().to_owned();
        let arguments =
            ["generate", "one two three four five", "-n", "1", "--attention", &dump, "--queries", queries];
        let output = attend(&arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        dump
    };
    let (all, some) = (dump("all", "all"), dump("some", "every:2"));
    // Were a row taken for another query's, rows would differ.
    let same = json(&["compare", &all, &some, "--json"]);
    assert_eq!(same.len(), 40);
    assert!(same.iter().all(|row| row["divergence"] == 0.0 && row["queries"].as_u64() < Some(9)), "{same:?}");
    fails(&["heads", &some], 2, "every query");
    fails(&["map", &some, "--view", "rollout"], 2, "every query");
}

fn rolled_out(decoder: &Decoder, ids: &[u32]) -> Vec<f32> {
    let mut rollout = Rollout::new(decoder.config().layers - 1, ids.len()).unwrap();
    let mut cache = decoder.new_cache(ids.len()).unwrap();
    decoder.forward(ids, &mut cache, Forward { observer: Some(&mut rollout), ..Forward::default() }).unwrap();
    rollout.finish().unwrap()
}

fn assert_value_weighted_agrees(decoder: &Decoder, reference: &Reference, bound: f64, what: &str) {
    let ids = reference.ids("input_ids");
    let size = ids.len() * ids.len();
    let mut layers = 0;
    for layer in 0..decoder.config().layers {
        let name = format!("value_weighted.{layer}");
        if !reference.holds(&name) {
            continue;
        }
        layers += 1;
        let expected = reference.f32s(&name);
        let largest = f64::from(expected.iter().copied().fold(0.0, f32::max));
        for head in (0..decoder.config().heads).map(Some).chain([None]) {
            let mut map = ShownMap::of(layer, head);
            let mut view = ValueWeighted::new(&mut map);
            let mut cache = decoder.new_cache(ids.len()).unwrap();
            let request = Forward { observer: Some(&mut view), ..Forward::default() };
            decoder.forward(&ids, &mut cache, request).unwrap();
            let expected: Vec<f32> = match head {
                Some(head) => expected[head * size..(head + 1) * size].to_vec(),
                None => {
                    let heads = expected.len() / size;
                    let mean = |at: usize| expected.iter().skip(at).step_by(size).sum::<f32>() / heads as f32;
                    (0..size).map(mean).collect()
                }
            };
            assert_close(&map.weights, &expected, bound * largest, &format!("{what} {layer} {head:?}"));
        }
    }
    assert!(layers > 0, "{what}");
}

#[test]
fn rollout_and_value_weighted_attention_are_those_of_the_papers() {
    for name in TINY {
        for kernels in KERNELS {
            let (decoder, reference) = (load(&fixture(name), kernels, None), reference(name));
            let ids = reference.ids("input_ids");
            assert_close(&rolled_out(&decoder, &ids), &reference.f32s("rollout"), 2e-5, name);
            if name != "mistral" {
                assert_value_weighted_agrees(&decoder, &reference, 2e-5, name);
            }
        }
    }
}

#[test]
fn value_norms_come_step_by_step_too() {
    let decoder = load(&fixture("llama"), KernelChoice::Native, None);
    let ids = reference("llama").ids("input_ids");
    let last_row = |pieces: &[usize]| {
        let mut map = ShownMap::of(1, Some(2));
        let mut view = ValueWeighted::new(&mut map);
        let mut cache = decoder.new_cache(ids.len()).unwrap();
        let mut from = 0;
        for piece in pieces {
            let request = Forward { observer: Some(&mut view), ..Forward::default() };
            decoder.forward(&ids[from..from + piece], &mut cache, request).unwrap();
            from += piece;
        }
        let weights = map.weights;
        weights[weights.len() - ids.len()..].to_vec()
    };
    assert_close(&last_row(&[12, 7, 1]), &last_row(&[20]), 1e-6, "in pieces");
}

#[test]
fn a_dumps_rollout_is_that_of_the_running_model() {
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("dump");
    let dump = dump.to_str().unwrap();
    assert!(attend(&["generate", "one two three", "-n", "4", "--attention", dump]).status.success());
    let ids: Vec<u32> =
        attend::capture::Dump::open(dump.as_ref()).unwrap().tokens().iter().map(|t| t.id).collect();
    let steps = attend::capture::Dump::open(dump.as_ref()).unwrap().steps().len();
    let table = |arguments: &[&str]| {
        let text = String::from_utf8(attend(arguments).stdout).unwrap();
        text.lines().last().unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let last = (steps - 1).to_string();
    let of_dump = table(&["map", dump, "--view", "rollout", "--step", &last]);
    let fed = joined(&ids[..ids.len() - 1]);
    assert_eq!(of_dump, table(&["map", "--prompt-ids", &fed, "--view", "rollout"]));
    fails(&["map", dump, "--view", "rollout", "--head", "1"], 2, "--head 1");
}

#[test]
fn runs_are_compared_as_models_and_as_dumps() {
    let folder = tempfile::tempdir().unwrap();
    let path = fixture("heads/llama.safetensors");
    let (ids, expected) = (joined(&reference("llama").ids("input_ids")), table(&path, "divergence"));
    let (a, b) = (fixture("llama"), fixture("llama_yarn"));
    let (a, b) = (a.to_str().unwrap(), b.to_str().unwrap());
    let agrees = |rows: &[serde_json::Value], bound: f64| {
        assert_eq!(rows.len(), expected.len());
        for (row, expected) in rows.iter().zip(&expected) {
            let ours = row["divergence"].as_f64().unwrap();
            assert!((ours - expected[0]).abs() <= bound, "{row}: {expected:?}");
        }
    };
    assert!(expected.iter().any(|divergence| divergence[0] > 1e-5));
    let png = folder.path().join("heads.png");
    agrees(&json(&["compare", a, b, "--prompt-ids", &ids, "--json", "--png", png.to_str().unwrap()]), 1e-6);
    assert!(std::fs::read(&png).unwrap().starts_with(b"\x89PNG"));
    let dump = |model: &str, name: &str, dtype: &str| {
        let dump = folder.path().join(name).to_str().unwrap().to_owned();
        let arguments =
            ["map", "-m", model, "--prompt-ids", &ids, "--attention", &dump, "--attention-dtype", dtype];
        assert!(attend(&arguments).status.success());
        dump
    };
    let (dump_a, dump_b) = (dump(a, "a", "f32"), dump(b, "b", "f32"));
    agrees(&json(&["compare", &dump_a, &dump_b, "--json"]), 1e-6);
    // Weights stored in 16 bits are off by up to 2⁻¹² of themselves.
    agrees(&json(&["compare", &dump_a, &dump(b, "half", "f16"), "--json"]), 1e-4);
    let same = json(&["compare", &dump_a, &dump_a, "--json"]);
    assert!(same.iter().all(|row| row["divergence"] == 0.0));

    fails(&["compare", &dump_a, b], 2, "is a dump");
    fails(&["compare", a, "embedded", "--prompt-ids", &ids], 2, "one shape");
    fails(&["compare", &dump_a, &dump_b, "-p", "text"], 2, "without a model or a text");
    let other = folder.path().join("other").to_str().unwrap().to_owned();
    assert!(attend(&["map", "-m", b, "--prompt-ids", "9,9", "--attention", &other]).status.success());
    fails(&["compare", &dump_a, &other], 2, "different texts");
}

/// A text's mean of −ln p, by the forward pass alone.
fn loss(decoder: &Decoder, ids: &[u32], silenced: &str) -> f64 {
    let rows = match silenced {
        "" => logits(decoder, ids, ids.len()),
        silenced => silenced_logits(decoder, ids, silenced, ids.len()),
    };
    let vocabulary = rows.len() / ids.len();
    let of = |(row, id): (&[f32], &u32)| attend::generation::sampler::log_probability(row, *id);
    let sum: f64 = rows.chunks(vocabulary).zip(&ids[1..]).map(of).sum();
    -sum / (ids.len() - 1) as f64
}

#[test]
fn a_heads_effect_is_the_loss_without_it_less_the_loss_with_it() {
    for kernels in KERNELS {
        let decoder = load(&fixture("llama"), kernels, None);
        let ids: Vec<u32> = (0..30).map(|i| i * 37 % 256).collect();
        for (how, name) in [(Silence::Zero, "zero"), (Silence::Mean, "mean"), (Silence::Uniform, "uniform")] {
            let mut effects = HeadEffects::new(&decoder, &ids, how, Default::default()).unwrap();
            assert!((effects.base() - loss(&decoder, &ids, "")).abs() < 1e-9);
            let mut count = 0;
            while let Some(effect) = effects.step().unwrap() {
                assert_eq!((effect.layer, effect.head), (count / 4, count % 4));
                let expected = loss(&decoder, &ids, &format!("{}.{}={name}", effect.layer, effect.head));
                assert!((effect.loss - expected).abs() < 1e-9, "{effect:?} {expected}");
                count += 1;
            }
            assert_eq!(count, 12);
        }
    }
}

#[test]
fn effects_are_ranked() {
    let rows = json(&[
        "heads",
        "--effect",
        "-p",
        "Once upon a time there was a cat. The cat",
        "--json",
        "--top",
        "7",
    ]);
    assert_eq!(rows.len(), 7);
    let rises: Vec<f64> = rows.iter().map(|row| row["rise"].as_f64().unwrap()).collect();
    assert!(rises.is_sorted_by(|a, b| a >= b), "{rises:?}");
}

#[test]
fn the_embedded_models_taught_heads_are_found() {
    let output = attend(&["heads", "--sort", "induction", "--top", "3"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("seeds 0, 1, 2"), "{text}");
    assert!(text.lines().nth(3).unwrap().trim_start().starts_with("2.0"), "{text}");
    let csv = String::from_utf8(attend(&["heads", "--csv"]).stdout).unwrap();
    assert_eq!(csv.lines().count(), 41);
    assert!(csv.lines().nth(1).unwrap().ends_with(",previous token"), "{csv}");
}

#[test]
fn what_is_ablated_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("dump");
    let dump = dump.to_str().unwrap();
    let arguments = [
        "generate",
        "one two",
        "-n",
        "2",
        "--ablate",
        "1.1-2,2.0=mean",
        "--ablate",
        "3.*=uniform",
        "--attention",
        dump,
    ];
    let output = attend(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains("ablated: 1.1 (mean), 1.2 (mean), 2.0 (mean)"));
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("dump/manifest.json")).unwrap()).unwrap();
    let expected = serde_json::json!([
        {"layer": 1, "heads": [1, 2], "with": "mean"},
        {"layer": 2, "heads": [0], "with": "mean"},
        {"layer": 3, "heads": [0, 1, 2, 3, 4, 5, 6, 7], "with": "uniform"},
    ]);
    assert_eq!(manifest["ablated"], expected);
    let schema: serde_json::Value = serde_json::from_slice(
        &std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/manifest.schema.json")).unwrap(),
    )
    .unwrap();
    jsonschema::validate(&schema, &manifest).unwrap();
    // Uniform heads attend evenly in the dump too.
    let dump = attend::capture::Dump::open(dump.as_ref()).unwrap();
    let map = dump.layer_map(1, 3).unwrap();
    assert!(map.weights.iter().all(|weight| (weight - 1.0 / map.keys as f32).abs() < 1e-6));
}

#[test]
fn bad_input_is_named() {
    for (arguments, code, word) in [
        (&["map", "one", "--ablate", "9.0"][..], 2, "numbered 0 to 4"),
        (&["map", "one", "--ablate", "1.8"], 2, "numbered 0 to 7"),
        (&["map", "one", "--ablate", "1.1=loud"], 2, "zero, mean or uniform"),
        (&["map", "one", "--ablate", "x"], 2, "--ablate"),
        (&["perplexity", "one two", "--ablate", "0.9"], 2, "no head 9"),
        (&["generate", "one", "--ablate", "0.1", "--prompt-cache", "cache"], 2, "do not go together"),
        (&["map", "one", "--view", "rollout", "--head", "0"], 2, "all heads"),
        (&["heads", "no-such-folder"], 2, "no dump"),
        (&["heads", "--prompt-ids", "1"], 2, "at least 2"),
        (&["heads", "--prompt-ids", "1,99999999"], 2, "99999999"),
        (&["heads", "--effect", "-p", "o"], 2, "at least 2"),
        (&["heads", "--effect", "-p", "one two three", "-c", "100000"], 1, "context"),
        (&["compare", "embedded", "embedded", "-p", "one", "--png", "."], 2, "folder"),
    ] {
        fails(arguments, code, word);
    }
    let long = vec!["7"; 5000].join(",");
    fails(&["heads", "--prompt-ids", &long], 1, "do not fit");
}

/// Where `scripts/check-heads` has put its references, and the real checkpoints.
#[allow(dead_code)] // unused without the feature
fn from_environment(name: &str) -> PathBuf {
    PathBuf::from(
        std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set; run scripts/check-heads")),
    )
}

#[cfg(feature = "real-model")]
mod real_model {
    use super::*;

    fn model(name: &str) -> String {
        from_environment("ATTEND_REAL_MODEL").join(name).to_str().unwrap().to_owned()
    }

    #[test]
    fn scores_of_all_heads_are_those_of_transformers() {
        for (name, copies) in [("twice", true), ("text", false)] {
            let path = from_environment("ATTEND_HEADS").join(format!("{name}.safetensors"));
            let ids = joined(&Reference::open(&path).ids("input_ids"));
            let expected = table(&path, "scores");
            let rows = json(&["heads", "-m", &model("f32"), "--prompt-ids", &ids, "--json"]);
            assert_eq!(rows.len(), 270);
            assert_scores_agree(&rows, &expected, 9, 1e-4, name);
            if copies {
                let theirs: Vec<f64> = expected.iter().map(|scores| scores[2]).collect();
                let ours: Vec<f64> = rows.iter().map(|row| row["induction"].as_f64().unwrap()).collect();
                let top = |scores: &[f64]| {
                    let mut heads: Vec<usize> = (0..270).collect();
                    heads.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
                    heads[..5].to_vec()
                };
                println!(
                    "top five induction heads: {:?}",
                    top(&ours).iter().map(|h| (h / 9, h % 9)).collect::<Vec<_>>()
                );
                assert_eq!(top(&ours), top(&theirs));
            }
        }
    }

    #[test]
    fn silenced_heads_and_views_are_those_of_transformers() {
        let reference = Reference::open(&from_environment("ATTEND_HEADS").join("text.safetensors"));
        for kernels in KERNELS {
            let decoder = load(model("f32").as_ref(), kernels, None);
            assert_ablations_agree(&decoder, &reference, &[100, 5], &format!("{kernels:?}"));
            let ids = reference.ids("input_ids");
            assert_close(&rolled_out(&decoder, &ids), &reference.f32s("rollout"), 1e-4, "rollout");
            assert_value_weighted_agrees(&decoder, &reference, 1e-4, "value-weighted");
        }
    }

    #[test]
    fn checkpoints_of_two_types_are_as_far_apart_as_in_transformers() {
        let path = from_environment("ATTEND_HEADS").join("text.safetensors");
        let ids = joined(&Reference::open(&path).ids("input_ids"));
        let rows = json(&[
            "compare",
            &model("f32"),
            &model("f16"),
            "--dtype-b",
            "f32",
            "--prompt-ids",
            &ids,
            "--json",
        ]);
        let expected = table(&path, "divergence");
        assert_eq!(rows.len(), expected.len());
        for (row, expected) in rows.iter().zip(&expected) {
            let ours = row["divergence"].as_f64().unwrap();
            assert!((ours - expected[0]).abs() <= 1e-6 + 0.05 * expected[0], "{row}: {expected:?}");
        }
    }
}
