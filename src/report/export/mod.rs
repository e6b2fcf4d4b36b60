//! A dump as NumPy arrays or as CSV, a few rows at a time whatever its size.

pub mod maps;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::f16;

use crate::capture::format::tensor_name;
use crate::capture::{AttentionDtype, AttentionKind, Dump, LayerReader};
use crate::error::{Error, Result};

/// Values that are read at a time.
const TOGETHER: usize = 1 << 18;

/// Writes a folder of arrays: for each captured layer one of all steps' rows,
/// `layer.000.npy` `[heads, rows, keys]` (keys up to the last step's; zeros where a row's step had
/// fewer), or for the other kinds `layer.000.entropy.npy` `[heads, rows]` and so on, each named and
/// typed as the dump's tensors are; and `queries.npy` `[rows]`, the position of each row's query.
///
/// # Errors
/// If `out` exists and is not an empty folder, the dump is damaged, or the disk is full.
pub fn npy(dump: &Dump, out: &Path) -> Result<()> {
    let occupied = fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some());
    if occupied || out.is_file() {
        return Err(exists(out));
    }
    fs::create_dir_all(out).map_err(Error::io(out, "create"))?;
    let rows: usize = dump.steps().iter().map(|step| step.queries).sum();
    for captured in &dump.manifest().layers {
        for (part, what) in dump.parts().into_iter().enumerate() {
            let dot = if what.is_empty() { "" } else { "." };
            let path = out.join(format!("{}{dot}{what}.npy", tensor_name(captured.layer)));
            let array = Array { dump, layer: captured.layer, part, what };
            written(&path, |file| array.write(file, captured.heads.len(), rows, &path))?;
        }
    }
    // The last, so that it tells whoever waits that the others are there.
    let path = out.join("queries.npy");
    written(&path, |file| {
        let positions = dump.steps().iter().flat_map(|step| {
            let rows = step.rows();
            (0..rows.count).map(move |row| rows.position(row) as i64)
        });
        let write = |file: &mut BufWriter<File>| -> io::Result<()> {
            header(file, "<i8", &[rows])?;
            positions.into_iter().try_for_each(|position| file.write_all(&position.to_le_bytes()))
        };
        write(file).map_err(Error::io(&path, "write"))
    })
}

fn exists(out: &Path) -> Error {
    let problem = "is there already; give a new name";
    Error::Dump { path: out.to_path_buf(), problem: problem.into() }
}

/// Writes a file beside its place, and gives it its name once it is whole.
fn written(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let mut file = BufWriter::new(File::create(&part).map_err(Error::io(&part, "create"))?);
    let done = write(&mut file)
        .and_then(|()| file.flush().map_err(Error::io(&part, "write")))
        .and_then(|()| fs::rename(&part, path).map_err(Error::io(path, "name")));
    if done.is_err() {
        // What failed is reported; a part would only take room.
        let _ = fs::remove_file(&part);
    }
    done
}

/// The beginning of an `.npy` file, version 1.0, in C order.
fn header(file: &mut impl Write, dtype: &str, shape: &[usize]) -> io::Result<()> {
    let shape: String = shape.iter().map(|size| format!("{size}, ")).collect();
    let mut dict =
        format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({}), }}", shape.trim_end());
    // Magic, version and length take 10 bytes; the data starts at a multiple of 64.
    let padded = (10 + dict.len() + 1).next_multiple_of(64) - 10;
    dict.extend(std::iter::repeat_n(' ', padded - 1 - dict.len()));
    dict.push('\n');
    file.write_all(b"\x93NUMPY\x01\x00")?;
    file.write_all(&(dict.len() as u16).to_le_bytes())?;
    file.write_all(dict.as_bytes())
}

/// One tensor of one layer, over all steps.
struct Array<'d> {
    dump: &'d Dump,
    layer: usize,
    part: usize,
    what: &'static str,
}

