//! Rotary positions in a `config.json`, in both spellings: `rope_theta` and `rope_scaling`, or
//! `rope_parameters` since Transformers 5.

use super::ConfigFile;
use crate::error::Result;
use crate::model::position::{Rotary, RotaryScaling};

/// What a family has where its config says nothing, and the sizes that scalings depend on.
#[derive(Clone, Copy)]
pub(super) struct RotaryDefaults {
    pub base: f64,
    /// The share of each head that turns.
    pub partial: f64,
    pub head_dim: usize,
    pub context: usize,
}

/// The rotary positions of a model.
///
/// # Errors
/// If the type is unknown or a value that it needs is missing or out of range.
pub(super) fn rotary(file: &ConfigFile, defaults: RotaryDefaults) -> Result<Rotary> {
    let defaults = RotaryDefaults {
        base: file.number("rope_theta", Some(defaults.base))?,
        partial: file.number("partial_rotary_factor", Some(defaults.partial))?,
        ..defaults
    };
    // The older spelling wins where both are there, as in Transformers.
    let scaling = file.object("rope_scaling")?.filter(|scaling| !scaling.is_empty());
    let parameters = match scaling {
        Some(scaling) => Some(scaling),
        None => file.object("rope_parameters")?,
    };
    from_object(file, parameters.as_ref(), defaults)
}

/// The rotary positions of layers of one kind, where `rope_parameters` has an object for each kind;
/// elsewhere of no object at all.
///
/// # Errors
/// As [`rotary`].
pub(super) fn rotary_of_kind(file: &ConfigFile, kind: &str, defaults: RotaryDefaults) -> Result<Rotary> {
    let parameters = match file.object("rope_parameters")? {
        Some(kinds) => kinds.object(kind)?,
        None => None,
    };
    from_object(file, parameters.as_ref(), defaults)
}

fn from_object(
    file: &ConfigFile,
    parameters: Option<&ConfigFile>,
    defaults: RotaryDefaults,
) -> Result<Rotary> {
    let mut rotary = Rotary {
        base: defaults.base,
        dims: turning(defaults.partial, defaults.head_dim),
        interleaved: false,
        scaling: RotaryScaling::None,
    };
    if let Some(parameters) = parameters {
        rotary.base = parameters.number("rope_theta", Some(rotary.base))?;
        let partial = parameters.number("partial_rotary_factor", Some(defaults.partial))?;
        rotary.dims = turning(partial, defaults.head_dim);
        rotary.scaling = scaling(file, parameters, defaults.context)?;
    }
    Ok(rotary)
}

/// Values of each head that turn; cut to a whole number, as in Transformers.
fn turning(partial: f64, head_dim: usize) -> usize {
    (head_dim as f64 * partial) as usize
}

fn scaling(file: &ConfigFile, parameters: &ConfigFile, context: usize) -> Result<RotaryScaling> {
    const ORIGINAL: &str = "original_max_position_embeddings";
    let positive_in = |object: &ConfigFile, key: &str, default: Option<f64>| -> Result<f64> {
        let value = object.number(key, default)?;
        if value > 0.0 && value.is_finite() {
            Ok(value)
        } else {
            Err(file.problem(format!("{key} is {value}, expected a positive number")))
        }
    };
    let positive_or = |key: &str, default: Option<f64>| positive_in(parameters, key, default);
    let positive = |key: &str| positive_or(key, None);
    let original_context = || match file.has(ORIGINAL) {
        true => positive_in(file, ORIGINAL, None),
        false => positive_or(ORIGINAL, Some(context as f64)),
    };
    let kind_key = if parameters.has("rope_type") { "rope_type" } else { "type" };
    Ok(match parameters.text(kind_key, Some("default"))?.as_str() {
        "default" => RotaryScaling::None,
        "linear" => RotaryScaling::Linear { factor: positive("factor")? },
        "llama3" => RotaryScaling::Llama3 {
            factor: positive("factor")?,
            low_frequency_factor: positive("low_freq_factor")?,
            high_frequency_factor: positive("high_freq_factor")?,
            original_context: original_context()?,
        },
        "dynamic" => RotaryScaling::Dynamic { factor: positive("factor")?, original_context: context as f64 },
        // Phi-3's first configs say yarn where they mean longrope.
        "yarn" if !parameters.has("short_factor") => {
            let original_context = original_context()?;
            let factor = positive_or("factor", Some(context as f64 / original_context))?;
            let growth = |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
            let or_0 = |key: &str| parameters.number(key, Some(0.0));
            let attention_factor = match (or_0("mscale")?, or_0("mscale_all_dim")?) {
                _ if parameters.has("attention_factor") => positive("attention_factor")?,
                (scale, all) if scale != 0.0 && all != 0.0 => growth(scale) / growth(all),
                _ => growth(1.0),
            };
            RotaryScaling::Yarn {
                factor,
                fast: positive_or("beta_fast", Some(32.0))?,
                slow: positive_or("beta_slow", Some(1.0))?,
                original_context,
                truncate: parameters.flag("truncate", true)?,
                attention_factor,
            }
        }
        "longrope" | "su" | "yarn" => {
            let original_context = original_context()?;
            if original_context <= 1.0 {
                return Err(file.problem(format!("{ORIGINAL} is {original_context}, expected more than 1")));
            }
            let factor = positive_or("factor", Some(context as f64 / original_context))?;
            let default =
                if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / original_context.ln()).sqrt() };
            let list = |key: &str| -> Result<Vec<f32>> {
                Ok(parameters.numbers(key)?.into_iter().map(|factor| factor as f32).collect())
            };
            RotaryScaling::LongRope {
                short: list("short_factor")?,
                long: list("long_factor")?,
                original_context: original_context as usize,
                attention_factor: positive_or("attention_factor", Some(default))?,
            }
        }
        other => {
            return Err(file.problem(format!(
                "rope_type {other:?} is not implemented; known: default, linear, dynamic, yarn, longrope, llama3"
            )));
        }
    })
}
