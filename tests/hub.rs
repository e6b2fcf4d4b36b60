//! Models of the hub, fetched by the real binary from a server on loopback.

mod common;
#[path = "common/hub.rs"]
mod hub;
#[path = "common/program.rs"]
mod program;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use common::fixture;
use hub::{Asked, COMMIT, Hub, Repository, etag, is_large};
use program::*;

const ID: &str = "owner/tiny-llama";
const WEIGHTS: &str = "model.safetensors";

fn bytes_of(file: &str) -> Vec<u8> {
    fs::read(fixture("llama").join(file)).unwrap()
}

/// The tiny model, with files around it that nobody needs.
fn repository() -> Repository {
    let mut files: Vec<(&'static str, Vec<u8>)> = vec![
        ("README.md", b"# A model".to_vec()),
        ("pytorch_model.bin", b"a pickle".to_vec()),
        ("onnx/model.onnx", b"another form".to_vec()),
    ];
    files.extend(FILES.map(|file| (file, bytes_of(file))));
    Repository::new(ID, &files)
}

/// Those that are needed.
const FILES: [&str; 4] = ["config.json", "generation_config.json", WEIGHTS, "tokenizer.json"];

fn home() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

const GENERATE: [&str; 6] = ["generate", "Hello", "-n", "8", "--json", "-m"];

fn generate(hub: &Hub, home: &tempfile::TempDir, model: &str) -> Output {
    hub.attend(home).args(GENERATE).arg(model).output().unwrap()
}

fn text(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What the model generates from its folder.
fn expected() -> String {
    let folder = fixture("llama");
    stdout(&[&GENERATE[..], &[arg(&folder)]].concat())
}

fn model_folder(home: &tempfile::TempDir) -> PathBuf {
    home.path().join("hub/models--owner--tiny-llama")
}

fn blob(home: &tempfile::TempDir, file: &str) -> PathBuf {
    model_folder(home).join("blobs").join(etag(file, &bytes_of(file)))
}

fn incomplete(home: &tempfile::TempDir) -> PathBuf {
    let mut path = blob(home, WEIGHTS).into_os_string();
    path.push(".incomplete");
    path.into()
}

/// Every file below a folder, sorted.
fn below(folder: &Path) -> Vec<String> {
    let mut found = vec![];
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// The bodies that were asked for: name, and the range.
fn fetched(asked: &[Asked]) -> Vec<(String, Option<String>)> {
    let name = |asked: &Asked| asked.path.rsplit('/').next().unwrap().to_owned();
    let bodies = asked.iter().filter(|asked| asked.method == "GET" && !asked.path.starts_with("/api/"));
    bodies.map(|asked| (name(asked), asked.range.clone())).collect()
}

fn says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is missing in: {message}");
    }
}

