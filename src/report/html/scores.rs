//! What the overview sorts heads by: the scores of [`heads`](crate::report::heads), and of a text that
//! does not stand twice an induction score of its own.

use crate::report::heads::HeadScores;

/// A score, as the page explains it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Score {
    pub id: &'static str,
    pub title: &'static str,
    /// What it measures, for someone who meets it for the first time.
    pub meaning: &'static str,
    /// `share`, from 0 to 1, or the unit.
    pub unit: &'static str,
}

/// Values of a head, in the order of [`SCORES`]; `None` where the text has nothing to measure one by.
pub type Values = [Option<f64>; SCORES.len()];

pub const SCORES: [Score; 8] = [
    Score {
        id: "induction",
        title: "Induction",
        meaning: "Where the text repeats itself: how much attention goes to the token that came next the last times. \
                  Heads with a high score copy what followed before.",
        unit: "share",
    },
    Score {
        id: "duplicate",
        title: "Duplicate",
        meaning: "In a text that stands twice: how much attention a token of the second copy gives to the same token \
                  in the first.",
        unit: "share",
    },
    Score {
        id: "previous",
        title: "Previous token",
        meaning: "How much attention goes to the token just before the query.",
        unit: "share",
    },
    Score {
        id: "sink",
        title: "First token (sink)",
        meaning: "How much attention is parked on the very first token, as most trained models do when a head has \
                  nothing to look for. Hide it in the toolbar to see the rest.",
        unit: "share",
    },
    Score {
        id: "self",
        title: "Own token",
        meaning: "How much attention a token gives to itself.",
        unit: "share",
    },
    Score {
        id: "local",
        title: "Local",
        meaning: "How much attention stays within the last 8 tokens, of queries that see more.",
        unit: "share",
    },
    Score {
        id: "entropy",
        title: "Spread (entropy)",
        meaning: "How evenly attention is spread over all that a query may see: 0 when it looks at one token, 1 when at \
                  all alike.",
        unit: "share",
    },
    Score {
        id: "distance",
        title: "Distance",
        meaning: "How far back attention reaches, in tokens, on average.",
        unit: "tokens",
    },
];

/// A head's values; `repeats` is its mean of [`Repeats::weight`].
pub fn values(scores: &HeadScores, repeats: Option<f64>) -> Values {
    [
        scores.induction.or(repeats),
        scores.duplicate_token,
        scores.previous_token,
        scores.sink,
        scores.own,
        scores.local,
        scores.entropy,
        scores.distance,
    ]
}

/// Where the same tokens stood before.
pub struct Repeats {
    /// The last earlier position of the same token.
    before: Vec<Option<u32>>,
}

impl Repeats {
    pub fn of(ids: &[u32]) -> Repeats {
        let mut last = std::collections::HashMap::new();
        Repeats { before: (0..).zip(ids).map(|(position, id)| last.insert(*id, position)).collect() }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_followed_to_what_came_next() {
        // a b a a b: the second a (2) is looked behind at 1; the third (3) at 1, and 3 is itself; b at 2.
        let repeats = Repeats::of(&[5, 6, 5, 5, 6]);
        let row = [0.5, 0.25, 0.125, 0.0625, 0.0625];
        let expected = [None, None, Some(0.25), Some(0.25), Some(0.125)];
        for (query, expected) in expected.into_iter().enumerate() {
            assert_eq!(repeats.weight(query, &row[..=query]), expected, "{query}");
        }
    }
}
