//! Maps as files: what is in them against the dump, bit for bit; the same bytes every time; and that
//! nothing in a token does harm.

#[path = "common/planted.rs"]
mod planted;
#[path = "common/program.rs"]
mod program;

use std::fs;
use std::path::Path;

use attend::capture::{Dump, ShownMap};
use attend::model::Forward;
use attend::report::picture::Palette;
use attend::report::{Rollout, ValueWeighted};
use attend::{Checkpoint, LoadOptions};
use program::*;

const TEXT: &str = "The cat sat on the mat. 안녕 🙂\nThe cat";

/// Shape and values of an `.npy` file of f32.
fn npy(path: &Path) -> (Vec<usize>, Vec<f32>) {
    let bytes = fs::read(path).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let data = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let dict = std::str::from_utf8(&bytes[10..data]).unwrap();
    assert!(dict.starts_with("{'descr': '<f4', 'fortran_order': False, 'shape': ("), "{dict}");
    let shape = dict.split(['(', ')']).nth(1).unwrap();
    let shape: Vec<usize> = shape.split(',').filter_map(|size| size.trim().parse().ok()).collect();
    let values: Vec<f32> =
        bytes[data..].as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
    assert_eq!(values.len(), shape.iter().product::<usize>());
    (shape, values)
}

/// Lines of a CSV file behind its names, the five numbers of each.
fn csv(path: &Path) -> Vec<[String; 5]> {
    let text = fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next().unwrap(), "layer,head,query,key,weight,query_token,key_token");
    let numbers = |line: &str| {
        let mut fields = line.splitn(6, ',').map(String::from);
        std::array::from_fn(|_| fields.next().unwrap())
    };
    lines.map(numbers).collect()
}

/// Width, and a colour for each pixel.
fn pixels(path: &Path) -> (usize, Vec<[u8; 3]>) {
    let mut reader =
        png::Decoder::new(std::io::BufReader::new(fs::File::open(path).unwrap())).read_info().unwrap();
    let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut bytes).unwrap();
    (info.width as usize, bytes.as_chunks().0.to_vec())
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// A dump of the embedded model, generated.
fn recorded(folder: &tempfile::TempDir) -> String {
    let path = join(folder, "dump");
    stdout(&["generate", TEXT, "-n", "3", "--attention", arg(&path)]);
    arg(&path).to_owned()
}

#[test]
fn arrays_and_lines_hold_the_dumps_numbers_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = recorded(&folder);
    let dump = Dump::open(path.as_ref()).unwrap();
    let (array, lines) = (join(&folder, "a.npy"), join(&folder, "a.csv"));
    let steps = ["0", "2"];
    for (step, number) in steps.into_iter().zip([0, 2]) {
        let maps: Vec<_> = (0..5).map(|layer| dump.layer_map(number, layer).unwrap()).collect();
        let (queries, keys) = (maps[0].queries, maps[0].keys);
        let all: Vec<f32> = maps.iter().flat_map(|map| map.weights.clone()).collect();
        let cases: [(&[&str], Vec<usize>, Vec<f32>); 4] = [
            (&["--layer", "2", "--head", "5"], vec![queries, keys], maps[2].head(5).to_vec()),
            (&["--show", "layer", "--layer", "1"], vec![8, queries, keys], maps[1].weights.clone()),
            (&["--show", "all"], vec![5, 8, queries, keys], all),
            (&["--layer", "3"], vec![queries, keys], maps[3].shown(None).weights),
        ];
        for (options, shape, expected) in cases {
            let base = ["map", &path, "--step", step, "--npy", arg(&array), "--csv", arg(&lines)];
            assert_eq!(stdout(&[&base[..], options].concat()), "", "no table besides");
            let (found_shape, found) = npy(&array);
            assert_eq!(found_shape, shape, "{options:?}");
            assert_eq!(bits(&found), bits(&expected), "{options:?}");
            // The lines are the array's values other than 0, in its order.
            let lines = csv(&lines);
            let weights: Vec<f32> = lines.iter().map(|line| line[4].parse().unwrap()).collect();
            let present: Vec<f32> = expected.iter().copied().filter(|weight| *weight != 0.0).collect();
            assert_eq!(bits(&weights), bits(&present), "{options:?}");
            for [layer, head, query, key, weight] in lines {
                if head == "mean" {
                    continue;
                }
                let map = &maps[layer.parse::<usize>().unwrap()];
                let row = query.parse::<usize>().unwrap() - map.first_query;
                let at = map.head(head.parse().unwrap())[row * keys + key.parse::<usize>().unwrap()];
                assert_eq!(weight.parse::<f32>().unwrap().to_bits(), at.to_bits());
            }
        }
    }
}