#[test]
fn a_model_is_fetched_once_into_the_python_clients_cache() {
    let (hub, home) = (Hub::start(repository()), home());
    assert_eq!(text(generate(&hub, &home, ID)), expected());
    let names: Vec<String> = fetched(&hub.asked()).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["config.json", "generation_config.json", "tokenizer.json", WEIGHTS]);

    // The cache, file by file.
    let mut expected_files = vec!["refs/main".to_owned()];
    for file in FILES {
        let etag = etag(file, &bytes_of(file));
        expected_files.extend([format!("blobs/{etag}"), format!("snapshots/{COMMIT}/{file}")]);
        assert_eq!(fs::read(blob(&home, file)).unwrap(), bytes_of(file));
        #[cfg(unix)]
        assert_eq!(
            fs::read_link(model_folder(&home).join("snapshots").join(COMMIT).join(file)).unwrap(),
            Path::new("../../blobs").join(etag)
        );
    }
    expected_files.sort();
    assert_eq!(below(&model_folder(&home)), expected_files);
    assert_eq!(fs::read_to_string(model_folder(&home).join("refs/main")).unwrap(), COMMIT);

    // Again: the hub is asked for the commit, and for no file.
    assert_eq!(text(generate(&hub, &home, ID)), expected());
    let asked = hub.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0].path, format!("/api/models/{ID}/revision/main"));

    // Offline: nothing is asked, by the name, the branch, or the commit.
    for model in [ID.to_owned(), format!("{ID}@main"), format!("{ID}@{COMMIT}")] {
        let output = hub.attend(&home).env("HF_HUB_OFFLINE", "1").args(GENERATE).arg(model).output().unwrap();
        assert_eq!(text(output), expected());
    }
    assert_eq!(hub.asked(), []);

    // The hub is out of reach, or does not want to: the cache, and a warning.
    let output =
        hub.attend(&home).env("HF_ENDPOINT", "http://127.0.0.1:1").args(GENERATE).arg(ID).output().unwrap();
    says(&String::from_utf8_lossy(&output.stderr), &["warning: ", "cannot be reached", "copy in the cache"]);
    assert_eq!(text(output), expected());
    hub.change(|repository| repository.refuses = Some((503, "")));
    let output = generate(&hub, &home, ID);
    says(&String::from_utf8_lossy(&output.stderr), &["warning: ", "503", "copy in the cache"]);
    assert_eq!(text(output), expected());
}

#[test]
fn info_and_the_other_commands_take_an_id_too() {
    let (hub, home) = (Hub::start(repository()), home());
    let described = |args: &[&str]| text(hub.attend(&home).args(args).output().unwrap());
    let by_argument = described(&["info", ID]);
    says(&by_argument, &["model           owner/tiny-llama\n", "family          llama\n", WEIGHTS]);
    assert_eq!(described(&["info", "-m", ID]), by_argument);
    says(&described(&["map", "-m", ID, "Hello"]), &["owner/tiny-llama, "]);
}

#[test]
fn a_folder_of_that_name_comes_first() {
    let (hub, home) = (Hub::start(repository()), home());
    let here = tempfile::tempdir().unwrap();
    fs::create_dir_all(here.path().join("owner")).unwrap();
    fs::rename(copy_of(&fixture("llama")).keep(), here.path().join(ID)).unwrap();
    let output = hub.attend(&home).current_dir(&here).args(["info", ID]).output().unwrap();
    says(&text(output), &["model           tiny-llama\n"]);
    assert_eq!(hub.asked(), []);
}

#[test]
fn a_revision_has_a_name_of_its_own() {
    let (hub, home) = (Hub::start(repository()), home());
    hub.change(|repository| repository.revision = "refs/pr/7");
    assert_eq!(text(generate(&hub, &home, &format!("{ID}@refs/pr/7"))), expected());
    assert_eq!(hub.asked()[0].path, format!("/api/models/{ID}/revision/refs%2Fpr%2F7"));
    assert_eq!(fs::read_to_string(model_folder(&home).join("refs/refs/pr/7")).unwrap(), COMMIT);
    // Another revision is another matter.
    let message = failure(&generate(&hub, &home, ID), 1);
    says(&message, &["owner/tiny-llama", "no revision main", "404"]);
}

#[test]
fn a_blob_that_is_there_is_linked_and_not_fetched() {
    let (hub, home) = (Hub::start(repository()), home());
    fs::create_dir_all(model_folder(&home).join("blobs")).unwrap();
    fs::write(blob(&home, WEIGHTS), bytes_of(WEIGHTS)).unwrap();
    assert_eq!(text(generate(&hub, &home, ID)), expected());
    assert!(fetched(&hub.asked()).iter().all(|(name, _)| name != WEIGHTS));
}

