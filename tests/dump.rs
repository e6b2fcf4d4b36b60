//! Dumps: what `--attention` writes, read back by our reader and checked against SPEC.md's schema;
//! and what is left when writing is cut off.

mod common;
#[path = "common/program.rs"]
mod program;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use attend::capture::{Dump, TokenRole, check};
use common::{Reference, assert_close, fixture};
use program::*;

/// Every row of every map sums to 1, and nothing attends to a later position.
fn check_rows(dump: &Dump, tolerance: f64) {
    let causal = dump.manifest().mask == attend::model::Mask::Causal;
    for (number, step) in dump.steps().iter().enumerate() {
        assert_eq!(step.step, number);
        for layer in &dump.manifest().layers {
            let map = dump.layer_map(number, layer.layer).unwrap();
            assert_eq!((map.queries, map.keys), (step.queries, step.keys));
            for (row, weights) in map.weights.chunks_exact(map.keys).enumerate() {
                let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
                assert!((sum - 1.0).abs() < tolerance, "step {number}: a row sums to {sum}");
                let query = map.first_query + row % map.queries;
                if causal {
                    assert!(weights[query + 1..].iter().all(|weight| *weight == 0.0));
                }
            }
        }
    }
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn schema() -> jsonschema::Validator {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/manifest.schema.json");
    jsonschema::validator_for(&json(&path)).unwrap()
}

#[test]
fn a_dump_holds_what_transformers_computes() {
    let folder = tempfile::tempdir().unwrap();
    let path = join(&folder, "dump");
    for name in ["llama", "llama3_scaled"] {
        let reference = Reference::open(&fixture(name).join("answers.safetensors"));
        let (ids, model) = (reference.ids("input_ids"), fixture(name));
        let list = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let tiers = attend::kernels::Isa::available().into_iter().map(|isa| ("native", isa.name()));
        for (kernels, isa) in tiers.chain([("reference", "plain")]) {
            let args = [
                "generate",
                "-m",
                arg(&model),
                "--prompt-ids",
                &list,
                "-n",
                "17",
                "--temp",
                "0",
                "--kernels",
                kernels,
                "--attention",
                arg(&path),
                "--overwrite",
            ];
            let output = attend().env("ATTEND_ISA", isa).args(args).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let dump = Dump::open(&path).unwrap();
            assert_eq!(dump.steps().len(), 17, "G new tokens take G steps");
            check_rows(&dump, 1e-5);
            for layer in 0..3 {
                let what = format!("{name} {kernels} {isa} layer {layer}");
                let map = dump.layer_map(0, layer).unwrap();
                assert_close(&map.weights, &reference.f32s(&format!("attention.{layer}")), 2e-5, &what);
                for step in 1..17 {
                    let expected = reference.f32s(&format!("step_attention.{}.{layer}", step - 1));
                    assert_close(&dump.layer_map(step, layer).unwrap().weights, &expected, 2e-5, &what);
                }
            }
            let generated: Vec<u32> = dump.tokens()[ids.len()..].iter().map(|token| token.id).collect();
            assert_eq!(generated[..16], reference.ids("greedy_ids"));
        }
    }
}

#[test]
fn tokens_joined_are_the_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = join(&folder, "dump");
    let prompt = "The cat 🦀 said\n\"안녕\"  ";
    let text = stdout(&[
        "generate",
        "-m",
        arg(&fixture("llama")),
        prompt,
        "--echo",
        "-n",
        "60",
        "--temp",
        "1.5",
        "--top-k",
        "0",
        "--seed",
        "5",
        "--attention",
        arg(&path),
    ]);
    let dump = Dump::open(&path).unwrap();
    let joined: String = dump.tokens().iter().map(|token| token.text.as_str()).collect();
    assert_eq!(joined, text);
    assert!(text.starts_with(prompt));
    assert_eq!(dump.tokens().len(), prompt.len() + 60);
    let bytes: Vec<u8> = dump.tokens().iter().flat_map(|token| token.bytes.clone()).collect();
    assert_eq!(String::from_utf8_lossy(&bytes), text);
    for (index, token) in dump.tokens().iter().enumerate() {
        assert_eq!(token.index, index);
        assert_eq!(token.role == TokenRole::Prompt, index < prompt.len());
        assert_eq!(token.logprob.is_some(), index >= prompt.len());
    }
}

