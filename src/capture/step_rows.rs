//! The rows of one step on their way into its file: each is encoded as the kind of recording asks, by
//! whichever thread has made it, where it will stand among its neighbours; what is whole goes to the writer.

use std::collections::VecDeque;
use std::ops::Range;

use super::buffer::Buffer;
use super::format::{AttentionDtype, Manifest, StepRecord};
use super::kind::{AttentionKind, Rows};
use super::layout::Layout;
use super::overview::{Band, HeadOverview, LayerRows};
use super::top;
use super::writer::Writer;
use crate::error::Result;
use crate::kernels::halves::{from_f16, to_f16};
use crate::kernels::row_statistics::row_statistics;
use crate::kernels::threads::{ClaimedRow, SharedRows};
use crate::kernels::{Isa, Pool};
use crate::model::{Mask, RowsShape, TakeRows};

/// Steps of up to this many bytes are put together in memory and written at once.
const SMALL: usize = 1 << 20;
/// Bytes of all heads that are gathered before they are written, but for what is left of a layer, and
/// at least a row; rows of few bytes each are not gathered without end. Tests have pieces of small maps.
const PIECE: usize = if cfg!(test) { 64 << 10 } else { 5 << 20 };
const PIECE_ROWS: usize = 4096;

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
    encoding: Encoding,
    /// A small step, its header included.
    whole: Option<Buffer>,
    /// Of a large one what is not handed over yet of the layer at hand.
    pieces: VecDeque<Piece>,
    /// For the overview: of each head of the layer at hand its rows under way, and a row as it is stored.
    bands: Vec<(Band, Vec<f32>)>,
}

/// Some neighbouring rows of a layer.
struct Piece {
    first_row: usize,
    rows: usize,
    /// Of each part `[heads][rows][bytes of a row]`.
    parts: Vec<Buffer>,
}

impl StepRows {
    /// `before` is the layout of the step before.
    pub fn begin(
        record: StepRecord,
        manifest: &Manifest,
        before: Option<Layout>,
        encoding: Encoding,
        writer: &Writer,
    ) -> Result<StepRows> {
        let layout = match before {
            Some(before) => before.of_next(manifest, record.rows(), record.keys),
            None => Layout::new(manifest, record.rows(), record.keys),
        };
        let whole = if layout.len <= SMALL {
            let mut whole = writer.buffer(layout.len)?;
            whole[..layout.header.len()].copy_from_slice(&layout.header);
            Some(whole)
        } else {
            writer.begin(record.file.clone(), layout.header.clone(), layout.len)?;
            None
        };
        Ok(StepRows { record, layout, encoding, whole, pieces: VecDeque::new(), bands: vec![] })
    }

    /// Which of the step's rows are among these.
    pub fn wanted(&self, rows: RowsShape) -> Range<usize> {
        self.layout.rows.within(rows.first_query..rows.first_query + rows.queries)
    }

    /// Rows of a layer with so many heads that are gathered.
    pub fn piece_rows(&self, heads: usize) -> usize {
        let row_bytes: usize = self.layout.parts.iter().map(|part| heads * part.row_bytes()).sum();
        (PIECE / row_bytes.max(1)).clamp(1, PIECE_ROWS)
    }

