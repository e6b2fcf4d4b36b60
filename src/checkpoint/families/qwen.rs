//! Qwen2 (Yang et al. 2024) and Qwen3 (Yang et al. 2025): Llama's shape, with biases on query, key
//! and value (2) or a norm on each query and key head (3). Defaults are those of Transformers'
//! `Qwen2Config` and `Qwen3Config`.

use super::gated::{Defaults, LLAMA, decoder, is_buffer, tensor_name};
use super::{ConfigFile, Family};
use crate::error::Result;
use crate::model::ModelConfig;
use crate::model::config::QueryKeyNorm;

pub(super) const QWEN2: Family =
    Family { model_type: "qwen2", config: qwen2, tensor_name, begin_token: None, end_token: None, is_buffer };

pub(super) const QWEN3: Family = Family { model_type: "qwen3", config: qwen3, ..QWEN2 };

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
        query_key_norm: Some(QueryKeyNorm::Heads),
        query_key_value_bias: bias,
        attention_output_bias: bias,
        ..config
    })
}

/// A window only where `use_sliding_window` asks for it: in the layers that `layer_types` names, or
/// from `max_window_layers` on.
fn windows(file: &ConfigFile, layers: usize) -> Result<Vec<Option<usize>>> {
    let window = match file.flag("use_sliding_window", false)? {
        true if file.has("sliding_window") || !file.mentions("sliding_window") => {
            Some(file.size("sliding_window", Some(4096))?)
        }
        _ => None,
    };
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
