//! Speculation: the same text, probabilities and maps as without it, from fewer passes.

mod common;
#[path = "common/program.rs"]
mod program;

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use attend::generation::{Acceptance, Finish, GenerationOptions, Sampling, Session, Token};
use attend::kernels::cache::CacheType;
use attend::kernels::matmul::ElementType;
use attend::model::{AttentionObserver, AttentionRows, Decoder, Forward, KernelChoice, StepShape};
use attend::{Checkpoint, Error, LoadOptions, Result};
use common::*;
use program::*;

fn embedded(kernels: KernelChoice) -> Decoder {
    let options = LoadOptions { kernels, threads: 2, ..LoadOptions::default() };
    Checkpoint::embedded().unwrap().load(&options).unwrap()
}

/// Tokens without sense, twice and a bit: the embedded model's induction heads go on with them.
fn repetitive_prompt() -> Vec<u32> {
    let once = [5, 90, 300, 412, 77, 650, 23, 144, 805, 61, 333];
    [&once[..], &once, &once[..3]].concat()
}

/// Random tokens that come again in pieces.
fn patchwork(vocabulary: usize) -> Vec<u32> {
    let mut random = Random(3);
    let once: Vec<u32> = (0..12).map(|_| random.token(vocabulary)).collect();
    [&once[..], &once[4..9], &once[..7], &once[2..]].concat()
}

fn speculating(options: &GenerationOptions, speculate: usize) -> GenerationOptions {
    GenerationOptions { speculate, ..options.clone() }
}

fn run(decoder: &Decoder, prompt: &[u32], options: &GenerationOptions) -> (Vec<Token>, Option<Acceptance>) {
    let mut session = Session::new(decoder, None, prompt, options.clone()).unwrap();
    let tokens = std::iter::from_fn(|| session.step(None).unwrap()).collect();
    (tokens, session.acceptance())
}

type Steps = Vec<(StepShape, Vec<Vec<f32>>)>;

fn captured(
    decoder: &Decoder,
    prompt: &[u32],
    options: &GenerationOptions,
) -> (Vec<Token>, Steps, Option<Acceptance>) {
    let mut session = Session::new(decoder, None, prompt, options.clone()).unwrap();
    let mut maps = KeepMaps::default();
    let tokens = std::iter::from_fn(|| session.step(Some(&mut maps)).unwrap()).collect();
    (tokens, maps.steps, session.acceptance())
}

#[test]
fn greedy_text_probabilities_and_maps_are_those_without() {
    let (mut rejected, mut checked) = (0, 0);
    let cases =
        ["llama", "mistral", "gemma2", "gpt2", "bloom", "mixtral", "llama3_scaled"].map(|name| (name, None));
    let quantised = [("llama", Some(ElementType::Q8_0)), ("mistral", Some(ElementType::Q4_0))];
    for (name, element) in cases.into_iter().chain(quantised) {
        let decoder = load(&fixture(name), KernelChoice::Native, element);
        let prompt = patchwork(decoder.config().vocabulary);
        let options = greedy_options(60);
        let (tokens, steps, none) = captured(&decoder, &prompt, &options);
        assert_eq!((tokens.len(), steps.len(), none), (60, 60, None));
        for most in [1, 4, 10, 64] {
            let what = format!("{name} {element:?}, {most} drafted");
            let (ours, our_steps, acceptance) = captured(&decoder, &prompt, &speculating(&options, most));
            assert_eq!(ours, tokens, "{what}");
            assert!(our_steps == steps, "{what}: maps differ");
            let acceptance = acceptance.unwrap();
            assert_eq!(acceptance.tokens, 59, "{what}");
            // Every pass gives one token and those accepted: nothing was drafted beyond the end.
            assert_eq!(acceptance.passes + acceptance.accepted, 59, "{what}");
            assert!(acceptance.accepted > 0, "{what}: {acceptance:?}");
            assert_eq!(run(&decoder, &prompt, &speculating(&options, most)), (ours, Some(acceptance)));
            rejected += acceptance.drafted - acceptance.accepted;
            checked += 1;
        }
    }
    assert!(checked == 36 && rejected > 100, "{rejected} rejected");
}

