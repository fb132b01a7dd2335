//! Other people's bytes made harmless: escaping of names, command lines and paths for every output.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Escapes control characters, bidirectional overrides, the backslash and bytes that are not UTF-8 as `\xNN`
/// or `\u{…}`, so that no task name can move the cursor, forge a line or break JSON. Reversible by
/// [`unescape`].
#[must_use]
pub fn escape(bytes: &[u8]) -> Cow<'_, str> {
    let harmless = |c: char| !c.is_control() && c != '\\' && !is_invisible(c);
    if let Ok(text) = std::str::from_utf8(bytes)
        && text.chars().all(harmless)
    {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(bytes.len() + 8);
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                c if harmless(c) => out.push(c),
                c if u32::from(c) < 0x80 => write_hex(&mut out, c as u8),
                c => out.extend(c.escape_unicode()),
            }
        }
        chunk.invalid().iter().for_each(|&byte| write_hex(&mut out, byte));
    }
    Cow::Owned(out)
}

/// Undoes [`escape`]; anything that is no escape is taken as it stands.
#[must_use]
pub fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('\\') {
            out.push(b'\\');
            rest = after;
        } else if let Some(byte) = rest
            .strip_prefix('x')
            .and_then(|hex| hex.get(..2))
            .and_then(|hex| u8::from_str_radix(hex, 16).ok())
        {
            out.push(byte);
            rest = &rest[3..];
        } else if let Some((hex, after)) = rest.strip_prefix("u{").and_then(|body| body.split_once('}'))
            && let Some(c) = u32::from_str_radix(hex, 16).ok().and_then(char::from_u32)
        {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            rest = after;
        } else {
            out.push(b'\\');
        }
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

/// Characters that change how the text around them is laid out: bidirectional controls, zero-width and line
/// separators.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

fn write_hex(out: &mut String, byte: u8) {
    // Writing to a String cannot fail.
    let _ = write!(out, "\\x{byte:02x}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_left_alone() {
        assert_eq!(escape(b"nginx: worker"), "nginx: worker");
        assert_eq!(escape("größe".as_bytes()), "größe");
    }

    #[test]
    fn terminal_sequences_newlines_and_bad_utf8_are_shown_not_sent() {
        assert_eq!(escape(b"\x1b[31mred\n\xff"), "\\x1b[31mred\\x0a\\xff");
        assert_eq!(escape("a\u{202e}b".as_bytes()), "a\\u{202e}b");
    }

    proptest::proptest! {
        #[test]
        fn escape_is_reversible_and_prints_no_control_character(bytes: Vec<u8>) {
            let shown = escape(&bytes);
            assert!(!shown.chars().any(char::is_control));
            assert_eq!(unescape(&shown), bytes);
        }
    }
}
