//! Bad input, given to the real binary: one message that says what, where and what to try; exit
//! code 1 or 2; never a panic.

mod common;
#[path = "common/program.rs"]
mod program;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use common::fixture;
use program::*;

fn generate(model: &Path) -> std::process::Output {
    run(&["generate", "-m", arg(model), "-n", "3", "Hello"])
}

/// Runs `generate` on a copy of the tiny model that `damage` has changed; answers the message.
fn with_damage(damage: impl FnOnce(&Path)) -> String {
    let folder = copy_of(&fixture("llama"));
    damage(folder.path());
    failure(&generate(folder.path()), 1)
}

fn says(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "{word:?} is missing in: {message}");
    }
}

fn edit_config(folder: &Path, key: &str, value: serde_json::Value) {
    let path = folder.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config[key] = value;
    fs::write(path, config.to_string()).unwrap();
}

/// Rewrites the weights file with its header changed; data stays.
fn edit_header(folder: &Path, edit: impl FnOnce(String) -> String) {
    let path = folder.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = edit(String::from_utf8(bytes[8..8 + len].to_vec()).unwrap());
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(&bytes[8 + len..]);
    fs::write(path, out).unwrap();
}

/// Where a tensor's data lies in the file.
fn data_of(folder: &Path, name: &str) -> std::ops::Range<usize> {
    let bytes = fs::read(folder.join("model.safetensors")).unwrap();
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + len]).unwrap();
    let offset = |i: usize| 8 + len + header[name]["data_offsets"][i].as_u64().unwrap() as usize;
    offset(0)..offset(1)
}

#[test]
fn a_missing_folder() {
    let message = failure(&run(&["generate", "-m", "no/such/folder", "Hello"]), 1);
    says(&message, &["no/such/folder", "no such folder", "config.json"]);
}

#[test]
fn a_folder_without_config() {
    let message = with_damage(|folder| fs::remove_file(folder.join("config.json")).unwrap());
    says(&message, &["has no config.json"]);
}

#[test]
fn no_model_at_all() {
    let message = failure(&run(&["generate", "-m", arg(&fixture("tokenizers")), "Hello"]), 1);
    says(&message, &["has no config.json"]);
}

#[test]
fn a_truncated_weights_file() {
    let message = with_damage(|folder| {
        let path = folder.join("model.safetensors");
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 1000]).unwrap();
    });
    says(&message, &["model.safetensors", "cut off", "promises", "fetch it again"]);
}

#[test]
fn a_garbled_weights_file() {
    let message = with_damage(|folder| edit_header(folder, |header| header.replace("dtype", "dtipe")));
    says(&message, &["model.safetensors", "garbled"]);
    let message =
        with_damage(|folder| fs::write(folder.join("model.safetensors"), b"nonsense, not weights").unwrap());
    says(&message, &["model.safetensors", "no safetensors file"]);
    let message = with_damage(|folder| fs::write(folder.join("model.safetensors"), b"").unwrap());
    says(&message, &["model.safetensors", "0 bytes"]);
}

#[test]
fn a_tensor_that_is_missing() {
    let message = with_damage(|folder| {
        edit_header(folder, |header| {
            header.replace("model.layers.1.mlp.up_proj.weight", "model.layers.1.mlp.away")
        });
    });
    says(&message, &["model.safetensors", "tensor model.layers.1.mlp.up_proj.weight is missing"]);
}

#[test]
fn a_tensor_of_the_wrong_shape() {
    let message = with_damage(|folder| edit_config(folder, "intermediate_size", 95.into()));
    says(&message, &["mlp.gate_proj.weight", "[96, 64]", "expected [95, 64]", "same model"]);
}

#[test]
fn a_tensor_of_the_wrong_type() {
    let message = with_damage(|folder| {
        edit_header(folder, |header| {
            let at = header.find("\"model.norm.weight\"").unwrap();
            let (before, after) = header.split_at(at);
            format!("{before}{}", after.replacen("F32", "I32", 1))
        });
    });
    says(&message, &["tensor model.norm.weight holds I32", "expected F32, F16 or BF16"]);
}

#[test]
fn a_tensor_twice_in_the_header() {
    let message = with_damage(|folder| {
        edit_header(folder, |header| {
            header.replace(
                "\"model.layers.1.input_layernorm.weight\"",
                "\"model.layers.0.input_layernorm.weight\"",
            )
        });
    });
    says(&message, &["model.layers.0.input_layernorm.weight stands twice"]);
}

