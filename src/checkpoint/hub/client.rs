//! Requests to the hub: what a revision holds, what a file is, and its bytes. Redirects are followed
//! here, so that the token goes to the hub alone.

use std::time::Duration;

use serde::Deserialize;
use ureq::http::{Method, Request, Response, Uri, header};
use ureq::{Agent, Body};

use super::id::ModelId;
use super::settings::Settings;
use crate::error::Error;

/// Large files come from another server, by way of the hub.
const MAX_REDIRECTS: usize = 10;
/// A list of files longer than this is not one.
const MAX_LISTING: u64 = 64 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Without a byte for this long a connection counts as cut.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

/// What the hub knows of a revision.
pub(super) struct Listing {
    pub(super) commit: String,
    pub(super) files: Vec<String>,
}

impl Listing {
    pub(super) fn has(&self, file: &str) -> bool {
        self.files.iter().any(|name| name == file)
    }
}

/// What the hub knows of a file.
pub(super) struct Remote {
    /// The file's blob in the cache: the SHA-256 of a large file, git's own hash of a small one.
    pub(super) etag: String,
    pub(super) size: Option<u64>,
}

/// Why a request brought nothing.
pub(super) enum Failure {
    /// No answer, or none to the end.
    Unreachable(String),
    /// An answer that is a refusal, with the hub's own word for it.
    Refused { status: u16, code: String },
    /// An answer that a hub would not give.
    Strange(String),
}

impl Failure {
    /// Whether the same request may have more luck in a moment.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Failure::Unreachable(_) => true,
            Failure::Refused { status, .. } => matches!(status, 408 | 429 | 500..=599),
            Failure::Strange(_) => false,
        }
    }

    pub(super) fn problem(&self, endpoint: &str) -> String {
        match self {
            Failure::Unreachable(cause) => format!("{endpoint} cannot be reached ({cause})"),
            Failure::Refused { status, .. } => format!("{endpoint} answers with status {status}"),
            Failure::Strange(problem) => format!("{endpoint} {problem}"),
        }
    }
}

impl Client {
    pub(super) fn new(settings: &Settings) -> Client {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(READ_TIMEOUT))
            .timeout_per_read(Some(READ_TIMEOUT))
            .user_agent(concat!("attend/", env!("CARGO_PKG_VERSION")))
            .build();
        Client {
            agent: config.new_agent(),
            endpoint: settings.endpoint.clone(),
            token: settings.token.clone(),
        }
    }

    /// The commit that a revision stands for, and the names of its files.
    pub(super) fn listing(&self, id: &ModelId) -> Result<Listing, Failure> {
        #[derive(Deserialize)]
        struct Model {
            sha: String,
            siblings: Vec<Sibling>,
        }
        #[derive(Deserialize)]
        struct Sibling {
            rfilename: String,
        }
        let revision = escaped(id.revision());
        let url = format!("{}/api/models/{}/revision/{revision}", self.endpoint, id.repository());
        let mut response = accepted(self.send(&Method::GET, &url, None)?)?;
        let body = response.body_mut().with_config().limit(MAX_LISTING).read_to_vec();
        let body = body.map_err(|error| Failure::Unreachable(error.to_string()))?;
        let model: Model = serde_json::from_slice(&body)
            .map_err(|error| Failure::Strange(format!("does not answer as a hub does ({error})")))?;
        if !super::cache::is_commit(&model.sha) {
            return Err(Failure::Strange(format!("names the commit {:?}, which is none", model.sha)));
        }
        let files = model.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        Ok(Listing { commit: model.sha, files })
    }

    /// The address of a file at a commit.
    pub(super) fn address(&self, id: &ModelId, commit: &str, file: &str) -> String {
        format!("{}/{}/resolve/{commit}/{}", self.endpoint, id.repository(), escaped(file))
    }

    /// What a file is, without its bytes. For a large file that is what the hub says of it
    /// (`x-linked-…`), not what the server says that keeps it.
    pub(super) fn head(&self, url: &str, commit: &str) -> Result<Remote, Failure> {
        let response = self.send(&Method::HEAD, url, None)?;
        let response = if response.status().is_redirection() { response } else { accepted(response)? };
        let text = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        if let Some(other) = text("x-repo-commit").filter(|other| *other != commit) {
            return Err(Failure::Strange(format!("gives a file of commit {other}, asked for {commit}")));
        }
        let etag = text("x-linked-etag").or_else(|| text("etag")).unwrap_or_default();
        let etag = etag.trim_start_matches("W/").trim_matches('"');
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if etag.is_empty() || etag.starts_with('.') || !etag.chars().all(is_name) {
            return Err(Failure::Strange(format!("gives {etag:?} as the etag of {url}, which is none")));
        }
        let own_size = || text("content-length").filter(|_| !response.status().is_redirection());
        let size = text("x-linked-size").or_else(own_size).and_then(|size| size.parse().ok());
        Ok(Remote { etag: etag.into(), size })
    }

    /// A file's bytes, from `start` on if the server can.
    pub(super) fn get(&self, url: &str, start: u64) -> Result<Response<Body>, Failure> {
        let response = self.send(&Method::GET, url, (start > 0).then_some(start))?;
        // The range begins where the file ends: for the caller to look into.
        if response.status() == 416 { Ok(response) } else { accepted(response) }
    }

    /// Sends a request and follows redirects: to the end for `GET`, while they stay on the hub for
    /// `HEAD`. The token is for the hub alone.
    fn send(&self, method: &Method, url: &str, start: Option<u64>) -> Result<Response<Body>, Failure> {
        let unreachable = |error: ureq::Error| Failure::Unreachable(error.to_string());
        let strange = |problem: &str| Failure::Strange(problem.to_owned());
        let parse = |url: &str| url.parse::<Uri>().map_err(|_| strange("redirects to what is no address"));
        let hub = parse(&self.endpoint)?;
        let mut uri = parse(url)?;
        for _ in 0..=MAX_REDIRECTS {
            let mut request = Request::builder()
                .method(method)
                .uri(&uri)
                // A size and a range are of the file itself, not of a compressed form.
                .header(header::ACCEPT_ENCODING, "identity");
            if let Some(token) = self.token.as_ref().filter(|_| same_server(&uri, &hub)) {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            if let Some(start) = start {
                request = request.header(header::RANGE, format!("bytes={start}-"));
            }
            let request = request.body(()).map_err(|error| unreachable(error.into()))?;
            let response = self.agent.run(request).map_err(unreachable)?;
            let location = response.headers().get(header::LOCATION);
            let Some(location) = location.filter(|_| response.status().is_redirection()) else {
                return Ok(response);
            };
            let location = location.to_str().map_err(|_| strange("redirects to what is no address"))?;
            let next = parse(&absolute(&uri, location))?;
            if *method == Method::HEAD && !same_server(&next, &hub) {
                return Ok(response);
            }
            uri = next;
        }
        Err(Failure::Strange(format!("redirects more than {MAX_REDIRECTS} times")))
    }
}

