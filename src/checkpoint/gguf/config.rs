//! The metadata of a GGUF file as the `config.json` that its model has on the hub, so that the
//! family which translates that one translates both.

use serde_json::{Map, Value, json};

use super::header::Header;
use super::places;
use crate::checkpoint::families::Place;
use crate::error::{Error, Result};
use crate::model::{ModelConfig, Module};

/// An architecture of llama.cpp's that loads.
pub(super) struct Architecture {
    /// `general.architecture`.
    name: &'static str,
    /// The family whose config it becomes.
    model_type: &'static str,
    /// Where its modules lie.
    pub place: fn(&ModelConfig, Module) -> Place,
}

const ARCHITECTURES: &[Architecture] = &[
    Architecture { name: "llama", model_type: "llama", place: places::interleaved },
    Architecture { name: "qwen2", model_type: "qwen2", place: places::apart },
    Architecture { name: "qwen3", model_type: "qwen3", place: places::apart },
    Architecture { name: "gemma", model_type: "gemma", place: places::apart },
    Architecture { name: "phi3", model_type: "phi3", place: places::fused },
    Architecture { name: "gpt2", model_type: "gpt2", place: places::fused },
];

/// Keys behind the architecture's name that `config` reads, or that say nothing about arithmetic.
const KNOWN: &[&str] = &[
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.layer_norm_epsilon",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "attention.value_length",
    "block_count",
    "context_length",
    "embedding_length",
    "expert_count",
    "expert_used_count",
    "feed_forward_length",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.attn_factor",
    "rope.scaling.factor",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
    "rope.scaling.type",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "tensor_data_layout",
    "vocab_size",
];

/// The config, as JSON.
///
/// # Errors
/// If the architecture is unknown, a size is missing or of the wrong kind, or something changes the
/// arithmetic in a way that is not implemented; what the family refuses comes later.
pub(super) fn config(header: &Header<'_>) -> Result<Vec<u8>> {
    let metadata = &header.metadata;
    let architecture = architecture(header)?;
    let key = |name: &str| format!("{}.{name}", architecture.name);
    let unknown = metadata.keys().find(|known| {
        known
            .strip_prefix(architecture.name)
            .and_then(|rest| rest.strip_prefix('.'))
            .is_some_and(|rest| !KNOWN.contains(&rest))
    });
    if let Some(unknown) = unknown {
        return Err(metadata
            .problem(format!("metadata key {unknown} is not implemented; it may change the arithmetic")));
    }
    let needed = |name: &str| {
        let size = metadata.size(&key(name))?;
        size.ok_or_else(|| metadata.problem(format!("metadata key {} is missing", key(name))))
    };
    if let Some(experts @ 1..) = metadata.size(&key("expert_count"))? {
        return Err(metadata.problem(format!(
            "{} is {experts}: mixtures of experts are not implemented for GGUF files",
            key("expert_count")
        )));
    }
    let embedding = header.tensor("token_embd.weight").ok_or_else(|| Error::TensorMissing {
        file: metadata.path().to_path_buf(),
        name: "token_embd.weight".into(),
    })?;
    let (hidden, heads) = (needed("embedding_length")?, needed("attention.head_count")?);
    let head_dim = match metadata.size(&key("attention.key_length"))? {
        Some(head_dim) => head_dim,
        None => hidden.checked_div(heads).unwrap_or_default(),
    };
    if let Some(value_length) = metadata.size(&key("attention.value_length"))?
        && value_length != head_dim
    {
        return Err(metadata.problem(format!(
            "{} is {value_length}, expected the {head_dim} of {}: values of a size of their own are not implemented",
            key("attention.value_length"),
            key("attention.key_length")
        )));
    }
    let has = |tensor: &str| header.tensor(tensor).is_some();
    let mut config = Map::new();
    let mut set = |name: &str, value: Value| config.insert(name.into(), value);
    set("model_type", architecture.model_type.into());
    set("vocab_size", embedding.shape[0].into());
    set("hidden_size", hidden.into());
    set("num_hidden_layers", needed("block_count")?.into());
    set("num_attention_heads", heads.into());
    set("num_key_value_heads", metadata.size(&key("attention.head_count_kv"))?.unwrap_or(heads).into());
    set("head_dim", head_dim.into());
    let intermediate = needed("feed_forward_length")?;
    set("intermediate_size", intermediate.into());
    set("n_inner", intermediate.into());
    set("max_position_embeddings", needed("context_length")?.into());
    set("tie_word_embeddings", (!has("output.weight")).into());
    set("attention_bias", has("blk.0.attn_q.bias").into());
    set("mlp_bias", has("blk.0.ffn_gate.bias").into());
    let (epsilon, ours) = match architecture.name {
        "gpt2" => ("attention.layer_norm_epsilon", "layer_norm_epsilon"),
        _ => ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
    };
    let epsilon = metadata
        .number(&key(epsilon))?
        .ok_or_else(|| metadata.problem(format!("metadata key {} is missing", key(epsilon))))?;
    set(ours, epsilon.into());
    // llama.cpp's default, whatever the family's.
    set("rope_theta", metadata.number(&key("rope.freq_base"))?.unwrap_or(10_000.0).into());
    if let Some(turned) = metadata.size(&key("rope.dimension_count"))?
        && turned != head_dim
    {
        set("partial_rotary_factor", (turned as f64 / head_dim as f64).into());
    }
    if let Some(scaling) = rotary_scaling(header, architecture)? {
        // Phi-3 reads it beside the object, not in it.
        if let Some(original) = scaling.get("original_max_position_embeddings") {
            set("original_max_position_embeddings", original.clone());
        }
        set("rope_scaling", scaling);
    }
    match metadata.size(&key("attention.sliding_window"))? {
        Some(window @ 1..) if architecture.name == "phi3" => set("sliding_window", window.into()),
        Some(window @ 1..) => {
            return Err(metadata.problem(format!(
                "{} is {window}: windows are not implemented for {} in GGUF files",
                key("attention.sliding_window"),
                architecture.name
            )));
        }
        _ => None,
    };
    let (begin, end) = special_tokens(header)?;
    set("bos_token_id", begin);
    set("eos_token_id", end);
    Ok(Value::Object(config).to_string().into_bytes())
}

