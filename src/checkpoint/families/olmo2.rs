//! OLMo 2 (Walsh et al. 2025): Llama's shape with norms after attention and MLP instead of before
//! them, and norms over all queries and all keys. Defaults are those of Transformers' `Olmo2Config`.

use super::gated::{Defaults, LLAMA, decoder, is_buffer, tensor_name};
use super::{ConfigFile, Family};
use crate::error::Result;
use crate::model::ModelConfig;
use crate::model::config::QueryKeyNorm;

pub(super) const FAMILY: Family =
    Family { model_type: "olmo2", config, tensor_name, begin_token: None, end_token: Some(50279), is_buffer };

fn config(file: &ConfigFile) -> Result<ModelConfig> {
    let bias = file.flag("attention_bias", false)?;
    Ok(ModelConfig {
        norm_before: false,
        norm_after: true,
        query_key_norm: Some(QueryKeyNorm::Whole),
        query_key_value_bias: bias,
        attention_output_bias: bias,
        ..decoder(file, Defaults { vocabulary: 50304, norm_epsilon: 1e-5, ..LLAMA })?
    })
}
