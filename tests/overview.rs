//! What is written of every head while a dump is recorded, against its definition, and as the page and
//! `attend dump check` take it.

mod common;
#[path = "common/program.rs"]
mod program;

use std::fs;
use std::path::Path;

use attend::Checkpoint;
use attend::capture::overview::{OVERVIEW, Overview};
use attend::capture::{
    AttentionDtype, Dump, QuerySelection, Recorder, Selection, StepMaps, TokenRecord, TokenRole, check,
};
use attend::kernels::Isa;
use attend::model::{AttentionObserver, AttentionRows, Mask, StepShape};
use attend::report::HeadScorer;
use attend::report::heads::repeated;
use attend::report::html::{Maps, Page};
use program::{arg, failure, join, run, stdout};

const HEADS: usize = 2;

/// What is recorded.
struct Run<'a> {
    /// Where each step ends.
    ends: &'a [usize],
    queries: &'a str,
    dtype: AttentionDtype,
    mask: Mask,
    window: Option<usize>,
    /// Token numbers repeat with this period.
    period: usize,
}

impl Default for Run<'_> {
    fn default() -> Self {
        let (ends, queries) = (&[][..], "all");
        Run { ends, queries, dtype: AttentionDtype::F32, mask: Mask::Causal, window: None, period: 7 }
    }
}

/// A row of uneven weights that sums to 1, on the keys that the query sees.
fn row(run: &Run, head: usize, query: usize, keys: usize) -> Vec<f32> {
    let seen = match run.mask {
        Mask::None => 0..keys,
        Mask::Causal => (query + 1).saturating_sub(run.window.unwrap_or(keys))..query + 1,
    };
    let raw = |key: usize| (((query * 31 + key * 17 + head * 53) % 97) as f32 / 20.0).exp();
    let total: f32 = seen.clone().map(raw).sum();
    (0..keys).map(|key| if seen.contains(&key) { raw(key) / total } else { 0.0 }).collect()
}

/// Two layers; the second has the window. After each step its number is told.
fn record(folder: &Path, run: &Run, mut told: impl FnMut(usize, &mut Recorder)) {
    let checkpoint = Checkpoint::embedded().unwrap();
    let selection = Selection::parse(Some("0-1"), Some("0-1"), 5, 8).unwrap();
    let mut manifest =
        Recorder::manifest(&checkpoint, "f32", &selection, run.dtype, run.mask, run.ends[0], None);
    manifest.queries = run.queries.parse::<QuerySelection>().unwrap();
    manifest.layers[1].window = run.window;
    let mut recorder = Recorder::create(folder, &manifest, false).unwrap();
    let mut first_query = 0;
    for (number, keys) in run.ends.iter().copied().enumerate() {
        for index in first_query..keys {
            let role = if index < run.ends[0] { TokenRole::Prompt } else { TokenRole::Generated };
            let (text, bytes) = ("x".to_owned(), vec![b'x']);
            let id = (index % run.period) as u32;
            recorder.token(&TokenRecord { index, id, text, bytes, role, logprob: None }).unwrap();
        }
        let queries = keys - first_query;
        recorder.begin_step(StepShape { first_query, queries, keys }).unwrap();
        for layer in 0..2 {
            let layer_run = Run { window: run.window.filter(|_| layer == 1), ..*run };
            for start in (first_query..keys).step_by(50) {
                let block = start..keys.min(start + 50);
                if !recorder.wants_queries(layer, block.clone()) {
                    continue;
                }
                let weights: Vec<f32> = (0..8)
                    .flat_map(|head| block.clone().map(move |query| (head, query)))
                    .flat_map(|(head, query)| row(&layer_run, head + 10 * layer, query, keys))
                    .collect();
                let (first_query, queries) = (start, block.len());
                let rows = AttentionRows { layer, first_query, heads: 8, queries, keys, weights: &weights };
                recorder.observe(rows).unwrap();
            }
        }
        recorder.end_step().unwrap();
        first_query = keys;
        told(number, &mut recorder);
    }
    recorder.flush().unwrap();
}

fn overview(folder: &Path) -> Overview {
    let dump = Dump::open(folder).unwrap();
    let steps: Vec<_> = (0..dump.steps().len()).map(|step| StepMaps::open(&dump, step).unwrap()).collect();
    let (overview, fault) = Overview::of(&dump, &steps, Isa::detect().unwrap());
    assert!(fault.is_none(), "{fault:?}");
    overview
}

