//! Chosen maps as one NumPy array or as CSV, row by row as they come.

use std::io::{self, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::header;
use crate::error::{Error, Result};
use crate::report::rows::{MapOf, MapSink, Row};

/// Writes an array of f32, `[queries, keys]` for one map and more dimensions before these for several.
/// What is masked or hidden is 0.
pub struct NpyMaps<W> {
    file: W,
    path: PathBuf,
    queries: usize,
    keys: usize,
    /// Where the first weight stands, and where the file is now.
    start: u64,
    at: u64,
}

impl<W: Write + Seek> NpyMaps<W> {
    /// `maps` are the dimensions before queries and keys; `path` is for messages.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn new(mut file: W, path: &Path, maps: &[usize], queries: usize, keys: usize) -> Result<NpyMaps<W>> {
        let shape = [maps, &[queries, keys]].concat();
        let begin = |file: &mut W| -> io::Result<u64> {
            header(file, "<f4", &shape)?;
            file.stream_position()
        };
        let start = begin(&mut file).map_err(Error::io(path, "write"))?;
        Ok(NpyMaps { file, path: path.into(), queries, keys, start, at: start })
    }
}

impl<W: Write + Seek> MapSink for NpyMaps<W> {
    fn row(&mut self, row: Row<'_>) -> Result<()> {
        let at = self.start + ((row.map * self.queries + row.row) * self.keys * 4) as u64;
        let bytes: Vec<u8> = row.weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
        let write = |file: &mut W| -> io::Result<()> {
            if at != self.at {
                file.seek(SeekFrom::Start(at))?;
            }
            file.write_all(&bytes)
        };
        write(&mut self.file).map_err(Error::io(&self.path, "write"))?;
        self.at = at + bytes.len() as u64;
        Ok(())
    }
}

/// Writes `layer,head,query,key,weight,query_token,key_token`, a line a weight without those that are 0,
/// by layer, head, query and key. `head` is `mean` for a mean over heads. A layer's maps are held at a
/// time.
pub struct CsvMaps<'a, W> {
    file: W,
    path: PathBuf,
    maps: &'a [MapOf],
    queries: Side<'a>,
    keys: Side<'a>,
    /// Of the layer at hand, the rows of each map.
    held: Vec<Vec<f32>>,
}

/// Rows or columns: the position of each, and its token as it is shown.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    pub positions: &'a [usize],
    pub tokens: &'a [String],
}

impl<'a, W: Write> CsvMaps<'a, W> {
    /// `path` is for messages.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn new(
        mut file: W,
        path: &Path,
        maps: &'a [MapOf],
        queries: Side<'a>,
        keys: Side<'a>,
    ) -> Result<CsvMaps<'a, W>> {
        writeln!(file, "layer,head,query,key,weight,query_token,key_token")
            .map_err(Error::io(path, "write"))?;
        Ok(CsvMaps { file, path: path.into(), maps, queries, keys, held: vec![vec![]; maps.len()] })
    }

    fn lines(&mut self, map: usize) -> io::Result<()> {
        let MapOf { layer, head } = self.maps[map];
        let head = head.map_or("mean".into(), |head| head.to_string());
        let weights = std::mem::take(&mut self.held[map]);
        let keys: Vec<String> = self.keys.tokens.iter().map(|token| quoted(token)).collect();
        for (row, weights) in weights.chunks_exact(keys.len().max(1)).enumerate() {
            let start = format!("{layer},{head},{}", self.queries.positions[row]);
            let query = quoted(&self.queries.tokens[row]);
            for (column, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight != 0.0) {
                let (key, token) = (self.keys.positions[column], &keys[column]);
                writeln!(self.file, "{start},{key},{weight},{query},{token}")?;
            }
        }
        Ok(())
    }
}

/// A field of a CSV line (RFC 4180).
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

impl<W: Write> MapSink for CsvMaps<'_, W> {
    fn row(&mut self, row: Row<'_>) -> Result<()> {
        self.held[row.map].extend_from_slice(row.weights);
        Ok(())
    }

    fn end_layer(&mut self, maps: Range<usize>) -> Result<()> {
        for map in maps {
            self.lines(map).map_err(Error::io(&self.path, "write"))?;
        }
        self.file.flush().map_err(Error::io(&self.path, "write"))
    }
}
