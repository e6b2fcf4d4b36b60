//! `attend compare`: the same text in two runs, and how far their heads are apart.

use std::io::{BufWriter, IsTerminal, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Result;
use attend::capture::{Dump, LayerMap};
use attend::model::{AttentionObserver, AttentionRows, Decoder, KvCache};
use attend::report::{ColourDepth, Comparison, HeadGrid, compare::HeadDivergence};
use attend::{Checkpoint, Error, LoadOptions};
use clap::Args;

use super::model_args::{self, ComputeArgs, Dtype};
use super::out_file::OutFile;
use super::output::{note, print};
use super::prompt_args::PromptArgs;
use super::{Outcome, usage};

/// Below the options in `--help` and the manual page.
const ABOUT: &str = "\
A and B are two dumps of the same text, or two models, which then read a text: given as for -m, or as the word \
embedded. One model in two types: `attend compare MODEL MODEL --dtype-b q8_0 -f TEXT`.

For each head it is the mean over the queries of the Jensen-Shannon divergence of its rows (Lin 1991), in bits: 0 \
where both runs attend alike, 1 where they share no key. Dumps are compared as far as their tokens agree.";

/// Tokens that two models read at a time: bounds the maps that are held.
const PIECE: usize = 64;

#[derive(Args)]
#[command(after_long_help = ABOUT)]
pub struct CompareArgs {
    /// The folder of a dump, or a model
    #[arg(value_name = "A")]
    a: PathBuf,
    /// What it is compared with
    #[arg(value_name = "B")]
    b: PathBuf,
    #[command(flatten)]
    prompt: PromptArgs,
    /// How B's weights are held, where that differs from A's
    #[arg(long, value_enum)]
    dtype_b: Option<Dtype>,
    #[command(flatten)]
    compute: ComputeArgs,
    /// Draw the heads, layers down and heads across, into a PNG file
    #[arg(long, value_name = "FILE")]
    png: Option<PathBuf>,
    /// Heads to list, those furthest apart first
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
    /// A JSON array with a row a head, by layer and head
    #[arg(long)]
    json: bool,
}

/// Two runs, compared.
struct Compared {
    /// What is compared with what.
    of: String,
    layers: usize,
    heads: usize,
    divergences: Vec<HeadDivergence>,
}

pub fn run(args: CompareArgs) -> Result<Outcome> {
    let png = args.png.as_ref().map(|path| OutFile::begin("--png", path)).transpose()?;
    let compared = match (Dump::is_at(&args.a), Dump::is_at(&args.b)) {
        (true, true) => dumps(&args)?,
        (false, false) => models(&args)?,
        (a_is_dump, _) => {
            let (dump, other) = if a_is_dump { (&args.a, &args.b) } else { (&args.b, &args.a) };
            return Err(usage(format!(
                "{} is a dump and {} is none: compare two dumps, or two models",
                dump.display(),
                other.display()
            )));
        }
    };
    let Compared { of, layers, heads, divergences } = &compared;
    let mut values = vec![None; layers * heads];
    for found in divergences {
        values[found.layer * heads + found.head] = Some(found.divergence as f32);
    }
    let title = "Jensen-Shannon divergence, bits".to_owned();
    let grid = HeadGrid { title, layers: *layers, heads: *heads, values };
    if let Some(out) = png {
        let cannot = |cause| Error::Io { path: out.path().to_path_buf(), action: "write", cause };
        let mut to = BufWriter::new(out.file());
        grid.write_png(&mut to).and_then(|()| to.flush()).map_err(cannot)?;
        drop(to);
        out.finish()?;
    }
    if args.json {
        print(&format!("{}\n", serde_json::to_string(divergences)?))?;
        return Ok(Outcome::Done);
    }
    let colour = ColourDepth::from_environment(std::io::stdout().is_terminal());
    let mut worst: Vec<&HeadDivergence> = divergences.iter().collect();
    worst.sort_by(|a, b| b.divergence.total_cmp(&a.divergence));
    let mean =
        divergences.iter().map(|found| found.divergence).sum::<f64>() / divergences.len().max(1) as f64;
    let mut text = format!("{of}\n\n{}\n", grid.render(colour));
    text.push_str(&format!("mean over the heads: {mean:.6}; furthest apart:\n\n"));
    text.push_str("  head      mean   largest  at query\n");
    for found in worst.iter().take(args.top) {
        let head = format!("{}.{}", found.layer, found.head);
        let HeadDivergence { divergence, largest, largest_query, .. } = found;
        text.push_str(&format!("{head:>6}  {divergence:.6}  {largest:.6}  {largest_query:>8}\n"));
    }
    print(&text)?;
    Ok(Outcome::Done)
}

fn same_shape(a: (usize, usize), b: (usize, usize)) -> Result<()> {
    if a == b {
        return Ok(());
    }
    Err(usage(format!(
        "A has {} layers of {} heads, B {} of {}: only models of one shape can be compared head by head",
        a.0, a.1, b.0, b.1
    )))
}

fn dumps(args: &CompareArgs) -> Result<Compared> {
    let PromptArgs { prompt_option, file, prompt_ids } = &args.prompt;
    let has_text = prompt_option.is_some() || file.is_some() || prompt_ids.is_some();
    let ComputeArgs { dtype, threads, .. } = &args.compute;
    if has_text || dtype.is_some() || args.dtype_b.is_some() || threads.is_some() {
        return Err(usage("two dumps are compared without a model or a text; leave those options away"));
    }
    let (a, b) = (Dump::open(&args.a)?, Dump::open(&args.b)?);
    let (model_a, model_b) = (&a.manifest().model, &b.manifest().model);
    same_shape((model_a.layers, model_a.heads), (model_b.layers, model_b.heads))?;
    let pairs = a.tokens().iter().zip(b.tokens());
    let same = pairs.take_while(|(a, b)| a.id == b.id).count();
    if same == 0 {
        return Err(usage("the dumps are of different texts: their first tokens differ"));
    }
    let longest = a.tokens().len().max(b.tokens().len());
    if same < longest {
        note(&format!("the dumps' tokens agree up to position {}: compared so far", same - 1));
    }
    let mut comparison = Comparison::default();
    let mut left_out = 0;
    for captured in &a.manifest().layers {
        let other = b.manifest().layers.iter().find(|other| other.layer == captured.layer);
        let in_b = |head: &usize| other.and_then(|other| other.heads.iter().position(|known| known == head));
        let both: Vec<(usize, usize, usize)> = captured
            .heads
            .iter()
            .enumerate()
            .filter_map(|(place, head)| Some((*head, place, in_b(head)?)))
            .collect();
        left_out += captured.heads.len() - both.len();
        if !both.is_empty() {
            compare_layer((&a, &b), captured.layer, &both, same, &mut comparison)?;
        }
    }
    let divergences = comparison.divergences();
    if divergences.is_empty() {
        return Err(usage("the dumps have no head and no query in common"));
    }
    if left_out > 0 {
        note(&format!("{left_out} heads of A are not in B, and are left out"));
    }
    let name = |dump: &Dump, path: &Path| {
        let manifest = dump.manifest();
        format!("{} ({}, {})", path.display(), manifest.model.name, manifest.weights_dtype)
    };
    Ok(Compared {
        of: format!("{} and {}, {same} tokens", name(&a, &args.a), name(&b, &args.b)),
        layers: model_a.layers,
        heads: model_a.heads,
        divergences,
    })
}

/// Merges the queries of a layer's steps in both dumps; `heads` have their number and their places.
fn compare_layer(
    dumps: (&Dump, &Dump),
    layer: usize,
    heads: &[(usize, usize, usize)],
    tokens: usize,
    comparison: &mut Comparison,
) -> Result<()> {
    let (mut a, mut b) = (Rows::new(dumps.0, layer), Rows::new(dumps.1, layer));
    while let (Some(at_a), Some(at_b)) = (a.query()?, b.query()?) {
        if at_a.max(at_b) >= tokens {
            break;
        }
        if at_a == at_b {
            for (head, in_a, in_b) in heads {
                comparison.add(layer, *head, at_a, a.row(*in_a), b.row(*in_b));
            }
        }
        // Both, or the one that is behind.
        if at_a <= at_b {
            a.next += 1;
        }
        if at_b <= at_a {
            b.next += 1;
        }
    }
    Ok(())
}

/// The queries of one layer, step by step.
struct Rows<'d> {
    dump: &'d Dump,
    layer: usize,
    step: usize,
    map: Option<LayerMap>,
    /// In the step at hand.
    next: usize,
}

