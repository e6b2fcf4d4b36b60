//! What is recorded of a row, and of which rows: `--attention-kind` and `--queries`.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use crate::error::Error;

/// What is recorded of each row of a map.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AttentionKind {
    /// Every weight.
    #[default]
    Full,
    /// The K largest weights, the positions of their keys, and the sum of all others.
    Top(usize),
    /// Five numbers ([`crate::kernels::row_statistics::RowStatistics`]).
    Stats,
}

impl fmt::Display for AttentionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AttentionKind::Full => f.write_str("full"),
            AttentionKind::Top(count) => write!(f, "top:{count}"),
            AttentionKind::Stats => f.write_str("stats"),
        }
    }
}

impl FromStr for AttentionKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<AttentionKind, Error> {
        let count = text.strip_prefix("top:").and_then(number);
        match (text, count) {
            ("full", _) => Ok(AttentionKind::Full),
            ("stats", _) => Ok(AttentionKind::Stats),
            // Positions are stored in 32 bits: more keys than that never come.
            (_, Some(count)) if (1..=i32::MAX as usize).contains(&count) => Ok(AttentionKind::Top(count)),
            _ => Err(Error::Usage(format!(
                "cannot read {text:?} as a kind of recording; expected full, top:K with K of at least 1 \
                 (such as top:16), or stats"
            ))),
        }
    }
}

/// Which queries of a step are recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum QuerySelection {
    #[default]
    All,
    /// The last so many of each step.
    Last(usize),
    /// Those whose position is a multiple of this.
    Every(usize),
    /// Positions, both included.
    Between(usize, usize),
}

impl QuerySelection {
    /// The positions recorded of a step with these queries.
    pub fn of(self, step: Range<usize>) -> Rows {
        let clipped = |first: usize, end: usize| {
            let first = first.clamp(step.start, step.end);
            Rows { first, count: end.clamp(first, step.end) - first, stride: 1 }
        };
        match self {
            QuerySelection::All => clipped(step.start, step.end),
            QuerySelection::Last(count) => clipped(step.end.saturating_sub(count), step.end),
            QuerySelection::Between(first, last) => clipped(first, last.saturating_add(1)),
            QuerySelection::Every(stride) => {
                let first = step.start.next_multiple_of(stride);
                let count = step.end.saturating_sub(first).div_ceil(stride);
                // Of one row, or none, nothing follows.
                Rows { first: first.min(step.end), count, stride: if count > 1 { stride } else { 1 } }
            }
        }
    }
}

impl fmt::Display for QuerySelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QuerySelection::All => f.write_str("all"),
            QuerySelection::Last(count) => write!(f, "last:{count}"),
            QuerySelection::Every(stride) => write!(f, "every:{stride}"),
            QuerySelection::Between(first, last) => write!(f, "{first}-{last}"),
        }
    }
}

impl FromStr for QuerySelection {
    type Err = Error;

    fn from_str(text: &str) -> Result<QuerySelection, Error> {
        let of = |prefix: &str| text.strip_prefix(prefix).and_then(number).filter(|count| *count > 0);
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (text, of("last:"), of("every:"), number(first), number(last)) {
            ("all", ..) => Ok(QuerySelection::All),
            ("last", ..) => Ok(QuerySelection::Last(1)),
            (_, Some(count), ..) => Ok(QuerySelection::Last(count)),
            (_, _, Some(stride), ..) => Ok(QuerySelection::Every(stride)),
            (.., Some(first), Some(last)) if first <= last => Ok(QuerySelection::Between(first, last)),
            _ => Err(Error::Usage(format!(
                "cannot read {text:?} as queries; expected all, last, last:N, every:K (N and K of at least 1), a \
                 position, or positions A-B with A no larger than B"
            ))),
        }
    }
}

fn number(text: &str) -> Option<usize> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Positions of queries: `first`, `first + stride`, … (`count` of them).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rows {
    pub first: usize,
    pub count: usize,
    pub stride: usize,
}

impl Rows {
    /// The position of a row.
    pub fn position(&self, row: usize) -> usize {
        self.first + row * self.stride
    }

    /// The rows whose positions lie in a range.
    pub fn within(&self, positions: Range<usize>) -> Range<usize> {
        let before = |position: usize| {
            position.saturating_sub(self.first).div_ceil(self.stride.max(1)).min(self.count)
        };
        before(positions.start)..before(positions.end)
    }
}

/// Both are JSON strings, spelled as the options are.
macro_rules! as_text {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
as_text!(AttentionKind);
as_text!(QuerySelection);

#[cfg(test)]
mod tests {
    use super::*;

    fn positions(text: &str, step: Range<usize>) -> Vec<usize> {
        let rows = text.parse::<QuerySelection>().unwrap().of(step);
        (0..rows.count).map(|row| rows.position(row)).collect()
    }

    #[test]
    fn queries_are_those_of_the_notation() {
        assert_eq!(positions("all", 3..6), [3, 4, 5]);
        assert_eq!(positions("last", 0..6), [5]);
        assert_eq!(positions("last:2", 0..6), [4, 5]);
        assert_eq!(positions("last:9", 4..6), [4, 5]);
        assert_eq!(positions("every:4", 0..10), [0, 4, 8]);
        assert_eq!(positions("every:4", 3..4), [] as [usize; 0]);
        assert_eq!(positions("every:4", 4..5), [4]);
        assert_eq!(positions("2-4", 0..10), [2, 3, 4]);
        assert_eq!(positions("2-4", 4..10), [4]);
        assert_eq!(positions("7", 0..10), [7]);
        assert_eq!(positions("7", 0..3), [] as [usize; 0]);
        assert_eq!(positions("7", 8..9), [] as [usize; 0]);
    }

    #[test]
    fn rows_are_found_by_position() {
        let rows = "every:4".parse::<QuerySelection>().unwrap().of(0..100);
        assert_eq!(rows.within(0..64), 0..16);
        assert_eq!(rows.within(64..100), 16..25);
        assert_eq!(rows.within(5..8), 2..2);
        assert_eq!("60-70".parse::<QuerySelection>().unwrap().of(0..100).within(64..100), 4..11);
    }

    #[test]
    fn what_cannot_be_read_is_named_and_what_can_is_written_the_same() {
        for text in ["", "top", "top:0", "top:-1", "top:x", "Full", "stats:1", "top:99999999999"] {
            let message = text.parse::<AttentionKind>().unwrap_err().to_string();
            assert!(message.contains(&format!("{text:?}")), "{message}");
        }
        for text in ["", "last:", "last:0", "every", "every:0", "4-2", "-3", "1-", "x", "+1"] {
            let message = text.parse::<QuerySelection>().unwrap_err().to_string();
            assert!(message.contains(&format!("{text:?}")), "{message}");
        }
        for text in ["full", "top:16", "stats"] {
            assert_eq!(text.parse::<AttentionKind>().unwrap().to_string(), text);
        }
        for text in ["all", "last:3", "every:7", "10-20"] {
            assert_eq!(text.parse::<QuerySelection>().unwrap().to_string(), text);
        }
    }
}
