//! A pull parser over JSON text: the caller says what it expects next.
//!
//! Chosen over `serde_json` because that one stops at 128 levels, insists on UTF-8, and cannot say which field of which
//! span was wrong. Nothing here recurses, so no document can exhaust the stack.

use std::borrow::Cow;

use super::JsonProblem;

type Result<T> = std::result::Result<T, JsonProblem>;

/// The reader. After an error its position is where the problem was met.
#[derive(Debug)]
pub(super) struct Pull<'a> {
    text: &'a [u8],
    position: usize,
}

impl<'a> Pull<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { text, position: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// The first byte of what comes next, white space skipped.
    pub(super) fn peek(&mut self) -> Result<u8> {
        loop {
            match self.text.get(self.position) {
                Some(b' ' | b'\t' | b'\r' | b'\n') => self.position += 1,
                Some(byte) => return Ok(*byte),
                None => return Err(JsonProblem::End),
            }
        }
    }

    /// Takes `byte`, which is named `expected` if it is not there.
    pub(super) fn expect(&mut self, byte: u8, expected: &'static str) -> Result<()> {
        if self.peek()? != byte {
            return Err(JsonProblem::Expected(expected));
        }
        self.position += 1;
        Ok(())
    }

    /// Takes `null` if it comes next.
    pub(super) fn null(&mut self) -> Result<bool> {
        if self.peek()? != b'n' {
            return Ok(false);
        }
        self.literal(b"null", "null")?;
        Ok(true)
    }

    pub(super) fn boolean(&mut self) -> Result<bool> {
        match self.peek()? {
            b't' => self.literal(b"true", "true or false").map(|()| true),
            b'f' => self.literal(b"false", "true or false").map(|()| false),
            _ => Err(JsonProblem::Expected("true or false")),
        }
    }

    fn literal(&mut self, text: &'static [u8], expected: &'static str) -> Result<()> {
        let rest = self.text.get(self.position..).unwrap_or_default();
        if rest.starts_with(text) {
            self.position += text.len();
            return Ok(());
        }
        Err(if text.starts_with(rest) { JsonProblem::End } else { JsonProblem::Expected(expected) })
    }

    /// Inside an object: the next key with its colon taken, or `None` with the closing brace taken. `first` is set by
    /// the caller when it has taken the opening brace.
    pub(super) fn key(&mut self, first: &mut bool) -> Result<Option<Cow<'a, [u8]>>> {
        if self.close_or_comma(b'}', "a comma or }", first)? {
            return Ok(None);
        }
        let key = self.string()?;
        self.expect(b':', "a colon")?;
        Ok(Some(key))
    }

    /// Inside an array: whether an element follows; if not, the closing bracket is taken.
    pub(super) fn element(&mut self, first: &mut bool) -> Result<bool> {
        Ok(!self.close_or_comma(b']', "a comma or ]", first)?)
    }

    fn close_or_comma(&mut self, close: u8, expected: &'static str, first: &mut bool) -> Result<bool> {
        let byte = self.peek()?;
        if byte == close {
            self.position += 1;
            return Ok(true);
        }
        if !std::mem::take(first) {
            self.expect(b',', expected)?;
        }
        Ok(false)
    }

    /// A string's contents. Bytes that are not UTF-8 are kept, as they are in protobuf.
    pub(super) fn string(&mut self) -> Result<Cow<'a, [u8]>> {
        self.expect(b'"', "a string")?;
        let plain = self.plain_run()?;
        if self.text.get(self.position) == Some(&b'"') {
            self.position += 1;
            return Ok(Cow::Borrowed(plain));
        }
        // What is escaped is longer than what it stands for, so this never grows.
        let mut contents = Vec::with_capacity(plain.len() + self.bytes_to_quote());
        contents.extend_from_slice(plain);
        loop {
            // A run ends at a quote or a backslash.
            let closing = self.text.get(self.position) == Some(&b'"');
            self.position += 1;
            if closing {
                return Ok(Cow::Owned(contents));
            }
            self.escape(&mut contents)?;
            contents.extend_from_slice(self.plain_run()?);
        }
    }

    /// How far the quote is that ends the string.
    fn bytes_to_quote(&self) -> usize {
        let rest = self.text.get(self.position..).unwrap_or_default();
        let mut escaped = false;
        let ends = |byte: &u8| {
            let quote = *byte == b'"' && !escaped;
            escaped = *byte == b'\\' && !escaped;
            quote
        };
        rest.iter().position(ends).unwrap_or(rest.len())
    }

    /// Bytes up to the next quote or backslash.
    fn plain_run(&mut self) -> Result<&'a [u8]> {
        let start = self.position;
        loop {
            match self.text.get(self.position) {
                Some(b'"' | b'\\') => return Ok(self.text.get(start..self.position).unwrap_or_default()),
                Some(0..0x20) => return Err(JsonProblem::ControlCharacter),
                Some(_) => self.position += 1,
                None => return Err(JsonProblem::End),
            }
        }
    }

    /// What follows a backslash. A surrogate without its other half becomes U+FFFD, as in Go and browsers.
    fn escape(&mut self, contents: &mut Vec<u8>) -> Result<()> {
        let byte = *self.text.get(self.position).ok_or(JsonProblem::End)?;
        let plain = match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                self.position += 1;
                let character = self.unicode_escape()?;
                contents.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return Err(JsonProblem::Escape),
        };
        self.position += 1;
        contents.push(plain);
        Ok(())
    }

    fn unicode_escape(&mut self) -> Result<char> {
        let first = self.four_hex_digits()?;
        if !(0xd800..0xdc00).contains(&first) {
            return Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        let after_first = self.position;
        if self.text.get(after_first..).is_some_and(|rest| rest.starts_with(b"\\u")) {
            self.position += 2;
            let second = self.four_hex_digits()?;
            if (0xdc00..0xe000).contains(&second) {
                let character = char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00));
                return Ok(character.unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.position = after_first;
        }
        Ok(char::REPLACEMENT_CHARACTER)
    }

    fn four_hex_digits(&mut self) -> Result<u32> {
        let mut value = 0;
        for _ in 0..4 {
            let byte = *self.text.get(self.position).ok_or(JsonProblem::End)?;
            value = value * 16 + char::from(byte).to_digit(16).ok_or(JsonProblem::Escape)?;
            self.position += 1;
        }
        Ok(value)
    }

    /// A number's text, which follows JSON's grammar.
    pub(super) fn number(&mut self) -> Result<&'a str> {
        self.peek()?;
        let start = self.position;
        self.optional(b"-");
        if !self.optional(b"0") {
            self.digits()?;
        }
        if self.optional(b".") {
            self.digits()?;
        }
        if self.optional(b"eE") {
            self.optional(b"+-");
            self.digits()?;
        }
        let text = self.text.get(start..self.position).unwrap_or_default();
        std::str::from_utf8(text).map_err(|_| JsonProblem::Expected("a number"))
    }

    fn optional(&mut self, one_of: &[u8]) -> bool {
        let there = self.text.get(self.position).is_some_and(|byte| one_of.contains(byte));
        self.position += usize::from(there);
        there
    }

    fn digits(&mut self) -> Result<()> {
        let rest = self.text.get(self.position..).unwrap_or_default();
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 {
            return Err(if rest.is_empty() { JsonProblem::End } else { JsonProblem::Expected("a number") });
        }
        self.position += count;
        Ok(())
    }

    /// Skips one value of any shape and depth. What is open is kept in a list of one byte each, not on the stack.
    pub(super) fn skip(&mut self) -> Result<()> {
        let mut closers = Vec::new();
        loop {
            let mut empty = true;
            match self.peek()? {
                b'{' => {
                    self.position += 1;
                    closers.push(b'}');
                    empty = self.peek()? == b'}';
                    if !empty {
                        self.skipped_key()?;
                    }
                }
                b'[' => {
                    self.position += 1;
                    closers.push(b']');
                    empty = self.peek()? == b']';
                }
                b'"' => drop(self.string()?),
                b't' | b'f' => drop(self.boolean()?),
                b'n' => drop(self.null()?),
                b'-' | b'0'..=b'9' => drop(self.number()?),
                _ => return Err(JsonProblem::Expected("a value")),
            }
            if !empty {
                continue;
            }
            // A value has ended, and maybe what contains it.
            loop {
                let Some(closer) = closers.last().copied() else { return Ok(()) };
                let byte = self.peek()?;
                if byte == closer {
                    self.position += 1;
                    closers.pop();
                    continue;
                }
                self.expect(b',', "a comma or the end of the array or object")?;
                if closer == b'}' {
                    self.skipped_key()?;
                }
                break;
            }
        }
    }

    fn skipped_key(&mut self) -> Result<()> {
        self.string()?;
        self.expect(b':', "a colon")
    }
}
