//! A checkpoint written again with its matrices in another type, as a folder that loads without
//! that work: one `model.safetensors`, and the other files as they are.
//!
//! f32, bf16 and f16 are safetensors' own. A quantised matrix is a U8 tensor `[rows, bytes of a
//! row]` of ggml's blocks, and the file's metadata names its type.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use safetensors::Dtype;

use super::named_weights::transpose;
use super::source::Source;
use super::weights::{QUANTIZED_KEY, StoredTensor, TURNED_KEY};
use super::{Checkpoint, HeldMatrix};
use crate::error::{Error, Result};
use crate::kernels::Pool;
use crate::kernels::matmul::{ElementType, RawMatrix};
use crate::model::Module;

/// What else belongs to a model, where it is there.
const COPIED: [&str; 14] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "chat_template.jinja",
    "chat_template.json",
    "README.md",
    "LICENSE",
    "NOTICE",
];

/// Writes the folder `out`, with matrices held as `element` where they can be; answers as what each
/// is. Everything that is no matrix of the model stays as it is.
///
/// The folder appears once it is whole; `interrupt`, raised, leaves nothing behind.
///
/// # Errors
/// If the checkpoint is a GGUF file, `out` holds something already, or lies in the checkpoint's own folder, or cannot be written.
pub fn convert(
    checkpoint: &Checkpoint,
    out: &Path,
    element: ElementType,
    threads: usize,
    interrupt: &AtomicBool,
) -> Result<Vec<HeldMatrix>> {
    if let Source::Gguf(file) = &checkpoint.source {
        return Err(Error::Usage(format!(
            "{} is a GGUF file: only folders are converted; it loads as it is, with --dtype too",
            file.path.display()
        )));
    }
    let out = destination(&checkpoint.source, out)?;
    let held = checkpoint.held(Some(element))?;
    let targets = targets(checkpoint, &held);
    let partial = Partial::create(&out)?;
    for name in COPIED {
        if let Some(bytes) = checkpoint.source.read(name)? {
            let path = partial.0.join(name);
            fs::write(&path, bytes).map_err(Error::io(&path, "write"))?;
        }
    }
    let path = partial.0.join("model.safetensors");
    match write_weights(checkpoint, &targets, &path, &Pool::new(threads), interrupt) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(Error::Interrupted),
        written => written.map_err(Error::io(&path, "write"))?,
    }
    if out.exists() {
        fs::remove_dir(&out).map_err(Error::io(&out, "replace"))?;
    }
    fs::rename(&partial.0, &out).map_err(Error::io(&out, "write"))?;
    Ok(held)
}

/// What each matrix' tensors become when they are written as it is held. Modules that share a tensor
/// have equal rows, and so the same type.
fn targets(checkpoint: &Checkpoint, held: &[HeldMatrix]) -> HashMap<String, Target> {
    let named = checkpoint.named_weights();
    let target = |matrix: &HeldMatrix| {
        let transposed = (checkpoint.family.place)(&checkpoint.config, matrix.parameter.module).transposed;
        let target = Target { element: matrix.held, transposed };
        named.names(matrix.parameter).into_iter().map(move |name| (name, target))
    };
    let mut targets: HashMap<String, Target> = held.iter().flat_map(target).collect();
    // A copy of the embedding stays one, or it would be another head.
    let [head, embedding] = [Module::OutputHead, Module::Embedding].map(|module| module.weight());
    if checkpoint.config.tied_head
        && let Some(target) = named.names(embedding).first().and_then(|name| targets.get(name)).copied()
    {
        targets.extend(named.names(head).into_iter().map(|name| (name, target)));
    }
    targets
}

