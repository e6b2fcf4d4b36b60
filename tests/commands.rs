//! What the commands print, from the real binary on the tiny checkpoint.

mod common;
#[path = "common/program.rs"]
mod program;

use std::fs;
use std::io::Write;
use std::process::Stdio;

use common::{Reference, fixture};
use program::*;

#[derive(serde::Deserialize, Debug, PartialEq)]
struct Line {
    id: u32,
    text: String,
    logprob: f64,
}

fn lines(text: &str) -> Vec<Line> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn model() -> String {
    arg(&fixture("llama")).to_owned()
}

/// The tiny model with a `generation_config.json`.
fn with_generation_config(json: &str) -> tempfile::TempDir {
    let folder = copy_of(&fixture("llama"));
    fs::write(folder.path().join("generation_config.json"), json).unwrap();
    folder
}

#[test]
fn json_lines_are_tokens_with_the_models_probability() {
    let reference = Reference::open(&fixture("llama").join("answers.safetensors"));
    let ids = reference.ids("input_ids");
    let list = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let out = stdout(&["generate", "-m", &model(), "--prompt-ids", &list, "-n", "16", "--json"]);
    let lines = lines(&out);
    assert_eq!(lines.iter().map(|line| line.id).collect::<Vec<_>>(), reference.ids("greedy_ids"));
    // The first one's probability, from the reference's logits.
    let logits = reference.f32s("logits");
    let last = &logits[logits.len() - 256..];
    let sum: f64 = last.iter().map(|logit| f64::from(*logit).exp()).sum();
    let expected = f64::from(last[lines[0].id as usize]) - sum.ln();
    assert!((lines[0].logprob - expected).abs() < 1e-4, "{} for {expected}", lines[0].logprob);
}

#[test]
fn a_prompt_is_the_same_from_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let file = join(&folder, "prompt.txt");
    let prompt = " Hello\n there \n";
    fs::write(&file, prompt).unwrap();
    let ids = prompt.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(",");
    let model = model();
    let expected = stdout(&["generate", "-m", &model, prompt, "-n", "8", "--json"]);
    for source in
        [vec!["-p", prompt], vec!["--prompt", prompt], vec!["-f", arg(&file)], vec!["--prompt-ids", &ids]]
    {
        let args = [vec!["generate", "-m", &model, "-n", "8", "--json"], source].concat();
        assert_eq!(stdout(&args), expected, "{args:?}");
    }
    for dash in [vec![], vec!["-f", "-"]] {
        let mut child = attend()
            .args(["generate", "-m", &model, "-n", "8", "--json"])
            .args(dash)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(prompt.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap(), expected);
    }
}

#[test]
fn a_folder_without_tokenizer_generates_from_ids() {
    let folder = copy_of(&fixture("llama"));
    fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    let expected = stdout(&["generate", "-m", &model(), "--prompt-ids", "1,2,3", "-n", "5", "--json"]);
    let out = stdout(&["generate", "-m", arg(folder.path()), "--prompt-ids", "1,2,3", "-n", "5", "--json"]);
    let ids = |text: &str| lines(text).iter().map(|line| line.id).collect::<Vec<_>>();
    assert_eq!(ids(&out), ids(&expected));
    assert!(lines(&out).iter().all(|line| line.text.is_empty()));
    stdout(&["map", "-m", arg(folder.path()), "--prompt-ids", "1,2,3"]);
    // Without text the numbers are shown, as --prompt-ids takes them.
    let shown = stdout(&["generate", "-m", arg(folder.path()), "--prompt-ids", "1, 2, 3", "-n", "5"]);
    let numbers: Vec<u32> = shown.trim_end().split(',').map(|id| id.parse().unwrap()).collect();
    assert_eq!(numbers, ids(&out));
    let stopped = run(&["generate", "-m", arg(folder.path()), "--prompt-ids", "1", "--stop", "x"]);
    assert!(failure(&stopped, 1).contains("--stop is a text"));
}

