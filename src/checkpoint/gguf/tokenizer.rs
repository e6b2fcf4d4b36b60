//! The tokenizer in the metadata of a GGUF file as the `tokenizer.json` that its model has on the
//! hub: byte-level BPE (`gpt2`), or SentencePiece's with bytes to fall back on (`llama`).

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::header::Header;
use super::metadata::Metadata;
use super::pre_tokenizer::pre_tokenizer;
use crate::error::{Error, Result};

/// Kinds of tokens, as `tokenizer.ggml.token_type` numbers them.
const NORMAL: u64 = 1;
const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;

/// Stands for a space in SentencePiece's vocabularies.
const SPACE: &str = "▁";

/// The tokenizer, as JSON; `None` where the file has none.
///
/// # Errors
/// If it is of a kind that is not loaded, or its parts do not fit one another.
pub(super) fn tokenizer(header: &Header<'_>) -> Result<Option<Vec<u8>>> {
    let metadata = &header.metadata;
    let model = match metadata.text("tokenizer.ggml.model")? {
        None => return Ok(None),
        Some(model) if model == "none" || model == "no_vocab" => return Ok(None),
        Some(model) => model,
    };
    let vocabulary = Vocabulary::read(metadata, model == "llama")?;
    let json = match model.as_str() {
        "gpt2" => byte_level(&vocabulary)?,
        "llama" => sentencepiece(&vocabulary)?,
        other => {
            return Err(problem(
                metadata,
                format!("tokenizer.ggml.model {other:?} is not implemented; known: gpt2, llama"),
            ));
        }
    };
    Ok(Some(json.to_string().into_bytes()))
}

fn problem(metadata: &Metadata<'_>, problem: String) -> Error {
    Error::Tokenizer { file: metadata.path().to_path_buf(), problem }
}

/// What both kinds have.
struct Vocabulary<'a> {
    metadata: &'a Metadata<'a>,
    sentencepiece: bool,
    tokens: Vec<Cow<'a, str>>,
    /// Of each token.
    kinds: Vec<u64>,
}

