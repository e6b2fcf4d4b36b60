//! Whether what lies in a dump's folder is what SPEC.md promises; if not, the first fault, with its
//! file. Reads a few rows at a time, whatever the dump's size.

use std::fs;
use std::ops::Range;
use std::path::Path;

use super::dump::Dump;
use super::format::{AttentionDtype, STEPS, STEPS_FOLDER, StepRecord, TOKENS, TokenRole};
use super::kind::AttentionKind;
use super::layout::parts;
use super::overview::{Band, OVERVIEW, OVERVIEW_PART, Overview, Repeats};
use super::step_reader::{StepReader, Values};
use crate::error::{Error, Result};
use crate::kernels::Isa;
use crate::kernels::row_statistics::STATISTICS;
use crate::model::Mask;

/// Values that are read at a time.
const TOGETHER: usize = 1 << 18;

/// What a dump without a fault holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    pub steps: usize,
    pub tokens: usize,
    /// Rows of all heads.
    pub rows: usize,
    /// What a writing that was cut off has left, and readers ignore.
    pub ignored: Vec<String>,
}

/// Checks a dump: manifest, lines, and every row of every step.
///
/// # Errors
/// The first fault, in the order manifest, tokens, steps.
pub fn check(folder: &Path) -> Result<Checked> {
    let dump = Dump::open(folder)?;
    check_manifest(&dump)?;
    check_tokens(&dump)?;
    let mut checked =
        Checked { steps: dump.steps().len(), tokens: dump.tokens().len(), rows: 0, ignored: cut_off(&dump)? };
    let mut overview = overview(&dump)?;
    let mut start = 0;
    for record in dump.steps() {
        check_order(&dump, record, start)?;
        start = record.keys;
        let mut covered = overview.as_mut().filter(|(file, _)| record.step < file.steps());
        if let Some((_, made)) = &mut covered {
            made.begin(record);
        }
        for (place, captured) in dump.manifest().layers.iter().enumerate() {
            check_layer(&dump, record, place, covered.as_mut().map(|(_, made)| made))?;
            checked.rows += record.queries * captured.heads.len();
        }
        if let Some((_, made)) = covered {
            made.end();
        }
    }
    if let Some((file, made)) = overview {
        made.same(&file).map_err(|problem| fault(&folder.join(OVERVIEW), problem))?;
    }
    Ok(checked)
}

/// What the dump's overview says, and one to be made of the same steps.
fn overview(dump: &Dump) -> Result<Option<(Overview, Overview)>> {
    if dump.manifest().kind != AttentionKind::Full {
        return Ok(None);
    }
    let isa = Isa::detect()?;
    let repeats = Repeats::of(dump.tokens().iter().map(|token| token.id));
    let file = Overview::read(dump, isa, repeats.clone())?;
    Ok(file.map(|file| {
        let made = Overview::new(dump.manifest(), isa, file.copy(), repeats);
        (file, made)
    }))
}

fn fault(path: &Path, problem: String) -> Error {
    Error::Dump { path: path.to_path_buf(), problem }
}

fn check_manifest(dump: &Dump) -> Result<()> {
    let manifest = dump.manifest();
    let problem = |problem: String| Err(fault(&dump.folder().join(super::format::MANIFEST), problem));
    let ascending = |numbers: &mut dyn Iterator<Item = usize>| numbers.is_sorted_by(|a, b| a < b);
    if !ascending(&mut manifest.layers.iter().map(|captured| captured.layer)) {
        return problem("its layers do not ascend".into());
    }
    for captured in &manifest.layers {
        let (layer, model) = (captured.layer, &manifest.model);
        if layer >= model.layers || captured.heads.iter().any(|head| *head >= model.heads) {
            return problem(format!(
                "lists heads {:?} of layer {layer}, and its model has {} layers of {} heads",
                captured.heads, model.layers, model.heads
            ));
        }
        if !ascending(&mut captured.heads.iter().copied()) {
            return problem(format!("the heads of layer {layer} do not ascend"));
        }
    }
    Ok(())
}

fn check_tokens(dump: &Dump) -> Result<()> {
    let path = dump.folder().join(TOKENS);
    for (position, token) in dump.tokens().iter().enumerate() {
        let role =
            if position < dump.manifest().prompt_tokens { TokenRole::Prompt } else { TokenRole::Generated };
        if token.index != position || token.role != role {
            return Err(fault(
                &path,
                format!(
                    "line {}: is token {} ({:?}), expected token {position} ({role:?})",
                    position + 1,
                    token.index,
                    token.role
                ),
            ));
        }
    }
    let needed = dump.steps().last().map_or(0, |step| step.keys);
    // A dump of exact token numbers from the library may have none at all.
    if dump.tokens().len() < needed {
        return Err(fault(
            &path,
            format!("has {} whole lines, and the steps have keys at {needed} positions", dump.tokens().len()),
        ));
    }
    Ok(())
}

