//! Puts the page together: one template, one style sheet, one script joined from the modules in
//! `assets/`, and the data. Served and written to a file it is the same page; a file holds the rows
//! of heads too, as far as its size allows.
//!
//! Nothing in it can run but its one script, whose digest its content security policy names, and
//! which may not turn text into markup. A file may not ask anything of anyone.

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::maps::{Head, Maps};
use super::scores::{SCORES, Score, Values};
use super::survey::{HeadSurvey, survey};
use crate::capture::overview::Grid;
use crate::capture::{AttentionDtype, ModelInfo, Projections, TokenRole};
use crate::model::Mask;
use crate::report::label;

/// Bytes that a file stays below if it can.
pub const FILE_LIMIT: usize = 50_000_000;

/// Texts of up to this many tokens have their queries, keys and values in a file too.
const WALK_TOKENS: usize = 64;

const TEMPLATE: &str = include_str!("assets/page.html");
const STYLE: &str = include_str!("assets/page.css");
/// The client's modules; each uses only those before it.
const MODULES: [&str; 11] = [
    include_str!("assets/code.js"),
    include_str!("assets/colour.js"),
    include_str!("assets/tokens.js"),
    include_str!("assets/source.js"),
    include_str!("assets/scene.js"),
    include_str!("assets/painter.js"),
    include_str!("assets/heatmap.js"),
    include_str!("assets/overview.js"),
    include_str!("assets/text.js"),
    include_str!("assets/walk.js"),
    include_str!("assets/main.js"),
];

/// The maps of one text, ready to be shown: as recorded, and perhaps again without a mask.
pub struct Page {
    variants: Vec<Variant>,
    /// Queries, keys and values of the recorded step.
    projections: Option<Projections>,
    note: Option<String>,
}

struct Variant {
    maps: Maps,
    survey: Vec<HeadSurvey>,
}

/// Heads whose rows a file keeps when it cannot keep all.
pub enum Chosen {
    /// The best of each score.
    Best,
    /// These, by layer and head.
    Heads(Vec<(usize, usize)>),
}

/// A page as one file.
pub struct Embedded {
    pub html: String,
    /// What did not fit, in words.
    pub left_out: Option<String>,
}

#[derive(Serialize)]
struct Data<'a> {
    served: bool,
    generator: &'a str,
    model: &'a ModelInfo,
    size: usize,
    first_query: usize,
    prompt_tokens: usize,
    /// First query, queries, how far they are apart, and keys of each.
    steps: Vec<[usize; 4]>,
    tokens: Vec<TokenData>,
    scores: &'a [Score],
    overview_side: usize,
    /// Positions on the side of one of its cells.
    overview_cell: usize,
    variants: Vec<VariantData<'a>>,
    left_out: Option<String>,
    walk: Option<WalkData<'a>>,
    /// `variant-layer-head` of the rows in a file.
    kept: Vec<String>,
}

#[derive(Serialize)]
struct WalkData<'a> {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    scales: &'a [f32],
    cap: Option<f32>,
    slopes: &'a Option<Vec<f32>>,
}

#[derive(Serialize)]
struct TokenData {
    label: String,
    text: String,
    id: u32,
    generated: bool,
    logprob: Option<f64>,
}

#[derive(Serialize)]
struct VariantData<'a> {
    title: &'a str,
    causal: bool,
    /// Bytes of a weight in embedded rows: 4 (f32) or 2 (f16).
    bytes: usize,
    heads: Vec<HeadData>,
}

#[derive(Serialize)]
struct HeadData {
    layer: usize,
    head: usize,
    window: Option<usize>,
    scores: Values,
}

impl Page {
    /// Passes once over what the dump's overview does not cover.
    pub fn new(maps: Maps) -> Page {
        let (survey, note) = survey(&maps);
        Page { variants: vec![Variant { survey, maps }], projections: None, note }
    }