#[test]
fn manifests_fit_the_schema_and_wrong_ones_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let (generated, mapped) = (join(&folder, "a"), join(&folder, "b"));
    let model = fixture("llama");
    stdout(&[
        "generate",
        "-m",
        arg(&model),
        "Hello",
        "-n",
        "3",
        "--attention",
        arg(&generated),
        "--layers",
        "0,2",
        "--heads",
        "0.1,2.*",
        "--attention-dtype",
        "f16",
    ]);
    stdout(&["map", "-m", arg(&model), "Hello", "--mask", "none", "--attention", arg(&mapped)]);
    let schema = schema();
    for path in [&generated, &mapped] {
        let manifest = json(&path.join("manifest.json"));
        let errors: Vec<String> = schema.iter_errors(&manifest).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{errors:?}");
        for key in manifest.as_object().unwrap().keys() {
            let mut without = manifest.clone();
            without.as_object_mut().unwrap().remove(key);
            assert!(!schema.is_valid(&without), "the schema does not ask for {key}");
        }
        let mut wrong = manifest.clone();
        wrong["mask"] = "sideways".into();
        assert!(!schema.is_valid(&wrong));
    }
    let dump = Dump::open(&generated).unwrap();
    check_rows(&dump, 1e-3);
    assert_eq!(dump.layer_map(0, 0).unwrap().heads, 1);
    assert_eq!(dump.layer_map(0, 2).unwrap().heads, 4);
    assert!(dump.layer_map(0, 1).unwrap_err().to_string().contains("layer 1 was not captured"));
    let dump = Dump::open(&mapped).unwrap();
    assert_eq!((dump.steps().len(), dump.manifest().mask), (1, attend::model::Mask::None));
    check_rows(&dump, 1e-5);
}

#[test]
fn a_window_stands_in_the_manifest_and_its_keys_keep_their_places() {
    let folder = tempfile::tempdir().unwrap();
    let path = join(&folder, "dump");
    let ids = (0..20).map(|id| id.to_string()).collect::<Vec<_>>().join(",");
    stdout(&[
        "generate",
        "-m",
        arg(&fixture("mistral")),
        "--prompt-ids",
        &ids,
        "-n",
        "3",
        "--attention",
        arg(&path),
    ]);
    let manifest = json(&path.join("manifest.json"));
    assert!(schema().is_valid(&manifest), "{manifest}");
    assert_eq!(manifest["layers"][1]["window"], 8);
    let dump = Dump::open(&path).unwrap();
    check_rows(&dump, 1e-5);
    for (step, record) in dump.steps().iter().enumerate() {
        let map = dump.layer_map(step, 2).unwrap();
        for (row, weights) in map.weights.chunks_exact(record.keys).enumerate() {
            let query = record.first_query + row % record.queries;
            let first = (query + 1).saturating_sub(8);
            assert!(weights[..first].iter().all(|weight| *weight == 0.0));
            assert!(weights[first..=query].iter().all(|weight| *weight > 0.0));
        }
    }
}

#[test]
fn selected_and_halved_maps_are_parts_of_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture("llama");
    let record = |name: &str, extra: &[&str]| {
        let path = join(&folder, name);
        let mut args =
            vec!["generate", "-m", arg(&model), "Hello there", "-n", "4", "--attention", arg(&path)];
        args.extend(extra);
        stdout(&args);
        Dump::open(&path).unwrap()
    };
    let whole = record("whole", &[]);
    let part = record("part", &["--heads", "1.2"]);
    let halved = record("halved", &["--attention-dtype", "f16"]);
    for step in 0..4 {
        let map = whole.layer_map(step, 1).unwrap();
        assert_eq!(part.layer_map(step, 1).unwrap().head(0), map.head(2));
        assert_close(&halved.layer_map(step, 1).unwrap().weights, &map.weights, 5e-4, "f16");
    }
}

