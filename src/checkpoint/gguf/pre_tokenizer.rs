//! How byte-level vocabularies cut a text up before they merge bytes: what `tokenizer.ggml.pre`
//! names, as the models' own `tokenizer.json` has it.

use serde_json::{Value, json};

/// One way to cut.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum PreTokenizer {
    /// GPT-2's, which the tokenizers crate knows.
    Gpt2,
    /// The same, with every digit for itself.
    Digits,
    /// By this regular expression.
    Regex(&'static str),
    /// Llama 3's.
    Llama3,
    /// Qwen2's, of composed characters.
    Qwen2,
}

const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const GPT4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// The way that `tokenizer.ggml.pre` names.
pub(super) fn pre_tokenizer(name: &str) -> Option<PreTokenizer> {
    Some(match name {
        "default" | "gpt-2" | "phi-2" | "olmo" | "mpt" | "jais" => PreTokenizer::Gpt2,
        "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone" | "minerva-7b" => {
            PreTokenizer::Digits
        }
        "llama3" | "llama-v3" | "llama-bpe" | "falcon3" => PreTokenizer::Llama3,
        "dbrx" | "smaug-bpe" => PreTokenizer::Regex(LLAMA3),
        "qwen2" => PreTokenizer::Qwen2,
        "deepseek-r1-qwen" | "megrez" | "stablelm2" => PreTokenizer::Regex(QWEN2),
        "tekken" => PreTokenizer::Regex(TEKKEN),
        "gpt-4o" => PreTokenizer::Regex(GPT4O),
        _ => return None,
    })
}

impl PreTokenizer {
    /// `pre_tokenizer` in tokenizer.json.
    pub fn pre_tokenizer(self) -> Value {
        let bytes = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
        let by = |regex: &str| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
        let parts = match self {
            PreTokenizer::Gpt2 => return bytes(true),
            PreTokenizer::Digits => [json!({"type": "Digits", "individual_digits": true}), bytes(true)],
            PreTokenizer::Regex(regex) => [by(regex), bytes(false)],
            PreTokenizer::Llama3 => [by(LLAMA3), bytes(false)],
            PreTokenizer::Qwen2 => [by(QWEN2), bytes(false)],
        };
        json!({"type": "Sequence", "pretokenizers": parts})
    }

    /// `normalizer` in tokenizer.json.
    pub fn normalizer(self) -> Value {
        match self {
            PreTokenizer::Qwen2 => json!({"type": "NFC"}),
            _ => Value::Null,
        }
    }

    /// Whether a piece of text that is a token is never merged from others.
    pub fn ignores_merges(self) -> bool {
        matches!(self, PreTokenizer::Llama3)
    }

    /// Whether texts begin with the begin token where the file does not say.
    pub fn adds_begin_token(self) -> bool {
        matches!(self, PreTokenizer::Llama3)
    }
}