    /// What a user should know of the dump: that its overview is damaged.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// Adds the same text's maps without the causal mask, to be shown beside.
    #[must_use]
    pub fn with_unmasked(mut self, maps: Maps) -> Page {
        let (survey, note) = survey(&maps);
        self.variants.push(Variant { survey, maps });
        self.note = self.note.or(note);
        self
    }

    /// Adds the queries, keys and values that the walk shows.
    #[must_use]
    pub fn with_projections(mut self, projections: Projections) -> Page {
        self.projections = Some(projections);
        self
    }

    /// Queries, keys and values of a layer, `[tokens, (heads + 2 · kv_heads) · head_dim]`.
    pub fn projections(&self, layer: usize) -> Option<&[f32]> {
        Some(self.projections.as_ref()?.layers.get(layer)?)
    }

    /// The maps as recorded (0), or without a mask (1).
    pub fn maps(&self, variant: usize) -> Option<&Maps> {
        self.variants.get(variant).map(|variant| &variant.maps)
    }

    /// The page that asks its server for rows and tiles.
    pub fn served(&self) -> String {
        self.document(true, None, &[])
    }

    /// The page as one file below `limit` bytes, if the chosen heads' rows allow that.
    pub fn file(&self, chosen: &Chosen, limit: usize) -> Embedded {
        let all: Vec<(usize, Head)> = self.heads().collect();
        let bare = self.document(false, None, &[]).len();
        let size = |(variant, head): &(usize, Head)| row_block_size(&self.variants[*variant].maps, *head);
        if bare + all.iter().map(size).sum::<usize>() <= limit {
            return Embedded { html: self.document(false, None, &all), left_out: None };
        }
        let mut room = limit.saturating_sub(bare + 1000);
        let mut kept = vec![];
        for candidate in self.candidates(chosen) {
            let size = size(&candidate);
            if size <= room && !kept.contains(&candidate) {
                room -= size;
                kept.push(candidate);
            }
        }
        kept.sort_by_key(|(variant, head)| (*variant, head.layer, head.head));
        let names: Vec<String> = kept
            .iter()
            .filter(|(variant, _)| *variant == 0)
            .map(|(_, h)| format!("{}.{}", h.layer, h.head))
            .collect();
        let whole = bare + all.iter().map(size).sum::<usize>();
        let left_out = format!(
            "All rows of all {} heads would make this file {:.0} MB. It keeps the overview and the scores of every \
             head, and the rows of {} (layer.head). Choose others with --layer and --head, or use attend view.",
            self.variants[0].maps.heads().len(),
            whole as f64 / 1e6,
            if names.is_empty() { "none".into() } else { names.join(", ") },
        );
        Embedded { html: self.document(false, Some(left_out.clone()), &kept), left_out: Some(left_out) }
    }

