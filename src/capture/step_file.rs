//! One step's file, `steps/00000.safetensors`: shapes are known when the step starts, so the header
//! is written first and rows go to their places as they come. The file gets its name when it is
//! whole; until then it is called `….part`.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::format::{AttentionDtype, LayerHeads, tensor_name};
use crate::error::{Error, Result};
use crate::model::{AttentionRows, StepShape};

/// Steps of up to this many bytes are put together in memory and written at once.
const SMALL: usize = 1 << 20;

pub(super) struct StepFile {
    path: PathBuf,
    part: PathBuf,
    file: File,
    shape: StepShape,
    dtype: AttentionDtype,
    /// Where each captured layer starts, behind the header.
    layer_starts: Vec<usize>,
    header_len: usize,
    /// A small step, its header included.
    whole: Option<Vec<u8>>,
    finished: bool,
}

impl StepFile {
    pub(super) fn create(
        path: &Path,
        shape: StepShape,
        layers: &[LayerHeads],
        dtype: AttentionDtype,
    ) -> Result<StepFile> {
        let (header, layer_starts, data_len) = header(shape, layers, dtype);
        let part = path.with_extension("part");
        let mut file = File::create(&part).map_err(Error::io(&part, "create"))?;
        let len = header.len() + data_len;
        let whole = if len <= SMALL {
            let mut whole = header.clone();
            whole.resize(len, 0);
            Some(whole)
        } else {
            file.write_all(&header).map_err(Error::io(&part, "write"))?;
            file.set_len(len as u64).map_err(Error::io(&part, "make room in"))?;
            None
        };
        let header_len = header.len();
        Ok(StepFile {
            path: path.to_path_buf(),
            part,
            file,
            shape,
            dtype,
            layer_starts,
            header_len,
            whole,
            finished: false,
        })
    }

    /// Puts rows of the layer that stands at `index` among the captured ones to their places.
    pub(super) fn write(&mut self, index: usize, heads: &[usize], rows: AttentionRows<'_>) -> Result<()> {
        let StepShape { first_query, queries, keys } = self.shape;
        let row_bytes = keys * self.dtype.size();
        let first_row = rows.first_query - first_query;
        let mut block = Vec::new();
        for (place, head) in heads.iter().enumerate() {
            let start = self.layer_starts[index] + (place * queries + first_row) * row_bytes;
            block.clear();
            encode(rows.head(*head), rows.keys, keys, self.dtype, &mut block);
            self.put(self.header_len + start, &block)?;
        }
        Ok(())
    }

    fn put(&mut self, at: usize, bytes: &[u8]) -> Result<()> {
        if let Some(whole) = &mut self.whole {
            whole[at..at + bytes.len()].copy_from_slice(bytes);
            return Ok(());
        }
        self.file
            .seek(SeekFrom::Start(at as u64))
            .and_then(|_| self.file.write_all(bytes))
            .map_err(Error::io(&self.part, "write"))
    }

    /// Gives the whole file its name.
    pub(super) fn finish(mut self) -> Result<()> {
        if let Some(whole) = &self.whole {
            self.file.write_all(whole).map_err(Error::io(&self.part, "write"))?;
        }
        std::fs::rename(&self.part, &self.path).map_err(Error::io(&self.path, "name"))?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for StepFile {
    fn drop(&mut self) {
        if !self.finished {
            // What ended the step is reported; a part left over would only take room.
            let _ = std::fs::remove_file(&self.part);
        }
    }
}

/// Appends rows `[queries][columns]`, each filled up with zeros to `keys`.
fn encode(rows: &[f32], columns: usize, keys: usize, dtype: AttentionDtype, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + rows.len() / columns * keys * dtype.size(), 0);
    let encoded = out[start..].chunks_exact_mut(keys * dtype.size());
    let mut halves = vec![f16::ZERO; if dtype == AttentionDtype::F16 { columns } else { 0 }];
    for (row, encoded) in rows.chunks_exact(columns).zip(encoded) {
        match dtype {
            AttentionDtype::F32 => put(row.iter().map(|weight| weight.to_le_bytes()), encoded),
            AttentionDtype::F16 => {
                halves.convert_from_f32_slice(row);
                put(halves.iter().map(|weight| weight.to_le_bytes()), encoded);
            }
        }
    }
}

/// Puts values of `SIZE` bytes at the start of a row: a loop of copies of a fixed size, which becomes
/// one of vectors.
fn put<const SIZE: usize>(values: impl Iterator<Item = [u8; SIZE]>, row: &mut [u8]) {
    for (value, to) in values.zip(row.as_chunks_mut::<SIZE>().0) {
        *to = value;
    }
}

/// The header of a safetensors file, its tensors' starts, and the bytes that follow it.
fn header(shape: StepShape, layers: &[LayerHeads], dtype: AttentionDtype) -> (Vec<u8>, Vec<usize>, usize) {
    let (mut starts, mut at) = (vec![], 0);
    let mut json = String::from("{");
    for layer in layers {
        let end = at + layer.heads.len() * shape.queries * shape.keys * dtype.size();
        let comma = if starts.is_empty() { "" } else { "," };
        json.push_str(&format!(
            r#"{comma}"{}":{{"dtype":"{}","shape":[{},{},{}],"data_offsets":[{at},{end}]}}"#,
            tensor_name(layer.layer),
            dtype.tensor_dtype(),
            layer.heads.len(),
            shape.queries,
            shape.keys,
        ));
        starts.push(at);
        at = end;
    }
    json.push('}');
    // The data starts at a multiple of 8, as the safetensors library writes it.
    let padded = json.len().next_multiple_of(8);
    json.extend(std::iter::repeat_n(' ', padded - json.len()));
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.extend_from_slice(json.as_bytes());
    (header, starts, at)
}