#[test]
fn narrow_caches_forget_a_draft_too() {
    for cache in [CacheType::F16, CacheType::Q8_0] {
        let options = LoadOptions { cache, threads: 2, ..LoadOptions::default() };
        let decoder = Checkpoint::open(&fixture("llama")).unwrap().load(&options).unwrap();
        let prompt = patchwork(decoder.config().vocabulary);
        let (tokens, steps, _) = captured(&decoder, &prompt, &greedy_options(60));
        let (ours, our_steps, acceptance) =
            captured(&decoder, &prompt, &speculating(&greedy_options(60), 10));
        assert_eq!(ours, tokens, "{cache:?}");
        assert!(our_steps == steps, "{cache:?}: maps differ");
        let Acceptance { accepted, drafted, .. } = acceptance.unwrap();
        assert!(accepted > 0 && accepted < drafted, "{accepted} of {drafted}");
    }
}

#[test]
fn what_the_embedded_model_repeats_takes_few_passes() {
    let prompt = repetitive_prompt();
    let decoder = embedded(KernelChoice::Native);
    let options = greedy_options(64);
    let (tokens, steps, _) = captured(&decoder, &prompt, &options);
    let (ours, our_steps, acceptance) = captured(&decoder, &prompt, &speculating(&options, 10));
    assert_eq!(ours, tokens);
    assert!(our_steps == steps, "maps differ");
    let acceptance = acceptance.unwrap();
    println!("{acceptance:?}");
    assert!(acceptance.tokens_per_pass() > 2.0, "{acceptance:?}");
}

#[test]
fn the_reference_gives_the_same_text_too() {
    // candle's products round differently for several tokens together.
    let cases = [
        (embedded(KernelChoice::Reference), repetitive_prompt()),
        (load(&fixture("mistral"), KernelChoice::Reference, None), patchwork(256)),
    ];
    for (decoder, prompt) in cases {
        let options = greedy_options(40);
        let (tokens, steps, _) = captured(&decoder, &prompt, &options);
        let (ours, our_steps, acceptance) = captured(&decoder, &prompt, &speculating(&options, 10));
        assert!(acceptance.unwrap().accepted > 0);
        assert_eq!(ours.len(), tokens.len());
        for (ours, theirs) in ours.iter().zip(&tokens) {
            assert_eq!(ours.id, theirs.id);
            assert!((ours.log_probability - theirs.log_probability).abs() < 1e-4);
        }
        assert_eq!(our_steps.len(), steps.len());
        for ((shape, maps), (their_shape, their_maps)) in our_steps.iter().zip(&steps) {
            assert_eq!(shape, their_shape);
            for (ours, theirs) in maps.iter().zip(their_maps) {
                assert_close(ours, theirs, MAPS, "maps");
            }
        }
    }
}

#[test]
fn a_seed_gives_the_same_text() {
    let decoder = embedded(KernelChoice::Native);
    let (mut accepted, mut drafted) = (0, 0);
    for seed in 0..20 {
        let sampling = Sampling {
            temperature: 2.0,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.01,
            repeat_penalty: 1.05,
            repeat_last_n: Some(20),
            seed,
        };
        let options = GenerationOptions { sampling, ..greedy_options(40) };
        let (tokens, _) = run(&decoder, &repetitive_prompt(), &options);
        let (ours, acceptance) = run(&decoder, &repetitive_prompt(), &speculating(&options, 6));
        assert_eq!(ours, tokens);
        accepted += acceptance.unwrap().accepted;
        drafted += acceptance.unwrap().drafted;
    }
    assert!(accepted > 50 && drafted - accepted > 50, "{accepted} of {drafted}");
}

/// Probabilities of the two likeliest tokens after a penalty and a temperature, computed here.
fn two_likeliest(logits: &[f32], history: &[u32], penalty: f64, temperature: f64) -> [(u32, f64); 2] {
    let mut scores: Vec<(u32, f64)> = (0..).zip(logits).map(|(id, logit)| (id, f64::from(*logit))).collect();
    for (id, score) in &mut scores {
        if history.contains(id) {
            *score = if *score < 0.0 { *score * penalty } else { *score / penalty };
        }
    }
    scores.sort_by(|a, b| b.1.total_cmp(&a.1));
    let ratio = ((scores[1].1 - scores[0].1) / temperature).exp();
    [(scores[0].0, 1.0 / (1.0 + ratio)), (scores[1].0, ratio / (1.0 + ratio))]
}

