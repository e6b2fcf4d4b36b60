//! `generate --watch` on a terminal: the text is the same with and without it, nothing drawn is wider
//! than the terminal, and at the end the screen holds the text alone.
#![cfg(unix)]

#[path = "common/program.rs"]
mod program;

use std::fs::File;
use std::io::Read;
use std::process::Stdio;

use program::{attend, failure, run, stdout};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};
use unicode_width::UnicodeWidthChar;

/// As much of a terminal as attend uses: what is on its screen, and what has scrolled off it.
struct Screen {
    columns: usize,
    rows: usize,
    lines: Vec<Vec<char>>,
    row: usize,
    column: usize,
    /// Whether a line was ever too long.
    wrapped: bool,
}

impl Screen {
    fn show(&mut self, text: &str) {
        let mut characters = text.chars();
        while let Some(c) = characters.next() {
            match c {
                '\r' => self.column = 0,
                '\n' => {
                    self.row += 1;
                    self.lines.resize(self.lines.len().max(self.row + 1), vec![]);
                }
                '\x1b' => {
                    assert_eq!(characters.next(), Some('['));
                    let mut number = String::new();
                    let end = loop {
                        match characters.next().unwrap() {
                            c if c.is_ascii_digit() || c == ';' => number.push(c),
                            c => break c,
                        }
                    };
                    match end {
                        'm' => {}
                        'A' => {
                            // Not higher than the screen's top.
                            let top = self.lines.len().saturating_sub(self.rows);
                            self.row = self.row.saturating_sub(number.parse().unwrap()).max(top);
                        }
                        'K' => self.lines[self.row].truncate(self.column),
                        'J' => {
                            self.lines[self.row].truncate(self.column);
                            self.lines.truncate(self.row + 1);
                        }
                        other => panic!("unknown sequence {other:?}"),
                    }
                }
                c => {
                    assert!(!c.is_control(), "{c:?} reached the terminal");
                    let width = c.width().unwrap_or(0);
                    if self.column + width > self.columns {
                        self.wrapped = true;
                        self.show("\r\n");
                    }
                    // A wide character is followed by a cell that holds nothing.
                    let line = &mut self.lines[self.row];
                    line.resize(line.len().max(self.column + width), ' ');
                    line[self.column] = c;
                    (1..width).for_each(|behind| line[self.column + behind] = '\0');
                    self.column += width;
                }
            }
        }
    }

    fn text(&self) -> String {
        let line = |line: &Vec<char>| line.iter().filter(|c| **c != '\0').collect::<String>();
        self.lines.iter().map(|each| line(each).trim_end().to_owned() + "\n").collect::<String>()
    }
}

/// What `attend generate` sends to a terminal of this size.
fn on_terminal(args: &[&str], columns: usize, rows: usize) -> String {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, vec![]).unwrap();
    let terminal = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let (ws_col, ws_row) = (columns as u16, rows as u16);
    tcsetwinsize(&terminal, Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    assert!(tcgetattr(&terminal).is_ok());
    let mut command = attend();
    command.args(args).env("TERM", "xterm-256color").env_remove("COLORTERM").env_remove("NO_COLOR");
    let mut child = command.stdout(terminal).stderr(Stdio::null()).spawn().unwrap();
    // The command keeps its copy of the terminal open, and reading would never end.
    drop(command);
    let mut bytes = vec![];
    // Linux answers with an error once the last writer is gone.
    let _ = File::from(master).read_to_end(&mut bytes);
    assert!(child.wait().unwrap().success());
    String::from_utf8(bytes).unwrap()
}

const PROMPT: &str = "Once upon a time there was a little girl named Lily. 안녕 🙂\nLily had";

#[test]
fn the_screen_holds_the_text_alone_in_the_end() {
    let plain = stdout(&["generate", PROMPT, "-n", "24", "--temp", "0"]);
    for (watch, columns, rows) in
        [("--watch", 80, 24), ("--watch=4.1", 20, 6), ("--watch=0", 33, 4), ("--watch", 9, 2)]
    {
        let sent = on_terminal(&["generate", PROMPT, "-n", "24", "--temp", "0", watch], columns, rows);
        assert!(sent.contains("\x1b[48;5;"), "tokens are shaded");
        let mut screen = Screen { columns, rows, lines: vec![vec![]], row: 0, column: 0, wrapped: false };
        // The last frame is followed by its end: from the cursor's way up on.
        let end = sent.rfind("\x1b[J").unwrap();
        let frames = &sent[..sent[..end].rfind('\r').unwrap()];
        screen.show(frames);
        assert!(!screen.wrapped, "{watch} in {columns} columns:\n{}", screen.text());
        assert!(screen.lines.len() <= rows.max(2), "{watch}: frames do not pile up\n{}", screen.text());
        assert!(screen.text().contains("first to") || columns < 40, "{}", screen.text());
        screen.show(&sent[frames.len()..]);
        let shown: String = screen.text().split_whitespace().collect();
        let expected: String = plain.split_whitespace().collect();
        assert_eq!(shown, expected, "{watch} in {columns} columns");
    }
}

#[test]
fn without_a_terminal_the_text_comes_as_ever() {
    let plain = run(&["generate", PROMPT, "-n", "8", "--temp", "0"]);
    let watched = run(&["generate", PROMPT, "-n", "8", "--temp", "0", "--watch=1.1"]);
    assert_eq!(watched.stdout, plain.stdout);
    let note = String::from_utf8(watched.stderr).unwrap();
    assert!(note.contains("--watch draws on a terminal"), "{note}");
}

#[test]
fn a_head_that_is_not_there_is_refused() {
    for (watch, word) in [
        ("--watch=9", "no layer 9"),
        ("--watch=0.99", "no head 99"),
        ("--watch=x", "expected a layer and a head"),
        ("--watch=1.2.3", "expected a layer and a head"),
    ] {
        let message = failure(&run(&["generate", PROMPT, "-n", "1", watch]), 2);
        assert!(message.contains(word), "{watch}: {message}");
    }
}
