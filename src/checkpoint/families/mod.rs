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
        // What Transformers understands in the config of any family.
        config.refuse(&["is_encoder_decoder"])?;
        for key in ["per_layer_config", "dual_chunk_attention_config"] {
            if config.has(key) {
                return Err(config.problem(format!("{key} is not implemented")));
            }
        }
        let translated = (self.config)(config)?;
        translated.validate().map_err(|problem| config.problem(problem))?;
        if !translated.is_encoder() && !config.flag("is_causal", true)? {
            return Err(config.problem("is_causal false is not implemented for a decoder"));
        }
        if let Some(kinds) = config.layer_types()? {
            let windowed = kinds.iter().map(|kind| kind == "sliding_attention");
            if !windowed.eq(translated.windows.iter().map(Option::is_some)) {
                return Err(config.problem(format!(
                    "layer_types does not agree with the sliding windows that {} has",
                    self.model_type
                )));
            }
        }
        let by_kind =
            |parameters: &ConfigFile| parameters.has("full_attention") || parameters.has("sliding_attention");
        if translated.rotaries.len() < 2 && config.object("rope_parameters")?.as_ref().is_some_and(by_kind) {
            return Err(config.problem(format!(
                "rope_parameters for each kind of layer is not implemented for {}",
                self.model_type
            )));
        }
        Ok(translated)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Map, Value, json};

    use super::*;

    fn translate(model_type: &str, fields: Value) -> Result<ModelConfig> {
        let Value::Object(mut values) = fields else { panic!("{fields} is no object") };
        values.insert("model_type".into(), model_type.into());
        let bytes = serde_json::to_vec(&values).unwrap();
        let file = ConfigFile::parse(Path::new("config.json"), &bytes)?;
        family_of(&file)?.translate(&file)
    }

    /// What changes the arithmetic in a way that is not implemented: of which families, and the word
    /// that the error must have.
    fn refused() -> Vec<(Vec<&'static str>, Value, &'static str)> {
        let all: Vec<&str> = FAMILIES.iter().map(|family| family.model_type).collect();
        let but = |names: &[&str]| -> Vec<&str> {
            all.iter().copied().filter(|name| !names.contains(name)).collect()
        };
        let encoders = ["bert", "roberta", "xlm-roberta", "distilbert"];
        let unturned =
            ["gpt2", "gpt_neo", "gptj", "opt", "bloom", "bert", "roberta", "xlm-roberta", "distilbert"];
        let turned = but(&unturned);
        let partial = [&unturned[..], &["phi", "phi3", "stablelm", "gpt_neox"]].concat();
        // Gemma 3 says it with an object for each kind.
        let flat = but(&[&unturned[..], &["gemma3_text"]].concat());
        let windowed = ["gemma2", "gemma3_text"];
        let dual = json!({"chunk_size": 262144, "local_size": 8192});
        let by_kind = json!({"full_attention": {"rope_type": "default", "rope_theta": 5000.0}});
        let of_layer_2 = |layers: usize| {
            let kind = |layer| if layer == 2 { "linear_attention" } else { "full_attention" };
            Value::from((0..layers).map(kind).collect::<Vec<_>>())
        };
        let one = |name: &'static str| vec![name];
        vec![
            (all.clone(), json!({"quantization_config": {"bits": 4}}), "quantization_config"),
            (all.clone(), json!({"per_layer_config": {"0": {}}}), "per_layer_config"),
            (all.clone(), json!({"is_encoder_decoder": true}), "is_encoder_decoder"),
            (all.clone(), json!({"layer_types": of_layer_2(12)}), "layer_types"),
            (all.clone(), json!({"layer_types": ["full_attention"]}), "layer_types"),
            (but(&encoders), json!({"is_causal": false}), "is_causal"),
            (turned.clone(), json!({"dual_chunk_attention_config": dual}), "dual_chunk_attention_config"),
            (turned.clone(), json!({"rope_scaling": {"rope_type": "proportional"}}), "proportional"),
            (turned.clone(), json!({"rope_scaling": {"type": "mrope", "mrope_section": [8]}}), "mrope"),
            (turned.clone(), json!({"rope_scaling": {"rope_type": "linear"}}), "factor"),
            (turned.clone(), json!({"rope_scaling": {"rope_type": "longrope"}}), "short_factor"),
            (
                turned.clone(),
                json!({"rope_scaling": {"rope_type": "yarn", "factor": 2.0},
                       "original_max_position_embeddings": 0}),
                "original_max_position_embeddings",
            ),
            (flat.clone(), json!({"rope_parameters": by_kind}), "rope_parameters"),
            (one("gemma3_text"), json!({"rope_parameters": {"rope_type": "default"}}), "rope_parameters"),
            (but(&partial), json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor"),
            (windowed.to_vec(), json!({"sliding_window": null}), "sliding_window is null"),
            (
                vec!["gemma", "gemma2", "gemma3_text"],
                json!({"use_bidirectional_attention": true}),
                "use_bidirectional_attention",
            ),
            (one("gemma3_text"), json!({"attn_logit_softcapping": 50.0}), "attn_logit_softcapping"),
            (one("smollm3"), json!({"use_sliding_window": true}), "use_sliding_window"),
            (one("phi3"), json!({"lm_head_bias": true}), "lm_head_bias"),
            (one("phi3"), json!({"attention_bias": true}), "attention_bias"),
            (one("phi3"), json!({"mlp_bias": true}), "mlp_bias"),
            (one("starcoder2"), json!({"mlp_type": "gated"}), "mlp_type"),
            (one("starcoder2"), json!({"norm_type": "rms_norm"}), "norm_type"),
            (one("starcoder2"), json!({"scale_attn_weights": false}), "scale_attn_weights"),
            (one("gpt2"), json!({"add_cross_attention": true}), "add_cross_attention"),
            (one("gpt2"), json!({"n_head": 12, "num_attention_heads": 6}), "num_attention_heads"),
            (one("gptj"), json!({"rotary_dim": null}), "rotary_dim"),
            (one("gptj"), json!({"rotary": false}), "rotary"),
            (one("gptj"), json!({"scale_attn_weights": false}), "scale_attn_weights"),
            (one("gpt_neox"), json!({"rotary_emb_base": 10000, "rope_theta": 5000.0}), "rope_theta"),
            (one("gpt_neox"), json!({"rope_theta": 5000.0}), "rope_theta"),
            (one("gpt_neox"), json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor"),
            (one("gpt_neo"), json!({"attention_layers": ["global"]}), "attention_layers"),
            (one("gpt_neo"), json!({"attention_types": [[["global", "wide"], 12]]}), "attention_types"),
            (
                one("falcon"),
                json!({"new_decoder_architecture": true, "parallel_attn": false}),
                "parallel_attn",
            ),
            (
                one("falcon"),
                json!({"new_decoder_architecture": true, "num_ln_in_parallel_attn": 3}),
                "num_ln_in_parallel_attn",
            ),
            (
                vec!["falcon", "bloom"],
                json!({"apply_residual_connection_post_layernorm": true}),
                "apply_residual_connection_post_layernorm",
            ),
            (one("opt"), json!({"scale_embeddings": true}), "scale_embeddings"),
            (one("phi"), json!({"head_dim": 24}), "head_dim"),
            (encoders.to_vec(), json!({"is_decoder": true}), "is_decoder"),
            (encoders.to_vec(), json!({"add_cross_attention": true}), "add_cross_attention"),
            (
                encoders.to_vec(),
                json!({"position_embedding_type": "relative_key"}),
                "position_embedding_type",
            ),
            (vec!["roberta", "xlm-roberta"], json!({"pad_token_id": null}), "pad_token_id"),
            (vec!["bert", "llama", "phi3", "gpt_neox"], json!({"hidden_act": "quick_gelu"}), "hidden_act"),
            (
                vec!["gpt2", "gptj", "gpt_neo", "opt"],
                json!({"activation_function": "mish"}),
                "activation_function",
            ),
            (vec!["falcon", "distilbert"], json!({"activation": "relu2"}), "activation"),
            (vec!["gemma2", "gemma3_text"], json!({"hidden_activation": "mish"}), "hidden_activation"),
        ]
    }

    #[test]
    fn what_changes_the_arithmetic_and_is_not_implemented_is_refused_by_name() {
        for family in FAMILIES {
            // Otherwise the errors below could be about something else.
            translate(family.model_type, json!({})).unwrap();
        }
        for (families, fields, word) in refused() {
            assert!(!families.is_empty());
            for family in families {
                let error = translate(family, fields.clone());
                let Err(error) = error else { panic!("{family} takes {fields}") };
                let message = error.to_string();
                assert!(
                    message.contains(word) && message.contains("config.json"),
                    "{family} {fields}: {message}"
                );
            }
        }
        let message = translate("mamba", json!({})).unwrap_err().to_string();
        assert!(message.contains("mamba"), "{message}");
    }

    /// Fields that mean the same as their absence, or nothing at all, are no reason to refuse.
    #[test]
    fn what_does_not_change_the_arithmetic_is_taken() {
        let harmless: Map<String, Value> = serde_json::from_value(json!({
            "is_encoder_decoder": false, "add_cross_attention": false, "is_decoder": false, "is_causal": true,
            "rope_scaling": null, "quantization_config": null, "layer_types": null, "head_dim": null,
            "attention_dropout": 0.1, "pretraining_tp": 2, "slow_but_exact": true,
            "reorder_and_upcast_attn": true, "chunk_size_feed_forward": 0, "use_cache": false,
            "apply_residual_connection_post_layernorm": false, "position_embedding_type": "absolute",
        }))
        .unwrap();
        for family in FAMILIES {
            let plain = translate(family.model_type, json!({})).unwrap();
            assert_eq!(translate(family.model_type, harmless.clone().into()).unwrap(), plain);
        }
    }

    /// Values that Transformers takes for an absent key, and for null.
    #[test]
    fn absent_and_null_mean_what_they_mean_in_transformers() {
        let of = |family: &str, fields: Value| translate(family, fields).unwrap();
        assert_eq!(of("falcon", json!({})).kv_heads, 1);
        assert_eq!(of("falcon", json!({"multi_query": null})).kv_heads, 71);
        assert!(!of("falcon", json!({"parallel_attn": null})).parallel_residual);
        assert_eq!(of("mistral", json!({})).windows[0], Some(4096));
        assert_eq!(of("mistral", json!({"sliding_window": null})).windows[0], None);
        let full = vec!["full_attention"; 32];
        of("mistral", json!({"sliding_window": null, "layer_types": full}));
        assert_eq!(of("phi", json!({"hidden_size": 2560})).intermediate, 8192);
        assert_eq!(of("gpt_neox", json!({"hidden_size": 512})).intermediate, 24576);
        assert_eq!(of("gpt2", json!({"n_inner": null})).intermediate, 4 * 768);
        assert_eq!(
            (of("roberta", json!({})).vocabulary, of("xlm-roberta", json!({})).vocabulary),
            (50265, 30522)
        );
        use crate::kernels::activation::Activation::{Gelu, GeluTanh};
        assert_eq!(of("gemma", json!({"hidden_act": "gelu"})).activation, GeluTanh);
        assert_eq!(of("gemma2", json!({"hidden_activation": "gelu"})).activation, Gelu);
        assert_eq!(of("starcoder2", json!({"hidden_act": "gelu"})).activation, Gelu);
        let huge = 1u64 << 62;
        for family in ["falcon", "bloom"] {
            let fields = json!({"hidden_size": huge, "num_attention_heads": huge, "alibi": true});
            let message = translate(family, fields).unwrap_err().to_string();
            assert!(message.contains("expected 1 to"), "{message}");
        }
    }

    /// Configs of the hub, what matters of them.
    #[test]
    fn rotary_positions_of_phi_3_and_4_are_those_of_transformers() {
        use crate::model::position::RotaryScaling::{LongRope, Yarn};
        let lists = |kind: &str, pairs: usize| {
            let mut scaling = json!({"short_factor": vec![1.0; pairs], "long_factor": vec![2.0; pairs]});
            scaling["type"] = kind.into();
            scaling
        };
        for kind in ["su", "yarn", "longrope"] {
            // Without the key beside it, Transformers takes 4096, whatever is inside.
            let mut scaling = lists(kind, 48);
            scaling["original_max_position_embeddings"] = 1024.into();
            let config =
                translate("phi3", json!({"max_position_embeddings": 131072, "rope_scaling": scaling}));
            let rotary = &config.unwrap().rotaries[0];
            let LongRope { original_context: 4096, attention_factor, .. } = rotary.scaling else {
                panic!("{kind}: {rotary:?}")
            };
            assert!((attention_factor - 1.190_238_071_424_286).abs() < 1e-12, "{attention_factor}");
        }
        let mini = json!({"partial_rotary_factor": 0.75, "hidden_size": 3072, "num_attention_heads": 24,
            "num_key_value_heads": 8, "rope_scaling": lists("longrope", 48)});
        assert_eq!(translate("phi3", mini).unwrap().rotaries[0].dims, 96);
        let yarn = |truncate: Value| {
            let scaling =
                json!({"rope_type": "yarn", "factor": 4.0, "truncate": truncate, "beta_fast": null});
            let rotary = translate("llama", json!({"rope_scaling": scaling})).unwrap().rotaries.remove(0);
            let Yarn { truncate, fast, .. } = rotary.scaling else { panic!("{rotary:?}") };
            (truncate, fast)
        };
        assert_eq!(yarn(true.into()), (true, 32.0));
        assert_eq!(yarn(Value::Null), (false, 32.0));
    }
}
