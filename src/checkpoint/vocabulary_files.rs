//! Tokenizers in the files from before `tokenizer.json`: GPT-2's `vocab.json` and `merges.txt`, and
//! BERT's `vocab.txt`. They become the `tokenizer.json` that Transformers makes of them, which then
//! is read and checked as any other.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::families::ConfigFile;
use super::source::Source;
use crate::error::{Error, Result};

const VOCAB: &str = "vocab.json";
const MERGES: &str = "merges.txt";
const WORDS: &str = "vocab.txt";
const CONFIG: &str = "tokenizer_config.json";
const SPECIAL_MAP: &str = "special_tokens_map.json";
const ADDED: &str = "added_tokens.json";

/// A kind of tokenizer, and how to know it: the same files serve others, which cut texts differently.
struct Kind {
    /// Where the vocabulary is.
    file: &'static str,
    /// Names in Transformers, without `Fast`.
    classes: &'static [&'static str],
    /// `model_type`s that have this tokenizer where no file names one.
    families: &'static [&'static str],
    /// Special tokens of one whose files name none.
    special: &'static [(&'static str, &'static str)],
}

/// Byte-level BPE.
const GPT2: Kind = Kind {
    file: VOCAB,
    classes: &["GPT2Tokenizer", "CodeGenTokenizer"],
    families: &["gpt2", "gpt_neo", "gptj", "opt", "phi", "starcoder2"],
    special: &[
        ("bos_token", "<|endoftext|>"),
        ("eos_token", "<|endoftext|>"),
        ("unk_token", "<|endoftext|>"),
    ],
};

/// WordPiece.
const BERT: Kind = Kind {
    file: WORDS,
    classes: &["BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer"],
    families: &["bert", "distilbert", "electra"],
    special: &[
        ("unk_token", "[UNK]"),
        ("sep_token", "[SEP]"),
        ("pad_token", "[PAD]"),
        ("cls_token", "[CLS]"),
        ("mask_token", "[MASK]"),
    ],
};

/// The keys of special tokens, in the order in which tokens that are new get their numbers.
const SPECIAL_KEYS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// `tokenizer_config.json`, as far as it says how texts are cut.
#[derive(Default, Deserialize)]
struct TokenizerConfig {
    tokenizer_class: Option<String>,
    add_prefix_space: Option<bool>,
    add_bos_token: Option<bool>,
    add_eos_token: Option<bool>,
    do_lower_case: Option<bool>,
    strip_accents: Option<bool>,
    tokenize_chinese_chars: Option<bool>,
    added_tokens_decoder: Option<BTreeMap<u32, AddedToken>>,
    /// Special tokens among them.
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// A token that is looked for in the text before anything else, as `tokenizer.json` spells it.
#[derive(Clone, Deserialize, Serialize)]
struct AddedToken {
    #[serde(default)]
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    /// Whether it is looked for in the normalised text.
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    special: bool,
}

impl AddedToken {
    fn new(content: &str, special: bool) -> AddedToken {
        AddedToken {
            id: 0,
            content: content.into(),
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: !special,
            special,
        }
    }

    /// A special token: its text, or all that there is to know of it.
    fn special(value: &Value) -> Result<AddedToken, serde_json::Error> {
        Ok(match value.as_str() {
            Some(content) => AddedToken::new(content, true),
            None => AddedToken { special: true, ..AddedToken::deserialize(value)? },
        })
    }
}

/// The `tokenizer.json` that a source's vocabulary files amount to, with the file to name in
/// messages; `None` where there are none. `model` is the model's config.
///
/// # Errors
/// If the files are damaged, do not fit each other, or are of a tokenizer that is neither GPT-2's
/// nor BERT's.
pub(super) fn as_tokenizer_json(source: &Source, model: &ConfigFile) -> Result<Option<(PathBuf, Vec<u8>)>> {
    let (kind, vocabulary, merges) = match (source.read(VOCAB)?, source.read(MERGES)?, source.read(WORDS)?) {
        (Some(vocab), Some(merges), _) => {
            let vocabulary: HashMap<String, u32> = parsed(source, VOCAB, &vocab)?;
            (GPT2, vocabulary, pairs(source, &merges)?)
        }
        (_, _, Some(words)) => {
            let lines = text(source, WORDS, &words)?.lines().zip(0..);
            (BERT, lines.map(|(line, id)| (line.trim_end().to_owned(), id)).collect(), vec![])
        }
        _ => return Ok(None),
    };
    let mut config: TokenizerConfig = optional(source, CONFIG)?.unwrap_or_default();
    check_class(source, &kind, &config, model)?;
    if config.added_tokens_decoder.is_none() {
        // Where it is there the map is older and does not count.
        config.others.extend(optional::<Map<_, _>>(source, SPECIAL_MAP)?.unwrap_or_default());
    }
    let builder = Builder { source, kind, config, vocabulary };
    let special = builder.special_tokens()?;
    let added = builder.added_tokens(&special)?;
    let json = match builder.kind.file {
        VOCAB => builder.byte_level(&merges, &special, &added),
        _ => builder.word_piece(&special, &added)?,
    };
    Ok(Some((source.path(builder.kind.file), json.to_string().into_bytes())))
}

fn problem(source: &Source, file: &str, problem: String) -> Error {
    Error::Tokenizer { file: source.path(file), problem }
}

fn parsed<T: DeserializeOwned>(source: &Source, file: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| problem(source, file, format!("is not what its name says: {error}")))
}

