//! Prompts kept in files: generating from a restored prompt is generating from a prompt that was
//! read, and no file of another model, no damaged one and no other file is taken for one.

mod common;
#[path = "common/program.rs"]
mod program;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use attend::capture::Dump;
use attend::generation::prompt_cache::{Identity, PromptCache};
use attend::generation::sampler::log_probability;
use attend::generation::{GenerationOptions, Sampler, Sampling, Session};
use attend::kernels::cache::CacheType;
use attend::model::{Decoder, Forward, KernelChoice};
use attend::{Checkpoint, Error, LoadOptions};
use common::{fixture, greedy_options};
use program::*;
use safetensors::SafeTensors;

const KERNELS: [KernelChoice; 2] = [KernelChoice::Native, KernelChoice::Reference];

/// A model, and whose prompt caches it takes.
struct Model {
    decoder: Decoder,
    identity: Identity,
}

impl Model {
    fn load(name: &str, kernels: KernelChoice, cache: CacheType, threads: usize) -> Model {
        let checkpoint = Checkpoint::open(&fixture(name)).unwrap();
        let options = LoadOptions { kernels, cache, threads, ..LoadOptions::default() };
        let decoder = checkpoint.load(&options).unwrap();
        let identity = Identity::new(&checkpoint, &decoder, None).unwrap();
        Model { decoder, identity }
    }

    fn open(&self, path: &Path) -> Result<PromptCache, Error> {
        PromptCache::open(path, &self.decoder, self.identity.clone())
    }

    /// Eight tokens and their log-probabilities, with the file if there is one; how much of the prompt
    /// it held, and whether it was written.
    fn generate(
        &self,
        prompt: &[u32],
        context: usize,
        path: Option<&Path>,
    ) -> (Vec<(u32, f64)>, usize, bool) {
        let options = GenerationOptions { context: Some(context), ..greedy_options(8) };
        let mut session = Session::new(&self.decoder, None, prompt, options).unwrap();
        let (mut tokens, mut restored, mut written) = (vec![], 0, false);
        let mut file = path.map(|path| self.open(path).unwrap());
        if let Some(file) = &file {
            restored = session.restore(file).unwrap();
        }
        while let Some(token) = session.step(None).unwrap() {
            tokens.push((token.id, token.log_probability));
            if let Some(file) = file.take() {
                written = session.save(file).unwrap().is_some();
            }
        }
        (tokens, restored, written)
    }

    /// The same from a cache in memory that has read these pieces and forgets all but `kept` tokens.
    fn continued(&self, pieces: &[Vec<u32>], prompt: &[u32], kept: usize) -> Vec<(u32, f64)> {
        let mut cache = self.decoder.new_cache(120).unwrap();
        for piece in pieces {
            self.decoder.forward(piece, &mut cache, Forward::default()).unwrap();
        }
        cache.truncate(kept);
        let (mut fed, mut tokens) = (prompt[kept..].to_vec(), vec![]);
        let mut sampler = Sampler::new(Sampling::greedy());
        for _ in 0..8 {
            let logits = self.decoder.forward(&fed, &mut cache, Forward::default()).unwrap();
            let logits = logits.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let id = sampler.sample(&logits, &[]);
            tokens.push((id, log_probability(&logits, id)));
            fed = vec![id];
        }
        tokens
    }

    /// What goes wrong with a file, or how much of the prompt it gives.
    fn restore(&self, prompt: &[u32], path: &Path) -> Result<usize, Error> {
        let file = self.open(path)?;
        Session::new(&self.decoder, None, prompt, greedy_options(1)).unwrap().restore(&file)
    }
}

fn prompt(len: u32) -> Vec<u32> {
    (0..len).map(|position| (position * 37 + 11) % 256).collect()
}

