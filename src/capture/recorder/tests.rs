//! A dump on a disk that fails.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::capture::storage::Stored;
use crate::capture::{Dump, ModelInfo, QuerySelection, TokenRole, check};

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