#[test]
fn a_text_gives_what_its_dump_gives() {
    let folder = tempfile::tempdir().unwrap();
    let path = recorded(&folder);
    let (of_text, of_dump) = (join(&folder, "text.npy"), join(&folder, "dump.npy"));
    for options in [&["--show", "all"][..], &["--layer", "1", "--hide-first", "2"], &["--view", "rollout"]] {
        stdout(&[&["map", TEXT, "--npy", arg(&of_text)], options].concat());
        stdout(&[&["map", &path, "--npy", arg(&of_dump)], options].concat());
        let ((shape, a), (other, b)) = (npy(&of_text), npy(&of_dump));
        assert_eq!((shape, bits(&a)), (other, bits(&b)), "{options:?}");
    }
}

#[test]
fn the_same_command_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = recorded(&folder);
    let cases = [
        &[][..],
        &["--show", "layer"],
        &["--show", "all", "--scale", "log", "--colour-map", "grey"],
        &["--hide-first", "1", "--colour-map", "viridis"],
    ];
    for source in [TEXT, &path] {
        for options in cases {
            let names =
                |run: usize| ["png", "svg", "csv", "npy"].map(|kind| join(&folder, &format!("{run}.{kind}")));
            for run in 0..2 {
                let [png, svg, csv, npy] = names(run);
                let files = ["--png", arg(&png), "--svg", arg(&svg), "--csv", arg(&csv), "--npy", arg(&npy)];
                stdout(&[&["map", source], &files[..], options].concat());
            }
            for (a, b) in names(0).iter().zip(names(1)) {
                assert!(fs::read(a).unwrap() == fs::read(&b).unwrap(), "{}", b.display());
            }
        }
    }
    // Nothing half-written stays.
    let left = fs::read_dir(folder.path())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    assert!(left.into_iter().all(|name| !name.contains("part")));
}

#[test]
fn hidden_keys_windows_and_views_are_those_of_their_formulas() {
    let folder = tempfile::tempdir().unwrap();
    let out = join(&folder, "a.npy");
    let map = |options: &[&str]| {
        stdout(&[&["map", TEXT, "--layer", "3", "--npy", arg(&out)], options].concat());
        npy(&out)
    };
    let (shape, whole) = map(&["--head", "2"]);
    let size = shape[0];
    let (_, hidden) = map(&["--head", "2", "--hide-first", "2"]);
    for (query, (row, raw)) in hidden.chunks(size).zip(whole.chunks(size)).enumerate() {
        let sum: f64 = raw[2..].iter().map(|weight| f64::from(*weight)).sum();
        let expected = |key: usize| if key < 2 || sum == 0.0 { 0.0 } else { f64::from(raw[key]) / sum };
        for (key, weight) in row.iter().enumerate() {
            assert!((f64::from(*weight) - expected(key)).abs() <= 1e-7, "{query} {key}");
        }
    }
    assert!(hidden[..2 * size].iter().all(|weight| *weight == 0.0));
    let (shape, part) = map(&["--head", "2", "--queries", "3-6", "--keys", "1-4"]);
    assert_eq!(shape, [4, 4]);
    let expected: Vec<f32> =
        (3..7).flat_map(|query| whole[query * size + 1..query * size + 5].to_vec()).collect();
    assert_eq!(bits(&part), bits(&expected));

    let checkpoint = Checkpoint::embedded().unwrap();
    let decoder = checkpoint.load(&LoadOptions::default()).unwrap();
    let ids = checkpoint.tokenizer().unwrap().encode(TEXT).unwrap().ids;
    let mut rollout = Rollout::new(3, size).unwrap();
    let mut cache = decoder.new_cache(size).unwrap();
    decoder
        .forward(&ids, &mut cache, Forward { observer: Some(&mut rollout), ..Forward::default() })
        .unwrap();
    assert_eq!(bits(&map(&["--view", "rollout"]).1), bits(&rollout.finish().unwrap()));
    let mut weights = ShownMap::of(3, Some(2));
    let mut weighted = ValueWeighted::new(&mut weights);
    let mut cache = decoder.new_cache(size).unwrap();
    decoder
        .forward(&ids, &mut cache, Forward { observer: Some(&mut weighted), ..Forward::default() })
        .unwrap();
    assert_eq!(bits(&map(&["--view", "value-weighted", "--head", "2"]).1), bits(&weights.weights));
    let (_, of_layer) = map(&["--view", "value-weighted", "--show", "layer"]);
    assert_eq!(bits(&of_layer[2 * size * size..3 * size * size]), bits(&weights.weights));
}