    /// Takes rows of the layer that stands at `layer` among the captured ones; of it are captured `heads`.
    /// Blocks of rows come in order.
    ///
    /// # Errors
    /// If the system has no memory for them.
    pub fn taker<'a>(
        &'a mut self,
        layer: usize,
        heads: &'a [usize],
        rows: Range<usize>,
        writer: &Writer,
    ) -> Result<Taker<'a>> {
        if rows.start == 0 {
            self.pieces.clear();
            self.bands.clear();
        }
        let piece_rows = self.piece_rows(heads.len());
        let areas = match &mut self.whole {
            Some(whole) => {
                let mut left = &mut whole[self.layout.place(layer, 0, 0, 0)..];
                let count = self.layout.rows.count;
                let parts = self.layout.parts.iter().map(|part| {
                    let bytes = heads.len() * count * part.row_bytes();
                    let (own, rest) = std::mem::take(&mut left).split_at_mut(bytes);
                    left = rest;
                    (own, part.row_bytes())
                });
                vec![Area { first_row: 0, rows: count, bytes: SharedRows::new(heads.len() * count, parts) }]
            }
            None => {
                let mut end = self.pieces.back().map_or(rows.start, |piece| piece.first_row + piece.rows);
                while end < rows.end {
                    let rows = piece_rows.min(self.layout.rows.count - end);
                    let part = |row_bytes| writer.buffer(heads.len() * rows * row_bytes);
                    let parts: Result<_> =
                        self.layout.parts.iter().map(|parts| part(parts.row_bytes())).collect();
                    self.pieces.push_back(Piece { first_row: end, rows, parts: parts? });
                    end += rows;
                }
                let area = |piece: &'a mut Piece| {
                    let row_bytes = self.layout.parts.iter().map(|part| part.row_bytes());
                    let parts = piece.parts.iter_mut().map(|bytes| &mut bytes[..]).zip(row_bytes);
                    let bytes = SharedRows::new(heads.len() * piece.rows, parts);
                    Area { first_row: piece.first_row, rows: piece.rows, bytes }
                };
                self.pieces.iter_mut().map(area).collect()
            }
        };
        let (keys, rows) = (self.layout.keys, self.layout.rows);
        Ok(Taker { encoding: self.encoding, keys, rows, heads, areas })
    }

    /// These rows have all been taken.
    pub fn taken(
        &mut self,
        layer: usize,
        rows: Range<usize>,
        overview: Option<(LayerRows<'_>, &mut [HeadOverview])>,
        pool: &Pool,
        writer: &Writer,
    ) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        if let Some((taken, sums)) = overview {
            self.add_to_overview(layer, rows.clone(), taken, sums, pool);
        }
        while let Some(piece) = self.pieces.front()
            && piece.first_row + piece.rows <= rows.end
        {
            let Some(Piece { first_row, rows, parts }) = self.pieces.pop_front() else { break };
            for (part, bytes) in parts.into_iter().enumerate() {
                let (at, row_bytes) =
                    (self.layout.place(layer, part, 0, first_row), self.layout.parts[part].row_bytes());
                match rows == self.layout.rows.count {
                    true => writer.write(at, bytes)?,
                    false => writer.write_pieces(
                        at,
                        rows * row_bytes,
                        self.layout.rows.count * row_bytes,
                        bytes,
                    )?,
                }
            }
        }
        Ok(())
    }

    /// Takes rows in as they are stored; those of a head in order.
    fn add_to_overview(
        &mut self,
        layer: usize,
        rows: Range<usize>,
        taken: LayerRows<'_>,
        sums: &mut [HeadOverview],
        pool: &Pool,
    ) {
        let mut bands = std::mem::take(&mut self.bands);
        bands.resize_with(sums.len(), Default::default);
        let mut heads: Vec<_> = sums.iter_mut().zip(&mut bands).collect();
        let (this, positions) = (&*self, self.layout.rows);
        let add = |head: usize, (sums, (band, stored)): &mut (&mut HeadOverview, &mut (Band, Vec<f32>))| {
            for row in rows.clone() {
                let query = positions.position(row);
                stored.resize(taken.seen(query).end, 0.0);
                this.read(layer, head, row, stored);
                taken.add(sums, band, query, stored);
            }
            if rows.end == positions.count {
                taken.end(sums, band);
            }
        };
        pool.for_each_mut(&mut heads, add);
        self.bands = bands;
    }

    /// Weights of a row that has been taken, of a whole map.
    fn read(&self, layer: usize, head: usize, row: usize, out: &mut [f32]) {
        let row_bytes = self.layout.parts[0].row_bytes();
        let bytes = match &self.whole {
            Some(whole) => &whole[self.layout.place(layer, 0, head, row)..],
            None => {
                let holds = |piece: &&Piece| row < piece.first_row + piece.rows;
                let Some(piece) = self.pieces.iter().find(holds) else { return };
                &piece.parts[0][(head * piece.rows + row - piece.first_row) * row_bytes..]
            }
        };
        match self.encoding.dtype {
            AttentionDtype::F32 => {
                for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                    *out = f32::from_le_bytes(*bytes);
                }
            }
            AttentionDtype::F16 => from_f16(self.encoding.isa, &bytes.as_chunks().0[..out.len()], out),
        }
    }

    /// Bytes of its tensors.
    pub fn map_bytes(&self) -> u64 {
        (self.layout.len - self.layout.header.len()) as u64
    }

    /// All rows are there. Answers the layout, for the next step.
    pub fn commit(self, writer: &Writer) -> Result<Layout> {
        match self.whole {
            Some(whole) => writer.step(self.record, whole)?,
            None => writer.commit(self.record)?,
        }
        Ok(self.layout)
    }
}

