//! Where `attend map` has its rows from: a dump, or a model that reads a text now.

use std::path::Path;

use anyhow::Result;
use attend::Checkpoint;
use attend::capture::memory::Both;
use attend::capture::{Dump, LayerMap, QuerySelection, Rows, TokenRecord};
use attend::generation::Prompt;
use attend::model::{AttentionObserver, AttentionRows, Forward, HeadIntervention, Mask};
use attend::report::{MapOf, MapRows, Rollout, ValueWeighted, label};

use super::super::capture_args::RunInfo;
use super::super::model_args::{CacheDtype, ComputeArgs, Kernels};
use super::super::output::note;
use super::super::progress::load;
use super::super::prompt_args::{PromptArgs, records};
use super::super::usage;
use super::{MapArgs, MaskArg, View};

/// Weights of a dump that are read at a time.
const TOGETHER: usize = 1 << 20;

/// A dump, or a model and a text.
pub struct Source {
    facts: Facts,
    rows: Of,
}

enum Of {
    Dump { dump: Box<Dump>, step: usize },
    Text { checkpoint: Box<Checkpoint>, prompt: Prompt, ablated: Option<HeadIntervention> },
}

/// What is known before any row is read.
pub struct Facts {
    pub model: String,
    /// Layers of the model, and heads of each.
    pub layers: usize,
    pub all_heads: usize,
    /// The layers that there are maps of, and of which heads.
    pub heads: Vec<(usize, Vec<usize>)>,
    pub rows: Rows,
    pub keys: usize,
    /// Of every position up to the last key's.
    pub labels: Vec<String>,
    pub mask: Mask,
    /// The mask that the model learned with, where that is known.
    pub learned: Option<Mask>,
    /// Of a dump: which step of how many.
    pub step: Option<(usize, usize)>,
}

impl Facts {
    pub fn last_layer(&self) -> usize {
        self.heads.last().map_or(0, |(layer, _)| *layer)
    }

    pub fn heads_of(&self, layer: usize) -> &[usize] {
        self.heads.iter().find(|(known, _)| *known == layer).map_or(&[], |(_, heads)| heads)
    }

    /// Model, and step if there are several.
    pub fn of(&self) -> String {
        match self.step {
            Some((step, steps)) => format!("{}, step {step} of {steps}", self.model),
            None => self.model.clone(),
        }
    }
}

impl Source {
    /// Opens what the arguments name, without reading weights yet.
    pub fn open(args: &MapArgs) -> Result<Source> {
        let path = args.positional.as_ref().map(Path::new);
        if let Some(folder) = path.filter(|path| Dump::is_at(path)) {
            return of_dump(args, folder);
        }
        if let Some(folder) = path.filter(|path| path.is_dir()) {
            if folder.join("config.json").is_file() {
                return Err(usage(format!(
                    "{} is a model, not a text or a dump: give it with -m, and a text",
                    folder.display()
                )));
            }
            note(&format!("{} is a folder without a dump; it is read as a text", folder.display()));
        }
        of_text(args)
    }

    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Reads the rows of the chosen maps.
    pub fn feed(&self, args: &MapArgs, maps: &[MapOf], rows: &mut MapRows<'_>) -> Result<()> {
        match &self.rows {
            Of::Dump { dump, step } if args.view == View::Rollout => {
                let last_layer = maps.first().map_or(0, |map| map.layer);
                let weights = rollout_of_dump(dump, *step, last_layer)?;
                Ok(rows.add(last_layer, 0, &[0], self.facts.keys, &weights)?)
            }
            Of::Dump { dump, step } => self.feed_dump(dump, *step, maps, rows),
            Of::Text { checkpoint, prompt, ablated } => {
                self.feed_text(args, checkpoint, prompt, ablated.as_ref(), rows)
            }
        }
    }

