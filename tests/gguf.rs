//! GGUF files: the models and tokenizers in them against Transformers, sentencepiece and the gguf
//! package (`tests/fixtures/gguf/make.py` wrote the files and the answers), and damaged ones.

mod common;
#[path = "common/gguf.rs"]
mod gguf;
#[path = "common/program.rs"]
mod program;

use std::path::PathBuf;

use attend::Checkpoint;
use attend::generation::Session;
use attend::kernels::matmul::ElementType;
use attend::model::{Decoder, KernelChoice};
use common::*;
use gguf::{GgufWriter, Value, text};
use program::*;

/// Models whose folders are there too.
const PLAIN: [&str; 7] = ["llama", "llama_biased", "qwen2", "qwen3", "gemma", "phi3", "gpt2"];
/// Models with scaled angles.
const SCALED: [&str; 4] = ["llama3_scaled", "llama_yarn", "llama_linear", "phi3_longrope"];
const KERNELS: [KernelChoice; 2] = [KernelChoice::Native, KernelChoice::Reference];

fn part(folder: &str, file: &str) -> PathBuf {
    fixture("gguf").join(folder).join(file)
}

/// Logits of every token of a fixed prompt.
fn logits(decoder: &Decoder) -> Vec<f32> {
    let ids: Vec<u32> = (0..20).map(|i| i * 31 % decoder.config().vocabulary as u32).collect();
    common::logits(decoder, &ids, ids.len())
}

#[test]
fn an_f32_file_is_the_model_that_it_was_made_from_to_the_last_bit() {
    for name in PLAIN {
        for kernels in KERNELS {
            let ours = logits(&load(&part(name, "model.gguf"), kernels, None));
            let folder = logits(&load(&part(name, ""), kernels, None));
            assert!(ours.iter().all(|value| value.is_finite()), "{name}");
            assert_eq!(ours, folder, "{name} {kernels:?}");
        }
    }
}

#[test]
fn every_architecture_agrees_with_transformers() {
    for name in PLAIN.into_iter().chain(SCALED) {
        let reference = Reference::open(&part(name, "answers.safetensors"));
        for kernels in KERNELS {
            let decoder = load(&part(name, "model.gguf"), kernels, None);
            assert_prompt_agrees(&decoder, &reference, &format!("{name} {kernels:?}"));
            assert_steps_agree(&decoder, &reference, &format!("{name} {kernels:?}"));
        }
    }
}

#[test]
fn every_type_dequantised_agrees_with_transformers() {
    let reference = Reference::open(&part("mixed", "answers.safetensors"));
    for kernels in KERNELS {
        let decoder = load(&part("mixed", "model.gguf"), kernels, Some(ElementType::F32));
        assert_prompt_agrees(&decoder, &reference, &format!("{kernels:?}"));
        assert_steps_agree(&decoder, &reference, &format!("{kernels:?}"));
    }
}

#[test]
fn by_default_the_types_are_the_files_own() {
    let wide = logits(&load(&part("mixed", "model.gguf"), KernelChoice::Native, Some(ElementType::F32)));
    let own = load(&part("mixed", "model.gguf"), KernelChoice::Native, None);
    // q5_k and q6_k are rounded to q8_0, and so are activations that meet quantised weights: steps of
    // 1/127 of the largest of 32 values.
    assert_logits_close(&logits(&own), &wide, 0.04, "mixed");
    let checkpoint = Checkpoint::open(&part("mixed", "model.gguf")).unwrap();
    for matrix in checkpoint.held(None).unwrap() {
        let expands = matches!(matrix.found, ElementType::Q5K | ElementType::Q6K);
        assert_eq!(matrix.held, if expands { ElementType::Q8_0 } else { matrix.found }, "{matrix:?}");
    }
}

#[test]
fn info_tells_the_types_and_their_bytes() {
    let out = stdout(&["info", arg(&part("mixed", "model.gguf"))]);
    for word in [
        "tiny llama",
        "GGUF, Q4_K_M",
        "no kernel computes with q5_k; held as q8_0",
        "no kernel computes with q6_k; held as q8_0",
        "bf16 (65.5 kB)",
        "f16 (131.1 kB)",
        "q4_0 (55.3 kB)",
        "q4_1 (61.4 kB)",
        "q4_k (73.7 kB)",
        "q5_k (67.6 kB)",
        "q6_k (121.0 kB)",
        "q8_0 (156.7 kB)",
    ] {
        assert!(out.contains(word), "{word:?} is missing in: {out}");
    }
}

