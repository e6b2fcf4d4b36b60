//! What is recorded: queries, kinds, and how large a dump will be; against whole maps, which
//! `dump.rs` compares with Transformers.

mod common;
#[path = "common/program.rs"]
mod program;

use std::fs;
use std::path::{Path, PathBuf};

use attend::capture::{AttentionKind, Dump, LayerMap, check};
use common::{assert_close, fixture};
use program::*;

const PROMPT: usize = 100;
const STEPS: usize = 5;
const LAYERS: usize = 3;

struct Recorded {
    folder: tempfile::TempDir,
    ids: String,
}

impl Recorded {
    fn new() -> Recorded {
        let ids = (0..PROMPT).map(|i| (i * 7 % 120).to_string()).collect::<Vec<_>>().join(",");
        Recorded { folder: tempfile::tempdir().unwrap(), ids }
    }

    fn run(&self, name: &str, model: &str, more: &[&str]) -> (PathBuf, String) {
        let path = join(&self.folder, name);
        let (model, count) = (fixture(model), STEPS.to_string());
        let mut args = vec!["generate", "-m", arg(&model), "--prompt-ids", &self.ids, "-n", &count];
        args.extend(["--temp", "0", "--attention", arg(&path)]);
        args.extend(more);
        let output = run(&args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{more:?}: {stderr}");
        (path, stderr)
    }

    fn dump(&self, name: &str, model: &str, more: &[&str]) -> Dump {
        let (path, _) = self.run(name, model, more);
        check(&path).unwrap();
        Dump::open(&path).unwrap()
    }
}

/// The row of a head's query.
fn row(map: &LayerMap, head: usize, query: usize) -> &[f32] {
    &map.head(head)[(query - map.first_query) * map.keys..][..map.keys]
}

#[test]
fn selected_queries_are_rows_of_the_whole() {
    let recorded = Recorded::new();
    for model in ["llama", "mistral"] {
        let whole = recorded.dump(&format!("{model}-whole"), model, &[]);
        for (number, (queries, expected)) in [
            ("last", vec![99]),
            ("last:70", (30..100).collect::<Vec<_>>()),
            ("every:40", vec![0, 40, 80]),
            ("every:101", vec![0]),
            ("60-70", (60..71).collect()),
            ("99-101", vec![99]),
        ]
        .into_iter()
        .enumerate()
        {
            for kernels in ["native", "reference"] {
                let name = format!("{model}-{number}-{kernels}");
                let part = recorded.dump(&name, model, &["--queries", queries, "--kernels", kernels]);
                assert_eq!(part.manifest().queries.to_string().trim_end_matches(":1"), queries);
                assert_eq!(part.steps().len(), STEPS, "G new tokens take G steps");
                let rows = part.steps()[0].rows();
                assert_eq!((0..rows.count).map(|row| rows.position(row)).collect::<Vec<_>>(), expected);
                for (step, record) in part.steps().iter().enumerate() {
                    for layer in 0..LAYERS {
                        let (all, some) =
                            (whole.layer_map(step, layer).unwrap(), part.layer_map(step, layer).unwrap());
                        for head in 0..some.heads {
                            for (index, weights) in some.head(head).chunks_exact(some.keys).enumerate() {
                                let query = record.rows().position(index);
                                let what = format!("{name} step {step} layer {layer} query {query}");
                                assert_close(weights, row(&all, head, query), 2e-6, &what);
                            }
                        }
                    }
                }
            }
        }
        // A later step's one query is the step's own token.
        let part = recorded.dump(&format!("{model}-later"), model, &["--queries", "100-102"]);
        let rows: Vec<usize> = part.steps().iter().map(|step| step.queries).collect();
        assert_eq!(rows, [0, 1, 1, 1, 0]);
        assert!(part.layer_map(0, 0).unwrap().weights.is_empty());
        assert_eq!(part.steps()[2].first_query, 101);
    }
}

#[test]
fn statistics_are_those_of_the_whole_maps() {
    let recorded = Recorded::new();
    for model in ["llama", "mistral"] {
        let whole = recorded.dump(&format!("{model}-whole"), model, &[]);
        let stats = recorded.dump(&format!("{model}-stats"), model, &["--attention-kind", "stats"]);
        for step in 0..STEPS {
            for layer in 0..LAYERS {
                let (map, numbers) =
                    (whole.layer_map(step, layer).unwrap(), stats.statistics(step, layer).unwrap());
                for (index, weights) in map.weights.chunks_exact(map.keys).enumerate() {
                    let query = map.first_query + index % map.queries;
                    let p: Vec<f64> = weights.iter().map(|weight| f64::from(*weight)).collect();
                    let entropy: f64 = p.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum();
                    let distance: f64 =
                        p.iter().enumerate().map(|(key, p)| p * query.abs_diff(key) as f64).sum();
                    let expected =
                        [entropy, p[0], p[query], if query > 0 { p[query - 1] } else { 0.0 }, distance];
                    let ours = [
                        &numbers.entropy,
                        &numbers.first_token,
                        &numbers.own,
                        &numbers.previous_token,
                        &numbers.mean_distance,
                    ];
                    for (ours, expected) in ours.iter().zip(expected) {
                        let difference = (f64::from(ours[index]) - expected).abs();
                        assert!(difference < 1e-5 * (1.0 + expected), "{model} step {step}, {query}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_largest_weights_are_those_of_the_whole_maps() {
    let recorded = Recorded::new();
    let whole = recorded.dump("whole", "mistral", &[]);
    for (count, dtype, bound) in [(4, "f32", 1e-6f32), (16, "f16", 5e-4), (500, "f32", 1e-6)] {
        let kind = format!("top:{count}");
        let args = ["--attention-kind", &kind, "--attention-dtype", dtype, "--overwrite"];
        let top = recorded.dump("top", "mistral", &args);
        assert_eq!(top.manifest().kind, AttentionKind::Top(count));
        for step in 0..STEPS {
            for layer in 0..LAYERS {
                let (map, rows) = (whole.layer_map(step, layer).unwrap(), top.top_rows(step, layer).unwrap());
                assert_eq!(rows.count, count.min(map.keys));
                for (index, weights) in map.weights.chunks_exact(map.keys).enumerate() {
                    let mut sorted = weights.to_vec();
                    sorted.sort_by(|a, b| b.total_cmp(a));
                    let ours = &rows.weights[index * rows.count..][..rows.count];
                    let keys = &rows.keys[index * rows.count..][..rows.count];
                    let mut left: f64 = 1.0;
                    for (place, (weight, key)) in ours.iter().zip(keys).enumerate() {
                        assert!((weight - sorted[place]).abs() <= bound, "{weight} for {}", sorted[place]);
                        match usize::try_from(*key) {
                            Ok(key) => assert!((weights[key] - weight).abs() <= bound),
                            Err(_) => assert_eq!(*weight, 0.0),
                        }
                        left -= f64::from(sorted[place]);
                    }
                    assert!((left - f64::from(rows.rest[index])).abs() < 1e-5);
                }
            }
        }
    }
}

fn size(folder: &Path) -> u64 {
    let size = |entry: fs::DirEntry| match entry.metadata().unwrap() {
        kind if kind.is_dir() => size(&entry.path()),
        file => file.len(),
    };
    fs::read_dir(folder).unwrap().map(|entry| size(entry.unwrap())).sum()
}

/// `1.25 MB` in bytes.
fn announced(stderr: &str) -> f64 {
    let line = stderr.lines().find(|line| line.contains("the dump will take")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    let unit = match words[words.len() - 1] {
        "B" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        other => panic!("{other}"),
    };
    words[words.len() - 2].parse::<f64>().unwrap() * unit
}

#[test]
fn the_size_that_is_announced_is_the_dumps_within_5_per_cent() {
    let recorded = Recorded::new();
    for (number, more) in [
        &[][..],
        &["-n", "25", "--attention-dtype", "f16"],
        &["--attention-kind", "stats"],
        &["--attention-kind", "top:8", "--layers", "1"],
        &["--queries", "every:10", "-n", "28"],
        &["--queries", "last:30", "--heads", "0.1,2.*"],
    ]
    .iter()
    .enumerate()
    {
        let (folder, model) = (join(&recorded.folder, &number.to_string()), fixture("llama"));
        let mut args = vec!["generate", "-m", arg(&model), "--prompt-ids", &recorded.ids];
        args.extend(["--temp", "0", "--attention", arg(&folder)]);
        args.extend(*more);
        if !more.contains(&"-n") {
            args.extend(["-n", "5"]);
        }
        let stderr = String::from_utf8(run(&args).stderr).unwrap();
        let (announced, actual) = (announced(&stderr), size(&folder) as f64);
        assert!((announced / actual - 1.0).abs() < 0.05, "{more:?}: {announced} for {actual}");
    }
}

#[test]
fn a_dump_larger_than_the_disk_is_refused_unless_forced() {
    let recorded = Recorded::new();
    let folder = join(&recorded.folder, "dump");
    let model = copy_of(&fixture("llama"));
    // A context that no disk has room for.
    let config = model.path().join("config.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    json["max_position_embeddings"] = 1_000_000.into();
    fs::write(&config, json.to_string()).unwrap();
    // The text ends long before: at any token.
    let ends: Vec<u32> = (0..1000).collect();
    fs::write(
        model.path().join("generation_config.json"),
        serde_json::json!({ "eos_token_id": ends }).to_string(),
    )
    .unwrap();
    let args = ["generate", "-m", arg(model.path()), "Hello", "-n", "900000", "-c", "1000000"];
    let args = [&args[..], &["--cache-dtype", "q8_0", "--attention", arg(&folder)]].concat();
    let message = failure(&run(&args), 1);
    assert!(message.contains("the disk has") && message.contains("--force"), "{message}");
    assert!(!folder.exists(), "the refused run has made the folder");
    let forced = run(&[&args[..], &["--force"]].concat());
    let stderr = String::from_utf8_lossy(&forced.stderr);
    assert!(forced.status.success() && stderr.contains("warning: the disk has"), "{stderr}");
    assert_eq!(check(&folder).unwrap().steps, 1);
}

#[test]
fn selections_that_cannot_be_are_named() {
    let recorded = Recorded::new();
    let folder = join(&recorded.folder, "dump");
    let model = fixture("llama");
    let base = ["generate", "-m", arg(&model), "Hello", "-n", "2", "--attention", arg(&folder)];
    for (more, words) in [
        (vec!["--queries", "10-20"], vec!["--queries 10-20", "numbered 0 to 5"]),
        (vec!["--queries", "9-3"], vec!["--queries", "\"9-3\"", "last:N"]),
        (vec!["--queries", "first"], vec!["--queries", "\"first\""]),
        (vec!["--queries", "every:0"], vec!["\"every:0\""]),
        (vec!["--attention-kind", "top"], vec!["--attention-kind", "top:16"]),
        (vec!["--attention-kind", "top:0"], vec!["\"top:0\""]),
        (vec!["--attention-kind", "stats", "--attention-dtype", "f16"], vec!["stored in f32"]),
        (vec!["--layers", "7"], vec!["no layer 7"]),
        (vec!["--heads", "0.9"], vec!["no head 9"]),
    ] {
        let message = failure(&run(&[&base[..], &more].concat()), 2);
        assert!(words.iter().all(|word| message.contains(word)), "{more:?}: {message}");
        assert!(!folder.exists());
    }
    for more in ["--queries", "--attention-kind"] {
        let message = failure(&run(&["generate", "-m", arg(&model), "Hello", more, "stats"]), 2);
        assert!(message.contains("--attention"), "{message}");
    }
}

#[test]
fn the_models_own_folder_is_no_place_for_a_dump() {
    let model = copy_of(&fixture("llama"));
    for command in ["generate", "map"] {
        let through = model.path().join(".");
        let args = [command, "-m", arg(model.path()), "Hello", "--attention", arg(&through), "--overwrite"];
        let message = failure(&run(&args), 1);
        assert!(message.contains("is the model's own folder"), "{message}");
    }
    assert!(model.path().join("model.safetensors").exists());
    assert!(!model.path().join("manifest.json").exists());
}

#[test]
fn map_shows_the_queries_that_there_are() {
    let recorded = Recorded::new();
    let table = |name: &str, queries: &str, more: &[&str]| {
        let (path, _) = recorded.run(name, "llama", &["--queries", queries]);
        run(&[&["map", arg(&path), "--keys", "0-5"], more].concat())
    };
    let all = String::from_utf8(table("all", "all", &["--queries", "0-99"]).stdout).unwrap();
    let row =
        |query: usize| all.lines().find(|line| line.trim_start().starts_with(&format!("{query} "))).unwrap();
    let some = String::from_utf8(table("some", "every:40", &[]).stdout).unwrap();
    let rows: Vec<&str> = some.lines().skip(6).take(3).collect();
    assert_eq!(rows, [row(0), row(40), row(80)], "{some}");
    let none = table("none", "101", &[]);
    let message = failure(&none, 1);
    assert!(message.contains("step 0 has no recorded query: --queries was 101-101"), "{message}");
    let stats = recorded.run("stats", "llama", &["--attention-kind", "stats"]).0;
    let message = failure(&run(&["map", arg(&stats)]), 1);
    assert!(
        message.contains("holds stats of each row") && message.contains("--attention-kind full"),
        "{message}"
    );
}

#[test]
fn tokens_are_the_same_with_any_kind_of_recording() {
    let recorded = Recorded::new();
    let model = fixture("llama");
    let args = ["generate", "-m", arg(&model), "--prompt-ids", &recorded.ids, "-n", "20", "--temp", "0"];
    let plain = stdout(&args);
    for (number, more) in
        [&[][..], &["--attention-kind", "stats"], &["--attention-kind", "top:3"], &["--queries", "last"]]
            .iter()
            .enumerate()
    {
        let folder = join(&recorded.folder, &format!("same{number}"));
        assert_eq!(stdout(&[&args[..], &["--attention", arg(&folder)], more].concat()), plain);
    }
}
