//! How much memory loading takes, of the real binary and a checkpoint large enough to show it.
#![cfg(target_os = "linux")] // elsewhere the program does not know its peak

mod common;
#[path = "common/program.rs"]
mod program;

use std::fs;
use std::path::Path;

use common::fixture;
use program::*;
use safetensors::tensor::{Dtype, TensorView};

const HIDDEN: usize = 1024;
const INTERMEDIATE: usize = 2816;
const VOCABULARY: usize = 16_384;
const LAYERS: usize = 2;

/// A Llama of 42 million parameters in f32, whose embedding alone is 40 % of them; answers how many.
fn write_checkpoint(folder: &Path) -> usize {
    let mut state = 1u32;
    let mut value = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 8) as f32 / (1 << 23) as f32 - 1.0) * 0.04
    };
    let noise: Vec<u8> = (0..VOCABULARY * HIDDEN).flat_map(|_| value().to_le_bytes()).collect();
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![VOCABULARY, HIDDEN]),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
    ];
    for layer in 0..LAYERS {
        let at = |name: &str| format!("model.layers.{layer}.{name}.weight");
        for name in ["input_layernorm", "post_attention_layernorm"] {
            shapes.push((at(name), vec![HIDDEN]));
        }
        for name in ["q_proj", "k_proj", "v_proj", "o_proj"] {
            shapes.push((at(&format!("self_attn.{name}")), vec![HIDDEN, HIDDEN]));
        }
        shapes.push((at("mlp.gate_proj"), vec![INTERMEDIATE, HIDDEN]));
        shapes.push((at("mlp.up_proj"), vec![INTERMEDIATE, HIDDEN]));
        shapes.push((at("mlp.down_proj"), vec![HIDDEN, INTERMEDIATE]));
    }
    let parameters = shapes.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    let tensors = shapes.into_iter().map(|(name, shape)| {
        let bytes = &noise[..4 * shape.iter().product::<usize>()];
        (name, TensorView::new(Dtype::F32, shape, bytes).unwrap())
    });
    safetensors::serialize_to_file(tensors, None, &folder.join("model.safetensors")).unwrap();
    let config = serde_json::json!({
        "model_type": "llama", "hidden_act": "silu", "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS, "num_attention_heads": 16, "num_key_value_heads": 16,
        "vocab_size": VOCABULARY, "tie_word_embeddings": true, "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    });
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    fs::copy(fixture("llama").join("tokenizer.json"), folder.join("tokenizer.json")).unwrap();
    parameters
}

/// The most memory, in bytes, that the program held while it generated a token.
fn peak(model: &Path, dtype: &str) -> f64 {
    let args = ["generate", "-m", arg(model), "--prompt-ids", "1", "-n", "1", "-t", "2", "--dtype", dtype];
    let output = run(&args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    let peak = stderr.split("peak memory: ").nth(1).and_then(|rest| rest.split(" MB").next());
    peak.and_then(|peak| peak.parse::<f64>().ok()).unwrap_or_else(|| panic!("no peak in {stderr}")) * 1e6
}

#[test]
fn loading_takes_little_more_than_the_packed_weights() {
    let folder = tempfile::tempdir().unwrap();
    let parameters = write_checkpoint(folder.path());
    for (dtype, bits) in [("f32", 32.0), ("bf16", 16.0), ("q8_0", 8.5)] {
        // What the program takes by itself.
        let program = peak(&fixture("llama"), dtype);
        let packed = parameters as f64 * bits / 8.0;
        let peak = peak(folder.path(), dtype);
        assert!(
            peak - program <= 1.25 * packed,
            "{dtype}: {:.0} MB and the program's {:.0} for {:.0} MB of weights",
            (peak - program) / 1e6,
            program / 1e6,
            packed / 1e6
        );
    }
}
