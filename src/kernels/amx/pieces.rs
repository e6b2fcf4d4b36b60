//! Rows and weights as the tiles of bf16 that AMX multiplies.

// As in `simd`: unsafe because of the CPU's instructions and raw pointers, both promised by the caller.
#![allow(unsafe_op_in_unsafe_fn)]

use std::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::sync::atomic::{Ordering, compiler_fence};

use super::super::folded_panel::{Apart, Notes, QUAD, QUAD_BYTES, at_turn, position};
use super::super::folded_tile::unfold;
use super::super::memory::written;
use super::super::simd::{Avx512Vnni, Simd};
use super::super::threads::SharedSlice;
use super::super::tile::{AHEAD, Element, SPAN};
use super::super::{PANEL, Pool};
use super::{Amx, ROW_BYTES, ROWS};

/// Columns that one instruction multiplies.
pub(super) const STEP: usize = 32;

/// A row of a tile.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Line([u16; STEP]);

impl Line {
    pub(super) const ZERO: Line = Line([0; STEP]);
}

/// Rows in tiles of up to 16, in pieces: a tile of *r* rows is `[depth / 32][pieces][r][32]`, filled up
/// with zeros.
pub(in crate::kernels) struct PiecedRows {
    lines: Vec<Line>,
    steps: usize,
    pieces: usize,
}

impl PiecedRows {
    /// Cuts `input`, `[tokens, depth]`: in three pieces exactly, in two with a relative error below 2⁻¹⁷.
    pub fn new(_: Amx, pool: &Pool, input: &[f32], depth: usize, pieces: usize) -> PiecedRows {
        let (tokens, steps) = (input.len() / depth, depth.div_ceil(STEP));
        let cut = |lines: &mut [MaybeUninit<Line>]| {
            let shared = SharedSlice::new(lines);
            pool.for_each(tokens.div_ceil(ROWS), 1, |tile| {
                let first = tile * ROWS;
                let rows = ROWS.min(tokens - first);
                // SAFETY: each tile is written by one thread.
                let lines = unsafe { shared.part(first * steps * pieces, rows * steps * pieces) };
                let values = input[first * depth..][..rows * depth].chunks_exact(depth);
                for (row, values) in values.enumerate() {
                    // SAFETY: where there is AMX, there is AVX-512.
                    unsafe {
                        match pieces {
                            2 => cut_row_in_two(values, &mut lines[row..], rows),
                            _ => cut_row(values, &mut lines[row..], rows, pieces),
                        }
                    }
                }
            });
        };
        // SAFETY: every line of every tile is written.
        PiecedRows { lines: unsafe { written(tokens * steps * pieces, cut) }, steps, pieces }
    }

    /// Steps of 32 columns.
    pub(super) fn steps(&self) -> usize {
        self.steps
    }

    /// Where the tile that starts at a row lies.
    pub(super) fn tile(&self, row: usize) -> *const u8 {
        self.lines[row * self.steps * self.pieces..].as_ptr().cast()
    }
}

/// Calls `take` with 32 values of a row at a time, filled up with zeros, as two vectors.
#[inline(always)]
unsafe fn each_step(values: &[f32], mut take: impl FnMut([__m512; 2])) {
    let (whole, rest) = values.as_chunks::<STEP>();
    for values in whole {
        take([_mm512_loadu_ps(values.as_ptr()), _mm512_loadu_ps(values.as_ptr().add(STEP / 2))]);
    }
    if !rest.is_empty() {
        let mut values = [0f32; STEP];
        values[..rest.len()].copy_from_slice(rest);
        take([_mm512_loadu_ps(values.as_ptr()), _mm512_loadu_ps(values.as_ptr().add(STEP / 2))]);
    }
}

/// Cuts a row into pieces, each a line, `rows` lines apart.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn cut_row(values: &[f32], lines: &mut [MaybeUninit<Line>], rows: usize, pieces: usize) {
    let mut lines = lines.iter_mut().step_by(rows);
    each_step(values, |mut rest| {
        for line in lines.by_ref().take(pieces) {
            let [first, second] =
                rest.each_mut().map(|rest| _mm512_cvtepi32_epi16(_mm512_srli_epi32(upper(rest), 16)));
            let piece = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(first), second);
            _mm512_storeu_si512(line.as_mut_ptr().cast(), piece);
        }
    });
}

