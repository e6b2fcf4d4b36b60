//! Every family, and every option of its config, against Transformers (eager attention, f32).
//! `scripts/check-families` makes the checkpoints and names their folder in `ATTEND_FAMILIES`: in
//! it a folder a case, with one or more `answers*.safetensors` of `scripts/hf_reference.py`.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use attend::Checkpoint;
use attend::model::KernelChoice;
use common::*;

/// What a folder holds, in the order of names.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut entries: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

/// Panics where anything differs.
fn check(folder: &Path) {
    let is_answers = |path: &PathBuf| name(path).starts_with("answers");
    let references: Vec<Reference> =
        entries(folder).iter().filter(|path| is_answers(path)).map(|path| Reference::open(path)).collect();
    assert!(!references.is_empty(), "{} has no answers", folder.display());
    for kernels in [KernelChoice::Native, KernelChoice::Reference] {
        let decoder = load(folder, kernels, None);
        for reference in &references {
            let what = format!("{} {kernels:?}", name(folder));
            assert_prompt_agrees(&decoder, reference, &what);
            if reference.holds("greedy_ids") {
                assert_steps_agree(&decoder, reference, &what);
            } else {
                assert!(reference.holds("hidden"), "{what}: neither a decoder's answers nor an encoder's");
            }
        }
    }
    let checkpoint = Checkpoint::open(folder).unwrap();
    for reference in references.iter().filter(|reference| reference.holds("text")) {
        let tokenizer = checkpoint.tokenizer().unwrap();
        let ids = tokenizer.encode(&reference.text("text")).unwrap().ids;
        assert_eq!(ids, reference.ids("input_ids"), "{}", reference.text("text"));
    }
}

#[test]
fn every_family_and_option_agrees_with_transformers() {
    let folder = std::env::var_os("ATTEND_FAMILIES")
        .expect("ATTEND_FAMILIES must name the folder of checkpoints; run scripts/check-families");
    let cases: Vec<PathBuf> = entries(Path::new(&folder)).into_iter().filter(|path| path.is_dir()).collect();
    assert!(!cases.is_empty(), "{} has no checkpoints", folder.display());
    // All of them, however many differ: one mistake often shows in several.
    let different: Vec<&str> = cases
        .iter()
        .filter(|case| {
            let agrees = catch_unwind(AssertUnwindSafe(|| check(case))).is_ok();
            println!("{} {}", name(case), if agrees { "agrees" } else { "DIFFERS" });
            !agrees
        })
        .map(|case| name(case))
        .collect();
    assert!(different.is_empty(), "{} of {} differ: {}", different.len(), cases.len(), different.join(", "));
}
