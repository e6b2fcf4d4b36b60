//! Mistral (Jiang et al. 2023): Llama's shape with a sliding window in every layer. Defaults are
//! those of Transformers' `MistralConfig`.

use super::gated::{Defaults, LLAMA, decoder};
use super::{ConfigFile, Family, llama};
use crate::error::Result;
use crate::model::ModelConfig;

pub(super) const FAMILY: Family = Family { model_type: "mistral", config, ..llama::FAMILY };

fn config(file: &ConfigFile) -> Result<ModelConfig> {
    let defaults = Defaults { intermediate: 14336, context: 4096 * 32, kv_heads: Some(8), ..LLAMA };
    let config = decoder(file, defaults)?;
    let window = file.size_or_null("sliding_window", Some(4096))?;
    Ok(ModelConfig { windows: vec![window; config.windows.len()], ..config })
}
