//! bf16 in 12 bits, without loss: how a panel of 32 rows lies in memory.
//! [`folded_tile`](super::folded_tile) computes with it.
//!
//! The weights of a matrix are of similar size. Of a bf16's high byte, which is its sign and the upper
//! seven bits of its exponent, a panel has few: 4 bits say which of them it is, and the low byte stays
//! as it is. Generating a token reads all weights once and waits for memory, so a quarter less to read
//! is that much faster. The idea is DFloat11's (Zhang et al. 2025), with a code of fixed length in the
//! place of Huffman's, which a vector decodes in a few instructions.
//!
//! A code is the sign and one of eight: zero (for which the low byte may hold a subnormal), or one of
//! seven neighbours from the panel's `lowest` on. The few weights that fit none of these are held as
//! zero, and beside the panel as they are: their products are added behind all others, in order.
//!
//! Four columns are 192 bytes: the low bytes of the first two columns, those of the last two, and 64
//! bytes of which each holds the code of a byte of the first 64 in its low half, and of the second 64
//! in its high half. Within 64 bytes, each 16 hold 8 rows of one column, then of the next, in
//! [the order](PLACES) in which interleaving bytes makes pairs of rows r and r + 16.

use super::PANEL;
use super::tile::{BLOCK, SPAN, TileArgs};

/// Columns that lie together.
pub(super) const QUAD: usize = 4;
/// Their bytes: 12 bits for each weight.
pub(super) const QUAD_BYTES: usize = QUAD * PANEL * 12 / 8;
/// A plane of low bytes, or of codes.
pub(super) const PLANE: usize = 2 * PANEL;

/// High bytes, without the sign, that have a code besides 0.
const HIGHS: u8 = 7;

/// Row `r` of a column is its word number `PLACES[r]`.
const PLACES: [usize; PANEL] = {
    let mut places = [0; PANEL];
    let mut row = 0;
    while row < PANEL {
        places[row] = 2 * (row % 16) + row / 16;
        row += 1;
    }
    places
};

/// What the bytes of folded panels do not say.
#[derive(Default)]
pub(super) struct Folded {
    panels: Vec<Panel>,
    /// Of all panels, one after another, as they are read.
    apart: Vec<Apart>,
}

/// One panel's part of it.
#[derive(Clone, Copy)]
struct Panel {
    lowest: u8,
    /// The end of its weights apart.
    end: usize,
}

/// A weight that no code fits.
#[derive(Clone, Copy)]
pub(super) struct Apart {
    pub column: u32,
    pub row: u16,
    pub weight: half::bf16,
}

impl Folded {
    /// Takes what [`fold`] says of the next panel.
    pub(super) fn push(&mut self, lowest: u8, apart: &[Apart]) {
        self.apart.extend_from_slice(apart);
        self.panels.push(Panel { lowest, end: self.apart.len() });
    }

    /// Bytes that are read with the panels'.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.panels) + size_of_val(&*self.apart)
    }

    /// What is to be known of one panel.
    pub(super) fn notes(&self, panel: usize) -> Notes<'_> {
        let start = panel.checked_sub(1).map_or(0, |before| self.panels[before].end);
        let Panel { lowest, end } = self.panels[panel];
        Notes { lowest, apart: &self.apart[start..end] }
    }
}

/// What a panel's bytes do not say.
#[derive(Clone, Copy)]
pub(super) struct Notes<'a> {
    /// The high byte, without the sign, that code 1 stands for.
    lowest: u8,
    /// In the order of their columns.
    pub apart: &'a [Apart],
}

impl Notes<'_> {
    /// The high byte that each code stands for.
    pub(super) fn highs(&self) -> [u8; 16] {
        std::array::from_fn(|code| {
            let high = if code % 8 == 0 { 0 } else { self.lowest + code as u8 % 8 - 1 };
            high | (code as u8 / 8 * 0x80)
        })
    }

    /// Adds the products of the weights apart to `args.out`, which holds those of the panel, the `number`th
    /// of `args`.
    ///
    /// # Safety
    /// As for [`blocked_tile_f32`](super::tile::blocked_tile_f32).
    pub(super) unsafe fn add<W>(&self, args: TileArgs<W>, number: usize) {
        for apart in self.apart {
            let (column, weight) = (apart.column as usize, apart.weight.to_f32());
            // SAFETY: the caller's promises; the column and the row are the panel's.
            unsafe {
                let mut x = args.x.add(column / BLOCK * args.x_block + column % BLOCK);
                let mut out = args.out.add(number * PANEL + usize::from(apart.row));
                for _ in 0..args.rows {
                    *out += weight * *x;
                    (x, out) = (x.wrapping_add(args.x_row), out.wrapping_add(args.out_row));
                }
            }
        }
    }
}