/// Whether a step follows the one that ended at position `start`, and has the rows that it should.
fn check_order(dump: &Dump, record: &StepRecord, start: usize) -> Result<()> {
    let problem = |problem: String| {
        Err(fault(&dump.folder().join(STEPS), format!("line {}: {problem}", record.step + 1)))
    };
    let StepRecord { step, keys, .. } = *record;
    if keys <= start {
        return problem(format!("step {step} has {keys} keys, and the step before it has {start}"));
    }
    let expected = dump.manifest().queries.of(start..keys);
    if record.rows() != expected {
        let rows = record.rows();
        return problem(format!(
            "step {step} has {} queries from position {} on, expected {} from position {} on; is a step missing before it?",
            rows.count, rows.first, expected.count, expected.first
        ));
    }
    if step == 0 && keys != dump.manifest().prompt_tokens {
        return problem(format!(
            "step 0 has {keys} keys, and the prompt {} tokens",
            dump.manifest().prompt_tokens
        ));
    }
    Ok(())
}

/// What is ignored: a torn last line, files without a line.
fn cut_off(dump: &Dump) -> Result<Vec<String>> {
    let mut ignored = vec![];
    for name in [TOKENS, STEPS] {
        let path = dump.folder().join(name);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => vec![],
            text => text.map_err(Error::io(&path, "read"))?,
        };
        if text.last().is_some_and(|byte| *byte != b'\n') {
            ignored.push(format!("{name}: its last line has no end"));
        }
    }
    if dump.folder().join(OVERVIEW_PART).exists() {
        ignored.push(format!("{OVERVIEW_PART}: is not whole"));
    }
    let steps = dump.folder().join(STEPS_FOLDER);
    for entry in fs::read_dir(&steps).map_err(Error::io(&steps, "read the folder"))? {
        let name = entry.map_err(Error::io(&steps, "read the folder"))?.file_name();
        let name = format!("{STEPS_FOLDER}/{}", name.to_string_lossy());
        if !dump.steps().iter().any(|step| step.file == name) {
            ignored.push(format!("{name}: no line of {STEPS} names it"));
        }
    }
    ignored.sort();
    Ok(ignored)
}

/// One layer of a step, as its rows are checked.
struct Layer<'d> {
    dump: &'d Dump,
    record: &'d StepRecord,
    layer: usize,
    heads: &'d [usize],
    window: Option<usize>,
}

/// Checks the rows of the layer that stands at `place` among the captured ones, and takes them into an
/// overview.
fn check_layer(
    dump: &Dump,
    record: &StepRecord,
    place: usize,
    overview: Option<&mut Overview>,
) -> Result<()> {
    let captured = &dump.manifest().layers[place];
    let layer = captured.layer;
    let mut summed = overview.map(|overview| (overview.layer_mut(place), Band::default(), 0));
    let (mut reader, tensors) = dump.tensors(record.step, layer)?;
    let rows = Layer { dump, record, layer, heads: &captured.heads, window: captured.window };
    let expected = parts(dump.manifest().kind, dump.manifest().attention_dtype, record.keys);
    for (part, values) in expected.iter().zip(&tensors) {
        if values.type_name() != part.dtype {
            let (name, found, expected) = (part.name(layer), values.type_name(), part.dtype);
            return Err(
                reader.problem(format!("tensor {name} holds {found}, and the manifest says {expected}"))
            );
        }
    }
    let columns = expected[0].columns.unwrap_or(1);
    let together = (TOGETHER / columns.max(1)).max(1);
    let all = rows.heads.len() * record.queries;
    for from in (0..all).step_by(together) {
        let block = from..all.min(from + together);
        match dump.manifest().kind {
            AttentionKind::Full => {
                let weights = rows.full(&mut reader, &tensors, columns, block.clone())?;
                let Some(((taken, heads), band, at)) = &mut summed else { continue };
                for (row, weights) in block.zip(weights.chunks_exact(columns)) {
                    let head = row / record.queries;
                    if head != *at {
                        taken.end(&mut heads[*at], band);
                        *at = head;
                    }
                    taken.add(&mut heads[head], band, rows.position(row), weights);
                }
            }
            AttentionKind::Top(_) => rows.top(&mut reader, &tensors, columns, block)?,
            AttentionKind::Stats => rows.stats(&mut reader, &tensors, block)?,
        }
    }
    if let Some(((taken, heads), band, at)) = &mut summed {
        taken.end(&mut heads[*at], band);
    }
    Ok(())
}

