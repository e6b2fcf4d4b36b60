//! Writes GGUF files: a tiny llama, to be damaged, or with another tokenizer.
#![allow(dead_code)] // each test binary uses its own part

/// A metadata value.
#[derive(Clone)]
pub enum Value {
    U32(u32),
    F32(f32),
    Flag(bool),
    Text(String),
    Texts(Vec<String>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
}

/// What to write; everything can be changed first.
#[derive(Clone)]
pub struct GgufWriter {
    pub magic: [u8; 4],
    pub version: u32,
    pub values: Vec<(String, Value)>,
    pub tensors: Vec<Tensor>,
    pub data: Vec<u8>,
}

#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    /// The fastest first, as the file has it.
    pub dimensions: Vec<u64>,
    pub tensor_type: u32,
    pub offset: u64,
}

pub fn text(text: &str) -> Value {
    Value::Text(text.into())
}

impl GgufWriter {
    /// A llama of one layer and `vocabulary` tokens, its weights all different.
    pub fn llama(vocabulary: u64) -> GgufWriter {
        let mut file =
            GgufWriter { magic: *b"GGUF", version: 3, values: vec![], tensors: vec![], data: vec![] };
        file.set("general.architecture", text("llama"));
        for (key, value) in [
            ("block_count", 1),
            ("context_length", 512),
            ("embedding_length", 8),
            ("feed_forward_length", 16),
            ("attention.head_count", 2),
        ] {
            file.set(&format!("llama.{key}"), Value::U32(value));
        }
        file.set("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5));
        file.tensor("token_embd.weight", &[8, vocabulary]);
        file.tensor("output_norm.weight", &[8]);
        for (part, dimensions) in [
            ("attn_norm", &[8][..]),
            ("attn_q", &[8, 8]),
            ("attn_k", &[8, 8]),
            ("attn_v", &[8, 8]),
            ("attn_output", &[8, 8]),
            ("ffn_norm", &[8]),
            ("ffn_gate", &[8, 16]),
            ("ffn_up", &[8, 16]),
            ("ffn_down", &[16, 8]),
        ] {
            file.tensor(&format!("blk.0.{part}.weight"), dimensions);
        }
        file
    }

    /// Sets a metadata value.
    pub fn set(&mut self, key: &str, value: Value) {
        self.values.retain(|(known, _)| known != key);
        self.values.push((key.into(), value));
    }

    pub fn remove(&mut self, key: &str) {
        self.values.retain(|(known, _)| known != key);
    }

    /// Adds an F32 tensor.
    pub fn tensor(&mut self, name: &str, dimensions: &[u64]) {
        let offset = self.data.len() as u64;
        for at in 0..dimensions.iter().product() {
            let value = ((at * 7 + offset) % 23) as f32 / 23.0 - 0.5;
            self.data.extend_from_slice(&value.to_le_bytes());
        }
        self.data.resize(self.data.len().next_multiple_of(32), 0);
        self.tensors.push(Tensor {
            name: name.into(),
            dimensions: dimensions.into(),
            tensor_type: 0,
            offset,
        });
    }

    /// The tensor of a name.
    pub fn tensor_mut(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap()
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.values.len() as u64).to_le_bytes());
        for (key, value) in &self.values {
            put_text(&mut out, key);
            put_value(&mut out, value);
        }
        for tensor in &self.tensors {
            put_text(&mut out, &tensor.name);
            out.extend((tensor.dimensions.len() as u32).to_le_bytes());
            tensor.dimensions.iter().for_each(|size| out.extend(size.to_le_bytes()));
            out.extend(tensor.tensor_type.to_le_bytes());
            out.extend(tensor.offset.to_le_bytes());
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend_from_slice(&self.data);
        out
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    const ARRAY: u32 = 9;
    let mut array = |item: u32, len: usize| {
        out.extend(ARRAY.to_le_bytes());
        out.extend(item.to_le_bytes());
        out.extend((len as u64).to_le_bytes());
    };
    match value {
        Value::Texts(texts) => array(8, texts.len()),
        Value::I32s(numbers) => array(5, numbers.len()),
        Value::F32s(numbers) => array(6, numbers.len()),
        Value::U32(_) => out.extend(4u32.to_le_bytes()),
        Value::F32(_) => out.extend(6u32.to_le_bytes()),
        Value::Flag(_) => out.extend(7u32.to_le_bytes()),
        Value::Text(_) => out.extend(8u32.to_le_bytes()),
    }
    match value {
        Value::U32(value) => out.extend(value.to_le_bytes()),
        Value::F32(value) => out.extend(value.to_le_bytes()),
        Value::Flag(value) => out.push((*value).into()),
        Value::Text(text) => put_text(out, text),
        Value::Texts(texts) => texts.iter().for_each(|text| put_text(out, text)),
        Value::I32s(numbers) => numbers.iter().for_each(|number| out.extend(number.to_le_bytes())),
        Value::F32s(numbers) => numbers.iter().for_each(|number| out.extend(number.to_le_bytes())),
    }
}
