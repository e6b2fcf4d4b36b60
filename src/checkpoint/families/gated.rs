//! What the families in Llama's shape have in common: RMS norm before each half of a layer, rotary
//! positions, a gated MLP, and the names of their tensors. Each family states its own defaults and
//! what it adds.

use super::ConfigFile;
use crate::error::Result;
use crate::model::config::{LayerParameter, Multipliers};
use crate::model::{ModelConfig, Parameter};

/// Defaults of sizes that differ from family to family in Transformers.
pub(super) struct Sizes {
    pub vocabulary: usize,
    pub intermediate: usize,
    pub context: usize,
    /// `None`: as many as query heads.
    pub kv_heads: Option<usize>,
    /// `None`: the hidden size shared out among the heads.
    pub head_dim: Option<usize>,
}

/// The decoder that a config describes, without what single families add.
pub(super) fn decoder(file: &ConfigFile, defaults: Sizes) -> Result<ModelConfig> {
    let family = file.text("model_type", Some("llama"))?;
    let activation = file.text("hidden_act", Some("silu"))?;
    if activation != "silu" && activation != "swish" {
        return Err(
            file.problem(format!("hidden_act {activation:?} is not implemented for {family}; expected silu"))
        );
    }
    let hidden = file.size("hidden_size", Some(4096))?;
    let layers = file.size("num_hidden_layers", Some(32))?;
    let heads = file.size("num_attention_heads", Some(32))?;
    let context = file.size("max_position_embeddings", Some(defaults.context))?;
    let head_dim = match (file.has("head_dim"), defaults.head_dim) {
        (false, None) if heads == 0 || !hidden.is_multiple_of(heads) => {
            return Err(file.problem(format!(
                "hidden_size is {hidden}, expected a multiple of num_attention_heads ({heads}), or head_dim"
            )));
        }
        (false, None) => hidden / heads,
        (_, default) => file.size("head_dim", default)?,
    };
    Ok(ModelConfig {
        family,
        vocabulary: file.size("vocab_size", Some(defaults.vocabulary))?,
        hidden,
        intermediate: file.size("intermediate_size", Some(defaults.intermediate))?,
        layers,
        heads,
        // An absent key has the family's number, null as many as query heads.
        kv_heads: match file.mentions("num_key_value_heads") {
            true => file.size("num_key_value_heads", Some(heads))?,
            false => defaults.kv_heads.unwrap_or(heads),
        },
        head_dim,
        context,
        norm_epsilon: file.number("rms_norm_eps", Some(1e-6))?,
        rotary: file.rotary(10_000.0, context)?,
        // Shared out only where the number is one that a model can have: `validate` follows.
        windows: vec![None; layers.min(MOST_LAYERS)],
        attention_scale: 1.0 / (head_dim as f64).sqrt(),
        query_key_norm: false,
        query_key_value_bias: false,
        attention_output_bias: false,
        mlp_bias: false,
        tied_head: file.flag("tie_word_embeddings", false)?,
        multipliers: Multipliers::NONE,
    })
}

/// More than `ModelConfig::validate` lets through.
const MOST_LAYERS: usize = 10_001;

/// The names of Llama's tensors.
pub(super) fn tensor_name(parameter: Parameter) -> String {
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
                QueryNorm => "self_attn.q_norm.weight",
                KeyNorm => "self_attn.k_norm.weight",
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

/// Tables of angles, which old checkpoints carry.
pub(super) fn is_buffer(name: &str) -> bool {
    name.ends_with("rotary_emb.inv_freq")
}