/// The overview of a dump, against what its stored maps come to in f64.
fn compare(folder: &Path, run: &Run, what: &str) {
    let dump = Dump::open(folder).unwrap();
    let size = *run.ends.last().unwrap();
    let ids: Vec<u32> = dump.tokens().iter().map(|token| token.id).collect();
    let mut scorer = HeadScorer::new(run.mask, vec![None, run.window], repeated(&ids));
    let overview = overview(folder);
    let grid = overview.grid();
    assert!(grid.side <= 64 && grid.cell.is_power_of_two(), "{what}");
    assert!(grid.cell * grid.side >= size && (grid.cell == 1 || grid.cell * 32 < size), "{what}");
    let found: Vec<_> = overview.heads().collect();
    assert_eq!(found.len(), 2 * HEADS);
    for (place, layer) in [(0, 0), (1, 1)] {
        let window = run.window.filter(|_| layer == 1).unwrap_or(size);
        let mut cells = vec![vec![vec![]; grid.side * grid.side]; HEADS];
        for step in 0..dump.steps().len() {
            let map = dump.layer_map(step, layer).unwrap();
            for (head, cells) in cells.iter_mut().enumerate() {
                for (row, weights) in map.head(head).chunks_exact(map.keys).enumerate() {
                    let query = map.query(row);
                    scorer.add(layer, head, query, weights);
                    for (key, weight) in weights.iter().enumerate() {
                        if run.mask == Mask::None || key <= query && query - key < window {
                            cells[query / grid.cell * grid.side + key / grid.cell].push(*weight);
                        }
                    }
                }
            }
        }
        for (head, cells) in cells.iter().enumerate() {
            let (pictured, _) = &found[place * HEADS + head];
            for (at, (cell, (maximum, mean))) in cells.iter().zip(pictured).enumerate() {
                assert_eq!(*maximum, cell.iter().copied().fold(0.0, f32::max), "{what}: cell {at}");
                let sum: f64 = cell.iter().map(|weight| f64::from(*weight)).sum();
                let expected = sum / cell.len().max(1) as f64;
                assert!((f64::from(*mean) - expected).abs() <= 1e-6 * (1e-3 + expected), "{what}: cell {at}");
            }
        }
    }
    for (scores, (_, found)) in scorer.scores().iter().zip(&found) {
        let pairs = [
            (scores.previous_token, found.previous_token),
            (scores.duplicate_token, found.duplicate_token),
            (scores.induction, found.induction),
            (scores.sink, found.sink),
            (scores.own, found.own),
            (scores.local, found.local),
            (scores.entropy, found.entropy),
            (scores.distance, found.distance),
        ];
        for (number, (expected, found)) in pairs.into_iter().enumerate() {
            assert_eq!(expected.is_some(), found.is_some(), "{what}: score {number}");
            let (expected, found) = (expected.unwrap_or(0.0), found.unwrap_or(0.0));
            assert!(
                (expected - found).abs() <= 2e-6 * (1.0 + expected),
                "{what}: {number}: {expected} {found}"
            );
        }
    }
}

#[test]
fn pictures_and_scores_are_those_of_the_definition() {
    let place = tempfile::tempdir().unwrap();
    let runs = [
        Run { ends: &[1], ..Run::default() },
        Run { ends: &[6], period: 3, ..Run::default() },
        Run { ends: &[1, 2, 3, 6], ..Run::default() },
        Run { ends: &[64], ..Run::default() },
        Run { ends: &[65], ..Run::default() },
        Run { ends: &[60, 64, 65, 66, 130], ..Run::default() },
        Run { ends: &[200], dtype: AttentionDtype::F16, period: 100, ..Run::default() },
        Run { ends: &[3, 70, 71, 200], dtype: AttentionDtype::F16, window: Some(9), ..Run::default() },
        Run { ends: &[90, 91, 200], queries: "every:16", ..Run::default() },
        Run { ends: &[150, 200], queries: "last:30", window: Some(50), ..Run::default() },
        Run { ends: &[150, 200], queries: "100-160", ..Run::default() },
        Run { ends: &[20, 200], mask: Mask::None, ..Run::default() },
        Run { ends: &[600, 601], window: Some(100), ..Run::default() },
    ];
    for (number, run) in runs.iter().enumerate() {
        let folder = join(&place, &number.to_string());
        record(&folder, run, |_, _| ());
        let what = format!("steps that end at {:?}, queries {}", run.ends, run.queries);
        compare(&folder, run, &what);
        check(&folder).unwrap_or_else(|error| panic!("{what}: {error}"));
        let is_there = folder.join(OVERVIEW).exists();
        assert_eq!(is_there, number == runs.len() - 1, "{what}: only a large dump has the file");
    }
}

