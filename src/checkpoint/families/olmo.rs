//! OLMo (Groeneveld et al. 2024) and OLMo 2 (Walsh et al. 2025): Llama's shape, in the first with norms
//! that have no parameters and clipped queries, keys and values, in the second with norms after
//! attention and MLP instead of before them, and norms over all queries and all keys. Defaults are
//! those of Transformers' `OlmoConfig` and `Olmo2Config`.

use super::gated::{Defaults, LLAMA, decoder};
use super::{ConfigFile, Family, gated};
use crate::error::Result;
use crate::kernels::norm::NormKind;
use crate::model::ModelConfig;
use crate::model::config::{NormOver, NormPlacement, Normalization, QueryKeyNorm};

pub(super) const OLMO: Family =
    Family { model_type: "olmo", config: olmo, end_token: Some(50279), ..gated::FAMILY };

pub(super) const OLMO2: Family = Family { model_type: "olmo2", config: olmo2, ..OLMO };

/// What both have.
fn common(file: &ConfigFile) -> Result<ModelConfig> {
    let bias = file.flag("attention_bias", false)?;
    Ok(ModelConfig {
        query_key_value_bias: bias,
        attention_output_bias: bias,
        ..decoder(file, Defaults { vocabulary: 50304, norm_epsilon: 1e-5, ..LLAMA })?
    })
}

fn olmo(file: &ConfigFile) -> Result<ModelConfig> {
    let config = common(file)?;
    let clip = file.has("clip_qkv").then(|| file.number("clip_qkv", None)).transpose()?;
    Ok(ModelConfig {
        // No key changes its epsilon.
        norm: Normalization { kind: NormKind::Layer, epsilon: 1e-5, weight: false, ..config.norm },
        query_key_value_clip: clip,
        ..config
    })
}

fn olmo2(file: &ConfigFile) -> Result<ModelConfig> {
    Ok(ModelConfig {
        norm_placement: NormPlacement::After,
        query_key_norm: Some(QueryKeyNorm { over: NormOver::Whole, bias: false }),
        ..common(file)?
    })
}
