//! Perplexity, against Transformers' on tiny checkpoints (`tests/fixtures/perplexity/make.py`), and
//! `attend perplexity` from the real binary.

mod common;
#[path = "common/program.rs"]
mod program;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use attend::measure::{Perplexity, ScoredToken, SlidingWindow};
use attend::model::{Decoder, Forward, KernelChoice, LogitRows};
use common::*;
use program::*;

#[derive(serde::Deserialize)]
struct Answers {
    text: String,
    ids: Vec<u32>,
    cases: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    window: usize,
    stride: usize,
    windows: usize,
    perplexity: f64,
    /// What the loop of Transformers' guide gives, if a number.
    guide: Option<f64>,
    logit_range: f64,
    log_probabilities: Vec<Option<f64>>,
}

fn answers(name: &str) -> Answers {
    let path = fixture("perplexity").join(format!("{name}.json"));
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Every scored token, and the run at its end.
fn score<'a>(
    decoder: &'a Decoder,
    ids: &'a [u32],
    window: usize,
    stride: usize,
) -> (Vec<ScoredToken>, Perplexity<'a>) {
    let sliding = SlidingWindow::new(Some(window), Some(stride), decoder.config().context).unwrap();
    let mut run = Perplexity::new(decoder, ids, sliding, Default::default()).unwrap();
    let mut tokens = vec![];
    while let Some(scored) = run.step().unwrap() {
        tokens.extend(scored);
    }
    (tokens, run)
}

fn assert_relative(ours: f64, theirs: f64, what: &str) {
    assert!((ours / theirs - 1.0).abs() <= 1e-5, "{what}: {ours} for {theirs}");
}

/// The guide's weights: each window's mean, times one less than the tokens that are new in it.
fn as_in_the_guide(tokens: &[ScoredToken], length: usize, window: usize, stride: usize) -> f64 {
    let (mut sum, mut count, mut previous_end) = (0.0, 0.0, 0);
    for begin in (0..length).step_by(stride) {
        let end = length.min(begin + window);
        let new = (end - previous_end) as f64;
        let of_window: Vec<f64> = tokens
            .iter()
            .filter(|token| (previous_end..end).contains(&token.index))
            .map(|token| -token.log_probability)
            .collect();
        sum += of_window.iter().sum::<f64>() / of_window.len() as f64 * (new - 1.0);
        count += new - 1.0;
        previous_end = end;
        if end == length {
            break;
        }
    }
    (sum / count).exp()
}

