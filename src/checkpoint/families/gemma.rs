//! Gemma (Gemma Team 2024): Llama's shape with a GELU gate, norms whose weights are stored as
//! differences from 1, and an embedding multiplied by √hidden. Defaults are those of Transformers'
//! `GemmaConfig`.

use super::gated::{Defaults, LLAMA, decoder, is_buffer, tensor_name};
use super::{ConfigFile, Family};
use crate::error::Result;
use crate::model::ModelConfig;
use crate::model::config::Multipliers;

pub(super) const FAMILY: Family =
    Family { model_type: "gemma", config, tensor_name, begin_token: Some(2), end_token: Some(1), is_buffer };

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

fn config(file: &ConfigFile) -> Result<ModelConfig> {
    if file.flag("use_bidirectional_attention", false)? {
        return Err(file.problem("use_bidirectional_attention is not implemented"));
    }
    let bias = file.flag("attention_bias", false)?;
    let config = decoder(file, DEFAULTS)?;
    let embedding = (config.hidden as f64).sqrt();
    Ok(ModelConfig {
        norm_offset: 1.0,
        query_key_value_bias: bias,
        attention_output_bias: bias,
        multipliers: Multipliers { embedding, ..Multipliers::NONE },
        ..config
    })
}