#[test]
fn sampled_texts_are_as_frequent_as_the_model_says() {
    const TOKENS: usize = 5;
    const RUNS: u64 = 3000;
    let (penalty, temperature) = (1.1, 1.5);
    let decoder = embedded(KernelChoice::Native);
    let prompt = repetitive_prompt();
    // Every text of so many tokens, with its probability.
    let mut expected: HashMap<Vec<u32>, f64> = HashMap::from([(vec![], 1.0)]);
    for _ in 0..TOKENS {
        let mut longer = HashMap::new();
        for (text, probability) in expected {
            let history = [&prompt[..], &text].concat();
            let mut cache = decoder.new_cache(history.len()).unwrap();
            let logits = decoder.forward(&history, &mut cache, Forward::default()).unwrap();
            let logits = logits.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            for (id, share) in two_likeliest(&logits, &history, penalty, temperature) {
                longer.insert([&text[..], &[id]].concat(), probability * share);
            }
        }
        expected = longer;
    }
    assert_eq!(expected.len(), 1 << TOKENS);

    let mut counts: HashMap<Vec<u32>, f64> = HashMap::new();
    let (mut accepted, mut drafted) = (0, 0);
    for seed in 0..RUNS {
        let sampling =
            Sampling { temperature, top_k: 2, repeat_penalty: penalty, seed, ..Sampling::greedy() };
        let options = GenerationOptions { sampling, speculate: 4, ..greedy_options(TOKENS) };
        let (tokens, acceptance) = run(&decoder, &prompt, &options);
        *counts.entry(tokens.iter().map(|token| token.id).collect()).or_default() += 1.0;
        accepted += acceptance.unwrap().accepted;
        drafted += acceptance.unwrap().drafted;
    }
    assert!(accepted > 1000 && drafted - accepted > 500, "{accepted} of {drafted}");

    // Pearson's χ², with texts that are expected less than 5 times taken together.
    let (mut statistic, mut cells, mut rare) = (0.0, 0, (0.0, 0.0));
    for (text, probability) in &expected {
        let (count, expected) = (counts.remove(text).unwrap_or(0.0), probability * RUNS as f64);
        if expected < 5.0 {
            rare = (rare.0 + count, rare.1 + expected);
        } else {
            statistic += (count - expected).powi(2) / expected;
            cells += 1;
        }
    }
    assert!(counts.is_empty(), "texts that cannot be: {counts:?}");
    if rare.1 >= 5.0 {
        statistic += (rare.0 - rare.1).powi(2) / rare.1;
        cells += 1;
    }
    let freedom = f64::from(cells - 1);
    println!("χ² {statistic:.1} with {freedom} degrees of freedom; {accepted} of {drafted} accepted");
    assert!(cells > 8);
    // The value that chance passes once in a thousand (Wilson and Hilferty 1931).
    let bound = freedom * (1.0 - 2.0 / (9.0 * freedom) + 3.09 * (2.0 / (9.0 * freedom)).sqrt()).powi(3);
    assert!(statistic < bound, "χ² is {statistic}, the bound {bound}");
}

#[test]
fn it_ends_where_it_would_end_without() {
    let decoder = embedded(KernelChoice::Native);
    let prompt = repetitive_prompt();
    let (all, _) = run(&decoder, &prompt, &greedy_options(40));
    let mut ends = vec![];
    for (count, token) in all.iter().enumerate().skip(1).take(30) {
        ends.push((greedy_options(count), Finish::MaxNewTokens));
        let context = Some(prompt.len() + count);
        ends.push((GenerationOptions { context, ..greedy_options(40) }, Finish::ContextFull));
        let end_tokens = vec![token.id];
        ends.push((GenerationOptions { end_tokens, ..greedy_options(40) }, Finish::EndToken));
    }
    for (options, finish) in ends {
        let (tokens, _) = run(&decoder, &prompt, &options);
        assert_eq!(tokens.last().unwrap().finish, Some(finish));
        let (ours, acceptance) = run(&decoder, &prompt, &speculating(&options, 10));
        assert_eq!(ours, tokens, "{options:?}");
        let acceptance = acceptance.unwrap();
        assert_eq!(acceptance.tokens, tokens.len() - 1);
        assert!(acceptance.drafted < options.max_new_tokens.max(1), "{acceptance:?} {options:?}");
    }
}