#[test]
fn a_restored_prompt_continues_as_one_that_was_read() {
    let folder = tempfile::tempdir().unwrap();
    for kernels in KERNELS {
        for cache in [CacheType::F32, CacheType::F16, CacheType::Q8_0] {
            // Full and windowed attention; heads that fill no block; two kinds of positions; experts; ALiBi.
            for name in ["llama", "mistral", "gemma3_text", "qwen2_moe", "bloom"] {
                let what = format!("{name} {kernels:?} {cache:?}");
                let path = join(&folder, &what);
                let one_thread = Model::load(name, kernels, cache, 1);
                let two_threads = Model::load(name, kernels, cache, 2);
                // Another capacity each time.
                let (_, restored, written) = one_thread.generate(&prompt(40), 57, Some(&path));
                assert_eq!((restored, written), (0, true), "{what}");
                // How what the file holds was read.
                let mut pieces = vec![prompt(40)];
                let other = [&prompt(33), &[5, 6, 7][..]].concat();
                for (ids, context, expected) in [
                    (prompt(40), 100, (39, false)),
                    (prompt(21), 29, (20, false)),
                    (other, 44, (33, false)),
                    (prompt(45), 64, (40, true)),
                    (prompt(45), 53, (44, false)),
                ] {
                    let (tokens, restored, written) = two_threads.generate(&ids, context, Some(&path));
                    assert_eq!((restored, written), expected, "{what}, {} tokens", ids.len());
                    let in_memory = one_thread.continued(&pieces, &ids, restored);
                    assert_eq!(tokens, in_memory, "{what}, {} tokens", ids.len());
                    if kernels == KernelChoice::Native {
                        // candle's sums depend on how a prompt is split, ours do not.
                        let (plain, ..) = one_thread.generate(&ids, context, None);
                        assert_eq!(tokens, plain, "{what}, {} tokens", ids.len());
                    }
                    if written {
                        pieces.push(ids[restored..].to_vec());
                    }
                }
            }
        }
    }
}

#[test]
fn a_restored_prompt_can_be_speculated_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = join(&folder, "prompt");
    let model = Model::load("llama", KernelChoice::Native, CacheType::F32, 2);
    model.generate(&prompt(20), 60, Some(&path));
    let options = GenerationOptions { speculate: 4, ..greedy_options(40) };
    let ids = prompt(24);
    let [mut plain, mut restored] =
        [0, 1].map(|_| Session::new(&model.decoder, None, &ids, options.clone()).unwrap());
    assert_eq!(restored.restore(&model.open(&path).unwrap()).unwrap(), 20);
    while let Some(token) = plain.step(None).unwrap() {
        assert_eq!(restored.step(None).unwrap(), Some(token));
    }
    assert!(plain.acceptance().unwrap().accepted > 0);
    assert_eq!(restored.acceptance(), plain.acceptance());
    // However far the text has come, what is saved is the prompt.
    assert!(restored.save(model.open(&path).unwrap()).unwrap().is_some());
    assert_eq!(model.generate(&ids, 60, Some(&path)).1, 23);
}

#[test]
fn positions_that_depend_on_the_length_are_restored_only_where_they_are_the_same() {
    // Both were first trained on 16 positions; (saved, then read, so much of it from the file).
    let cases = [
        // One list of angles up to there, one beyond.
        ("phi3_longrope", [(10, 14, 10), (10, 20, 0), (20, 12, 0), (20, 17, 16), (17, 30, 17)]),
        // Beyond, every length has its own.
        ("llama_dynamic", [(10, 14, 10), (10, 20, 0), (20, 12, 0), (20, 30, 0), (20, 20, 19)]),
    ];
    for (name, cases) in cases {
        for cache in [CacheType::F32, CacheType::Q8_0] {
            let model = Model::load(name, KernelChoice::Native, cache, 2);
            for (saved, read, expected) in cases {
                let folder = tempfile::tempdir().unwrap();
                let path = join(&folder, "prompt");
                model.generate(&prompt(saved), 40, Some(&path));
                let (tokens, restored, _) = model.generate(&prompt(read), 40, Some(&path));
                assert_eq!(restored, expected, "{name}: {saved}, then {read}");
                // Eight more tokens, across the border too.
                assert_eq!(tokens, model.generate(&prompt(read), 40, None).0, "{name}: {saved}, then {read}");
            }
        }
    }
}

#[test]
fn the_file_is_a_safetensors_file_of_the_values_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut keys = vec![];
    for kernels in KERNELS {
        let path = join(&folder, &format!("{kernels:?}"));
        let model = Model::load("llama", kernels, CacheType::F32, 2);
        model.generate(&prompt(40), 64, Some(&path));
        let bytes = fs::read(&path).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let config = model.decoder.config();
        assert_eq!(tensors.len(), 2 * config.layers + 2);
        let tokens: Vec<u8> = prompt(40).iter().flat_map(|id| id.to_le_bytes()).collect();
        assert_eq!(tensors.tensor("tokens").unwrap().data(), tokens);
        for layer in 0..config.layers {
            for part in ["keys", "values"] {
                let tensor = tensors.tensor(&format!("layer.{layer}.{part}")).unwrap();
                assert_eq!(tensor.shape(), [config.kv_heads, 40, config.head_dim]);
                let values = tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
                keys.push(values.collect::<Vec<f32>>());
            }
        }
    }
    // candle's tensors have this order of themselves.
    let (ours, theirs) = keys.split_at(keys.len() / 2);
    for (ours, theirs) in ours.iter().zip(theirs) {
        common::assert_close(ours, theirs, 2e-5, "against candle");
    }
}

