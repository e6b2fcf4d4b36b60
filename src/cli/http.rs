//! A server for one page and one person: HTTP/1.1 on loopback, GET only, an answer a connection.
//!
//! Whoever asks must call it by a loopback name (`Host`): a page of another site whose name was made
//! to point here gets nothing. Answers carry no permission for other origins to read them.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::Builder;
use std::time::{Duration, Instant};

use attend::report::html::Answer;
use attend::report::html::document::headers;

/// Bytes of a request's head.
const HEAD_LIMIT: u64 = 16 * 1024;
/// Requests answered at the same time; more wait to be accepted.
const CONNECTIONS: usize = 64;
/// Browsers open connections before they need them, and let those go after a minute at most. Whoever
/// lets go first must be they: a request could be on its way.
const UNUSED: Duration = Duration::from_secs(150);
/// A client that stops in the middle of a request, or of taking an answer, is let go.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a connection without a request looks whether the server is to stop.
const LOOK: Duration = Duration::from_millis(200);

/// Binds a port of 127.0.0.1; `None`: 8017, or where that is taken one of the next, or any.
pub fn bind(port: Option<u16>) -> io::Result<TcpListener> {
    match port {
        Some(port) => TcpListener::bind((Ipv4Addr::LOCALHOST, port)),
        None => (8017..8037)
            .chain([0])
            .map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)))
            .find(|bound| !matches!(bound, Err(error) if error.kind() == io::ErrorKind::AddrInUse))
            .unwrap_or_else(|| Err(io::ErrorKind::AddrInUse.into())),
    }
}

/// Answers until `stop` is raised and one more connection comes. Nothing else ends it: what goes wrong
/// with one connection, or a lack of threads or files, is that connection's loss.
pub fn serve(
    listener: &TcpListener,
    stop: &AtomicBool,
    answer: &(impl Fn(&str) -> Option<Answer> + Sync),
) -> io::Result<()> {
    let port = listener.local_addr()?.port();
    let open = AtomicUsize::new(0);
    let open = &open;
    std::thread::scope(|scope| {
        loop {
            while open.load(Ordering::Acquire) >= CONNECTIONS && !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(5));
            }
            let accepted = listener.accept();
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let Ok((stream, _)) = accepted else {
                // It broke before it was accepted; or there are no more files, which passes.
                std::thread::sleep(Duration::from_millis(20));
                continue;
            };
            open.fetch_add(1, Ordering::AcqRel);
            // Where the system gives no thread the connection is closed, and the browser asks again.
            let started = Builder::new().name("attend-answer".into()).spawn_scoped(scope, move || {
                // A connection that breaks while it is answered is the client's loss too.
                let _ = catch_unwind(AssertUnwindSafe(|| converse(&stream, port, stop, answer)));
                open.fetch_sub(1, Ordering::AcqRel);
            });
            if started.is_err() {
                open.fetch_sub(1, Ordering::AcqRel);
            }
        }
    });
    Ok(())
}

