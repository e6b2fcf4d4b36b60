//! Where a dump may be written: a new or empty folder, or with `--overwrite` one that holds a dump
//! and nothing else. Whatever is no part of a dump is never touched.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::format::{FORMAT, MANIFEST, STEPS, STEPS_FOLDER, TOKENS};
use super::overview::{OVERVIEW, OVERVIEW_PART};
use crate::error::{Error, Result};

const MANIFEST_PART: &str = "manifest.part";

/// Checks a folder; answers the files of an old dump in it, in the order in which they go.
pub(super) fn check(folder: &Path, overwrite: bool) -> Result<Vec<PathBuf>> {
    let refuse = |problem: String| Err(Error::Dump { path: folder.to_path_buf(), problem });
    if folder.as_os_str().is_empty() {
        return Err(Error::Usage("the folder of the dump has an empty name".into()));
    }
    let (names, steps) = (names(folder)?, names(&folder.join(STEPS_FOLDER)));
    if names.is_empty() {
        return Ok(vec![]);
    }
    let known = [MANIFEST, MANIFEST_PART, TOKENS, STEPS, STEPS_FOLDER, OVERVIEW, OVERVIEW_PART];
    let foreign = names.iter().find(|name| !known.contains(&name.as_str()));
    // Short-circuits: `steps` may be a file of somebody's.
    let steps = if names.iter().any(|name| name == STEPS_FOLDER) { steps? } else { vec![] };
    let foreign = foreign.or_else(|| steps.iter().find(|name| !is_step_file(name)));
    if let Some(foreign) = foreign {
        return refuse(format!("holds {foreign}, which is no part of a dump; give a new or empty folder"));
    }
    if names.iter().any(|name| name == MANIFEST) && !is_manifest(&folder.join(MANIFEST)) {
        return refuse(format!("holds a {MANIFEST} that is no dump's; give a new or empty folder"));
    }
    // Without these a start was cut off before anything was recorded: nothing is lost with it.
    let recorded = names.iter().any(|name| [MANIFEST, TOKENS, STEPS].contains(&name.as_str()));
    if recorded && !overwrite {
        return refuse("already holds a dump; give another folder, or --overwrite".into());
    }
    // The manifest goes first: whatever happens next, the rest does not look like a dump.
    let files = [MANIFEST, MANIFEST_PART, STEPS, TOKENS, OVERVIEW, OVERVIEW_PART]
        .iter()
        .filter(|file| names.iter().any(|n| n == *file));
    let steps = steps.iter().map(|step| folder.join(STEPS_FOLDER).join(step));
    Ok(files.map(|file| folder.join(file)).chain(steps).collect())
}

/// Makes the folder ready: an old dump is taken out of it, if `overwrite`.
pub(super) fn clear(folder: &Path, overwrite: bool) -> Result<()> {
    for file in check(folder, overwrite)? {
        fs::remove_file(&file).map_err(Error::io(&file, "remove"))?;
    }
    Ok(())
}

/// Names in a folder; none where there is no folder.
fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        entries => entries.map_err(Error::io(folder, "read the folder"))?,
    };
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<_>>()
        .map_err(Error::io(folder, "read the folder"))
}

fn is_step_file(name: &str) -> bool {
    let number = name.strip_suffix(".safetensors").or_else(|| name.strip_suffix(".part"));
    number.is_some_and(|number| number.len() >= 5 && number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_manifest(path: &Path) -> bool {
    let json = fs::read(path).ok().and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
    json.is_some_and(|json| json["format"] == FORMAT)
}