    fn heads(&self) -> impl Iterator<Item = (usize, Head)> + '_ {
        self.variants
            .iter()
            .enumerate()
            .flat_map(|(number, variant)| variant.maps.heads().iter().map(move |head| (number, *head)))
    }

    /// Heads in the order in which they get room.
    fn candidates(&self, chosen: &Chosen) -> Vec<(usize, Head)> {
        let Variant { maps, survey } = &self.variants[0];
        let first: Vec<Head> = match chosen {
            Chosen::Heads(heads) => {
                heads.iter().filter_map(|(layer, head)| maps.find(*layer, *head)).collect()
            }
            Chosen::Best => (0..SCORES.len())
                .filter_map(|score| {
                    let scored = survey.iter().zip(maps.heads());
                    scored
                        .filter_map(|(survey, head)| Some((survey.scores[score]?, *head)))
                        .max_by(|a, b| a.0.total_cmp(&b.0))
                        .map(|(_, head)| head)
                })
                .collect(),
        };
        let mut candidates: Vec<_> = first.iter().map(|head| (0, *head)).collect();
        if let Some(other) = self.variants.get(1) {
            candidates
                .extend(first.iter().filter_map(|head| Some((1, other.maps.find(head.layer, head.head)?))));
        }
        candidates
    }

    fn document(&self, served: bool, left_out: Option<String>, rows: &[(usize, Head)]) -> String {
        let script = script();
        let policy = policy(&script, served);
        let pictures: Vec<u8> = self
            .variants
            .iter()
            .flat_map(|v| v.survey.iter().flat_map(|head| &head.picture))
            .copied()
            .collect();
        // Numbers and strings only: this cannot fail.
        let data = serde_json::to_string(&self.data(served, left_out, rows)).unwrap_or_default();
        let mut blocks = String::new();
        for (variant, head) in rows {
            let maps = &self.variants[*variant].maps;
            let _ = writeln!(
                blocks,
                r#"<script type="application/octet-stream" id="rows-{variant}-{}-{}">{}</script>"#,
                head.layer,
                head.head,
                STANDARD.encode(row_block(maps, *head)),
            );
        }
        if let Some(projections) =
            self.projections.as_ref().filter(|_| !served && self.variants[0].maps.size() <= WALK_TOKENS)
        {
            for (layer, rows) in projections.layers.iter().enumerate() {
                let bytes: Vec<u8> = rows.iter().flat_map(|value| value.to_le_bytes()).collect();
                let _ = writeln!(
                    blocks,
                    r#"<script type="application/octet-stream" id="projections-{layer}">{}</script>"#,
                    STANDARD.encode(bytes),
                );
            }
        }
        let title = in_text(&self.variants[0].maps.dump().manifest().model.name);
        let mut out = String::with_capacity(blocks.len() + pictures.len() * 2 + data.len() + 200_000);
        // One pass: what is put in is never looked through for further names.
        let mut rest = TEMPLATE;
        while let Some((before, after)) = rest.split_once("{{") {
            let (name, after) = after.split_once("}}").unwrap_or((after, ""));
            out.push_str(before);
            match name {
                "policy" => out.push_str(&policy),
                "title" => out.push_str(&title),
                "style" => out.push_str(STYLE),
                "data" => out.push_str(&in_script(&data)),
                "overview" => out.push_str(&STANDARD.encode(&pictures)),
                "script" => out.push_str(&script),
                "rows" => out.push_str(&blocks),
                _ => unreachable!("the template names {name}"),
            }
            rest = after;
        }
        out.push_str(rest);
        out
    }

    fn data(&self, served: bool, left_out: Option<String>, rows: &[(usize, Head)]) -> Data<'_> {
        let maps = &self.variants[0].maps;
        let manifest = maps.dump().manifest();
        let known = maps.dump().tokens().iter().take(maps.size()).map(|token| TokenData {
            label: label(&token.bytes, token.id),
            text: token.text.clone(),
            id: token.id,
            generated: token.role == TokenRole::Generated,
            logprob: token.logprob,
        });
        let mut tokens: Vec<TokenData> = known.collect();
        for position in tokens.len()..maps.size() {
            let label = format!("@{position}");
            tokens.push(TokenData { label, text: String::new(), id: 0, generated: false, logprob: None });
        }
        let Grid { cell, side } = Grid::of(maps.size());
        Data {
            served,
            generator: &manifest.generator,
            model: &manifest.model,
            size: maps.size(),
            first_query: maps.first_query(),
            prompt_tokens: manifest.prompt_tokens,
            steps: maps
                .dump()
                .steps()
                .iter()
                .map(|step| [step.first_query, step.queries, step.stride, step.keys])
                .collect(),
            tokens,
            scores: &SCORES,
            overview_side: side,
            overview_cell: cell,
            variants: self.variants.iter().map(variant_data).collect(),
            left_out,
            kept: rows
                .iter()
                .map(|(variant, head)| format!("{variant}-{}-{}", head.layer, head.head))
                .collect(),
            walk: self.projections.as_ref().filter(|_| served || maps.size() <= WALK_TOKENS).map(
                |projections| WalkData {
                    heads: projections.heads,
                    kv_heads: projections.kv_heads,
                    head_dim: projections.head_dim,
                    scales: &projections.scales,
                    cap: projections.cap,
                    slopes: &projections.slopes,
                },
            ),
        }
    }
}

