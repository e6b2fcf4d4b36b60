//! Llama (Touvron et al. 2023) and the models in its shape: Llama 1 to 3, SmolLM, SmolLM2,
//! TinyLlama. Defaults are those of Transformers' `LlamaConfig`.

use super::gated::{LLAMA, decoder};
use super::{ConfigFile, Family, gated};
use crate::error::Result;
use crate::model::ModelConfig;

pub(super) const FAMILY: Family =
    Family { model_type: "llama", config, begin_token: Some(1), end_token: Some(2), ..gated::FAMILY };

fn config(file: &ConfigFile) -> Result<ModelConfig> {
    let bias = file.flag("attention_bias", false)?;
    Ok(ModelConfig {
        query_key_value_bias: bias,
        attention_output_bias: bias,
        mlp_bias: file.flag("mlp_bias", false)?,
        ..decoder(file, LLAMA)?
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::position::RotaryScaling;

    fn parse(json: &str) -> Result<ModelConfig> {
        FAMILY.translate(&ConfigFile::parse(Path::new("config.json"), json.as_bytes())?)
    }

    #[test]
    fn absent_keys_take_the_defaults_of_transformers() {
        let config = parse(r#"{"model_type":"llama","num_key_value_heads":null}"#).unwrap();
        assert_eq!((config.vocabulary, config.hidden, config.intermediate), (32000, 4096, 11008));
        assert_eq!((config.layers, config.heads, config.kv_heads, config.head_dim), (32, 32, 32, 128));
        assert_eq!((config.context, config.norm.epsilon, config.rotaries[0].base), (2048, 1e-6, 10_000.0));
        assert!(!config.tied_head && !config.query_key_value_bias && !config.mlp_bias);
    }

    #[test]
    fn both_spellings_of_rotary_positions_mean_the_same() {
        let four = r#"{"rope_theta":500000.0,"rope_scaling":{"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":32}}"#;
        let five = r#"{"rope_parameters":{"rope_theta":500000.0,"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":32}}"#;
        let rotary = parse(four).unwrap().rotaries.remove(0);
        assert_eq!(rotary, parse(five).unwrap().rotaries[0]);
        assert_eq!(rotary.base, 500_000.0);
        assert!(matches!(rotary.scaling, RotaryScaling::Llama3 { original_context: 32.0, .. }));
    }

    #[test]
    fn what_changes_the_arithmetic_and_is_not_implemented_is_named() {
        for (json, word) in [
            (r#"{"hidden_act":"quick_gelu"}"#, "hidden_act"),
            (r#"{"rope_scaling":{"type":"axial","factor":2.0}}"#, "axial"),
            (r#"{"rope_scaling":{"type":"dynamic","factor":-2.0}}"#, "factor"),
            (
                r#"{"rope_scaling":{"type":"longrope","short_factor":[1.0],"long_factor":[1.0]}}"#,
                "short_factor",
            ),
            (
                r#"{"rope_parameters":{"rope_type":"default","partial_rotary_factor":0.5}}"#,
                "partial_rotary_factor",
            ),
            (r#"{"num_attention_heads":0}"#, "num_attention_heads"),
            (r#"{"num_hidden_layers":9223372036854775808}"#, "num_hidden_layers"),
            (r#"{"num_hidden_layers":-1}"#, "num_hidden_layers"),
            (r#"{"num_key_value_heads":5}"#, "multiple of num_key_value_heads"),
            (r#"{"head_dim":3}"#, "head_dim"),
            (r#"{"hidden_size":"big"}"#, "hidden_size"),
            (r#"{"rms_norm_eps":-1.0}"#, "epsilon"),
        ] {
            let message = parse(json).unwrap_err().to_string();
            assert!(message.contains(word) && message.contains("config.json"), "{json}: {message}");
        }
    }
}