#[test]
fn some_queries_are_drawn_as_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let (path, array, lines) = (join(&folder, "dump"), join(&folder, "a.npy"), join(&folder, "a.csv"));
    stdout(&["generate", TEXT, "-n", "1", "--attention", arg(&path), "--queries", "every:4"]);
    let map = Dump::open(&path).unwrap().layer_map(0, 2).unwrap();
    let png = join(&folder, "a.png");
    let files = ["--npy", arg(&array), "--csv", arg(&lines), "--png", arg(&png)];
    let base = ["map", arg(&path), "--layer", "2", "--head", "1", "--queries", "4-9"];
    stdout(&[&base[..], &files].concat());
    let (shape, values) = npy(&array);
    assert_eq!(shape, [2, map.keys]);
    assert_eq!(bits(&values), bits(&map.head(1)[map.keys..3 * map.keys]));
    assert!(csv(&lines).iter().all(|line| ["4", "8"].contains(&line[2].as_str())));
    let message = failure(&run(&["map", arg(&path), "--queries", "5-7", "--png", arg(&png)]), 2);
    assert!(message.contains("no query was recorded there"), "{message}");
}

/// Every cell of the planted map is 0 but these: the first key of each query, a lone cell, and a stripe.
fn planted(size: usize, query: usize, key: usize) -> Vec<f32> {
    let mut map = vec![0f32; size * size];
    (0..size).for_each(|row| map[row * size] = 1.0);
    for row in size / 2..size {
        map[row * size + size / 2] = 0.25;
    }
    map[query * size + key] = 0.5;
    map
}

#[test]
fn a_lone_cell_and_a_stripe_are_seen_however_large_the_map() {
    for (size, heads) in [(4096, 1), (700, 8)] {
        let folder = tempfile::tempdir().unwrap();
        let (path, png) = (join(&folder, "dump"), join(&folder, "a.png"));
        let layer = planted(size, size - 3, size / 3).repeat(heads);
        planted::dump(&path, &[layer], &vec![&b" x"[..]; size]);
        for show in ["head", "layer", "all"] {
            let drawn = if show == "head" { 1 } else { heads };
            stdout(&["map", arg(&path), "--show", show, "--png", arg(&png)]);
            let (width, colours) = pixels(&png);
            assert!(width <= 2300 && colours.len() / width <= 2300, "{show}: {width}");
            let palette = Palette::Cividis;
            let count = |share| colours.iter().filter(|colour| **colour == palette.colour(share)).count();
            // One more, or two, in the scale bar, whose rows are 16 wide.
            let bar = 48;
            assert!((drawn..=drawn + bar).contains(&count(0.5)), "{show} {size}: {}", count(0.5));
            let points = if show == "head" { 300 } else { 16 };
            assert!(count(0.25) >= drawn * points, "{show} {size}: {}", count(0.25));
            let of_bar =
                (0..240).filter(|row| palette.colour(1.0 - *row as f32 / 239.0) == palette.colour(0.5));
            assert!(count(0.5) == drawn + 16 * of_bar.count(), "{show} {size}: {}", count(0.5));
        }
    }
}

#[test]
fn nothing_in_a_token_does_harm() {
    let tokens: [&[u8]; 12] = [
        b"<script>alert(1)</script>",
        b"</text></svg>",
        b"\" onload=\"x",
        b"&amp;",
        b"\n",
        b"\x00\x1b[31m",
        "\u{202e}evil".as_bytes(),
        "한국어".as_bytes(),
        &[0xed, 0x95],
        "🙂".as_bytes(),
        "שלום".as_bytes(),
        "\u{ffff}]]>".as_bytes(),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = join(&folder, "dump");
    let mut map = planted(12, 11, 5);
    map[6] = 0.0;
    planted::dump(&path, &[map.repeat(2)], &tokens);
    let (svg, png, lines) = (join(&folder, "a.svg"), join(&folder, "a.png"), join(&folder, "a.csv"));
    for show in ["head", "layer", "all"] {
        let files = ["--svg", arg(&svg), "--png", arg(&png), "--csv", arg(&lines)];
        stdout(&[&["map", arg(&path), "--show", show], &files[..]].concat());
        let text = fs::read_to_string(&svg).unwrap();
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{show}");
        assert!(!text.contains(['\u{202e}', '\u{ffff}']), "{show}");
        // Each tag is one of ours, closed as XML wants it, and each entity one that XML knows.
        let (mut open, mut rest) = (vec![], &text[..]);
        while let Some((before, after)) = rest.split_once('<') {
            assert!(!before.contains('>'), "{before}");
            let (tag, behind) = after.split_once('>').unwrap();
            match tag.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name), "{tag}"),
                None => {
                    let name = tag.split(' ').next().unwrap();
                    assert!(["svg", "text", "rect", "image"].contains(&name), "{tag}");
                    assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
                    assert!(!tag.contains("onload"), "{tag}");
                    if !tag.ends_with('/') {
                        open.push(name);
                    }
                }
            }
            rest = behind;
        }
        assert!(open.is_empty());
        for entity in text.split('&').skip(1) {
            assert!(["lt;", "gt;", "amp;", "quot;", "apos;"].iter().any(|known| entity.starts_with(known)));
        }
        if show == "head" {
            for shown in ["&lt;script&gt;ale", "⏎", "\\xED\\x95", "한국어", "🙂", "\\u202eevil", "\\u0"]
            {
                assert!(text.contains(shown), "{shown}");
            }
        }
        assert_eq!(
            fs::read_to_string(&lines)
                .unwrap()
                .lines()
                .skip(1)
                .filter(|line| !line.starts_with("0,"))
                .count(),
            0
        );
    }
}

