//! A model's own defaults of generation, from `generation_config.json` (else `config.json`), as
//! Transformers reads them.

use super::families::ConfigFile;
use crate::error::Result;

/// Where generation ends, and how the model's makers meant it to be sampled.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerationConfig {
    /// Any of these tokens ends the text.
    pub end_tokens: Vec<u32>,
    pub begin_token: Option<u32>,
    /// How long its makers let it go on.
    pub max_new_tokens: Option<usize>,
    /// `false`: greedy, unless the user asks for sampling.
    pub sample: bool,
    pub temperature: f64,
    /// 0: no limit.
    pub top_k: usize,
    pub top_p: f64,
    pub min_p: f64,
    pub repetition_penalty: f64,
    /// Keys that change what is generated in Transformers and that attend does not follow.
    pub ignored: Vec<String>,
}

impl GenerationConfig {
    /// Reads the defaults. Token numbers that `generation` lacks come from `config`, and those that
    /// this lacks too from its family: `begin` and `end`.
    ///
    /// # Errors
    /// If a value is of the wrong kind or out of range.
    pub fn read(
        config: &ConfigFile,
        generation: Option<&ConfigFile>,
        begin: Option<u32>,
        end: Option<u32>,
    ) -> Result<GenerationConfig> {
        let tokens = |key: &str, family: Option<u32>| match generation {
            Some(generation) if generation.has(key) => generation.token_ids(key),
            _ if config.mentions(key) => config.token_ids(key),
            _ => Ok(family.into_iter().collect()),
        };
        let end_tokens = tokens("eos_token_id", end)?;
        let begin_token = tokens("bos_token_id", begin)?.first().copied();
        let empty = ConfigFile::parse(std::path::Path::new("generation_config.json"), b"{}")?;
        let file = generation.unwrap_or(&empty);
        let ignored = [
            "no_repeat_ngram_size",
            "encoder_no_repeat_ngram_size",
            "bad_words_ids",
            "suppress_tokens",
            "begin_suppress_tokens",
            "forced_bos_token_id",
            "forced_eos_token_id",
            "sequence_bias",
            "min_length",
            "min_new_tokens",
            "typical_p",
            "epsilon_cutoff",
            "eta_cutoff",
            "penalty_alpha",
            "guidance_scale",
            "stop_strings",
            "top_h",
            "encoder_repetition_penalty",
            "exponential_decay_length_penalty",
            "watermarking_config",
        ];
        let mut ignored: Vec<String> =
            ignored.iter().filter(|key| changes_generation(file, key)).map(|key| (*key).to_owned()).collect();
        if file.size("num_beams", Some(1)).unwrap_or(1) > 1 {
            ignored.push("num_beams".into());
        }
        Ok(GenerationConfig {
            end_tokens,
            begin_token,
            max_new_tokens: match file.has("max_new_tokens") {
                true => Some(file.size("max_new_tokens", None)?.max(1)),
                false => None,
            },
            sample: file.flag("do_sample", false)?,
            temperature: in_range(file, "temperature", 1.0, |value| value >= 0.0, "at least 0")?,
            top_k: file.size("top_k", Some(50))?,
            top_p: in_range(file, "top_p", 1.0, is_share, "0 to 1")?,
            min_p: in_range(file, "min_p", 0.0, is_share, "0 to 1")?,
            repetition_penalty: in_range(file, "repetition_penalty", 1.0, |value| value > 0.0, "above 0")?,
            ignored,
        })
    }
}

fn is_share(value: f64) -> bool {
    (0.0..=1.0).contains(&value)
}

fn in_range(
    file: &ConfigFile,
    key: &str,
    default: f64,
    fits: fn(f64) -> bool,
    expected: &str,
) -> Result<f64> {
    let value = file.number(key, Some(default))?;
    if value.is_finite() && fits(value) {
        return Ok(value);
    }
    Err(file.problem(format!("{key} is {value}, expected {expected}")))
}

/// Whether a key holds something other than its neutral value.
fn changes_generation(file: &ConfigFile, key: &str) -> bool {
    let neutral = match key {
        "typical_p" | "guidance_scale" | "encoder_repetition_penalty" => 1.0,
        _ => 0.0,
    };
    file.has(key) && file.number(key, None).map_or(true, |value| value != neutral)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn file(json: &str) -> ConfigFile {
        ConfigFile::parse(Path::new("generation_config.json"), json.as_bytes()).unwrap()
    }

    #[test]
    fn every_end_token_counts_and_the_model_config_fills_in() {
        let config = file(r#"{"eos_token_id":2,"bos_token_id":1}"#);
        let read =
            GenerationConfig::read(&config, Some(&file(r#"{"eos_token_id":[5,6]}"#)), None, None).unwrap();
        assert_eq!((read.end_tokens, read.begin_token), (vec![5, 6], Some(1)));
        let read = GenerationConfig::read(&config, None, Some(8), Some(9)).unwrap();
        assert_eq!((read.end_tokens, read.sample), (vec![2], false));
        let read = GenerationConfig::read(&file("{}"), None, Some(8), Some(9)).unwrap();
        assert_eq!((read.end_tokens, read.begin_token), (vec![9], Some(8)));
        let read = GenerationConfig::read(&file(r#"{"eos_token_id":null}"#), None, Some(8), Some(9)).unwrap();
        assert!(read.end_tokens.is_empty(), "null means none");
    }

    #[test]
    fn sampling_takes_the_defaults_of_transformers() {
        let read = GenerationConfig::read(
            &file("{}"),
            Some(&file(r#"{"do_sample":true,"temperature":0.6}"#)),
            None,
            None,
        )
        .unwrap();
        assert!(read.sample);
        assert_eq!((read.temperature, read.top_k, read.top_p, read.min_p), (0.6, 50, 1.0, 0.0));
    }

    #[test]
    fn what_is_not_followed_is_named() {
        let generation =
            file(r#"{"no_repeat_ngram_size":3,"typical_p":1.0,"suppress_tokens":[1],"num_beams":4}"#);
        let read = GenerationConfig::read(&file("{}"), Some(&generation), None, None).unwrap();
        assert_eq!(read.ignored, ["no_repeat_ngram_size", "suppress_tokens", "num_beams"]);
    }

    #[test]
    fn values_that_make_no_distribution_are_named() {
        for json in [
            r#"{"repetition_penalty":0}"#,
            r#"{"repetition_penalty":-1.5}"#,
            r#"{"temperature":-0.5}"#,
            r#"{"top_p":1.5}"#,
            r#"{"min_p":-0.1}"#,
            r#"{"top_k":-1}"#,
        ] {
            let error =
                GenerationConfig::read(&file("{}"), Some(&file(json)), None, None).unwrap_err().to_string();
            let key = json.split('"').nth(1).unwrap();
            assert!(error.contains("generation_config.json") && error.contains(key), "{json}: {error}");
        }
    }
}