#[test]
fn every_token_has_the_probability_of_transformers() {
    let mut cases = 0;
    for name in ["llama", "phi3_longrope"] {
        let answers = answers(name);
        for kernels in [KernelChoice::Native, KernelChoice::Reference] {
            let decoder = load(&fixture(name), kernels, None);
            for case in &answers.cases {
                let what = format!("{name} {kernels:?} {} {}", case.window, case.stride);
                let (tokens, run) = score(&decoder, &answers.ids, case.window, case.stride);
                let expected: Vec<(usize, f64)> = case
                    .log_probabilities
                    .iter()
                    .enumerate()
                    .filter_map(|(index, value)| Some((index, (*value)?)))
                    .collect();
                let indices = |pairs: &[(usize, f64)]| pairs.iter().map(|pair| pair.0).collect::<Vec<_>>();
                assert_eq!(tokens.iter().map(|token| token.index).collect::<Vec<_>>(), indices(&expected));
                for (token, (index, value)) in tokens.iter().zip(&expected) {
                    assert_eq!(token.id, answers.ids[*index]);
                    let difference = (token.log_probability - value).abs();
                    assert!(difference <= 1e-4 * case.logit_range, "{what}: {difference:e} at {index}");
                }
                assert_eq!((run.scored(), run.windows()), (expected.len(), case.windows), "{what}");
                assert_relative(run.value(), case.perplexity, &what);
                if let Some(guide) = case.guide {
                    let ours = as_in_the_guide(&tokens, answers.ids.len(), case.window, case.stride);
                    assert_relative(ours, guide, &format!("{what}, the guide's"));
                }
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 16);
}

#[test]
fn the_standard_error_is_that_of_the_mean_times_the_perplexity() {
    let answers = answers("llama");
    let decoder = load(&fixture("llama"), KernelChoice::Native, None);
    let case = &answers.cases[0];
    let (_, run) = score(&decoder, &answers.ids, case.window, case.stride);
    // The sample's deviation, from the reference's numbers.
    let values: Vec<f64> = case.log_probabilities.iter().flatten().map(|value| -value).collect();
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
    assert_relative(run.standard_error(), mean.exp() * (variance / count).sqrt(), "standard error");
    assert_relative(run.bits(), mean * count / 2f64.ln(), "bits");
}

/// A long window is read in several steps: the same bits as in one.
#[test]
fn steps_within_a_window_change_nothing() {
    let folder = copy_of(&fixture("llama"));
    let config = fs::read_to_string(join(&folder, "config.json")).unwrap();
    let longer = config.replace(r#""max_position_embeddings": 128"#, r#""max_position_embeddings": 1024"#);
    assert_ne!(config, longer);
    fs::write(join(&folder, "config.json"), longer).unwrap();
    let decoder = load(folder.path(), KernelChoice::Native, None);
    let mut random = Random(7);
    let ids: Vec<u32> = (0..1500).map(|_| random.token(256)).collect();
    let (window, stride) = (900, 300);
    let (tokens, _) = score(&decoder, &ids, window, stride);
    assert_eq!(tokens.len(), ids.len() - 1);
    for begin in [0, 300, 600] {
        let mut cache = decoder.new_cache(window).unwrap();
        let request = Forward { logits: LogitRows::All, ..Forward::default() };
        let logits = decoder.forward(&ids[begin..begin + window], &mut cache, request).unwrap();
        let rows = logits.to_vec2::<f32>().unwrap();
        let first = if begin == 0 { 1 } else { begin + window - stride };
        for index in first..begin + window {
            let row = &rows[index - 1 - begin];
            let expected = attend::generation::sampler::log_probability(row, ids[index]);
            assert_eq!(tokens[index - 1].log_probability, expected, "token {index}");
        }
    }
}

#[test]
fn wrong_windows_are_named() {
    let message = |window, stride| SlidingWindow::new(window, stride, 128).unwrap_err().to_string();
    assert!(message(Some(129), None).contains("the model's context of 128"));
    assert!(message(Some(1), None).contains("at least 2"));
    assert!(message(Some(0), Some(0)).contains("at least 2"));
    assert!(message(None, Some(0)).contains("a stride of 0"));
    assert!(message(Some(64), Some(65)).contains("give 1 to 64"));
    let default = SlidingWindow::new(None, None, 128).unwrap();
    assert_eq!((default.window(), default.stride()), (128, 64));
    let default = SlidingWindow::new(None, None, 131_072).unwrap();
    assert_eq!((default.window(), default.stride()), (2048, 1024));
}

fn model() -> String {
    arg(&fixture("llama")).to_owned()
}

/// The lines of a CSV text, read by the rules of RFC 4180.
fn read_csv(text: &str) -> Vec<Vec<String>> {
    let (mut lines, mut line, mut field) = (vec![], vec![], String::new());
    let mut quoted = false;
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => line.push(std::mem::take(&mut field)),
            '\n' if !quoted => {
                line.push(std::mem::take(&mut field));
                lines.push(std::mem::take(&mut line));
            }
            c => field.push(c),
        }
    }
    assert!(!quoted && field.is_empty() && line.is_empty(), "an unfinished line");
    lines
}

/// The lines behind the heading, which must hold `answers`' tokens.
fn assert_csv(text: &str, answers: &Answers, case: &Case) {
    let lines = read_csv(text);
    assert_eq!(lines[0], ["index", "id", "text", "logprob"]);
    assert_eq!(lines.len(), answers.ids.len() + 1);
    assert_eq!(lines[1..].iter().map(|line| line[2].as_str()).collect::<String>(), answers.text);
    for (index, line) in lines[1..].iter().enumerate() {
        assert_eq!((&line[0], &line[1]), (&index.to_string(), &answers.ids[index].to_string()));
        match case.log_probabilities[index] {
            None => assert_eq!(line[3], "", "token {index}"),
            Some(expected) => {
                let ours: f64 = line[3].parse().unwrap();
                assert!((ours - expected).abs() <= 1e-4 * case.logit_range, "token {index}");
                assert_eq!(ours.to_string(), line[3]);
            }
        }
    }
}

#[test]
fn a_program_gets_json_and_every_tokens_line() {
    let answers = answers("llama");
    let folder = tempfile::tempdir().unwrap();
    let (text, csv) = (join(&folder, "text.txt"), join(&folder, "tokens.csv"));
    fs::write(&text, &answers.text).unwrap();
    let model = model();
    for case in &answers.cases {
        let (window, stride) = (case.window.to_string(), case.stride.to_string());
        let args =
            ["perplexity", "-m", &model, "-f", arg(&text), "-c", &window, "--stride", &stride, "--json"];
        let out = stdout(&[&args[..], &["--csv", arg(&csv)]].concat());
        let result: serde_json::Value = serde_json::from_str(&out).unwrap();
        let scored = case.log_probabilities.iter().flatten().count();
        for (key, expected) in [
            ("tokens", answers.ids.len()),
            ("tokens_scored", scored),
            ("windows", case.windows),
            ("window", case.window),
            ("stride", case.stride),
        ] {
            assert_eq!(result[key], expected, "{key}");
        }
        assert_eq!(result["partial"], false);
        let number = |key: &str| result[key].as_f64().unwrap();
        assert_relative(number("perplexity"), case.perplexity, "perplexity");
        let mean = case.perplexity.ln();
        assert_relative(number("mean_negative_log_likelihood"), mean, "mean");
        if case.stride < case.window {
            // All but the first token, which is one byte.
            let bytes = (answers.text.len() - 1) as f64;
            let bits = mean * scored as f64 / 2f64.ln() / bytes;
            assert_relative(number("bits_per_byte"), bits, "bits per byte");
        }
        assert!(number("seconds") > 0.0 && number("standard_error") > 0.0);
        assert_csv(&fs::read_to_string(&csv).unwrap(), &answers, case);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "something is left over");
    }
}

