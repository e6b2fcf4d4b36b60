//! GGUF files, llama.cpp's format: one file with the config as metadata, the tokenizer and the
//! weights. The first two are put into the words of a Hugging Face folder, so that what follows
//! does not know the difference.

mod config;
pub(super) mod header;
mod metadata;
mod places;
mod pre_tokenizer;
pub(super) mod tensor_type;
mod tokenizer;

use std::path::{Path, PathBuf};

use super::families::{Family, Place};
use crate::error::Result;
use crate::model::{ModelConfig, Module};
use header::Header;

/// A GGUF file, its head translated.
#[derive(Debug)]
pub struct GgufFile {
    pub(super) path: PathBuf,
    /// What its makers call it, else the file's name.
    pub(super) name: String,
    /// As `config.json` and `tokenizer.json` would have them.
    config: Vec<u8>,
    tokenizer: Option<Vec<u8>>,
    /// The types of its tensors taken together, as llama.cpp names them.
    pub(super) mixture: Option<&'static str>,
    place: fn(&ModelConfig, Module) -> Place,
}

impl GgufFile {
    /// Translates the head of a file, given whole.
    ///
    /// # Errors
    /// If it is no GGUF file, damaged, or of a model or tokenizer that does not load.
    pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<GgufFile> {
        let header = Header::read(path, bytes)?;
        Ok(GgufFile {
            path: path.to_path_buf(),
            name: header
                .metadata
                .text("general.name")?
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| path.file_stem().unwrap_or_default().to_string_lossy().into_owned()),
            config: config::config(&header)?,
            tokenizer: tokenizer::tokenizer(&header)?,
            mixture: header.metadata.size("general.file_type")?.and_then(tensor_type::mixture),
            place: config::architecture(&header)?.place,
        })
    }

    /// A file of the folder that this one stands for.
    pub(super) fn file(&self, name: &str) -> Option<&[u8]> {
        match name {
            "config.json" => Some(&self.config),
            "tokenizer.json" => self.tokenizer.as_deref(),
            _ => None,
        }
    }

    /// The family of the config, with its modules where they lie here.
    pub(super) fn family(&self, family: &Family) -> Family {
        // Factors of rotary angles are in the config.
        let is_unused = |name: &str| name.starts_with("rope_");
        Family { place: self.place, prefix: "", is_unused, ..*family }
    }
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::model::ParameterSource;

    #[test]
    fn rows_of_every_type_have_the_values_of_the_gguf_package() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gguf/mixed");
        let checkpoint = Checkpoint::open(&folder.join("model.gguf")).unwrap();
        let bytes = std::fs::read(folder.join("values.safetensors")).unwrap();
        let expected = SafeTensors::deserialize(&bytes).unwrap();
        let named = checkpoint.named_weights();
        let mut types = std::collections::HashSet::new();
        let matrices = checkpoint.config.parameters().into_iter().filter(|(_, shape)| shape.len() == 2);
        for (parameter, shape) in matrices {
            let matrix = named.parameter(parameter, &shape).unwrap();
            types.insert(matrix.element);
            let rows = [0, 1, shape[0] - 1].into_iter().flat_map(|row| matrix.row(row));
            let ours: Vec<u8> = rows.flat_map(f32::to_le_bytes).collect();
            let name = &named.names(parameter)[0];
            assert_eq!(ours, expected.tensor(name).unwrap().data(), "{name}");
        }
        assert_eq!(types.len(), 8, "every type but f32, which the norms have");
    }
}
