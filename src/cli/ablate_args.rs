//! `--ablate 5.1,7.*=mean`: heads that are silenced.

use anyhow::Result;
use attend::capture::selection::head_list;
use attend::model::{HeadIntervention, ModelConfig, Silence};
use clap::Args;

use super::output::note;
use super::usage;

#[derive(Args)]
pub struct AblateArgs {
    /// Silence heads, in the notation of --heads: 5.1,7.*. In their place stands nothing (=zero), the mean
    /// of their outputs up to each query (5.1,7.*=mean), or even attention to all that the query may see
    /// (=uniform) [default: =zero]; =HOW counts for the heads before it, and the option can be repeated
    #[arg(long, value_name = "LIST[=HOW]")]
    ablate: Vec<String>,
}

impl AblateArgs {
    /// Checks the heads against the model, and says what is silenced; `None` where nothing is.
    pub fn resolve(&self, config: &ModelConfig) -> Result<Option<HeadIntervention>> {
        let mut intervention = HeadIntervention::new(config);
        for list in &self.ablate {
            for (heads, how) in groups(list)? {
                for (layer, head) in head_list(&heads, "--ablate", config.layers, config.heads)? {
                    intervention.silence(layer, head, how)?;
                }
            }
        }
        if intervention.is_empty() {
            return Ok(None);
        }
        note(&format!("ablated: {}", described(&intervention)));
        Ok(Some(intervention))
    }

    pub fn is_given(&self) -> bool {
        !self.ablate.is_empty()
    }
}

/// `5.1,7.*=mean,3.0` → `5.1,7.*` and mean, `3.0` and zero.
fn groups(list: &str) -> Result<Vec<(String, Silence)>> {
    let mut groups = vec![];
    let mut heads: Vec<&str> = vec![];
    for part in list.split(',') {
        let Some((head, how)) = part.split_once('=') else {
            heads.push(part);
            continue;
        };
        heads.push(head);
        groups.push((std::mem::take(&mut heads).join(","), silence(how)?));
    }
    if !heads.is_empty() {
        groups.push((heads.join(","), Silence::Zero));
    }
    Ok(groups)
}

fn silence(how: &str) -> Result<Silence> {
    match how.trim() {
        "zero" => Ok(Silence::Zero),
        "mean" => Ok(Silence::Mean),
        "uniform" => Ok(Silence::Uniform),
        other => {
            Err(usage(format!("--ablate: cannot silence with {other:?}; expected zero, mean or uniform")))
        }
    }
}

/// `5.1 (zero), 7.0 (mean)`, or how many where they are many.
fn described(intervention: &HeadIntervention) -> String {
    let heads: Vec<String> = intervention
        .silenced()
        .map(|(layer, head, how)| format!("{layer}.{head} ({})", how.name()))
        .collect();
    match heads.len() {
        0..=12 => heads.join(", "),
        many => format!("{} and {} more heads", heads[..10].join(", "), many - 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_counts_for_the_heads_before_it() {
        let read = |list| groups(list).unwrap();
        assert_eq!(read("5.1,7.*"), [("5.1,7.*".into(), Silence::Zero)]);
        assert_eq!(read("5.1,7.*=mean"), [("5.1,7.*".into(), Silence::Mean)]);
        assert_eq!(
            read("5.1=zero,7.*=uniform,3.0"),
            [("5.1".into(), Silence::Zero), ("7.*".into(), Silence::Uniform), ("3.0".into(), Silence::Zero)]
        );
        assert!(groups("5.1=loud").unwrap_err().to_string().contains("\"loud\""));
    }
}
