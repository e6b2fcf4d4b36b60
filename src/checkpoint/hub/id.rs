//! What names a model on the hub, `owner/name@revision`, and when an argument is such a name and
//! not a path.

use std::fmt;
use std::path::Path;

/// The branch that the hub gives when none is asked for.
const DEFAULT_REVISION: &str = "main";

/// A model on the hub, at a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelId {
    /// `owner/name`, or `name` alone for the oldest models.
    repository: String,
    /// A branch, a tag or a commit.
    revision: String,
}

impl ModelId {
    /// `owner/name`, `owner/name@revision`, and both without an owner; `None` for anything else.
    pub fn parse(text: &str) -> Option<ModelId> {
        let (repository, revision) = text.split_once('@').unwrap_or((text, DEFAULT_REVISION));
        let is_id = repository.len() <= 96
            && repository.split('/').count() <= 2
            && repository.split('/').all(is_name)
            && !repository.contains("--")
            && !repository.contains("..")
            && is_revision(revision);
        is_id.then(|| ModelId { repository: repository.into(), revision: revision.into() })
    }

    /// The model that an argument names, unless it is a path: something that is there, or that is
    /// spelled as one.
    pub fn from_argument(argument: &Path) -> Option<ModelId> {
        const FILES: [&str; 7] = ["gguf", "safetensors", "bin", "pt", "pth", "ckpt", "json"];
        let extension = argument.extension().and_then(|extension| extension.to_str());
        if argument.exists() || extension.is_some_and(|extension| FILES.contains(&extension)) {
            return None;
        }
        ModelId::parse(argument.to_str()?)
    }

    pub fn repository(&self) -> &str {
        &self.repository
    }

    pub fn revision(&self) -> &str {
        &self.revision
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        if self.revision == DEFAULT_REVISION { Ok(()) } else { write!(f, "@{}", self.revision) }
    }
}

/// Letters, digits, `-`, `_` and `.`, the last not at an end.
fn is_name(part: &str) -> bool {
    let edge = |c: char| c.is_ascii_alphanumeric() || c == '_';
    part.starts_with(edge)
        && part.ends_with(edge)
        && part.chars().all(|c| edge(c) || c == '-' || c == '.')
        && !part.ends_with(".git")
}

/// A git reference, as far as it is used here: its parts become folders of the cache.
fn is_revision(text: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.+".contains(c))
    };
    text.split('/').all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_from_paths() {
        let id = |text: &str| ModelId::from_argument(Path::new(text)).map(|id| id.to_string());
        for text in ["gpt2", "owner/name", "Qwen/Qwen2.5-0.5B", "owner/name@v1.0", "owner/name@refs/pr/1"] {
            assert_eq!(id(text).as_deref(), Some(text));
        }
        assert_eq!(id("owner/name@main").as_deref(), Some("owner/name"));
        for path in [
            ".",
            "./owner/name",
            "/owner/name",
            "~/name",
            "a/b/c",
            "owner/",
            "owner/model.gguf",
            "model.safetensors",
            "owner/name@",
            "owner/name@../../x",
            "owner/name@a//b",
            "owner/-name",
            "a--b/name",
            "owner/na me",
            "owner\\name",
            "",
            // There is such a folder here.
            "src",
            "src/cli",
        ] {
            assert_eq!(id(path), None, "{path}");
        }
    }
}
