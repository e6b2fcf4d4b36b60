//! Tokens to text as they come: whole characters only, each printed once.

use crate::checkpoint::Tokenizer;

/// Turns tokens into text one at a time. Bytes of an unfinished character wait for the next token;
/// bytes that no character begins with become U+FFFD, as in Transformers.
pub struct DecodeStream<'t> {
    tokenizer: Option<&'t Tokenizer>,
    show_special: bool,
    /// Bytes of an unfinished character.
    pending: Vec<u8>,
    /// The last ordinary token.
    previous: Option<u32>,
}

impl<'t> DecodeStream<'t> {
    /// A stream; without a tokenizer every token has the empty text. Special tokens are left out
    /// unless `show_special`.
    pub fn new(tokenizer: Option<&'t Tokenizer>, show_special: bool) -> DecodeStream<'t> {
        DecodeStream { tokenizer, show_special, pending: Vec::new(), previous: None }
    }

    /// A stream that goes on behind tokens that were shown already.
    pub fn behind(tokenizer: Option<&'t Tokenizer>, shown: &[u32]) -> DecodeStream<'t> {
        let previous = tokenizer.and_then(|tokenizer| tokenizer.last_ordinary(shown));
        DecodeStream { previous, ..DecodeStream::new(tokenizer, false) }
    }

    /// The text that a token adds; empty while a character is unfinished.
    pub fn push(&mut self, id: u32) -> String {
        let Some(tokenizer) = self.tokenizer else { return String::new() };
        if tokenizer.is_added(id) {
            let mut text = self.finish();
            if self.show_special || !tokenizer.is_special(id) {
                text.push_str(&String::from_utf8_lossy(&tokenizer.bytes(id, None)));
            }
            return text;
        }
        self.pending.extend(tokenizer.bytes(id, self.previous));
        self.previous = Some(id);
        self.take_whole_characters()
    }

    /// What is left of an unfinished character at the end of the text.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }

    fn take_whole_characters(&mut self) -> String {
        let mut text = String::new();
        let mut rest = self.pending.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(whole) => {
                    text.push_str(whole);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (whole, bad) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(whole));
                    match error.error_len() {
                        Some(len) => {
                            text.push(char::REPLACEMENT_CHARACTER);
                            rest = &bad[len..];
                        }
                        None => {
                            rest = bad;
                            break;
                        }
                    }
                }
            }
        }
        self.pending = rest.to_vec();
        text
    }
}
