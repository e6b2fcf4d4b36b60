//! The library's one error type. Every message says what is wrong, where, what was expected and,
//! where there is something to try, what.

use std::path::{Path, PathBuf};

/// What can go wrong. The fields are data, so that a caller or a test can match them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A request that cannot be met, whatever the files hold.
    #[error("{0}")]
    Usage(String),

    #[error("{path}: cannot {action}: {cause}{hint}", path = path.display(), hint = io_hint(cause))]
    Io { path: PathBuf, action: &'static str, cause: std::io::Error },

    /// Something at `path` is not a model, or lacks a part of one.
    #[error("{path}: {problem}; {hint}", path = path.display())]
    NotAModel { path: PathBuf, problem: String, hint: String },

    /// A model that the hub does not give, or whose download fails.
    #[error("{model}: {problem}; {hint}")]
    Hub { model: String, problem: String, hint: String },

    #[error("{file}: {problem}", file = file.display())]
    Config { file: PathBuf, problem: String },

    /// A weights file that is not what its header or its name promises.
    #[error("{file}: {problem}; is the file whole? Compare its size with the original's, or fetch it again", file = file.display())]
    Weights { file: PathBuf, problem: String },

    #[error("{file}: tensor {name} is missing; the config asks for it: are the weights and the config from the same model?", file = file.display())]
    TensorMissing { file: PathBuf, name: String },

    #[error("{file}: tensor {name} has shape {found:?}, expected {expected:?} as the config says; are the weights and the config from the same model?", file = file.display())]
    ShapeMismatch { file: PathBuf, name: String, found: Vec<usize>, expected: Vec<usize> },

    #[error("{file}: tensor {name} holds {found}, expected {supported}", file = file.display())]
    TensorType { file: PathBuf, name: String, found: String, supported: &'static str },

    #[error("{file}: {problem}", file = file.display())]
    Tokenizer { file: PathBuf, problem: String },

    #[error("the model's tokenizer is missing ({path}); give token numbers with --prompt-ids", path = path.display())]
    NoTokenizer { path: PathBuf },

    #[error("no memory for {what}: {cause}")]
    Memory { what: &'static str, cause: std::io::Error },

    /// More positions than the cache, or the model, has.
    #[error("{needed} tokens do not fit the context of {context}; {hint}")]
    ContextFull { needed: usize, context: usize, hint: String },

    #[error("token {id} is outside the vocabulary of {vocabulary} tokens")]
    TokenOutOfRange { id: u32, vocabulary: usize },

    /// The model computed an infinity or something that is no number.
    #[error("{place} gave values that are not finite, at positions {first} to {last}: the weights there may be damaged (NaN or infinite), or overflow in {dtype}; fetch them again{wider}", wider = wider(dtype, cache))]
    NotFinite { place: String, first: usize, last: usize, dtype: &'static str, cache: &'static str },

    /// The caller raised its flag while a step ran.
    #[error("interrupted")]
    Interrupted,

    #[error("{path}: {problem}", path = path.display())]
    Dump { path: PathBuf, problem: String },

    /// A prompt cache that another model or another version wrote, or that is damaged.
    #[error("{path}: {problem}; name another file for the prompt cache, or remove this one to have it written anew", path = path.display())]
    PromptCache { path: PathBuf, problem: String },

    #[error("tensor operation failed: {0}")]
    Candle(#[from] candle_core::Error),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::Io`], ready for `map_err`.
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_path_buf();
        move |cause| Error::Io { path, action, cause }
    }
}

/// The wider types that could be tried.
fn wider(dtype: &str, cache: &str) -> String {
    let options = [("--dtype f32", dtype), ("--cache-dtype f32", cache)];
    let narrow = options.iter().filter(|(_, held)| *held != "f32").map(|(option, _)| *option);
    let narrow: Vec<&str> = narrow.collect();
    if narrow.is_empty() { String::new() } else { format!(", or try {}", narrow.join(" ")) }
}

/// What to try, for the failures that a person can do something about.
fn io_hint(cause: &std::io::Error) -> &'static str {
    use std::io::ErrorKind;
    match cause.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            "; make room there, or choose another place"
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "; choose a place that you may use, or change its permissions"
        }
        ErrorKind::NotFound => "; is the name right?",
        ErrorKind::NotADirectory => "; a part of this name is no folder",
        _ => "",
    }
}