/// Whether a panel can be folded.
pub(super) fn fits(columns: usize) -> bool {
    columns.is_multiple_of(BLOCK)
}

/// Bytes of a panel.
pub(super) fn panel_bytes(columns: usize) -> usize {
    columns / QUAD * QUAD_BYTES
}

/// Where a row is put in a panel `[columns][32]` that is to be folded.
pub(super) fn place(row: usize) -> usize {
    PLACES[row]
}

/// Fours of columns of a span.
const SPAN_QUADS: usize = SPAN / QUAD;

/// Where four columns of a panel are, in fours: those of two spans take turns, so that the two can be
/// summed at the same time in one pass through memory.
pub(super) fn position(quad: usize, columns: usize) -> usize {
    let (pair, of_pair) = (quad / (2 * SPAN_QUADS) * (2 * SPAN_QUADS), quad % (2 * SPAN_QUADS));
    pair + match of_pair.checked_sub(SPAN_QUADS) {
        Some(second) => 2 * second + 1,
        None => of_pair + of_pair.min(in_turns(pair, SPAN_QUADS, columns / QUAD)),
    }
}

/// Which four columns are at a [`position`].
pub(super) fn quad_at(position: usize, columns: usize) -> usize {
    at_turn(position, SPAN_QUADS, columns / QUAD)
}

/// Which of `all` is the `turn`th where those of two spans, of `of_span` each, take turns.
pub(super) fn at_turn(turn: usize, of_span: usize, all: usize) -> usize {
    let (pair, of_pair) = (turn / (2 * of_span) * (2 * of_span), turn % (2 * of_span));
    let both = in_turns(pair, of_span, all);
    pair + if of_pair < 2 * both { of_pair % 2 * of_span + of_pair / 2 } else { of_pair - both }
}

/// How many of the second of two spans there are: all of them take turns with the first's.
fn in_turns(pair: usize, of_span: usize, all: usize) -> usize {
    (all - pair).saturating_sub(of_span).min(of_span)
}

/// Folds a panel `[columns][32]` of bf16 whose rows are in their [places](place): the high byte that
/// code 1 stands for, and the weights apart.
pub(super) fn fold(words: &[[u16; PANEL]], out: &mut [u8]) -> (u8, Vec<Apart>) {
    let lowest = lowest(words);
    let mut apart = vec![];
    let out = out.as_chunks_mut().0;
    for (number, quad) in words.as_chunks::<QUAD>().0.iter().enumerate() {
        let out = &mut out[position(number, words.len())];
        if fold_quad(quad, lowest, out) {
            let mut fitting = *quad;
            for (column, words) in fitting.iter_mut().enumerate() {
                for row in 0..PANEL {
                    let word = &mut words[PLACES[row]];
                    if is_apart(*word, lowest) {
                        let weight = half::bf16::from_bits(*word);
                        apart.push(Apart {
                            column: (number * QUAD + column) as u32,
                            row: row as u16,
                            weight,
                        });
                        *word = 0;
                    }
                }
            }
            fold_quad(&fitting, lowest, out);
        }
    }
    (lowest, apart)
}

/// The start of the seven neighbouring high bytes that most weights have, by every eighth column.
fn lowest(words: &[[u16; PANEL]]) -> u8 {
    let mut counts = [0u32; 128];
    for word in words.iter().step_by(8).flatten() {
        counts[usize::from(word >> 8 & 0x7f)] += 1;
    }
    let covered = |lowest: &u8| counts[usize::from(*lowest)..][..usize::from(HIGHS)].iter().sum::<u32>();
    // Of equals the lowest: there are small weights more often than large ones.
    (1..=128 - HIGHS).rev().max_by_key(covered).expect("there are some")
}

fn is_apart(word: u16, lowest: u8) -> bool {
    let high = (word >> 8) as u8 & 0x7f;
    high != 0 && high.wrapping_sub(lowest) >= HIGHS
}