#[test]
fn no_damage_goes_unnoticed() {
    let folder = tempfile::tempdir().unwrap();
    let (path, damaged) = (join(&folder, "prompt"), join(&folder, "damaged"));
    for (kernels, cache) in
        [(KernelChoice::Native, CacheType::Q8_0), (KernelChoice::Reference, CacheType::F16)]
    {
        let _ = fs::remove_file(&path);
        let model = Model::load("llama", kernels, cache, 1);
        model.generate(&prompt(6), 20, Some(&path));
        let good = fs::read(&path).unwrap();
        assert_eq!(model.restore(&prompt(6), &path).unwrap(), 5);
        let refused = |bytes: &[u8], what: String| {
            fs::write(&damaged, bytes).unwrap();
            match model.restore(&prompt(6), &damaged) {
                Err(Error::PromptCache { problem, .. }) => assert!(!problem.is_empty()),
                other => panic!("{what}: {other:?}"),
            }
        };
        for len in (0..good.len()).step_by(13) {
            refused(&good[..len], format!("{len} bytes"));
        }
        refused(&[&good[..], &[0]].concat(), "a byte too many".into());
        let header = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
        // All of the header and the tokens (but the first: no token in common, nothing restored).
        let places = (0..header).chain(header + 4..header + 24);
        for at in places.chain((header + 24..good.len()).step_by(29)).chain([good.len() - 1]) {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            refused(&bytes, format!("byte {at} of {}", good.len()));
        }
        let mut bytes = good.clone();
        bytes[header] ^= 1;
        fs::write(&damaged, &bytes).unwrap();
        assert_eq!(model.restore(&prompt(6), &damaged).unwrap(), 0);
    }
}

const IDS: &str = "1,2,3,4,5,6,7,8,9,10";

fn with_file(model: &Path, path: &Path, more: &[&str]) -> std::process::Output {
    let args = ["generate", "-m", arg(model), "--prompt-ids", IDS, "-n", "5", "--temp", "0"];
    attend().args(args).args(["--prompt-cache", arg(path)]).args(more).output().unwrap()
}

fn succeeds(output: std::process::Output) -> (String, String) {
    let [stdout, stderr] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{stderr}");
    (stdout, stderr)
}

#[cfg(unix)]
#[test]
fn what_belongs_to_something_else_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = join(&folder, "prompt");
    let model = copy_of(&fixture("llama"));
    succeeds(with_file(model.path(), &path, &[]));
    let good = fs::read(&path).unwrap();
    let refused = |output: &std::process::Output, word: &str, bytes: &[u8]| {
        let message = failure(output, 1);
        assert!(message.contains(word) && message.contains(arg(&path)), "{word}: {message}");
        assert!(fs::read(&path).unwrap() == bytes, "{word}: the file was changed");
    };
    for (more, word) in [
        (&["--dtype", "bf16"][..], "of f32 there, "),
        (&["--cache-dtype", "f16"], "the cache's type: f32 there, f16 here"),
        (&["--kernels", "reference"], ", candle here"),
    ] {
        refused(&with_file(model.path(), &path, more), word, &good);
    }
    // Another order of the same sums.
    for isa in attend::kernels::Isa::available() {
        let mut command = attend();
        command.env("ATTEND_ISA", isa.name()).args([
            "generate",
            "-m",
            arg(model.path()),
            "--prompt-ids",
            IDS,
        ]);
        let output = command.args(["-n", "1", "--prompt-cache", arg(&path)]).output().unwrap();
        match attend::kernels::Isa::detect().unwrap() == isa {
            true => assert!(succeeds(output).1.contains("9 of 10 tokens restored")),
            false => refused(&output, &format!(", {} here", isa.name()), &good),
        }
    }
    // The same config with one other weight: a fine-tuned model.
    let weights = model.path().join("model.safetensors");
    let original = fs::read(&weights).unwrap();
    let mut tuned = original.clone();
    let middle = tuned.len() / 2;
    tuned[middle] ^= 1;
    fs::write(&weights, &tuned).unwrap();
    refused(&with_file(model.path(), &path, &[]), "the weights' SHA-256: ", &good);
    fs::write(&weights, &original).unwrap();
    refused(&with_file(&fixture("mistral"), &path, &[]), "the config's SHA-256: ", &good);

    let text = |from: &str, to: &str| {
        let at = good.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        [&good[..at], to.as_bytes(), &good[at + from.len()..]].concat()
    };
    for (bytes, word) in [
        (text("\"version\":\"1\"", "\"version\":\"7\""), "its version is 7, and this program reads 1"),
        (text("attend 0.", "attend 9."), "the program: attend 9."),
        (original, "is no prompt cache"),
        (b"my diary".to_vec(), "is no prompt cache"),
        (vec![], "is no prompt cache"),
        (good[..good.len() - 1].to_vec(), "is not whole"),
    ] {
        fs::write(&path, &bytes).unwrap();
        refused(&with_file(model.path(), &path, &[]), word, &bytes);
    }
    let message = failure(&with_file(model.path(), folder.path(), &[]), 1);
    assert!(message.contains("is no regular file"), "{message}");
    let pipe = join(&model, "pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let message = failure(&with_file(model.path(), &pipe, &[]), 1);
    assert!(message.contains("is no regular file"), "{message}");
    let names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["prompt"], "something is left over");
}

