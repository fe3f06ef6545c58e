//! The `tags` parameter: `key=value key="quoted value"`, read as Go's logfmt reads it.

/// Reads all pairs; a key without value has an empty one. Lines are records, whose pairs are joined here.
///
/// # Errors
/// What is wrong and where, counted in bytes of its line from 1: `unexpected '=' at pos 3`.
pub(super) fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut pairs = Vec::new();
    for line in text.split('\n') {
        let mut scanner = Scanner { line, position: 0 };
        while let Some(pair) = scanner.pair()? {
            pairs.push(pair);
        }
    }
    Ok(pairs)
}

struct Scanner<'t> {
    line: &'t str,
    position: usize,
}

/// Whether a byte ends a bare key or value.
fn is_space(byte: u8) -> bool {
    byte <= b' '
}

impl Scanner<'_> {
    fn pair(&mut self) -> Result<Option<(String, String)>, String> {
        self.take_while(is_space);
        if self.peek().is_none() {
            return Ok(None);
        }
        let key = self.take_while(|byte| !is_space(byte) && byte != b'=' && byte != b'"').to_owned();
        match self.peek() {
            Some(b'"') => return Err(self.unexpected('"')),
            Some(b'=') if key.is_empty() => return Err(self.unexpected('=')),
            Some(b'=') => self.position += 1,
            _ => return Ok(Some((key, String::new()))),
        }
        let value = if self.peek() == Some(b'"') { self.quoted()? } else { self.bare()? };
        Ok(Some((key, value)))
    }

    fn bare(&mut self) -> Result<String, String> {
        let value = self.take_while(|byte| !is_space(byte) && byte != b'=' && byte != b'"').to_owned();
        match self.peek() {
            Some(b'=') => Err(self.unexpected('=')),
            Some(b'"') => Err(self.unexpected('"')),
            _ => Ok(value),
        }
    }

    fn quoted(&mut self) -> Result<String, String> {
        let start = self.position;
        let mut escaped = false;
        let inside = self.line.as_bytes().get(start + 1..).unwrap_or_default();
        let Some(end) = inside.iter().position(|byte| {
            let closes = *byte == b'"' && !escaped;
            escaped = *byte == b'\\' && !escaped;
            closes
        }) else {
            self.position = self.line.len();
            return Err(self.at_position("unterminated quoted value"));
        };
        self.position = start + end + 2;
        let literal = self.line.get(start..self.position).unwrap_or_default();
        // Go unquotes it as a JSON string too.
        serde_json::from_str(literal).map_err(|_| self.at_position("invalid quoted value"))
    }

    fn peek(&self) -> Option<u8> {
        self.line.as_bytes().get(self.position).copied()
    }

    /// Ends at an ASCII byte or at the end, so always between characters.
    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &str {
        let rest = self.line.get(self.position..).unwrap_or_default();
        let len = rest.bytes().position(|byte| !wanted(byte)).unwrap_or(rest.len());
        self.position += len;
        rest.get(..len).unwrap_or_default()
    }

    fn unexpected(&self, character: char) -> String {
        self.at_position(&format!("unexpected '{character}'"))
    }

    fn at_position(&self, problem: &str) -> String {
        format!("{problem} at pos {}", self.position + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Vec<(String, String)>, String> {
        pairs(text)
    }

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn keys_and_values_bare_or_quoted() {
        assert_eq!(read("a=b").unwrap(), owned(&[("a", "b")]));
        assert_eq!(
            read("  service.name=shop   name=\"GET /\"").unwrap(),
            owned(&[("service.name", "shop"), ("name", "GET /")])
        );
        assert_eq!(read(r#"a="say \"hi\" ü" b"#).unwrap(), owned(&[("a", "say \"hi\" ü"), ("b", "")]));
        assert_eq!(read("a= b=\"\"\nc=d").unwrap(), owned(&[("a", ""), ("b", ""), ("c", "d")]));
        assert_eq!(read("").unwrap(), owned(&[]));
    }

    #[test]
    fn errors_say_where() {
        assert_eq!(read("=b").unwrap_err(), "unexpected '=' at pos 1");
        assert_eq!(read("a=b=c").unwrap_err(), "unexpected '=' at pos 4");
        assert_eq!(read("a=b\"c").unwrap_err(), "unexpected '\"' at pos 4");
        assert_eq!(read("a\"b").unwrap_err(), "unexpected '\"' at pos 2");
        assert_eq!(read("a=\"b").unwrap_err(), "unterminated quoted value at pos 5");
        assert_eq!(read(r#"a="\x""#).unwrap_err(), "invalid quoted value at pos 7");
    }

    proptest! {
        #[test]
        fn what_is_quoted_is_read_back(key in "[a-z.]{1,8}", value: String) {
            // A line break ends a record, even in quotes; JSON writes it escaped.
            let text = format!("{key}={}", serde_json::to_string(&value).unwrap());
            prop_assert_eq!(read(&text).unwrap(), vec![(key, value)]);
        }

        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let _ = read(&text);
        }
    }
}