/// Likewise in two, both rounded to the nearest bf16.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn cut_row_in_two(values: &[f32], lines: &mut [MaybeUninit<Line>], rows: usize) {
    let mut lines = lines.iter_mut().step_by(rows);
    let widened = |half: __m256i| _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
    each_step(values, |[first, second]| {
        let nearest: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(second, first));
        let [a, b] = [_mm512_castsi512_si256(nearest), _mm512_extracti64x4_epi64::<1>(nearest)];
        let rest = [_mm512_sub_ps(first, widened(a)), _mm512_sub_ps(second, widened(b))];
        let rest: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(rest[1], rest[0]));
        for (piece, line) in [nearest, rest].into_iter().zip(lines.by_ref()) {
            _mm512_storeu_si512(line.as_mut_ptr().cast(), piece);
        }
    });
}

/// Takes a vector's upper 16 bits off it, exactly.
#[inline(always)]
unsafe fn upper(rest: &mut __m512) -> __m512i {
    let upper = _mm512_and_si512(_mm512_castps_si512(*rest), _mm512_set1_epi32(0xffff_0000_u32 as i32));
    *rest = _mm512_sub_ps(*rest, _mm512_castsi512_ps(upper));
    upper
}

/// A panel whose columns can be had as f32.
pub(in crate::kernels) trait Columns {
    /// Pieces of a weight.
    const PLANES: usize;
    /// Pieces of a value that such weights meet.
    const PIECES: usize = if Self::PLANES == 3 { 3 } else { 2 };

    /// Which step is the `number`th in the order in which the panel lies in memory.
    fn step(&self, number: usize) -> usize;

    /// Four columns, in vectors of rows 0 to 15 and 16 to 31; 0 beyond the last.
    ///
    /// # Safety
    /// The CPU has AVX-512.
    unsafe fn four(&self, column: usize) -> [[__m512; 2]; QUAD];

    /// Puts weights in their place in the first plane of a step, for which steps come in order: those that
    /// [`four`](Self::four) does not tell.
    fn correct(&mut self, _number: usize, _plane: &mut [Line; 2 * ROWS]) {}
}

/// Turns a step of a panel into planes, `[PLANES][2 halves of rows][16 pairs of columns][16 rows][2]`.
///
/// # Safety
/// The CPU has AVX-512; there is room for [`lines_of`] lines.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn fill<C: Columns>(columns: &mut C, number: usize, to: *mut Line) {
    for quad in 0..STEP / QUAD {
        fill_quad(columns, number, quad, to);
    }
    columns.correct(number, &mut *to.cast());
}

/// Turns four columns of a step; after the last, [`Columns::correct`] is to be called.
///
/// # Safety
/// As [`fill`].
#[inline(always)]
pub(super) unsafe fn fill_quad<C: Columns>(columns: &C, number: usize, quad: usize, to: *mut Line) {
    let four = columns.four(columns.step(number) * STEP + quad * QUAD);
    for (pair, [even, odd]) in four.as_chunks::<2>().0.iter().enumerate() {
        for (half, (even, odd)) in even.iter().zip(odd).enumerate() {
            let mut rest = [*even, *odd];
            for plane in 0..C::PLANES {
                let line = (plane * 2 + half) * ROWS + quad * QUAD / 2 + pair;
                // No closures here: they would be compiled without the CPU's instructions.
                let (first, second) = (upper(&mut rest[0]), upper(&mut rest[1]));
                let pairs = _mm512_or_si512(_mm512_srli_epi32(first, 16), second);
                _mm512_store_si512(to.add(line).cast(), pairs);
            }
        }
    }
    // Else the compiler asks for the memory of several fours at once, and the CPU has to wait.
    compiler_fence(Ordering::SeqCst);
}

/// Lines of a step's planes.
pub(super) const fn lines_of<C: Columns>() -> usize {
    C::PLANES * 2 * ROWS
}

/// Asks for memory that is needed soon: for the second cache long before, for the first `first` bytes
/// before. (Distances and both caches as measured: with the first alone, as elsewhere, a fifth slower.)
#[inline(always)]
unsafe fn ask_ahead(from: *const u8, bytes: usize, first: usize) {
    for line in (0..bytes).step_by(ROW_BYTES) {
        _mm_prefetch::<_MM_HINT_T1>(from.wrapping_add(2 * AHEAD + line).cast());
        _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(first + line).cast());
    }
}

/// A panel `[depth][32]` of f32, bf16 or f16.
pub(in crate::kernels) struct Unfolded<'a, W> {
    pub panel: &'a [W],
}

/// The pieces of each.
pub(in crate::kernels) trait InPieces: Element {
    const PLANES: usize;
}
impl InPieces for f32 {
    const PLANES: usize = 3;
}
impl InPieces for half::bf16 {
    const PLANES: usize = 1;
}
impl InPieces for half::f16 {
    const PLANES: usize = 2;
}

