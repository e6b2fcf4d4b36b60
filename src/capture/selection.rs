//! What is recorded: which layers and heads (`--layers 0,5-8` and `--heads 5.1,7.*`), which queries,
//! and what of each row.

use crate::capture::format::LayerHeads;
use crate::capture::kind::{AttentionKind, QuerySelection};
use crate::error::{Error, Result};

/// Layers, and the heads of each, in ascending order; queries; and what is recorded of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    layers: Vec<LayerHeads>,
    queries: QuerySelection,
    kind: AttentionKind,
}

impl Selection {
    /// Every weight of every query, of every head of every layer.
    pub fn all(layers: usize, heads: usize) -> Selection {
        let layers = (0..layers).map(|layer| LayerHeads { layer, heads: (0..heads).collect(), window: None });
        Selection::of(layers.collect())
    }

    fn of(layers: Vec<LayerHeads>) -> Selection {
        Selection { layers, queries: QuerySelection::All, kind: AttentionKind::Full }
    }

    /// Records only some queries.
    pub fn with_queries(self, queries: QuerySelection) -> Selection {
        Selection { queries, ..self }
    }

    /// Records something else than every weight.
    pub fn with_kind(self, kind: AttentionKind) -> Selection {
        Selection { kind, ..self }
    }

    /// Reads the two options; `None` means all. In `heads`, `5.1` is head 1 of layer 5, `7.*` all
    /// of layer 7, `*.0` or just `0` the first of every layer; numbers can be ranges.
    ///
    /// # Errors
    /// If a part cannot be read, is out of range, or nothing is left.
    pub fn parse(
        layers: Option<&str>,
        heads: Option<&str>,
        model_layers: usize,
        model_heads: usize,
    ) -> Result<Selection> {
        let layer_list = match layers {
            Some(list) => list
                .split(',')
                .map(|part| range(part, "layer", "--layers", model_layers))
                .collect::<Result<Vec<_>>>()?
                .concat(),
            None => (0..model_layers).collect(),
        };
        let mut wanted = vec![vec![heads.is_none(); model_heads]; model_layers];
        if let Some(list) = heads {
            for (layer, head) in head_list(list, "--heads", model_layers, model_heads)? {
                wanted[layer][head] = true;
            }
        }
        let selected: Vec<LayerHeads> = wanted
            .iter()
            .enumerate()
            .filter(|(layer, _)| layer_list.contains(layer))
            .map(|(layer, wanted)| {
                let heads = (0..model_heads).filter(|head| wanted[*head]).collect();
                LayerHeads { layer, heads, window: None }
            })
            .filter(|layer| !layer.heads.is_empty())
            .collect();
        if selected.is_empty() {
            return Err(Error::Usage(
                "--layers and --heads together select nothing: no head is in one of the layers".into(),
            ));
        }
        Ok(Selection::of(selected))
    }

    pub fn layers(&self) -> &[LayerHeads] {
        &self.layers
    }

    pub fn queries(&self) -> QuerySelection {
        self.queries
    }

    pub fn kind(&self) -> AttentionKind {
        self.kind
    }
}

/// Layers and heads in the notation of [`Selection::parse`]'s `heads`; `option` is what gave the list.
///
/// # Errors
/// If a part cannot be read, or is out of range.
pub fn head_list(
    list: &str,
    option: &str,
    model_layers: usize,
    model_heads: usize,
) -> Result<Vec<(usize, usize)>> {
    let mut heads = vec![];
    for part in list.split(',') {
        let (layer, head) = part.split_once('.').unwrap_or(("*", part));
        let layers = range(layer, "layer", option, model_layers)?;
        let in_layer = range(head, "head", option, model_heads)?;
        heads.extend(layers.iter().flat_map(|layer| in_layer.iter().map(|head| (*layer, *head))));
    }
    Ok(heads)
}

/// `3`, `3-5` or `*`, below `count`.
fn range(text: &str, what: &str, option: &str, count: usize) -> Result<Vec<usize>> {
    let text = text.trim();
    if text == "*" {
        return Ok((0..count).collect());
    }
    let unreadable = || {
        Error::Usage(format!(
            "{option}: cannot read {text:?} as a {what}; expected a number, a range such as 3-5, or *"
        ))
    };
    let number = |text: &str| text.trim().parse::<usize>().map_err(|_| unreadable());
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    if first > last {
        return Err(unreadable());
    }
    if last >= count {
        return Err(Error::Usage(format!(
            "{option}: there is no {what} {last}; the model has {count}, numbered 0 to {}",
            count - 1
        )));
    }
    Ok((first..=last).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(layers: Option<&str>, heads: Option<&str>) -> Vec<(usize, Vec<usize>)> {
        let selection = Selection::parse(layers, heads, 4, 3).unwrap();
        selection.layers().iter().map(|l| (l.layer, l.heads.clone())).collect()
    }

    #[test]
    fn the_notation_means_what_it_says() {
        assert_eq!(Selection::parse(None, None, 4, 3).unwrap(), Selection::all(4, 3));
        assert_eq!(parse(Some("0,2-3"), None), [(0, vec![0, 1, 2]), (2, vec![0, 1, 2]), (3, vec![0, 1, 2])]);
        assert_eq!(parse(None, Some("1.2,3.*")), [(1, vec![2]), (3, vec![0, 1, 2])]);
        assert_eq!(parse(Some("3,1"), Some("0-1")), [(1, vec![0, 1]), (3, vec![0, 1])]);
        assert_eq!(parse(Some("1"), Some("1.2,2.0")), [(1, vec![2])]);
        assert_eq!(parse(None, Some("*.2,2.1")), [(0, vec![2]), (1, vec![2]), (2, vec![1, 2]), (3, vec![2])]);
    }

    #[test]
    fn what_is_out_of_range_or_unreadable_is_named() {
        for (layers, heads, word) in [
            (Some("4"), None, "no layer 4"),
            (Some("0-9"), None, "no layer 9"),
            (None, Some("0.3"), "no head 3"),
            (None, Some("4.0"), "no layer 4"),
            (Some("x"), None, "\"x\""),
            (Some("3-1"), None, "\"3-1\""),
            (Some(""), None, "\"\""),
            (Some("0"), Some("1.0"), "select nothing"),
        ] {
            let message = Selection::parse(layers, heads, 4, 3).unwrap_err().to_string();
            assert!(message.contains(word), "{layers:?} {heads:?}: {message}");
        }
    }
}
