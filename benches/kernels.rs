//! The hot kernels alone, at the sizes of SmolLM2-135M: `cargo bench --bench kernels`. Softmax is inside
//! attention, and the quantising of activations inside the products with quantised weights: of the two
//! smallest, with one panel of weights, it is most.

use std::hint::black_box;
use std::time::Duration;

use attend::kernels::activation::{self, Activation};
use attend::kernels::attention::{Queries, attend};
use attend::kernels::cache::{Cache, CacheShape, CacheType};
use attend::kernels::elementwise::RotaryLayout;
use attend::kernels::matmul::{ElementType, PackedMatrix, RawMatrix, gated_matmul, matmul};
use attend::kernels::norm::{self, NormArgs, NormKind};
use attend::kernels::stream::{Block, Way, read_all};
use attend::kernels::threads::available_threads;
use attend::kernels::{Isa, PANEL, Pool, elementwise};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const HIDDEN: usize = 576;
const INTERMEDIATE: usize = 1536;

fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919 % 1013) as f32 - 506.0) / 506.0).collect()
}

fn best() -> (Isa, Pool) {
    (Isa::detect().unwrap(), Pool::new(available_threads()))
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

/// Starting and ending a region in which there is nothing to do, again and again.
fn regions(criterion: &mut Criterion) {
    let (_, pool) = best();
    let threads = pool.threads();
    criterion.bench_function(&format!("region/{threads} threads"), |b| {
        b.iter(|| pool.for_each(threads, 1, |_| ()));
    });
}

/// Reading from memory, in all ways.
fn reading(criterion: &mut Criterion) {
    const SIZE: usize = 256 << 20;
    let (isa, pool) = best();
    let block = Block::new(SIZE).unwrap();
    let mut group = criterion.benchmark_group("reading 256 MiB");
    group.throughput(Throughput::Bytes(SIZE as u64));
    for way in Way::ALL {
        group.bench_function(format!("{way:?}"), |b| b.iter(|| read_all(isa, &pool, way, block.values())));
    }
    group.finish();
}

fn matrix(rows: usize, columns: usize) -> RawMatrix<'static> {
    let bytes: Vec<u8> = values(rows * columns).iter().flat_map(|v| v.to_le_bytes()).collect();
    RawMatrix { rows, columns, element: ElementType::F32, bytes: bytes.into() }
}

/// From f32 into each type's panels.
fn packing(criterion: &mut Criterion) {
    let (_, pool) = best();
    let raw = matrix(HIDDEN, INTERMEDIATE);
    let mut group = criterion.benchmark_group(format!("pack/{HIDDEN}x{INTERMEDIATE}"));
    group.throughput(Throughput::Bytes(raw.bytes.len() as u64));
    for element in ELEMENTS {
        group.bench_function(BenchmarkId::from_parameter(element), |b| {
            b.iter(|| PackedMatrix::pack(&pool, std::slice::from_ref(&raw), &[element]).unwrap());
        });
    }
    group.finish();
}

/// Products with one panel: mostly the preparing of the activations.
fn preparing(criterion: &mut Criterion) {
    let (isa, pool) = best();
    let raw = matrix(PANEL, INTERMEDIATE);
    for tokens in [1, 512] {
        let mut group = criterion.benchmark_group(format!("matmul/{tokens}x{INTERMEDIATE}x{PANEL}"));
        let input = values(tokens * INTERMEDIATE);
        for element in [ElementType::F32, ElementType::Q8_0] {
            let weights = PackedMatrix::pack(&pool, std::slice::from_ref(&raw), &[element]).unwrap();
            group.bench_function(BenchmarkId::from_parameter(element), |b| {
                b.iter(|| matmul(isa, &pool, &weights, black_box(&input)));
            });
        }
        group.finish();
    }
}

/// The projection down from the MLP: its rows divide into blocks of every type.
fn products(criterion: &mut Criterion) {
    let (isa, pool) = best();
    let raw = matrix(HIDDEN, INTERMEDIATE);
    for tokens in [1, 512] {
        let mut group = criterion.benchmark_group(format!("matmul/{tokens}x{INTERMEDIATE}x{HIDDEN}"));
        // A product and a sum each.
        group.throughput(Throughput::Elements((2 * tokens * HIDDEN * INTERMEDIATE) as u64));
        let input = values(tokens * INTERMEDIATE);
        for element in ELEMENTS {
            let weights = PackedMatrix::pack(&pool, std::slice::from_ref(&raw), &[element]).unwrap();
            group.bench_function(BenchmarkId::from_parameter(element), |b| {
                b.iter(|| matmul(isa, &pool, &weights, black_box(&input)));
            });
        }
        group.finish();
    }
}