fn optional<T: DeserializeOwned>(source: &Source, file: &str) -> Result<Option<T>> {
    source.read(file)?.map(|bytes| parsed(source, file, &bytes)).transpose()
}

fn text<'a>(source: &Source, file: &str, bytes: &'a [u8]) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|error| problem(source, file, format!("is no text: {error}")))
}

/// Pairs of tokens, the first to be merged first.
fn pairs(source: &Source, bytes: &[u8]) -> Result<Vec<(String, String)>> {
    let lines = text(source, MERGES, bytes)?.lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with("#version"));
    let pair = |(number, line): (usize, &str)| match line.split_once(' ') {
        Some((left, right)) if !left.is_empty() && !right.is_empty() && !right.contains(' ') => {
            Ok((left.to_owned(), right.to_owned()))
        }
        _ => Err(problem(
            source,
            MERGES,
            format!("line {} is {line:?}, expected two tokens and a space between", number + 1),
        )),
    };
    lines.map(pair).collect()
}

fn check_class(source: &Source, kind: &Kind, config: &TokenizerConfig, model: &ConfigFile) -> Result<()> {
    let class = match &config.tokenizer_class {
        Some(class) => Some(class.clone()),
        None if model.has("tokenizer_class") => Some(model.text("tokenizer_class", None)?),
        None => None,
    };
    let (what, name, known) = match class {
        Some(class) => {
            ("tokenizer_class", class.strip_suffix("Fast").unwrap_or(&class).to_owned(), kind.classes)
        }
        None => ("model_type", model.text("model_type", None)?, kind.families),
    };
    if known.contains(&name.as_str()) {
        return Ok(());
    }
    Err(problem(
        source,
        kind.file,
        format!(
            "there is no tokenizer.json, and for {what} {name:?} none can be made from this file (known: \
             {}); make one in Python with `AutoTokenizer.from_pretrained(folder).save_pretrained(folder)`",
            known.join(", ")
        ),
    ))
}

struct Builder<'a> {
    source: &'a Source,
    kind: Kind,
    config: TokenizerConfig,
    vocabulary: HashMap<String, u32>,
}