#[test]
fn text_says_what_was_scored_and_csv_may_take_standard_output() {
    let answers = answers("llama");
    let model = model();
    let case = &answers.cases[0];
    let ids = answers.ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let args = ["perplexity", "-m", &model, "--prompt-ids", &ids];
    let out = stdout(&args);
    let shown = out.strip_prefix("perplexity: ").unwrap().split(' ').next().unwrap();
    assert_relative(shown.parse().unwrap(), case.perplexity, "perplexity");
    for part in
        [" ± ", "tokens scored: 339 of 340, in 5 windows of 128, stride 64", "bits per byte", "tokens/s"]
    {
        assert!(out.contains(part), "{part:?} is missing in: {out}");
    }
    let output = run(&[&args[..], &["--csv", "-"]].concat());
    assert_csv(std::str::from_utf8(&output.stdout).unwrap(), &answers, case);
    assert!(String::from_utf8(output.stderr).unwrap().contains("perplexity: "));
}

#[test]
fn tokens_without_text_have_no_bits_per_byte() {
    let folder = copy_of(&fixture("llama"));
    fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    let args = ["perplexity", "-m", arg(folder.path()), "--prompt-ids", "1,2,3", "--csv", "-"];
    let lines = read_csv(&stdout(&args));
    assert_eq!(lines[1], ["0", "1", "", ""]);
    assert!(lines[3][3].parse::<f64>().unwrap() < 0.0);
    let out = stdout(&["perplexity", "-m", arg(folder.path()), "--prompt-ids", "1,2,3", "--json"]);
    assert!(serde_json::from_str::<serde_json::Value>(&out).unwrap()["bits_per_byte"].is_null());
}