#[test]
fn a_stop_text_within_a_draft_ends_the_text_there() {
    let checkpoint = Checkpoint::embedded().unwrap();
    let decoder = embedded(KernelChoice::Native);
    let run = |stop: &str, speculate| {
        let options = GenerationOptions { stop: vec![stop.into()], speculate, ..greedy_options(30) };
        let tokenizer = checkpoint.tokenizer().ok();
        let mut session = Session::new(&decoder, tokenizer, &repetitive_prompt(), options).unwrap();
        let tokens: Vec<Token> = std::iter::from_fn(|| session.step(None).unwrap()).collect();
        (tokens, session.acceptance().map_or(0, |acceptance| acceptance.accepted))
    };
    let text: Vec<char> = run("", 0).0.iter().flat_map(|token| token.text.chars()).collect::<Vec<_>>();
    let mut all_accepted = 0;
    for start in 0..20 {
        for length in 1..5 {
            let stop: String = text[start..start + length].iter().collect();
            let (tokens, _) = run(&stop, 0);
            assert_eq!(tokens.last().unwrap().finish, Some(Finish::StopText), "{stop:?}");
            let (ours, accepted) = run(&stop, 10);
            assert_eq!(ours, tokens, "{stop:?}");
            all_accepted += accepted;
        }
    }
    assert!(all_accepted > 100, "{all_accepted}");
}

#[test]
fn an_interrupt_ends_it_after_the_token_at_hand() {
    let decoder = embedded(KernelChoice::Native);
    for steps in 1..12 {
        let interrupt = Arc::new(AtomicBool::new(false));
        let options = GenerationOptions { interrupt: interrupt.clone(), speculate: 10, ..greedy_options(40) };
        let mut session = Session::new(&decoder, None, &repetitive_prompt(), options).unwrap();
        for _ in 0..steps {
            assert!(session.step(None).unwrap().is_some());
        }
        interrupt.store(true, Ordering::Relaxed);
        assert_eq!(session.step(None).unwrap().unwrap().finish, Some(Finish::Interrupted));
        assert!(session.step(None).unwrap().is_none());
        assert_eq!(session.generated().len(), steps + 1);
    }
}

#[test]
fn observers_may_come_and_go_and_fail() {
    /// Keeps one layer, and fails when it has kept so many steps.
    struct Choosy {
        layer: usize,
        maps: KeepMaps,
        left: usize,
    }
    impl AttentionObserver for Choosy {
        fn wants(&self, layer: usize) -> bool {
            layer == self.layer
        }
        fn begin_step(&mut self, step: StepShape) -> Result<()> {
            self.maps.begin_step(step)
        }
        fn observe(&mut self, rows: AttentionRows<'_>) -> Result<()> {
            assert_eq!(rows.layer, self.layer);
            // `KeepMaps` numbers the layers that it sees.
            self.maps.observe(AttentionRows { layer: 0, ..rows })
        }
        fn end_step(&mut self) -> Result<()> {
            self.left = self.left.checked_sub(1).ok_or_else(|| Error::Usage("full".into()))?;
            Ok(())
        }
    }

    let decoder = embedded(KernelChoice::Native);
    let prompt = repetitive_prompt();
    let (tokens, steps, _) = captured(&decoder, &prompt, &greedy_options(40));
    let options = speculating(&greedy_options(40), 10);
    // By turns: nobody, two steps with one layer, one step with another.
    let mut session = Session::new(&decoder, None, &prompt, options.clone()).unwrap();
    for (number, token) in tokens.iter().enumerate() {
        let layer = [None, Some(1), Some(1), Some(0)][number % 4];
        let mut observer = layer.map(|layer| Choosy { layer, maps: KeepMaps::default(), left: usize::MAX });
        let ours = session.step(observer.as_mut().map(|observer| observer as _)).unwrap().unwrap();
        assert_eq!(ours, *token);
        if let (Some(observer), Some(layer)) = (observer, layer) {
            let (shape, maps) = &steps[number];
            assert!(observer.maps.steps == [(*shape, vec![maps[layer].clone()])], "step {number}");
        }
    }
    assert!(session.acceptance().unwrap().accepted > 0);
    // After an observer's error the step can be tried again.
    let mut session = Session::new(&decoder, None, &prompt, options).unwrap();
    let mut observer = Choosy { layer: 1, maps: KeepMaps::default(), left: 1 };
    for (number, token) in tokens.iter().enumerate() {
        if number > 0 {
            let error = session.step(Some(&mut observer)).unwrap_err();
            assert_eq!(error.to_string(), "full");
            observer.left = 1;
        }
        assert_eq!(session.step(Some(&mut observer)).unwrap().as_ref(), Some(token));
    }
    assert!(session.acceptance().unwrap().accepted > 0);
}