impl Builder<'_> {
    /// The special tokens by their keys, then those without.
    fn special_tokens(&self) -> Result<Vec<(&'static str, AddedToken)>> {
        let token = |value: &Value| {
            AddedToken::special(value).map_err(|error| {
                problem(self.source, CONFIG, format!("{value} stands for a special token: {error}"))
            })
        };
        let mut tokens = vec![];
        for key in SPECIAL_KEYS {
            let default = self.kind.special.iter().find(|(named, _)| *named == key);
            match (self.config.others.get(key), default) {
                (Some(Value::Null), _) => {}
                (Some(value), _) => tokens.push((key, token(value)?)),
                // A vocabulary may do without.
                (None, Some((_, content))) if self.vocabulary.contains_key(*content) => {
                    tokens.push((key, AddedToken::new(content, true)));
                }
                (None, _) => {}
            }
        }
        let extra = ["extra_special_tokens", "additional_special_tokens"];
        let extra = extra.iter().find_map(|key| self.config.others.get(*key)?.as_array());
        for value in extra.into_iter().flatten() {
            tokens.push(("", token(value)?));
        }
        Ok(tokens)
    }

    /// Every added token with its number.
    fn added_tokens(&self, special: &[(&str, AddedToken)]) -> Result<Vec<AddedToken>> {
        let is_special = |content: &str| special.iter().any(|(_, token)| token.content == content);
        let (file, numbered) = match &self.config.added_tokens_decoder {
            Some(tokens) => (CONFIG, tokens.clone()),
            None => {
                let tokens: HashMap<String, u32> = optional(self.source, ADDED)?.unwrap_or_default();
                let token =
                    |(content, id): (String, u32)| (id, AddedToken::new(&content, is_special(&content)));
                (ADDED, tokens.into_iter().map(token).collect())
            }
        };
        let mut added: Vec<AddedToken> = vec![];
        // A token that the vocabulary does not hold gets the next number.
        let mut next = self.vocabulary.len() as u32;
        let mut number = |content: &str| {
            self.vocabulary.get(content).copied().unwrap_or_else(|| {
                next += 1;
                next - 1
            })
        };
        for (id, token) in numbered {
            let special = token.special || is_special(&token.content);
            let own = number(&token.content);
            if own != id {
                return Err(problem(
                    self.source,
                    file,
                    format!(
                        "token {:?} has number {id}, but {} makes it {own}",
                        token.content, self.kind.file
                    ),
                ));
            }
            added.push(AddedToken { id, special, ..token });
        }
        for (_, token) in special {
            if !added.iter().any(|known| known.content == token.content) {
                added.push(AddedToken { id: number(&token.content), ..token.clone() });
            }
        }
        Ok(added)
    }

    /// GPT-2's: nothing in front or behind, unless the config asks.
    fn byte_level(
        &self,
        merges: &[(String, String)],
        special: &[(&str, AddedToken)],
        added: &[AddedToken],
    ) -> Value {
        let named = |asked: Option<bool>, key: &str| {
            let token = special.iter().find(|(named, _)| asked == Some(true) && *named == key);
            token.map(|(_, token)| token.content.as_str())
        };
        let begin = named(self.config.add_bos_token, "bos_token");
        let end = named(self.config.add_eos_token, "eos_token");
        let prefix = self.config.add_prefix_space.unwrap_or(false);
        let byte_level =
            json!({"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": true});
        json!({
            "added_tokens": added,
            "pre_tokenizer": byte_level,
            "post_processor": template(begin, end, added),
            "decoder": byte_level,
            "model": {
                "type": "BPE",
                "dropout": null,
                "unk_token": null,
                "continuing_subword_prefix": "",
                "end_of_word_suffix": "",
                "fuse_unk": false,
                "vocab": self.vocabulary,
                "merges": merges,
            },
        })
    }

    /// BERT's: `[CLS]` in front, `[SEP]` behind.
    fn word_piece(&self, special: &[(&str, AddedToken)], added: &[AddedToken]) -> Result<Value> {
        let named = |key: &str| {
            let token = special.iter().find(|(named, _)| *named == key);
            token.map(|(_, token)| token.content.as_str()).ok_or_else(|| {
                let default = self.kind.special.iter().find(|(named, _)| *named == key);
                let default = default.map_or(key, |(_, content)| *content);
                problem(self.source, WORDS, format!("has no {default}, and no other {key} is named"))
            })
        };
        let unknown = named("unk_token")?;
        Ok(json!({
            "added_tokens": added,
            "normalizer": {
                "type": "BertNormalizer",
                "clean_text": true,
                "handle_chinese_chars": self.config.tokenize_chinese_chars.unwrap_or(true),
                "strip_accents": self.config.strip_accents,
                "lowercase": self.config.do_lower_case.unwrap_or(true),
            },
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": template(Some(named("cls_token")?), Some(named("sep_token")?), added),
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
            "model": {
                "type": "WordPiece",
                "unk_token": unknown,
                "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100,
                "vocab": self.vocabulary,
            },
        }))
    }
}

