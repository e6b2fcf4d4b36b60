//! What the overview sorts heads by. Each score is a mean over queries; the first query, which can
//! see nothing but itself, is left out.

/// A score, as the page explains it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Score {
    pub id: &'static str,
    pub title: &'static str,
    /// What it measures, for someone who meets it for the first time.
    pub meaning: &'static str,
    /// `share`: of the attention, 0 to 1; else the unit.
    pub unit: &'static str,
}

/// The scores, in the order of [`HeadScores::finish`].
pub const SCORES: [Score; 6] = [
    Score {
        id: "induction",
        title: "Induction",
        meaning: "Where the text repeats itself: how much attention goes to the token that came next the last times. \
                  Heads with a high score copy what followed before.",
        unit: "share",
    },
    Score {
        id: "previous",
        title: "Previous token",
        meaning: "How much attention goes to the token just before the query.",
        unit: "share",
    },
    Score {
        id: "first",
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
        id: "entropy",
        title: "Spread (entropy)",
        meaning: "How widely attention is spread: 0 bits when a query looks at one token, more when at many.",
        unit: "bits",
    },
    Score {
        id: "distance",
        title: "Distance",
        meaning: "How far back attention reaches, in tokens, on average.",
        unit: "tokens",
    },
];

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

    /// Positions behind earlier occurrences of the query's token: where an induction head looks
    /// (Olsson et al. 2022).
    fn successors(&self, query: usize) -> impl Iterator<Item = usize> {
        let earlier = |position: usize| self.before.get(position).copied().flatten().map(|p| p as usize);
        std::iter::successors(earlier(query), move |position| earlier(*position))
            .map(|position| position + 1)
            .filter(move |key| *key < query)
    }
}

/// The scores of one head, row by row.
#[derive(Default)]
pub struct HeadScores {
    rows: usize,
    sums: [f64; 6],
    induction_rows: usize,
}

impl HeadScores {
    /// Takes the weights of one query, for keys from position 0 on.
    pub fn row(&mut self, repeats: &Repeats, query: usize, weights: &[f32]) {
        if query == 0 {
            return;
        }
        let at = |key: usize| f64::from(weights.get(key).copied().unwrap_or(0.0));
        let (mut entropy, mut distance) = (0.0, 0.0);
        for (key, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
            entropy -= f64::from(weight * weight.log2());
            distance += f64::from(*weight) * key.abs_diff(query) as f64;
        }
        let mut successors = repeats.successors(query).peekable();
        if successors.peek().is_some() {
            self.induction_rows += 1;
            self.sums[0] += successors.map(at).sum::<f64>();
        }
        self.rows += 1;
        for (sum, value) in
            self.sums[1..].iter_mut().zip([at(query - 1), at(0), at(query), entropy, distance])
        {
            *sum += value;
        }
    }

    /// In the order of [`SCORES`]; `None` where no query gives a score.
    pub fn finish(&self) -> [Option<f64>; 6] {
        std::array::from_fn(|index| {
            let rows = if index == 0 { self.induction_rows } else { self.rows };
            (rows > 0).then(|| self.sums[index] / rows as f64)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_the_means_of_their_definitions() {
        // a b a b: at the second a (2) induction looks at 1, at the second b (3) at 2.
        let repeats = Repeats::of(&[5, 6, 5, 6]);
        let mut scores = HeadScores::default();
        let rows: [&[f32]; 4] = [&[1.0], &[0.5, 0.5], &[0.25, 0.5, 0.25], &[0.0, 0.0, 1.0, 0.0]];
        for (query, row) in rows.iter().enumerate() {
            scores.row(&repeats, query, row);
        }
        let expected = [
            (0.5 + 1.0) / 2.0,
            (0.5 + 0.5 + 1.0) / 3.0,
            (0.5 + 0.25) / 3.0,
            (0.5 + 0.25) / 3.0,
            (1.0 + 1.5) / 3.0,
            (0.5 + 1.0 + 1.0) / 3.0,
        ];
        assert_eq!(scores.finish(), expected.map(Some));
    }

    #[test]
    fn what_is_not_defined_is_none() {
        let mut scores = HeadScores::default();
        scores.row(&Repeats::of(&[1]), 0, &[1.0]);
        assert_eq!(scores.finish(), [None; 6]);
        scores.row(&Repeats::of(&[1, 2]), 1, &[0.5, 0.5]);
        assert_eq!(scores.finish()[0], None);
        assert_eq!(scores.finish()[1], Some(0.5));
    }
}