impl Array<'_> {
    fn write(&self, file: &mut BufWriter<File>, heads: usize, rows: usize, path: &Path) -> Result<()> {
        let manifest = self.dump.manifest();
        let keys = self.dump.steps().iter().map(|step| step.keys).max().unwrap_or(0);
        let columns = match (manifest.kind, self.what) {
            (AttentionKind::Full, _) => Some(keys),
            (AttentionKind::Top(count), "top_weights" | "top_keys") => Some(count.min(keys)),
            _ => None,
        };
        let halves = columns.is_some() && manifest.attention_dtype == AttentionDtype::F16;
        let dtype = match self.what {
            "top_keys" => "<i4",
            _ if halves => "<f2",
            _ => "<f4",
        };
        let shape: Vec<usize> = [heads, rows].into_iter().chain(columns).collect();
        header(file, dtype, &shape).map_err(Error::io(path, "write"))?;
        let width = columns.unwrap_or(1);
        for head in 0..heads {
            for step in self.dump.steps() {
                let mut layer = self.dump.layer(step.step, self.layer)?;
                for block in blocks(step.queries, layer.columns(self.part)) {
                    let bytes = self.rows(&mut layer, head, block, width, dtype)?;
                    file.write_all(&bytes).map_err(Error::io(path, "write"))?;
                }
            }
        }
        Ok(())
    }

    /// Rows as bytes, each filled up to `width` values.
    fn rows(
        &self,
        layer: &mut LayerReader,
        head: usize,
        rows: Range<usize>,
        width: usize,
        dtype: &str,
    ) -> Result<Vec<u8>> {
        let columns = layer.columns(self.part);
        let mut bytes = vec![];
        if dtype == "<i4" {
            for row in layer.keys(self.part, head, rows)?.chunks_exact(columns) {
                let none = std::iter::repeat_n(-1, width - columns);
                bytes.extend(row.iter().copied().chain(none).flat_map(i32::to_le_bytes));
            }
            return Ok(bytes);
        }
        for row in layer.f32s(self.part, head, rows)?.chunks_exact(columns) {
            let row = row.iter().copied().chain(std::iter::repeat_n(0.0, width - columns));
            if dtype == "<f2" {
                bytes.extend(row.flat_map(|value| f16::from_f32(value).to_le_bytes()));
            } else {
                bytes.extend(row.flat_map(f32::to_le_bytes));
            }
        }
        Ok(bytes)
    }
}

/// Ranges of rows that are read together.
fn blocks(rows: usize, columns: usize) -> impl Iterator<Item = Range<usize>> {
    let together = (TOGETHER / columns.max(1)).max(1);
    (0..rows).step_by(together).map(move |from| from..rows.min(from + together))
}

/// Writes one CSV file with a line of names:
///
/// - of whole rows `step,layer,head,query,key,weight`, without the weights that are 0;
/// - of `top:K` the same, and for each row a line without a key: the sum of all other weights;
/// - of `stats` `step,layer,head,query,entropy,first_token,self,previous_token,mean_distance`.
///
/// # Errors
/// If `out` exists, the dump is damaged, or the disk is full.
pub fn csv(dump: &Dump, out: &Path) -> Result<()> {
    if out.exists() {
        return Err(exists(out));
    }
    written(out, |file| {
        let mut line =
            |text: std::fmt::Arguments<'_>| writeln!(file, "{text}").map_err(Error::io(out, "write"));
        if dump.manifest().kind == AttentionKind::Stats {
            line(format_args!("step,layer,head,query,{}", dump.parts().join(",")))?;
        } else {
            line(format_args!("step,layer,head,query,key,weight"))?;
        }
        for step in dump.steps() {
            for captured in &dump.manifest().layers {
                let mut layer = dump.layer(step.step, captured.layer)?;
                for (place, head) in captured.heads.iter().enumerate() {
                    for block in blocks(step.queries, layer.columns(0)) {
                        let start = |row: usize| {
                            let query = step.rows().position(row);
                            format!("{},{},{head},{query}", step.step, captured.layer)
                        };
                        csv_rows(dump.manifest().kind, &mut layer, place, block, start, &mut line)?;
                    }
                }
            }
        }
        Ok(())
    })
}

/// Some rows of a head; `start` gives what each line begins with.
fn csv_rows(
    kind: AttentionKind,
    layer: &mut LayerReader,
    head: usize,
    rows: Range<usize>,
    start: impl Fn(usize) -> String,
    line: &mut dyn FnMut(std::fmt::Arguments<'_>) -> Result<()>,
) -> Result<()> {
    match kind {
        AttentionKind::Full => {
            let weights = layer.f32s(0, head, rows.clone())?;
            for (row, weights) in rows.zip(weights.chunks_exact(layer.columns(0))) {
                let start = start(row);
                for (key, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight != 0.0) {
                    line(format_args!("{start},{key},{weight}"))?;
                }
            }
        }
        AttentionKind::Top(_) => {
            let columns = layer.columns(0);
            let weights = layer.f32s(0, head, rows.clone())?;
            let keys = layer.keys(1, head, rows.clone())?;
            let rest = layer.f32s(2, head, rows.clone())?;
            for (index, row) in rows.enumerate() {
                let start = start(row);
                let listed = index * columns..(index + 1) * columns;
                for (key, weight) in keys[listed.clone()].iter().zip(&weights[listed]) {
                    if *key >= 0 {
                        line(format_args!("{start},{key},{weight}"))?;
                    }
                }
                line(format_args!("{start},,{}", rest[index]))?;
            }
        }
        AttentionKind::Stats => {
            let parts = crate::kernels::row_statistics::STATISTICS.len();
            let numbers = (0..parts).map(|part| layer.f32s(part, head, rows.clone()));
            let numbers = numbers.collect::<Result<Vec<_>>>()?;
            for (index, row) in rows.enumerate() {
                let numbers: Vec<String> = numbers.iter().map(|part| part[index].to_string()).collect();
                line(format_args!("{},{}", start(row), numbers.join(",")))?;
            }
        }
    }
    Ok(())
}
