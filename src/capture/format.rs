//! What stands in a dump's JSON files (SPEC.md).

use serde::{Deserialize, Serialize};

use super::kind::{AttentionKind, QuerySelection, Rows};
use crate::generation::Sampling;
use crate::model::{HeadIntervention, Mask, Silence};

/// `format` of every manifest.
pub const FORMAT: &str = "attend-attention";
/// The version that this crate writes. It reads version 1 too, which had only whole maps of all
/// queries.
pub const VERSION: u32 = 2;
/// The oldest version that this crate reads.
pub const OLDEST_VERSION: u32 = 1;

pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const TOKENS: &str = "tokens.jsonl";
pub(super) const STEPS: &str = "steps.jsonl";
pub(super) const STEPS_FOLDER: &str = "steps";

/// How weights of attention are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttentionDtype {
    #[default]
    F32,
    F16,
}

impl AttentionDtype {
    /// Bytes of one weight.
    pub fn size(self) -> usize {
        match self {
            AttentionDtype::F32 => 4,
            AttentionDtype::F16 => 2,
        }
    }

    /// As safetensors spells it.
    pub(super) fn tensor_dtype(self) -> &'static str {
        match self {
            AttentionDtype::F32 => "F32",
            AttentionDtype::F16 => "F16",
        }
    }
}

/// `manifest.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    pub format: String,
    pub version: u32,
    /// The program that wrote it.
    pub generator: String,
    pub model: ModelInfo,
    /// How the model's weights were held.
    pub weights_dtype: String,
    pub attention_dtype: AttentionDtype,
    /// What is recorded of each row.
    pub kind: AttentionKind,
    /// Which rows of a step.
    #[serde(default)]
    pub queries: QuerySelection,
    pub mask: Mask,
    /// Layers captured, and the heads of each, in the order of the tensors.
    pub layers: Vec<LayerHeads>,
    pub prompt_tokens: usize,
    /// How tokens were chosen; `null` where none was.
    pub sampling: Option<serde_json::Value>,
    /// Heads that were silenced; not there where none was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ablated: Vec<AblatedHeads>,
}

/// Silenced heads of one layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AblatedHeads {
    pub layer: usize,
    pub heads: Vec<usize>,
    /// What stood in for them.
    pub with: Silence,
}

impl AblatedHeads {
    /// Those of an intervention, by layer and by what stands in.
    pub fn of(intervention: &HeadIntervention) -> Vec<AblatedHeads> {
        let mut ablated: Vec<AblatedHeads> = vec![];
        for (layer, head, with) in intervention.silenced() {
            match ablated.iter_mut().find(|known| (known.layer, known.with) == (layer, with)) {
                Some(known) => known.heads.push(head),
                None => ablated.push(AblatedHeads { layer, heads: vec![head], with }),
            }
        }
        ablated
    }
}

/// The model that attended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelInfo {
    pub name: String,
    pub family: String,
    pub config_sha256: String,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
}

/// The captured heads of one layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerHeads {
    pub layer: usize,
    pub heads: Vec<usize>,
    /// A query sees this many keys, its own included; `null`: all.
    pub window: Option<usize>,
}

/// A line of `tokens.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Position.
    pub index: usize,
    pub id: u32,
    /// What it adds to the text; all lines joined are the text.
    pub text: String,
    /// The token's own bytes.
    pub bytes: Vec<u8>,
    pub role: TokenRole,
    /// Natural logarithm of a generated token's probability; `null` in the prompt.
    pub logprob: Option<f64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenRole {
    Prompt,
    Generated,
}

/// A line of `steps.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    pub step: usize,
    /// Its file, from the dump's folder.
    pub file: String,
    /// Position of the first recorded query.
    pub first_query: usize,
    /// Recorded queries: rows of the tensors. None where the selection has none of the step's.
    pub queries: usize,
    /// From one recorded query to the next.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub stride: usize,
    pub keys: usize,
}

impl StepRecord {
    /// The recorded queries.
    pub fn rows(&self) -> Rows {
        Rows { first: self.first_query, count: self.queries, stride: self.stride }
    }
}

fn one() -> usize {
    1
}

fn is_one(number: &usize) -> bool {
    *number == 1
}

/// The name of a layer's tensor in a step's file.
pub fn tensor_name(layer: usize) -> String {
    format!("layer.{layer:03}")
}

pub(super) fn sampling_json(sampling: &Sampling) -> serde_json::Value {
    // Numbers and options only: this cannot fail.
    serde_json::to_value(sampling).unwrap_or_default()
}
