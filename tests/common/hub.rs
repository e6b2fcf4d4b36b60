//! A hub on loopback: answers as the real one does, misbehaves as told, and remembers what it was
//! asked.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

use super::program::attend;

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
}

/// A model on the hub, and how the hub treats who asks for it.
#[derive(Clone)]
pub struct Repository {
    pub id: &'static str,
    pub revision: &'static str,
    pub files: BTreeMap<&'static str, Vec<u8>>,
    /// Statuses of the listing other than 200, with the hub's own word for them.
    pub refuses: Option<(u16, &'static str)>,
    /// The listing is for everyone, the files are not.
    pub gated: bool,
    /// The bodies of large files end after so many bytes; as often as this.
    pub cuts: Vec<usize>,
    /// Ranges are not understood: every answer is the whole file.
    pub no_ranges: bool,
    /// Large files are another server's to send.
    pub elsewhere: Option<String>,
    /// Replaces the bytes of large files.
    pub forged: Option<Vec<u8>>,
}

impl Repository {
    pub fn new(id: &'static str, files: &[(&'static str, Vec<u8>)]) -> Repository {
        Repository {
            id,
            revision: "main",
            files: files.iter().cloned().collect(),
            refuses: None,
            gated: false,
            cuts: vec![],
            no_ranges: false,
            elsewhere: None,
            forged: None,
        }
    }
}

pub struct Hub {
    pub address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    repository: Arc<Mutex<Repository>>,
}

impl Hub {
    /// Listens until the test's process ends.
    pub fn start(repository: Repository) -> Hub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let hub = Hub { address, asked: Arc::default(), repository: Arc::new(Mutex::new(repository)) };
        let (asked, repository) = (hub.asked.clone(), hub.repository.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (asked, repository) = (asked.clone(), repository.clone());
                // A connection that the client drops is the client's matter.
                std::thread::spawn(move || stream.and_then(|stream| serve(stream, &asked, &repository)));
            }
        });
        hub
    }

    /// What was asked since the last call.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    pub fn change(&self, change: impl FnOnce(&mut Repository)) {
        change(&mut self.repository.lock().unwrap());
    }

    /// The program with this hub, and `home` as its HF_HOME.
    pub fn attend(&self, home: &tempfile::TempDir) -> Command {
        let mut command = attend();
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy().to_lowercase();
            if text.starts_with("hf_") || text.ends_with("_proxy") {
                command.env_remove(name);
            }
        }
        command.env("HF_ENDPOINT", &self.address).env("HF_HOME", home.path());
        command
    }
}

/// Large files, which the hub keeps by their SHA-256.
pub fn is_large(file: &str) -> bool {
    file.ends_with(".safetensors")
}

/// The etag: a SHA-256 for a large file; for a small one git's hash, which nothing here computes, so
/// any 40 digits that depend on the bytes.
pub fn etag(file: &str, bytes: &[u8]) -> String {
    let mut digits = String::new();
    for byte in Sha256::digest(bytes) {
        write!(digits, "{byte:02x}").unwrap();
    }
    digits.truncate(if is_large(file) { 64 } else { 40 });
    digits
}

fn serve(
    stream: TcpStream,
    asked: &Mutex<Vec<Asked>>,
    repository: &Mutex<Repository>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let request = Asked {
        method,
        path,
        range: headers.remove("range"),
        authorization: headers.remove("authorization"),
    };
    asked.lock().unwrap().push(request.clone());
    let answer = answer(&request, &mut repository.lock().unwrap());
    let mut stream = reader.into_inner();
    stream.write_all(&answer)?;
    // One request a connection: closing it ends the body, or cuts it.
    stream.shutdown(std::net::Shutdown::Write)
}

fn answer(request: &Asked, repository: &mut Repository) -> Vec<u8> {
    let Repository { id, revision, .. } = *repository;
    let listing = [
        format!("/api/models/{id}/revision/{}", revision.replace('/', "%2F")),
        format!("/api/models/{id}/revision/{COMMIT}"),
    ];
    if listing.contains(&request.path) {
        if let Some((status, word)) = repository.refuses {
            return response(status, &[("x-error-code", word.into())], 0, b"");
        }
        let siblings: Vec<_> =
            repository.files.keys().map(|file| serde_json::json!({ "rfilename": file })).collect();
        let body = serde_json::json!({ "id": id, "sha": COMMIT, "siblings": siblings }).to_string();
        return response(200, &[], body.len(), body.as_bytes());
    }
    let prefixes = [format!("/{id}/resolve/{COMMIT}/"), "/elsewhere/".into()];
    let file = prefixes.iter().find_map(|prefix| request.path.strip_prefix(prefix.as_str()));
    let Some((file, bytes)) = file.and_then(|file| repository.files.get_key_value(file)) else {
        return response(404, &[("x-error-code", "RepoNotFound".into())], 0, b"");
    };
    if repository.gated {
        return response(403, &[("x-error-code", "GatedRepo".into())], 0, b"");
    }
    let etag = format!("\"{}\"", etag(file, bytes));
    let mut headers = vec![("x-repo-commit", COMMIT.to_owned())];
    if is_large(file) {
        headers.extend([("x-linked-etag", etag), ("x-linked-size", bytes.len().to_string())]);
        headers.push(("etag", "\"the CDN's own\"".into()));
    } else {
        headers.push(("etag", etag));
    }
    if let Some(server) = repository.elsewhere.as_ref().filter(|_| is_large(file)) {
        headers.push(("location", format!("{server}/elsewhere/{file}")));
        return response(302, &headers, 0, b"");
    }
    if request.method == "HEAD" {
        return response(200, &headers, bytes.len(), b"");
    }
    let bytes = repository.forged.as_ref().filter(|_| is_large(file)).unwrap_or(bytes);
    let start = request.range.as_ref().filter(|_| !repository.no_ranges).map_or(0, |range| {
        range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse::<usize>().unwrap()
    });
    let mut status = 200;
    if start > 0 {
        status = 206;
        let last = bytes.len() - 1;
        headers.push(("content-range", format!("bytes {start}-{last}/{}", bytes.len())));
    }
    let rest = &bytes[start..];
    let sent = match repository.cuts.first().filter(|_| is_large(file)) {
        Some(cut) => &rest[..(*cut).min(rest.len())],
        None => rest,
    };
    let answer = response(status, &headers, rest.len(), sent);
    if is_large(file) && !repository.cuts.is_empty() {
        repository.cuts.remove(0);
    }
    answer
}

fn response(status: u16, headers: &[(&str, String)], length: usize, body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} As Told\r\ncontent-length: {length}\r\nconnection: close\r\n");
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    [head.as_bytes(), b"\r\n", body].concat()
}
