//! The rows of one step on their way into its file: encoded as the kind of recording asks, gathered
//! into pieces worth a write, and handed to the writer.

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::format::{AttentionDtype, LayerHeads, Manifest, StepRecord};
use super::kind::AttentionKind;
use super::layout::Layout;
use super::overview::{Band, HeadOverview, LayerRows};
use super::top;
use super::writer::Writer;
use crate::error::Result;
use crate::kernels::row_statistics::row_statistics;
use crate::kernels::{Isa, Pool};
use crate::model::{AttentionRows, Mask};

/// Steps of up to this many bytes are put together in memory and written at once.
const SMALL: usize = 1 << 20;
/// A piece that is written: this many bytes, less where very many are gathered at once, and at least
/// a row.
const PIECE: usize = 128 << 10;
const PIECES_TOGETHER: usize = 4 << 20;
/// Weights below which encoding is not worth sharing out among threads.
const SHARED_WEIGHTS: usize = 1 << 15;

/// How rows become bytes.
#[derive(Clone, Copy)]
pub(super) struct Encoding {
    pub isa: Isa,
    pub kind: AttentionKind,
    pub dtype: AttentionDtype,
    pub mask: Mask,
}

pub(super) struct StepRows {
    pub record: StepRecord,
    layout: Layout,
    /// A small step, its header included.
    whole: Option<Vec<u8>>,
    /// Rows of the layer at hand that are encoded.
    done: usize,
    /// Of each head the bytes of each part that wait to be a piece, and the row that they start with.
    heads: Vec<HeadRows>,
    piece: usize,
}

#[derive(Default)]
struct HeadRows {
    head: usize,
    parts: Vec<Vec<u8>>,
    first_row: usize,
    /// For the overview: its rows under way, and a row as it is stored.
    band: Band,
    stored: Vec<f32>,
}

impl StepRows {
    pub fn begin(record: StepRecord, manifest: &Manifest, writer: &Writer) -> Result<StepRows> {
        let layout = Layout::new(manifest, record.rows(), record.keys);
        let whole = if layout.len <= SMALL {
            let mut whole = writer.buffer();
            whole.extend_from_slice(&layout.header);
            whole.resize(layout.len, 0);
            Some(whole)
        } else {
            writer.begin(record.file.clone(), layout.header.clone(), layout.len)?;
            None
        };
        let most = manifest.layers.iter().map(|layer| layer.heads.len()).max().unwrap_or(1);
        let piece = PIECE.min(PIECES_TOGETHER / (most * layout.parts.len()));
        Ok(StepRows { record, layout, whole, done: 0, heads: vec![], piece })
    }

