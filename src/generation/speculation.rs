//! Speculation: guesses of the next tokens, which one forward pass checks together
//! (`draft_pass`). A guess, called a draft, is what followed the last few tokens when they
//! stood in the text before ("prompt lookup", Saxena 2023): free to make, and often right where a
//! text quotes, lists or repeats.
//!
//! A drafted token is kept where it is the token that the [sampler](super::sampler) chooses anyway,
//! from the same logits and with the same random numbers as without speculation. Under sampling
//! that accepts a token with its probability *p*, and puts another in its place with the others'
//! probabilities over 1 − *p*: the rejection sampling of Leviathan et al. (2023) for a draft that is
//! certain of itself. So the distribution stays what it was, and even a seed's text does.

use std::collections::HashMap;

/// Lengths of the n-grams that are looked up.
const SHORTEST: usize = 2;
const LONGEST: usize = 3;

/// How speculation went, in the passes behind the prompt's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Acceptance {
    /// Forward passes, those without a draft included.
    pub passes: usize,
    /// Tokens that they gave.
    pub tokens: usize,
    /// Drafted tokens that were fed.
    pub drafted: usize,
    /// Those of them that were kept.
    pub accepted: usize,
}

impl Acceptance {
    /// Tokens that a pass gave on average; 1 without speculation.
    pub fn tokens_per_pass(&self) -> f64 {
        self.tokens as f64 / self.passes.max(1) as f64
    }
}

/// Makes drafts of a growing text.
pub(super) struct Drafter {
    ngrams: NgramIndex,
    /// Tokens of a draft at most.
    most: usize,
    /// Tokens of the next one at most: more after a draft that was kept whole, fewer after others.
    length: usize,
}

impl Drafter {
    /// A drafter that proposes up to `most` tokens at a time.
    pub(super) fn new(most: usize) -> Drafter {
        Drafter { ngrams: NgramIndex::default(), most, length: most.min(FIRST_LENGTH) }
    }

    /// What may follow `text`, `room` tokens at most; empty where nothing is known. `text` is the
    /// one of the call before, or goes on behind it.
    pub(super) fn draft(&mut self, text: &[u32], room: usize) -> Vec<u32> {
        self.ngrams.extend(text);
        let Some(from) = self.ngrams.follower(text) else { return vec![] };
        let length = self.length.min(room);
        let mut draft: Vec<u32> = Vec::with_capacity(length);
        for at in from..from + length {
            // Beyond the text's end the draft is copied itself: so a repetition goes on.
            draft.push(*text.get(at).unwrap_or_else(|| &draft[at - text.len()]));
        }
        draft
    }

    /// Learns that of a draft of `drafted` tokens the first `accepted` were kept.
    pub(super) fn learn(&mut self, drafted: usize, accepted: usize) {
        let length = if accepted == drafted { 2 * self.length } else { self.length / 2 };
        self.length = length.clamp(1, self.most);
    }
}

/// Tokens of the first draft.
const FIRST_LENGTH: usize = 4;

/// Where each n-gram of a text was last followed by a token.
#[derive(Default)]
struct NgramIndex {
    /// The position of that token. Shorter n-grams are filled up with a number that no token has.
    followers: HashMap<[u32; LONGEST], usize>,
    /// Tokens of the text that were counted as followers.
    counted: usize,
}

impl NgramIndex {
    fn extend(&mut self, text: &[u32]) {
        for at in self.counted..text.len() {
            for ngram in ngrams(&text[..at]) {
                self.followers.insert(ngram, at);
            }
        }
        self.counted = text.len();
    }

    /// The position behind the last earlier occurrence of the longest n-gram at the end that has one.
    fn follower(&self, text: &[u32]) -> Option<usize> {
        ngrams(text).find_map(|ngram| self.followers.get(&ngram).copied())
    }
}

