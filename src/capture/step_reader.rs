//! Reads one step's file, some rows of a tensor at a time: its header says where they stand.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::PathBuf;

use half::f16;
use half::slice::HalfFloatSliceExt;
use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensors};

use crate::error::{Error, Result};

/// Bytes that are read at a time where much is converted.
const PIECE: usize = 1 << 20;

pub(super) struct StepReader {
    path: PathBuf,
    file: File,
    metadata: Metadata,
    /// Where the tensors start.
    data: u64,
}

/// One layer of one step, read some rows at a time.
pub struct LayerReader {
    reader: StepReader,
    /// Each with its values a row.
    parts: Vec<(Values, usize)>,
    queries: usize,
}

impl LayerReader {
    pub(super) fn new(
        reader: StepReader,
        parts: impl Iterator<Item = (Values, usize)>,
        queries: usize,
    ) -> LayerReader {
        LayerReader { reader, parts: parts.collect(), queries }
    }

    /// Values in a row of a part (of [`Dump::parts`](super::Dump::parts)).
    pub fn columns(&self, part: usize) -> usize {
        self.parts[part].1
    }

    /// Some rows of a head (its place among the captured ones), `[rows, columns]`.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn f32s(&mut self, part: usize, head: usize, rows: Range<usize>) -> Result<Vec<f32>> {
        let (values, columns) = self.parts[part];
        self.reader.f32s(values, (head * self.queries + rows.start) * columns, rows.len() * columns)
    }

    /// The same of a part that holds positions of keys.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn keys(&mut self, part: usize, head: usize, rows: Range<usize>) -> Result<Vec<i32>> {
        let (values, columns) = self.parts[part];
        self.reader.i32s(values, (head * self.queries + rows.start) * columns, rows.len() * columns)
    }
}

/// Where a tensor's values stand.
#[derive(Clone, Copy)]
pub(super) struct Values {
    start: u64,
    dtype: Dtype,
    len: usize,
}

impl Values {
    /// As safetensors spells it.
    pub fn type_name(&self) -> String {
        format!("{:?}", self.dtype)
    }
}

impl StepReader {
    pub fn open(path: PathBuf) -> Result<StepReader> {
        let kind = fs::metadata(&path).map_err(Error::io(&path, "open"))?;
        let problem = |problem: String| Error::Dump { path: path.clone(), problem };
        if !kind.is_file() {
            return Err(problem("is no regular file".into()));
        }
        let file = File::open(&path).map_err(Error::io(&path, "open"))?;
        // SAFETY: a finished step's file is never written again; if another program shortens it
        // meanwhile, this process ends with SIGBUS. Only the header's pages are touched.
        let bytes = unsafe { memmap2::Mmap::map(&file) }.map_err(Error::io(&path, "map into memory"))?;
        let (header, metadata) = SafeTensors::read_metadata(&bytes)
            .map_err(|error| problem(format!("is no whole safetensors file: {error}")))?;
        drop(bytes);
        Ok(StepReader { path, file, metadata, data: header as u64 + 8 })
    }

    pub fn problem(&self, problem: String) -> Error {
        Error::Dump { path: self.path.clone(), problem }
    }

    /// A tensor that must have this shape, and one of these types.
    pub fn tensor(&self, name: &str, shape: &[usize], types: &[Dtype]) -> Result<Values> {
        let info = self.metadata.info(name).ok_or_else(|| self.problem(format!("holds no tensor {name}")))?;
        if info.shape != shape {
            let found = &info.shape;
            return Err(self.problem(format!("tensor {name} has shape {found:?}, expected {shape:?}")));
        }
        if !types.contains(&info.dtype) {
            let expected: Vec<String> = types.iter().map(|dtype| format!("{dtype:?}")).collect();
            let (found, expected) = (info.dtype, expected.join(" or "));
            return Err(self.problem(format!("tensor {name} holds {found:?}, expected {expected}")));
        }
        Ok(Values {
            start: self.data + info.data_offsets.0 as u64,
            dtype: info.dtype,
            len: shape.iter().product(),
        })
    }

    /// Some values of a tensor, widened to f32.
    pub fn f32s(&mut self, values: Values, from: usize, count: usize) -> Result<Vec<f32>> {
        let mut out = Vec::with_capacity(count);
        self.read(values, from, count, |bytes| match values.dtype {
            Dtype::F16 => {
                let halves = bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]));
                let halves: Vec<f16> = halves.collect();
                let start = out.len();
                out.resize(start + halves.len(), 0.0);
                halves.convert_to_f32_slice(&mut out[start..]);
            }
            _ => out.extend(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))),
        })?;
        Ok(out)
    }

    /// Some values of an I32 tensor.
    pub fn i32s(&mut self, values: Values, from: usize, count: usize) -> Result<Vec<i32>> {
        let mut out = Vec::with_capacity(count);
        self.read(values, from, count, |bytes| {
            out.extend(bytes.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])));
        })?;
        Ok(out)
    }

    /// All values of a tensor.
    pub fn all_f32s(&mut self, values: Values) -> Result<Vec<f32>> {
        self.f32s(values, 0, values.len)
    }

    pub fn all_i32s(&mut self, values: Values) -> Result<Vec<i32>> {
        self.i32s(values, 0, values.len)
    }

    /// Lends bytes in pieces of whole values.
    fn read(&mut self, values: Values, from: usize, count: usize, mut lend: impl FnMut(&[u8])) -> Result<()> {
        let size = values.dtype.bitsize() / 8;
        let read = |file: &mut File, lend: &mut dyn FnMut(&[u8])| -> std::io::Result<()> {
            file.seek(SeekFrom::Start(values.start + (from * size) as u64))?;
            let mut piece = vec![0u8; PIECE.min(count * size)];
            let mut left = count * size;
            while left > 0 {
                let part = &mut piece[..left.min(PIECE)];
                file.read_exact(part)?;
                lend(part);
                left -= part.len();
            }
            Ok(())
        };
        read(&mut self.file, &mut lend).map_err(Error::io(&self.path, "read"))
    }
}
