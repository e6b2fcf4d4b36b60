//! The scores of a head, A[i, j] being the weight of query *i* on key *j* (positions from 0):
//!
//! | score | formula | |
//! | --- | --- | --- |
//! | previous token | mean of A[i, i − 1] over all queries but the first | |
//! | duplicate token | mean of A[i, i − n] over the second copy of a text of *n* tokens that stands twice | Wang et al. 2023 |
//! | induction | mean of A[i, i − n + 1] over the second copy: prefix matching | Olsson et al. 2022 |
//! | sink | mean of A[i, 0] over all queries; of any key, over the queries that may see it | Xiao et al. 2024, Gu et al. 2025 |
//! | self | mean of A[i, i] | |
//! | local | mean of the weight on the last 8 keys up to the query, over queries that see more | |
//! | entropy | mean of −Σ A ln A / ln(keys that the query may see), which is ln(i + 1) under a causal mask; from the second query on. 1: even attention | |
//! | distance | mean of Σ A[i, j] · \|i − j\|, in tokens | |

use serde::Serialize;

/// Keys up to the query, itself included, that count as near.
pub use crate::capture::overview::NEAR;
/// A key that gets more than this is a sink of the head (ε of Gu et al. 2025).
pub const SINK: f64 = 0.3;

/// One head's scores. `None` where the text has nothing to measure one by.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HeadScores {
    pub layer: usize,
    pub head: usize,
    pub previous_token: Option<f64>,
    pub duplicate_token: Option<f64>,
    pub induction: Option<f64>,
    pub sink: Option<f64>,
    #[serde(rename = "self")]
    pub own: Option<f64>,
    pub local: Option<f64>,
    pub entropy: Option<f64>,
    pub distance: Option<f64>,
    /// The key with the largest mean weight, among those that at least half of the queries may see.
    pub sink_position: Option<usize>,
    pub sink_weight: Option<f64>,
    pub kinds: Vec<HeadKind>,
}

/// What a head is found to do, in the order in which several are named.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub enum HeadKind {
    /// Looks behind an earlier occurrence of the token at hand: induction of at least 0.3.
    #[serde(rename = "induction")]
    Induction,
    /// Looks at an earlier occurrence of the token at hand: duplicate token of at least 0.3.
    #[serde(rename = "duplicate token")]
    DuplicateToken,
    /// Looks at the token before: previous token of at least 0.3.
    #[serde(rename = "previous token")]
    PreviousToken,
    /// Looks at itself: self of at least 0.3.
    #[serde(rename = "self")]
    Own,
    /// Looks at the last few tokens: local of at least 0.6, and none of the above.
    #[serde(rename = "local")]
    Local,
    /// Looks everywhere: entropy of at least 0.9.
    #[serde(rename = "even")]
    Even,
    /// Rests on one token: more than 0.3 on a key, in the mean over the queries that may see it.
    #[serde(rename = "sink")]
    Sink,
}

impl HeadKind {
    /// All, in the order in which they are named.
    pub const ALL: [HeadKind; 7] = [
        HeadKind::Induction,
        HeadKind::DuplicateToken,
        HeadKind::PreviousToken,
        HeadKind::Own,
        HeadKind::Local,
        HeadKind::Even,
        HeadKind::Sink,
    ];

    /// As it is called in tables.
    pub fn name(self) -> &'static str {
        match self {
            HeadKind::Induction => "induction",
            HeadKind::DuplicateToken => "duplicate token",
            HeadKind::PreviousToken => "previous token",
            HeadKind::Own => "self",
            HeadKind::Local => "local",
            HeadKind::Even => "even",
            HeadKind::Sink => "sink",
        }
    }

    /// What scores find.
    pub(super) fn of(scores: &HeadScores) -> Vec<HeadKind> {
        let at_least = |score: Option<f64>, bound: f64| score.is_some_and(|score| score >= bound);
        let close = at_least(scores.previous_token, 0.3) || at_least(scores.own, 0.3);
        HeadKind::ALL
            .into_iter()
            .filter(|kind| match kind {
                HeadKind::Induction => at_least(scores.induction, 0.3),
                HeadKind::DuplicateToken => at_least(scores.duplicate_token, 0.3),
                HeadKind::PreviousToken => at_least(scores.previous_token, 0.3),
                HeadKind::Own => at_least(scores.own, 0.3),
                HeadKind::Local => at_least(scores.local, 0.6) && !close,
                HeadKind::Even => at_least(scores.entropy, 0.9),
                HeadKind::Sink => scores.sink_weight.is_some_and(|weight| weight > SINK),
            })
            .collect()
    }
}
