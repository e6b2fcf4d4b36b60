//! The page: its pictures against their definitions, its file against the dump, and what may not
//! happen whatever stands in a token.

mod common;
#[path = "common/program.rs"]
mod program;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::Stdio;

use attend::capture::memory::Both;
use attend::capture::{
    AttentionDtype, Dump, Projections, Recorder, Selection, ShownMap, TokenRecord, TokenRole,
};
use attend::model::{Forward, Mask};
use attend::report::html::code::{code, weight};
use attend::report::html::tile::{Place, TILE, levels, tile};
use attend::report::html::{Chosen, Maps, Page, answer};
use attend::{Checkpoint, LoadOptions};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::{Reference, assert_close, fixture};
use program::{arg, failure, join, run, stdout};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, serialize};

/// A dump of one step of one layer: each head's map, `[size, size]`.
fn dump(folder: &Path, heads: &[Vec<f32>], texts: &[&str]) {
    let size = texts.len();
    let checkpoint = Checkpoint::embedded().unwrap();
    let selection = Selection::parse(Some("0"), Some(&format!("0-{}", heads.len() - 1)), 5, 8).unwrap();
    let dtype = AttentionDtype::F32;
    let manifest = Recorder::manifest(&checkpoint, "f32", &selection, dtype, Mask::Causal, size, None);
    let mut recorder = Recorder::create(folder, &manifest, false).unwrap();
    for (index, text) in texts.iter().enumerate() {
        let record = TokenRecord {
            index,
            id: index as u32,
            text: (*text).into(),
            bytes: text.as_bytes().to_vec(),
            role: TokenRole::Prompt,
            logprob: None,
        };
        recorder.token(&record).unwrap();
    }
    recorder.flush().unwrap();
    drop(recorder);
    let bytes: Vec<u8> = heads.concat().iter().flat_map(|weight| weight.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, vec![heads.len(), size, size], &bytes).unwrap();
    let file = serialize(HashMap::from([("layer.000".to_owned(), view)]), None).unwrap();
    std::fs::write(folder.join("steps/00000.safetensors"), file).unwrap();
    let line = format!(
        r#"{{"step":0,"file":"steps/00000.safetensors","first_query":0,"queries":{size},"keys":{size}}}"#
    );
    std::fs::write(folder.join("steps.jsonl"), line + "\n").unwrap();
}

fn maps(folder: &Path) -> Maps {
    Maps::new(Dump::open(folder).unwrap()).unwrap()
}

const SIZE: usize = 600;

/// Rows of uneven weights that sum to 1.
fn uneven() -> Vec<f32> {
    let mut map = vec![0f32; SIZE * SIZE];
    for (query, row) in map.chunks_exact_mut(SIZE).enumerate() {
        let raw = |key: usize| ((query * 31 + key * 17) % 97) as f32 + 0.5;
        let total: f32 = (0..=query).map(raw).sum();
        (0..=query).for_each(|key| row[key] = raw(key) / total);
    }
    map
}

