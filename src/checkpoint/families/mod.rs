//! Model families as data: each translates its `config.json` into a [`ModelConfig`] and our
//! parameters' names into those of its files. None has a forward pass of its own.

mod bert;
mod bloom;
mod config_file;
mod falcon;
mod gated;
mod gemma;
mod gpt2;
mod gpt_neo;
mod gpt_neox;
mod gptj;
mod granite;
mod layered;
mod llama;
mod mistral;
mod mixtral;
mod olmo;
mod opt;
mod phi;
mod phi3;
mod place;
mod qwen;
mod rotary;
mod sizes;
mod smollm3;
mod stablelm;
mod starcoder2;

pub use config_file::ConfigFile;
pub use place::{Place, Rows};

use crate::error::Result;
use crate::model::{ModelConfig, Module};

/// One family.
#[derive(Clone, Copy)]
pub struct Family {
    /// `model_type` in config.json.
    pub model_type: &'static str,
    pub(super) config: fn(&ConfigFile) -> Result<ModelConfig>,
    /// Where a module lies in the family's files.
    pub(super) place: fn(&ModelConfig, Module) -> Place,
    /// What most names begin with, and lack in files of the model without its head.
    pub(super) prefix: &'static str,
    /// Begin- and end-of-sequence tokens of a config that names none.
    pub(super) begin_token: Option<u32>,
    pub(super) end_token: Option<u32>,
    /// Tensors that files may hold besides: tables without weights of their own, and heads for other
    /// tasks.
    pub(super) is_unused: fn(&str) -> bool,
}

/// Every family that loads.
pub const FAMILIES: &[Family] = &[
    llama::FAMILY,
    mistral::FAMILY,
    mixtral::FAMILY,
    qwen::QWEN2,
    qwen::QWEN2_MOE,
    qwen::QWEN3,
    qwen::QWEN3_MOE,
    gemma::GEMMA,
    gemma::GEMMA2,
    gemma::GEMMA3,
    phi::FAMILY,
    phi3::FAMILY,
    granite::FAMILY,
    olmo::OLMO,
    olmo::OLMO2,
    smollm3::FAMILY,
    stablelm::FAMILY,
    starcoder2::FAMILY,
    gpt2::FAMILY,
    gpt_neo::FAMILY,
    gpt_neox::FAMILY,
    gptj::FAMILY,
    opt::FAMILY,
    falcon::FAMILY,
    bloom::FAMILY,
    bert::BERT,
    bert::ROBERTA,
    bert::XLM_ROBERTA,
    bert::DISTILBERT,
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