impl<'a> Vocabulary<'a> {
    fn read(metadata: &'a Metadata<'a>, sentencepiece: bool) -> Result<Vocabulary<'a>> {
        let missing = |key: &str| problem(metadata, format!("metadata key {key} is missing"));
        const TOKENS: &str = "tokenizer.ggml.tokens";
        const KINDS: &str = "tokenizer.ggml.token_type";
        let tokens = metadata.texts(TOKENS)?.ok_or_else(|| missing(TOKENS))?;
        let kinds = match metadata.numbers(KINDS)? {
            Some(kinds) => kinds.into_iter().map(|kind| kind as u64).collect(),
            None => vec![NORMAL; tokens.len()],
        };
        let vocabulary = Vocabulary { metadata, sentencepiece, tokens, kinds };
        vocabulary.check_length(KINDS, vocabulary.kinds.len())?;
        Ok(vocabulary)
    }

    fn check_length(&self, key: &str, length: usize) -> Result<()> {
        if length == self.tokens.len() {
            return Ok(());
        }
        Err(problem(
            self.metadata,
            format!(
                "{key} has {length} entries, expected the {} of tokenizer.ggml.tokens",
                self.tokens.len()
            ),
        ))
    }

    /// The token that `tokenizer.ggml.{name}_token_id` names, and its number.
    fn special(&self, name: &str, default: Option<usize>) -> Result<Option<(usize, &str)>> {
        let key = format!("tokenizer.ggml.{name}_token_id");
        let Some(id) = self.metadata.size(&key)?.or(default) else { return Ok(None) };
        match self.tokens.get(id) {
            Some(token) => Ok(Some((id, token))),
            None => Err(problem(
                self.metadata,
                format!("{key} is {id}, outside the vocabulary of {} tokens", self.tokens.len()),
            )),
        }
    }

    fn merges(&self) -> Result<Option<Vec<(String, String)>>> {
        const MERGES: &str = "tokenizer.ggml.merges";
        let Some(merges) = self.metadata.texts(MERGES)? else { return Ok(None) };
        let pair = |merge: &Cow<'_, str>| {
            // A piece may itself begin with a space, in vocabularies that are not byte-level.
            let second = merge.char_indices().nth(1).map_or(merge.len(), |(at, _)| at);
            let at = second + merge[second..].find(' ')?;
            Some((merge[..at].to_owned(), merge[at + 1..].to_owned()))
        };
        let pairs = merges.iter().map(|merge| {
            pair(merge).ok_or_else(|| {
                problem(self.metadata, format!("{MERGES} has the entry {merge:?}, expected two pieces"))
            })
        });
        Ok(Some(pairs.collect::<Result<_>>()?))
    }

    /// Tokens that are found in the text before it is cut up.
    fn added(&self) -> Vec<Value> {
        let whole = self.tokens.iter().zip(&self.kinds).enumerate();
        whole
            .filter(|(_, (token, kind))| {
                let marks = matches!(**kind, UNKNOWN | CONTROL);
                !token.is_empty() && (marks || **kind == USER_DEFINED && !is_blank(token))
            })
            .map(|(id, (token, kind))| {
                json!({
                    "id": id, "content": token, "special": *kind != USER_DEFINED,
                    "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                })
            })
            .collect()
    }

    /// What puts the begin token in front and the end token behind, where the file asks for that.
    fn post_processor(&self, begin_by_default: bool) -> Result<Value> {
        let flag = |key: &str, default| Ok::<_, Error>(self.metadata.flag(key)?.unwrap_or(default));
        let sentencepiece = |id: usize| self.sentencepiece.then_some(id);
        let begin = match flag("tokenizer.ggml.add_bos_token", begin_by_default)? {
            true => self.special("bos", sentencepiece(1))?,
            false => None,
        };
        let end = match flag("tokenizer.ggml.add_eos_token", false)? {
            true => self.special("eos", sentencepiece(2))?,
            false => None,
        };
        if begin.or(end).is_none() {
            return Ok(Value::Null);
        }
        let mark = |token: Option<(usize, &str)>| {
            token.map(|(_, token)| json!({"SpecialToken": {"id": token, "type_id": 0}}))
        };
        let text = |id: &str| Some(json!({"Sequence": {"id": id, "type_id": 0}}));
        let part = |id: &str| [mark(begin), text(id), mark(end)].into_iter().flatten().collect::<Vec<_>>();
        let special: Map<String, Value> = [begin, end]
            .into_iter()
            .flatten()
            .map(|(id, token)| (token.to_owned(), json!({"id": token, "ids": [id], "tokens": [token]})))
            .collect();
        Ok(json!({
            "type": "TemplateProcessing",
            "single": part("A"), "pair": ([part("A"), part("B")].concat()), "special_tokens": special,
        }))
    }
}

fn is_blank(token: &str) -> bool {
    token.chars().all(|c| c == ' ')
}

fn byte_level(vocabulary: &Vocabulary<'_>) -> Result<Value> {
    let metadata = vocabulary.metadata;
    let merges = vocabulary
        .merges()?
        .ok_or_else(|| problem(metadata, "metadata key tokenizer.ggml.merges is missing".into()))?;
    // GPT-2's own files come from before there were others.
    let name = metadata.text("tokenizer.ggml.pre")?.unwrap_or_else(|| "default".into());
    let splits = pre_tokenizer(&name).ok_or_else(|| {
        problem(metadata, format!("tokenizer.ggml.pre {name:?}, how text is cut up, is not implemented"))
    })?;
    let vocab: Map<String, Value> =
        vocabulary.tokens.iter().enumerate().map(|(id, token)| (token.to_string(), id.into())).collect();
    Ok(json!({
        "version": "1.0",
        "added_tokens": vocabulary.added(),
        "normalizer": splits.normalizer(),
        "pre_tokenizer": splits.pre_tokenizer(),
        "post_processor": vocabulary.post_processor(splits.adds_begin_token())?,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "vocab": vocab, "merges": merges, "ignore_merges": splits.ignores_merges(),
        },
    }))
}