#[test]
fn a_planted_cell_is_visible_at_every_level() {
    let folder = tempfile::tempdir().unwrap();
    let mut map: Vec<f32> = vec![0.0; SIZE * SIZE];
    (0..SIZE).for_each(|query| map[query * SIZE + query] = 1.0);
    let (query, key) = (477, 101);
    (map[query * SIZE + query], map[query * SIZE + key]) = (0.5, 0.5);
    dump(folder.path(), &[map], &["x"; SIZE]);
    let maps = maps(folder.path());
    let head = maps.heads()[0];
    assert_eq!(levels(SIZE), 3);
    for level in 0..levels(SIZE) {
        let (row, column) = ((query >> level), (key >> level));
        let place = Place { level, row: row / TILE, column: column / TILE };
        let codes = tile(&maps, head, place, 0);
        let at = ((row % TILE) * TILE + column % TILE) * 2;
        assert_eq!(codes[at], code(0.5), "level {level}");
        assert!((weight(codes[at]) - 0.5).abs() < 0.012);
        // The mean of a block of 4ⁿ cells that the mask leaves whole.
        assert_eq!(codes[at + 1], code(0.5 / f32::powi(4.0, level as i32)), "level {level}");
    }
    let page = Page::new(maps);
    let html = page.served();
    let overview = between(&html, r#"id="overview">"#, "<");
    let picture = STANDARD.decode(overview).unwrap();
    // Cells of 16 positions, 38 a side.
    let at = ((query / 16) * 38 + key / 16) * 2;
    assert_eq!(picture[at], code(0.5));
}

#[test]
fn tiles_are_the_maxima_and_means_of_their_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let map = uneven();
    dump(folder.path(), std::slice::from_ref(&map), &["x"; SIZE]);
    let maps = maps(folder.path());
    let head = maps.heads()[0];
    for (hide, level) in [(0, 0), (0, 1), (0, 2), (2, 0), (2, 2)] {
        let block = 1 << level;
        for place in [Place { level, row: 0, column: 0 }, Place { level, row: 1, column: 0 }] {
            let codes = tile(&maps, head, place, hide);
            for cell in (0..TILE * TILE).step_by(37) {
                let (row, column) = (place.row * TILE + cell / TILE, place.column * TILE + cell % TILE);
                let mut weights = vec![];
                for query in (row * block..(row + 1) * block).filter(|query| *query < SIZE) {
                    let rest = 1.0 - map[query * SIZE..][..hide].iter().map(|w| f64::from(*w)).sum::<f64>();
                    for key in (column * block..(column + 1) * block).filter(|key| *key <= query) {
                        let shown = key >= hide && rest > 1e-6;
                        weights.push(if shown { f64::from(map[query * SIZE + key]) / rest } else { 0.0 });
                    }
                }
                let maximum = weights.iter().fold(0.0, |a: f64, b| a.max(*b));
                let mean = weights.iter().sum::<f64>() / weights.len().max(1) as f64;
                for (channel, expected) in [maximum, mean].into_iter().enumerate() {
                    let found = codes[cell * 2 + channel];
                    // One step for a sum in another order at the edge between two codes.
                    assert!(found.abs_diff(code(expected as f32)) <= 1, "{place:?} {cell} {channel}");
                }
            }
        }
    }
}

#[test]
fn rows_and_columns_are_the_dumps() {
    let folder = tempfile::tempdir().unwrap();
    let map = uneven();
    dump(folder.path(), std::slice::from_ref(&map), &["x"; SIZE]);
    let page = Page::new(maps(folder.path()));
    let floats = |target: &str| -> Vec<f32> {
        let body = answer(&page, target).unwrap().body;
        body.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    };
    assert_eq!(floats("/row?layer=0&head=0&query=333"), map[333 * SIZE..334 * SIZE]);
    let column: Vec<f32> = (0..SIZE).map(|query| map[query * SIZE + 20]).collect();
    assert_eq!(floats("/column?layer=0&head=0&key=20"), column);
    for target in [
        "/row?layer=0&head=0&query=600",
        "/row?layer=0&head=9&query=1",
        "/row?layer=0&head=0",
        "/tile?layer=0&head=0&level=9&row=0&column=0",
        "/tile?layer=0&head=0&level=0&row=99999999999999999999&column=0",
        "/column?layer=0&head=0&key=-1",
        "/projections?layer=0",
        "/nothing",
        "",
    ] {
        assert!(answer(&page, target).is_none(), "{target}");
    }
}

