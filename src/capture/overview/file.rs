//! `overview.safetensors`: the cells that are used, as sums and counts, so that whoever reads it can go on
//! with the steps behind it (SPEC.md).

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;

use safetensors::{Dtype, SafeTensors};

use super::{Grid, Overview, Repeats, SIDE, SUMS};
use crate::capture::dump::Dump;
use crate::capture::format::Manifest;
use crate::capture::kind::AttentionKind;
use crate::error::{Error, Result};
use crate::kernels::Isa;

/// The file's name, and what it is called until it is whole.
pub const OVERVIEW: &str = "overview.safetensors";
pub const OVERVIEW_PART: &str = "overview.part";

/// Of more heads none is made while capturing: it would take more than 32 MiB of memory.
const MOST_HEADS: usize = 1024;
/// There is a file if the prompt's maps take so many times its bytes: of SmolLM2, from about 750 tokens on
/// in f16. The page reads smaller ones in a blink, and what they would cost is felt while capturing.
const SHARE: u64 = 32;
/// Bytes that are handed over at a time.
const PIECE: usize = 1 << 20;

/// Whether a dump has an overview, whose prompt of `keys` tokens has so many bytes of maps.
pub fn worth_it(manifest: &Manifest, map_bytes: u64, keys: usize) -> bool {
    let heads: usize = manifest.layers.iter().map(|layer| layer.heads.len()).sum();
    manifest.kind == AttentionKind::Full
        && heads <= MOST_HEADS
        && map_bytes >= SHARE * file_bytes(manifest, keys)
}

/// About the file's length: all but its header.
pub fn file_bytes(manifest: &Manifest, keys: usize) -> u64 {
    let (layers, heads) = sizes(manifest);
    tensors(Grid::of(keys).side, layers, heads).iter().map(Tensor::bytes).sum::<usize>() as u64
}

fn sizes(manifest: &Manifest) -> (usize, usize) {
    (manifest.layers.len(), manifest.layers.iter().map(|layer| layer.heads.len()).sum())
}

struct Tensor {
    name: &'static str,
    dtype: Dtype,
    shape: Vec<usize>,
}

impl Tensor {
    fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }
}

/// In the order in which they stand in the file.
fn tensors(side: usize, layers: usize, heads: usize) -> [Tensor; 5] {
    [
        Tensor { name: "score_sums", dtype: Dtype::F64, shape: vec![heads, SUMS.len()] },
        Tensor { name: "score_rows", dtype: Dtype::U32, shape: vec![layers, SUMS.len()] },
        Tensor { name: "count", dtype: Dtype::U32, shape: vec![layers, side, side] },
        Tensor { name: "maximum", dtype: Dtype::F32, shape: vec![heads, side, side] },
        Tensor { name: "sum", dtype: Dtype::F32, shape: vec![heads, side, side] },
    ]
}

/// Appends the cells that are used, of lines of [`SIDE`]. Copies of a fixed size become ones of vectors.
fn put_used<T: Copy>(cells: &[T], side: usize, bytes: impl Fn(T) -> [u8; 4], out: &mut Vec<u8>) {
    for line in cells.chunks_exact(SIDE).take(side) {
        let start = out.len();
        out.resize(start + 4 * side, 0);
        for (out, cell) in out[start..].as_chunks_mut().0.iter_mut().zip(line) {
            *out = bytes(*cell);
        }
    }
}