    /// Takes rows of the layer that stands at `layer` among the captured ones.
    #[allow(clippy::too_many_arguments)]
    pub fn add(
        &mut self,
        layer: usize,
        selected: &LayerHeads,
        rows: AttentionRows<'_>,
        encoding: Encoding,
        mut overview: Option<(LayerRows<'_>, &mut [HeadOverview])>,
        pool: &Pool,
        writer: &Writer,
    ) -> Result<()> {
        let end = rows.first_query + rows.queries;
        let wanted = self.layout.rows.within(rows.first_query..end);
        if wanted.is_empty() {
            return Ok(());
        }
        if wanted.start == 0 {
            self.start_layer(&selected.heads);
        }
        // Whoever hands over a whole map at once still has it taken in pieces.
        let row_bytes: usize = self.layout.parts.iter().map(|part| part.row_bytes()).sum();
        let together = (PIECES_TOGETHER / (row_bytes * self.heads.len())).max(1);
        let (keys, positions) = (self.layout.keys, self.layout.rows);
        for start in wanted.clone().step_by(together) {
            let block = start..wanted.end.min(start + together);
            let mut summed = overview.as_mut().map(|(taken, heads)| (*taken, heads.iter_mut()));
            let mut heads: Vec<_> = self
                .heads
                .iter_mut()
                .map(|head| (head, summed.as_mut().and_then(|(taken, heads)| Some((*taken, heads.next()?)))))
                .collect();
            let ended = block.end == positions.count;
            let encode = |_: usize, (head, summed): &mut (&mut HeadRows, Option<Summed<'_>>)| {
                let weights = rows.head(head.head);
                for row in block.clone() {
                    let position = positions.position(row);
                    let weights = &weights[(position - rows.first_query) * rows.keys..][..rows.keys];
                    encoding.encode(weights, position, keys, &mut head.parts);
                    if let Some((taken, sums)) = summed {
                        let seen = &weights[..weights.len().min(taken.seen(position).end)];
                        let stored = match encoding.dtype {
                            AttentionDtype::F32 => seen,
                            AttentionDtype::F16 => halved(seen, &mut head.stored),
                        };
                        taken.add(sums, &mut head.band, position, stored);
                    }
                }
                if let (true, Some((taken, sums))) = (ended, summed) {
                    taken.end(sums, &mut head.band);
                }
            };
            if heads.len() * block.len() * rows.keys >= SHARED_WEIGHTS {
                pool.for_each_mut(&mut heads, encode);
            } else {
                heads.iter_mut().enumerate().for_each(|(index, head)| encode(index, head));
            }
            self.done = block.end;
            self.hand_over(layer, writer)?;
        }
        Ok(())
    }

    fn start_layer(&mut self, heads: &[usize]) {
        self.heads.resize_with(heads.len(), HeadRows::default);
        for (rows, head) in self.heads.iter_mut().zip(heads) {
            (rows.head, rows.first_row, rows.band) = (*head, 0, Band::default());
            rows.parts.resize(self.layout.parts.len(), vec![]);
            rows.parts.iter_mut().for_each(Vec::clear);
        }
    }

    /// Hands over what is worth a write, and the rest of a layer that is whole.
    fn hand_over(&mut self, layer: usize, writer: &Writer) -> Result<()> {
        let ended = self.done == self.layout.rows.count;
        for (place, head) in self.heads.iter_mut().enumerate() {
            let longest = head.parts.iter().map(Vec::len).max().unwrap_or(0);
            if longest < self.piece && !ended {
                continue;
            }
            for (part, bytes) in head.parts.iter_mut().enumerate() {
                let at = self.layout.place(layer, part, place, head.first_row);
                match &mut self.whole {
                    Some(whole) => {
                        whole[at..at + bytes.len()].copy_from_slice(bytes);
                        bytes.clear();
                    }
                    None => writer.write(at, std::mem::replace(bytes, writer.buffer()))?,
                }
            }
            head.first_row = self.done;
        }
        Ok(())
    }

    /// Bytes of its tensors.
    pub fn map_bytes(&self) -> u64 {
        (self.layout.len - self.layout.header.len()) as u64
    }

    pub fn commit(self, writer: &Writer) -> Result<()> {
        if let Some(whole) = self.whole {
            let len = whole.len();
            writer.begin(self.record.file.clone(), whole, len)?;
        }
        writer.commit(self.record)
    }
}

/// How a head's rows are taken into the overview, and where.
type Summed<'a> = (LayerRows<'a>, &'a mut HeadOverview);

/// Weights as f16 holds them.
fn halved<'a>(weights: &[f32], out: &'a mut Vec<f32>) -> &'a [f32] {
    out.resize(weights.len(), 0.0);
    let mut halves = [f16::ZERO; 256];
    for (weights, out) in weights.chunks(256).zip(out.chunks_mut(256)) {
        let halves = &mut halves[..weights.len()];
        halves.convert_from_f32_slice(weights);
        halves.convert_to_f32_slice(out);
    }
    out
}

impl Encoding {
    /// Appends a row to the bytes of each part.
    fn encode(&self, weights: &[f32], position: usize, keys: usize, parts: &mut [Vec<u8>]) {
        match (self.kind, parts) {
            (AttentionKind::Full, [out]) => self.weights(weights, keys, out),
            (AttentionKind::Top(count), [out_weights, out_keys, out_rest]) => {
                let (best, rest) = top::largest(weights, count);
                let count = count.min(keys);
                let best_weights: Vec<f32> = best.iter().map(|best| best.weight).collect();
                self.weights(&best_weights, count, out_weights);
                let none = std::iter::repeat_n(-1i32, count - best.len());
                let positions = best.iter().map(|best| best.key as i32).chain(none);
                out_keys.extend(positions.flat_map(i32::to_le_bytes));
                out_rest.extend(rest.to_le_bytes());
            }
            (AttentionKind::Stats, parts) => {
                let seen =
                    if self.mask == Mask::Causal { weights.len().min(position + 1) } else { weights.len() };
                let numbers = row_statistics(self.isa, &weights[..seen], position);
                for (out, number) in parts.iter_mut().zip(numbers) {
                    out.extend(number.to_le_bytes());
                }
            }
            (kind, parts) => unreachable!("{kind} has not {} parts", parts.len()),
        }
    }

    /// Appends weights, filled up with zeros to `columns`. Loops of copies of a fixed size become ones of
    /// vectors.
    fn weights(&self, weights: &[f32], columns: usize, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + columns * self.dtype.size(), 0);
        match self.dtype {
            AttentionDtype::F32 => {
                for (out, weight) in out[start..].as_chunks_mut().0.iter_mut().zip(weights) {
                    *out = weight.to_le_bytes();
                }
            }
            AttentionDtype::F16 => {
                let mut halves = [f16::ZERO; 256];
                for (weights, out) in weights.chunks(256).zip(out[start..].chunks_mut(512)) {
                    let halves = &mut halves[..weights.len()];
                    halves.convert_from_f32_slice(weights);
                    for (out, half) in out.as_chunks_mut().0.iter_mut().zip(halves) {
                        *out = half.to_le_bytes();
                    }
                }
            }
        }
    }
}