    fn feed_dump(&self, dump: &Dump, step: usize, maps: &[MapOf], rows: &mut MapRows<'_>) -> Result<()> {
        let keys = self.facts.keys;
        for of_layer in maps.chunk_by(|a, b| a.layer == b.layer) {
            let layer = of_layer[0].layer;
            let heads = self.facts.heads_of(layer).iter().copied().enumerate();
            let wanted = |head: usize| of_layer.iter().any(|map| map.head.is_none_or(|of| of == head));
            let (places, heads): (Vec<usize>, Vec<usize>) = heads.filter(|(_, head)| wanted(*head)).unzip();
            let mut reader = dump.layer(step, layer)?;
            let together = (TOGETHER / (keys * heads.len()).max(1)).max(1);
            for first in (0..self.facts.rows.count).step_by(together) {
                let block = first..self.facts.rows.count.min(first + together);
                if !rows.wants_rows(block.clone()) {
                    continue;
                }
                let mut weights = vec![];
                for place in &places {
                    weights.extend(reader.f32s(0, *place, block.clone())?);
                }
                rows.add(layer, first, &heads, keys, &weights)?;
            }
        }
        Ok(())
    }

    fn feed_text(
        &self,
        args: &MapArgs,
        checkpoint: &Checkpoint,
        prompt: &Prompt,
        ablated: Option<&HeadIntervention>,
        rows: &mut MapRows<'_>,
    ) -> Result<()> {
        let options = args.model.compute.resolve()?;
        let element = checkpoint.element(options.element)?;
        let plan = args.capture.plan(None, checkpoint, args.model.model.as_deref())?;
        plan.iter().try_for_each(|plan| plan.announce(checkpoint, prompt.ids.len(), 0))?;
        let decoder = load(checkpoint, &options)?;
        let tokens = prompt.ids.len();
        let mut cache = decoder.new_cache(tokens)?;
        if let Some(ablated) = ablated {
            cache.silence(ablated.clone())?;
        }
        let last_layer = args.layer.unwrap_or_else(|| self.facts.last_layer());
        let mut rollout = match args.view {
            View::Rollout => Some(Rollout::new(last_layer, tokens)?),
            _ => None,
        };
        let mut weighted;
        let view: &mut dyn AttentionObserver = match (&mut rollout, args.view) {
            (Some(rollout), _) => rollout,
            (None, View::ValueWeighted) => {
                weighted = ValueWeighted::new(&mut *rows);
                &mut weighted
            }
            _ => &mut *rows,
        };
        let mask = self.facts.mask;
        let run = RunInfo { element, mask, sampling: None, ablated };
        let mut recorder = plan.map(|plan| plan.start(checkpoint, &decoder, prompt, &run)).transpose()?;
        let mut both;
        let observer: &mut dyn AttentionObserver = match &mut recorder {
            Some(recorder) => {
                both = Both(view, recorder);
                &mut both
            }
            None => view,
        };
        let request = Forward { mask: Some(mask), observer: Some(observer), ..Forward::default() };
        decoder.forward(&prompt.ids, &mut cache, request)?;
        if let Some(recorder) = &mut recorder {
            recorder.flush()?;
            note(&format!("attention: {} step recorded", recorder.steps()));
        }
        if let Some(rollout) = rollout {
            rows.add(last_layer, 0, &[0], tokens, &rollout.finish()?)?;
        }
        Ok(())
    }
}

fn of_dump(args: &MapArgs, folder: &Path) -> Result<Source> {
    let ComputeArgs { dtype, cache_dtype, threads, device, kernels } = &args.model.compute;
    let PromptArgs { prompt_option, file, prompt_ids } = &args.prompt;
    if prompt_option.is_some() || file.is_some() || prompt_ids.is_some() {
        return Err(usage(format!(
            "{} is a dump, and there is a text besides: give one of them",
            folder.display()
        )));
    }
    let runs_a_model = args.model.model.is_some() || args.mask.is_some() || args.capture.attention.is_some();
    let runs_a_model = runs_a_model || *cache_dtype != CacheDtype::F32 || args.ablate.is_given();
    if runs_a_model || dtype.is_some() || threads.is_some() || device != "auto" || *kernels != Kernels::Native
    {
        return Err(usage(format!(
            "{} is a dump, which is read without a model: only --step, --layer, --head, --view, --queries, --keys \
             and how they are drawn or written apply",
            folder.display()
        )));
    }
    if args.view == View::ValueWeighted {
        return Err(usage(
            "a dump holds weights and no values; --view value-weighted needs the model: `attend map -m MODEL TEXT`",
        ));
    }
    let dump = Dump::open(folder)?;
    let manifest = dump.manifest();
    let layer = args.layer.or(manifest.layers.last().map(|captured| captured.layer)).unwrap_or(0);
    let step = args.step.unwrap_or(0);
    dump.check_whole_rows()?;
    // Whether there are such a layer and such a step.
    dump.layer(step, layer)?;
    let record = &dump.steps()[step];
    if record.queries == 0 {
        let problem = format!("step {step} has no recorded query: --queries was {}", manifest.queries);
        return Err(attend::Error::Dump { path: folder.to_path_buf(), problem }.into());
    }
    let tokens = dump.tokens();
    let facts = Facts {
        model: manifest.model.name.clone(),
        layers: manifest.model.layers,
        all_heads: manifest.model.heads,
        heads: manifest.layers.iter().map(|captured| (captured.layer, captured.heads.clone())).collect(),
        rows: record.rows(),
        keys: record.keys,
        labels: (0..record.keys).map(|position| token_label(tokens.get(position), position)).collect(),
        mask: manifest.mask,
        learned: None,
        step: Some((step, dump.steps().len())),
    };
    Ok(Source { facts, rows: Of::Dump { dump: Box::new(dump), step } })
}

