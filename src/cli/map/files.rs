//! Maps as files: pictures (PNG, SVG) and numbers (CSV, NumPy), all from one pass over the rows.

use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::PathBuf;

use anyhow::Result;
use attend::capture::Rows;
use attend::model::Mask;
use attend::report::export::maps::{CsvMaps, NpyMaps, Side};
use attend::report::picture::letters::Letters;
use attend::report::picture::{Arrangement, Picture, Pooled, PooledMaps, Scale, png, svg};
use attend::report::rows::{MapOf, MapRows, MapSink, Shown};

use super::super::out_file::OutFile;
use super::super::usage;
use super::choice::{Choice, of_mask, span, within};
use super::source::{Facts, Source};
use super::terminal::brightest;
use super::{FileArgs, MapArgs};

/// The files asked for, not yet in their places.
pub struct Files {
    png: Option<OutFile>,
    svg: Option<OutFile>,
    csv: Option<OutFile>,
    npy: Option<OutFile>,
}

impl Files {
    /// Makes room for them.
    pub fn begin(args: &FileArgs) -> Result<Files> {
        let FileArgs { png, svg, csv, npy, .. } = args;
        let paths: Vec<&PathBuf> = [png, svg, csv, npy].into_iter().flatten().collect();
        if let Some(twice) = paths.iter().find(|path| paths.iter().filter(|other| other == path).count() > 1)
        {
            return Err(usage(format!("{} is asked for twice; give each file a name", twice.display())));
        }
        let begin = |option: &str, path: &Option<PathBuf>| {
            path.as_ref().map(|path| OutFile::begin(option, path)).transpose()
        };
        Ok(Files {
            png: begin("--png", png)?,
            svg: begin("--svg", svg)?,
            csv: begin("--csv", csv)?,
            npy: begin("--npy", npy)?,
        })
    }

    pub fn is_empty(&self) -> bool {
        self.png.is_none() && self.svg.is_none() && self.csv.is_none() && self.npy.is_none()
    }

    /// Reads the chosen maps once, and writes every file.
    pub fn write(self, args: &MapArgs, source: Source, choice: Choice) -> Result<()> {
        let facts = source.facts();
        let part = Part::of(args, facts)?;
        let (queries, keys) = (part.query_positions.len(), part.key_positions.len());
        let mut npy = match &self.npy {
            Some(out) => {
                let maps = dimensions(&choice)?;
                Some(NpyMaps::new(out.file(), out.path(), &maps, queries, keys)?)
            }
            None => None,
        };
        let side = |positions, tokens| Side { positions, tokens };
        let mut csv = match &self.csv {
            Some(out) => {
                let to = BufWriter::new(out.file());
                let queries = side(&part.query_positions, &part.query_labels);
                let keys = side(&part.key_positions, &part.key_labels);
                Some(CsvMaps::new(to, out.path(), &choice.maps, queries, keys)?)
            }
            None => None,
        };
        let most = choice.arrangement.points(choice.maps.len());
        let draws = self.png.is_some() || self.svg.is_some();
        let map = |_: &MapOf| Pooled::new(queries, keys, most);
        let mut pooled = draws.then(|| PooledMaps(choice.maps.iter().map(map).collect()));

        let mut sinks: Vec<&mut dyn MapSink> = vec![];
        sinks.extend(npy.as_mut().map(|sink| sink as &mut dyn MapSink));
        sinks.extend(csv.as_mut().map(|sink| sink as &mut dyn MapSink));
        sinks.extend(pooled.as_mut().map(|sink| sink as &mut dyn MapSink));
        let mut rows = MapRows::new(choice.maps.clone(), part.shown.clone(), sinks);
        source.feed(args, &choice.maps, &mut rows)?;
        rows.finish()?;
        drop((npy, csv));

        if let Some(PooledMaps(maps)) = &pooled {
            self.draw(args, facts, &choice, &part, maps)?;
        }
        [self.png, self.svg, self.csv, self.npy].into_iter().flatten().try_for_each(OutFile::finish)
    }

