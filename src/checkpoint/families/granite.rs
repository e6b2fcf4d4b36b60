//! Granite 3 (IBM 2024): Llama's shape with multipliers on embedding, scores, residual stream and
//! logits. Defaults are those of Transformers' `GraniteConfig`.

use super::gated::{LLAMA, decoder};
use super::{ConfigFile, Family, llama};
use crate::error::Result;
use crate::model::ModelConfig;
use crate::model::config::Multipliers;

pub(super) const FAMILY: Family = Family { model_type: "granite", config, ..llama::FAMILY };

fn config(file: &ConfigFile) -> Result<ModelConfig> {
    let bias = file.flag("attention_bias", false)?;
    let config = decoder(file, LLAMA)?;
    let number = |key| file.number(key, Some(1.0));
    Ok(ModelConfig {
        query_key_value_bias: bias,
        attention_output_bias: bias,
        mlp_bias: file.flag("mlp_bias", false)?,
        attention_scales: vec![number("attention_multiplier")?; config.windows.len()],
        multipliers: Multipliers {
            embedding: number("embedding_multiplier")?,
            residual: number("residual_multiplier")?,
            logits: 1.0 / number("logits_scaling")?,
        },
        ..config
    })
}
