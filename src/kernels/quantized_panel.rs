//! Panels of quantised weights: 32 rows' blocks side by side, in the order in which the tile reads
//! them.
//!
//! A block of a panel is 32 blocks of a file, one of each row, with the same bits: first what the
//! whole block shares, then its groups of 32 columns, each with its scales (and minima) `[32]` and
//! its integers, four columns at a time, as instructions that multiply bytes take them. Integers of
//! 8 bits are `[8][32 rows][4 columns]`, biased by 128; of 4 bits `[8][16][4 columns]`, rows 0 to 15
//! in the low halves of the bytes and rows 16 to 31 in the high ones.

use half::f16;

use super::PANEL;
use super::blocks::{half, scales_and_minima};
use super::element::ElementType;

/// Columns of a group.
pub const GROUP: usize = 32;

/// Turns an i8 into a u8 that is 128 larger, and back.
const BIAS: u8 = 128;

/// Where things lie in a block of a panel; all in bytes, but for `groups`.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// f16 scales and minima of the whole block: only `q4_k` has them.
    pub header: usize,
    pub groups: usize,
    /// Scales and minima of a group: f16, or in `q4_k` integers that multiply the header's.
    pub group_header: usize,
    /// Four columns of 32 integers.
    pub quad: usize,
}

impl Layout {
    /// # Panics
    /// For a type that has no panels of blocks.
    pub(super) const fn of(element: ElementType) -> Layout {
        const SCALES: usize = PANEL * size_of::<f16>();
        match element {
            ElementType::Q8_0 => Layout { header: 0, groups: 1, group_header: SCALES, quad: 4 * PANEL },
            ElementType::Q4_0 => Layout { header: 0, groups: 1, group_header: SCALES, quad: 2 * PANEL },
            ElementType::Q4_1 => Layout { header: 0, groups: 1, group_header: 2 * SCALES, quad: 2 * PANEL },
            ElementType::Q4K => {
                Layout { header: 2 * SCALES, groups: 8, group_header: 2 * PANEL, quad: 2 * PANEL }
            }
            _ => panic!("no panels of this type"),
        }
    }

    pub(super) const fn group(&self) -> usize {
        self.group_header + GROUP / 4 * self.quad
    }

    pub(super) const fn block(&self) -> usize {
        self.header + self.groups * self.group()
    }
}

/// Puts the blocks of a row into one lane of a zeroed panel.
pub(super) fn pack_row(element: ElementType, row: &[u8], panel: &mut [u8], lane: usize) {
    let layout = Layout::of(element);
    let blocks = row.chunks_exact(element.block_bytes());
    for (block, out) in blocks.zip(panel.chunks_exact_mut(layout.block())) {
        let (header, groups) = out.split_at_mut(layout.header);
        let halves = block.chunks_exact(2);
        for (out, half) in header.chunks_exact_mut(2 * PANEL).zip(halves.clone()) {
            out[2 * lane..2 * lane + 2].copy_from_slice(half);
        }
        for (number, group) in groups.chunks_exact_mut(layout.group()).enumerate() {
            let (header, columns) = group.split_at_mut(layout.group_header);
            if element == ElementType::Q4K {
                let (scale, minimum) = scales_and_minima(&block[4..16])[number];
                (header[lane], header[PANEL + lane]) = (scale, minimum);
            } else {
                for (out, half) in header.chunks_exact_mut(2 * PANEL).zip(halves.clone()) {
                    out[2 * lane..2 * lane + 2].copy_from_slice(half);
                }
            }
            for (quad, out) in columns.chunks_exact_mut(layout.quad).enumerate() {
                if element == ElementType::Q8_0 {
                    let bytes = block[2 + 4 * quad..][..4].iter();
                    out[4 * lane..][..4].iter_mut().zip(bytes).for_each(|(out, byte)| *out = byte ^ BIAS);
                } else {
                    let (half, lane) = (lane / (PANEL / 2), lane % (PANEL / 2));
                    let out = &mut out[4 * lane..][..4];
                    let integers = four_nibbles(element, block, number, quad);
                    out.iter_mut().zip(integers).for_each(|(out, integer)| *out |= integer << (4 * half));
                }
            }
        }
    }
}