fn variant_data(variant: &Variant) -> VariantData<'_> {
    let manifest = variant.maps.dump().manifest();
    let causal = manifest.mask == Mask::Causal;
    VariantData {
        title: if causal { "causal" } else { "none" },
        causal,
        bytes: manifest.attention_dtype.size(),
        heads: variant
            .maps
            .heads()
            .iter()
            .zip(&variant.survey)
            .map(|(head, survey)| HeadData {
                layer: head.layer,
                head: head.head,
                window: variant.maps.layer(*head).window,
                scores: survey.scores,
            })
            .collect(),
    }
}

/// A head's rows one after another, each with the keys that its query sees, little-endian in the
/// dump's own type.
fn row_block(maps: &Maps, head: Head) -> Vec<u8> {
    let mut row = vec![0f32; maps.size()];
    let mut out = vec![];
    for query in maps.first_query()..maps.size() {
        let row = &mut row[..maps.seen(head, query).end];
        maps.row(head, query, 0, row);
        match maps.dump().manifest().attention_dtype {
            AttentionDtype::F32 => out.extend(row.iter().flat_map(|weight| weight.to_le_bytes())),
            AttentionDtype::F16 => {
                out.extend(row.iter().flat_map(|weight| half::f16::from_f32(*weight).to_le_bytes()));
            }
        }
    }
    out
}

/// Bytes of a head's block in a file.
fn row_block_size(maps: &Maps, head: Head) -> usize {
    let weights: usize = (maps.first_query()..maps.size()).map(|query| maps.seen(head, query).end).sum();
    (weights * maps.dump().manifest().attention_dtype.size()).div_ceil(3) * 4 + 80
}

/// The modules as one script: imports go, since everything is in one scope, and so do the words
/// `export`.
fn script() -> String {
    let mut out = String::from("\"use strict\";\n(() => {\n");
    for line in MODULES.iter().flat_map(|module| module.lines()) {
        if !line.starts_with("import ") {
            out.push_str(line.strip_prefix("export ").unwrap_or(line));
            out.push('\n');
        }
    }
    out.push_str("})();\n");
    out
}

/// The content security policy of a page with this script.
fn policy(script: &str, served: bool) -> String {
    let digest = |text: &str| STANDARD.encode(Sha256::digest(text));
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; img-src data: blob:; connect-src {}; \
         base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
        digest(script),
        digest(STYLE),
        if served { "'self'" } else { "'none'" },
    )
}

/// The headers that a server adds to every answer.
pub fn headers() -> [(&'static str, &'static str); 6] {
    [
        ("Content-Security-Policy", "frame-ancestors 'none'; base-uri 'none'; object-src 'none'"),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "DENY"),
        ("Referrer-Policy", "no-referrer"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        ("Cache-Control", "no-store"),
    ]
}

/// JSON that stands in a script element: nothing in it can end the element.
fn in_script(json: &str) -> String {
    json.replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

fn in_text(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_cannot_leave_its_element() {
        let text = "</script><script>alert(1)</script><!-- \u{2028}";
        let json = in_script(&serde_json::to_string(text).unwrap());
        assert!(!json.contains('<') && !json.contains('\u{2028}'));
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }

    #[test]
    fn the_modules_are_one_script_without_imports() {
        let script = script();
        assert!(!script.lines().any(|line| line.starts_with("import ") || line.starts_with("export ")));
        assert!(!script.contains("</script") && !script.contains("<!--"));
        assert!(!STYLE.contains("</style"));
    }
}
