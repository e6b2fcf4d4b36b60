//! Gemma 1 to 3 (Gemma Team 2024, 2025): Llama's shape with a GELU gate, norms whose weights are
//! stored as differences from 1, and an embedding multiplied by √hidden. Gemma 2 adds norms after
//! each half of a layer, soft caps and windows in every second layer; Gemma 3 norms of heads, windows
//! in five of six layers, and a rotary base of their own for those. Defaults are those of
//! Transformers' `GemmaConfig`, `Gemma2Config` and `Gemma3TextConfig`.

use super::gated::{Defaults, LLAMA, decoder, place as llama_place};
use super::rotary::{RotaryDefaults, rotary_of_kind};
use super::{ConfigFile, Family, Place, gated};
use crate::error::Result;
use crate::kernels::activation::Activation;
use crate::model::config::{Multipliers, NormOver, NormPlacement, Normalization, QueryKeyNorm};
use crate::model::parameter::LayerModule;
use crate::model::{ModelConfig, Module};

pub(super) const GEMMA: Family =
    Family { model_type: "gemma", config: gemma, begin_token: Some(2), end_token: Some(1), ..gated::FAMILY };

pub(super) const GEMMA2: Family = Family { model_type: "gemma2", config: gemma2, place: four_norms, ..GEMMA };

pub(super) const GEMMA3: Family =
    Family { model_type: "gemma3_text", config: gemma3, place: four_norms, ..GEMMA };

const DEFAULTS: Defaults = Defaults {
    vocabulary: 256_000,
    hidden: 3072,
    intermediate: 24576,
    layers: 28,
    heads: 16,
    kv_heads: Some(16),
    head_dim: Some(256),
    context: 8192,
    activation: "gelu_pytorch_tanh",
    tied_head: true,
    ..LLAMA
};

/// What all three have.
fn common(file: &ConfigFile, defaults: Defaults) -> Result<ModelConfig> {
    file.refuse(&["use_bidirectional_attention"])?;
    let bias = file.flag("attention_bias", false)?;
    let config = decoder(file, defaults)?;
    let embedding = (config.hidden as f64).sqrt();
    Ok(ModelConfig {
        norm: Normalization { offset: 1.0, ..config.norm },
        query_key_value_bias: bias,
        attention_output_bias: bias,
        multipliers: Multipliers { embedding, ..Multipliers::NONE },
        ..config
    })
}

fn gemma(file: &ConfigFile) -> Result<ModelConfig> {
    let config = common(file, DEFAULTS)?;
    let activation = match config.activation {
        // Its first configs say gelu and mean its approximation.
        Activation::Gelu => Activation::GeluTanh,
        activation => activation,
    };
    Ok(ModelConfig { activation, ..config })
}

/// Of Gemma 2 and 3: norms before and after each half, a scale of the scores of its own, windows in
/// all layers but every `pattern`-th.
fn later(
    file: &ConfigFile,
    defaults: Defaults,
    pattern: usize,
    caps: [Option<f64>; 2],
) -> Result<ModelConfig> {
    let config = common(file, Defaults { activation_key: "hidden_activation", ..defaults })?;
    let window = file.size_or_null("sliding_window", Some(4096))?;
    let scale = 1.0 / file.number("query_pre_attn_scalar", Some(256.0))?.sqrt();
    let types = file.layer_types()?.unwrap_or_else(|| {
        let kind =
            |layer: usize| if layer.is_multiple_of(pattern) { "full_attention" } else { "sliding_attention" };
        (1..=config.windows.len()).map(|layer| kind(layer).to_owned()).collect()
    });
    let windowed = |kind: &String| kind == "sliding_attention";
    if window.is_none() && types.iter().any(windowed) {
        return Err(file.problem("sliding_window is null, expected a number for the layers that have one"));
    }
    let cap = |key: &str, default: Option<f64>| match file.mentions(key) {
        true if !file.has(key) => Ok(None),
        true => file.number(key, None).map(Some),
        false => Ok(default),
    };
    Ok(ModelConfig {
        norm_placement: NormPlacement::BeforeAndAfter,
        attention_scales: vec![scale; config.windows.len()],
        score_cap: cap("attn_logit_softcapping", caps[0])?,
        logit_cap: cap("final_logit_softcapping", caps[1])?,
        windows: types.iter().map(|kind| window.filter(|_| windowed(kind))).collect(),
        ..config
    })
}

fn gemma2(file: &ConfigFile) -> Result<ModelConfig> {
    let defaults =
        Defaults { hidden: 2304, intermediate: 9216, layers: 26, heads: 8, kv_heads: Some(4), ..DEFAULTS };
    later(file, defaults, 2, [Some(50.0), Some(30.0)])
}

fn gemma3(file: &ConfigFile) -> Result<ModelConfig> {
    const FULL: &str = "full_attention";
    let defaults = Defaults {
        vocabulary: 262_208,
        hidden: 2304,
        intermediate: 9216,
        layers: 26,
        heads: 8,
        kv_heads: Some(4),
        context: 131_072,
        rotary_base: 1_000_000.0,
        ..DEFAULTS
    };
    let config = later(file, defaults, file.size("sliding_window_pattern", Some(6))?.max(1), [None, None])?;
    if file.has("attn_logit_softcapping") {
        return Err(file.problem("attn_logit_softcapping is not implemented for gemma3_text"));
    }
    let by_kind = file.object("rope_parameters")?;
    if by_kind.as_ref().is_some_and(|kinds| kinds.has("rope_type") || kinds.has("rope_theta")) {
        return Err(file.problem("rope_parameters: expected an object for each kind of layer"));
    }
    let nested = by_kind.is_some_and(|kinds| kinds.has(FULL));
    let of_kind =
        |base| RotaryDefaults { base, partial: 1.0, head_dim: config.head_dim, context: config.context };
    let local_base = file.number("rope_local_base_freq", Some(10_000.0))?;
    let full = match nested {
        true if file.has("rope_scaling") => {
            return Err(
                file.problem("rope_scaling and rope_parameters for each kind of layer: expected one of them")
            );
        }
        true => rotary_of_kind(file, FULL, of_kind(file.number("rope_theta", Some(1_000_000.0))?))?,
        false => config.rotaries[0].clone(),
    };
    let local = rotary_of_kind(file, "sliding_attention", of_kind(local_base))?;
    if [&full, &local].iter().any(|rotary| rotary.dims != config.head_dim) {
        return Err(file.problem("partial_rotary_factor is not implemented for gemma3_text; expected 1"));
    }
    Ok(ModelConfig {
        query_key_norm: Some(QueryKeyNorm { over: NormOver::Heads, bias: false }),
        rotaries: vec![full, local],
        rotary_layers: config.windows.iter().map(|window| Some(usize::from(window.is_some()))).collect(),
        ..config
    })
}

/// Llama's names, with one more norm before the MLP.
fn four_norms(config: &ModelConfig, module: Module) -> Place {
    match module {
        Module::Layer(layer, LayerModule::MlpNorm) => {
            Place::of(format!("model.layers.{layer}.pre_feedforward_layernorm"))
        }
        other => llama_place(config, other),
    }
}