#[test]
fn shards_are_those_that_the_index_names() {
    // Every tensor is in the first shard but one, which is in the second.
    let whole = bytes_of(WEIGHTS);
    let tensors = safetensors::SafeTensors::deserialize(&whole).unwrap();
    let shard = |second: bool| {
        let of_shard =
            tensors.tensors().into_iter().filter(|(name, _)| (name == "model.norm.weight") == second);
        safetensors::serialize(of_shard, None).unwrap()
    };
    let map: serde_json::Map<String, serde_json::Value> = tensors
        .names()
        .into_iter()
        .map(|name| {
            let number = if name == "model.norm.weight" { 2 } else { 1 };
            (name.to_owned(), format!("model-0000{number}-of-00002.safetensors").into())
        })
        .collect();
    let mut repository = repository();
    repository.files.remove(WEIGHTS);
    repository.files.insert("model-00001-of-00002.safetensors", shard(false));
    repository.files.insert("model-00002-of-00002.safetensors", shard(true));
    repository.files.insert("other.safetensors", b"not asked for".to_vec());
    let index = serde_json::json!({ "weight_map": map }).to_string().into_bytes();
    repository.files.insert("model.safetensors.index.json", index);
    let (hub, home) = (Hub::start(repository), home());
    assert_eq!(text(generate(&hub, &home, ID)), expected());
    let names: Vec<String> = fetched(&hub.asked()).into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names[3..],
        [
            "model.safetensors.index.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors"
        ]
    );
    // Without its second shard the model is not whole, and offline that cannot be mended.
    fs::remove_file(
        model_folder(&home).join("snapshots").join(COMMIT).join("model-00002-of-00002.safetensors"),
    )
    .unwrap();
    let output = hub.attend(&home).env("HF_HUB_OFFLINE", "yes").args(GENERATE).arg(ID).output().unwrap();
    says(&failure(&output, 1), &["not whole in the cache", "00002-of-00002", "unset HF_HUB_OFFLINE"]);
    assert_eq!(text(generate(&hub, &home, ID)), expected());
}