fn page(folder: &Path) -> (String, Option<String>) {
    let page = Page::new(Maps::new(Dump::open(folder).unwrap()).unwrap());
    (page.served(), page.note().map(str::to_owned))
}

#[test]
fn the_page_is_the_same_with_the_file_without_it_and_with_one_that_is_behind() {
    for dtype in [AttentionDtype::F32, AttentionDtype::F16] {
        let place = tempfile::tempdir().unwrap();
        let folder = join(&place, "dump");
        let file = folder.join(OVERVIEW);
        // From 1024 to 1025 keys the cells double.
        let run = Run { ends: &[700, 701, 1024, 1025, 1027], dtype, window: Some(300), ..Run::default() };
        let mut behind = vec![];
        record(&folder, &run, |_, recorder| {
            recorder.flush().unwrap();
            behind.push(fs::read(&file).unwrap());
        });
        let (whole, note) = page(&folder);
        assert_eq!(note, None);
        assert_eq!(overview(&folder).steps(), 5);
        fs::remove_file(&file).unwrap();
        assert_eq!(page(&folder), (whole.clone(), None), "without the file");
        assert_eq!(behind.len(), 5);
        for (step, bytes) in behind.iter().enumerate() {
            fs::write(&file, bytes).unwrap();
            assert_eq!(page(&folder), (whole.clone(), None), "with that of step {step}");
            assert!(stdout(&["dump", "check", arg(&folder)]).contains("whole: 5 steps"));
        }
    }
}

#[test]
fn a_damaged_file_is_named_and_the_page_goes_without() {
    let place = tempfile::tempdir().unwrap();
    let folder = join(&place, "dump");
    let file = folder.join(OVERVIEW);
    record(&folder, &Run { ends: &[600, 601], ..Run::default() }, |_, _| ());
    let (whole, _) = page(&folder);
    let good = fs::read(&file).unwrap();
    let text = |from: &str, to: &str| {
        let at = good.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        let mut bytes = good.clone();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        bytes
    };
    let last = |value: f32| {
        let mut bytes = good.clone();
        let at = bytes.len() - 4;
        bytes[at..].copy_from_slice(&value.to_le_bytes());
        bytes
    };
    for (bytes, word) in [
        (good[..good.len() / 2].to_vec(), "no whole safetensors"),
        (vec![], "no whole safetensors"),
        (text("\"steps\":\"2\"", "\"steps\":\"3\""), "the dump has 2"),
        (text("\"cell\":\"16\"", "\"cell\":\"32\""), "in cells of 16"),
        (text("attend-overview", "another-overvie"), "no overview"),
        (text("\"maximum\"", "\"minimum\""), "no tensor maximum"),
        (last(f32::NAN), "no finite weights"),
    ] {
        fs::write(&file, bytes).unwrap();
        let (shown, note) = page(&folder);
        assert_eq!(shown, whole, "{word}");
        let note = note.unwrap();
        assert!(note.contains(OVERVIEW) && note.contains(word), "{note}");
        let message = failure(&run(&["dump", "check", arg(&folder)]), 1);
        assert!(message.contains(OVERVIEW) && message.contains(word), "{message}");
    }
    // What only a comparison with the maps can tell.
    fs::write(&file, last(3.5)).unwrap();
    let message = failure(&run(&["dump", "check", arg(&folder)]), 1);
    assert!(message.contains(OVERVIEW) && message.contains("not what its maps come to"), "{message}");
}

#[test]
fn an_old_overview_goes_with_its_dump() {
    let place = tempfile::tempdir().unwrap();
    let folder = join(&place, "dump");
    record(&folder, &Run { ends: &[600], ..Run::default() }, |_, _| ());
    fs::write(folder.join("overview.part"), "cut off").unwrap();
    assert_eq!(check(&folder).unwrap().ignored, ["overview.part: is not whole"]);
    assert!(folder.join(OVERVIEW).exists());
    stdout(&["generate", "Once", "-n", "2", "--attention", arg(&folder), "--overwrite"]);
    assert!(!folder.join(OVERVIEW).exists() && !folder.join("overview.part").exists());
}