#[derive(serde::Deserialize)]
struct Tokenizers {
    texts: Vec<String>,
    byte_level: ByteLevel,
    llama: SentencePiece,
    gemma: SentencePiece,
}

#[derive(serde::Deserialize)]
struct ByteLevel {
    tokens: Vec<String>,
    token_type: Vec<i32>,
    merges: Vec<String>,
    /// By `tokenizer.ggml.pre`, one for each text.
    encodings: std::collections::BTreeMap<String, Vec<Vec<u32>>>,
}

#[derive(serde::Deserialize)]
struct SentencePiece {
    tokens: Vec<String>,
    token_type: Vec<i32>,
    scores: Vec<f32>,
    texts: Vec<String>,
    encodings: Vec<Vec<u32>>,
}

fn tokenizers() -> Tokenizers {
    serde_json::from_slice(&std::fs::read(part("", "tokenizers.json")).unwrap()).unwrap()
}

/// Opens a file with these bytes.
fn open(file: &GgufWriter) -> attend::Result<Checkpoint> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    std::fs::write(&path, file.bytes()).unwrap();
    Checkpoint::open(&path)
}

fn with_byte_level(pre: &str) -> GgufWriter {
    let made = tokenizers().byte_level;
    let mut file = GgufWriter::llama(made.tokens.len() as u64);
    file.set("tokenizer.ggml.model", text("gpt2"));
    file.set("tokenizer.ggml.pre", text(pre));
    file.set("tokenizer.ggml.tokens", Value::Texts(made.tokens));
    file.set("tokenizer.ggml.token_type", Value::I32s(made.token_type));
    file.set("tokenizer.ggml.merges", Value::Texts(made.merges));
    file.set("tokenizer.ggml.add_bos_token", Value::Flag(false));
    file
}

fn with_sentencepiece(made: &SentencePiece) -> GgufWriter {
    let mut file = GgufWriter::llama(made.tokens.len() as u64);
    file.set("tokenizer.ggml.model", text("llama"));
    file.set("tokenizer.ggml.tokens", Value::Texts(made.tokens.clone()));
    file.set("tokenizer.ggml.token_type", Value::I32s(made.token_type.clone()));
    file.set("tokenizer.ggml.scores", Value::F32s(made.scores.clone()));
    file
}

