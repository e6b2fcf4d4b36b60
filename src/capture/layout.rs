//! Where everything stands in a step's file: one safetensors header for each kind of recording, known
//! when a step starts, and so also how large a dump will be before there is one.

use super::format::{AttentionDtype, LayerHeads, Manifest};
use super::kind::{AttentionKind, Rows};
use super::overview;
use crate::kernels::row_statistics::STATISTICS;

/// What follows a layer's name in the names of its tensors, the type, and how many values there are
/// for each row.
#[derive(PartialEq)]
pub(super) struct Part {
    /// Empty: the layer's name alone.
    pub what: &'static str,
    /// As safetensors spells it.
    pub dtype: &'static str,
    /// Bytes of a value.
    pub size: usize,
    /// `None`: one value a row, and the tensor has two dimensions.
    pub columns: Option<usize>,
}

impl Part {
    /// Bytes of a row.
    pub fn row_bytes(&self) -> usize {
        self.columns.unwrap_or(1) * self.size
    }

    /// `layer.003`, `layer.003.entropy`.
    pub fn name(&self, layer: usize) -> String {
        let dot = if self.what.is_empty() { "" } else { "." };
        format!("{}{dot}{}", super::format::tensor_name(layer), self.what)
    }

    pub fn shape(&self, heads: usize, rows: usize) -> Vec<usize> {
        [heads, rows].into_iter().chain(self.columns).collect()
    }
}

/// The tensors that a layer has in a step with this many keys.
pub(super) fn parts(kind: AttentionKind, dtype: AttentionDtype, keys: usize) -> Vec<Part> {
    let weights = |what, columns| Part {
        what,
        dtype: dtype.tensor_dtype(),
        size: dtype.size(),
        columns: Some(columns),
    };
    let number = |what| Part { what, dtype: "F32", size: 4, columns: None };
    match kind {
        AttentionKind::Full => vec![weights("", keys)],
        AttentionKind::Top(count) => {
            let count = count.min(keys);
            let positions = Part { what: "top_keys", dtype: "I32", size: 4, columns: Some(count) };
            vec![weights("top_weights", count), positions, number("rest")]
        }
        AttentionKind::Stats => STATISTICS.map(number).into(),
    }
}

/// One step's file.
pub(super) struct Layout {
    pub rows: Rows,
    pub keys: usize,
    pub parts: Vec<Part>,
    /// The file's beginning, up to the first tensor.
    pub header: Vec<u8>,
    /// Where the tensors start in the file: layer by layer those of the parts.
    starts: Vec<usize>,
    /// Bytes of the whole file.
    pub len: usize,
}

impl Layout {
    pub fn new(manifest: &Manifest, rows: Rows, keys: usize) -> Layout {
        let parts = parts(manifest.kind, manifest.attention_dtype, keys);
        let tensors = manifest.layers.len() * parts.len();
        let (mut starts, mut at) = (Vec::with_capacity(tensors), 0);
        // A generated token waits for this: so it is put together by hand.
        let mut header = Vec::with_capacity(16 + 96 * tensors);
        header.extend([0; 8]);
        let mut begin = "{\"layer.";
        for LayerHeads { layer, heads, .. } in &manifest.layers {
            for part in &parts {
                let end = at + heads.len() * rows.count * part.row_bytes();
                push(&mut header, begin);
                push(&mut header, ["00", "0", ""][usize::from(*layer > 9) + usize::from(*layer > 99)]);
                push_number(&mut header, *layer);
                push(&mut header, if part.what.is_empty() { "" } else { "." });
                push(&mut header, part.what);
                push(&mut header, "\":{\"dtype\":\"");
                push(&mut header, part.dtype);
                push(&mut header, "\",\"shape\":[");
                push_number(&mut header, heads.len());
                push(&mut header, ", ");
                push_number(&mut header, rows.count);
                if let Some(columns) = part.columns {
                    push(&mut header, ", ");
                    push_number(&mut header, columns);
                }
                push(&mut header, "],\"data_offsets\":[");
                push_number(&mut header, at);
                push(&mut header, ",");
                push_number(&mut header, end);
                push(&mut header, "]}");
                starts.push(std::mem::replace(&mut at, end));
                begin = ",\"layer.";
            }
        }
        push(&mut header, if tensors == 0 { "{}" } else { "}" });
        // The data starts at a multiple of 8, as the safetensors library writes it.
        header.resize(header.len().next_multiple_of(8), b' ');
        let json = header.len() as u64 - 8;
        header[..8].copy_from_slice(&json.to_le_bytes());
        starts.iter_mut().for_each(|start| *start += header.len());
        let len = header.len() + at;
        Layout { rows, keys, parts, header, starts, len }
    }

    /// That of another step: the same but for its positions, if its tensors are.
    pub fn of_next(self, manifest: &Manifest, rows: Rows, keys: usize) -> Layout {
        let parts = parts(manifest.kind, manifest.attention_dtype, keys);
        match rows.count == self.rows.count && parts == self.parts {
            true => Layout { rows, keys, ..self },
            false => Layout::new(manifest, rows, keys),
        }
    }

    /// Where a row of a tensor starts: of the layer and the head that stand at these places among the
    /// captured ones.
    pub fn place(&self, layer: usize, part: usize, head: usize, row: usize) -> usize {
        let start = self.starts[layer * self.parts.len() + part];
        start + (head * self.rows.count + row) * self.parts[part].row_bytes()
    }
}

fn push(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

fn push_number(out: &mut Vec<u8>, mut number: usize) {
    let mut digits = [0; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[first..]);
}

/// Bytes of a dump: of its overview, of the step files of a prompt and of the steps behind it that feed
/// one token each, and about what the lines of its other files take.
pub(super) fn dump_bytes(manifest: &Manifest, prompt_tokens: usize, new_tokens: usize) -> u64 {
    let heads: usize = manifest.layers.iter().map(|layer| layer.heads.len()).sum();
    let rows = |first: usize, keys: usize| manifest.queries.of(first..keys);
    let tensors = |first: usize, keys: usize| {
        let parts = parts(manifest.kind, manifest.attention_dtype, keys);
        let row_bytes: usize = parts.iter().map(Part::row_bytes).sum();
        (heads * rows(first, keys).count * row_bytes) as u64
    };
    let header =
        |first: usize, keys: usize| Layout::new(manifest, rows(first, keys), keys).header.len() as u64;
    let later = new_tokens.saturating_sub(1);
    let positions = prompt_tokens + later;
    let maps = tensors(0, prompt_tokens)
        + (prompt_tokens..positions).map(|position| tensors(position, position + 1)).sum::<u64>();
    let overview = match overview::worth_it(manifest, tensors(0, prompt_tokens), prompt_tokens) {
        true => overview::file_bytes(manifest, positions),
        false => 0,
    };
    let manifest_bytes = serde_json::to_vec_pretty(manifest).map_or(0, |json| json.len() as u64);
    // About; those of generated tokens have a probability.
    const PROMPT_LINE: u64 = 80;
    const GENERATED_LINE: u64 = 100;
    const STEP_LINE: u64 = 90;
    manifest_bytes
        + header(0, prompt_tokens)
        + maps
        + overview
        + later as u64 * header(positions.saturating_sub(1), positions)
        + prompt_tokens as u64 * PROMPT_LINE
        + new_tokens as u64 * GENERATED_LINE
        + (1 + later) as u64 * STEP_LINE
}