fn sentencepiece(vocabulary: &Vocabulary<'_>) -> Result<Value> {
    let metadata = vocabulary.metadata;
    let gemma = metadata.text("general.architecture")?.is_some_and(|name| name.starts_with("gemma"));
    // Gemma's files spell runs of spaces as such.
    let tokens: Vec<Cow<'_, str>> = vocabulary
        .tokens
        .iter()
        .map(|token| match is_blank(token) && !token.is_empty() {
            true => token.replace(' ', SPACE).into(),
            false => Cow::Borrowed(token.as_ref()),
        })
        .collect();
    let merges = match vocabulary.merges()? {
        Some(merges) => merges,
        // Gemma's scores do not say which merge comes first; the order of its tokens does.
        None if gemma => {
            let scores: Vec<f64> = (0..tokens.len()).map(|id| -(id as f64)).collect();
            merges_by_score(&tokens, &vocabulary.kinds, &scores)
        }
        None => {
            const SCORES: &str = "tokenizer.ggml.scores";
            let scores = metadata.numbers(SCORES)?;
            let scores =
                scores.ok_or_else(|| problem(metadata, format!("metadata key {SCORES} is missing")))?;
            vocabulary.check_length(SCORES, scores.len())?;
            merges_by_score(&tokens, &vocabulary.kinds, &scores)
        }
    };
    let prefix = metadata.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    let prepend = json!({"type": "Prepend", "prepend": SPACE});
    let normalizers = if prefix { vec![prepend, replace] } else { vec![replace] };
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let vocab: Map<String, Value> =
        tokens.iter().enumerate().map(|(id, token)| (token.to_string(), id.into())).collect();
    Ok(json!({
        "version": "1.0",
        "added_tokens": vocabulary.added(),
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": null,
        "post_processor": vocabulary.post_processor(true)?,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE", "vocab": vocab, "merges": merges, "byte_fallback": true, "fuse_unk": true,
            "unk_token": vocabulary.special("unknown", Some(0))?.map(|(_, token)| token),
        },
    }))
}

/// The merges that make SentencePiece's tokens, those of the highest score first: each way to cut a
/// token into two others.
fn merges_by_score(tokens: &[Cow<'_, str>], kinds: &[u64], scores: &[f64]) -> Vec<(String, String)> {
    let is_piece = |id: &usize| matches!(kinds[*id], NORMAL | USER_DEFINED);
    let ids: HashMap<&str, usize> = tokens
        .iter()
        .enumerate()
        .filter(|(id, _)| is_piece(id))
        .map(|(id, token)| (token.as_ref(), id))
        .collect();
    let mut merges = vec![];
    for (id, token) in tokens.iter().enumerate().filter(|(id, _)| is_piece(id)) {
        let cuts = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
        let mut pairs: Vec<(usize, usize, &str, &str)> =
            cuts.filter_map(|(left, right)| Some((*ids.get(left)?, *ids.get(right)?, left, right))).collect();
        pairs.sort_unstable();
        merges.extend(pairs.into_iter().map(|(_, _, left, right)| (scores[id], left, right)));
    }
    // Of equal scores the one with the longer left piece, as in Transformers.
    let length = |text: &str| text.chars().count();
    merges.sort_by(|a, b| {
        let lengths = |merge: &(f64, &str, &str)| (length(merge.1), length(merge.2));
        b.0.total_cmp(&a.0).then_with(|| lengths(b).cmp(&lengths(a)))
    });
    merges.into_iter().map(|(_, left, right)| (left.to_owned(), right.to_owned())).collect()
}