#[test]
fn what_cannot_be_measured_is_named() {
    let model = model();
    let bert = arg(&fixture("bert")).to_owned();
    for (more, message) in [
        (&["-m", &model, "x"][..], "the text has 1 token, and the first is not predicted"),
        (&["-m", &model, "Hello", "-c", "129"], "does not fit the model's context of 128"),
        (&["-m", &model, "Hello", "-c", "1"], "ask for at least 2"),
        (&["-m", &model, "Hello", "--stride", "0"], "a stride of 0"),
        (&["-m", &model, "Hello", "-c", "8", "--stride", "9"], "give 1 to 8"),
        (&["-m", &model, "Hello", "--json", "--csv", "-"], "both write to standard output"),
        (&["-m", &bert, "--prompt-ids", "1,2,3"], "is an encoder"),
    ] {
        let stderr = failure(&run(&[&["perplexity"], more].concat()), 2);
        assert!(stderr.contains(message), "{more:?}: {stderr}");
    }
}

#[test]
fn a_csv_file_that_cannot_be_written_leaves_nothing() {
    let model = model();
    let folder = tempfile::tempdir().unwrap();
    let missing = join(&folder, "missing").join("tokens.csv");
    let args = |csv: &Path| ["perplexity", "-m", &model, "Hello", "--csv", arg(csv)].map(str::to_owned);
    let fails = |csv: &Path, code| {
        let args = args(csv);
        failure(&run(&args.iter().map(String::as_str).collect::<Vec<_>>()), code)
    };
    assert!(fails(&missing, 1).contains("missing/tokens.csv: cannot write the CSV file there"));
    assert!(fails(folder.path(), 2).contains("this is a folder"));
    assert!(fails(Path::new("/dev/full"), 1).contains("/dev/full: cannot write"));
    // A file-size limit stands for a full disk; an earlier result stays.
    let csv = join(&folder, "tokens.csv");
    fs::write(&csv, "earlier").unwrap();
    let ids = ["7"; 400].join(",");
    let output = Command::new("bash")
        .args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$@\"", "bash", env!("CARGO_BIN_EXE_attend")])
        .args(["perplexity", "-m", &model, "--prompt-ids", &ids, "--csv", arg(&csv)])
        .output()
        .unwrap();
    assert!(failure(&output, 1).contains("tokens.csv.part: cannot write"));
    assert!(output.stdout.is_empty());
    assert_eq!(fs::read_to_string(&csv).unwrap(), "earlier");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "something is left over");
}

#[test]
fn ctrl_c_ends_with_a_result_that_is_called_partial() {
    let model = model();
    let folder = tempfile::tempdir().unwrap();
    let (text, csv, part) =
        (join(&folder, "text.txt"), join(&folder, "tokens.csv"), join(&folder, "tokens.csv.part"));
    fs::write(&text, "All work and no play. ".repeat(20_000)).unwrap();
    let child = attend()
        .args(["perplexity", "-m", &model, "-f", arg(&text), "--stride", "1", "--csv", arg(&csv)])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while !fs::metadata(&part).is_ok_and(|part| part.len() > 0) {
        assert!(started.elapsed() < Duration::from_secs(60), "nothing was scored");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(out.starts_with("perplexity of the beginning alone (interrupted): "), "{out}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("tokens.csv.part: holds the"));
    assert!(!csv.exists());
    let lines = read_csv(&fs::read_to_string(&part).unwrap());
    let scored = out.split("tokens scored: ").nth(1).unwrap().split(' ').next().unwrap();
    assert_eq!(lines.len() - 2, scored.parse::<usize>().unwrap());
}