#[test]
fn a_dump_is_replaced_only_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = join(&folder, "dump");
    let model = fixture("llama");
    let args = ["generate", "-m", arg(&model), "Hello", "-n", "5", "--attention", arg(&path)];
    stdout(&args);
    let message = failure(&run(&args), 1);
    assert!(message.contains("already holds a dump") && message.contains("--overwrite"), "{message}");
    assert_eq!(Dump::open(&path).unwrap().steps().len(), 5, "the refused run changed the dump");
    stdout(&["generate", "-m", arg(&model), "Hi", "-n", "2", "--attention", arg(&path), "--overwrite"]);
    let dump = Dump::open(&path).unwrap();
    assert_eq!((dump.steps().len(), dump.tokens().len()), (2, 4));
    assert_eq!(fs::read_dir(path.join("steps")).unwrap().count(), 2, "steps of the old dump are left");
}

#[test]
fn map_reads_a_dump_at_any_step() {
    let folder = tempfile::tempdir().unwrap();
    let path = join(&folder, "dump");
    let model = fixture("llama");
    stdout(&[
        "generate",
        "-m",
        arg(&model),
        "Hello",
        "-n",
        "3",
        "--attention",
        arg(&path),
        "--heads",
        "1.*,2.3",
    ]);
    let prompt = stdout(&["map", arg(&path), "--layer", "1"]);
    let direct = stdout(&["map", "-m", arg(&model), "Hello", "--layer", "1"]);
    let table = |text: &str| text.split_once("\n\n").unwrap().1.to_owned();
    assert_eq!(table(&prompt), table(&direct));
    let step = stdout(&["map", arg(&path), "--step", "2", "--head", "3"]);
    assert!(step.contains("step 2 of 3") && step.contains("layer 2 of 3, head 3"), "{step}");
    let row = table(&step).lines().nth(2).unwrap().to_owned();
    assert!(row.starts_with("6 "), "the row of position 6: {row}");
    let message = failure(&run(&["map", arg(&path), "--step", "3"]), 1);
    assert!(message.contains("no step 3"), "{message}");
    let message = failure(&run(&["map", arg(&path), "--head", "0"]), 2);
    assert!(message.contains("--head 0"), "{message}");
}

#[test]
fn broken_dumps_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = join(&folder, "dump");
    let record = || {
        let _ = fs::remove_dir_all(&path);
        stdout(&["generate", "-m", arg(&fixture("llama")), "Hello", "-n", "3", "--attention", arg(&path)]);
    };
    let message = |args: &[&str]| failure(&run(args), 1);
    record();
    let manifest = path.join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    for (from, to, word) in [
        ("\"version\": 2", "\"version\": 7", "version is 7"),
        ("attend-attention", "something-else", "something-else"),
        ("\"prompt_tokens\"", "\"prompt_tokenz\"", "prompt_tokens"),
        ("{", "", "no manifest"),
    ] {
        fs::write(&manifest, text.replacen(from, to, 1)).unwrap();
        let message = message(&["map", arg(&path)]);
        assert!(message.contains("manifest.json") && message.contains(word), "{message}");
    }
    record();
    let step = path.join("steps/00001.safetensors");
    let bytes = fs::read(&step).unwrap();
    fs::write(&step, &bytes[..bytes.len() - 4]).unwrap();
    assert!(message(&["map", arg(&path), "--step", "1"]).contains("00001.safetensors"));
    fs::remove_file(&step).unwrap();
    assert!(message(&["map", arg(&path), "--step", "1"]).contains("00001.safetensors"));
    fs::write(path.join("steps.jsonl"), "{\"step\":\n{}\n").unwrap();
    assert!(message(&["map", arg(&path)]).contains("line 1 is damaged"));
}

#[test]
fn hostile_dumps_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = join(&folder, "dump");
    stdout(&["generate", "-m", arg(&fixture("llama")), "Hello", "-n", "2", "--attention", arg(&path)]);
    let step = |file: &str, step: u64, first: u64, queries: u64, keys: u64| {
        format!(
            "{{\"step\":{step},\"file\":\"{file}\",\"first_query\":{first},\"queries\":{queries},\"keys\":{keys}}}\n"
        )
    };
    let good = "steps/00000.safetensors";
    for (line, word) in [
        (step(good, 0, 100, 1, 6), "do not lie within"),
        (step(good, 0, 1, 0, 0), "0 queries"),
        (step(good, 0, u64::MAX, 5, 4), "do not lie within"),
        (step(good, 3, 0, 5, 5), "step is 3"),
        (step("../manifest.json", 0, 0, 5, 5), "expected one in steps/"),
        (step("/etc/passwd", 0, 0, 5, 5), "expected one in steps/"),
        (step("steps/../manifest.json", 0, 0, 5, 5), "expected one in steps/"),
        (step("steps", 0, 0, 5, 5), "expected one in steps/"),
        (step(good, 0, 0, 7, 7), "has shape"),
    ] {
        fs::write(path.join("steps.jsonl"), &line).unwrap();
        let message = failure(&run(&["map", arg(&path)]), 1);
        assert!(message.contains(word), "{line}: {message}");
    }
    let manifest = fs::read_to_string(path.join("manifest.json")).unwrap();
    let mut empty: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    empty["layers"] = serde_json::json!([]);
    fs::write(path.join("manifest.json"), empty.to_string()).unwrap();
    assert!(failure(&run(&["map", arg(&path)]), 1).contains("lists no layers"));
}

