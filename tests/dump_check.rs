//! `attend dump check` and `attend dump convert`.

mod common;
#[path = "common/program.rs"]
mod program;

use std::fs;
use std::path::{Path, PathBuf};

use attend::capture::Dump;
use common::fixture;
use program::*;

fn record(path: &Path, more: &[&str]) {
    let _ = fs::remove_dir_all(path);
    let model = fixture("mistral");
    let ids = (0..20).map(|id| id.to_string()).collect::<Vec<_>>().join(",");
    let args = ["generate", "-m", arg(&model), "--prompt-ids", &ids, "-n", "3", "--temp", "0"];
    stdout(&[&args[..], &["--attention", arg(path)], more].concat());
}

/// Where a tensor's values stand in a step's file.
fn place(bytes: &[u8], name: &str) -> std::ops::Range<usize> {
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let json: serde_json::Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    let offset = |at: usize| header + json[name]["data_offsets"][at].as_u64().unwrap() as usize;
    offset(0)..offset(1)
}

fn replace(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn whole_dumps_of_every_kind_pass() {
    let folder = tempfile::tempdir().unwrap();
    let path = join(&folder, "dump");
    for more in [
        &[][..],
        &["--attention-dtype", "f16"],
        &["--attention-kind", "stats"],
        &["--attention-kind", "top:5"],
        &["--attention-kind", "top:5", "--attention-dtype", "f16", "--queries", "every:3"],
        &["--queries", "last:2", "--heads", "1.1"],
        &["--queries", "21-21"],
    ] {
        record(&path, more);
        let said = stdout(&["dump", "check", arg(&path)]);
        assert!(said.contains("whole: 3 steps, 23 tokens"), "{more:?}: {said}");
    }
}

#[test]
fn the_first_fault_is_named_with_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = join(&folder, "dump");
    let (manifest, steps, tokens) =
        (path.join("manifest.json"), path.join("steps.jsonl"), path.join("tokens.jsonl"));
    let (first, second) = (path.join("steps/00000.safetensors"), path.join("steps/00001.safetensors"));
    let value = |name: &str, index: usize, value: f32| {
        let name = name.to_owned();
        move |bytes: &mut Vec<u8>| {
            let at = place(bytes, &name).start + 4 * index;
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
    };
    type Change<'a> = Box<dyn Fn() + 'a>;
    let cases: Vec<(&[&str], Change, &[&str])> = vec![
        (&[], Box::new(|| fs::remove_file(&manifest).unwrap()), &["manifest.json"]),
        (&[], Box::new(|| replace(&manifest, "attend-attention", "other")), &["manifest.json", "\"other\""]),
        (
            &[],
            Box::new(|| replace(&manifest, "\"version\": 2", "\"version\": 3")),
            &["manifest.json", "version is 3", "newer"],
        ),
        (
            &[],
            Box::new(|| replace(&manifest, "\"version\": 2", "\"version\": 0")),
            &["manifest.json", "version is 0", "reads 1 to 2"],
        ),
        (&[], Box::new(|| replace(&manifest, "\"kind\": \"full\"", "\"kind\": \"half\"")), &["\"half\""]),
        (&[], Box::new(|| replace(&manifest, "\"layer\": 1", "\"layer\": 0")), &["do not ascend"]),
        (&[], Box::new(|| edit(&manifest, |bytes| bytes.truncate(40))), &["manifest.json"]),
        (&[], Box::new(|| replace(&tokens, "\"index\":1,", "\"index\":2,")), &["tokens.jsonl", "line 2"]),
        (&[], Box::new(|| edit(&tokens, |bytes| bytes.truncate(600))), &["tokens.jsonl", "22 positions"]),
        (
            &[],
            Box::new(|| {
                let text = fs::read_to_string(&steps).unwrap();
                let lines: Vec<&str> = text.lines().collect();
                let third = lines[2].replace("\"step\":2", "\"step\":1");
                fs::write(&steps, format!("{}\n{third}\n", lines[0])).unwrap();
            }),
            &["steps.jsonl", "line 2", "missing"],
        ),
        (&[], Box::new(|| replace(&steps, "\"step\":1", "\"step\":2")), &["steps.jsonl", "line 2"]),
        (&[], Box::new(|| replace(&steps, "}\n{", "\n{")), &["steps.jsonl", "line 1 is damaged"]),
        (&[], Box::new(|| fs::remove_file(&second).unwrap()), &["00001.safetensors"]),
        (
            &[],
            Box::new(|| edit(&second, |bytes| bytes.truncate(bytes.len() - 4))),
            &["00001.safetensors", "whole"],
        ),
        (&[], Box::new(|| edit(&second, |bytes| bytes.push(0))), &["00001.safetensors", "whole"]),
        (&[], Box::new(|| fs::write(&second, fs::read(&first).unwrap()).unwrap()), &["00001", "shape"]),
        (
            &[],
            Box::new(|| edit(&first, value("layer.001", 20 * 19 + 19, 0.5))),
            &["00000.safetensors", "layer 1, head 0, query 19", "sum to"],
        ),
        (&[], Box::new(|| edit(&first, value("layer.001", 0, f32::NAN))), &["key 0 is NaN"]),
        (&[], Box::new(|| edit(&first, value("layer.001", 0, -1.0))), &["key 0 is -1"]),
        (&[], Box::new(|| edit(&first, value("layer.002", 3, 0.1))), &["query 0", "key 3", "does not see"]),
        // Behind the window.
        (&[], Box::new(|| edit(&first, value("layer.002", 20 * 19, 0.1))), &["query 19", "does not see"]),
        (
            &["--attention-dtype", "f16"],
            Box::new(|| replace(&manifest, "\"attention_dtype\": \"f16\"", "\"attention_dtype\": \"f32\"")),
            &["holds F16", "F32"],
        ),
        (
            &["--attention-kind", "stats"],
            Box::new(|| edit(&first, value("layer.000.entropy", 0, 2.0))),
            &["layer 0, head 0, query 0", "entropy is 2"],
        ),
        (
            &["--attention-kind", "stats"],
            Box::new(|| edit(&first, value("layer.000.self", 5, f32::NAN))),
            &["self is NaN"],
        ),
        (
            &["--attention-kind", "top:4"],
            Box::new(|| edit(&first, value("layer.000.rest", 7, 0.9))),
            &["query 7", "sum to"],
        ),
        (
            &["--attention-kind", "top:4"],
            Box::new(|| edit(&first, value("layer.000.top_keys", 4 * 7, f32::from_bits(15)))),
            &["query 7", "not its largest"],
        ),
        (
            &["--attention-kind", "top:4"],
            Box::new(|| edit(&first, value("layer.000.top_weights", 4 * 7, 0.0))),
            &["query 7", "not its largest"],
        ),
    ];
    for (number, (more, change, words)) in cases.into_iter().enumerate() {
        record(&path, more);
        stdout(&["dump", "check", arg(&path)]);
        change();
        let message = failure(&run(&["dump", "check", arg(&path)]), 1);
        assert!(words.iter().all(|word| message.contains(word)), "case {number} {words:?}: {message}");
    }
}

#[test]
fn what_a_kill_leaves_is_ignored_and_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = join(&folder, "dump");
    record(&path, &[]);
    edit(&path.join("steps.jsonl"), |bytes| bytes.truncate(bytes.len() - 9));
    edit(&path.join("tokens.jsonl"), |bytes| bytes.truncate(bytes.len() - 1));
    fs::write(path.join("steps/00003.part"), "x").unwrap();
    let output = run(&["dump", "check", arg(&path)]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("2 steps, 22 tokens"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    for word in ["steps.jsonl", "tokens.jsonl", "00003.part", "00002.safetensors"] {
        assert!(stderr.contains(word), "{word}: {stderr}");
    }
}

#[test]
fn a_dump_of_version_1_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = join(&folder, "dump");
    record(&path, &[]);
    let manifest = path.join("manifest.json");
    replace(&manifest, "\"version\": 2", "\"version\": 1");
    replace(&manifest, "\n  \"queries\": \"all\",", "");
    stdout(&["dump", "check", arg(&path)]);
    stdout(&["map", arg(&path), "--step", "2"]);
}

fn array(path: PathBuf) -> (String, Vec<u8>) {
    let bytes = fs::read(path).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let end = 10 + u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
    assert_eq!(end % 64, 0);
    (String::from_utf8(bytes[10..end].to_vec()).unwrap(), bytes[end..].to_vec())
}

/// scripts/check-python reads the same arrays with NumPy.
#[test]
fn arrays_hold_all_steps_rows() {
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (join(&folder, "dump"), join(&folder, "arrays"));
    record(&path, &["--layers", "1"]);
    assert!(run(&["dump", "convert", arg(&path), "--to", "npy", "-o", arg(&out)]).status.success());
    let (head, data) = array(out.join("layer.001.npy"));
    assert!(head.contains("'<f4'") && head.contains("(4, 22, 22,)"), "{head}");
    let dump = Dump::open(&path).unwrap();
    let last = dump.layer_map(2, 1).unwrap();
    let row: Vec<u8> = last.head(3).iter().flat_map(|weight| weight.to_le_bytes()).collect();
    assert_eq!(data[data.len() - row.len()..], row);
    let first = dump.layer_map(0, 1).unwrap();
    let row: Vec<u8> = first.head(0)[..20].iter().flat_map(|weight| weight.to_le_bytes()).collect();
    assert_eq!(data[..80], row);
    assert_eq!(data[80..88], [0; 8], "filled up with zeros");
    let (head, data) = array(out.join("queries.npy"));
    assert!(head.contains("'<i8'") && head.contains("(22,)"), "{head}");
    let positions: Vec<u8> = (0..22i64).flat_map(i64::to_le_bytes).collect();
    assert_eq!(data, positions);
    assert_eq!(fs::read_dir(&out).unwrap().count(), 2);
    let message = failure(&run(&["dump", "convert", arg(&path), "--to", "npy", "-o", arg(&out)]), 1);
    assert!(message.contains("is there already"), "{message}");
}

#[test]
fn csv_has_a_line_a_weight() {
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (join(&folder, "dump"), join(&folder, "out.csv"));
    let convert = |more: &[&str]| {
        record(&path, more);
        let _ = fs::remove_file(&out);
        assert!(run(&["dump", "convert", arg(&path), "--to", "csv", "-o", arg(&out)]).status.success());
        fs::read_to_string(&out).unwrap()
    };
    let text = convert(&["--heads", "1.2", "--queries", "3-4"]);
    let dump = Dump::open(&path).unwrap();
    let map = dump.layer_map(0, 1).unwrap();
    let mut expected = String::from("step,layer,head,query,key,weight\n");
    for query in 3..5 {
        for key in 0..=query {
            expected.push_str(&format!("0,1,2,{query},{key},{}\n", map.weights[(query - 3) * 20 + key]));
        }
    }
    assert_eq!(text, expected);
    let text = convert(&["--attention-kind", "top:2", "--heads", "1.2", "--queries", "5"]);
    let top = Dump::open(&path).unwrap().top_rows(0, 1).unwrap();
    let line = |at: usize| format!("0,1,2,5,{},{}", top.keys[at], top.weights[at]);
    let rest = format!("0,1,2,5,,{}", top.rest[0]);
    assert_eq!(text.lines().skip(1).collect::<Vec<_>>(), [line(0), line(1), rest]);
    let text = convert(&["--attention-kind", "stats", "--heads", "1.2", "--queries", "5"]);
    let stats = Dump::open(&path).unwrap().statistics(0, 1).unwrap();
    assert!(
        text.starts_with("step,layer,head,query,entropy,first_token,self,previous_token,mean_distance\n")
    );
    assert!(text.contains(&format!("\n0,1,2,5,{},{},", stats.entropy[0], stats.first_token[0])), "{text}");
    let message = failure(&run(&["dump", "convert", arg(&path), "--to", "csv", "-o", arg(&out)]), 1);
    assert!(message.contains("is there already"), "{message}");
    assert!(failure(&run(&["dump", "check", "nothing-here"]), 1).contains("manifest.json"));
}