/// The 4-bit integers of four columns of a group of a file's block.
fn four_nibbles(element: ElementType, block: &[u8], group: usize, quad: usize) -> [u8; 4] {
    let (at, half) = match element {
        ElementType::Q4K => (16 + group / 2 * 32 + 4 * quad, group % 2),
        ElementType::Q4_1 => (4 + quad % 4 * 4, quad / 4),
        _ => (2 + quad % 4 * 4, quad / 4),
    };
    std::array::from_fn(|column| (block[at + column] >> (4 * half)) & 15)
}

/// Decodes one lane of a panel.
pub(super) fn copy_row(element: ElementType, panel: &[u8], lane: usize, out: &mut [f32]) {
    let layout = Layout::of(element);
    let value = |bytes: &[u8], number: usize| half(&bytes[2 * (number * PANEL + lane)..]);
    let blocks = panel.chunks_exact(layout.block());
    for (block, out) in blocks.zip(out.chunks_exact_mut(layout.groups * GROUP)) {
        let (block_header, groups) = block.split_at(layout.header);
        for (group, out) in groups.chunks_exact(layout.group()).zip(out.chunks_exact_mut(GROUP)) {
            let (header, columns) = group.split_at(layout.group_header);
            let (scale, minimum) = match element {
                ElementType::Q4K => (
                    value(block_header, 0) * f32::from(header[lane]),
                    -(value(block_header, 1) * f32::from(header[PANEL + lane])),
                ),
                ElementType::Q4_1 => (value(header, 0), value(header, 1)),
                ElementType::Q4_0 => (value(header, 0), -8.0 * value(header, 0)),
                _ => (value(header, 0), 0.0),
            };
            for (column, out) in out.iter_mut().enumerate() {
                *out = if element == ElementType::Q8_0 {
                    let byte = columns[column / 4 * layout.quad + 4 * lane + column % 4];
                    f32::from((byte ^ BIAS) as i8) * scale
                } else {
                    let (half, lane) = (lane / (PANEL / 2), lane % (PANEL / 2));
                    let byte = columns[column / 4 * layout.quad + 4 * lane + column % 4];
                    f32::from((byte >> (4 * half)) & 15) * scale + minimum
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::blocks::dequantize;
    use crate::kernels::quantize::quantized;

    #[test]
    fn every_lane_holds_its_row_in_as_many_bytes_as_the_file() {
        for element in [ElementType::Q8_0, ElementType::Q4_0, ElementType::Q4_1, ElementType::Q4K] {
            let columns = 512;
            let layout = Layout::of(element);
            let mut panel = vec![0u8; columns / element.block_values() * layout.block()];
            let rows: Vec<Vec<u8>> = (0..PANEL)
                .map(|row| {
                    let value = |i: usize| ((i * 7919 + row * 31) % 1013) as f32 / 500.0 - 0.9;
                    quantized(element, &(0..columns).map(value).collect::<Vec<f32>>())
                })
                .collect();
            rows.iter().enumerate().for_each(|(lane, row)| pack_row(element, row, &mut panel, lane));
            // q4_k's sixteen 6-bit numbers take a byte each.
            let larger = if element == ElementType::Q4K { 4 * columns / 256 } else { 0 };
            assert_eq!(panel.len(), PANEL * (rows[0].len() + larger), "{element}");
            for (lane, row) in rows.iter().enumerate() {
                let (mut expected, mut ours) = (vec![0f32; columns], vec![f32::NAN; columns]);
                dequantize(element, row, &mut expected);
                copy_row(element, &panel, lane, &mut ours);
                assert_eq!(ours, expected, "{element} lane {lane}");
            }
        }
    }
}