impl<'d> Rows<'d> {
    fn new(dump: &'d Dump, layer: usize) -> Rows<'d> {
        Rows { dump, layer, step: 0, map: None, next: 0 }
    }

    /// The position of the query at hand; `None` behind the last.
    fn query(&mut self) -> Result<Option<usize>> {
        loop {
            match &self.map {
                Some(map) if self.next < map.queries => return Ok(Some(map.query(self.next))),
                Some(_) => (self.step, self.map, self.next) = (self.step + 1, None, 0),
                None if self.step == self.dump.steps().len() => return Ok(None),
                None => self.map = Some(self.dump.layer_map(self.step, self.layer)?),
            }
        }
    }

    /// The row at hand of the head that stands at `place`.
    fn row(&self, place: usize) -> &[f32] {
        self.map.as_ref().map_or(&[], |map| &map.head(place)[self.next * map.keys..][..map.keys])
    }
}

fn models(args: &CompareArgs) -> Result<Compared> {
    let open = |path: &Path| -> Result<Checkpoint> {
        match path.as_os_str() == "embedded" && !path.exists() {
            true => model_args::open(None),
            false => model_args::open(Some(path)),
        }
    };
    let source = args.prompt.read(None)?;
    let (a, b) = (open(&args.a)?, open(&args.b)?);
    let shape = |checkpoint: &Checkpoint| (checkpoint.config().layers, checkpoint.config().heads);
    same_shape(shape(&a), shape(&b))?;
    let prompt = source.clone().tokens(&a)?;
    if source.tokens(&b)?.ids != prompt.ids {
        return Err(usage(
            "the models' tokenizers cut the text differently, so that positions do not correspond; give tokens with --prompt-ids",
        ));
    }
    if a.config().mask != b.config().mask {
        return Err(usage("an encoder and a decoder cannot be compared"));
    }
    let context = a.config().context.min(b.config().context);
    if prompt.ids.len() > context {
        let hint = "that is what both models have; shorten the text".into();
        return Err(Error::ContextFull { needed: prompt.ids.len(), context, hint }.into());
    }
    let options = args.compute.resolve()?;
    let element_b = args.dtype_b.map(Dtype::element).or(options.element);
    let options_b = LoadOptions { element: element_b, ..options.clone() };
    let (decoder_a, decoder_b) = (a.load(&options)?, b.load(&options_b)?);
    let comparison = compare_models(&decoder_a, &decoder_b, &prompt.ids)?;
    let name = |checkpoint: &Checkpoint, options: &LoadOptions| -> Result<String> {
        Ok(format!("{} ({})", checkpoint.name(), checkpoint.element(options.element)?.name()))
    };
    Ok(Compared {
        of: format!("{} and {}, {} tokens", name(&a, &options)?, name(&b, &options_b)?, prompt.ids.len()),
        layers: shape(&a).0,
        heads: shape(&a).1,
        divergences: comparison.divergences(),
    })
}

/// Both models side by side, layer for layer and piece by piece: what is held of A's maps is one
/// layer's of one piece. An encoder reads its text in one piece.
fn compare_models(a: &Decoder, b: &Decoder, tokens: &[u32]) -> Result<Comparison> {
    let mut comparison = Comparison::default();
    let (mut cache_a, mut cache_b) = (a.new_cache(tokens.len())?, b.new_cache(tokens.len())?);
    let piece = if a.config().is_encoder() { tokens.len() } else { PIECE };
    for piece in tokens.chunks(piece) {
        let enter =
            |decoder: &Decoder, cache: &mut KvCache| decoder.enter(piece, cache, None, tokens.len(), None);
        let (mut stream_a, mut stream_b) = (enter(a, &mut cache_a)?, enter(b, &mut cache_b)?);
        for layer in 0..a.config().layers {
            let mut first = Held::default();
            stream_a = a.pass(&stream_a, layer..layer + 1, &mut cache_a, Some(&mut first), None)?;
            let mut second = Second { comparison: &mut comparison, first: &first };
            stream_b = b.pass(&stream_b, layer..layer + 1, &mut cache_b, Some(&mut second), None)?;
        }
        a.commit(piece, &stream_a, &mut cache_a);
        b.commit(piece, &stream_b, &mut cache_b);
    }
    Ok(comparison)
}

/// A layer's rows in A: for each block its first query, queries, keys and weights.
#[derive(Default)]
struct Held(Vec<(usize, usize, usize, Vec<f32>)>);

impl Held {
    fn row(&self, head: usize, query: usize) -> &[f32] {
        let block = self.0.iter().find(|(first, queries, ..)| (*first..first + queries).contains(&query));
        block.map_or(&[], |(first, queries, keys, weights)| {
            &weights[(head * queries + query - first) * keys..][..*keys]
        })
    }
}

impl AttentionObserver for Held {
    fn wants(&self, _layer: usize) -> bool {
        true
    }

    fn observe(&mut self, rows: AttentionRows<'_>) -> attend::Result<()> {
        self.0.push((rows.first_query, rows.queries, rows.keys, rows.weights.to_vec()));
        Ok(())
    }
}

/// Compares B's rows as they come.
struct Second<'c> {
    comparison: &'c mut Comparison,
    first: &'c Held,
}

impl AttentionObserver for Second<'_> {
    fn wants(&self, _layer: usize) -> bool {
        true
    }

    fn observe(&mut self, rows: AttentionRows<'_>) -> attend::Result<()> {
        for head in 0..rows.heads {
            for (row, weights) in rows.head(head).chunks_exact(rows.keys).enumerate() {
                let query = rows.first_query + row;
                self.comparison.add(rows.layer, head, query, self.first.row(head, query), weights);
            }
        }
        Ok(())
    }
}