/// What puts a token in front of a text and one behind it.
fn template(begin: Option<&str>, end: Option<&str>, added: &[AddedToken]) -> Value {
    let piece = |token: &str| json!({"SpecialToken": {"id": token, "type_id": 0}});
    let sequence = |name: &str| json!({"Sequence": {"id": name, "type_id": 0}});
    let around = |middle: Vec<Value>| -> Vec<Value> {
        begin.map(piece).into_iter().chain(middle).chain(end.map(piece)).collect()
    };
    let mut tokens = Map::new();
    for token in added.iter().filter(|token| [begin, end].contains(&Some(token.content.as_str()))) {
        let name = &token.content;
        tokens.insert(name.clone(), json!({"id": name, "ids": [token.id], "tokens": [name]}));
    }
    json!({
        "type": "TemplateProcessing",
        "single": around(vec![sequence("A")]),
        "pair": around(vec![sequence("A"), sequence("B")]),
        "special_tokens": tokens,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::checkpoint::Tokenizer;

    /// Opens vocabulary files with further ones beside them.
    fn open(folder: &str, model: &str, files: &BTreeMap<String, Value>) -> Result<Option<Tokenizer>> {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizers").join(folder);
        let place = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(fixture).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), place.path().join(entry.file_name())).unwrap();
        }
        for (name, content) in files {
            let content = content.as_str().map_or_else(|| content.to_string(), str::to_owned);
            std::fs::write(place.path().join(name), content).unwrap();
        }
        let source = Source::Folder(place.path().to_path_buf());
        let model = ConfigFile::parse(Path::new("config.json"), model.as_bytes()).unwrap();
        let json = as_tokenizer_json(&source, &model)?;
        json.map(|(path, bytes)| Tokenizer::parse(&path, &bytes, 1000)).transpose()
    }

    fn model(folder: &str) -> String {
        format!(r#"{{"model_type":"{folder}"}}"#)
    }

    #[test]
    fn texts_are_cut_as_transformers_cuts_them() {
        #[derive(Deserialize)]
        struct Case {
            folder: String,
            files: BTreeMap<String, Value>,
            encodings: Vec<Encoding>,
        }
        #[derive(Deserialize)]
        struct Encoding {
            text: String,
            ids: Vec<u32>,
        }
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizers/vocabulary_files.json");
        let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert_eq!(cases.len(), 7);
        for case in &cases {
            let tokenizer = open(&case.folder, &model(&case.folder), &case.files).unwrap().unwrap();
            assert_eq!(case.encodings.len(), 10);
            for encoding in &case.encodings {
                let what = format!("{} {:?} {:?}", case.folder, case.files, encoding.text);
                assert_eq!(tokenizer.encode(&encoding.text).unwrap().ids, encoding.ids, "{what}");
            }
        }
    }

    #[test]
    fn what_is_no_tokenizer_of_these_is_refused() {
        let refused = |folder: &str, model: &str, files: &[(&str, Value)]| {
            let files = files.iter().map(|(name, content)| ((*name).to_owned(), content.clone())).collect();
            open(folder, model, &files).err().unwrap().to_string()
        };
        let gpt2 = |file: &str, content: Value| refused("gpt2", &model("gpt2"), &[(file, content)]);
        for (message, parts) in [
            (refused("gpt2", &model("roberta"), &[]), ["vocab.json", "model_type \"roberta\""]),
            (refused("bert", &model("gpt2"), &[]), ["vocab.txt", "model_type \"gpt2\""]),
            (
                gpt2(CONFIG, json!({"tokenizer_class": "Qwen2Tokenizer"})),
                ["Qwen2Tokenizer", "save_pretrained"],
            ),
            (gpt2(VOCAB, json!({"a": -1})), ["vocab.json", "is not what its name says"]),
            (gpt2(MERGES, json!("#version: 0.2\na b c\n")), ["merges.txt", "line 2 is \"a b c\""]),
            (gpt2(MERGES, json!("mill mill\n")), ["vocab.json", "`mill` out of vocabulary"]),
            (gpt2(ADDED, json!({"new": 500})), ["\"new\" has number 500", "makes it 401"]),
            (
                gpt2(CONFIG, json!({"bos_token": 3})),
                ["3 stands for a special token", "tokenizer_config.json"],
            ),
            (refused("bert", &model("bert"), &[(WORDS, json!("[UNK]\n[SEP]\n"))]), ["vocab.txt", "no [CLS]"]),
            (refused("bert", &model("bert"), &[(WORDS, json!("[CLS]\n[SEP]\n"))]), ["vocab.txt", "no [UNK]"]),
        ] {
            assert!(parts.iter().all(|part| message.contains(part)), "{parts:?}: {message}");
        }
    }
}
