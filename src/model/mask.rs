//! What a query may attend to.

use serde::{Deserialize, Serialize};

/// Which keys a query sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mask {
    /// Keys at or before its own position, itself included: the decoder's mask.
    #[default]
    Causal,
    /// Every key of the step: the general attention of an encoder.
    None,
}

impl std::fmt::Display for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Mask::Causal => "causal",
            Mask::None => "none",
        })
    }
}