/// Folds four columns; whether any of their weights has no code.
fn fold_quad(words: &[[u16; PANEL]; QUAD], lowest: u8, out: &mut [u8; QUAD_BYTES]) -> bool {
    let mut codes = [[0u8; PANEL]; QUAD];
    let mut apart = false;
    for (words, codes) in words.iter().zip(&mut codes) {
        for (word, code) in words.iter().zip(codes) {
            let high = (word >> 8) as u8;
            let above = (high & 0x7f).wrapping_sub(lowest);
            let fits = above < HIGHS;
            apart |= !fits & (high & 0x7f != 0);
            *code = if fits { above + 1 } else { 0 } | high >> 4 & 8;
        }
    }
    let (low, both) = out.split_at_mut(2 * PLANE);
    for (at, eight) in both.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let (column, first) = (at % 2, at / 2 * 8);
        for (lane, byte) in eight.iter_mut().enumerate() {
            *byte = codes[column][first + lane] | codes[2 + column][first + lane] << 4;
        }
    }
    for (at, eight) in low.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let (column, first) = (at / 8 * 2 + at % 2, at % 8 / 2 * 8);
        for (lane, byte) in eight.iter_mut().enumerate() {
            *byte = words[column][first + lane] as u8;
        }
    }
    apart
}

/// Copies one row of a panel, decoded.
pub(super) fn copy_row(panel: &[u8], notes: Notes<'_>, row: usize, out: &mut [f32]) {
    let highs = notes.highs();
    let place = PLACES[row];
    let (panel, columns) = (panel.as_chunks::<QUAD_BYTES>().0, out.len());
    for (number, out) in out.chunks_exact_mut(QUAD).enumerate() {
        let quad = panel[position(number, columns)];
        for (column, out) in out.iter_mut().enumerate() {
            let at = place / 8 * 16 + column % 2 * 8 + place % 8;
            let code = quad[2 * PLANE + at] >> (column / 2 * 4) & 15;
            let bytes = [quad[column / 2 * PLANE + at], highs[usize::from(code)]];
            *out = half::bf16::from_le_bytes(bytes).to_f32();
        }
    }
    for apart in notes.apart.iter().filter(|apart| usize::from(apart.row) == row) {
        out[apart.column as usize] = apart.weight.to_f32();
    }
}

#[cfg(test)]
mod tests {
    use super::super::folded_tile::widen_folded;
    use super::super::matmul::{ElementType, PackedMatrix, RawMatrix, matmul};
    use super::super::tile::widened;
    use super::super::{Isa, Pool};
    use super::*;