/// The n-grams at the end of a text, the longest first.
fn ngrams(text: &[u32]) -> impl Iterator<Item = [u32; LONGEST]> {
    (SHORTEST..=LONGEST.min(text.len())).rev().map(|length| {
        let mut ngram = [u32::MAX; LONGEST];
        ngram[..length].copy_from_slice(&text[text.len() - length..]);
        ngram
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draft_is_what_followed_the_longest_ngram_last() {
        let mut drafter = Drafter::new(3);
        assert!(drafter.draft(&[], 9).is_empty());
        assert!(drafter.draft(&[1, 2, 3, 4], 9).is_empty());
        // 2 3 stood before; one token alone, such as the 4 here, is not enough.
        assert_eq!(drafter.draft(&[1, 2, 3, 4, 9, 2, 3], 9), [4, 9, 2]);
        assert!(drafter.draft(&[1, 2, 3, 4, 9, 2, 3, 5, 4], 9).is_empty());
        // The last occurrence of 2 3 was followed by 5, that of 1 2 3 by 4.
        assert_eq!(drafter.draft(&[1, 2, 3, 4, 9, 2, 3, 5, 4, 2, 3], 9), [5, 4, 2]);
        assert_eq!(drafter.draft(&[1, 2, 3, 4, 9, 2, 3, 5, 4, 2, 3, 1, 2, 3], 9), [4, 9, 2]);
        assert_eq!(drafter.draft(&[1, 2, 3, 4, 9, 2, 3, 5, 4, 2, 3, 1, 2, 3], 1), [4]);
        assert!(drafter.draft(&[1, 2, 3, 4, 9, 2, 3, 5, 4, 2, 3, 1, 2, 3], 0).is_empty());
    }

    #[test]
    fn a_repetition_goes_on_beyond_the_texts_end() {
        let mut drafter = Drafter::new(4);
        assert_eq!(drafter.draft(&[8, 7, 7, 7], 9), [7, 7, 7, 7]);
        let mut drafter = Drafter::new(4);
        assert_eq!(drafter.draft(&[9, 1, 2, 3, 1, 2, 3], 9), [1, 2, 3, 1]);
    }

    #[test]
    fn an_index_that_grew_is_the_index_of_the_whole_text() {
        let text: Vec<u32> = (0..400u32).map(|i| (i * i / 7) % 5).collect();
        let mut growing = NgramIndex::default();
        for len in 0..=text.len() {
            growing.extend(&text[..len]);
            let mut whole = NgramIndex::default();
            whole.extend(&text[..len]);
            assert_eq!(growing.follower(&text[..len]), whole.follower(&text[..len]));
            // Against a search from the end.
            let searched = (SHORTEST..=LONGEST.min(len))
                .rev()
                .find_map(|n| (n..len).rev().find(|at| text[at - n..*at] == text[len - n..len]));
            assert_eq!(growing.follower(&text[..len]), searched, "{:?}", &text[..len]);
        }
    }

    #[test]
    fn drafts_grow_while_they_are_kept_and_shrink_when_they_are_not() {
        let text = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1, 2];
        let mut drafter = Drafter::new(10);
        let length = |drafter: &mut Drafter| drafter.draft(&text, 99).len();
        assert_eq!(length(&mut drafter), 4);
        drafter.learn(4, 4);
        assert_eq!(length(&mut drafter), 8);
        drafter.learn(8, 8);
        assert_eq!(length(&mut drafter), 10);
        drafter.learn(10, 9);
        assert_eq!(length(&mut drafter), 5);
        drafter.learn(5, 0);
        assert_eq!(length(&mut drafter), 2);
        drafter.learn(2, 2);
        assert_eq!(length(&mut drafter), 4);
        drafter.learn(4, 3);
        drafter.learn(2, 0);
        drafter.learn(1, 0);
        assert_eq!(length(&mut drafter), 1);
        assert_eq!(Drafter::new(2).draft(&text, 99).len(), 2);
    }
}
