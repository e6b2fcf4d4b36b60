//! `attend info`: what a model is, without loading its weights.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Result;
use attend::checkpoint::families::FAMILIES;
use attend::model::ModelConfig;
use attend::model::position::RotaryScaling;
use clap::Args;

use super::Outcome;
use super::held::held_lines;
use super::model_args::{CacheDtype, Dtype, open};
use super::output::{megabytes, print};

#[derive(Args)]
pub struct InfoArgs {
    /// Folder with config.json and model.safetensors, a GGUF file, or a model of the hub, OWNER/NAME or
    /// OWNER/NAME@REVISION, which is fetched [default: the embedded model]
    #[arg(value_name = "MODEL")]
    positional: Option<PathBuf>,
    /// The same as MODEL
    #[arg(short, long, value_name = "MODEL", conflicts_with = "positional")]
    model: Option<PathBuf>,
    /// Say how the weights would be held with this --dtype [default: as in the checkpoint]
    #[arg(long, value_enum, value_name = "DTYPE")]
    dtype: Option<Dtype>,
    /// Say how much the cache would take with this --cache-dtype
    #[arg(long, value_enum, default_value_t = CacheDtype::F32, value_name = "DTYPE")]
    cache_dtype: CacheDtype,
    /// List the families (model_type in config.json) that load
    #[arg(long, conflicts_with_all = ["positional", "model", "dtype"])]
    families: bool,
}

pub fn run(args: InfoArgs) -> Result<Outcome> {
    if args.families {
        let families: String = FAMILIES.iter().map(|family| format!("{}\n", family.model_type)).collect();
        print(&families)?;
        return Ok(Outcome::Done);
    }
    let checkpoint = open(args.positional.as_deref().or(args.model.as_deref()))?;
    let config = checkpoint.config();
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(out, "{name:<16}{value}");
    };
    line(
        "model",
        match args.positional.or(args.model) {
            Some(_) => checkpoint.name(),
            None => format!("{} (inside this program; it writes short stories)", checkpoint.name()),
        },
    );
    line("family", config.family.clone());
    line(
        "parameters",
        format!("{} ({:.1} M)", config.parameter_count(), config.parameter_count() as f64 / 1e6),
    );
    line("layers", config.layers.to_string());
    let sharing = match config.heads / config.kv_heads {
        1 => String::new(),
        group => format!(", {group} to a key/value head ({} of those)", config.kv_heads),
    };
    line("heads", format!("{} a layer, of size {}{sharing}", config.heads, config.head_dim));
    line("hidden size", config.hidden.to_string());
    line("MLP size", config.intermediate.to_string());
    line("vocabulary", config.vocabulary.to_string());
    if config.is_encoder() {
        line("kind", "an encoder: it has attention maps, and does not generate".into());
    } else {
        line("output head", if config.tied_head { "the embedding (tied)" } else { "its own" }.into());
    }
    line("positions", positions(config));
    if let Some(experts) = &config.experts {
        let shared = if experts.shared_intermediate.is_some() { " and a shared one" } else { "" };
        let layers = experts.layers.iter().filter(|has| **has).count();
        line(
            "experts",
            format!(
                "{} of {}{shared} for a token, of size {}, in {layers} of {} layers",
                experts.chosen, experts.count, experts.intermediate, config.layers
            ),
        );
    }
    line("context", format!("{} tokens", config.context));
    let windowed: Vec<usize> = config.windows.iter().flatten().copied().collect();
    if let Some(window) = windowed.first() {
        line("window", format!("{window} keys, in {} of {} layers", windowed.len(), config.layers));
    }
    let held = args.cache_dtype.held();
    let cache = config.cache_bytes_per_token(held);
    let generates = !config.is_encoder();
    if generates {
        line("cache", format!("{cache} bytes ({}) a token, in {}", megabytes(cache as u64), held.name()));
    }
    let types: Vec<String> = checkpoint
        .weights()
        .bytes_by_type()
        .iter()
        .map(|(dtype, bytes)| format!("{dtype} ({})", megabytes(*bytes as u64)))
        .collect();
    line("weights", types.join(", "));
    line("format", checkpoint.format());
    let asked = args.dtype.map(Dtype::element);
    for (number, text) in held_lines(&checkpoint.held(asked)?, asked).into_iter().enumerate() {
        line(if number == 0 { "in memory" } else { "" }, text);
    }
    for (path, size) in checkpoint.weights().files() {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        line("file", format!("{name} ({})", megabytes(size as u64)));
    }
    let generation = checkpoint.generation();
    match checkpoint.tokenizer() {
        Ok(tokenizer) => {
            line("tokenizer", format!("{} tokens", tokenizer.len()));
            let name = |id: u32| match tokenizer.token(id) {
                Some(token) => format!("{token} ({id})"),
                None => format!("({id})"),
            };
            if let Some(id) = generation.begin_token {
                line("begin token", name(id));
            }
            let ends: Vec<String> = generation.end_tokens.iter().map(|id| name(*id)).collect();
            line("end tokens", if ends.is_empty() { "none".into() } else { ends.join(", ") });
            let special: Vec<String> =
                tokenizer.special_tokens().into_iter().map(|(id, token)| format!("{token} ({id})")).collect();
            line("special tokens", if special.is_empty() { "none".into() } else { special.join(" ") });
        }
        Err(error) => line("tokenizer", format!("none: {error}")),
    }
    let sampling = if generation.sample {
        format!(
            "temperature {}, top-k {}, top-p {}",
            generation.temperature, generation.top_k, generation.top_p
        )
    } else {
        "greedy".into()
    };
    if generates {
        line("sampling", format!("{sampling} (the model's default)"));
    }
    print(&out)?;
    Ok(Outcome::Done)
}

/// How the model knows where a token stands.
fn positions(config: &ModelConfig) -> String {
    let mut kinds = vec![];
    if config.learned_positions.is_some() {
        kinds.push("learned".to_owned());
    }
    if config.alibi.is_some() {
        kinds.push("linear biases (ALiBi)".to_owned());
    }
    if let Some(rotary) = config.rotaries.first() {
        let part = match rotary.dims {
            dims if dims == config.head_dim => String::new(),
            dims => format!(", on {dims} of {} values of a head", config.head_dim),
        };
        let scaling = match &rotary.scaling {
            RotaryScaling::None => String::new(),
            RotaryScaling::Linear { factor } => format!(", linear scaling by {factor}"),
            RotaryScaling::Llama3 { factor, .. } => format!(", llama3 scaling by {factor}"),
            RotaryScaling::Dynamic { factor, .. } => format!(", dynamic scaling by {factor}"),
            RotaryScaling::Yarn { factor, .. } => format!(", yarn scaling by {factor}"),
            RotaryScaling::LongRope { short, long, .. } if short == long => {
                ", with a factor for each angle".to_owned()
            }
            RotaryScaling::LongRope { original_context, .. } => {
                format!(", longrope scaling beyond {original_context} tokens")
            }
        };
        kinds.push(format!("rotary, base {}{part}{scaling}", rotary.base));
    }
    if kinds.is_empty() { "none".into() } else { kinds.join("; ") }
}
