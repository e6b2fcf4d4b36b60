//! `attend view`: the page in a browser, served on loopback.

use std::ffi::OsString;
use std::io;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use attend::report::html::answer;
use clap::Args;

use super::model_args::ModelArgs;
use super::output::{note, print};
use super::prompt_args::PromptArgs;
use super::{Outcome, http, page};

#[derive(Args)]
pub struct ViewArgs {
    /// The folder of a dump, or a text for the model to read [default: standard input]
    #[arg(value_name = "DIR|TEXT")]
    positional: Option<OsString>,
    #[command(flatten)]
    prompt: PromptArgs,
    #[command(flatten)]
    model: ModelArgs,
    /// Port to serve on [default: 8017, or the next one that is free]
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// Print the address only
    #[arg(long)]
    no_browser: bool,
}

pub fn run(args: ViewArgs) -> Result<Outcome> {
    let listener = http::bind(args.port).map_err(|error| match (args.port, error.kind()) {
        (Some(port), io::ErrorKind::AddrInUse) => anyhow::anyhow!(
            "--port {port}: another program serves there; give another port, or none and a free one is found"
        ),
        (Some(port), io::ErrorKind::PermissionDenied) => {
            anyhow::anyhow!("--port {port}: this system does not let you serve there; try one above 1023")
        }
        _ => anyhow::Error::new(error).context("cannot serve on 127.0.0.1"),
    })?;
    let address = listener.local_addr().context("cannot serve on 127.0.0.1")?;
    let shown = page::open(args.positional.as_deref(), &args.prompt, &args.model)?;
    let stop = Arc::new(AtomicBool::new(false));
    let raised = stop.clone();
    let handler = move || {
        raised.store(true, Ordering::Relaxed);
        // Wakes the server, which waits for a connection.
        let _ = TcpStream::connect(address);
    };
    if let Err(error) = ctrlc::set_handler(handler) {
        note(&format!("warning: Ctrl-C will not end this cleanly: {error}"));
    }
    let url = format!("http://{address}/");
    print(&format!("{url}\n"))?;
    let opened = !args.no_browser && open_browser(&url);
    note(match opened {
        true => "opened in your browser; Ctrl-C ends it",
        false => "open this address in a browser; Ctrl-C ends it",
    });
    http::serve(&listener, &stop, &|target| answer(&shown.page, target))
        .context("cannot serve on 127.0.0.1")?;
    Ok(Outcome::Done)
}

/// Whether a browser was started. It may still fail: the address is printed in any case.
fn open_browser(url: &str) -> bool {
    let started = |program: &str, before: &[&str]| {
        let mut command = Command::new(program);
        command.args(before).arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().is_ok()
    };
    if let Some(browser) = std::env::var("BROWSER").ok().filter(|browser| !browser.is_empty()) {
        return started(&browser, &[]);
    }
    if cfg!(target_os = "macos") {
        return started("open", &[]);
    }
    if cfg!(windows) {
        return started("cmd", &["/C", "start", ""]);
    }
    let display = ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some());
    display && started("xdg-open", &[])
}
