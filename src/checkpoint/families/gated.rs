//! What the families in Llama's shape have in common: RMS norm before each half of a layer, rotary
//! positions, a gated MLP, and the names of their tensors. Each family states its own defaults and
//! what it adds.

use super::rotary::{RotaryDefaults, rotary};
use super::sizes::{Sizes, shared_out};
use super::{ConfigFile, Family, Place};
use crate::error::Result;
use crate::model::config::Normalization;
use crate::model::parameter::{LayerModule, Projection};
use crate::model::{ModelConfig, Module};

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
    /// The share of each head that turns, in families whose configs may change it.
    pub rotary_partial: Option<f64>,
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
    rotary_partial: None,
    activation: "silu",
    activation_key: "hidden_act",
    tied_head: false,
};

/// What a family in this shape is, but for its name and its config.
pub(super) const FAMILY: Family = Family {
    model_type: "",
    config: |file| decoder(file, LLAMA),
    place,
    prefix: "model.",
    begin_token: None,
    end_token: None,
    is_unused,
};

/// The decoder that a config describes, without what single families add.
pub(super) fn decoder(file: &ConfigFile, defaults: Defaults) -> Result<ModelConfig> {
    let hidden = file.size("hidden_size", Some(defaults.hidden))?;
    let heads = file.size("num_attention_heads", Some(defaults.heads))?;
    let context = file.size("max_position_embeddings", Some(defaults.context))?;
    let head_dim = match (file.has("head_dim"), defaults.head_dim) {
        (false, None) => shared_out(file, hidden, heads)?,
        (_, default) => file.size("head_dim", default)?,
    };
    let partial = defaults.rotary_partial.unwrap_or(1.0);
    let rotary = rotary(file, RotaryDefaults { base: defaults.rotary_base, partial, head_dim, context })?;
    if defaults.rotary_partial.is_none() && rotary.dims != head_dim {
        return Err(file.problem("partial_rotary_factor is not implemented for this family; expected 1"));
    }
    let sizes = Sizes {
        vocabulary: file.size("vocab_size", Some(defaults.vocabulary))?,
        hidden,
        intermediate: file.size("intermediate_size", Some(defaults.intermediate))?,
        layers: file.size("num_hidden_layers", Some(defaults.layers))?,
        heads,
        // An absent key has the family's number, null as many as query heads.
        kv_heads: match file.mentions("num_key_value_heads") {
            true => file.size("num_key_value_heads", Some(heads))?,
            false => defaults.kv_heads.unwrap_or(heads),
        },
        head_dim,
        context: rotary.scaling.longest(context),
    };
    let plain = sizes.model(file)?;
    Ok(ModelConfig {
        norm: Normalization {
            epsilon: file.number("rms_norm_eps", Some(defaults.norm_epsilon))?,
            ..plain.norm
        },
        rotaries: vec![rotary],
        rotary_layers: vec![Some(0); plain.rotary_layers.len()],
        gated: true,
        activation: file.activation(defaults.activation_key, defaults.activation)?,
        tied_head: file.flag("tie_word_embeddings", defaults.tied_head)?,
        ..plain
    })
}

/// Llama's tensors. Its norm behind the attention's output serves as the MLP's; in a family with
/// norms after each half the same name is the attention's own.
pub(super) fn place(_config: &ModelConfig, module: Module) -> Place {
    use LayerModule::*;
    Place::of(match module {
        Module::Embedding => "model.embed_tokens".into(),
        Module::FinalNorm => "model.norm".into(),
        Module::OutputHead => "lm_head".into(),
        Module::Layer(layer, module) => {
            let part = match module {
                AttentionNorm => "input_layernorm".into(),
                Query => "self_attn.q_proj".into(),
                Key => "self_attn.k_proj".into(),
                Value => "self_attn.v_proj".into(),
                QueryNorm => "self_attn.q_norm".into(),
                KeyNorm => "self_attn.k_norm".into(),
                AttentionOutput => "self_attn.o_proj".into(),
                MlpNorm | AttentionPostNorm => "post_attention_layernorm".into(),
                MlpPostNorm => "post_feedforward_layernorm".into(),
                Mlp(projection) => format!("mlp.{}", projection_name(projection)),
                Router => "mlp.gate".into(),
                Expert(expert, projection) => {
                    format!("mlp.experts.{expert}.{}", projection_name(projection))
                }
                SharedExpert(projection) => format!("mlp.shared_expert.{}", projection_name(projection)),
                SharedExpertGate => "mlp.shared_expert_gate".into(),
            };
            format!("model.layers.{layer}.{part}")
        }
        other => unreachable!("no family in this shape has {other:?}"),
    })
}

fn projection_name(projection: Projection) -> &'static str {
    match projection {
        Projection::Gate => "gate_proj",
        Projection::Up => "up_proj",
        Projection::Down => "down_proj",
    }
}

/// Tables of angles, which old checkpoints carry.
fn is_unused(name: &str) -> bool {
    name.ends_with("rotary_emb.inv_freq")
}