    /// Bits that differ from place to place.
    fn random(len: usize, seed: u32) -> impl Iterator<Item = u32> {
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
        (0..len).map(move |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 8
        })
    }

    /// bf16 of which most are near 1 in size, one in 60 any bits at all, and one in 60 zero.
    fn weights(len: usize, seed: u32) -> Vec<half::bf16> {
        let any = random(len, seed + 1);
        let like = |bits: u32, any: u32| match bits % 60 {
            0 => half::bf16::from_bits(any as u16),
            1 => half::bf16::from_bits(any as u16 & 0x8000),
            _ => half::bf16::from_f32(bits as f32 / (1 << 23) as f32 - 1.0),
        };
        random(len, seed).zip(any).map(|(bits, any)| like(bits, any)).collect()
    }

    /// Weights of `[columns][32]`, folded.
    fn folded(columns: usize, seed: u32) -> (Vec<half::bf16>, Vec<u8>, Folded) {
        let weights = weights(columns * PANEL, seed);
        let mut words = vec![[0; PANEL]; columns];
        for (words, weights) in words.iter_mut().zip(weights.chunks_exact(PANEL)) {
            (0..PANEL).for_each(|row| words[place(row)] = weights[row].to_bits());
        }
        let mut panel = vec![0; panel_bytes(columns)];
        let mut folded = Folded::default();
        let (lowest, apart) = fold(&words, &mut panel);
        folded.push(lowest, &apart);
        (weights, panel, folded)
    }

    #[test]
    fn every_four_columns_have_a_place_of_their_own() {
        for columns in [16, 256, 272, 512, 576, 1104, 1536] {
            let mut places: Vec<usize> = (0..columns / QUAD).map(|quad| position(quad, columns)).collect();
            assert!(places.iter().enumerate().all(|(quad, place)| quad_at(*place, columns) == quad));
            places.sort();
            assert!(places.into_iter().eq(0..columns / QUAD), "{columns} columns");
        }
    }

    #[test]
    fn every_bit_comes_back() {
        for columns in [16, 64, 256, 272, 512, 576, 1536] {
            let (weights, panel, folded) = folded(columns, columns as u32);
            let notes = folded.notes(0);
            assert_eq!(panel.len(), columns * 48);
            assert!(!notes.apart.is_empty() && notes.apart.len() < weights.len() / 20);
            for row in 0..PANEL {
                let mut out = vec![0f32; columns];
                copy_row(&panel, notes, row, &mut out);
                for (column, out) in out.iter().enumerate() {
                    let expected = weights[column * PANEL + row].to_f32();
                    assert_eq!(out.to_bits(), expected.to_bits(), "row {row} of {column}");
                }
            }
            let mut expected: Vec<u32> = weights.iter().map(|weight| weight.to_f32().to_bits()).collect();
            notes.apart.iter().for_each(|at| expected[at.column as usize * PANEL + usize::from(at.row)] = 0);
            for isa in Isa::available() {
                let mut wide = vec![f32::NAN; columns * PANEL];
                widen_folded(isa, &panel, notes, &mut wide);
                for (at, expected) in expected.iter().enumerate() {
                    let value = wide[widened(isa.lanes(), columns, at / PANEL, at % PANEL)];
                    assert_eq!(value.to_bits(), *expected, "{isa}, {at} of {columns} columns");
                }
            }
        }
    }

    fn matrix(rows: usize, columns: usize, weights: &[half::bf16]) -> RawMatrix<'static> {
        let bytes: Vec<u8> = weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
        RawMatrix { rows, columns, element: ElementType::Bf16, bytes: bytes.into() }
    }

    #[test]
    fn products_are_the_definitions_and_the_same_alone_and_among_others() {
        let pool = Pool::new(2);
        for (rows, columns) in [(40, 16), (70, 272), (33, 576), (64, 1104)] {
            // One in 300 does not fit.
            let fitting = |(at, bits): (usize, u32)| {
                let value = bits as f32 / (1 << 23) as f32 - 1.0;
                half::bf16::from_f32(if at % 300 == 7 { value * 1e-6 } else { value })
            };
            let weights: Vec<_> = random(rows * columns, 5).enumerate().map(fitting).collect();
            let packed =
                PackedMatrix::pack(&pool, &[matrix(rows, columns, &weights)], &[ElementType::Bf16]).unwrap();
            assert!(packed.bytes() < rows.next_multiple_of(PANEL) * columns * 2, "it is folded");
            let input: Vec<f32> =
                random(29 * columns, 6).map(|bits| bits as f32 / (1 << 23) as f32 - 1.0).collect();
            for isa in Isa::available() {
                let together = matmul(isa, &pool, &packed, &input);
                for (x, products) in input.chunks_exact(columns).zip(together.chunks_exact(rows)) {
                    for (row, product) in weights.chunks_exact(columns).zip(products) {
                        let (sum, size) = row.iter().zip(x).fold((0.0, 0.0), |(sum, size), (w, x)| {
                            let one = f64::from(w.to_f32()) * f64::from(*x);
                            (sum + one, size + one.abs())
                        });
                        let bound = size * (SPAN + 10) as f64 * f64::from(f32::EPSILON);
                        assert!((f64::from(*product) - sum).abs() <= bound, "{isa}: {product} for {sum}");
                    }
                }
                for some in 1..14 {
                    for (x, expected) in
                        input.chunks(some * columns).zip(together.chunks(some * rows)).take(3)
                    {
                        assert_eq!(matmul(isa, &pool, &packed, x), expected, "{isa}, {some} at a time");
                    }
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_stays_as_it_is() {
        let pool = Pool::new(2);
        let any: Vec<_> = random(64 * 32, 8).map(|bits| half::bf16::from_bits(bits as u16)).collect();
        for (rows, columns) in [(64, 32), (64, 20)] {
            let raw = matrix(rows, columns, &any[..rows * columns]);
            let packed = PackedMatrix::pack(&pool, &[raw], &[ElementType::Bf16]).unwrap();
            assert_eq!(packed.bytes(), rows * columns * 2);
            let mut out = vec![0.0; columns];
            packed.copy_row(37, &mut out);
            for (out, weight) in out.iter().zip(&any[37 * columns..]) {
                assert_eq!(out.to_bits(), weight.to_f32().to_bits());
            }
        }
    }
}