#[test]
fn what_cannot_be_written_or_shown_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let out = join(&folder, "a.png");
    let out = arg(&out);
    let nowhere = join(&folder, "nowhere/a.png");
    let fails = |args: &[&str], code: i32, what: &str| {
        let message = failure(&run(args), code);
        assert!(message.contains(what), "{args:?}: {message}");
        assert!(!message.contains(".part"), "{message}");
    };
    fails(&["map", "one", "--png", arg(folder.path())], 2, "--png");
    fails(&["map", "one", "--npy", arg(folder.path())], 2, "this is a folder");
    fails(&["map", "one", "--svg", arg(&nowhere)], 1, "a.png: cannot create");
    fails(&["map", "one", "--png", out, "--svg", out], 2, "twice");
    fails(&["map", "one", "--show", "layer"], 2, "--png FILE");
    fails(&["map", "one", "--show", "all", "--layer", "1", "--png", out], 2, "leave --layer and --head away");
    fails(&["map", "one", "--show", "layer", "--head", "1", "--png", out], 2, "leave --head 1 away");
    fails(&["map", "one", "--show", "all", "--view", "rollout", "--png", out], 2, "leave --show all away");
    fails(&["map", "one", "--layer", "9", "--png", out], 2, "numbered 0 to 4");
    fails(&["map", "one", "--head", "9", "--png", out], 2, "no such head");
    fails(&["map", "one", "--keys", "0-99", "--csv", out], 2, "--keys 0-99");
    fails(&["map", "one", "--html", "x.html", "--png", out], 2, "cannot be used with");

    let record = |name: &str, options: &[&str]| {
        let path = join(&folder, name);
        stdout(&[&["generate", "one two", "-n", "2", "--attention", arg(&path)], options].concat());
        arg(&path).to_owned()
    };
    let top = record("top", &["--attention-kind", "top:2"]);
    fails(&["map", &top, "--png", out], 1, "holds top:2 of each row");
    let stats = record("stats", &["--attention-kind", "stats"]);
    fails(&["map", &stats, "--csv", out], 1, "holds stats of each row");
    let some = record("some", &["--heads", "1.2,3.*"]);
    fails(&["map", &some, "--show", "all", "--npy", out], 2, "not the same heads");
    fails(&["map", &some, "--view", "value-weighted", "--png", out], 2, "needs the model");
    stdout(&["map", &some, "--show", "all", "--png", out]);
    // Files are whole or not there.
    let names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 4, "{names:?}");
}

#[test]
fn a_table_hides_keys_too() {
    let text = stdout(&["map", "The cat sat on the mat", "--layer", "2", "--head", "3", "--hide-first", "1"]);
    assert!(text.contains("first key hidden"), "{text}");
    let rows: Vec<Vec<&str>> =
        text.lines().skip(6).map(|line| line.split_whitespace().skip(2).collect()).collect();
    assert_eq!(rows.len(), 6, "{text}");
    assert!(rows.iter().all(|row| row[0] == "·"), "{text}");
    assert_eq!(rows[1][1], "1.00");
    let sum: f64 = rows[5][1..].iter().map(|cell| cell.parse::<f64>().unwrap()).sum();
    assert!((sum - 1.0).abs() < 0.03, "{text}");
}

#[test]
fn streams_get_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = join(&folder, "a.svg");
    stdout(&["map", "The cat", "--svg", arg(&path)]);
    assert_eq!(stdout(&["map", "The cat", "--svg", "-"]), fs::read_to_string(&path).unwrap());
}