#[test]
fn a_drafted_token_that_cannot_be_computed_fails_nothing_before_it_is_reached() {
    // A model whose position 50 is damaged.
    let folder = copy_of(&fixture("gpt2"));
    let path = folder.path().join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let place = {
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let (_, table) = tensors.iter().find(|(name, _)| name.ends_with("wpe.weight")).unwrap();
        let row = table.data().len() / table.shape()[0];
        table.data().as_ptr() as usize - bytes.as_ptr() as usize + 50 * row
    };
    bytes[place..place + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let decoder = load(folder.path(), KernelChoice::Native, None);
    let prompt = patchwork(decoder.config().vocabulary);
    let until_failure = |speculate| {
        let options = GenerationOptions { speculate, ..greedy_options(60) };
        let mut session = Session::new(&decoder, None, &prompt, options).unwrap();
        let mut tokens = vec![];
        loop {
            match session.step(None) {
                Ok(token) => tokens.push(token.unwrap()),
                Err(error) => return (tokens, error.to_string(), session.acceptance()),
            }
        }
    };
    let (tokens, error, _) = until_failure(0);
    assert_eq!(prompt.len() + tokens.len(), 51);
    assert!(error.contains("positions 50 to 50"), "{error}");
    let (ours, our_error, acceptance) = until_failure(10);
    assert_eq!((ours, our_error), (tokens, error));
    assert!(acceptance.unwrap().accepted > 0);
}

#[test]
fn nothing_is_drafted_where_positions_depend_on_the_length() {
    for name in ["phi3_longrope", "llama_dynamic"] {
        let decoder = load(&fixture(name), KernelChoice::Native, None);
        let prompt = patchwork(decoder.config().vocabulary);
        let options = greedy_options(40);
        let (tokens, _) = run(&decoder, &prompt, &options);
        assert_eq!(run(&decoder, &prompt, &speculating(&options, 10)), (tokens, None), "{name}");
    }
}

/// Every file of a folder, by name.
fn files(folder: &Path) -> HashMap<String, Vec<u8>> {
    let mut files = HashMap::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            files.extend(
                self::files(&entry.path()).into_iter().map(|(n, bytes)| (format!("{name}/{n}"), bytes)),
            );
        } else {
            files.insert(name, fs::read(entry.path()).unwrap());
        }
    }
    files
}

