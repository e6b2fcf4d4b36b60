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
    /// Reads the defaults; token numbers that `generation` lacks come from `config`.
    ///
    /// # Errors
    /// If a value is of the wrong kind.
    pub fn read(config: &ConfigFile, generation: Option<&ConfigFile>) -> Result<GenerationConfig> {
        let tokens = |key: &str| match generation {
            Some(generation) if generation.has(key) => generation.token_ids(key),
            _ => config.token_ids(key),
        };
        let (end_tokens, begin_token) = (tokens("eos_token_id")?, tokens("bos_token_id")?.first().copied());
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
        ];
        let mut ignored: Vec<String> =
            ignored.iter().filter(|key| changes_generation(file, key)).map(|key| (*key).to_owned()).collect();
        if file.size("num_beams", Some(1)).unwrap_or(1) > 1 {
            ignored.push("num_beams".into());
        }
        Ok(GenerationConfig {
            end_tokens,
            begin_token,
            sample: file.flag("do_sample", false)?,
            temperature: file.number("temperature", Some(1.0))?,
            top_k: file.size("top_k", Some(50))?,
            top_p: file.number("top_p", Some(1.0))?,
            min_p: file.number("min_p", Some(0.0))?,
            repetition_penalty: file.number("repetition_penalty", Some(1.0))?,
            ignored,
        })
    }
}

/// Whether a key holds something other than its neutral value.
fn changes_generation(file: &ConfigFile, key: &str) -> bool {
    let neutral = if matches!(key, "typical_p" | "guidance_scale") { 1.0 } else { 0.0 };
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
        let read = GenerationConfig::read(&config, Some(&file(r#"{"eos_token_id":[5,6]}"#))).unwrap();
        assert_eq!((read.end_tokens, read.begin_token), (vec![5, 6], Some(1)));
        let read = GenerationConfig::read(&config, None).unwrap();
        assert_eq!((read.end_tokens, read.sample), (vec![2], false));
    }

    #[test]
    fn sampling_takes_the_defaults_of_transformers() {
        let read =
            GenerationConfig::read(&file("{}"), Some(&file(r#"{"do_sample":true,"temperature":0.6}"#)))
                .unwrap();
        assert!(read.sample);
        assert_eq!((read.temperature, read.top_k, read.top_p, read.min_p), (0.6, 50, 1.0, 0.0));
    }

    #[test]
    fn what_is_not_followed_is_named() {
        let generation =
            file(r#"{"no_repeat_ngram_size":3,"typical_p":1.0,"suppress_tokens":[1],"num_beams":4}"#);
        let read = GenerationConfig::read(&file("{}"), Some(&generation)).unwrap();
        assert_eq!(read.ignored, ["no_repeat_ngram_size", "suppress_tokens", "num_beams"]);
    }
}
