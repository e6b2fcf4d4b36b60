//! Heads as a table for people, and as CSV.

use std::cmp::Ordering;
use std::fmt::Write as _;

use super::scores::{HeadKind, HeadScores};

/// A number that heads can be sorted by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Column {
    PreviousToken,
    DuplicateToken,
    Induction,
    Sink,
    Own,
    Local,
    Entropy,
    Distance,
}

impl Column {
    /// In the table's order.
    pub const ALL: [Column; 8] = [
        Column::PreviousToken,
        Column::DuplicateToken,
        Column::Induction,
        Column::Sink,
        Column::Own,
        Column::Local,
        Column::Entropy,
        Column::Distance,
    ];

    /// As in JSON and CSV.
    pub fn name(self) -> &'static str {
        match self {
            Column::PreviousToken => "previous_token",
            Column::DuplicateToken => "duplicate_token",
            Column::Induction => "induction",
            Column::Sink => "sink",
            Column::Own => "self",
            Column::Local => "local",
            Column::Entropy => "entropy",
            Column::Distance => "distance",
        }
    }

    fn heading(self) -> &'static str {
        match self {
            Column::PreviousToken => "previous",
            Column::DuplicateToken => "duplicate",
            column => column.name(),
        }
    }

    /// The number of one head.
    pub fn of(self, scores: &HeadScores) -> Option<f64> {
        match self {
            Column::PreviousToken => scores.previous_token,
            Column::DuplicateToken => scores.duplicate_token,
            Column::Induction => scores.induction,
            Column::Sink => scores.sink,
            Column::Own => scores.own,
            Column::Local => scores.local,
            Column::Entropy => scores.entropy,
            Column::Distance => scores.distance,
        }
    }
}

/// Scored heads, in the order in which they are shown.
pub struct HeadTable {
    heads: Vec<HeadScores>,
}

impl HeadTable {
    /// Sorted by layer and head, or by a column, the largest first and those without a number last;
    /// the first `most` of them.
    pub fn new(mut heads: Vec<HeadScores>, sort: Option<Column>, most: Option<usize>) -> HeadTable {
        if let Some(column) = sort {
            heads.sort_by(|a, b| match (column.of(a), column.of(b)) {
                (Some(a), Some(b)) => b.total_cmp(&a),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => Ordering::Equal,
            });
        }
        heads.truncate(most.unwrap_or(usize::MAX));
        HeadTable { heads }
    }

    pub fn heads(&self) -> &[HeadScores] {
        &self.heads
    }

    /// A line a head: its scores, and what it is found to do.
    pub fn render(&self) -> String {
        let mut out = String::from("  head");
        for column in Column::ALL {
            let _ = write!(out, "  {:>9}", column.heading());
        }
        out.push_str("  what\n");
        for head in &self.heads {
            let _ = write!(out, "{:>6}", format!("{}.{}", head.layer, head.head));
            for column in Column::ALL {
                let cell = match column.of(head) {
                    Some(number) if column == Column::Distance => format!("{number:.1}"),
                    Some(number) => format!("{number:.3}"),
                    None => "-".into(),
                };
                let _ = write!(out, "  {cell:>9}");
            }
            let kinds: Vec<String> = head.kinds.iter().map(|kind| described(head, *kind)).collect();
            let _ = writeln!(out, "  {}", kinds.join(", "));
        }
        out
    }

    /// RFC 4180, with plain line ends; empty where there is no number.
    pub fn csv(&self) -> String {
        let mut out = String::from("layer,head");
        for column in Column::ALL {
            let _ = write!(out, ",{}", column.name());
        }
        out.push_str(",sink_position,sink_weight,kinds\n");
        for head in &self.heads {
            let _ = write!(out, "{},{}", head.layer, head.head);
            let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
            for column in Column::ALL {
                let _ = write!(out, ",{}", number(column.of(head)));
            }
            let position = head.sink_position.map_or(String::new(), |position| position.to_string());
            let kinds: Vec<&str> = head.kinds.iter().map(|kind| kind.name()).collect();
            let _ = writeln!(out, ",{position},{},{}", number(head.sink_weight), kinds.join(" + "));
        }
        out
    }
}

/// A sink is named with its position where that is not the first.
fn described(head: &HeadScores, kind: HeadKind) -> String {
    match (kind, head.sink_position) {
        (HeadKind::Sink, Some(position)) if position > 0 => format!("sink (token {position})"),
        _ => kind.name().into(),
    }
}

/// `induction: 5.1 (0.93), …`: the strongest heads of each kind that is found, a line each.
pub fn summary(heads: &[HeadScores]) -> String {
    const NAMED: usize = 5;
    let mut out = String::new();
    for kind in HeadKind::ALL {
        let score = |head: &HeadScores| match kind {
            HeadKind::Induction => head.induction,
            HeadKind::DuplicateToken => head.duplicate_token,
            HeadKind::PreviousToken => head.previous_token,
            HeadKind::Own => head.own,
            HeadKind::Local => head.local,
            HeadKind::Even => head.entropy,
            HeadKind::Sink => head.sink_weight,
        };
        let mut found: Vec<&HeadScores> = heads.iter().filter(|head| head.kinds.contains(&kind)).collect();
        found.sort_by(|a, b| score(b).unwrap_or(0.0).total_cmp(&score(a).unwrap_or(0.0)));
        if found.is_empty() {
            continue;
        }
        let named =
            |head: &&HeadScores| format!("{}.{} ({:.2})", head.layer, head.head, score(head).unwrap_or(0.0));
        let first: Vec<String> = found.iter().take(NAMED).map(named).collect();
        let more = if found.len() > NAMED { ", …" } else { "" };
        let _ = writeln!(out, "{:<15} {:>4}  {}{more}", kind.name(), found.len(), first.join(", "));
    }
    out
}