impl Layer<'_> {
    fn position(&self, row: usize) -> usize {
        self.record.rows().position(row % self.record.queries)
    }

    fn place(&self, row: usize) -> String {
        let head = self.heads[row / self.record.queries];
        format!("layer {}, head {head}, query {}", self.layer, self.position(row))
    }

    /// The keys that a row's query sees.
    fn visible(&self, row: usize) -> Range<usize> {
        match self.dump.manifest().mask {
            Mask::None => 0..self.record.keys,
            Mask::Causal => {
                let end = self.position(row) + 1;
                end.saturating_sub(self.window.unwrap_or(end))..end
            }
        }
    }

    /// How far from 1 a row's sum may be.
    fn tolerance(&self) -> f64 {
        match self.dump.manifest().attention_dtype {
            AttentionDtype::F32 => 1e-5,
            AttentionDtype::F16 => 1e-3,
        }
    }

    fn sum(&self, reader: &StepReader, row: usize, sum: f64) -> Result<()> {
        // Written so that NaN is no sum.
        if (sum - 1.0).abs() <= self.tolerance() {
            return Ok(());
        }
        let (place, tolerance) = (self.place(row), self.tolerance());
        Err(reader.problem(format!("{place}: its weights sum to {sum}, expected 1 within {tolerance:e}")))
    }

    fn full(
        &self,
        reader: &mut StepReader,
        tensors: &[Values],
        keys: usize,
        block: Range<usize>,
    ) -> Result<Vec<f32>> {
        let weights = reader.f32s(tensors[0], block.start * keys, block.len() * keys)?;
        for (row, weights) in block.zip(weights.chunks_exact(keys)) {
            let visible = self.visible(row);
            if let Some(key) = (0..keys).find(|key| weights[*key] < 0.0 || weights[*key].is_nan()) {
                let place = self.place(row);
                return Err(reader.problem(format!("{place}: the weight of key {key} is {}", weights[key])));
            }
            if let Some(key) = (0..keys).find(|key| weights[*key] != 0.0 && !visible.contains(key)) {
                let place = self.place(row);
                return Err(reader.problem(format!(
                    "{place}: the weight of key {key}, which it does not see, is {}",
                    weights[key]
                )));
            }
            self.sum(reader, row, weights.iter().map(|weight| f64::from(*weight)).sum())?;
        }
        Ok(weights)
    }

    fn top(
        &self,
        reader: &mut StepReader,
        tensors: &[Values],
        count: usize,
        block: Range<usize>,
    ) -> Result<()> {
        let weights = reader.f32s(tensors[0], block.start * count, block.len() * count)?;
        let keys = reader.i32s(tensors[1], block.start * count, block.len() * count)?;
        let rest = reader.f32s(tensors[2], block.start, block.len())?;
        let rows = weights.chunks_exact(count).zip(keys.chunks_exact(count)).zip(rest);
        for (row, ((weights, keys), rest)) in block.zip(rows) {
            let visible = self.visible(row);
            let listed = keys.iter().position(|key| *key == -1).unwrap_or(count);
            let mut seen = keys[..listed].to_vec();
            seen.sort_unstable();
            seen.dedup();
            let inside = |key: &i32| usize::try_from(*key).is_ok_and(|key| visible.contains(&key));
            let fits = seen.len() == listed
                && seen.iter().all(inside)
                && keys[listed..].iter().all(|key| *key == -1)
                && weights[listed..].iter().all(|weight| *weight == 0.0)
                && weights.iter().all(|weight| *weight >= 0.0)
                && weights.is_sorted_by(|a, b| a >= b)
                && rest >= 0.0;
            if !fits {
                let place = self.place(row);
                return Err(reader.problem(format!(
                    "{place}: keys {keys:?} with weights {weights:?} and the rest {rest} are not its largest, in order"
                )));
            }
            let sum = weights.iter().map(|weight| f64::from(*weight)).sum::<f64>();
            self.sum(reader, row, sum + f64::from(rest))?;
        }
        Ok(())
    }

    fn stats(&self, reader: &mut StepReader, tensors: &[Values], block: Range<usize>) -> Result<()> {
        let numbers = tensors.iter().map(|tensor| reader.f32s(*tensor, block.start, block.len()));
        let numbers = numbers.collect::<Result<Vec<_>>>()?;
        for row in block.clone() {
            let visible = self.visible(row);
            let position = self.position(row);
            let farthest = position.abs_diff(visible.start).max(position.abs_diff(visible.end - 1));
            let most = [(visible.len() as f64).ln(), 1.0, 1.0, 1.0, farthest as f64];
            for (number, (values, most)) in numbers.iter().zip(most).enumerate() {
                let value = f64::from(values[row - block.start]);
                if !(value >= 0.0 && value <= most + 1e-4 * (1.0 + most)) {
                    let (place, name) = (self.place(row), STATISTICS[number]);
                    return Err(
                        reader.problem(format!("{place}: {name} is {value}, expected 0 to {most:.4}"))
                    );
                }
            }
        }
        Ok(())
    }
}