#[test]
fn a_seed_repeats_and_seeds_differ_and_the_one_used_is_printed() {
    let model = model();
    let sample = |seed: &str| {
        stdout(&["generate", "-m", &model, "Hello", "-n", "20", "--json", "--temp", "1.5", "--seed", seed])
    };
    assert_eq!(sample("7"), sample("7"));
    assert_ne!(sample("7"), sample("8"));
    let output = run(&["generate", "-m", &model, "Hello", "-n", "20", "--json", "--temp", "1.5"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    let seed = stderr.split("seed ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    assert_eq!(sample(&seed), String::from_utf8(output.stdout).unwrap());
    for part in ["prompt: 5 tokens", "generation: 20 tokens", "tokens/s", "first token", "peak memory"] {
        assert!(stderr.contains(part), "{part:?} is missing in: {stderr}");
    }
}

#[test]
fn sampling_defaults_come_from_the_model() {
    let greedy = stdout(&["generate", "-m", &model(), "Hello", "-n", "12", "--json"]);
    let folder = with_generation_config(r#"{"do_sample":true,"temperature":1.7,"top_k":40}"#);
    let path = arg(folder.path());
    let output = run(&["generate", "-m", path, "Hello", "-n", "12", "--json", "--seed", "3"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("temperature 1.7, top-k 40, seed 3"), "{stderr}");
    assert_ne!(String::from_utf8(output.stdout).unwrap(), greedy);
    assert_eq!(stdout(&["generate", "-m", path, "Hello", "-n", "12", "--json", "--temp", "0"]), greedy);
    // A filter alone turns sampling on, at the model's temperature.
    let asked = run(&["generate", "-m", &model(), "Hello", "-n", "1", "--top-p", "0.9", "--seed", "1"]);
    let stderr = String::from_utf8(asked.stderr).unwrap();
    assert!(stderr.contains("temperature 1, top-k 50, top-p 0.9, seed 1"), "{stderr}");
}

#[test]
fn the_number_of_new_tokens_is_the_users_the_models_or_256() {
    let count = |model: &std::path::Path, more: &[&str]| {
        lines(&stdout(&[&["generate", "-m", arg(model), "Hello", "--json"], more].concat())).len()
    };
    let own = with_generation_config(r#"{"max_new_tokens":7}"#);
    assert_eq!(count(own.path(), &[]), 7);
    assert_eq!(count(own.path(), &["-n", "3"]), 3);
    // The tiny model has 128 positions, fewer than 5 and 256.
    assert_eq!(count(own.path(), &["-n", "-1"]), 123);
    assert_eq!(count(&fixture("llama"), &[]), 123);
}

#[test]
fn generation_ends_at_each_end_token_and_shows_it_in_json() {
    let all = lines(&stdout(&["generate", "-m", &model(), "Hello", "-n", "12", "--json"]));
    let end = all[1].id;
    let folder = with_generation_config(&format!(r#"{{"eos_token_id":[255,{end}]}}"#));
    let ended = lines(&stdout(&["generate", "-m", arg(folder.path()), "Hello", "-n", "12", "--json"]));
    let first = all.iter().position(|line| line.id == end).unwrap();
    let ids = |lines: &[Line]| lines.iter().map(|line| line.id).collect::<Vec<_>>();
    assert_eq!(ids(&ended), ids(&all[..=first]));
}

#[test]
fn stop_texts_end_and_are_not_printed() {
    let folder = copy_of(&fixture("llama"));
    let sample = |more: &[&str]| {
        let args = [
            "generate",
            "-m",
            arg(folder.path()),
            "Hello",
            "-n",
            "60",
            "--temp",
            "1.2",
            "--top-k",
            "0",
            "--seed",
            "11",
        ];
        stdout(&[&args, more].concat())
    };
    let text = sample(&[]);
    let letter = text.chars().filter(char::is_ascii_graphic).nth(3).unwrap().to_string();
    let expected = &text[..text.find(&letter).unwrap()];
    assert_eq!(sample(&["--stop", &letter, "--stop", "never there"]), expected);
}

#[test]
fn the_context_ends_generation_with_a_message() {
    let output = run(&["generate", "-m", &model(), "Hello", "-n", "500", "--json"]);
    assert!(output.status.success());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("the context of 128 tokens is full"), "{stderr}");
    assert_eq!(lines(&String::from_utf8(output.stdout).unwrap()).len(), 123);
    let output = run(&["generate", "-m", &model(), "Hello", "-c", "9", "--json"]);
    assert_eq!(lines(&String::from_utf8(output.stdout).unwrap()).len(), 4);
    assert!(String::from_utf8(output.stderr).unwrap().contains("raise it with -c"));
}

#[test]
fn threads_and_tiers_give_the_same_text() {
    let model = model();
    let args = ["generate", "-m", &model, "Hello", "-n", "30", "--json"];
    let expected = lines(&stdout(&args));
    let ids = |lines: &[Line]| lines.iter().map(|line| line.id).collect::<Vec<_>>();
    for threads in ["1", "3", "64"] {
        assert_eq!(lines(&stdout(&[&args[..], &["-t", threads]].concat())), expected, "{threads} threads");
    }
    for isa in attend::kernels::Isa::available() {
        let output = attend().env("ATTEND_ISA", isa.name()).args(args).output().unwrap();
        assert_eq!(ids(&lines(&String::from_utf8(output.stdout).unwrap())), ids(&expected), "{isa}");
    }
    for dtype in ["f32", "bf16", "f16", "q8_0", "q4_0", "q4_1", "q4_k"] {
        assert_eq!(
            lines(&stdout(&[&args[..], &["--dtype", dtype]].concat())).len(),
            expected.len(),
            "{dtype}"
        );
    }
    for dtype in ["f32", "f16", "q8_0"] {
        let out = stdout(&[&args[..], &["--cache-dtype", dtype]].concat());
        assert_eq!(lines(&out).len(), expected.len(), "{dtype}");
    }
}

#[test]
fn map_prints_a_table() {
    let out = stdout(&["map", "-m", &model(), "cat", "--layer", "1", "--head", "2"]);
    let rows: Vec<&str> = out.split_once("\n\n").unwrap().1.lines().collect();
    assert!(out.contains("layer 1 of 3, head 2") && out.contains("causal mask"), "{out}");
    assert_eq!(rows[1].split_whitespace().collect::<Vec<_>>(), ["c", "a", "t"]);
    assert_eq!(rows[2].split_whitespace().collect::<Vec<_>>(), ["0", "c", "1.00", "·", "·"]);
    let last: Vec<&str> = rows[4].split_whitespace().collect();
    let sum: f64 = last[2..].iter().map(|cell| cell.parse::<f64>().unwrap()).sum();
    assert!((sum - 1.0).abs() < 0.02, "{last:?}");
    assert!(!out.contains('\x1b'), "colours where there is no terminal");
    let unmasked = stdout(&["map", "-m", &model(), "cat", "--mask", "none"]);
    assert!(unmasked.contains("no mask") && unmasked.contains("mean of 4 heads"), "{unmasked}");
    assert!(!unmasked.split_once("\n\n").unwrap().1.contains('·'));
    let part = stdout(&["map", "-m", &model(), "a longer text", "--queries", "10-12", "--keys", "3"]);
    assert!(part.contains("shown: queries 10-12 of 0-12, keys 3-3 of 0-12"), "{part}");
    assert_eq!(part.split_once("\n\n").unwrap().1.lines().count(), 2 + 3 + 1);
}

#[test]
fn a_folder_that_is_no_dump_is_a_text() {
    let out = stdout(&["map", "-m", &model(), "src"]);
    assert!(out.contains("layer 2 of 3"));
}

#[test]
fn bench_rows_have_what_they_promise() {
    let model = model();
    let args = ["bench", "-m", &model, "-p", "16", "-n", "4", "-d", "0,8", "-r", "2", "-t", "1"];
    let out = stdout(&[&args[..], &["-o", "json"]].concat());
    let rows: Vec<serde_json::Value> = serde_json::from_str(&out).unwrap();
    let tests: Vec<&str> = rows.iter().map(|row| row["test"].as_str().unwrap()).collect();
    assert_eq!(tests, ["pp16", "tg4", "pp16 @ d8", "tg4 @ d8"]);
    for row in &rows {
        for speed in ["tokens_per_second", "tokens_per_second_capturing"] {
            assert_eq!(row[speed]["samples"].as_array().unwrap().len(), 2);
            assert!(row[speed]["mean"].as_f64().unwrap() > 0.0);
            assert!(row[speed]["deviation"].as_f64().unwrap() >= 0.0);
        }
        assert_eq!(row["threads"], 1);
        assert!(row["bandwidth_share"].as_f64().unwrap() > 0.0);
        assert!(row["bytes_per_token"].as_u64().unwrap() > 0);
        assert!(row["load_seconds"].as_f64().unwrap() > 0.0);
        assert_eq!(row["load_seconds"], rows[0]["load_seconds"]);
    }
    // Weights in 32 bits, the head's and the layers' once, and the keys and values before.
    let layer = 64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 96;
    let expected = 4 * (3 * layer + 256 * 64) + (2 + 8) * 3 * 2 * 32 * 4;
    assert_eq!(rows[3]["bytes_per_token"], expected);
    let lines = stdout(&[&args[..], &["-o", "jsonl", "--no-capture"]].concat());
    assert_eq!(lines.lines().count(), 4);
    for line in lines.lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(row["tokens_per_second_capturing"].is_null());
    }
    let markdown = stdout(&[&args[..], &["-o", "md", "--no-capture"]].concat());
    assert!(markdown.starts_with("| model | dtype |"), "{markdown}");
    assert_eq!(
        markdown.lines().filter(|line| line.starts_with("| llama | f32 | 1 |")).count(),
        4,
        "{markdown}"
    );
    let csv = stdout(&[&args[..], &["-o", "csv", "--no-capture"]].concat());
    assert_eq!(csv.lines().count(), 5);
    let columns: Vec<usize> = csv.lines().map(|line| line.split(',').count()).collect();
    assert!(columns.iter().all(|count| *count == columns[0]), "{csv}");
    assert_eq!(
        stdout(&[&args[..], &["-o", "jsonl", "--attention-dtype", "f16"]].concat()).lines().count(),
        4
    );
    let message = failure(&run(&[&args[..], &["--attention-dtype", "f16", "--no-capture"]].concat()), 2);
    assert!(message.contains("--no-capture"), "{message}");
    let table = stdout(&args);
    assert!(table.contains("tg4 @ d8") && table.contains("GB/s from memory with 1 thread"), "{table}");
    assert_eq!(table.matches("loading as f32: 0.").count(), 1, "{table}");
}

/// More threads than CPUs would only wait for one another.
#[test]
#[cfg(target_os = "linux")]
fn there_are_no_more_threads_than_cpus_that_may_be_used() {
    let model = model();
    let bench = ["bench", "-m", &model, "-p", "4", "-n", "0", "-r", "1", "--no-capture", "-o", "json"];
    // util-linux's, as every distribution has it.
    let mut command = std::process::Command::new("taskset");
    command.args(["-c", "0", env!("CARGO_BIN_EXE_attend")]).args(bench);
    let threads = |command: &mut std::process::Command| {
        let output = command.output().unwrap();
        let rows: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
        (rows[0]["threads"].as_u64().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(threads(&mut command).0, 1);
    let (count, stderr) = threads(command.args(["-t", "64"]));
    assert_eq!(count, 1);
    assert!(stderr.contains("--threads 64: this process may use 1 CPU"), "{stderr}");
}

#[test]
fn bench_takes_lists_with_the_reference_operations_too() {
    let model = model();
    let args =
        ["bench", "-m", &model, "-p", "4", "-n", "0", "-r", "1", "--no-capture", "--kernels", "reference"];
    let out = stdout(&[&args[..], &["--dtype", "f32,bf16", "-o", "json"]].concat());
    let rows: Vec<serde_json::Value> = serde_json::from_str(&out).unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[1]["dtype"], "bf16");
    let message = failure(&run(&[&args[..], &["-t", "1,2"]].concat()), 2);
    assert!(message.contains("--threads"), "{message}");
}

#[test]
fn a_map_takes_a_dump_or_a_text_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = join(&folder, "dump");
    stdout(&["map", "-m", &model(), "Hello", "--attention", arg(&path)]);
    for more in [
        &["-p", "Hi"][..],
        &["--prompt-ids", "1"],
        &["-m", "x"],
        &["--mask", "none"],
        &["--dtype", "f16"],
        &["--cache-dtype", "f16"],
        &["-t", "1"],
    ] {
        let message = failure(&run(&[&["map", arg(&path)], more].concat()), 2);
        assert!(message.contains("is a dump"), "{more:?}: {message}");
    }
}

#[test]
fn info_says_what_could_not_be_held_as_asked() {
    let out = stdout(&["info", &model(), "--dtype", "q4_k", "--cache-dtype", "q8_0"]);
    // 3 layers of 7 matrices with rows of 64 or 96, and an untied table at each end.
    for line in [
        "in memory       q8_0: 23 matrices (",
        "18 of 23 matrices: rows of 64 do not divide by 256; held as q8_0",
        "3 of 23 matrices: rows of 96 do not divide by 256; held as q8_0",
        "2 of 23 matrices: embedding and output head stay finer than q4_k; held as q8_0",
        "408 bytes (408 B) a token, in q8_0",
    ] {
        assert!(out.contains(line), "{line} is not in {out}");
    }
}

#[test]
fn a_converted_model_gives_the_text_of_the_type_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let out = join(&folder, "small");
    let converted = run(&["convert", &model(), arg(&out), "--dtype", "q4_1"]);
    let stderr = String::from_utf8_lossy(&converted.stderr).into_owned();
    assert!(converted.status.success() && stderr.contains("held as q8_0"), "{stderr}");
    let prompt = ["Hello", "-n", "20", "--json"];
    let expected = stdout(&[&["generate", "-m", &model(), "--dtype", "q4_1"][..], &prompt].concat());
    assert_eq!(stdout(&[&["generate", "-m", arg(&out)][..], &prompt].concat()), expected);
    let again = failure(&run(&["convert", &model(), arg(&out), "--dtype", "f16"]), 2);
    assert!(again.contains("not empty"), "{again}");
    assert!(run(&["convert", &model(), arg(&join(&folder, "x"))]).status.code() == Some(2));
}

#[test]
fn info_describes_the_model() {
    let model = model();
    for args in [["info", &model].as_slice(), &["info", "-m", &model]] {
        let out = stdout(args);
        for part in [
            "llama",
            "parameters",
            "4 a layer, of size 16, 2 to a key/value head",
            "128 tokens",
            "f32",
            "256",
        ] {
            assert!(out.contains(part), "{part:?} is missing in: {out}");
        }
    }
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(fixture("llama").join("config.json")).unwrap()).unwrap();
    let families = stdout(&["info", "--families"]);
    assert!(families.lines().any(|family| family == "llama") && families.lines().count() >= 5, "{families}");
    let windowed = stdout(&["info", arg(&fixture("mistral"))]);
    assert!(windowed.contains("8 keys, in 3 of 3 layers"), "{windowed}");
    let cache = config["num_hidden_layers"].as_u64().unwrap() * 2 * 2 * 16 * 4;
    assert!(stdout(&["info", &model]).contains(&format!("{cache} bytes")));
}

#[test]
fn shells_and_man_get_their_files() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(stdout(&["completions", shell]).contains("attention-dtype"), "{shell}");
    }
    let page = stdout(&["man"]);
    assert!(page.contains(".TH attend 1") && page.contains("attend\\-generate"), "no manual page");
    assert!(stdout(&["--version"]).starts_with("attend "));
    assert!(stdout(&["generate", "--help"]).contains("--repeat-last-n"));
}