/// The response, if it is no refusal.
fn accepted(response: Response<Body>) -> Result<Response<Body>, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let code = response.headers().get("x-error-code").and_then(|code| code.to_str().ok());
    Err(Failure::Refused { status: status.as_u16(), code: code.unwrap_or_default().to_owned() })
}

fn same_server(a: &Uri, b: &Uri) -> bool {
    a.scheme() == b.scheme() && a.authority() == b.authority()
}

/// A `Location` header as a whole address.
fn absolute(from: &Uri, location: &str) -> String {
    let scheme = from.scheme_str().unwrap_or("https");
    let server = from.authority().map_or("", |authority| authority.as_str());
    if location.starts_with("http://") || location.starts_with("https://") {
        location.into()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{server}{location}")
    } else {
        let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{server}{folder}/{location}")
    }
}

/// A part of an address, everything but letters, digits and `-._~` as `%XX`.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

/// A refusal or failure as what it means for a model.
pub(super) fn explained(failure: &Failure, id: &ModelId, settings: &Settings) -> Error {
    let endpoint = &settings.endpoint;
    let token = match settings.token {
        Some(_) => "the token that was sent (HF_TOKEN) may not read it",
        None => "set HF_TOKEN to a token that may read it",
    };
    let (problem, hint) = match failure {
        Failure::Refused { status, code } if code == "GatedRepo" || *status == 403 => (
            format!("{endpoint} gives this model only to those who accepted its terms (status {status})"),
            format!("accept them on the model's page; {token}"),
        ),
        Failure::Refused { status: 404, code } if code == "RevisionNotFound" => (
            format!("{endpoint} has this model, but no revision {} (status 404)", id.revision()),
            "give a branch, a tag or a commit behind the @".into(),
        ),
        // The hub answers so too where there is no such model, unless it knows who asks.
        Failure::Refused { status: 401, .. } => (
            format!("{endpoint} has no such model, or it is private or gated (status 401)"),
            format!("is the name right? For a private or gated one, {token}"),
        ),
        Failure::Refused { status: 404, .. } => (
            format!("{endpoint} has no such model or no revision {} (status 404)", id.revision()),
            format!("are the names right? For a private model, {token}"),
        ),
        Failure::Refused { status: 429, .. } => {
            (failure.problem(endpoint), "it has had too many requests: try again later".into())
        }
        Failure::Refused { .. } => (failure.problem(endpoint), "try again later".into()),
        Failure::Unreachable(_) => {
            (failure.problem(endpoint), "is the network there, and HF_ENDPOINT right?".into())
        }
        Failure::Strange(_) => (failure.problem(endpoint), "is HF_ENDPOINT right?".into()),
    };
    Error::Hub { model: id.to_string(), problem, hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_may_be_relative() {
        let from: Uri = "http://hub.example:80/a/b?c=d".parse().unwrap();
        for (location, expected) in [
            ("https://other.example/x?y=z", "https://other.example/x?y=z"),
            ("//other.example/x", "http://other.example/x"),
            ("/x?y", "http://hub.example:80/x?y"),
            ("x", "http://hub.example:80/a/x"),
        ] {
            assert_eq!(absolute(&from, location), expected);
        }
        assert!(!same_server(&"http://hub.example:81/".parse().unwrap(), &from));
        assert!(!same_server(&"https://hub.example:80/".parse().unwrap(), &from));
        assert_eq!(escaped("refs/pr/1 é"), "refs%2Fpr%2F1%20%C3%A9");
    }
}