impl<W: InPieces> Columns for Unfolded<'_, W> {
    const PLANES: usize = W::PLANES;

    fn step(&self, number: usize) -> usize {
        number
    }

    #[inline(always)]
    unsafe fn four(&self, column: usize) -> [[__m512; 2]; QUAD] {
        let from = self.panel.as_ptr().wrapping_add(column * PANEL);
        ask_ahead(from.cast(), QUAD * PANEL * size_of::<W>(), 512);
        let mut columns = [[Avx512Vnni::splat(0.0); 2]; QUAD];
        let left = (self.panel.len() / PANEL).saturating_sub(column);
        for (number, vectors) in columns.iter_mut().enumerate() {
            // All columns at once, but at the end.
            if left >= QUAD || number < left {
                let from = from.wrapping_add(number * PANEL);
                *vectors = [W::load::<Avx512Vnni>(from), W::load::<Avx512Vnni>(from.wrapping_add(PANEL / 2))];
            }
        }
        columns
    }
}

/// A panel of bf16 in 12 bits.
pub(in crate::kernels) struct InTwelveBits<'a> {
    panel: &'a [u8],
    columns: usize,
    highs: [u8; 16],
    apart: &'a [Apart],
    /// Of the weights apart: the next in each of the two spans that lie in turns.
    next: [usize; 2],
}

/// Steps of a span.
const SPAN_STEPS: usize = SPAN / STEP;

impl<'a> InTwelveBits<'a> {
    pub fn new(panel: &'a [u8], notes: Notes<'a>) -> Self {
        InTwelveBits {
            panel,
            columns: panel.len() / QUAD_BYTES * QUAD,
            highs: notes.highs(),
            apart: notes.apart,
            next: [0; 2],
        }
    }
}

impl Columns for InTwelveBits<'_> {
    const PLANES: usize = 1;

    /// Two spans take turns.
    fn step(&self, number: usize) -> usize {
        at_turn(number, SPAN_STEPS, self.columns.div_ceil(STEP))
    }

    #[inline(always)]
    unsafe fn four(&self, column: usize) -> [[__m512; 2]; QUAD] {
        if column >= self.columns {
            return [[Avx512Vnni::splat(0.0); 2]; QUAD];
        }
        let quad = self.panel.as_ptr().add(position(column / QUAD, self.columns) * QUAD_BYTES);
        ask_ahead(quad, QUAD_BYTES, 2048);
        unfold::<Avx512Vnni>(quad, 0, Avx512Vnni::repeat_16(self.highs.as_ptr()))
    }

    fn correct(&mut self, number: usize, plane: &mut [Line; 2 * ROWS]) {
        let step = self.step(number);
        if number.is_multiple_of(2 * SPAN_STEPS) {
            let second = ((step + SPAN_STEPS) * STEP) as u32;
            let start = |column: u32| self.apart.partition_point(|apart| apart.column < column);
            self.next = [start((step * STEP) as u32), start(second)];
        }
        let next = &mut self.next[step / SPAN_STEPS % 2];
        let end = (step + 1) * STEP;
        while let Some(apart) = self.apart.get(*next).filter(|apart| (apart.column as usize) < end) {
            let (column, row) = (apart.column as usize % STEP, usize::from(apart.row));
            plane[row / ROWS * ROWS + column / 2].0[row % ROWS * 2 + column % 2] = apart.weight.to_bits();
            *next += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Isa;
    use super::*;

    #[test]
    fn pieces_add_up_to_the_values() {
        let depth = 40;
        let input: Vec<f32> = (0..3 * depth).map(|i| ((i * 7919 % 1013) as f32 - 500.3) * 1.7e-3).collect();
        for amx in Isa::available().into_iter().filter_map(Isa::amx) {
            for pieces in [2, 3] {
                let rows = PiecedRows::new(amx, &Pool::new(1), &input, depth, pieces);
                for (at, value) in input.iter().enumerate() {
                    let (row, column) = (at / depth, at % depth);
                    let line = |piece: usize| (column / STEP * pieces + piece) * 3 + row;
                    let piece = |piece| half::bf16::from_bits(rows.lines[line(piece)].0[column % STEP]);
                    let sum: f64 = (0..pieces).map(|number| f64::from(piece(number).to_f32())).sum();
                    let error = (sum - f64::from(*value)).abs();
                    let bound = if pieces == 3 { 0.0 } else { f64::from(value.abs()) * 2f64.powi(-17) };
                    assert!(error <= bound, "{value} in {pieces} pieces is {sum}");
                }
                // What fills a row up is 0.
                assert!(
                    rows.lines[pieces * 3..].iter().all(|line| line.0[depth - STEP..] == [0; 2 * STEP - 40])
                );
            }
        }
    }
}
