//! Where a model comes from and what it is: a folder of files, a GGUF file (or those in the binary)
//! becomes a [`Checkpoint`], which has been checked, and that a [`Decoder`] with its weights in place.

pub mod convert;
mod digest;
mod embedded;
pub mod families;
pub mod generation_config;
mod gguf;
pub mod hub;
mod named_weights;
pub mod source;
pub mod tokenizer;
mod vocabulary_files;
pub mod weights;

use std::path::Path;
use std::sync::Arc;

use candle_core::Device;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::kernels::cache::CacheType;
use crate::kernels::matmul::ElementType;
use crate::kernels::threads::available_threads;
use crate::kernels::{self, Pool};
use crate::model::parameter::LayerModule;
use crate::model::precision::{self, Instead, MatrixRole, Precision};
use crate::model::{Decoder, KernelChoice, ModelConfig, Module, Ops, Parameter};
use families::{ConfigFile, Family};
pub use generation_config::GenerationConfig;
use named_weights::NamedWeights;
use source::Source;
pub use tokenizer::{Encoded, Tokenizer};
use weights::Weights;

/// A model's files, opened and checked, its weights not yet read.
pub struct Checkpoint {
    source: Source,
    family: Family,
    config: ModelConfig,
    config_digest: String,
    generation: GenerationConfig,
    tokenizer: Option<Tokenizer>,
    weights: Weights,
}

/// How to load a checkpoint's weights.
#[derive(Clone)]
pub struct LoadOptions {
    pub device: Device,
    pub kernels: KernelChoice,
    /// How weights are held, as far as each allows; `None`: each as the checkpoint holds it.
    pub element: Option<ElementType>,
    /// How keys and values are held.
    pub cache: CacheType,
    /// Threads that work on the CPU.
    pub threads: usize,
}

/// As what a matrix is held once loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeldMatrix {
    pub parameter: Parameter,
    pub rows: usize,
    pub columns: usize,
    /// In the files.
    pub found: ElementType,
    /// In memory.
    pub held: ElementType,
    /// Why it is not what was asked for.
    pub instead: Option<Instead>,
}

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions {
            device: Device::Cpu,
            kernels: KernelChoice::Native,
            element: None,
            cache: CacheType::F32,
            threads: available_threads(),
        }
    }
}

impl Checkpoint {
    /// Opens a GGUF file, or a folder in Hugging Face layout: `config.json`, `model.safetensors` (or shards with
    /// their index), and where they are there `tokenizer.json` (or the vocabulary files of GPT-2 or
    /// BERT) and `generation_config.json`.
    ///
    /// ```no_run
    /// use attend::{Checkpoint, LoadOptions};
    ///
    /// # fn main() -> attend::Result<()> {
    /// let checkpoint = Checkpoint::open("SmolLM2-135M-Instruct".as_ref())?;
    /// let decoder = checkpoint.load(&LoadOptions::default())?;
    /// println!("{} parameters", decoder.config().parameter_count());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// With the first file that is missing, damaged, or does not fit the others.
    pub fn open(path: &Path) -> Result<Checkpoint> {
        Self::from_source(Source::open(path)?)
    }

    /// The model inside this crate: about four million parameters that write short stories.
    ///
    /// ```
    /// let checkpoint = attend::Checkpoint::embedded()?;
    /// assert_eq!(checkpoint.tokenizer()?.encode("Once upon a time")?.ids.len(), 4);
    /// # Ok::<(), attend::Error>(())
    /// ```
    ///
    /// # Errors
    /// None, unless the crate was built with files of another model.
    pub fn embedded() -> Result<Checkpoint> {
        Self::from_source(Source::Embedded)
    }

    fn from_source(source: Source) -> Result<Checkpoint> {
        let config_path = source.path("config.json");
        let config_bytes = source.read("config.json")?.unwrap_or_default();
        let config_file = ConfigFile::parse(&config_path, &config_bytes)?;
        let family = match &source {
            Source::Gguf(file) => file.family(families::family_of(&config_file)?),
            _ => *families::family_of(&config_file)?,
        };
        let mut config = family.translate(&config_file)?;
        if let Source::Gguf(_) = source {
            // Norms stand there with what their family adds to them.
            config.norm.offset = 0.0;
        }
        let generation_file = source
            .read("generation_config.json")?
            .map(|bytes| ConfigFile::parse(&source.path("generation_config.json"), &bytes))
            .transpose()?;
        let generation = GenerationConfig::read(
            &config_file,
            generation_file.as_ref(),
            family.begin_token,
            family.end_token,
        )?;
        let weights = Weights::open(&source)?;
        let another_head = NamedWeights::new(&weights, &family, &config).holds_another_head()?;
        config.tied_head &= !another_head;
        let named = NamedWeights::new(&weights, &family, &config);
        for (parameter, shape) in config.parameters() {
            named.element(parameter, &shape)?;
        }
        drop(named);
        let tokenizer_file = match source.read("tokenizer.json")? {
            Some(bytes) => Some((source.path("tokenizer.json"), bytes)),
            None => vocabulary_files::as_tokenizer_json(&source, &config_file)?,
        };
        let large = tokenizer_file.as_ref().is_some_and(|(_, bytes)| bytes.len() >= 1 << 20);
        let tokenizer = tokenizer_file
            .map(|(path, bytes)| Tokenizer::parse(&path, &bytes, config.vocabulary))
            .transpose()?;
        if large {
            // While it was parsed, it took ten times its size.
            kernels::give_back_dropped();
        }
        let config_digest = digest::hexadecimal(&Sha256::digest(&config_bytes));
        Ok(Checkpoint { source, family, config, config_digest, generation, tokenizer, weights })
    }