#[test]
fn a_file_holds_exact_rows_or_says_what_it_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let heads = [uneven(), vec![0.0; SIZE * SIZE]];
    dump(folder.path(), &heads, &["x"; SIZE]);
    let page = Page::new(maps(folder.path()));
    let whole = page.file(&Chosen::Best, usize::MAX);
    assert_eq!(whole.left_out, None);
    assert_eq!(whole.html, page.file(&Chosen::Best, usize::MAX).html, "the same bytes twice");
    let block = STANDARD.decode(between(&whole.html, r#"id="rows-0-0-0">"#, "<")).unwrap();
    let rows: Vec<f32> = block.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let expected: Vec<f32> =
        (0..SIZE).flat_map(|query| &heads[0][query * SIZE..][..=query]).copied().collect();
    assert_eq!(rows, expected);
    let limit = whole.html.len() - 1;
    let part = page.file(&Chosen::Heads(vec![(0, 1)]), limit);
    assert!(part.html.len() <= limit);
    assert!(part.html.contains(r#"id="rows-0-0-1""#) && !part.html.contains(r#"id="rows-0-0-0""#));
    assert!(part.left_out.unwrap().contains("0.1"));
    assert!(part.html.contains(r#"id="overview""#));
}

#[test]
fn nothing_in_a_token_becomes_markup() {
    let folder = tempfile::tempdir().unwrap();
    let texts = ["</script><script>alert(1)</script>", "<!--", "\u{2028}\u{202e}", "{{script}}", "'\"&"];
    let map = vec![0.2; texts.len() * texts.len()];
    dump(folder.path(), &[map], &texts);
    let page = Page::new(maps(folder.path()));
    for html in [page.served(), page.file(&Chosen::Best, usize::MAX).html] {
        assert_eq!(html.matches("<script>").count(), 1, "one script runs");
        let data: serde_json::Value =
            serde_json::from_str(between(&html, r#"id="data">"#, "</script>")).unwrap();
        for (token, text) in data["tokens"].as_array().unwrap().iter().zip(texts) {
            assert_eq!(token["text"], text);
        }
        let policy = between(&html, r#"Content-Security-Policy" content=""#, "\"");
        assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
        assert!(!policy.contains("unsafe"));
    }
    let file = page.file(&Chosen::Best, usize::MAX).html;
    assert!(between(&file, r#"Content-Security-Policy" content=""#, "\"").contains("connect-src 'none'"));
}

#[test]
fn the_walks_vectors_give_the_weights_of_the_map() {
    let checkpoint = Checkpoint::embedded().unwrap();
    let decoder = checkpoint.load(&LoadOptions::default()).unwrap();
    let ids = checkpoint.tokenizer().unwrap().encode("The cat sat on the mat").unwrap().ids;
    let (layer, head) = (3, 5);
    let (mut projections, mut map) = (Projections::default(), ShownMap::of(layer, Some(head)));
    let mut cache = decoder.new_cache(ids.len()).unwrap();
    let mut both = Both(&mut projections, &mut map);
    decoder.forward(&ids, &mut cache, Forward { observer: Some(&mut both), ..Forward::default() }).unwrap();
    assert_eq!(projections.layers.len(), checkpoint.config().layers);
    let Projections { heads, kv_heads, head_dim, .. } = projections;
    let width = (heads + 2 * kv_heads) * head_dim;
    let group = head / (heads / kv_heads);
    let vector =
        |token: usize, head: usize| &projections.layers[layer][token * width + head * head_dim..][..head_dim];
    for query in 0..ids.len() {
        let scores: Vec<f64> = (0..=query)
            .map(|key| {
                let (q, k) = (vector(query, head), vector(key, heads + group));
                let product: f64 = q.iter().zip(k).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
                product * f64::from(projections.scales[layer])
            })
            .collect();
        let total: f64 = scores.iter().map(|score| score.exp()).sum();
        for (key, score) in scores.iter().enumerate() {
            let expected = f64::from(map.weights[query * ids.len() + key]);
            assert!((score.exp() / total - expected).abs() < 1e-5, "{query} {key}");
        }
    }
}

/// The walk's arithmetic, with what a file holds of a model: queries, keys and values, and of each head
/// the weights recorded; against Transformers' own attention (tests/fixtures/walk/make.py).
#[test]
fn the_walks_numbers_are_transformers() {
    for (family, layers) in
        [("llama", vec![1]), ("qwen3", vec![1]), ("gemma2", vec![0, 1]), ("gpt2", vec![1])]
    {
        let reference = Reference::open(&fixture("walk").join(format!("{family}.safetensors")));
        let place = tempfile::tempdir().unwrap();
        let file = join(&place, "page.html");
        let ids: Vec<String> = reference.ids("input_ids").iter().map(u32::to_string).collect();
        let model = fixture(family);
        let args = ["map", "-m", arg(&model), "--prompt-ids", &ids.join(","), "--html", arg(&file)];
        let output = run(&args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let html = std::fs::read_to_string(file).unwrap();
        let data: serde_json::Value =
            serde_json::from_str(between(&html, r#"id="data">"#, "</script>")).unwrap();
        let number = |name: &str| data["walk"][name].as_u64().unwrap() as usize;
        let (heads, kv_heads, dim) = (number("heads"), number("kv_heads"), number("head_dim"));
        let cap = data["walk"]["cap"].as_f64();
        let floats = |id: &str| -> Vec<f32> {
            let block = STANDARD.decode(between(&html, &format!(r#"id="{id}">"#), "<")).unwrap();
            block.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
        };
        let (tokens, width) = (ids.len(), (heads + 2 * kv_heads) * dim);
        for layer in layers {
            let theirs = |what: &str| reference.f32s(&format!("{layer}.{what}"));
            let rows = floats(&format!("projections-{layer}"));
            assert_eq!(rows.len(), tokens * width, "{family}");
            // Of heads from `first` on, `[heads, tokens, head_dim]`.
            let part = |first: usize, count: usize| -> Vec<f32> {
                let vector = |head: usize, token: usize| &rows[token * width + (first + head) * dim..][..dim];
                (0..count).flat_map(|h| (0..tokens).flat_map(move |t| vector(h, t).to_vec())).collect()
            };
            let (q, k, v) = (part(0, heads), part(heads, kv_heads), part(heads + kv_heads, kv_heads));
            for (ours, what) in [(&q, "query"), (&k, "key"), (&v, "value")] {
                assert_close(ours, &theirs(what), 1e-4, &format!("{family} {layer} {what}"));
            }
            let scale = data["walk"]["scales"][layer].as_f64().unwrap();
            let window = data["variants"][0]["heads"].as_array().unwrap().iter();
            let window = window.clone().find(|head| head["layer"] == layer).unwrap()["window"].as_u64();
            let (mut scores, mut weights, mut sums) = (vec![], vec![], vec![]);
            for head in 0..heads {
                let group = head / (heads / kv_heads);
                let of = |vectors: &[f32], head: usize, token: usize| -> Vec<f64> {
                    vectors[(head * tokens + token) * dim..][..dim].iter().map(|x| f64::from(*x)).collect()
                };
                let recorded = floats(&format!("rows-0-{layer}-{head}"));
                for query in 0..tokens {
                    let first = (query + 1).saturating_sub(window.map_or(tokens, |window| window as usize));
                    let score = |key: usize| {
                        let (q, k) = (of(&q, head, query), of(&k, group, key));
                        let score = q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() * scale;
                        cap.map_or(score, |cap| (score / cap).tanh() * cap)
                    };
                    let seen = |key: &usize| (first..=query).contains(key);
                    let row: Vec<f64> =
                        (0..tokens).map(|key| if seen(&key) { score(key) } else { 0.0 }).collect();
                    let total: f64 = (first..=query).map(|key| row[key].exp()).sum();
                    let shares: Vec<f64> = (0..tokens)
                        .map(|key| if seen(&key) { row[key].exp() / total } else { 0.0 })
                        .collect();
                    let recorded: Vec<f32> = recorded[query * (query + 1) / 2..][..=query].to_vec();
                    let expected = &theirs("weights")[(head * tokens + query) * tokens..][..=query];
                    assert_close(&recorded, expected, 1e-4, &format!("{family} {layer} {head} recorded"));
                    sums.extend((0..dim).map(|at| {
                        (0..tokens).map(|key| shares[key] * of(&v, group, key)[at]).sum::<f64>() as f32
                    }));
                    scores.extend(row.iter().map(|score| *score as f32));
                    weights.extend(shares.iter().map(|share| *share as f32));
                }
            }
            for (ours, what) in [(&scores, "scores"), (&weights, "weights"), (&sums, "sum")] {
                assert_close(ours, &theirs(what), 1e-4, &format!("{family} {layer} {what}"));
            }
        }
    }
}

#[test]
fn a_mean_over_heads_and_pictures_without_the_first_keys() {
    let folder = tempfile::tempdir().unwrap();
    let even: Vec<f32> = (0..SIZE * SIZE)
        .map(|at| if at % SIZE <= at / SIZE { 1.0 / (at / SIZE + 1) as f32 } else { 0.0 })
        .collect();
    let heads = [uneven(), even];
    dump(folder.path(), &heads, &["x"; SIZE]);
    let page = Page::new(maps(folder.path()));
    let body = answer(&page, "/row?layer=0&head=mean&query=333").unwrap().body;
    let row: Vec<f32> = body.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    let mean: Vec<f32> =
        (0..SIZE).map(|key| (heads[0][333 * SIZE + key] + heads[1][333 * SIZE + key]) / 2.0).collect();
    assert_close(&row, &mean, 1e-7, "mean");
    assert!(answer(&page, "/tile?layer=0&head=mean&level=1&row=0&column=0").is_some());
    assert!(answer(&page, "/row?layer=9&head=mean&query=3").is_none());
    for hide in [0, 2] {
        let pictures = answer(&page, &format!("/pictures?hide={hide}")).unwrap().body;
        // Cells of a power of two, so that at most 64 are needed: 38 of 16 positions.
        let (cells, side) = (16, 38);
        assert_eq!(pictures.len(), 2 * side * side * 2);
        for (head, map) in heads.iter().enumerate() {
            for cell in (0..side * side).step_by(11) {
                let within = |cell: usize| (0..SIZE).filter(move |at| at / cells == cell);
                let mut weights = vec![];
                for query in within(cell / side) {
                    let hidden: f64 = (0..hide).map(|key| f64::from(map[query * SIZE + key])).sum();
                    for key in within(cell % side).filter(|key| *key <= query) {
                        let shown = key >= hide && 1.0 - hidden > 1e-6;
                        weights.push(if shown {
                            f64::from(map[query * SIZE + key]) / (1.0 - hidden)
                        } else {
                            0.0
                        });
                    }
                }
                let maximum = weights.iter().fold(0.0, |a: f64, b| a.max(*b));
                let mean = weights.iter().sum::<f64>() / weights.len().max(1) as f64;
                for (channel, expected) in [maximum, mean].into_iter().enumerate() {
                    let found = pictures[(head * side * side + cell) * 2 + channel];
                    assert!(found.abs_diff(code(expected as f32)) <= 1, "{hide} {head} {cell} {channel}");
                }
            }
        }
    }
}

#[test]
fn broken_dumps_are_named_and_not_shown() {
    let place = tempfile::tempdir().unwrap();
    let whole = join(&place, "whole");
    stdout(&["generate", "Once upon a time", "-n", "3", "--temp", "0", "--attention", arg(&whole)]);
    let step = |name: &str| format!("{name}/steps/00001.safetensors");
    type Harm = fn(&Path);
    let harms: [(&str, Harm, &str); 5] = [
        (
            "torn",
            |step| {
                let bytes = std::fs::read(step).unwrap();
                std::fs::write(step, &bytes[..bytes.len() / 2]).unwrap();
            },
            "00001",
        ),
        ("gone", |step| std::fs::remove_file(step).unwrap(), "00001"),
        (
            "other",
            |step| std::fs::copy(step.with_file_name("00000.safetensors"), step).map(|_| ()).unwrap(),
            "shape",
        ),
        (
            "manifest",
            |step| std::fs::write(step.with_file_name("../manifest.json"), "{").unwrap(),
            "manifest",
        ),
        ("empty", |step| std::fs::write(step.with_file_name("../steps.jsonl"), "").unwrap(), "no whole step"),
    ];
    for (name, harm, word) in harms {
        let folder = join(&place, name);
        std::fs::create_dir_all(folder.join("steps")).unwrap();
        for file in [
            "manifest.json",
            "tokens.jsonl",
            "steps.jsonl",
            "steps/00000.safetensors",
            "steps/00001.safetensors",
            "steps/00002.safetensors",
        ] {
            std::fs::copy(whole.join(file), folder.join(file)).unwrap();
        }
        harm(&place.path().join(step(name)));
        let page = join(&place, "page.html");
        for args in
            [vec!["view", arg(&folder), "--no-browser"], vec!["map", arg(&folder), "--html", arg(&page)]]
        {
            let message = failure(&run(&args), 1);
            assert!(message.contains(word), "{name}: {message}");
        }
        assert!(!page.exists());
    }
}

/// No browser to start, standard input closed: the address is printed, and the page is there.
#[cfg(unix)]
#[test]
fn the_address_is_printed_where_no_browser_starts() {
    let mut command = program::attend();
    command.args(["view", "Hi", "--port", "0"]).env("BROWSER", "/no/such/browser");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("http://").unwrap().strip_suffix('/').unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(stream, "GET / HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("id=\"app\""));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(child.wait().unwrap().success(), "Ctrl-C ends it");
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("open this address in a browser"), "{said}");
}

#[test]
fn the_command_writes_the_same_page_twice_and_refuses_what_it_cannot_show() {
    let place = tempfile::tempdir().unwrap();
    let pages = ["a.html", "b.html"].map(|name| {
        let file = join(&place, name);
        let output = run(&["map", "The cat sat on the mat", "--html", arg(&file)]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::read(file).unwrap()
    });
    assert!(pages[0] == pages[1]);
    let folder = place.path();
    for (args, code, word) in [
        (vec!["map", "x", "--html", arg(folder)], 2, "folder"),
        (vec!["map", "x", "--html", "y.html", "--layer", "9"], 2, "--layer"),
        (vec!["view", arg(folder)], 2, "without a dump"),
        (vec!["map", "x", "--html", "no/such/folder.html"], 1, "cannot write"),
    ] {
        let message = failure(&run(&args), code);
        assert!(message.contains(word), "{args:?}: {message}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let message = failure(&run(&["view", "Hi", "--no-browser", "--port", &port]), 1);
    assert!(message.contains("another program serves there"), "{message}");
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let from = text.find(before).unwrap() + before.len();
    &text[from..from + text[from..].find(after).unwrap()]
}
