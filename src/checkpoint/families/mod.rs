//! Model families as data: each translates its `config.json` into a [`ModelConfig`] and our
//! parameters' names into those of its files. None has a forward pass of its own.

mod config_file;
mod gated;
mod gemma;
mod granite;
mod llama;
mod mistral;
mod olmo2;
mod qwen;
mod smollm3;

pub use config_file::ConfigFile;

use crate::error::Result;
use crate::model::{ModelConfig, Parameter};

/// One family.
pub struct Family {
    /// `model_type` in config.json.
    pub model_type: &'static str,
    pub(super) config: fn(&ConfigFile) -> Result<ModelConfig>,
    /// The name of a parameter in the family's files.
    pub(super) tensor_name: fn(Parameter) -> String,
    /// Begin- and end-of-sequence tokens of a config that names none.
    pub(super) begin_token: Option<u32>,
    pub(super) end_token: Option<u32>,
    /// Tensors that files may hold besides, and that carry no weights of their own.
    pub(super) is_buffer: fn(&str) -> bool,
}

/// Every family that loads.
pub const FAMILIES: &[Family] = &[
    llama::FAMILY,
    mistral::FAMILY,
    qwen::QWEN2,
    qwen::QWEN3,
    granite::FAMILY,
    olmo2::FAMILY,
    gemma::GEMMA,
    gemma::GEMMA2,
    gemma::GEMMA3,
    smollm3::FAMILY,
];

/// The family of a config.
///
/// # Errors
/// If `model_type` is missing or unknown, or the weights are quantised in a way that is not loaded.
pub fn family_of(config: &ConfigFile) -> Result<&'static Family> {
    if config.has("quantization_config") {
        return Err(config.problem(
            "asks for quantised weights (quantization_config), which are not loaded; \
             use the checkpoint that it was made from",
        ));
    }
    let model_type = config.text("model_type", None)?;
    FAMILIES.iter().find(|family| family.model_type == model_type).ok_or_else(|| {
        let known: Vec<&str> = FAMILIES.iter().map(|family| family.model_type).collect();
        config.problem(format!(
            "model_type {model_type:?} is not a family that loads; known: {}",
            known.join(", ")
        ))
    })
}

impl Family {
    /// Translates and checks a config.
    ///
    /// # Errors
    /// If a value is of the wrong kind, does not fit, or changes the arithmetic in a way that is
    /// not implemented.
    pub fn translate(&self, config: &ConfigFile) -> Result<ModelConfig> {
        let translated = (self.config)(config)?;
        translated.validate().map_err(|problem| config.problem(problem))?;
        Ok(translated)
    }
}