impl Overview {
    /// Hands over the file from its beginning, in pieces; first its whole length.
    pub fn write<E>(
        &self,
        begin: impl FnOnce(usize) -> Result<(), E>,
        mut give: impl FnMut(Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let heads = || self.layers.iter().flat_map(|layer| &layer.heads);
        let seen = || self.layers.iter().map(|layer| &self.windows[layer.window]);
        let side = self.grid.side;
        let tensors = tensors(side, self.layers.len(), heads().count());
        let mut out = self.header(&tensors);
        begin(out.len() + tensors.iter().map(Tensor::bytes).sum::<usize>())?;
        let mut piece = |out: &mut Vec<u8>, more: bool| match out.len() >= PIECE || !more {
            true => give(std::mem::replace(out, Vec::with_capacity(PIECE + 4 * SIDE * SIDE))),
            false => Ok(()),
        };
        out.extend(heads().flat_map(|head| head.sums).flat_map(f64::to_le_bytes));
        out.extend(seen().flat_map(|seen| seen.rows).flat_map(u32::to_le_bytes));
        for seen in seen() {
            put_used(&seen.counts.0, side, u32::to_le_bytes, &mut out);
            piece(&mut out, true)?;
        }
        for head in heads() {
            put_used(&head.picture.maximum, side, f32::to_le_bytes, &mut out);
            piece(&mut out, true)?;
        }
        for head in heads() {
            put_used(&head.picture.sum, side, f32::to_le_bytes, &mut out);
            piece(&mut out, true)?;
        }
        piece(&mut out, false)
    }

    fn header(&self, tensors: &[Tensor]) -> Vec<u8> {
        let mut json = format!(
            r#"{{"__metadata__":{{"format":"attend-overview","version":"1","steps":"{}","keys":"{}","cell":"{}""#,
            self.steps, self.keys, self.grid.cell
        );
        if let Some(copy) = self.copy {
            json.push_str(&format!(r#","copy":"{copy}""#));
        }
        json.push('}');
        let mut at = 0;
        for tensor in tensors {
            let (Tensor { name, dtype, shape }, end) = (tensor, at + tensor.bytes());
            json.push_str(&format!(
                r#","{name}":{{"dtype":"{dtype:?}","shape":{shape:?},"data_offsets":[{at},{end}]}}"#
            ));
            at = end;
        }
        json.push('}');
        let padded = json.len().next_multiple_of(8);
        json.extend(std::iter::repeat_n(' ', padded - json.len()));
        let mut header = (json.len() as u64).to_le_bytes().to_vec();
        header.extend_from_slice(json.as_bytes());
        header
    }

    /// Reads a dump's file, if it has one.
    ///
    /// # Errors
    /// If the file is damaged or of another dump.
    pub fn read(dump: &Dump, isa: Isa, repeats: Repeats) -> Result<Option<Overview>> {
        let path = dump.folder().join(OVERVIEW);
        let problem = |problem: String| Error::Dump { path: path.clone(), problem };
        let kind = match fs::metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            kind => kind.map_err(Error::io(&path, "open"))?,
        };
        let (layers, heads) = sizes(dump.manifest());
        let most = tensors(SIDE, layers, heads).iter().map(Tensor::bytes).sum::<usize>() + (1 << 20);
        if !kind.is_file() || kind.len() > most as u64 {
            return Err(problem(format!("is no file of at most {most} bytes")));
        }
        let bytes = fs::read(&path).map_err(Error::io(&path, "read"))?;
        let whole = |error| problem(format!("is no whole safetensors file: {error}"));
        let held = SafeTensors::deserialize(&bytes).map_err(whole)?;
        let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(whole)?;
        let metadata = metadata.metadata().clone().unwrap_or_default();
        let number = |name: &str| number(&metadata, name);
        let known = metadata.get("format").is_some_and(|format| format == "attend-overview");
        if !known || number("version") != Some(1) {
            return Err(problem("is no overview of version 1".into()));
        }
        let steps = number("steps").filter(|steps| (1..=dump.steps().len()).contains(steps));
        let Some(steps) = steps else {
            let (found, most) = (metadata.get("steps"), dump.steps().len());
            return Err(problem(format!("is of {found:?} steps, and the dump has {most}")));
        };
        let keys = dump.steps()[..steps].iter().map(|step| step.keys).max().unwrap_or(0);
        let grid = Grid::of(keys);
        if number("keys") != Some(keys) || number("cell") != Some(grid.cell) {
            return Err(problem(format!(
                "is of {:?} keys in cells of {:?}, and {steps} steps have {keys}, in cells of {}",
                metadata.get("keys"),
                metadata.get("cell"),
                grid.cell
            )));
        }
        let mut data = vec![];
        for Tensor { name, dtype, shape } in tensors(grid.side, layers, heads) {
            let tensor = held.tensor(name).map_err(|_| problem(format!("holds no tensor {name}")))?;
            if tensor.shape() != shape || tensor.dtype() != dtype {
                let (found, of) = (tensor.shape(), tensor.dtype());
                return Err(problem(format!(
                    "tensor {name} is {of:?} {found:?}, expected {dtype:?} {shape:?}"
                )));
            }
            data.push(tensor.data());
        }
        let mut overview = Overview::new(dump.manifest(), isa, number("copy"), repeats);
        (overview.grid, overview.keys, overview.steps) = (grid, keys, steps);
        let cells = grid.side * grid.side;
        let mut sums = data[0].as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes));
        let rows: Vec<u32> = data[1].as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
        let counts: Vec<u32> = data[2].as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
        let floats = |bytes: &[u8]| -> Vec<f32> {
            bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
        };
        let (maxima, totals) = (floats(data[3]), floats(data[4]));
        let finite = maxima.iter().chain(&totals).all(|value| value.is_finite() && *value >= 0.0);
        if !finite || !sums.clone().all(f64::is_finite) {
            return Err(problem("holds values that are no finite weights".into()));
        }
        let put = |from: &[f32], to: &mut [f32]| {
            let lines = from.chunks_exact(grid.side).zip(to.chunks_exact_mut(SIDE));
            lines.for_each(|(from, to)| to[..grid.side].copy_from_slice(from));
        };
        let mut place = 0;
        for (number, layer) in overview.layers.iter_mut().enumerate() {
            let seen = &mut overview.windows[layer.window];
            seen.rows.copy_from_slice(&rows[number * SUMS.len()..][..SUMS.len()]);
            let lines = counts[number * cells..][..cells].chunks_exact(grid.side);
            for (from, to) in lines.zip(seen.counts.0.chunks_exact_mut(SIDE)) {
                to[..grid.side].copy_from_slice(from);
            }
            for head in &mut layer.heads {
                head.sums.iter_mut().zip(&mut sums).for_each(|(to, from)| *to = from);
                put(&maxima[place * cells..][..cells], &mut head.picture.maximum);
                put(&totals[place * cells..][..cells], &mut head.picture.sum);
                place += 1;
            }
        }
        Ok(Some(overview))
    }
}

fn number(metadata: &HashMap<String, String>, name: &str) -> Option<usize> {
    metadata.get(name)?.parse().ok()
}
