//! Text to tokens and back, through the model's `tokenizer.json` and the tokenizers crate.
//!
//! The file is checked before the crate reads it, for two faults that the crate does not report:
//! merges that it panics on, and tokens that the model has no embedding for.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use tokenizers::DecoderWrapper;

use crate::error::{Error, Result};

/// A model's tokenizer.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    file: PathBuf,
    kind: DecoderKind,
    /// Added tokens: their text, and whether they are special.
    added: HashMap<u32, (String, bool)>,
}

/// How a token's text in the vocabulary stands for bytes.
enum DecoderKind {
    /// GPT-2's: each character stands for one byte.
    ByteLevel,
    /// Any other; with `byte_fallback`, `<0xE2>` stands for one byte.
    Text { byte_fallback: bool },
}

/// A text as tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    pub ids: Vec<u32>,
    /// The bytes of the text that each token stands for; `None` for one that the tokenizer put in
    /// front or behind.
    pub places: Vec<Option<Range<usize>>>,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// If it is not one, or knows tokens beyond `vocabulary` (the model's).
    pub fn parse(file: &Path, bytes: &[u8], vocabulary: usize) -> Result<Tokenizer> {
        let problem = |problem: String| Error::Tokenizer { file: file.to_path_buf(), problem };
        check(bytes, vocabulary).map_err(problem)?;
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes)
            .map_err(|error| problem(format!("is no tokenizer: {error}")))?;
        // A prompt is taken whole, whatever lengths the tokenizer was trained with.
        inner
            .with_truncation(None)
            .map_err(|error| problem(format!("cannot turn truncation off: {error}")))?;
        inner.with_padding(None);
        let kind = decoder_kind(inner.get_decoder());
        let added = inner
            .get_added_tokens_decoder()
            .into_iter()
            .map(|(id, token)| (id, (token.content, token.special)))
            .collect();
        Ok(Tokenizer { inner, file: file.to_path_buf(), kind, added })
    }

    /// Tokens of a text, exactly as given. Special tokens in it are recognised; the tokenizer's
    /// post-processor decides whether something is put in front.
    ///
    /// # Errors
    /// If the tokenizer cannot encode it.
    pub fn encode(&self, text: &str) -> Result<Encoded> {
        let encoding = self.inner.encode(text, true).map_err(|error| Error::Tokenizer {
            file: self.file.clone(),
            problem: format!("cannot encode the text: {error}"),
        })?;
        let (ids, mask) = (encoding.get_ids(), encoding.get_special_tokens_mask());
        let tokens = ids.iter().zip(mask).zip(encoding.get_offsets());
        let place = |mask: &u32, (start, end): &(usize, usize)| (*mask != 1).then_some(*start..*end);
        Ok(Encoded {
            ids: ids.to_vec(),
            places: tokens.map(|((_, mask), offsets)| place(mask, offsets)).collect(),
        })
    }

    /// The bytes that a token stands for, behind `previous` (the ordinary token before it, if any:
    /// some tokenizers drop the space in front of a text's first word).
    pub fn bytes(&self, id: u32, previous: Option<u32>) -> Vec<u8> {
        if let Some((content, _)) = self.added.get(&id) {
            return content.clone().into_bytes();
        }
        let Some(token) = self.inner.id_to_token(id) else { return Vec::new() };
        match self.kind {
            DecoderKind::ByteLevel => token
                .chars()
                .flat_map(|c| match byte_of(c) {
                    Some(byte) => vec![byte],
                    None => c.to_string().into_bytes(),
                })
                .collect(),
            DecoderKind::Text { byte_fallback } => match fallback_byte(&token).filter(|_| byte_fallback) {
                Some(byte) => vec![byte],
                None => self.decoded_behind(id, previous).into_bytes(),
            },
        }
    }

    /// What the decoder adds for `id` behind `previous`.
    fn decoded_behind(&self, id: u32, previous: Option<u32>) -> String {
        let decode = |ids: &[u32]| self.inner.decode(ids, false).unwrap_or_default();
        if let Some(previous) = previous {
            let (before, both) = (decode(&[previous]), decode(&[previous, id]));
            if let Some(rest) = both.strip_prefix(&before) {
                return rest.to_owned();
            }
        }
        decode(&[id])
    }

    /// Whether a token is special: it marks something, and is no part of the text.
    pub fn is_special(&self, id: u32) -> bool {
        self.added.get(&id).is_some_and(|(_, special)| *special)
    }

    /// Whether a token stands outside the ordinary vocabulary.
    pub fn is_added(&self, id: u32) -> bool {
        self.added.contains_key(&id)
    }

    /// The last token that is no added one.
    pub fn last_ordinary(&self, ids: &[u32]) -> Option<u32> {
        ids.iter().rev().copied().find(|id| !self.is_added(*id))
    }

    /// Special tokens and their numbers, in order.
    pub fn special_tokens(&self) -> Vec<(u32, String)> {
        let mut tokens: Vec<_> = self
            .added
            .iter()
            .filter(|(_, (_, special))| *special)
            .map(|(id, (content, _))| (*id, content.clone()))
            .collect();
        tokens.sort_unstable();
        tokens
    }

    /// A token as the vocabulary spells it.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Tokens known, added ones included.
    pub fn len(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn decoder_kind(decoder: Option<&DecoderWrapper>) -> DecoderKind {
    match decoder {
        Some(DecoderWrapper::ByteLevel(_)) => DecoderKind::ByteLevel,
        Some(DecoderWrapper::ByteFallback(_)) => DecoderKind::Text { byte_fallback: true },
        Some(DecoderWrapper::Sequence(sequence)) => {
            let kinds = sequence.get_decoders().iter().map(|decoder| decoder_kind(Some(decoder)));
            let mut byte_fallback = false;
            for kind in kinds {
                match kind {
                    DecoderKind::ByteLevel => return kind,
                    DecoderKind::Text { byte_fallback: true } => byte_fallback = true,
                    DecoderKind::Text { byte_fallback: false } => {}
                }
            }
            DecoderKind::Text { byte_fallback }
        }
        _ => DecoderKind::Text { byte_fallback: false },
    }
}

/// The byte that a character of a byte-level vocabulary stands for: printable ones stand for
/// themselves, the 68 others for U+0100 and up, in order (GPT-2's `bytes_to_unicode`).
fn byte_of(c: char) -> Option<u8> {
    let printable = |code: u32| matches!(code, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let code = u32::from(c);
    if printable(code) {
        return u8::try_from(code).ok();
    }
    let others = (0u32..256).filter(|code| !printable(*code));
    others
        .zip(0x100u32..)
        .find(|(_, stand_in)| *stand_in == code)
        .and_then(|(byte, _)| u8::try_from(byte).ok())
}

/// `<0xE2>` → 0xE2.
fn fallback_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
}

/// Looks for what the tokenizers crate would panic on or accept in silence.
fn check(bytes: &[u8], vocabulary: usize) -> Result<(), String> {
    #[derive(Deserialize)]
    struct File<'a> {
        #[serde(borrow)]
        model: Model<'a>,
        #[serde(default)]
        added_tokens: Vec<Added>,
    }
    #[derive(Deserialize)]
    struct Added {
        id: u64,
        content: String,
    }
    #[derive(Deserialize)]
    struct Model<'a> {
        #[serde(default)]
        vocab: Vocabulary,
        #[serde(default, borrow)]
        merges: Vec<Merge<'a>>,
        #[serde(default)]
        continuing_subword_prefix: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Merge<'a> {
        Pair(#[serde(borrow)] Cow<'a, str>, #[serde(borrow)] Cow<'a, str>),
        Text(#[serde(borrow)] Cow<'a, str>),
    }
    let file: File<'_> =
        serde_json::from_slice(bytes).map_err(|error| format!("is no tokenizer: {error}"))?;
    let prefix = file.model.continuing_subword_prefix.map_or(0, |prefix| prefix.len());
    for merge in &file.model.merges {
        let (left, right) = match merge {
            Merge::Pair(left, right) => (left.as_ref(), right.as_ref()),
            Merge::Text(text) => text.split_once(' ').unwrap_or((text.as_ref(), "")),
        };
        if right.len() < prefix || left.len() + right.len() - prefix > file.model.vocab.longest {
            return Err(format!(
                "the merge of {left:?} and {right:?} gives a token that the vocabulary does not hold; \
                 is the file whole, and from this model?"
            ));
        }
    }
    let added = file.added_tokens.into_iter().map(|token| (token.id, token.content));
    let largest = added.chain(file.model.vocab.largest).max();
    match largest {
        Some((id, token)) if id >= vocabulary as u64 => Err(format!(
            "token {id} ({token:?}) is outside the model's vocabulary of {vocabulary} (vocab_size in \
             config.json); are the tokenizer and the model from the same place?"
        )),
        _ => Ok(()),
    }
}

/// What `check` needs to know of a vocabulary: a map of tokens to numbers, or (unigram) a list.
#[derive(Default)]
struct Vocabulary {
    /// Bytes of the longest token.
    longest: usize,
    /// The largest number, and its token.
    largest: Option<(u64, String)>,
}

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Vocabulary, D::Error> {
        struct Tokens;
        impl<'de> Visitor<'de> for Tokens {
            type Value = Vocabulary;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a vocabulary")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocabulary, A::Error> {
                let mut vocabulary = Vocabulary::default();
                while let Some((token, id)) = map.next_entry::<String, u64>()? {
                    vocabulary.longest = vocabulary.longest.max(token.len());
                    if vocabulary.largest.as_ref().is_none_or(|(largest, _)| id > *largest) {
                        vocabulary.largest = Some((id, token));
                    }
                }
                Ok(vocabulary)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vocabulary, A::Error> {
                let mut count = 0u64;
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                let largest = count.checked_sub(1).map(|id| (id, "the last one".into()));
                Ok(Vocabulary { longest: usize::MAX, largest })
            }
        }
        deserializer.deserialize_any(Tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_character() {
        let mut found = [false; 256];
        for code in 0x21u32..0x144 {
            if let Some(byte) = char::from_u32(code).and_then(byte_of) {
                assert!(!found[usize::from(byte)], "{byte:#x} twice");
                found[usize::from(byte)] = true;
            }
        }
        assert!(found.iter().all(|found| *found));
        assert_eq!((byte_of('Ġ'), byte_of('Ċ')), (Some(b' '), Some(b'\n')));
    }

    #[test]
    fn faults_that_the_crate_would_not_report_are_named() {
        let parse = |json: &str, vocabulary| {
            Tokenizer::parse(Path::new("tokenizer.json"), json.as_bytes(), vocabulary)
                .err()
                .unwrap()
                .to_string()
        };
        let bpe = |merges: &str| {
            format!(
                r#"{{"version":"1.0","added_tokens":[],"model":{{"type":"BPE","vocab":{{"a":0,"b":1,"ab":2}},"merges":{merges}}}}}"#
            )
        };
        assert!(parse(&bpe(r#"[["ab","ab"]]"#), 3).contains("the merge of \"ab\" and \"ab\""));
        assert!(parse(&bpe(r#"["ab ab"]"#), 3).contains("the merge of"));
        assert!(
            parse(&bpe(r#"[["a","b"]]"#), 2)
                .contains("token 2 (\"ab\") is outside the model's vocabulary of 2")
        );
        assert!(parse("{", 2).contains("is no tokenizer"));
        assert!(parse(r#"{"model":{"type":"Other"}}"#, 2).contains("is no tokenizer"));
    }
}