#[test]
fn vocabulary_files_stand_in_for_a_missing_tokenizer_json() {
    let mut repository = repository();
    let tokenizer: serde_json::Value = serde_json::from_slice(&bytes_of("tokenizer.json")).unwrap();
    let vocabulary = serde_json::to_vec(&tokenizer["model"]["vocab"]).unwrap();
    repository.files.insert("vocab.json", vocabulary);
    repository.files.insert("merges.txt", b"#version: 0.2\n".to_vec());
    repository.files.insert("tokenizer_config.json", br#"{"tokenizer_class":"GPT2Tokenizer"}"#.to_vec());
    let (hub, home) = (Hub::start(repository), home());
    let names = |asked: &[Asked]| fetched(asked).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(text(generate(&hub, &home, ID)), expected());
    assert!(!names(&hub.asked()).iter().any(|name| name == "vocab.json" || name == "merges.txt"));
    hub.change(|repository| drop(repository.files.remove("tokenizer.json")));
    let home = tempfile::tempdir().unwrap();
    assert_eq!(text(generate(&hub, &home, ID)), expected());
    let asked = names(&hub.asked());
    assert!(asked.iter().any(|name| name == "vocab.json") && asked.iter().any(|name| name == "merges.txt"));
}

#[test]
fn an_incomplete_blob_is_continued() {
    let (hub, home) = (Hub::start(repository()), home());
    let whole = bytes_of(WEIGHTS);
    let there = 200_000;
    fs::create_dir_all(model_folder(&home).join("blobs")).unwrap();
    fs::write(incomplete(&home), &whole[..there]).unwrap();
    let output = generate(&hub, &home, ID);
    says(
        &String::from_utf8_lossy(&output.stderr),
        &["model.safetensors: continuing after 200.0 kB of 504.6 kB"],
    );
    assert_eq!(text(output), expected());
    let range = Some(format!("bytes={there}-"));
    assert_eq!(fetched(&hub.asked()).last(), Some(&(WEIGHTS.to_owned(), range)));
    assert_eq!(fs::read(blob(&home, WEIGHTS)).unwrap(), whole);
    assert!(!incomplete(&home).exists());
}

#[test]
fn a_server_without_ranges_begins_anew() {
    let (hub, home) = (Hub::start(repository()), home());
    hub.change(|repository| repository.no_ranges = true);
    fs::create_dir_all(model_folder(&home).join("blobs")).unwrap();
    fs::write(incomplete(&home), b"what an earlier try left").unwrap();
    assert_eq!(text(generate(&hub, &home, ID)), expected());
    assert_eq!(fetched(&hub.asked()).last(), Some(&(WEIGHTS.to_owned(), Some("bytes=24-".into()))));
    assert_eq!(fs::read(blob(&home, WEIGHTS)).unwrap(), bytes_of(WEIGHTS));
}

#[test]
fn a_blob_that_only_lacks_its_name_is_not_asked_for() {
    let (hub, home) = (Hub::start(repository()), home());
    fs::create_dir_all(model_folder(&home).join("blobs")).unwrap();
    fs::write(incomplete(&home), bytes_of(WEIGHTS)).unwrap();
    assert_eq!(text(generate(&hub, &home, ID)), expected());
    assert!(fetched(&hub.asked()).iter().all(|(name, _)| name != WEIGHTS));
}

#[test]
fn a_cut_connection_is_taken_up_again() {
    let (hub, home) = (Hub::start(repository()), home());
    hub.change(|repository| repository.cuts = vec![100_000, 150_000]);
    let output = generate(&hub, &home, ID);
    says(&String::from_utf8_lossy(&output.stderr), &["the connection was cut", "trying again"]);
    assert_eq!(text(output), expected());
    let ranges: Vec<_> = fetched(&hub.asked()).into_iter().filter(|(name, _)| name == WEIGHTS).collect();
    let range = |start: usize| (WEIGHTS.to_owned(), Some(format!("bytes={start}-")));
    assert_eq!(ranges, [(WEIGHTS.to_owned(), None), range(100_000), range(250_000)]);
    assert_eq!(fs::read(blob(&home, WEIGHTS)).unwrap(), bytes_of(WEIGHTS));
}

#[test]
fn a_connection_that_stays_cut_leaves_what_came() {
    let (hub, home) = (Hub::start(repository()), home());
    hub.change(|repository| repository.cuts = [vec![100_000], vec![0; 4]].concat());
    let message = failure(&generate(&hub, &home, ID), 1);
    says(&message, &["model.safetensors broke off", "100000 of 504568 bytes", "run it again to continue"]);
    assert_eq!(fs::read(incomplete(&home)).unwrap(), bytes_of(WEIGHTS)[..100_000]);
    assert!(!blob(&home, WEIGHTS).exists());
    // The ref is for whole models.
    assert!(!model_folder(&home).join("refs").exists());
    hub.asked();
    assert_eq!(text(generate(&hub, &home, ID)), expected());
    assert_eq!(fetched(&hub.asked()), [(WEIGHTS.to_owned(), Some("bytes=100000-".into()))]);
}

#[test]
fn other_bytes_than_promised_are_removed() {
    let (hub, home) = (Hub::start(repository()), home());
    let mut forged = bytes_of(WEIGHTS);
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let (promised, found) = (etag(WEIGHTS, &bytes_of(WEIGHTS)), etag(WEIGHTS, &forged));
    hub.change(|repository| repository.forged = Some(forged));
    let message = failure(&generate(&hub, &home, ID), 1);
    says(&message, &[WEIGHTS, "SHA-256", &promised, &found, "removed"]);
    assert!(!incomplete(&home).exists() && !blob(&home, WEIGHTS).exists());
    // A damaged start, left from an earlier try, is found too.
    hub.change(|repository| repository.forged = None);
    fs::write(incomplete(&home), vec![7; 1000]).unwrap();
    says(&failure(&generate(&hub, &home, ID), 1), &["SHA-256", &promised]);
    assert_eq!(text(generate(&hub, &home, ID)), expected());
}

#[test]
fn more_bytes_than_promised_are_removed() {
    let (hub, home) = (Hub::start(repository()), home());
    let longer = [bytes_of(WEIGHTS), vec![0; 10]].concat();
    hub.change(|repository| repository.forged = Some(longer));
    says(&failure(&generate(&hub, &home, ID), 1), &["came with 504578 bytes, expected 504568"]);
    assert!(!incomplete(&home).exists() && !blob(&home, WEIGHTS).exists());
}

#[test]
fn the_token_is_for_the_hub_alone() {
    let cdn = Hub::start(repository());
    let (hub, home) = (Hub::start(repository()), home());
    hub.change(|repository| repository.elsewhere = Some(cdn.address.clone()));
    let output = hub.attend(&home).env("HF_TOKEN", "hf_secret").args(GENERATE).arg(ID).output().unwrap();
    assert_eq!(text(output), expected());
    let asked = hub.asked();
    assert!(asked.len() > 4 && asked.iter().all(|a| a.authorization.as_deref() == Some("Bearer hf_secret")));
    let asked = cdn.asked();
    assert_eq!(fetched(&asked), [(WEIGHTS.to_owned(), None)]);
    assert_eq!(asked.iter().find_map(|asked| asked.authorization.clone()), None);
    // The blob's name is the one that the hub gives, not the other server's.
    assert!(blob(&home, WEIGHTS).exists());

    // A token in the file that `hf auth login` writes; none at all.
    fs::write(home.path().join("token"), "hf_from_file\n").unwrap();
    text(generate(&hub, &home, ID));
    assert_eq!(hub.asked()[0].authorization.as_deref(), Some("Bearer hf_from_file"));
    fs::remove_file(home.path().join("token")).unwrap();
    text(generate(&hub, &home, ID));
    assert_eq!(hub.asked()[0].authorization, None);
}

#[test]
fn refusals_say_what_to_do() {
    let (hub, home) = (Hub::start(repository()), home());
    let message = failure(&generate(&hub, &home, "owner/nothing"), 1);
    says(&message, &["owner/nothing is no folder here", &hub.address, "404", "private model", "HF_TOKEN"]);
    let message = failure(&generate(&hub, &home, "nothing"), 1);
    says(&message, &["nothing is no folder here", "no such model"]);
    for (status, word, parts) in [
        (401, "", ["no such model, or it is private or gated", "HF_TOKEN"]),
        (401, "GatedRepo", ["accepted its terms", "HF_TOKEN"]),
        (403, "GatedRepo", ["accepted its terms", "HF_TOKEN"]),
        (404, "RevisionNotFound", ["no revision main", "behind the @"]),
        (429, "", ["429", "try again later"]),
        (503, "", ["503", "try again later"]),
    ] {
        hub.change(|repository| repository.refuses = Some((status, word)));
        says(&failure(&generate(&hub, &home, ID), 1), &parts);
    }
    let output = hub.attend(&home).env("HF_TOKEN", "hf_x").args(GENERATE).arg(ID).output().unwrap();
    assert!(!failure(&output, 1).contains("hf_x"));
    let output =
        hub.attend(&home).env("HF_ENDPOINT", "http://127.0.0.1:1").args(GENERATE).arg(ID).output().unwrap();
    says(&failure(&output, 1), &["cannot be reached", "HF_ENDPOINT"]);
    let output = hub.attend(&home).env("HF_HUB_OFFLINE", "1").args(GENERATE).arg(ID).output().unwrap();
    says(&failure(&output, 1), &["not in the cache", "HF_HUB_OFFLINE", "fetch it"]);
    let output = hub.attend(&home).env("HF_ENDPOINT", "hub").args(GENERATE).arg(ID).output().unwrap();
    says(&failure(&output, 2), &["HF_ENDPOINT is \"hub\""]);
    hub.change(|repository| (repository.refuses, repository.gated) = (None, true));
    says(&failure(&generate(&hub, &home, ID), 1), &["accepted its terms", "HF_TOKEN"]);
    // Nothing of all that left a trace.
    assert_eq!(below(home.path()), Vec::<String>::new());
}

#[test]
fn repositories_without_a_model_that_loads() {
    let home = home();
    let without = |files: &[&str], more: &[(&'static str, Vec<u8>)]| {
        let mut repository = repository();
        repository.files.retain(|file, _| !files.contains(file));
        repository.files.extend(more.iter().cloned());
        let hub = Hub::start(repository);
        let message = failure(&generate(&hub, &home, ID), 1);
        assert_eq!(fetched(&hub.asked()), []);
        message
    };
    says(&without(&[WEIGHTS], &[]), &["PyTorch pickle (pytorch_model.bin)", "save_pretrained"]);
    says(
        &without(&[WEIGHTS, "pytorch_model.bin"], &[]),
        &["the repository has neither model.safetensors nor"],
    );
    let gguf = [("tiny.gguf", vec![])];
    says(&without(&["config.json"], &gguf), &["no config.json", "GGUF files (tiny.gguf"]);
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let (hub, home) = (Hub::start(repository()), home());
    fs::write(home.path().join("hub"), b"no folder").unwrap();
    let message = failure(&generate(&hub, &home, ID), 1);
    says(&message, &["hub", "cannot create"]);
}

#[cfg(unix)]
#[test]
fn a_full_disk_keeps_what_fits() {
    let (hub, home) = (Hub::start(repository()), home());
    // Files may have 200 blocks: the weights have more. Without the trap the system ends the process.
    let program = hub.attend(&home);
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 200; exec \"$0\" \"$@\""]).arg(program.get_program());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let message = failure(&shell.args(GENERATE).arg(ID).output().unwrap(), 1);
    says(&message, &[".incomplete: cannot write", "make room"]);
    let there = fs::metadata(incomplete(&home)).unwrap().len();
    assert!(there > 0 && there < 504_568);
    hub.asked();
    assert_eq!(text(generate(&hub, &home, ID)), expected());
    assert_eq!(fetched(&hub.asked()), [(WEIGHTS.to_owned(), Some(format!("bytes={there}-")))]);
}