/// Waits for the first byte of a request; whether one came.
fn spoken_to(stream: &TcpStream, stop: &AtomicBool) -> io::Result<bool> {
    stream.set_read_timeout(Some(LOOK))?;
    let since = Instant::now();
    while since.elapsed() < UNUSED && !stop.load(Ordering::Relaxed) {
        match stream.peek(&mut [0]) {
            Ok(bytes) => return Ok(bytes > 0),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

fn converse(
    stream: &TcpStream,
    port: u16,
    stop: &AtomicBool,
    answer: &impl Fn(&str) -> Option<Answer>,
) -> io::Result<()> {
    if !spoken_to(stream, stop)? {
        return Ok(());
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(stream.take(HEAD_LIMIT)).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    let mut host = None;
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        match line.split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("host") => host = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if !host.is_some_and(|host| is_ours(&host, port)) {
        return reply(stream, "421 Misdirected Request", &plain("this server answers to 127.0.0.1 only"));
    }
    if method != "GET" {
        return reply(stream, "405 Method Not Allowed", &plain("only GET"));
    }
    match catch_unwind(AssertUnwindSafe(|| answer(target))) {
        Ok(Some(answer)) => reply(stream, "200 OK", &answer),
        Ok(None) => reply(stream, "404 Not Found", &plain("there is nothing here")),
        // Rust has printed where; the page says that this did not work, and the rest goes on.
        Err(_) => reply(
            stream,
            "500 Internal Server Error",
            &plain("attend failed at this; its terminal says where"),
        ),
    }
}

fn is_ours(host: &str, port: u16) -> bool {
    let name = host.strip_suffix(&format!(":{port}")).unwrap_or(host);
    ["127.0.0.1", "localhost"].iter().any(|ours| name.eq_ignore_ascii_case(ours))
}

fn plain(text: &str) -> Answer {
    Answer { media_type: "text/plain; charset=utf-8", body: format!("{text}\n").into_bytes() }
}

fn reply(mut stream: &TcpStream, status: &str, answer: &Answer) -> io::Result<()> {
    let mut head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n",
        answer.media_type,
        answer.body.len()
    );
    for (name, value) in headers() {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(&answer.body)?;
    stream.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(request: &str) -> String {
        let listener = bind(Some(0)).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = AtomicBool::new(false);
        let answer = |target: &str| (target == "/").then(|| plain("the page"));
        std::thread::scope(|scope| {
            scope.spawn(|| serve(&listener, &stop, &answer).unwrap());
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(request.replace("PORT", &address.port().to_string()).as_bytes()).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            stop.store(true, Ordering::Relaxed);
            TcpStream::connect(address).unwrap();
            text
        })
    }

    #[test]
    fn only_get_from_a_loopback_name_is_answered() {
        let get = |host: &str| ask(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert!(
            get("127.0.0.1:PORT").starts_with("HTTP/1.1 200 ")
                && get("localhost:PORT").ends_with("the page\n")
        );
        // DNS rebinding: another site's name that points here.
        for host in ["evil.example:PORT", "evil.example", "127.0.0.1.evil.example:PORT", "127.0.0.1:1"] {
            assert!(get(host).starts_with("HTTP/1.1 421 "), "{host}");
        }
        assert!(ask("GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 421 "));
        assert!(ask("POST / HTTP/1.1\r\nhost: localhost:PORT\r\n\r\n").starts_with("HTTP/1.1 405 "));
        assert!(
            ask("GET /../etc/passwd HTTP/1.1\r\nHost: localhost:PORT\r\n\r\n").starts_with("HTTP/1.1 404 ")
        );
        assert!(ask("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").contains("nosniff"));
    }

    #[test]
    fn nothing_a_client_does_ends_the_server() {
        let listener = bind(Some(0)).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = AtomicBool::new(false);
        // Larger than what a socket holds, so that a client that leaves is noticed while it is written.
        let answer = |target: &str| match target {
            "/panics" => panic!("a fault in an answer"),
            "/large" => Some(Answer { media_type: "text/plain", body: vec![b'x'; 12 << 20] }),
            _ => Some(plain("the page")),
        };
        let request =
            |target: &str| format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n", address.port());
        let read = |mut stream: TcpStream| {
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        };
        std::thread::scope(|scope| {
            let serving = scope.spawn(|| serve(&listener, &stop, &answer).unwrap());
            for _ in 0..CONNECTIONS + 8 {
                // Closed without a word, in the middle of a request, and with an answer on its way.
                TcpStream::connect(address).unwrap();
                TcpStream::connect(address).unwrap().write_all(b"GET / HT").unwrap();
                let mut stream = TcpStream::connect(address).unwrap();
                stream.write_all(request("/large").as_bytes()).unwrap();
                stream.read_exact(&mut [0; 16]).unwrap();
            }
            let mut failed = TcpStream::connect(address).unwrap();
            failed.write_all(request("/panics").as_bytes()).unwrap();
            assert!(read(failed).starts_with("HTTP/1.1 500 "));
            // Opened early and used late, as browsers do; and others that are never used.
            let early = TcpStream::connect(address).unwrap();
            let unused: Vec<_> = (0..8).map(|_| TcpStream::connect(address).unwrap()).collect();
            std::thread::sleep(3 * LOOK);
            (&early).write_all(request("/").as_bytes()).unwrap();
            assert!(read(early).ends_with("the page\n"));
            let stopped = Instant::now();
            stop.store(true, Ordering::Relaxed);
            TcpStream::connect(address).unwrap();
            while !serving.is_finished() && stopped.elapsed() < PATIENCE / 2 {
                std::thread::sleep(LOOK / 10);
            }
            assert!(serving.is_finished(), "connections that are not used do not hold up its end");
            drop(unused);
        });
    }

    #[test]
    fn a_taken_port_is_an_error_or_the_next_one() {
        let first = bind(None).unwrap();
        let taken = first.local_addr().unwrap().port();
        assert_eq!(bind(Some(taken)).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_ne!(bind(None).unwrap().local_addr().unwrap().port(), taken);
    }
}
