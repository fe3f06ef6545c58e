//! Strings, and quoted parts of names.

use super::Token;

/// The string at the start of a text that begins with a quote, and its length in bytes.
pub(super) fn scan(text: &str) -> (Token, usize) {
    let scanned = if text.starts_with('`') { raw(text) } else { escaped(text) };
    match scanned {
        Ok((string, length)) => (Token::String(string.into()), length),
        Err(problem) => (Token::Bad(problem.to_owned()), text.len()),
    }
}

/// Between back quotes everything stands for itself, but carriage returns are left out, as in Go.
fn raw(text: &str) -> Result<(String, usize), &'static str> {
    let inner = text.get(1..).unwrap_or_default();
    let length = inner.find('`').ok_or("literal not terminated")?;
    Ok((inner.get(..length).unwrap_or_default().replace('\r', ""), length + 2))
}

fn escaped(text: &str) -> Result<(String, usize), &'static str> {
    // Bytes, because `\x` and octal escapes write single ones.
    let mut bytes = Vec::new();
    let mut rest = text.get(1..).unwrap_or_default();
    loop {
        let next = rest.chars().next().filter(|next| *next != '\n').ok_or("literal not terminated")?;
        rest = rest.get(next.len_utf8()..).unwrap_or_default();
        match next {
            '"' => break,
            '\\' => rest = escape(rest, &mut bytes)?,
            other => bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    let string = String::from_utf8(bytes).map_err(|_| "string is not valid UTF-8")?;
    Ok((string, text.len() - rest.len()))
}

/// Writes what stands for an escape whose backslash was read, and returns the text behind it.
fn escape<'a>(text: &'a str, bytes: &mut Vec<u8>) -> Result<&'a str, &'static str> {
    const UNKNOWN: &str = "invalid escape sequence";
    let sign = text.chars().next().ok_or("literal not terminated")?;
    let rest = text.get(sign.len_utf8()..).unwrap_or_default();
    let simple = match sign {
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 11,
        '\\' => b'\\',
        '"' => b'"',
        'x' | 'u' | 'U' | '0'..='7' => {
            let (length, radix, from) = match sign {
                'x' => (2, 16, rest),
                'u' => (4, 16, rest),
                'U' => (8, 16, rest),
                _ => (3, 8, text),
            };
            let digits = from.get(..length).filter(|digits| digits.chars().all(|digit| digit.is_digit(radix)));
            let number = digits.and_then(|digits| u32::from_str_radix(digits, radix).ok()).ok_or(UNKNOWN)?;
            if matches!(sign, 'u' | 'U') {
                let character = char::from_u32(number).ok_or(UNKNOWN)?;
                bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                bytes.push(u8::try_from(number).map_err(|_| UNKNOWN)?);
            }
            return Ok(from.get(length..).unwrap_or_default());
        }
        _ => return Err(UNKNOWN),
    };
    bytes.push(simple);
    Ok(rest)
}

/// Reads a quoted part of a name at the start of a text onto the name, and returns its length in bytes.
pub(super) fn quoted_part(text: &str, name: &mut String) -> Result<usize, &'static str> {
    let mut characters = text.char_indices().skip(1);
    while let Some((index, next)) = characters.next() {
        match next {
            '"' => return Ok(index + 1),
            '\\' => match characters.next() {
                Some((_, escaped @ ('"' | '\\'))) => name.push(escaped),
                _ => return Err("invalid escape sequence"),
            },
            other => name.push(other),
        }
    }
    Err("unexpected EOF, expecting \"")
}