#[test]
fn a_prompt_whose_attention_is_recorded_is_read_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (path, dump) = (join(&folder, "prompt"), join(&folder, "dump"));
    let model = fixture("llama");
    let (text, message) = succeeds(with_file(&model, &path, &[]));
    assert!(message.contains("0 of 10 tokens restored") && message.contains("is saved"), "{message}");
    let (again, message) = succeeds(with_file(&model, &path, &[]));
    assert!(message.contains("9 of 10 tokens restored") && !message.contains("is saved"), "{message}");
    assert!(message.contains("prompt: 1 token,"), "{message}");
    assert_eq!(again, text);
    let (recorded, message) = succeeds(with_file(&model, &path, &["--attention", arg(&dump)]));
    assert_eq!(recorded, text);
    assert!(message.contains("the whole prompt is read"), "{message}");
    let dump = Dump::open(&dump).unwrap();
    assert_eq!((dump.steps().len(), dump.steps()[0].queries), (5, 10));
}

#[test]
fn a_place_that_cannot_be_written_is_told_before_the_prompt_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let missing = join(&folder, "none");
    // In /proc nobody makes a file.
    for place in [&missing, Path::new("/proc")] {
        let output = with_file(&fixture("llama"), &place.join("prompt"), &[]);
        let message = failure(&output, 1);
        assert!(message.contains("cannot create") && message.contains(arg(place)), "{message}");
        assert!(output.stdout.is_empty());
    }
}

/// A file-size limit stands for a full disk.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = join(&folder, "prompt");
    succeeds(with_file(&fixture("llama"), &path, &[]));
    let old = fs::read(&path).unwrap();
    let longer = (1..60).map(|id| id.to_string()).collect::<Vec<_>>().join(",");
    let limit = (old.len() / 1024 + 2).to_string();
    let output = Command::new("bash")
        .args(["-c", "trap '' XFSZ; ulimit -f $0; exec \"$@\"", &limit, env!("CARGO_BIN_EXE_attend")])
        .args(["generate", "-m", arg(&fixture("llama")), "--prompt-ids", &longer, "-n", "5"])
        .args(["--prompt-cache", arg(&path)])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let message = failure(&output, 1);
    assert!(message.contains("cannot write") && message.contains("make room"), "{message}");
    assert_eq!(fs::read(&path).unwrap(), old);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "a part is left over");
}

/// A run that is killed while it writes leaves the old file, or the new one whole.
#[cfg(unix)]
#[test]
fn a_killed_run_leaves_a_whole_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = join(&folder, "prompt");
    let model = fixture("llama");
    let longer = (0..120).map(|id| id.to_string()).collect::<Vec<_>>().join(",");
    let longer_into = |path: &Path| {
        let mut command = attend();
        command.args(["generate", "-m", arg(&model), "--prompt-ids", &longer, "-n", "8"]);
        command.args(["--prompt-cache", arg(path)]).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let new_path = join(&folder, "new");
    assert!(longer_into(&new_path).wait().unwrap().success());
    let new = fs::read(&new_path).unwrap();
    for _ in 0..10 {
        let _ = fs::remove_file(&path);
        succeeds(with_file(&model, &path, &[]));
        let old = fs::read(&path).unwrap();
        let mut child = longer_into(&path);
        let part = join(&folder, &format!(".prompt.{}.part", child.id()));
        let started = Instant::now();
        // Its first bytes are the header and the tokens.
        while fs::metadata(&part).map_or(0, |part| part.len()) == 0 && child.try_wait().unwrap().is_none() {
            assert!(started.elapsed() < Duration::from_secs(60), "nothing is saved");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let left = fs::read(&path).unwrap();
        assert!(left == old || left == new, "{} bytes", left.len());
        let (_, message) = succeeds(with_file(&model, &path, &[]));
        assert!(message.contains("tokens restored"), "{message}");
    }
}
