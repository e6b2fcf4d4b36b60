//! Ending at a text: `--stop`. Text that may be the beginning of a stop text waits until it is not.

/// Passes text on until one of its stop texts appears; that one is not passed on.
pub struct StopFilter {
    stops: Vec<String>,
    held: String,
}

impl StopFilter {
    /// Empty stop texts are ignored.
    pub fn new(stops: &[String]) -> StopFilter {
        StopFilter { stops: stops.iter().filter(|s| !s.is_empty()).cloned().collect(), held: String::new() }
    }

    /// Adds text; answers what can be shown, and whether a stop text was reached.
    pub fn push(&mut self, text: &str) -> (String, bool) {
        self.held.push_str(text);
        let reached = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        if let Some(at) = reached {
            let shown = self.held[..at].to_owned();
            self.held.clear();
            return (shown, true);
        }
        let keep = self.longest_beginning();
        let rest = self.held.split_off(self.held.len() - keep);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// The end of the text: what was held can be shown after all.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Bytes at the end of the held text that are the beginning of a stop text.
    fn longest_beginning(&self) -> usize {
        self.stops
            .iter()
            .flat_map(|stop| stop.char_indices().skip(1).map(move |(at, _)| &stop[..at]))
            .filter(|beginning| self.held.ends_with(beginning))
            .map(str::len)
            .max()
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let stops: Vec<String> = stops.iter().map(|s| (*s).to_owned()).collect();
        let mut filter = StopFilter::new(&stops);
        let mut shown = vec![];
        for piece in pieces {
            let (text, stopped) = filter.push(piece);
            shown.push(text);
            if stopped {
                return (shown, true);
            }
        }
        shown.push(filter.finish());
        (shown, false)
    }

    #[test]
    fn a_stop_text_across_pieces_ends_and_is_not_shown() {
        assert_eq!(
            run(&["END"], &["one E", "N", "D two"]),
            (vec!["one ".into(), "".into(), "".into()], true)
        );
        assert_eq!(run(&["b", "abc"], &["xab"]), (vec!["xa".into()], true));
    }

    #[test]
    fn what_only_began_like_one_is_shown() {
        let (shown, stopped) = run(&["END"], &["E", "NE", "N"]);
        assert!(!stopped);
        assert_eq!(shown.concat(), "ENEN");
        assert_eq!(shown[1], "EN", "shown as soon as it cannot be a stop text");
        assert_eq!(run(&["", "é!"], &["caf", "é"]), (vec!["caf".into(), "".into(), "é".into()], false));
    }
}
