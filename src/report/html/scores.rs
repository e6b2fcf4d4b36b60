//! What the overview sorts heads by: the scores of [`heads`](crate::report::heads), and of a text that
//! does not stand twice an induction score of its own.

use crate::capture::overview::OverviewScores;

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

/// A head's values. Of a text that stands twice the induction score is the one over its second copy.
pub fn values(scores: &OverviewScores, stands_twice: bool) -> Values {
    let of_copy = |score: Option<f64>| score.filter(|_| stands_twice);
    [
        of_copy(scores.induction).or(scores.repeats),
        of_copy(scores.duplicate_token),
        scores.previous_token,
        scores.sink,
        scores.own,
        scores.local,
        scores.entropy,
        scores.distance,
    ]
}
