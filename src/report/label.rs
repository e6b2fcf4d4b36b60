//! A token as a person reads it, in a given number of terminal columns.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// What to show for a token: its bytes as text, without the space in front of a word; control
/// characters escaped, part of a character as its bytes in hexadecimal, `#7` where there is no text.
pub fn label(bytes: &[u8], id: u32) -> String {
    if bytes.is_empty() {
        return format!("#{id}");
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return bytes.iter().map(|byte| format!("\\x{byte:02X}")).collect();
    };
    let word = text.strip_prefix(' ').filter(|rest| !rest.trim().is_empty()).unwrap_or(text);
    word.chars().map(shown).collect()
}

fn shown(c: char) -> String {
    match c {
        ' ' => "␣".into(),
        '\n' => "⏎".into(),
        '\t' => "⇥".into(),
        // Also zero-width characters and direction marks, which would disturb the table.
        c if c.is_control() || c.width().unwrap_or(0) == 0 => format!("\\u{:x}", u32::from(c)),
        c => c.into(),
    }
}

/// Cut to at most `width` columns, with `…` where something is missing.
pub fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut cut = String::new();
    let mut used = 0;
    for c in text.chars() {
        let columns = c.width().unwrap_or(0);
        if used + columns + 1 > width {
            break;
        }
        cut.push(c);
        used += columns;
    }
    cut.push('…');
    cut
}

/// Filled up with spaces to `width` columns, in front.
pub fn right(text: &str, width: usize) -> String {
    format!("{}{text}", " ".repeat(width.saturating_sub(text.width())))
}

/// Filled up with spaces to `width` columns, behind.
pub fn left(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(text.width())))
}

/// Lines of at most `width` columns, broken at spaces; a word that is too long is cut in pieces.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![];
    let mut line = String::new();
    for word in text.split(' ') {
        let space = usize::from(!line.is_empty());
        if line.width() + space + word.width() > width && !line.is_empty() {
            lines.push(std::mem::take(&mut line));
        } else if space == 1 {
            line.push(' ');
        }
        for c in word.chars() {
            if line.width() + c.width().unwrap_or(0) > width && !line.is_empty() {
                lines.push(std::mem::take(&mut line));
            }
            line.push(c);
        }
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_shown_as_they_read() {
        for (bytes, expected) in [
            (" cat".as_bytes(), "cat"),
            ("  ".as_bytes(), "␣␣"),
            ("\n".as_bytes(), "⏎"),
            ("안녕".as_bytes(), "안녕"),
            (&[0xec, 0x95], "\\xEC\\x95"),
            ("a\u{1b}[1m".as_bytes(), "a\\u1b[1m"),
            ("\u{202e}x".as_bytes(), "\\u202ex"),
            (b"", "#7"),
        ] {
            assert_eq!(label(bytes, 7), expected);
        }
    }

    #[test]
    fn lines_are_wrapped_at_spaces() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("안녕 하세요 a", 6), ["안녕", "하세요", "a"]);
        assert_eq!(wrapped("abcdefgh ij", 3), ["abc", "def", "gh", "ij"]);
        assert_eq!(wrapped("one", 80), ["one"]);
        assert!(wrapped("한국어", 1).iter().all(|line| line.chars().count() == 1));
    }

    #[test]
    fn cutting_counts_columns() {
        assert_eq!(cut("hello", 5), "hello");
        assert_eq!(cut("hello!", 5), "hell…");
        assert_eq!(cut("안녕하세요", 5), "안녕…");
        assert_eq!(right("안", 5), "   안");
        assert_eq!(left("안", 5), "안   ");
    }
}