/// Where rows of one layer go.
pub(super) struct Taker<'a> {
    encoding: Encoding,
    /// Of the whole step.
    keys: usize,
    /// The recorded ones.
    rows: Rows,
    heads: &'a [usize],
    areas: Vec<Area<'a>>,
}

/// Memory for some neighbouring rows, `[heads][rows]`.
struct Area<'a> {
    first_row: usize,
    rows: usize,
    bytes: SharedRows<'a>,
}

impl TakeRows for Taker<'_> {
    fn take(&self, head: usize, query: usize, weights: &[f32]) {
        let row = self.rows.within(query..query + 1);
        let Some(place) = self.heads.iter().position(|captured| *captured == head) else { return };
        let holds = |area: &&Area<'_>| row.start < area.first_row + area.rows;
        let (false, Some(area)) = (row.is_empty(), self.areas.iter().find(holds)) else { return };
        if let Some(mut out) = area.bytes.claim(place * area.rows + row.start - area.first_row) {
            self.encoding.encode(weights, query, self.keys, &mut out);
        }
    }
}

impl Encoding {
    /// Writes the parts of a row.
    fn encode(&self, weights: &[f32], position: usize, keys: usize, out: &mut ClaimedRow<'_>) {
        match self.kind {
            AttentionKind::Full => self.weights(weights, out.part(0)),
            AttentionKind::Top(count) => {
                let (best, rest) = top::largest(weights, count);
                let best_weights: Vec<f32> = best.iter().map(|best| best.weight).collect();
                self.weights(&best_weights, out.part(0));
                let positions = best.iter().map(|best| best.key as i32);
                let positions = positions.chain(std::iter::repeat_n(-1, count.min(keys) - best.len()));
                for (out, position) in out.part(1).as_chunks_mut().0.iter_mut().zip(positions) {
                    *out = position.to_le_bytes();
                }
                out.part(2).copy_from_slice(&rest.to_le_bytes());
            }
            AttentionKind::Stats => {
                let seen =
                    if self.mask == Mask::Causal { weights.len().min(position + 1) } else { weights.len() };
                let numbers = row_statistics(self.isa, &weights[..seen], position);
                for (part, number) in numbers.into_iter().enumerate() {
                    out.part(part).copy_from_slice(&number.to_le_bytes());
                }
            }
        }
    }

    /// Writes weights; 0 behind them.
    fn weights(&self, weights: &[f32], out: &mut [u8]) {
        let (out, rest) = out.split_at_mut(weights.len() * self.dtype.size());
        rest.fill(0);
        match self.dtype {
            AttentionDtype::F32 => {
                for (out, weight) in out.as_chunks_mut().0.iter_mut().zip(weights) {
                    *out = weight.to_le_bytes();
                }
            }
            AttentionDtype::F16 => to_f16(self.isa, weights, out.as_chunks_mut().0),
        }
    }
}