    fn draw(
        &self,
        args: &MapArgs,
        facts: &Facts,
        choice: &Choice,
        part: &Part,
        maps: &[Pooled],
    ) -> Result<()> {
        let largest = || maps.iter().map(Pooled::largest).fold(f32::MIN_POSITIVE, f32::max);
        let scale = Scale { curve: args.look.curve(), brightest: brightest(args, largest) };
        let title = title(facts, choice, part, maps, &scale);
        let picture = Picture {
            title: &title,
            arrangement: &choice.arrangement,
            maps,
            queries: (&part.query_labels, &part.query_positions),
            keys: (&part.key_labels, &part.key_positions),
            palette: args.look.palette(),
            scale,
        };
        let cannot = |out: &OutFile| {
            let path = out.path().to_path_buf();
            move |cause| attend::Error::Io { path, action: "write", cause }
        };
        if let Some(out) = &self.png {
            let mut to = BufWriter::new(out.file());
            let written = png::write(&picture.scene(Letters::Pixels), &mut to);
            written.and_then(|()| to.flush()).map_err(cannot(out))?;
        }
        if let Some(out) = &self.svg {
            svg::write(&picture.scene(Letters::Readers), out.file()).map_err(cannot(out))?;
        }
        Ok(())
    }
}

/// The queries and keys that are shown.
struct Part {
    shown: Shown,
    query_positions: Vec<usize>,
    query_labels: Vec<String>,
    key_positions: Vec<usize>,
    key_labels: Vec<String>,
}

impl Part {
    fn of(args: &MapArgs, facts: &Facts) -> Result<Part> {
        let Facts { rows, keys: whole_keys, .. } = *facts;
        let positions = within(args.queries.as_ref(), &span(&rows), "--queries")?.unwrap_or(span(&rows));
        let keys = within(args.keys.as_ref(), &(0..whole_keys), "--keys")?.unwrap_or(0..whole_keys);
        let queries = rows.within(positions.clone());
        if queries.is_empty() {
            return Err(usage(format!(
                "--queries {}-{}: no query was recorded there; each {}th was, from {} on",
                positions.start,
                positions.end - 1,
                rows.stride,
                rows.first
            )));
        }
        let labels = |positions: &[usize]| positions.iter().map(|at| facts.labels[*at].clone()).collect();
        let query_positions: Vec<usize> = queries.clone().map(|row| rows.position(row)).collect();
        let key_positions: Vec<usize> = keys.clone().collect();
        Ok(Part {
            query_labels: labels(&query_positions),
            key_labels: labels(&key_positions),
            query_positions,
            key_positions,
            shown: Shown {
                rows,
                queries,
                whole_keys,
                keys,
                causal: facts.mask == Mask::Causal,
                hide_first: args.look.hide_first,
            },
        })
    }
}

/// The dimensions of an array before queries and keys.
fn dimensions(choice: &Choice) -> Result<Vec<usize>> {
    match &choice.arrangement {
        Arrangement::One => Ok(vec![]),
        Arrangement::Grid(_) => Ok(vec![choice.maps.len()]),
        Arrangement::Overview { layers, heads, .. } if layers.len() * heads.len() == choice.maps.len() => {
            Ok(vec![layers.len(), heads.len()])
        }
        Arrangement::Overview { .. } => Err(usage(
            "--npy: not the same heads were captured of every layer, and one array cannot hold them; write a layer \
             (--show layer --layer N), or an array a layer with `attend dump convert`",
        )),
    }
}

/// What stands above a picture.
fn title(facts: &Facts, choice: &Choice, part: &Part, maps: &[Pooled], scale: &Scale) -> Vec<String> {
    let Shown { rows: Rows { stride, .. }, .. } = part.shown;
    let whole = (span(&facts.rows), 0..facts.keys);
    let shown = |positions: &[usize], whole: &Range<usize>, what: &str| {
        let (first, last) = (positions.first().copied(), positions.last().copied());
        match (first.unwrap_or(0), last.unwrap_or(0)) {
            (first, last) if (first, last + 1) == (whole.start, whole.end) => String::new(),
            (first, last) => format!("; {what} {first}-{last} of {}-{}", whole.start, whole.end - 1),
        }
    };
    let mut size = format!("{} × {}", part.query_positions.len(), part.key_positions.len());
    if stride > 1 {
        size.push_str(&format!(", each {stride}th query"));
    }
    if let Some(Pooled { block, .. }) = maps.first().filter(|map| map.block != (1, 1)) {
        size.push_str(&format!(", a point is the maximum of {} × {}", block.0, block.1));
    }
    vec![
        format!("{}, {}", facts.of(), choice.place),
        format!("{}; {}", of_mask(facts), scale.words()),
        format!(
            "rows are queries, columns keys: {size}{}{}; {}",
            shown(&part.query_positions, &whole.0, "queries"),
            shown(&part.key_positions, &whole.1, "keys"),
            choice.sums
        ),
    ]
}