fn token_label(token: Option<&TokenRecord>, position: usize) -> String {
    match token {
        Some(token) => label(&token.bytes, token.id),
        None => format!("@{position}"),
    }
}

fn of_text(args: &MapArgs) -> Result<Source> {
    if args.step.is_some() {
        return Err(usage("--step is for dumps; a text has one map"));
    }
    let source = args.prompt.read(args.positional.clone())?;
    let checkpoint = args.model.open()?;
    let prompt = source.tokens(&checkpoint)?;
    let config = checkpoint.config();
    if let Some(layer) = args.layer.filter(|layer| *layer >= config.layers) {
        return Err(usage(format!(
            "--layer {layer}: the model has {}, numbered 0 to {}",
            config.layers,
            config.layers - 1
        )));
    }
    let ablated = args.ablate.resolve(config)?;
    let tokens = prompt.ids.len();
    if tokens > config.context {
        return Err(attend::Error::ContextFull {
            needed: tokens,
            context: config.context,
            hint: "that is the model's own context; shorten the text".into(),
        }
        .into());
    }
    let facts = Facts {
        model: checkpoint.name().to_string(),
        layers: config.layers,
        all_heads: config.heads,
        heads: (0..config.layers).map(|layer| (layer, (0..config.heads).collect())).collect(),
        rows: Rows { first: 0, count: tokens, stride: 1 },
        keys: tokens,
        labels: records(&prompt, &checkpoint).iter().map(|token| label(&token.bytes, token.id)).collect(),
        mask: match args.mask {
            Some(MaskArg::None) => Mask::None,
            Some(MaskArg::Causal) => Mask::Causal,
            None => config.mask,
        },
        learned: Some(config.mask),
        step: None,
    };
    Ok(Source { facts, rows: Of::Text { checkpoint: Box::new(checkpoint), prompt, ablated } })
}

/// The rollout of a dump's text up to the end of a step, the step's rows.
fn rollout_of_dump(dump: &Dump, step: usize, last_layer: usize) -> Result<Vec<f32>> {
    let (manifest, shown, folder) = (dump.manifest(), &dump.steps()[step], dump.folder());
    if manifest.queries != QuerySelection::All {
        return Err(usage(format!(
            "{}: a rollout needs every query, and --queries was {}",
            folder.display(),
            manifest.queries
        )));
    }
    let mut rollout = Rollout::new(last_layer, shown.keys)?;
    for layer in 0..=last_layer {
        let captured = manifest.layers.iter().find(|captured| captured.layer == layer);
        if captured.is_none_or(|captured| captured.heads.len() != manifest.model.heads) {
            return Err(usage(format!(
                "{}: a rollout to layer {last_layer} needs every head of the layers up to it, and of layer {layer} \
                 not all were captured",
                folder.display()
            )));
        }
        for step in 0..=step {
            let LayerMap { layer, heads, first_query, queries, keys, weights, .. } =
                dump.layer_map(step, layer)?;
            rollout.add(AttentionRows { layer, first_query, heads, queries, keys, weights: &weights })?;
        }
    }
    Ok(rollout.finish()?.split_off(shown.first_query * shown.keys))
}
