//! The hot kernels alone, at the sizes of SmolLM2-135M: `cargo bench --bench kernels`.

use std::hint::black_box;

use attend::kernels::attention::{Queries, attend};
use attend::kernels::cache::{Cache, CacheShape, CacheType};
use attend::kernels::elementwise::{Activation, NormArgs, NormKind};
use attend::kernels::matmul::{ElementType, PackedMatrix, RawMatrix, matmul};
use attend::kernels::threads::available_threads;
use attend::kernels::{Isa, Pool, elementwise};
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

/// The projection down from the MLP: its rows divide into blocks of every type.
fn products(criterion: &mut Criterion) {
    let (isa, pool) = best();
    let bytes: Vec<u8> = values(HIDDEN * INTERMEDIATE).iter().flat_map(|v| v.to_le_bytes()).collect();
    let raw =
        RawMatrix { rows: HIDDEN, columns: INTERMEDIATE, element: ElementType::F32, bytes: bytes.into() };
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

fn attention(criterion: &mut Criterion) {
    let (isa, pool) = best();
    let (heads, kv_heads, head_dim) = (9, 3, 64);
    let row_len = (heads + 2 * kv_heads) * head_dim;
    for (tokens, depth) in [(1, 100), (1, 2000), (512, 0)] {
        let keys = tokens + depth;
        let rows = values(keys * row_len);
        let queries = Queries {
            rows: &rows[depth * row_len..],
            row_len,
            heads,
            first: depth,
            keys,
            causal: true,
            window: None,
            scale: 1.0 / (head_dim as f32).sqrt(),
            cap: None,
            bias: None,
        };
        let mut out = vec![0f32; tokens * heads * head_dim];
        let mut map = vec![0f32; heads * tokens * keys];
        let mut group = criterion.benchmark_group(format!("attention/{tokens} at {depth}"));
        for held in [CacheType::F32, CacheType::F16, CacheType::Q8_0] {
            let shape = CacheShape { layers: 1, kv_heads, head_dim, capacity: keys, held };
            let mut cache = Cache::new(shape).unwrap();
            cache.write(0, 0, &rows, row_len, heads * head_dim, (heads + kv_heads) * head_dim);
            group.bench_function(format!("without maps, {}", held.name()), |b| {
                b.iter(|| attend(isa, &pool, &cache, 0, black_box(queries), &mut out, None));
            });
            group.bench_function(format!("with maps, {}", held.name()), |b| {
                b.iter(|| attend(isa, &pool, &cache, 0, black_box(queries), &mut out, Some(&mut map)));
            });
        }
        group.finish();
    }
}

fn rest(criterion: &mut Criterion) {
    let (isa, pool) = best();
    for tokens in [1, 512] {
        let mut group = criterion.benchmark_group(format!("elementwise/{tokens}"));
        let (input, weight) = (values(tokens * HIDDEN), values(HIDDEN));
        let norm = NormArgs { kind: NormKind::Rms, weight: &weight, bias: None, epsilon: 1e-5 };
        group.bench_function("rms_norm", |b| {
            b.iter(|| elementwise::norm(isa, &pool, black_box(&input), norm));
        });
        let gate_up = values(tokens * 2 * INTERMEDIATE);
        group.bench_function("swiglu", |b| {
            b.iter(|| elementwise::gated(isa, &pool, Activation::Silu, black_box(&gate_up), INTERMEDIATE));
        });
        group.finish();
    }
}

criterion_group!(benches, products, attention, rest);
criterion_main!(benches);
