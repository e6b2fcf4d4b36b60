//! SmolLM3 (Hugging Face 2025): Llama's shape in which some layers, every fourth by default, do not
//! turn queries and keys by their positions. Defaults are those of Transformers' `SmolLM3Config`.

use super::gated::{Defaults, LLAMA, decoder};
use super::{ConfigFile, Family, gated};
use crate::error::Result;
use crate::model::ModelConfig;

pub(super) const FAMILY: Family = Family {
    model_type: "smollm3",
    config,
    begin_token: Some(128_000),
    end_token: Some(128_001),
    ..gated::FAMILY
};

const DEFAULTS: Defaults = Defaults {
    vocabulary: 128_256,
    hidden: 2048,
    layers: 36,
    heads: 16,
    kv_heads: Some(4),
    context: 32768,
    rotary_base: 2_000_000.0,
    tied_head: true,
    ..LLAMA
};

fn config(file: &ConfigFile) -> Result<ModelConfig> {
    file.refuse(&["use_sliding_window"])?;
    let bias = file.flag("attention_bias", false)?;
    let config = decoder(file, DEFAULTS)?;
    // 1 where queries and keys turn, in spite of its name.
    let turning = match file.has("no_rope_layers") {
        true => file.token_ids("no_rope_layers")?.iter().map(|turns| (*turns != 0).then_some(0)).collect(),
        false => {
            let interval = file.size("no_rope_layer_interval", Some(4))?;
            (1..=config.rotary_layers.len())
                .map(|layer| (interval == 0 || !layer.is_multiple_of(interval)).then_some(0))
                .collect()
        }
    };
    Ok(ModelConfig {
        rotary_layers: turning,
        query_key_value_bias: bias,
        attention_output_bias: bias,
        mlp_bias: file.flag("mlp_bias", false)?,
        ..config
    })
}
