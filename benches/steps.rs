//! Loading the embedded model, and whole steps of it, without and with every map written to disk:
//! `cargo bench --bench steps`.

use std::time::Duration;

use attend::capture::{AttentionDtype, Recorder, Selection};
use attend::model::{AttentionObserver, Decoder, Forward, KvCache, Mask};
use attend::{Checkpoint, LoadOptions};
use criterion::{Criterion, criterion_group, criterion_main};

const PROMPT: usize = 256;

fn forward(
    decoder: &Decoder,
    ids: &[u32],
    cache: &mut KvCache,
    observer: Option<&mut dyn AttentionObserver>,
) {
    decoder.forward(ids, cache, Forward { observer, ..Forward::default() }).unwrap();
}

fn steps(criterion: &mut Criterion) {
    let checkpoint = Checkpoint::embedded().unwrap();
    criterion.bench_function("open", |b| b.iter(|| Checkpoint::embedded().unwrap()));
    criterion.bench_function("load", |b| b.iter(|| checkpoint.load(&LoadOptions::default()).unwrap()));
    let decoder = checkpoint.load(&LoadOptions::default()).unwrap();
    let config = decoder.config();
    let ids: Vec<u32> = (0..PROMPT as u32).map(|i| i * 37 % 4096).collect();
    let folder = tempfile::tempdir().unwrap();
    let selection = Selection::all(config.layers, config.heads);
    let manifest =
        Recorder::manifest(&checkpoint, "f16", &selection, AttentionDtype::F32, Mask::Causal, PROMPT, None);
    let recorder = || Recorder::create(folder.path(), &manifest, true).unwrap();
    let mut cache = decoder.new_cache(PROMPT + 1).unwrap();

    let mut group = criterion.benchmark_group(format!("prompt pass of {PROMPT}"));
    group.bench_function("plain", |b| {
        b.iter(|| {
            cache.truncate(0);
            forward(&decoder, &ids, &mut cache, None);
        });
    });
    group.bench_function("captured", |b| {
        b.iter(|| {
            cache.truncate(0);
            forward(&decoder, &ids, &mut cache, Some(&mut recorder()));
        });
    });
    group.finish();

    let mut group = criterion.benchmark_group(format!("decode step at {PROMPT}"));
    group.bench_function("plain", |b| {
        b.iter(|| {
            cache.truncate(PROMPT);
            forward(&decoder, &ids[..1], &mut cache, None);
        });
    });
    let mut recorder = recorder();
    group.bench_function("captured", |b| {
        b.iter(|| {
            cache.truncate(PROMPT);
            forward(&decoder, &ids[..1], &mut cache, Some(&mut recorder));
        });
    });
    group.finish();
}

/// Short, as those of the kernels.
fn short() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .without_plots()
}

criterion_group!(
    name = benches;
    config = short();
    targets = steps
);
criterion_main!(benches);
