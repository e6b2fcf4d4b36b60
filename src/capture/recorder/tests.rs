//! A dump on a disk that fails, and one whose rows come from several threads.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::capture::storage::Stored;
use crate::capture::{Dump, ModelInfo, QuerySelection, StepMaps, TokenRole, check};

/// Lets the n-th call fail, and a write that fails first write half.
#[derive(Clone)]
struct Failing {
    calls: Arc<AtomicUsize>,
    fails_at: usize,
}

impl Failing {
    fn next(&self) -> io::Result<()> {
        match self.calls.fetch_add(1, Ordering::SeqCst) == self.fails_at {
            true => Err(io::Error::new(io::ErrorKind::StorageFull, "on purpose")),
            false => Ok(()),
        }
    }
}

impl Storage for Failing {
    fn create(&mut self, path: &Path) -> io::Result<Box<dyn Stored>> {
        self.next()?;
        Ok(Box::new(FailingFile { file: Disk.create(path)?, failing: self.clone() }))
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.next()?;
        Disk.rename(from, to)
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.next()?;
        Disk.remove(path)
    }
}

struct FailingFile {
    file: Box<dyn Stored>,
    failing: Failing,
}

impl Stored for FailingFile {
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.failing.next().inspect_err(|_| {
            let _ = self.file.write_at(at, &bytes[..bytes.len() / 2]);
        })?;
        self.file.write_at(at, bytes)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.failing.next()?;
        self.file.set_len(len)
    }
}

const HEADS: usize = 2;
/// A step of so many queries takes more than a megabyte (it is written in pieces), and has an overview.
const PROMPT: usize = 520;

fn manifest() -> Manifest {
    Manifest {
        format: FORMAT.into(),
        version: VERSION,
        generator: "a test".into(),
        model: ModelInfo {
            name: "none".into(),
            family: "none".into(),
            config_sha256: "0".repeat(64),
            layers: 1,
            heads: HEADS,
            kv_heads: HEADS,
        },
        weights_dtype: "f32".into(),
        attention_dtype: AttentionDtype::F32,
        kind: AttentionKind::Full,
        queries: QuerySelection::All,
        mask: Mask::Causal,
        layers: vec![LayerHeads { layer: 0, heads: vec![0, 1], window: None }],
        prompt_tokens: PROMPT,
        sampling: None,
        ablated: Default::default(),
    }
}

/// One step whose queries look at themselves; in blocks, as the model gives them.
fn step(recorder: &mut Recorder, first_query: usize, queries: usize) -> Result<()> {
    let keys = first_query + queries;
    for index in first_query..keys {
        let role = if index < PROMPT { TokenRole::Prompt } else { TokenRole::Generated };
        let (text, bytes) = (String::new(), vec![]);
        recorder.token(&TokenRecord { index, id: 7, text, bytes, role, logprob: None })?;
    }
    recorder.begin_step(StepShape { first_query, queries, keys })?;
    for start in (0..queries).step_by(100) {
        let block = 100.min(queries - start);
        let mut weights = vec![0f32; HEADS * block * keys];
        for (row, weights) in weights.chunks_exact_mut(keys).enumerate() {
            weights[first_query + start + row % block] = 1.0;
        }
        let first_query = first_query + start;
        let rows =
            AttentionRows { layer: 0, first_query, heads: HEADS, queries: block, keys, weights: &weights };
        recorder.observe(rows)?;
    }
    recorder.end_step()
}

fn record(folder: &Path, storage: Failing) -> Result<()> {
    let mut recorder = Recorder::create_in(storage, folder, &manifest(), false)?;
    step(&mut recorder, 0, PROMPT)?;
    for position in PROMPT..PROMPT + 4 {
        step(&mut recorder, position, 1)?;
    }
    recorder.flush()
}

#[test]
fn whatever_call_fails_whole_steps_stay_and_the_error_comes() {
    let mut steps_kept = vec![];
    for fails_at in 0.. {
        let folder = tempfile::tempdir().unwrap();
        let storage = Failing { calls: Arc::default(), fails_at };
        let done = record(folder.path(), storage.clone());
        if storage.calls.load(Ordering::SeqCst) <= fails_at {
            done.unwrap();
            assert_eq!(check(folder.path()).unwrap().steps, 5);
            break;
        }
        let message = done.expect_err("the error was lost").to_string();
        assert!(message.contains("on purpose") && message.contains("make room"), "{message}");
        if !Dump::is_at(folder.path()) {
            continue;
        }
        let checked = check(folder.path()).unwrap_or_else(|error| panic!("call {fails_at}: {error}"));
        steps_kept.push(checked.steps);
        assert_eq!(checked.ignored, [""; 0], "call {fails_at}: something is left over");
    }
    assert!(steps_kept.is_sorted());
    // The overview is written last.
    assert_eq!((steps_kept[0], *steps_kept.last().unwrap()), (0, 5));
    assert!(steps_kept.iter().filter(|steps| **steps == 0).count() > PROMPT, "not every write has failed");
}

#[test]
fn nothing_is_written_behind_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Failing { calls: Arc::default(), fails_at: 600 };
    let mut recorder = Recorder::create_in(storage, folder.path(), &manifest(), false).unwrap();
    step(&mut recorder, 0, PROMPT).unwrap();
    let mut errors = vec![];
    for position in PROMPT..PROMPT + 200 {
        errors.extend(step(&mut recorder, position, 1).err());
    }
    errors.extend(recorder.flush().err());
    let messages: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert!(messages[0].contains("on purpose"), "{}", messages[0]);
    assert!(messages[1..].iter().all(|message| message.contains("has failed before")), "{messages:?}");
    let steps = recorder.steps();
    drop(recorder);
    assert_eq!(check(folder.path()).unwrap().steps, steps);
}