#[test]
fn the_command_prints_the_same_text_and_writes_the_same_dump() {
    let folder = tempfile::tempdir().unwrap();
    let (plain, ours) = (join(&folder, "plain"), join(&folder, "ours"));
    let text = "The little dog ran. The little dog sat. The little";
    for sampling in [["--temp", "0"], ["--temp", "0.8"]] {
        let generate = |dump: &Path, more: &[&str]| {
            let args = ["generate", text, "-n", "50", "--json", "--seed", "4", "--overwrite", "--attention"];
            let output = program::run(&[&args[..], &[arg(dump)], &sampling, more].concat());
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            (output.stdout, String::from_utf8(output.stderr).unwrap())
        };
        let (expected, quiet) = generate(&plain, &[]);
        assert!(!quiet.contains("speculation"), "{quiet}");
        for speculate in ["--speculate", "--speculate=3"] {
            let (out, summary) = generate(&ours, &[speculate]);
            assert_eq!(out, expected);
            assert!(files(&ours) == files(&plain), "the dumps differ");
            let line = summary.lines().find(|line| line.starts_with("speculation: ")).unwrap();
            let accepted = line.split(' ').nth(1).unwrap().parse::<usize>().unwrap();
            assert!(accepted > 0 && line.ends_with(" tokens a pass"), "{line}");
        }
    }
    assert_eq!(files(&plain).len(), 3 + 50);
    for wrong in ["--speculate=0", "--speculate=65", "--speculate=x"] {
        failure(&program::run(&["generate", "Hello", wrong]), 2);
    }
    // The number belongs to the option only with =: this is a prompt.
    assert!(program::run(&["generate", "-n", "2", "--speculate", "3"]).status.success());
    let model = fixture("llama_dynamic");
    let output =
        program::run(&["generate", "-m", arg(&model), "--prompt-ids", "1,2", "-n", "2", "--speculate"]);
    let warned = String::from_utf8(output.stderr).unwrap();
    assert!(warned.contains("--speculate is off") && !warned.contains("speculation:"), "{warned}");
}

#[test]
fn bench_shows_acceptance_and_gain_on_a_text() {
    let folder = tempfile::tempdir().unwrap();
    let file = join(&folder, "story.txt");
    fs::write(&file, "The little dog ran. The little dog sat. The little").unwrap();
    let bench = ["bench", "-p", "0", "-n", "24,40", "-r", "2", "--no-capture"];
    let args = [&bench[..], &["--speculate=8", "-f", arg(&file)]].concat();
    let rows: Vec<serde_json::Value> =
        serde_json::from_str(&stdout(&[&args[..], &["-o", "json"]].concat())).unwrap();
    let tests: Vec<&str> = rows.iter().map(|row| row["test"].as_str().unwrap()).collect();
    let on_text = ["tg24 @ story.txt", "tg24 @ story.txt, speculating"];
    assert_eq!(tests[..4], [&["tg24", "tg40"], &on_text[..]].concat());
    assert_eq!(rows.len(), 6);
    for (row, tokens) in [(&rows[3], 24), (&rows[5], 40)] {
        let number = |key: &str| row["speculation"][key].as_u64().unwrap();
        assert_eq!((number("tokens"), number("passes") + number("accepted")), (tokens, tokens));
        assert!(number("accepted") > 0 && number("accepted") <= number("drafted"));
        assert!(row["speculation"]["gain"].as_f64().unwrap() > 0.0);
        assert_eq!(row["tokens_per_second"]["samples"].as_array().unwrap().len(), 2);
    }
    // Fewer passes read fewer bytes for a token.
    let bytes = |row: usize| rows[row]["bytes_per_token"].as_f64().unwrap();
    let passes = rows[5]["speculation"]["passes"].as_f64().unwrap();
    assert!((bytes(5) - bytes(4) * passes / 40.0).abs() <= 1.0);
    assert!(rows[..3].iter().all(|row| row["speculation"].is_null()));
    let table = stdout(&args);
    assert!(table.contains("tg40 @ story.txt, speculating: speculation: "), "{table}");
    assert!(table.contains(" times as fast"), "{table}");
    let csv = stdout(&[&args[..], &["-o", "csv"]].concat());
    let columns: Vec<usize> = csv.lines().map(|line| line.split(',').count()).collect();
    assert!(
        columns.len() == 7 && csv.lines().next().unwrap().contains(",passes,drafted,accepted,gain,"),
        "{csv}"
    );

    failure(&program::run(&["bench", "-f", arg(&file)]), 2);
    assert!(failure(&program::run(&["bench", "--speculate"]), 2).contains("-f FILE"));
    let none = ["bench", "-n", "0", "--speculate", "-f", arg(&file)];
    assert!(failure(&program::run(&none), 2).contains("-n above 0"));
    let long = ["bench", "-p", "0", "-n", "1020", "--speculate", "-f", arg(&file)];
    assert!(failure(&program::run(&long), 2).contains("do not fit"));
    let model = fixture("llama_dynamic");
    let dynamic = ["bench", "-m", arg(&model), "--speculate", "-p", "8", "-n", "8", "-f", arg(&file)];
    assert!(failure(&program::run(&dynamic), 2).contains("depend on the text's length"));
}
