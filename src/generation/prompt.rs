//! A prompt: its tokens, and what each stands for in the text.

use std::ops::Range;

use super::decode_stream::DecodeStream;
use crate::checkpoint::Tokenizer;
use crate::error::Result;

/// A text as tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    pub ids: Vec<u32>,
    /// What each token stands for: joined, they are the text. A token that the tokenizer added (a
    /// begin-of-sequence token) has the empty text, and so have the first tokens of a character
    /// that takes several.
    pub texts: Vec<String>,
}

impl Prompt {
    /// The tokens of a text, exactly as given.
    ///
    /// ```
    /// use attend::generation::Prompt;
    ///
    /// let checkpoint = attend::Checkpoint::embedded()?;
    /// let prompt = Prompt::from_text(checkpoint.tokenizer()?, "Once upon a time")?;
    /// assert_eq!(prompt.text(), "Once upon a time");
    /// # Ok::<(), attend::Error>(())
    /// ```
    ///
    /// # Errors
    /// The tokenizer's.
    pub fn from_text(tokenizer: &Tokenizer, text: &str) -> Result<Prompt> {
        let encoded = tokenizer.encode(text)?;
        let inserted: Vec<bool> = encoded.places.iter().map(Option::is_none).collect();
        let mut texts = stream_texts(Some(tokenizer), &encoded.ids, &inserted);
        if texts.concat() != text {
            // The tokenizer changed the text (its case, its spaces): cut the original instead.
            texts = cut(text, &encoded.places);
        }
        Ok(Prompt { ids: encoded.ids, texts })
    }

    /// Tokens that come without a text; special tokens are shown.
    pub fn from_ids(tokenizer: Option<&Tokenizer>, ids: Vec<u32>) -> Prompt {
        let texts = stream_texts(tokenizer, &ids, &vec![false; ids.len()]);
        Prompt { ids, texts }
    }

    /// The whole text.
    pub fn text(&self) -> String {
        self.texts.concat()
    }
}

fn stream_texts(tokenizer: Option<&Tokenizer>, ids: &[u32], inserted: &[bool]) -> Vec<String> {
    let mut stream = DecodeStream::new(tokenizer, true);
    let text = |(id, inserted): (&u32, &bool)| if *inserted { String::new() } else { stream.push(*id) };
    let mut texts: Vec<String> = ids.iter().zip(inserted).map(text).collect();
    if let Some(last) = texts.last_mut() {
        last.push_str(&stream.finish());
    }
    texts
}

/// Cuts the text where the next token begins: the whole text, whatever the tokenizer normalised.
fn cut(text: &str, places: &[Option<Range<usize>>]) -> Vec<String> {
    let mut ends = vec![text.len(); places.len()];
    let mut next = text.len();
    for (end, place) in ends.iter_mut().zip(places).rev() {
        *end = next;
        if let Some(place) = place {
            next = next.min(place.start);
        }
    }
    let mut start = 0;
    ends.into_iter()
        .zip(places)
        .map(|(end, place)| {
            let end = if place.is_some() { end.max(start) } else { start };
            // Places lie on characters; a tokenizer that breaks this gets an empty text, not a panic.
            let piece = text.get(start..end).unwrap_or_default().to_owned();
            start += piece.len();
            piece
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;

    use super::*;

    fn fixture(name: &str) -> Tokenizer {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizers").join(name);
        let bytes = std::fs::read(&path).unwrap();
        Tokenizer::parse(&path, &bytes, 1000).unwrap()
    }

    #[derive(serde::Deserialize)]
    struct Expected {
        text: String,
        ids: Vec<u32>,
        decoded: String,
    }

    /// tests/fixtures/tokenizers/make.py wrote these with the Python library.
    fn expected() -> HashMap<String, Vec<Expected>> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizers/encodings.json");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn tokens_are_those_of_the_python_library_and_texts_join_to_the_text() {
        let expected = expected();
        assert_eq!(expected.len(), 3);
        for (file, cases) in expected {
            let tokenizer = fixture(&file);
            for case in cases {
                let prompt = Prompt::from_text(&tokenizer, &case.text).unwrap();
                assert_eq!(prompt.ids, case.ids, "{file}: {:?}", case.text);
                assert_eq!(prompt.text(), case.text, "{file}");
                assert_eq!(prompt.texts.len(), prompt.ids.len());
            }
        }
    }

    #[test]
    fn streamed_tokens_join_to_what_the_python_library_decodes() {
        for (file, cases) in expected() {
            // WordPiece loses spaces and case; its models do not generate.
            if file.starts_with("wordpiece") {
                continue;
            }
            let tokenizer = fixture(&file);
            for case in cases {
                let mut stream = DecodeStream::new(Some(&tokenizer), false);
                let mut text: String = case.ids.iter().map(|id| stream.push(*id)).collect();
                text.push_str(&stream.finish());
                assert_eq!(text, case.decoded, "{file}: {:?}", case.text);
            }
        }
    }
}