#[test]
fn what_waits_makes_room_for_what_is_larger_than_all_that_may_wait() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join(STEPS_FOLDER)).unwrap();
    let writer = Writer::start(folder.path(), Disk).unwrap();
    for line in ["1\n", "2\n"] {
        // The first is written at once; the second gathers with what comes.
        writer.token(line.into()).unwrap();
    }
    let file = format!("{STEPS_FOLDER}/00000.safetensors");
    let record = StepRecord { step: 0, file, first_query: 0, queries: 1, stride: 1, keys: 1 };
    writer.step(record, writer.buffer(40 << 20).unwrap()).unwrap();
    writer.flush().unwrap();
    assert_eq!(writer.committed(), 1);
    assert_eq!(fs::read_to_string(folder.path().join(TOKENS)).unwrap(), "1\n2\n");
}

/// Both heads take more than a megabyte, one does not.
const KEYS: usize = 520;

fn weight(head: usize, query: usize, key: usize) -> f32 {
    if key > query { 0.0 } else { ((key * 7919 + query * 31 + head * 7) % 1013) as f32 / 1e5 }
}

/// One step in blocks of 100 queries, as whole maps or row by row, the last row first.
fn record_maps(folder: &Path, manifest: &Manifest, one_by_one: bool) {
    let pool = Arc::new(Pool::new(3));
    let mut recorder = Recorder::create(folder, manifest, false).unwrap().with_pool(pool.clone());
    for index in 0..KEYS {
        let (text, bytes, role) = (String::new(), vec![], TokenRole::Prompt);
        recorder.token(&TokenRecord { index, id: 7, text, bytes, role, logprob: None }).unwrap();
    }
    recorder.begin_step(StepShape { first_query: 0, queries: KEYS, keys: KEYS }).unwrap();
    for first_query in (0..KEYS).step_by(100) {
        let queries = 100.min(KEYS - first_query);
        let keys = first_query + queries;
        let row = |head: usize, query: usize| (0..keys).map(move |key| weight(head, query, key));
        let places = (0..HEADS).flat_map(|head| (first_query..keys).map(move |query| (head, query)));
        let weights: Vec<f32> = places.clone().flat_map(|(head, query)| row(head, query)).collect();
        let rows = AttentionRows { layer: 0, first_query, heads: HEADS, queries, keys, weights: &weights };
        if one_by_one {
            let places: Vec<_> = places.rev().collect();
            let taker = recorder.taker(rows.shape()).unwrap().expect("a recorder takes rows");
            pool.for_each(places.len(), 1, |index| {
                let (head, query) = places[index];
                taker.take(head, query, &row(head, query).collect::<Vec<_>>()[..=query]);
            });
            drop(taker);
            recorder.taken(rows.shape()).unwrap();
        } else {
            recorder.observe(rows).unwrap();
        }
    }
    recorder.end_step().unwrap();
    recorder.flush().unwrap();
}

/// Steps that fit one write, and larger ones in pieces that do not end where blocks end.
#[test]
fn rows_taken_where_they_are_made_stand_where_those_of_maps_do() {
    let kinds = [AttentionKind::Full, AttentionKind::Top(3), AttentionKind::Stats];
    let selections = [QuerySelection::All, QuerySelection::Every(7), QuerySelection::Last(150)];
    for (kind, dtype, heads) in [
        (kinds[0], AttentionDtype::F32, vec![0, 1]),
        (kinds[0], AttentionDtype::F32, vec![1]),
        (kinds[0], AttentionDtype::F16, vec![0, 1]),
        (kinds[1], AttentionDtype::F16, vec![0, 1]),
        (kinds[2], AttentionDtype::F32, vec![1]),
    ] {
        for queries in selections {
            let layers = vec![LayerHeads { layer: 0, heads: heads.clone(), window: None }];
            let prompt_tokens = KEYS;
            let manifest =
                Manifest { kind, attention_dtype: dtype, queries, layers, prompt_tokens, ..manifest() };
            let folders = [false, true].map(|one_by_one| {
                let folder = tempfile::tempdir().unwrap();
                record_maps(folder.path(), &manifest, one_by_one);
                folder
            });
            let dump = Dump::open(folders[1].path()).unwrap();
            if kind == AttentionKind::Full {
                let step = StepMaps::open(&dump, 0).unwrap();
                let record = step.record();
                for (place, head) in heads.iter().enumerate() {
                    for row in 0..record.queries {
                        let query = record.rows().position(row);
                        let mut weights = vec![0f32; KEYS];
                        step.row(0, place, row, 0, &mut weights);
                        for (key, ours) in weights.iter().enumerate() {
                            let expected = weight(*head, query, key);
                            assert!((ours - expected).abs() <= expected / 2048.0 + 3e-8, "{kind} {queries}");
                        }
                    }
                }
            }
            let bytes = |folder: &tempfile::TempDir| fs::read(folder.path().join(&dump.steps()[0].file));
            assert_eq!(
                bytes(&folders[0]).unwrap(),
                bytes(&folders[1]).unwrap(),
                "{kind} {dtype:?} {queries}"
            );
        }
    }
}
