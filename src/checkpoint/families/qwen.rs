//! Qwen2 (Yang et al. 2024) and Qwen3 (Yang et al. 2025): Llama's shape, with biases on query, key
//! and value (2) or a norm on each query and key head (3), and of both a kind with a choice among
//! several MLPs. Defaults are those of Transformers' `Qwen2Config`, `Qwen3Config`, `Qwen2MoeConfig`
//! and `Qwen3MoeConfig`.

use super::gated::{Defaults, LLAMA, decoder};
use super::{ConfigFile, Family, gated};
use crate::error::Result;
use crate::model::ModelConfig;
use crate::model::config::{Experts, NormOver, QueryKeyNorm};

pub(super) const QWEN2: Family = Family { model_type: "qwen2", config: qwen2, ..gated::FAMILY };

pub(super) const QWEN2_MOE: Family = Family { model_type: "qwen2_moe", config: qwen2_moe, ..gated::FAMILY };

pub(super) const QWEN3: Family = Family { model_type: "qwen3", config: qwen3, ..gated::FAMILY };

pub(super) const QWEN3_MOE: Family = Family { model_type: "qwen3_moe", config: qwen3_moe, ..gated::FAMILY };

const DEFAULTS: Defaults =
    Defaults { vocabulary: 151_936, intermediate: 22016, context: 32768, kv_heads: Some(32), ..LLAMA };

fn qwen2(file: &ConfigFile) -> Result<ModelConfig> {
    let config = decoder(file, DEFAULTS)?;
    Ok(ModelConfig { windows: windows(file, config.windows.len())?, query_key_value_bias: true, ..config })
}

fn qwen3(file: &ConfigFile) -> Result<ModelConfig> {
    let config = decoder(file, Defaults { head_dim: Some(128), ..DEFAULTS })?;
    let bias = file.flag("attention_bias", false)?;
    Ok(ModelConfig {
        windows: windows(file, config.windows.len())?,
        query_key_norm: Some(HEAD_NORM),
        query_key_value_bias: bias,
        attention_output_bias: bias,
        ..config
    })
}

const HEAD_NORM: QueryKeyNorm = QueryKeyNorm { over: NormOver::Heads, bias: false };

fn qwen2_moe(file: &ConfigFile) -> Result<ModelConfig> {
    let defaults =
        Defaults { hidden: 2048, intermediate: 5632, layers: 24, heads: 16, kv_heads: Some(16), ..DEFAULTS };
    let config = decoder(file, defaults)?;
    // Without layer_types every second layer has the window.
    let first_full = file.size("max_window_layers", Some(28))?;
    let windows = if file.has("layer_types") {
        windows(file, config.windows.len())?
    } else {
        let window = window(file)?;
        let windowed = |layer: usize| layer.is_multiple_of(2) && layer < first_full;
        (0..config.windows.len()).map(|layer| window.filter(|_| windowed(layer))).collect()
    };
    let shared = file.size("shared_expert_intermediate_size", Some(5632))?;
    Ok(ModelConfig {
        windows,
        query_key_value_bias: file.flag("qkv_bias", true)?,
        experts: Some(Experts {
            shared_intermediate: Some(shared),
            ..experts(file, config.windows.len(), [60, 4, 1408])?
        }),
        ..config
    })
}

fn qwen3_moe(file: &ConfigFile) -> Result<ModelConfig> {
    let defaults = Defaults { hidden: 2048, intermediate: 6144, layers: 24, kv_heads: Some(4), ..DEFAULTS };
    let config = decoder(file, defaults)?;
    let bias = file.flag("attention_bias", false)?;
    Ok(ModelConfig {
        // In every layer, where it is asked for.
        windows: vec![window(file)?; config.windows.len()],
        query_key_norm: Some(HEAD_NORM),
        query_key_value_bias: bias,
        attention_output_bias: bias,
        experts: Some(experts(file, config.windows.len(), [128, 8, 768])?),
        ..config
    })
}