/// The architecture of a file.
pub(super) fn architecture(header: &Header<'_>) -> Result<&'static Architecture> {
    let metadata = &header.metadata;
    let name = metadata
        .text("general.architecture")?
        .ok_or_else(|| metadata.problem("metadata key general.architecture is missing"))?;
    ARCHITECTURES.iter().find(|known| known.name == name).ok_or_else(|| {
        let known: Vec<&str> = ARCHITECTURES.iter().map(|known| known.name).collect();
        metadata.problem(format!("general.architecture {name:?} does not load; known: {}", known.join(", ")))
    })
}

/// `rope_scaling`, in Transformers' words.
fn rotary_scaling(header: &Header<'_>, architecture: &Architecture) -> Result<Option<Value>> {
    let metadata = &header.metadata;
    let key = |name: &str| format!("{}.rope.{name}", architecture.name);
    let factor = metadata.number(&key("scaling.factor"))?;
    let attention_factor = metadata.number(&key("scaling.attn_factor"))?;
    let original = metadata.number(&key("scaling.original_context_length"))?;
    // A factor for each angle. Llama 3's scaling is stored as such a list, the same for every length.
    let [all, short, long] = ["rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"]
        .map(|name| header.f32s(name));
    if let Some(factors) = all? {
        let kind = metadata.text(&key("scaling.type"))?;
        let plain = kind.as_deref().is_none_or(|kind| ["none", "llama3"].contains(&kind));
        if !plain || [factor, attention_factor].iter().flatten().any(|factor| *factor != 1.0) {
            return Err(metadata.problem(format!(
                "{} besides the factors of rope_freqs.weight is not implemented",
                key("scaling")
            )));
        }
        let context = metadata.size(&key("context_length").replace(".rope", ""))?;
        return Ok(Some(json!({
            "rope_type": "longrope", "short_factor": factors, "long_factor": factors,
            "attention_factor": 1.0, "original_max_position_embeddings": context,
        })));
    }
    if let (Some(short), Some(long)) = (short?, long?) {
        return Ok(Some(json!({
            "rope_type": "longrope", "short_factor": short, "long_factor": long,
            "attention_factor": attention_factor, "original_max_position_embeddings": original,
        })));
    }
    if attention_factor.is_some_and(|factor| factor != 1.0) {
        return Err(metadata.problem(format!(
            "metadata key {} is not implemented without factors of the angles",
            key("scaling.attn_factor")
        )));
    }
    let kind = match metadata.text(&key("scaling.type"))? {
        Some(kind) => kind,
        // Before there were kinds.
        None => match metadata.number(&key("scale_linear"))?.or(factor) {
            Some(factor) if factor != 1.0 => "linear".into(),
            _ => "none".into(),
        },
    };
    if kind == "none" {
        return Ok(None);
    }
    let mut scaling = Map::new();
    scaling.insert("rope_type".into(), kind.into());
    scaling.insert("original_max_position_embeddings".into(), original.into());
    for (name, ours) in [
        ("scale_linear", "factor"),
        ("scaling.factor", "factor"),
        ("scaling.yarn_beta_fast", "beta_fast"),
        ("scaling.yarn_beta_slow", "beta_slow"),
    ] {
        if let Some(value) = metadata.number(&key(name))? {
            scaling.insert(ours.into(), value.into());
        }
    }
    Ok(Some(Value::Object(scaling)))
}

/// The begin token and the end tokens; llama.cpp's defaults where the file names none.
fn special_tokens(header: &Header<'_>) -> Result<(Value, Value)> {
    let metadata = &header.metadata;
    let token = |name: &str| metadata.size(&format!("tokenizer.ggml.{name}_token_id"));
    let sentencepiece = metadata.text("tokenizer.ggml.model")?.as_deref() == Some("llama");
    let begin = token("bos")?.or(sentencepiece.then_some(1));
    let mut ends = vec![];
    for end in [token("eos")?.or(sentencepiece.then_some(2)), token("eot")?, token("eom")?] {
        ends.extend(end.filter(|end| !ends.contains(end)));
    }
    Ok((begin.into(), ends.into()))
}
