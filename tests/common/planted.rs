//! A dump whose maps are given: one step of the embedded model's shape.

use std::collections::HashMap;
use std::path::Path;

use attend::Checkpoint;
use attend::capture::{AttentionDtype, Recorder, Selection, TokenRecord, TokenRole};
use attend::model::Mask;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, serialize};

/// Writes layers from 0 on, each `[heads, size, size]`; a token for each of the bytes.
pub fn dump(folder: &Path, layers: &[Vec<f32>], tokens: &[&[u8]]) {
    let size = tokens.len();
    let heads = layers[0].len() / (size * size);
    let checkpoint = Checkpoint::embedded().unwrap();
    let (last_layer, last_head) = (layers.len() - 1, heads - 1);
    let selection =
        Selection::parse(Some(&format!("0-{last_layer}")), Some(&format!("0-{last_head}")), 5, 8).unwrap();
    let dtype = AttentionDtype::F32;
    let manifest = Recorder::manifest(&checkpoint, "f32", &selection, dtype, Mask::Causal, size, None);
    let mut recorder = Recorder::create(folder, &manifest, false).unwrap();
    for (index, bytes) in tokens.iter().enumerate() {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let (id, role) = (index as u32, TokenRole::Prompt);
        recorder.token(&TokenRecord { index, id, text, bytes: bytes.to_vec(), role, logprob: None }).unwrap();
    }
    recorder.flush().unwrap();
    drop(recorder);
    let bytes = |layer: &Vec<f32>| layer.iter().flat_map(|weight| weight.to_le_bytes()).collect::<Vec<u8>>();
    let bytes: Vec<Vec<u8>> = layers.iter().map(bytes).collect();
    let view = |bytes| TensorView::new(Dtype::F32, vec![heads, size, size], bytes).unwrap();
    let named = bytes.iter().enumerate().map(|(layer, bytes)| (format!("layer.{layer:03}"), view(bytes)));
    let file = serialize(named.collect::<HashMap<_, _>>(), None).unwrap();
    std::fs::write(folder.join("steps/00000.safetensors"), file).unwrap();
    let line = format!(
        r#"{{"step":0,"file":"steps/00000.safetensors","first_query":0,"queries":{size},"keys":{size}}}"#
    );
    std::fs::write(folder.join("steps.jsonl"), line + "\n").unwrap();
}