/// The folder's full path, checked to be free.
fn destination(source: &Source, out: &Path) -> Result<PathBuf> {
    let out = std::path::absolute(out).map_err(Error::io(out, "find"))?;
    let refuse = |problem: &str| Err(Error::Usage(format!("{}: {problem}", out.display())));
    let (Some(parent), Some(name)) = (out.parent(), out.file_name()) else {
        return refuse("is no name for a new folder");
    };
    let parent = parent.canonicalize().map_err(Error::io(parent, "open"))?;
    let out = parent.join(name);
    if let Source::Folder(folder) = source {
        let folder = folder.canonicalize().map_err(Error::io(folder, "open"))?;
        if out.canonicalize().unwrap_or_else(|_| out.clone()).starts_with(&folder) {
            return refuse("lies in the folder that is to be converted; choose another place");
        }
    }
    match fs::read_dir(&out) {
        Ok(mut entries) => match entries.next() {
            None => Ok(out),
            Some(_) => refuse("exists and is not empty; choose another name, or remove it"),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(out),
        Err(error) => Err(Error::io(&out, "write the folder")(error)),
    }
}

/// The folder while it is being written, under a name that says so; removed again unless it was
/// renamed.
struct Partial(PathBuf);

impl Partial {
    fn create(out: &Path) -> Result<Partial> {
        let name = out.file_name().unwrap_or_default().to_string_lossy();
        let path = out.with_file_name(format!(".{name}.{}.partial", std::process::id()));
        fs::create_dir(&path).map_err(Error::io(&path, "make the folder"))?;
        Ok(Partial(path))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After the rename there is nothing by this name, and nobody to tell of a failure.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What becomes of a tensor.
#[derive(Clone, Copy)]
struct Target {
    element: ElementType,
    /// Its family stores it inputs × outputs: blocks run along the inputs, so it has to be turned.
    transposed: bool,
}

/// A tensor to be written.
struct Planned<'a> {
    name: &'a str,
    stored: StoredTensor<'a>,
    /// `None`: its bytes as they are.
    convert: Option<ElementType>,
    turn: bool,
}

impl Planned<'_> {
    /// The type of blocks that the file will hold, where it is one.
    fn quantized(&self) -> Option<ElementType> {
        self.convert.or(self.stored.element).filter(|element| element.is_quantized())
    }

    /// Type, shape and size in the file.
    fn header(&self) -> (Dtype, Vec<usize>, usize) {
        let StoredTensor { dtype, shape, bytes, .. } = self.stored;
        let (dtype, element) = match self.quantized().or(self.convert) {
            None => return (dtype, shape.to_vec(), bytes.len()),
            Some(ElementType::F32) => (Dtype::F32, ElementType::F32),
            Some(ElementType::Bf16) => (Dtype::BF16, ElementType::Bf16),
            Some(ElementType::F16) => (Dtype::F16, ElementType::F16),
            Some(quantized) => (Dtype::U8, quantized),
        };
        let &[mut rows, mut columns] = shape else { unreachable!("only matrices have another type") };
        if self.turn {
            (rows, columns) = (columns, rows);
        }
        let row_bytes = element.row_bytes(columns).expect("the type was chosen for these rows");
        let width = if dtype == Dtype::U8 { row_bytes } else { columns };
        (dtype, vec![rows, width], rows * row_bytes)
    }
}

fn write_weights(
    checkpoint: &Checkpoint,
    targets: &HashMap<String, Target>,
    path: &Path,
    pool: &Pool,
    interrupt: &AtomicBool,
) -> io::Result<()> {
    let weights = checkpoint.weights();
    let mut planned: Vec<Planned<'_>> = weights
        .names()
        .filter_map(|name| {
            let stored = weights.tensor(name)?;
            let target = targets.get(name);
            let convert = target.map(|to| to.element).filter(|element| Some(*element) != stored.element);
            let turn = target.is_some_and(|to| to.transposed)
                && !stored.turned
                && convert.is_some_and(ElementType::is_quantized);
            Some(Planned { name, stored, convert, turn })
        })
        .collect();
    // Wide types first, so that each tensor starts at a multiple of its own size.
    planned.sort_by_key(|tensor| {
        let wide = usize::MAX - tensor.header().0.bitsize();
        (tensor.quantized().is_some(), wide, tensor.name)
    });
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&header(&planned)?)?;
    for tensor in &planned {
        if interrupt.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        match (tensor.convert, tensor.stored.element, tensor.stored.shape) {
            (Some(to), Some(element), &[rows, columns]) => {
                let mut raw = RawMatrix { rows, columns, element, bytes: tensor.stored.bytes.into() };
                if tensor.turn {
                    raw = transpose(&raw);
                }
                file.write_all(&raw.converted(pool, to).bytes)?;
            }
            _ => file.write_all(tensor.stored.bytes)?,
        }
        weights.release();
    }
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// The length of the header and the header, filled up with spaces to a multiple of 8.
fn header(planned: &[Planned<'_>]) -> io::Result<Vec<u8>> {
    let mut metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let mut entries = BTreeMap::new();
    let mut start = 0;
    for tensor in planned {
        let (dtype, shape, len) = tensor.header();
        let entry = serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": [start, start + len]});
        entries.insert(tensor.name.to_owned(), entry);
        start += len;
        if let Some(element) = tensor.quantized() {
            metadata.insert(format!("{QUANTIZED_KEY}{}", tensor.name), element.name().to_owned());
        }
        if tensor.turn || tensor.stored.turned {
            metadata.insert(format!("{TURNED_KEY}{}", tensor.name), "true".to_owned());
        }
    }
    entries.insert("__metadata__".to_owned(), serde_json::to_value(metadata)?);
    let mut json = serde_json::to_vec(&entries)?;
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.append(&mut json);
    Ok(header)
}
