//! Llama (Touvron et al. 2023) and the models in its shape: Llama 1 to 3, SmolLM, SmolLM2,
//! TinyLlama. Defaults are those of Transformers' `LlamaConfig`.

use super::{ConfigFile, Family};
use crate::error::Result;
use crate::model::config::LayerParameter;
use crate::model::{ModelConfig, Parameter};

pub(super) const FAMILY: Family = Family {
    model_type: "llama",
    config,
    tensor_name,
    begin_token: Some(1),
    end_token: Some(2),
    is_buffer: |name| name.ends_with("rotary_emb.inv_freq"),
};

fn config(file: &ConfigFile) -> Result<ModelConfig> {
    let activation = file.text("hidden_act", Some("silu"))?;
    if activation != "silu" && activation != "swish" {
        return Err(
            file.problem(format!("hidden_act {activation:?} is not implemented for llama; expected silu"))
        );
    }
    let hidden = file.size("hidden_size", Some(4096))?;
    let heads = file.size("num_attention_heads", Some(32))?;
    let context = file.size("max_position_embeddings", Some(2048))?;
    if !file.has("head_dim") && (heads == 0 || !hidden.is_multiple_of(heads)) {
        return Err(file.problem(format!(
            "hidden_size is {hidden}, expected a multiple of num_attention_heads ({heads}), or head_dim"
        )));
    }
    Ok(ModelConfig {
        family: "llama".into(),
        vocabulary: file.size("vocab_size", Some(32000))?,
        hidden,
        intermediate: file.size("intermediate_size", Some(11008))?,
        layers: file.size("num_hidden_layers", Some(32))?,
        heads,
        kv_heads: file.size("num_key_value_heads", Some(heads))?,
        head_dim: if file.has("head_dim") { file.size("head_dim", None)? } else { hidden / heads },
        context,
        norm_epsilon: file.number("rms_norm_eps", Some(1e-6))?,
        rotary: file.rotary(10_000.0, context)?,
        attention_bias: file.flag("attention_bias", false)?,
        mlp_bias: file.flag("mlp_bias", false)?,
        tied_head: file.flag("tie_word_embeddings", false)?,
    })
}

fn tensor_name(parameter: Parameter) -> String {
    use LayerParameter::*;
    match parameter {
        Parameter::Embedding => "model.embed_tokens.weight".into(),
        Parameter::FinalNorm => "model.norm.weight".into(),
        Parameter::OutputHead => "lm_head.weight".into(),
        Parameter::Layer(layer, parameter) => {
            let part = match parameter {
                AttentionNorm => "input_layernorm.weight",
                Query => "self_attn.q_proj.weight",
                Key => "self_attn.k_proj.weight",
                Value => "self_attn.v_proj.weight",
                AttentionOutput => "self_attn.o_proj.weight",
                MlpNorm => "post_attention_layernorm.weight",
                Gate => "mlp.gate_proj.weight",
                Up => "mlp.up_proj.weight",
                Down => "mlp.down_proj.weight",
                QueryBias => "self_attn.q_proj.bias",
                KeyBias => "self_attn.k_proj.bias",
                ValueBias => "self_attn.v_proj.bias",
                AttentionOutputBias => "self_attn.o_proj.bias",
                GateBias => "mlp.gate_proj.bias",
                UpBias => "mlp.up_proj.bias",
                DownBias => "mlp.down_proj.bias",
            };
            format!("model.layers.{layer}.{part}")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::config::RotaryScaling;

    fn parse(json: &str) -> Result<ModelConfig> {
        FAMILY.translate(&ConfigFile::parse(Path::new("config.json"), json.as_bytes())?)
    }

    #[test]
    fn absent_keys_take_the_defaults_of_transformers() {
        let config = parse(r#"{"model_type":"llama","num_key_value_heads":null}"#).unwrap();
        assert_eq!((config.vocabulary, config.hidden, config.intermediate), (32000, 4096, 11008));
        assert_eq!((config.layers, config.heads, config.kv_heads, config.head_dim), (32, 32, 32, 128));
        assert_eq!((config.context, config.norm_epsilon, config.rotary.base), (2048, 1e-6, 10_000.0));
        assert!(!config.tied_head && !config.attention_bias && !config.mlp_bias);
    }

    #[test]
    fn both_spellings_of_rotary_positions_mean_the_same() {
        let four = r#"{"rope_theta":500000.0,"rope_scaling":{"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":32}}"#;
        let five = r#"{"rope_parameters":{"rope_theta":500000.0,"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":32}}"#;
        let rotary = parse(four).unwrap().rotary;
        assert_eq!(rotary, parse(five).unwrap().rotary);
        assert_eq!(rotary.base, 500_000.0);
        assert!(matches!(rotary.scaling, RotaryScaling::Llama3 { original_context: 32.0, .. }));
    }

    #[test]
    fn what_changes_the_arithmetic_and_is_not_implemented_is_named() {
        for (json, word) in [
            (r#"{"hidden_act":"gelu"}"#, "hidden_act"),
            (r#"{"rope_scaling":{"type":"dynamic","factor":2.0}}"#, "dynamic"),
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
            (r#"{"rms_norm_eps":-1.0}"#, "rms_norm_eps"),
        ] {
            let message = parse(json).unwrap_err().to_string();
            assert!(message.contains(word) && message.contains("config.json"), "{json}: {message}");
        }
    }
}