/// A gate and up of a prompt, whose products meet in the cache, and as a product and an activation behind it.
fn gated_products(criterion: &mut Criterion) {
    const TOKENS: usize = 512;
    let (isa, pool) = best();
    let raw = matrix(2 * INTERMEDIATE, HIDDEN);
    let mut group = criterion.benchmark_group(format!("gated/{TOKENS}x{HIDDEN}x{INTERMEDIATE}"));
    group.throughput(Throughput::Elements((2 * TOKENS * HIDDEN * 2 * INTERMEDIATE) as u64));
    let input = values(TOKENS * HIDDEN);
    for element in [ElementType::F32, ElementType::F16, ElementType::Q8_0] {
        let weights = PackedMatrix::pack(&pool, std::slice::from_ref(&raw), &[element]).unwrap();
        group.bench_function(format!("{element}, together"), |b| {
            b.iter(|| gated_matmul(isa, &pool, &weights, Activation::Silu, black_box(&input)));
        });
        group.bench_function(format!("{element}, apart"), |b| {
            b.iter(|| {
                let products = matmul(isa, &pool, &weights, black_box(&input));
                activation::gated(isa, &pool, Activation::Silu, &products, INTERMEDIATE)
            });
        });
    }
    group.finish();
}

fn attention(criterion: &mut Criterion) {
    let (isa, pool) = best();
    let (heads, head_dim) = (9, 64);
    let caches = [CacheType::F32, CacheType::F16, CacheType::Q8_0];
    // Key/value heads, causal, window.
    let kinds = [
        ("grouped", 3, true, None),
        ("each head its own keys", 9, true, None),
        ("window of 128", 3, true, Some(128)),
        ("unmasked", 3, false, None),
    ];
    for (tokens, depth) in [(1, 100), (1, 2000), (512, 0)] {
        let keys = tokens + depth;
        let mut out = vec![0f32; tokens * heads * head_dim];
        let mut map = vec![0f32; heads * tokens * keys];
        let mut group = criterion.benchmark_group(format!("attention/{tokens} at {depth}"));
        for (kind, kv_heads, causal, window) in kinds {
            let row_len = (heads + 2 * kv_heads) * head_dim;
            let rows = values(keys * row_len);
            let queries = Queries {
                rows: &rows[depth * row_len..],
                row_len,
                heads,
                first: depth,
                keys,
                causal,
                window,
                scale: 1.0 / (head_dim as f32).sqrt(),
                cap: None,
                bias: None,
            };
            for held in if kind == "grouped" { &caches[..] } else { &caches[..1] } {
                let shape = CacheShape { layers: 1, kv_heads, head_dim, capacity: keys, held: *held };
                let mut cache = Cache::new(shape).unwrap();
                cache.write(&pool, 0, 0, &rows, row_len, heads * head_dim, (heads + kv_heads) * head_dim);
                group.bench_function(format!("{kind}, {}", held.name()), |b| {
                    b.iter(|| attend(isa, &pool, &cache, 0, black_box(queries), &mut out, None));
                });
                group.bench_function(format!("{kind}, {}, with maps", held.name()), |b| {
                    b.iter(|| attend(isa, &pool, &cache, 0, black_box(queries), &mut out, Some(&mut map)));
                });
            }
        }
        group.finish();
    }
}

fn rest(criterion: &mut Criterion) {
    let (isa, pool) = best();
    for tokens in [1, 512] {
        let mut group = criterion.benchmark_group(format!("elementwise/{tokens}"));
        let (input, weight) = (values(tokens * HIDDEN), values(HIDDEN));
        for (name, kind) in [("rms_norm", NormKind::Rms), ("layer_norm", NormKind::Layer)] {
            let norm = NormArgs { kind, weight: &weight, bias: None, epsilon: 1e-5 };
            group.bench_function(name, |b| {
                b.iter(|| norm::norm(isa, &pool, black_box(&input), norm));
            });
        }
        let (mut sum, other) = (values(tokens * HIDDEN), values(tokens * HIDDEN));
        group.bench_function("add", |b| {
            b.iter(|| elementwise::add(&pool, &mut sum, black_box(&other), HIDDEN));
        });
        let gate_up = values(tokens * 2 * INTERMEDIATE);
        for (name, activation) in [
            ("swiglu", Activation::Silu),
            ("geglu", Activation::Gelu),
            ("geglu_tanh", Activation::GeluTanh),
            ("reglu", Activation::Relu),
        ] {
            group.bench_function(name, |b| {
                b.iter(|| activation::gated(isa, &pool, activation, black_box(&gate_up), INTERMEDIATE));
            });
        }
        let mut inner = values(tokens * INTERMEDIATE);
        group.bench_function("gelu", |b| {
            b.iter(|| activation::activate(isa, &pool, Activation::Gelu, &mut inner, INTERMEDIATE));
        });
        let (heads, head_dim) = (12, 64);
        let mut rows = values(tokens * heads * head_dim);
        let angles: Vec<f32> = (0..tokens * head_dim / 2).map(|i| i as f32).collect();
        let (cosines, sines): (Vec<f32>, Vec<f32>) = angles.iter().map(|a| (a.cos(), a.sin())).unzip();
        for (name, interleaved) in [("rotary", false), ("rotary, interleaved", true)] {
            let layout = RotaryLayout { head_dim, dims: head_dim, interleaved };
            group.bench_function(name, |b| {
                b.iter(|| {
                    elementwise::rotary(&pool, &mut rows, heads * head_dim, heads, layout, &cosines, &sines)
                });
            });
        }
        group.finish();
    }
}

/// Short: all of these benches together take some minutes.
fn short() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .without_plots()
}

criterion_group!(
    name = benches;
    config = short();
    targets = regions, reading, packing, preparing, products, gated_products, attention, rest
);
criterion_main!(benches);
