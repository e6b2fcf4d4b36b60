//! Products against their definition, on every tier and of every type.

use super::*;
use crate::kernels::quantize::quantized;
use crate::kernels::quantized_rows::OUTLIER;

/// Values in −1..1 that differ from place to place; no random crate needed for that.
fn values(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// Values of which some are many times as large as the others.
fn spiky(len: usize, seed: u32) -> Vec<f32> {
    let spikes = values(len, seed + 100);
    values(len, seed).iter().zip(spikes).map(|(x, s)| if s > 0.96 { 9.0 * x } else { *x }).collect()
}

const ELEMENTS: [ElementType; 7] = [
    ElementType::F32,
    ElementType::Bf16,
    ElementType::F16,
    ElementType::Q8_0,
    ElementType::Q4_0,
    ElementType::Q4_1,
    ElementType::Q4K,
];

fn matrix(rows: usize, columns: usize, element: ElementType, seed: u32) -> RawMatrix<'static> {
    let bytes = quantized(element, &values(rows * columns, seed)).into();
    RawMatrix { rows, columns, element, bytes }
}

/// What quantised weights meet: in each group of 32 the nearest of 255 values, but for outlying ones,
/// which stay.
fn rounded(input: &[f32], columns: usize) -> Vec<f32> {
    let largest = |group: &[f32]| group.iter().fold(0f32, |a, b| a.max(b.abs()));
    let nearest = |group: &[f32]| -> Vec<f32> {
        let scale = largest(group) / 127.0;
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        group.iter().map(|value| (value * inverse).round_ties_even() * scale).collect()
    };
    let mut out = vec![];
    for row in input.chunks_exact(columns) {
        let mean = row.chunks(32).map(largest).sum::<f32>() / (columns / 32) as f32;
        for group in row.chunks(32) {
            let apart = |value: f32| value.abs() > OUTLIER * mean;
            let rest: Vec<f32> = group.iter().map(|x| if apart(*x) { 0.0 } else { *x }).collect();
            let held = group.iter().zip(nearest(&rest));
            out.extend(held.map(|(value, near)| if apart(*value) { *value } else { near }));
        }
    }
    out
}

/// The definition, in f64, over weights and inputs as they are held.
fn defined(raw: &RawMatrix<'_>, input: &[f32]) -> Vec<(f64, f64)> {
    input
        .chunks_exact(raw.columns)
        .flat_map(|x| {
            (0..raw.rows).map(move |row| {
                raw.row(row).iter().zip(x).fold((0.0, 0.0), |(sum, size), (w, x)| {
                    let product = f64::from(*w) * f64::from(*x);
                    (sum + product, size + product.abs())
                })
            })
        })
        .collect()
}

#[test]
fn products_agree_with_the_definition_on_every_tier() {
    let pool = Pool::new(2);
    for isa in Isa::available() {
        for element in ELEMENTS {
            for (tokens, rows, columns) in [
                (1, 1, 1),
                (1, 33, 64),
                (1, 150, 20),
                (2, 95, 7),
                (3, 64, 40),
                (5, 32, 33),
                (11, 31, 64),
                (12, 40, 9),
                (13, 100, 24),
                (40, 70, 16),
            ] {
                let columns = columns * element.block_values();
                let raw = matrix(rows, columns, element, 1);
                let weights = PackedMatrix::pack(&pool, std::slice::from_ref(&raw), &[element]).unwrap();
                let input = spiky(tokens * columns, 2);
                let out = matmul(isa, &pool, &weights, &input);
                assert_eq!(out.len(), tokens * rows);
                let held = if element.is_quantized() { rounded(&input, columns) } else { input.clone() };
                let mut bound = 2.0 * columns as f64 * f64::from(f32::EPSILON);
                if isa.amx().is_some() && matches!(element, ElementType::Bf16 | ElementType::F16) {
                    // Such weights meet 17 bits of x.
                    bound += 2f64.powi(-17);
                }
                for (at, (ours, (sum, size))) in out.iter().zip(defined(&raw, &held)).enumerate() {
                    let error = (f64::from(*ours) - sum).abs();
                    assert!(
                        error <= bound * size,
                        "{isa} {element} {tokens}x{rows}x{columns} at {at}: {ours} for {sum}, error {error:e}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_among_others() {
    for isa in Isa::available() {
        for element in ELEMENTS {
            // Whole tiles of each kernel, and a part of one; rows that are packed, and others.
            let (tokens, rows) = (75, 70);
            for columns in [48 * element.block_values().min(16), 1024] {
                let raw = matrix(rows, columns, element, 3);
                let input = spiky(tokens * columns, 4);
                let pool = Pool::new(2);
                let weights = PackedMatrix::pack(&pool, &[raw], &[element]).unwrap();
                let together = matmul(isa, &pool, &weights, &input);
                let one = Pool::new(1);
                for (x, expected) in input.chunks_exact(columns).zip(together.chunks_exact(rows)) {
                    assert_eq!(matmul(isa, &one, &weights, x), expected, "{isa} {element} {columns}");
                }
            }
        }
    }
}

#[test]
fn parts_of_different_types_give_what_each_gives_alone() {
    let pool = Pool::new(2);
    let columns = 256;
    let held = [ElementType::Q4K, ElementType::Q8_0, ElementType::F32];
    let sources: Vec<RawMatrix<'_>> =
        held.iter().zip([33, 40, 7]).map(|(element, rows)| matrix(rows, columns, *element, 9)).collect();
    let together = PackedMatrix::pack(&pool, &sources, &held).unwrap();
    for isa in Isa::available() {
        for tokens in [1, 3, 30] {
            let input = spiky(tokens * columns, 10);
            let out = matmul(isa, &pool, &together, &input);
            let mut first = 0;
            for (source, element) in sources.iter().zip(held) {
                let alone = PackedMatrix::pack(&pool, std::slice::from_ref(source), &[element]).unwrap();
                let expected = matmul(isa, &pool, &alone, &input);
                for (ours, expected) in out.chunks_exact(80).zip(expected.chunks_exact(source.rows)) {
                    assert_eq!(&ours[first..first + source.rows], expected, "{isa} {element} {tokens}");
                }
                first += source.rows;
            }
        }
    }
}

#[test]
fn a_gate_and_up_that_meet_in_the_cache_give_what_they_give_apart() {
    let pool = Pool::new(2);
    // Of a whole number of panels, and not; of one type, and of two.
    for (width, activation) in [(64, Activation::Silu), (40, Activation::GeluTanh), (96, Activation::Relu)] {
        for element in ELEMENTS {
            let columns = 32.max(element.block_values());
            let raw = [11, 12].map(|seed| matrix(width, columns, element, seed));
            for held in [[element; 2], [element, ElementType::F32]] {
                let weights = PackedMatrix::pack(&pool, &raw, &held).unwrap();
                for isa in Isa::available() {
                    for tokens in [1, 12, 13, 50] {
                        let input = spiky(tokens * columns, 13);
                        let apart = matmul(isa, &pool, &weights, &input);
                        let expected = gated(isa, &pool, activation, &apart, width);
                        let together = gated_matmul(isa, &pool, &weights, activation, &input);
                        assert_eq!(together, expected, "{isa} {element} {width} {tokens}");
                        let alone = gated_matmul(isa, &Pool::new(1), &weights, activation, &input);
                        assert_eq!(alone, expected, "{isa} {element} {width} {tokens}, one thread");
                    }
                }
            }
        }
    }
}