#[test]
fn what_is_no_dump_is_never_touched() {
    let model = fixture("llama");
    let refused = |folder: &Path, word: &str| {
        let output = run(&[
            "generate",
            "-m",
            arg(&model),
            "Hello",
            "-n",
            "1",
            "--overwrite",
            "--attention",
            arg(folder),
        ]);
        let message = failure(&output, 1);
        assert!(message.contains(word), "{message}");
    };
    let folder = tempfile::tempdir().unwrap();
    let (steps, manifest) = (join(&folder, "steps"), join(&folder, "manifest.json"));
    fs::create_dir(&steps).unwrap();
    fs::write(steps.join("diary.txt"), "mine").unwrap();
    refused(folder.path(), "diary.txt");
    assert_eq!(fs::read_to_string(steps.join("diary.txt")).unwrap(), "mine");
    fs::remove_dir_all(&steps).unwrap();
    fs::write(&manifest, r#"{"name":"my web page"}"#).unwrap();
    refused(folder.path(), "no dump's");
    assert!(manifest.exists());
    // The model's own folder.
    let model = copy_of(&fixture("llama"));
    refused(model.path(), "no part of a dump");
    assert!(model.path().join("model.safetensors").exists());
    let output = run(&["generate", "-m", arg(&fixture("llama")), "Hello", "--attention", ""]);
    assert!(failure(&output, 2).contains("--attention"));
}

#[test]
fn an_old_dump_stays_until_the_new_run_can_begin() {
    let folder = tempfile::tempdir().unwrap();
    let path = join(&folder, "dump");
    let model = fixture("llama");
    let args = ["generate", "-m", arg(&model), "Hello", "-n", "5", "--overwrite", "--attention", arg(&path)];
    stdout(&args);
    let output = attend().env("ATTEND_ISA", "mmx").args(args).output().unwrap();
    failure(&output, 2);
    assert_eq!(Dump::open(&path).unwrap().steps().len(), 5);
}

#[test]
fn tokens_joined_are_the_text_at_a_stop_and_at_an_end_token() {
    let folder = tempfile::tempdir().unwrap();
    let path = join(&folder, "dump");
    let model = copy_of(&fixture("llama"));
    let run_with = |more: &[&str]| {
        let args = [
            "generate",
            "-m",
            arg(model.path()),
            "Hello",
            "-n",
            "60",
            "--temp",
            "1.2",
            "--top-k",
            "0",
            "--seed",
            "11",
            "--overwrite",
            "--attention",
            arg(&path),
        ];
        let text = stdout(&[&args[..], more].concat());
        let dump = Dump::open(&path).unwrap();
        let joined: String = dump.tokens()[5..].iter().map(|token| token.text.as_str()).collect();
        assert_eq!(joined, text, "{more:?}");
        (text, dump)
    };
    let (text, _) = run_with(&[]);
    let stop: String = text.chars().filter(char::is_ascii_graphic).nth(2).unwrap().into();
    let (stopped, _) = run_with(&["--stop", &stop]);
    assert_eq!(stopped, text[..text.find(&stop).unwrap()]);
    // A stop text that begins again and again and never comes.
    let begins = format!("{stop}\u{1F980}");
    assert_eq!(run_with(&["--stop", &begins]).0, text);
    let (_, dump) = run_with(&[]);
    let end = dump.tokens()[8].id;
    fs::write(model.path().join("generation_config.json"), format!(r#"{{"eos_token_id":{end}}}"#)).unwrap();
    let (_, dump) = run_with(&[]);
    assert_eq!(dump.tokens().last().unwrap().id, end);
    assert_eq!(dump.steps().len(), dump.tokens().len() - 5);
}

#[test]
fn a_recorder_goes_on_after_a_failed_step() {
    use attend::capture::{AttentionDtype, Recorder, Selection};
    use attend::model::{AttentionObserver, AttentionRows, Mask, StepShape};
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = attend::Checkpoint::open(&fixture("llama")).unwrap();
    let selection = Selection::parse(Some("0"), Some("0"), 3, 4).unwrap();
    let manifest =
        Recorder::manifest(&checkpoint, "f32", &selection, AttentionDtype::F32, Mask::Causal, 1, None);
    let mut recorder = Recorder::create(folder.path(), &manifest, false).unwrap();
    let shape = StepShape { first_query: 0, queries: 1, keys: 1 };
    // The step is cut off, as by weights that are not finite, and begins again.
    recorder.begin_step(shape).unwrap();
    recorder.begin_step(shape).unwrap();
    let weights = [1.0; 4];
    let rows = AttentionRows { layer: 0, first_query: 0, heads: 4, queries: 1, keys: 1, weights: &weights };
    recorder.observe(rows).unwrap();
    recorder.end_step().unwrap();
    recorder.flush().unwrap();
    let dump = Dump::open(folder.path()).unwrap();
    assert_eq!(dump.steps().len(), 1);
    assert_eq!(dump.layer_map(0, 0).unwrap().weights, [1.0]);
}

/// Starts a long generation and waits until it has recorded some steps.
#[cfg(unix)]
fn recording(path: &Path, more: &[&str]) -> std::process::Child {
    let child = attend()
        .args(["generate", "-m", arg(&fixture("llama")), "Hello", "-n", "120", "--kernels", "reference"])
        .args(["--attention", arg(path)])
        .args(more)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while fs::read_to_string(path.join("steps.jsonl")).unwrap_or_default().lines().count() < 3 {
        assert!(started.elapsed() < Duration::from_secs(60), "nothing is recorded");
        std::thread::sleep(Duration::from_micros(200));
    }
    child
}

#[cfg(unix)]
#[test]
fn a_killed_run_leaves_its_whole_steps() {
    // scripts/check-dumps kills 200 times, at any moment.
    for _ in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let path = join(&folder, "dump");
        let mut child = recording(&path, &[]);
        child.kill().unwrap();
        child.wait().unwrap();
        let dump = Dump::open(&path).unwrap();
        assert!(dump.steps().len() >= 3);
        assert!(dump.tokens().len() >= 5 + dump.steps().len() - 1);
        assert_eq!(check(&path).unwrap().steps, dump.steps().len());
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_cleanly() {
    let folder = tempfile::tempdir().unwrap();
    let path = join(&folder, "dump");
    let child = recording(&path, &[]);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("steps recorded"), "{stderr}");
    let dump = Dump::open(&path).unwrap();
    check_rows(&dump, 1e-5);
    if dump.steps().len() < 120 {
        assert_eq!(output.status.code(), Some(130));
    }
    // Every generated token is there, and the last was not fed.
    assert_eq!(dump.tokens().len(), 5 + dump.steps().len());
    assert!(fs::read_dir(path.join("steps")).unwrap().count() == dump.steps().len());
}

/// A file-size limit stands for a full disk: writing fails in the middle of a step.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_keeps_the_whole_steps() {
    let folder = tempfile::tempdir().unwrap();
    let path = join(&folder, "dump");
    let output = Command::new("bash")
        .args(["-c", "trap '' XFSZ; ulimit -f 5; exec \"$@\"", "bash", env!("CARGO_BIN_EXE_attend")])
        .args(["generate", "-m", arg(&fixture("llama")), "--prompt-ids", "1,2,3", "-n", "120"])
        .args(["--attention", arg(&path)])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stderr = failure(&output, 1);
    assert!(stderr.contains("cannot write") && stderr.contains("dump"), "{stderr}");
    let dump = Dump::open(&path).unwrap();
    assert!(!dump.steps().is_empty() && dump.steps().len() < 120);
    check_rows(&dump, 1e-5);
    assert_eq!(fs::read_dir(path.join("steps")).unwrap().count(), dump.steps().len(), "a part is left over");
}
