//! Where a text repeats itself: what an induction head would look at.

use std::collections::HashMap;

/// Where the same tokens stood before, of a text that may still grow.
#[derive(Clone, Default)]
pub struct Repeats {
    /// The last earlier position of the same token.
    before: Vec<Option<u32>>,
    last: HashMap<u32, u32>,
}

impl Repeats {
    pub fn of(ids: impl IntoIterator<Item = u32>) -> Repeats {
        let mut repeats = Repeats::default();
        ids.into_iter().for_each(|id| repeats.push(id));
        repeats
    }

    /// Adds the next token.
    pub fn push(&mut self, id: u32) {
        let position = self.before.len() as u32;
        self.before.push(self.last.insert(id, position));
    }

    /// Tokens so far.
    pub fn tokens(&self) -> usize {
        self.before.len()
    }

    /// Whether there are tokens behind earlier occurrences of the query's token.
    pub fn some(&self, query: usize) -> bool {
        self.successors(query).next().is_some()
    }

    /// What a row gives to the tokens behind earlier occurrences of its query's token; `None` where
    /// there are none.
    pub fn weight(&self, query: usize, row: &[f32]) -> Option<f64> {
        let mut successors = self.successors(query).peekable();
        successors.peek()?;
        Some(successors.map(|key| f64::from(row.get(key).copied().unwrap_or(0.0))).sum())
    }

    /// Positions behind earlier occurrences of the query's token: where an induction head looks
    /// (Olsson et al. 2022).
    fn successors(&self, query: usize) -> impl Iterator<Item = usize> {
        let earlier = |position: usize| self.before.get(position).copied().flatten().map(|p| p as usize);
        std::iter::successors(earlier(query), move |position| earlier(*position))
            .map(|position| position + 1)
            .filter(move |key| *key < query)
    }
}

/// Half the length of a text whose second half repeats the first.
pub fn repeated(tokens: &[u32]) -> Option<usize> {
    let half = tokens.len() / 2;
    (half > 0 && tokens.len() == 2 * half && tokens[..half] == tokens[half..]).then_some(half)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_followed_to_what_came_next() {
        // a b a a b: the second a (2) is looked behind at 1; the third (3) at 1, and 3 is itself; b at 2.
        let repeats = Repeats::of([5, 6, 5, 5, 6]);
        let row = [0.5, 0.25, 0.125, 0.0625, 0.0625];
        let expected = [None, None, Some(0.25), Some(0.25), Some(0.125)];
        for (query, expected) in expected.into_iter().enumerate() {
            assert_eq!(repeats.weight(query, &row[..=query]), expected, "{query}");
        }
    }

    #[test]
    fn a_text_that_stands_twice_is_seen() {
        for (tokens, half) in [
            (&[1u32, 2, 1, 2][..], Some(2)),
            (&[7, 7], Some(1)),
            (&[1, 2, 1, 3], None),
            (&[1, 2, 1, 2, 1], None),
            (&[1], None),
            (&[], None),
        ] {
            assert_eq!(repeated(tokens), half, "{tokens:?}");
        }
    }
}