#[test]
fn two_processes_fetch_a_model_together() {
    let (hub, home) = (Hub::start(repository()), home());
    let spawn = || {
        let mut command = hub.attend(&home);
        command.args(GENERATE).arg(ID).stdout(std::process::Stdio::piped());
        command.stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    for child in [spawn(), spawn(), spawn()] {
        assert_eq!(text(child.wait_with_output().unwrap()), expected());
    }
    // Each body once, whoever fetched it.
    let mut names: Vec<String> = fetched(&hub.asked()).into_iter().map(|(name, _)| name).collect();
    names.sort();
    assert_eq!(names, FILES);
    assert!(FILES.iter().all(|file| is_large(file) == (*file == WEIGHTS)));
}

#[cfg(unix)]
#[test]
fn an_ended_process_leaves_what_came() {
    // A server that sends a part and then nothing: the process waits until it is ended.
    use std::io::{Read, Write};
    let (hub, home) = (Hub::start(repository()), home());
    let slow = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    hub.change(|repository| repository.elsewhere = Some(format!("http://{}", slow.local_addr().unwrap())));
    let mut child = hub.attend(&home).args(GENERATE).arg(ID).spawn().unwrap();
    let (mut stream, _) = slow.accept().unwrap();
    let whole = bytes_of(WEIGHTS);
    let _ = stream.read(&mut [0; 4096]).unwrap();
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", whole.len()).unwrap();
    stream.write_all(&whole[..50_000]).unwrap();
    while fs::metadata(incomplete(&home)).map_or(0, |metadata| metadata.len()) < 50_000 {
        assert_eq!(child.try_wait().unwrap(), None);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(fs::read(incomplete(&home)).unwrap(), whole[..50_000]);
    hub.change(|repository| repository.elsewhere = None);
    hub.asked();
    assert_eq!(text(generate(&hub, &home, ID)), expected());
    assert_eq!(fetched(&hub.asked()), [(WEIGHTS.to_owned(), Some("bytes=50000-".into()))]);
}