fn shard(folder: &Path, index: &str) {
    fs::rename(folder.join("model.safetensors"), folder.join("model-00001-of-00002.safetensors")).unwrap();
    fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
}

#[test]
fn a_missing_shard() {
    let message = with_damage(|folder| {
        shard(
            folder,
            r#"{"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}}"#,
        );
    });
    says(&message, &["model-00002-of-00002.safetensors", "missing", "fetch it"]);
}

#[test]
fn a_shard_name_that_leaves_the_folder() {
    for name in ["../model.safetensors", "/etc/passwd", "sub/model.safetensors", "..", "a\\\\b"] {
        let message = with_damage(|folder| shard(folder, &format!(r#"{{"weight_map":{{"a":"{name}"}}}}"#)));
        says(&message, &["index.json", "names the shard", "expected a file beside the index"]);
    }
}

#[test]
fn an_index_that_is_none() {
    for index in ["", "{}", "[]", r#"{"weight_map":{}}"#, r#"{"weight_map":{"a":1}}"#] {
        let message = with_damage(|folder| shard(folder, index));
        says(&message, &["model.safetensors.index.json"]);
    }
}

#[test]
fn weights_that_are_not_numbers_are_named_by_layer() {
    for (tensor, place) in [
        ("model.embed_tokens.weight", "the embedding"),
        ("model.layers.1.self_attn.k_proj.weight", "layer 1"),
        ("model.layers.2.mlp.down_proj.weight", "layer 2"),
        ("model.norm.weight", "the output head"),
    ] {
        for kernels in ["native", "reference"] {
            let folder = copy_of(&fixture("llama"));
            let range = data_of(folder.path(), tensor);
            let path = folder.path().join("model.safetensors");
            let mut bytes = fs::read(&path).unwrap();
            for value in bytes[range].chunks_exact_mut(4) {
                value.copy_from_slice(&f32::NAN.to_le_bytes());
            }
            fs::write(&path, bytes).unwrap();
            let output =
                run(&["generate", "-m", arg(folder.path()), "--kernels", kernels, "-n", "3", "Hello"]);
            let message = failure(&output, 1);
            says(&message, &[place, "not finite"]);
            assert!(output.stdout.is_empty(), "sampled from NaN");
        }
    }
}

#[test]
fn a_tokenizer_that_disagrees_with_the_vocabulary() {
    let message = with_damage(|folder| {
        fs::copy(fixture("tokenizers/bytelevel_special.json"), folder.join("tokenizer.json")).unwrap();
    });
    says(&message, &["tokenizer.json", "outside the model's vocabulary of 256"]);
}

#[test]
fn a_merge_longer_than_any_token() {
    let message = with_damage(|folder| {
        let path = folder.join("tokenizer.json");
        let mut tokenizer: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        tokenizer["model"]["merges"] = serde_json::json!([["a", "bc"]]);
        fs::write(path, tokenizer.to_string()).unwrap();
    });
    says(&message, &["tokenizer.json", "the merge of \"a\" and \"bc\""]);
}

#[test]
fn a_tokenizer_that_is_none() {
    let message = with_damage(|folder| fs::write(folder.join("tokenizer.json"), "{}").unwrap());
    says(&message, &["tokenizer.json", "is no tokenizer"]);
    let message = with_damage(|folder| fs::remove_file(folder.join("tokenizer.json")).unwrap());
    says(&message, &["tokenizer.json", "missing", "--prompt-ids"]);
}

#[test]
fn pickles() {
    let message = with_damage(|folder| {
        fs::rename(folder.join("model.safetensors"), folder.join("pytorch_model.bin")).unwrap();
    });
    says(&message, &["pytorch_model.bin", "pickle", "save_pretrained"]);
    let folder = copy_of(&fixture("llama"));
    let pickle = join(&folder, "consolidated.00.pth");
    fs::write(&pickle, b"x").unwrap();
    says(&failure(&generate(&pickle), 1), &["pickle", "save_pretrained"]);
    let message = with_damage(|folder| fs::remove_file(folder.join("model.safetensors")).unwrap());
    says(&message, &["neither model.safetensors nor"]);
}

#[test]
fn configs_that_make_no_model() {
    for (key, value, word) in [
        ("num_attention_heads", serde_json::json!(0), "num_attention_heads"),
        ("num_hidden_layers", serde_json::json!(9_223_372_036_854_775_808u64), "num_hidden_layers"),
        ("num_hidden_layers", serde_json::json!(-3), "num_hidden_layers"),
        ("num_hidden_layers", serde_json::json!(1e30), "num_hidden_layers"),
        ("hidden_size", serde_json::json!(0), "hidden_size"),
        ("max_position_embeddings", serde_json::json!(1u64 << 60), "max_position_embeddings"),
        ("partial_rotary_factor", serde_json::json!(0.5), "partial_rotary_factor"),
        ("vocab_size", serde_json::json!("many"), "vocab_size"),
        ("model_type", serde_json::json!("mystery"), "\"mystery\""),
        ("model_type", serde_json::Value::Null, "model_type is missing"),
        ("quantization_config", serde_json::json!({"bits": 4}), "quantization_config"),
        ("hidden_act", serde_json::json!("quick_gelu"), "hidden_act"),
    ] {
        let message = with_damage(|folder| edit_config(folder, key, value.clone()));
        says(&message, &["config.json", word]);
    }
    let message = with_damage(|folder| fs::write(folder.join("config.json"), "{\"a\":").unwrap());
    says(&message, &["config.json", "JSON"]);
}

#[test]
fn prompts_that_are_none() {
    let model = fixture("llama");
    let model = arg(&model);
    says(&failure(&run(&["generate", "-m", model, ""]), 2), &["the prompt is empty"]);
    says(&failure(&run(&["generate", "-m", model]), 2), &["the prompt is empty"]);
    says(&failure(&run(&["generate", "-m", model, "a", "-p", "b"]), 2), &["more than one prompt"]);
    says(&failure(&run(&["generate", "-m", model, "-f", "no/such/file"]), 1), &["no/such/file"]);
    says(
        &failure(&run(&["generate", "-m", model, "--prompt-ids", "1,256"]), 2),
        &["256 is no token", "0 to 255"],
    );
    says(&failure(&run(&["generate", "-m", model, "--prompt-ids", "1,x"]), 2), &["x"]);
    let folder = tempfile::tempdir().unwrap();
    let file = join(&folder, "latin1.txt");
    fs::write(&file, b"caf\xe9").unwrap();
    says(
        &failure(&run(&["generate", "-m", model, "-f", arg(&file)]), 2),
        &["latin1.txt", "not UTF-8", "byte 3"],
    );
    let mut child = attend()
        .args(["generate", "-m", model])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"caf\xe9").unwrap();
    says(&failure(&child.wait_with_output().unwrap(), 2), &["standard input", "not UTF-8"]);
}

#[cfg(unix)]
#[test]
fn an_argument_that_is_not_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let output = attend()
        .args(["generate", "-m", arg(&fixture("llama"))])
        .arg(std::ffi::OsStr::from_bytes(b"caf\xe9"))
        .output()
        .unwrap();
    says(&failure(&output, 2), &["not UTF-8"]);
}

#[test]
fn prompts_that_do_not_fit() {
    let model = fixture("llama");
    let model = arg(&model);
    let long = "x".repeat(128);
    let message = failure(&run(&["generate", "-m", model, &long]), 1);
    says(&message, &["129 tokens", "context of 128", "shorten the prompt"]);
    let message = failure(&run(&["generate", "-m", model, "-c", "5", "Hello"]), 1);
    says(&message, &["context of 5", "raise -c"]);
    let message = failure(&run(&["generate", "-m", model, "-c", "500", "Hello"]), 1);
    says(&message, &["context of 128"]);
    let message = failure(&run(&["map", "-m", model, &"x".repeat(129)]), 1);
    says(&message, &["129 tokens", "context of 128"]);
}

#[test]
fn options_out_of_range() {
    let model = fixture("llama");
    let model = arg(&model);
    let folder = tempfile::tempdir().unwrap();
    let dump = join(&folder, "dump");
    for (args, words) in [
        (vec!["map", "-m", model, "Hello", "--layer", "3"], ["--layer 3", "0 to 2"]),
        (vec!["map", "-m", model, "Hello", "--head", "4"], ["--head 4", "0, 1, 2, 3"]),
        (vec!["map", "-m", model, "Hello", "--queries", "2-5"], ["--queries 2-5", "0-4"]),
        (vec!["map", "-m", model, "Hello", "--keys", "9"], ["--keys", "0-4"]),
        (vec!["map", "-m", model, "Hello", "--step", "1"], ["--step", "dump"]),
        (
            vec!["generate", "-m", model, "Hello", "--attention", arg(&dump), "--layers", "3"],
            ["no layer 3", "0 to 2"],
        ),
        (
            vec!["generate", "-m", model, "Hello", "--attention", arg(&dump), "--heads", "0.7"],
            ["no head 7", "0 to 3"],
        ),
        (vec!["generate", "-m", model, "Hello", "--layers", "1"], ["--attention", "required"]),
        (vec!["generate", "-m", model, "Hello", "--device", "tpu"], ["--device tpu", "cuda:N"]),
        (vec!["generate", "-m", model, "Hello", "--temp", "-1"], ["--temperature", "at least 0"]),
        (vec!["generate", "-m", model, "Hello", "--top-p", "2"], ["--top-p", "from 0 to 1"]),
        (vec!["generate", "-m", model, "Hello", "-t", "0"], ["--threads", "1..=1024"]),
        (vec!["bench", "-m", model, "-p", "512"], ["pp512", "128"]),
        (vec!["bench", "-m", model, "-p", "0", "-n", "0"], ["nothing to measure", "above 0"]),
    ] {
        says(&failure(&run(&args), 2), &words);
    }
    assert!(!dump.exists(), "a refused run left a folder behind");
}

#[test]
fn generation_configs_that_make_no_distribution() {
    for (json, word) in [
        (r#"{"repetition_penalty":0}"#, "repetition_penalty"),
        (r#"{"do_sample":true,"temperature":-1}"#, "temperature"),
        (r#"{"eos_token_id":"end"}"#, "eos_token_id"),
        ("[", "JSON"),
    ] {
        let message = with_damage(|folder| fs::write(folder.join("generation_config.json"), json).unwrap());
        says(&message, &["generation_config.json", word]);
    }
}

#[cfg(not(feature = "cuda"))]
#[test]
fn cuda_in_a_build_without_it() {
    let output = run(&["generate", "-m", arg(&fixture("llama")), "--device", "cuda", "Hello"]);
    says(&failure(&output, 2), &["no CUDA", "--features cuda", "--device cpu"]);
}

#[test]
fn a_tier_that_this_cpu_lacks() {
    let output = attend()
        .env("ATTEND_ISA", "mmx")
        .args(["generate", "-m", arg(&fixture("llama")), "Hello"])
        .output()
        .unwrap();
    says(&failure(&output, 2), &["ATTEND_ISA", "\"mmx\"", "plain"]);
}

#[test]
fn dump_folders_that_cannot_be() {
    let model = fixture("llama");
    let model = arg(&model);
    let folder = tempfile::tempdir().unwrap();
    let file = join(&folder, "file");
    fs::write(&file, b"x").unwrap();
    let inside = file.join("dump");
    let message = failure(&run(&["generate", "-m", model, "Hello", "--attention", arg(&inside)]), 1);
    says(&message, &["file/dump"]);
    // A folder with something else in it, which must survive.
    let message = failure(
        &run(&["generate", "-m", model, "Hello", "--overwrite", "--attention", arg(folder.path())]),
        1,
    );
    says(&message, &["no part of a dump", "new or empty folder"]);
    assert_eq!(fs::read(&file).unwrap(), b"x");
}

#[test]
fn standard_input_is_not_waited_for_when_there_is_a_prompt() {
    let mut child = attend()
        .args(["generate", "-m", arg(&fixture("llama")), "-n", "2", "Hello"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _open = child.stdin.take().unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_closed_pipe_is_a_quiet_end() {
    let model = fixture("llama");
    for args in [
        vec!["generate", "-m", arg(&model), "Hello"],
        vec!["generate", "-m", arg(&model), "--json", "Hello"],
        vec!["map", "-m", arg(&model), "Hello"],
        vec!["info", arg(&model)],
        vec!["completions", "bash"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = attend().args(&args).stdout(writer).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{args:?}");
    }
}
