//! How to reach the hub and where to keep what comes from it: the variables of the Python client.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

const PUBLIC_HUB: &str = "https://huggingface.co";

/// Where models come from and go to.
#[derive(Clone)]
pub struct Settings {
    /// The server, without a slash at its end.
    pub endpoint: String,
    /// Who asks: sent to `endpoint`, never to a server that it redirects to.
    pub token: Option<String>,
    /// The folder of all models: `models--owner--name` and so on lie in it.
    pub cache: PathBuf,
    /// Only what is in the cache.
    pub offline: bool,
}

impl Settings {
    /// Reads `HF_ENDPOINT`, `HF_TOKEN` (else the file `HF_TOKEN_PATH`, else `token` in `HF_HOME`),
    /// `HF_HUB_CACHE` (else `hub` in `HF_HOME`, which is `huggingface` in `XDG_CACHE_HOME` where it
    /// is not set) and `HF_HUB_OFFLINE`.
    ///
    /// # Errors
    /// If there is no home folder to keep models in, or the endpoint is no address.
    pub fn from_environment() -> Result<Settings> {
        Settings::from_variables(|name| std::env::var_os(name).filter(|value| !value.is_empty()))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Result<Settings> {
        let path = |name: &str| variable(name).map(|value| in_home(Path::new(&value)));
        let home = path("HF_HOME").or_else(|| {
            let cache = path("XDG_CACHE_HOME").or_else(|| Some(std::env::home_dir()?.join(".cache")));
            Some(cache?.join("huggingface"))
        });
        let Some(cache) = path("HF_HUB_CACHE").or_else(|| Some(home.as_ref()?.join("hub"))) else {
            return Err(Error::Usage(
                "there is no home folder to keep models of the hub in; set HF_HOME to a folder".into(),
            ));
        };
        let text = |name: &str| variable(name).and_then(|value| value.into_string().ok());
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| PUBLIC_HUB.into());
        let endpoint = endpoint.trim().trim_end_matches('/');
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            return Err(Error::Usage(format!(
                "HF_ENDPOINT is {endpoint:?}, expected an address such as {PUBLIC_HUB}"
            )));
        }
        let token_file = path("HF_TOKEN_PATH").or_else(|| Some(home?.join("token")));
        let token =
            text("HF_TOKEN").or_else(|| token_file.and_then(|file| std::fs::read_to_string(file).ok()));
        let offline = text("HF_HUB_OFFLINE")
            .is_some_and(|value| ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str()));
        Ok(Settings {
            endpoint: endpoint.into(),
            token: token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()),
            cache,
            offline,
        })
    }
}

/// `~/x` → `x` in the home folder: a shell leaves a quoted one as it is, the Python client does not.
fn in_home(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), std::env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_path_buf(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings> {
        Settings::from_variables(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into())
        })
    }

    #[test]
    fn the_nearest_variable_wins() {
        let cache = |variables: &[(&str, &str)]| settings(variables).unwrap().cache;
        let all = [("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")];
        assert_eq!(cache(&all), Path::new("/c"));
        assert_eq!(cache(&all[..2]), Path::new("/h/hub"));
        assert_eq!(cache(&all[..1]), Path::new("/x/huggingface/hub"));
        let home = std::env::home_dir().unwrap();
        assert_eq!(cache(&[]), home.join(".cache/huggingface/hub"));
        assert_eq!(cache(&[("HF_HOME", "~/models")]), home.join("models/hub"));
    }

    #[test]
    fn a_token_is_in_the_environment_or_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "from_home\n").unwrap();
        std::fs::write(folder.path().join("other"), " from_path ").unwrap();
        let (home, other) = (folder.path().to_str().unwrap(), folder.path().join("other"));
        let all = [("HF_HOME", home), ("HF_TOKEN_PATH", other.to_str().unwrap()), ("HF_TOKEN", "given")];
        let token = |variables: &[(&str, &str)]| settings(variables).unwrap().token;
        assert_eq!(token(&all).as_deref(), Some("given"));
        assert_eq!(token(&all[..2]).as_deref(), Some("from_path"));
        assert_eq!(token(&all[..1]).as_deref(), Some("from_home"));
        assert_eq!(token(&[("HF_HOME", "/nowhere")]), None);
    }

    #[test]
    fn an_endpoint_is_an_address() {
        let endpoint = |value: &str| settings(&[("HF_ENDPOINT", value)]).map(|settings| settings.endpoint);
        assert_eq!(endpoint("http://127.0.0.1:80/").unwrap(), "http://127.0.0.1:80");
        assert!(endpoint("models.example").err().unwrap().to_string().contains("expected an address"));
        assert!(settings(&[("HF_HUB_OFFLINE", "True")]).unwrap().offline);
        assert!(!settings(&[("HF_HUB_OFFLINE", "0")]).unwrap().offline);
    }
}