/// The experts; `defaults` are their number, how many a token passes, and their inner width.
fn experts(file: &ConfigFile, layers: usize, defaults: [usize; 3]) -> Result<Experts> {
    // Transformers 5 writes the newer name.
    let count = if file.has("num_local_experts") { "num_local_experts" } else { "num_experts" };
    let dense = file.token_ids("mlp_only_layers")?;
    let step = file.size("decoder_sparse_step", Some(1))?;
    let sparse = |layer: usize| step > 0 && (layer + 1).is_multiple_of(step);
    Ok(Experts {
        count: file.size(count, Some(defaults[0]))?,
        chosen: file.size("num_experts_per_tok", Some(defaults[1]))?,
        intermediate: file.size("moe_intermediate_size", Some(defaults[2]))?,
        normalized: file.flag("norm_topk_prob", false)?,
        shared_intermediate: None,
        layers: (0..layers).map(|layer| sparse(layer) && !dense.contains(&(layer as u32))).collect(),
    })
}

/// The window, where `use_sliding_window` asks for one.
fn window(file: &ConfigFile) -> Result<Option<usize>> {
    match file.flag("use_sliding_window", false)? {
        true => file.size_or_null("sliding_window", Some(4096)),
        false => Ok(None),
    }
}

/// A window only where `use_sliding_window` asks for it: in the layers that `layer_types` names, or
/// from `max_window_layers` on.
fn windows(file: &ConfigFile, layers: usize) -> Result<Vec<Option<usize>>> {
    let window = window(file)?;
    if let Some(types) = file.layer_types()? {
        let windowed = |kind: &String| kind == "sliding_attention";
        if window.is_none() && types.iter().any(windowed) {
            return Err(file
                .problem("layer_types names sliding_attention, and use_sliding_window does not ask for it"));
        }
        return Ok(types.iter().map(|kind| window.filter(|_| windowed(kind))).collect());
    }
    let first = file.size("max_window_layers", Some(28))?;
    Ok((0..layers).map(|layer| window.filter(|_| layer >= first)).collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn windows_of(json: &str) -> Result<Vec<Option<usize>>> {
        let file = ConfigFile::parse(Path::new("config.json"), json.as_bytes())?;
        Ok(QWEN2.translate(&file)?.windows)
    }

    #[test]
    fn windows_are_where_transformers_has_them() {
        let with = |more: &str| format!(r#"{{"model_type":"qwen2","num_hidden_layers":3{more}}}"#);
        assert_eq!(windows_of(&with("")).unwrap(), [None; 3]);
        assert_eq!(windows_of(&with(r#","sliding_window":9"#)).unwrap(), [None; 3], "not asked for");
        let asked = r#","use_sliding_window":true,"sliding_window":9"#;
        assert_eq!(windows_of(&with(asked)).unwrap(), [None; 3], "only from layer 28 on");
        let from_1 = format!(r#"{asked},"max_window_layers":1"#);
        assert_eq!(windows_of(&with(&from_1)).unwrap(), [None, Some(9), Some(9)]);
        let named =
            format!(r#"{asked},"layer_types":["sliding_attention","full_attention","full_attention"]"#);
        assert_eq!(windows_of(&with(&named)).unwrap(), [Some(9), None, None]);
        for (more, word) in [
            (
                r#","layer_types":["sliding_attention","full_attention","full_attention"]"#,
                "use_sliding_window",
            ),
            (r#","layer_types":["full_attention"]"#, "layer_types"),
            (r#","layer_types":["full_attention","linear_attention","full_attention"]"#, "layer_types"),
            (r#","use_sliding_window":true,"sliding_window":0,"max_window_layers":0"#, "sliding_window"),
        ] {
            let message = windows_of(&with(more)).unwrap_err().to_string();
            assert!(message.contains(word) && message.contains("config.json"), "{more}: {message}");
        }
    }
}