    /// Reads the weights into a decoder.
    ///
    /// # Errors
    /// If there is no memory for them, or a device refuses.
    pub fn load(&self, options: &LoadOptions) -> Result<Decoder> {
        self.load_telling(options, &|_, _| ())
    }

    /// The same, and calls `progress` after every few megabytes with how many bytes of the files'
    /// matrices have been taken over, and of how many.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_telling(&self, options: &LoadOptions, progress: &dyn Fn(usize, usize)) -> Result<Decoder> {
        let element = self.element(options.element)?;
        let precision = Precision { asked: options.element, element, cache: options.cache };
        let pool = Arc::new(Pool::new(options.threads));
        let ops = Ops::new(options.device.clone(), options.kernels, precision, pool)?;
        Decoder::new(self.config.clone(), ops, &self.named_weights().telling(progress)?)
    }

    /// The model's name: its folder's, or that on the hub.
    pub fn name(&self) -> String {
        self.source.name()
    }

    /// The kind of its files: `safetensors`, or GGUF and what llama.cpp calls the mixture of types.
    pub fn format(&self) -> String {
        match &self.source {
            Source::Gguf(file) => match file.mixture {
                Some(mixture) => format!("GGUF, {mixture}"),
                None => "GGUF".into(),
            },
            _ => "safetensors".into(),
        }
    }

    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// SHA-256 of config.json, in hexadecimal; of a GGUF file, that of the config made from it.
    pub fn config_digest(&self) -> &str {
        &self.config_digest
    }

    /// A SHA-256 of the weights files' bytes, in hexadecimal. It reads them all, which takes about
    /// as long as loading them.
    pub fn weights_digest(&self, threads: usize) -> String {
        digest::digest(&self.weights, &Pool::new(threads))
    }

    pub fn generation(&self) -> &GenerationConfig {
        &self.generation
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// If the model has none.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer.as_ref().ok_or_else(|| Error::NoTokenizer { path: self.source.path("tokenizer.json") })
    }

    fn named_weights(&self) -> NamedWeights<'_> {
        NamedWeights::new(&self.weights, &self.family, &self.config)
    }

    /// As what most weights will be held with `--dtype` (`None`: as the files hold them): the type of
    /// the first layer's output projection of attention.
    ///
    /// # Errors
    /// None after the checkpoint was opened: its tensors are there.
    pub fn element(&self, asked: Option<ElementType>) -> Result<ElementType> {
        let output = Module::Layer(0, LayerModule::AttentionOutput).weight();
        let shape = [self.config.hidden, self.config.query_width()];
        let found = self.named_weights().element(output, &shape)?;
        Ok(precision::held(asked, found, shape[1], MatrixRole::Projection).0)
    }

    /// As what each matrix will be held with `--dtype` (`None`: as the files hold it).
    ///
    /// # Errors
    /// As [`element`](Self::element).
    pub fn held(&self, asked: Option<ElementType>) -> Result<Vec<HeldMatrix>> {
        let named = self.named_weights();
        let mut matrices = vec![];
        for (parameter, shape) in self.config.parameters() {
            let Some(role) = parameter.role() else { continue };
            let found = named.element(parameter, &shape)?;
            let (held, instead) = precision::held(asked, found, shape[1], role);
            matrices.push(HeldMatrix { parameter, rows: shape[0], columns: shape[1], found, held, instead });
        }
        Ok(matrices)
    }

    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Tensors in the files that the model does not use. Any but a buffer or a tied head means
    /// that the config and the weights may not belong together.
    pub fn unused_tensors(&self) -> Vec<String> {
        let named = self.named_weights();
        let mut used: std::collections::HashSet<String> =
            self.config.parameters().iter().flat_map(|(parameter, _)| named.names(*parameter)).collect();
        if self.config.tied_head && !self.config.is_encoder() {
            used.extend(named.names(Module::OutputHead.weight()));
        }
        let mut unused: Vec<String> = self
            .weights
            .names()
            .filter(|name| !used.contains(*name) && !(self.family.is_unused)(name))
            .map(str::to_owned)
            .collect();
        unused.sort_unstable();
        unused
    }
}
