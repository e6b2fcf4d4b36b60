//! One step's file, mapped into memory: single rows of single heads, for readers that must not
//! load whole layers.

use std::fs;

use half::f16;
use half::slice::HalfFloatSliceExt;
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use super::dump::Dump;
use super::format::{StepRecord, tensor_name};
use crate::error::{Error, Result};

/// The maps of one step; a row is read when it is asked for.
pub struct StepMaps {
    bytes: Mmap,
    record: StepRecord,
    /// Where each captured layer's tensor starts, and its type, in the manifest's order.
    layers: Vec<(usize, Dtype)>,
}

impl StepMaps {
    /// Opens a step of a dump and checks that its file holds what its line says.
    ///
    /// # Errors
    /// If there is no such step, or the file is damaged.
    pub fn open(dump: &Dump, step: usize) -> Result<StepMaps> {
        let record = dump.steps().get(step).cloned().ok_or_else(|| Error::Dump {
            path: dump.folder().to_path_buf(),
            problem: format!("there is no step {step}; it holds {}", dump.steps().len()),
        })?;
        let path = dump.folder().join(&record.file);
        let problem = |problem: String| Error::Dump { path: path.clone(), problem };
        let kind = fs::metadata(&path).map_err(Error::io(&path, "open"))?;
        if !kind.is_file() {
            return Err(problem("is no regular file".into()));
        }
        let file = fs::File::open(&path).map_err(Error::io(&path, "open"))?;
        // SAFETY: a finished step's file is never written again; if another program shortens it
        // meanwhile, this process ends with SIGBUS.
        let bytes = unsafe { Mmap::map(&file) }.map_err(Error::io(&path, "map into memory"))?;
        let tensors = SafeTensors::deserialize(&bytes)
            .map_err(|error| problem(format!("is no whole safetensors file: {error}")))?;
        let mut layers = vec![];
        for captured in &dump.manifest().layers {
            let name = tensor_name(captured.layer);
            let tensor = tensors.tensor(&name).map_err(|_| problem(format!("holds no tensor {name}")))?;
            let expected = [captured.heads.len(), record.queries, record.keys];
            if tensor.shape() != expected {
                let found = tensor.shape();
                return Err(problem(format!("tensor {name} has shape {found:?}, expected {expected:?}")));
            }
            if !matches!(tensor.dtype(), Dtype::F32 | Dtype::F16) {
                let found = tensor.dtype();
                return Err(problem(format!("tensor {name} holds {found:?}, expected F32 or F16")));
            }
            layers.push((tensor.data().as_ptr() as usize - bytes.as_ptr() as usize, tensor.dtype()));
        }
        Ok(StepMaps { bytes, record, layers })
    }

    /// What the dump says of the step.
    pub fn record(&self) -> &StepRecord {
        &self.record
    }

    /// Keys `from..from + out.len()` of one row; `layer` and `head` count what was captured, in the
    /// manifest's order, `query` the step's rows.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, layer: usize, head: usize, query: usize, from: usize, out: &mut [f32]) {
        let StepRecord { queries, keys, .. } = self.record;
        assert!(query < queries && from + out.len() <= keys, "a row of the step");
        let (start, dtype) = self.layers[layer];
        let at = (head * queries + query) * keys + from;
        match dtype {
            Dtype::F16 => {
                let bytes = &self.bytes[start + 2 * at..][..2 * out.len()];
                let mut halves = [f16::ZERO; 512];
                for (out, bytes) in out.chunks_mut(halves.len()).zip(bytes.chunks(2 * halves.len())) {
                    for (half, b) in halves.iter_mut().zip(bytes.chunks_exact(2)) {
                        *half = f16::from_le_bytes([b[0], b[1]]);
                    }
                    halves[..out.len()].convert_to_f32_slice(out);
                }
            }
            _ => {
                let bytes = &self.bytes[start + 4 * at..][..4 * out.len()];
                for (out, b) in out.iter_mut().zip(bytes.chunks_exact(4)) {
                    *out = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                }
            }
        }
    }
}