/// The text that tokens spell, without those that the tokenizer put in front.
fn spelled(checkpoint: &Checkpoint, ids: &[u32]) -> String {
    let tokenizer = checkpoint.tokenizer().unwrap();
    let mut bytes = vec![];
    let mut previous = None;
    for id in ids {
        bytes.extend(tokenizer.bytes(*id, previous));
        previous = (!tokenizer.is_added(*id)).then_some(*id).or(previous);
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn byte_level_texts_are_cut_up_as_the_models_own_tokenizers_do() {
    let made = tokenizers();
    assert_eq!(made.byte_level.encodings.len(), 7);
    for (pre, encodings) in &made.byte_level.encodings {
        let checkpoint = open(&with_byte_level(pre)).unwrap();
        assert_eq!(encodings.len(), made.texts.len());
        for (text, ids) in made.texts.iter().zip(encodings) {
            let ours = checkpoint.tokenizer().unwrap().encode(text).unwrap();
            assert_eq!(&ours.ids, ids, "{pre}: {text:?}");
            // Qwen2's composes characters first.
            if pre != "qwen2" {
                assert_eq!(&spelled(&checkpoint, ids), text, "{pre}");
            }
        }
    }
}

#[test]
fn sentencepiece_texts_have_the_tokens_of_sentencepiece() {
    let made = tokenizers();
    for (architecture, made) in [("llama", &made.llama), ("gemma", &made.gemma)] {
        let mut file = with_sentencepiece(made);
        if architecture == "gemma" {
            file.set("general.architecture", text("gemma"));
            file.set("tokenizer.ggml.add_space_prefix", Value::Flag(false));
            for (key, _) in &mut file.values {
                *key = key.replace("llama.", "gemma.");
            }
        }
        let checkpoint = open(&file).unwrap();
        assert_eq!(made.encodings.len(), made.texts.len());
        for (text, ids) in made.texts.iter().zip(&made.encodings) {
            let ours = checkpoint.tokenizer().unwrap().encode(text).unwrap();
            assert_eq!(&ours.ids, ids, "{architecture}: {text:?}");
            assert_eq!(&spelled(&checkpoint, &ids[1..]), text, "{architecture}");
        }
    }
}

#[test]
fn begin_and_end_tokens_are_those_of_the_file() {
    let mut file = with_byte_level("gpt-2");
    file.set("tokenizer.ggml.bos_token_id", Value::U32(600));
    file.set("tokenizer.ggml.eos_token_id", Value::U32(601));
    file.set("tokenizer.ggml.eot_token_id", Value::U32(7));
    file.set("tokenizer.ggml.add_bos_token", Value::Flag(true));
    file.set("tokenizer.ggml.add_eos_token", Value::Flag(true));
    let checkpoint = open(&file).unwrap();
    let tokenizer = checkpoint.tokenizer().unwrap();
    let encoded = tokenizer.encode("a").unwrap();
    assert_eq!((encoded.ids[0], encoded.ids[2]), (600, 601));
    assert_eq!(encoded.places, [None, Some(0..1), None]);
    assert_eq!(checkpoint.generation().begin_token, Some(600));
    assert_eq!(checkpoint.generation().end_tokens, [601, 7]);
    assert!(tokenizer.is_special(600) && !tokenizer.is_special(601) && tokenizer.is_added(601));

    // Neither named nor asked for.
    let checkpoint = open(&with_byte_level("gpt-2")).unwrap();
    assert_eq!(checkpoint.tokenizer().unwrap().encode("a").unwrap().ids.len(), 1);
    assert_eq!(
        (checkpoint.generation().begin_token, &checkpoint.generation().end_tokens[..]),
        (None, &[][..])
    );

    // Llama 3's tokenizer has one in front where the file does not say.
    let mut file = with_byte_level("llama-bpe");
    file.set("tokenizer.ggml.bos_token_id", Value::U32(600));
    file.remove("tokenizer.ggml.add_bos_token");
    let checkpoint = open(&file).unwrap();
    assert_eq!(checkpoint.tokenizer().unwrap().encode("a").unwrap().ids[0], 600);
}

#[test]
fn the_name_is_the_makers_else_the_files() {
    let mut file = GgufWriter::llama(16);
    assert_eq!(open(&file).unwrap().name(), "tiny");
    file.set("general.name", text("Large Model"));
    assert_eq!(open(&file).unwrap().name(), "Large Model");
}

#[test]
fn generate_runs_from_a_file_and_from_one_of_another_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = join(&folder, "weights.bin");
    std::fs::copy(part("llama", "model.gguf"), &path).unwrap();
    let run = |model: &str| {
        stdout(&["generate", "-m", model, "--prompt-ids", "1,2,3", "-n", "8", "--temperature", "0"])
    };
    assert_eq!(run(arg(&path)), run(arg(&part("llama", ""))));
}

/// The message of a file that must not open.
fn refused(file: &GgufWriter) -> String {
    match open(file) {
        Ok(_) => panic!("accepted"),
        Err(error) => error.to_string(),
    }
}

fn says(message: &str, words: &[&str]) {
    for word in words.iter().chain(&["tiny.gguf"]) {
        assert!(message.contains(word), "{word:?} is missing in: {message}");
    }
}

#[test]
fn the_whole_tiny_file_opens() {
    let mut session_file = GgufWriter::llama(16);
    session_file.set("llama.vocab_size", Value::U32(16));
    let checkpoint = open(&session_file).unwrap();
    assert!(checkpoint.unused_tensors().is_empty() && checkpoint.config().tied_head);
    assert!(matches!(checkpoint.tokenizer(), Err(attend::Error::NoTokenizer { .. })));
}

#[test]
fn other_formats_are_named() {
    let mut file = GgufWriter::llama(16);
    file.magic = *b"PK\x03\x04";
    says(&refused(&file), &["is no GGUF file", "PK\\u{3}\\u{4}"]);
    file.magic = *b"tjgg";
    says(&refused(&file), &["older than GGUF"]);
    file.magic = *b"GGUF";
    file.version = 1;
    says(&refused(&file), &["version 1", "expected 2 or 3"]);
    file.version = 4;
    says(&refused(&file), &["version 4", "expected 2 or 3"]);
    file.version = 3u32.swap_bytes();
    says(&refused(&file), &["big-endian", "gguf-convert-endian"]);
    file.version = 3;
    file.set("split.count", Value::U32(3));
    says(&refused(&file), &["one of 3 parts", "split.count", "llama-gguf-split --merge"]);
}

#[test]
fn a_file_cut_anywhere_is_refused_and_says_so() {
    let mut file = GgufWriter::llama(16);
    file.set("tokenizer.ggml.model", text("none"));
    file.set("general.tags", Value::Texts(vec!["a".into(), "b".into()]));
    let whole = file.bytes();
    let folder = tempfile::tempdir().unwrap();
    let path = join(&folder, "tiny.gguf");
    let lengths = (0..whole.len() - file.data.len()).chain([whole.len() - 500, whole.len() - 1]);
    for len in lengths {
        std::fs::write(&path, &whole[..len]).unwrap();
        let message = Checkpoint::open(&path).err().unwrap().to_string();
        says(&message, &[]);
        assert!(message.contains("cut off") || message.contains("too few"), "{len}: {message}");
    }
}

/// Every byte of the head, changed to values that counts, types and offsets cannot have: an error,
/// or a file that still makes sense; never a panic or a huge allocation.
#[test]
fn damaged_heads_never_panic() {
    let mut file = with_byte_level("smollm");
    file.set("tokenizer.ggml.tokens", Value::Texts(vec!["a".into(), "b".into(), "ab".into()]));
    file.set("tokenizer.ggml.token_type", Value::I32s(vec![1, 1, 1]));
    file.set("tokenizer.ggml.merges", Value::Texts(vec!["a b".into()]));
    let whole = file.bytes();
    let folder = tempfile::tempdir().unwrap();
    let path = join(&folder, "tiny.gguf");
    let mut refused = 0;
    for at in 0..whole.len() - file.data.len() {
        for byte in [0x7f, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            std::fs::write(&path, bytes).unwrap();
            refused += usize::from(Checkpoint::open(&path).is_err());
        }
    }
    assert!(refused > 1000, "{refused}");
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let file = GgufWriter::llama(16);
    let with = |edit: &dyn Fn(&mut GgufWriter)| {
        let mut file = file.clone();
        edit(&mut file);
        refused(&file)
    };
    says(
        &with(&|file| file.tensors.retain(|tensor| tensor.name != "blk.0.ffn_up.weight")),
        &["tensor blk.0.ffn_up.weight is missing"],
    );
    says(
        &with(&|file| file.tensors.retain(|tensor| tensor.name != "token_embd.weight")),
        &["tensor token_embd.weight is missing"],
    );
    says(
        &with(&|file| file.tensor_mut("blk.0.attn_q.weight").dimensions = vec![8, 4]),
        &["tensor blk.0.attn_q.weight", "[4, 8]", "[8, 8]"],
    );
    says(
        &with(&|file| file.tensor_mut("blk.0.ffn_up.weight").name = "blk.0.ffn_down.weight".into()),
        &["blk.0.ffn_down.weight stands twice"],
    );
    says(
        &with(&|file| file.tensor_mut("blk.0.attn_q.weight").tensor_type = 99),
        &["tensor blk.0.attn_q.weight", "type 99"],
    );
    says(
        &with(&|file| file.tensor_mut("blk.0.attn_q.weight").tensor_type = 26),
        &["tensor blk.0.attn_q.weight holds i32", "q6_k", "another quantisation"],
    );
    says(
        &with(&|file| file.tensor_mut("blk.0.attn_q.weight").tensor_type = 2),
        &["tensor blk.0.attn_q.weight", "rows of 8 elements", "blocks of 32"],
    );
    says(
        &with(&|file| file.tensor_mut("blk.0.attn_q.weight").dimensions = vec![u64::MAX, u64::MAX]),
        &["tensor blk.0.attn_q.weight", "garbled"],
    );
    says(
        &with(&|file| file.tensor_mut("blk.0.attn_q.weight").dimensions = vec![1; 5]),
        &["tensor blk.0.attn_q.weight has 5 dimensions"],
    );
    says(
        &with(&|file| file.tensor_mut("blk.0.attn_q.weight").offset = u64::MAX - 8),
        &["tensor blk.0.attn_q.weight", "cut off"],
    );
}

#[test]
fn metadata_that_changes_the_arithmetic_and_is_not_implemented_is_named() {
    for (key, value, words) in [
        ("general.architecture", text("mamba"), &["general.architecture", "mamba", "known: llama"][..]),
        ("llama.expert_count", Value::U32(8), &["llama.expert_count is 8"]),
        ("llama.attention.max_alibi_bias", Value::F32(8.0), &["llama.attention.max_alibi_bias"]),
        ("llama.attention.value_length", Value::U32(8), &["llama.attention.value_length is 8"]),
        (
            "llama.attention.head_count",
            Value::I32s(vec![2, 4]),
            &["llama.attention.head_count", "same for every"],
        ),
        ("llama.attention.head_count", text("two"), &["llama.attention.head_count", "two", "whole number"]),
        ("llama.attention.head_count", Value::U32(0), &["num_attention_heads"]),
        ("llama.rope.scaling.type", text("spiral"), &["spiral"]),
        ("llama.rope.scaling.attn_factor", Value::F32(1.2), &["llama.rope.scaling.attn_factor"]),
        ("llama.attention.sliding_window", Value::U32(64), &["llama.attention.sliding_window is 64"]),
        ("llama.rope.dimension_count", Value::U32(2), &["partial_rotary_factor"]),
        (
            "llama.attention.layer_norm_rms_epsilon",
            Value::F32(f32::NAN),
            &["layer_norm_rms_epsilon", "finite"],
        ),
        ("general.alignment", Value::U32(24), &["general.alignment is 24"]),
    ] {
        let mut file = GgufWriter::llama(16);
        file.set(key, value);
        says(&refused(&file), words);
    }
    for key in ["general.architecture", "llama.block_count", "llama.attention.layer_norm_rms_epsilon"] {
        let mut file = GgufWriter::llama(16);
        file.remove(key);
        says(&refused(&file), &[key, "missing"]);
    }
    let mut file = GgufWriter::llama(16);
    file.tensor("rope_freqs.weight", &[3]);
    says(&refused(&file), &["longrope has 3", "expected 2"]);
    file.tensor_mut("rope_freqs.weight").tensor_type = 1;
    says(&refused(&file), &["tensor rope_freqs.weight holds f16, expected f32"]);
    let mut file = GgufWriter::llama(16);
    file.values.push(file.values[1].clone());
    says(&refused(&file), &["llama.block_count stands twice"]);
}

#[test]
fn tokenizers_that_do_not_load_are_named() {
    let file = with_byte_level("gpt-2");
    let with = |key: &str, value: Option<Value>| {
        let mut file = file.clone();
        match value {
            Some(value) => file.set(key, value),
            None => file.remove(key),
        }
        refused(&file)
    };
    says(
        &with("tokenizer.ggml.model", Some(text("bert"))),
        &["tokenizer.ggml.model", "bert", "known: gpt2, llama"],
    );
    says(&with("tokenizer.ggml.model", Some(text("t5"))), &["tokenizer.ggml.model", "t5"]);
    says(&with("tokenizer.ggml.pre", Some(text("whale"))), &["tokenizer.ggml.pre", "whale"]);
    says(&with("tokenizer.ggml.merges", None), &["tokenizer.ggml.merges", "missing"]);
    says(&with("tokenizer.ggml.tokens", None), &["tokenizer.ggml.tokens", "missing"]);
    says(
        &with("tokenizer.ggml.token_type", Some(Value::I32s(vec![1]))),
        &["token_type has 1 entries", "602"],
    );
    says(
        &with("tokenizer.ggml.merges", Some(Value::Texts(vec!["ab".into()]))),
        &["merges", "\"ab\"", "two pieces"],
    );
    let mut sentencepiece = with_sentencepiece(&tokenizers().llama);
    sentencepiece.remove("tokenizer.ggml.scores");
    says(&refused(&sentencepiece), &["tokenizer.ggml.scores", "missing"]);
    sentencepiece.set("tokenizer.ggml.scores", Value::F32s(vec![0.0]));
    says(&refused(&sentencepiece), &["tokenizer.ggml.scores has 1 entries"]);
    sentencepiece.set("tokenizer.ggml.bos_token_id", Value::U32(5000));
    sentencepiece.set("tokenizer.ggml.merges", Value::Texts(vec![]));
    says(&refused(&sentencepiece), &["tokenizer.ggml.bos_token_id is 5000"]);
    let mut file = file.clone();
    file.tensor_mut("token_embd.weight").dimensions = vec![8, 600];
    says(&refused(&file), &["token 601", "outside the model's vocabulary of 600"]);
}

#[test]
fn the_program_says_what_is_wrong_with_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = join(&folder, "tiny.gguf");
    let whole = std::fs::read(part("llama", "model.gguf")).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let message = failure(&run(&["generate", "-m", arg(&path), "Hello"]), 1);
    says(&message, &["cut off", "fetch it again"]);
}

#[test]
fn greedy_tokens_of_the_mixed_file_are_the_same_with_its_own_types_held_wide() {
    let reference = Reference::open(&part("mixed", "answers.safetensors"));
    let decoder = load(&part("mixed", "model.gguf"), KernelChoice::Native, Some(ElementType::F32));
    let options = greedy_options(8);
    let mut session = Session::new(&decoder, None, &reference.ids("input_ids"), options).unwrap();
    while session.step(None).unwrap().is_some() {}
    assert_eq!(session.generated(), reference.ids("greedy_ids"));
}
