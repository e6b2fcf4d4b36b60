//! What the families in Llama's shape have in common: RMS norm before each half of a layer, rotary
//! positions, a gated MLP, and the names of their tensors. Each family states its own defaults and
//! what it adds.

use super::ConfigFile;
use crate::error::Result;
use crate::kernels::elementwise::Activation;
use crate::model::config::{LayerParameter, Multipliers};
use crate::model::{ModelConfig, Parameter};

/// Defaults that differ from family to family in Transformers.
pub(super) struct Defaults {
    pub vocabulary: usize,
    pub hidden: usize,
    pub intermediate: usize,
    pub layers: usize,
    pub heads: usize,
    /// `None`: as many as query heads.
    pub kv_heads: Option<usize>,
    /// `None`: the hidden size shared out among the heads.
    pub head_dim: Option<usize>,
    pub context: usize,
    pub norm_epsilon: f64,
    pub rotary_base: f64,
    pub activation: &'static str,
    /// The key that names it.
    pub activation_key: &'static str,
    pub tied_head: bool,
}

/// `LlamaConfig`'s.
pub(super) const LLAMA: Defaults = Defaults {
    vocabulary: 32000,
    hidden: 4096,
    intermediate: 11008,
    layers: 32,
    heads: 32,
    kv_heads: None,
    head_dim: None,
    context: 2048,
    norm_epsilon: 1e-6,
    rotary_base: 10_000.0,
    activation: "silu",
    activation_key: "hidden_act",
    tied_head: false,
};

/// The decoder that a config describes, without what single families add.
pub(super) fn decoder(file: &ConfigFile, defaults: Defaults) -> Result<ModelConfig> {
    let family = file.text("model_type", Some("llama"))?;
    let activation = match (
        file.text(defaults.activation_key, Some(defaults.activation))?.as_str(),
        defaults.activation,
    ) {
        ("silu" | "swish", "silu") => Activation::Silu,
        // Gemma's first configs say gelu and mean its approximation.
        ("gelu" | "gelu_pytorch_tanh", "gelu_pytorch_tanh") => Activation::GeluTanh,
        (other, expected) => {
            let key = defaults.activation_key;
            let problem = format!("{key} {other:?} is not implemented for {family}; expected {expected}");
            return Err(file.problem(problem));
        }
    };
    let hidden = file.size("hidden_size", Some(defaults.hidden))?;
    let layers = file.size("num_hidden_layers", Some(defaults.layers))?;
    let heads = file.size("num_attention_heads", Some(defaults.heads))?;
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
    // Lists only for numbers that a model can have: `validate` follows.
    let listed = layers.min(MOST_LAYERS);
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
        norm_epsilon: file.number("rms_norm_eps", Some(defaults.norm_epsilon))?,
        norm_offset: 0.0,
        norm_before: true,
        norm_after: false,
        rotaries: vec![file.rotary(defaults.rotary_base, context)?],
        rotary_layers: vec![Some(0); listed],
        windows: vec![None; listed],
        attention_scale: 1.0 / (head_dim as f64).sqrt(),
        score_cap: None,
        logit_cap: None,
        query_key_norm: None,
        query_key_value_bias: false,
        attention_output_bias: false,
        activation,
        mlp_bias: false,
        tied_head: file.flag("tie_word_embeddings", defaults.tied_head)?,
        multipliers: Multipliers::NONE,
    })
}

/// More than `ModelConfig::validate` lets through.
const MOST_LAYERS: usize = 10_001;

/// The names of Llama's tensors. Its norm behind the attention's output serves as the MLP's; in a
/// family with norms after each half the same name is the attention's own.
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
                MlpNorm | AttentionPostNorm => "post_attention_layernorm.weight",
                MlpPostNorm => "post_feedforward_layernorm.weight",
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
