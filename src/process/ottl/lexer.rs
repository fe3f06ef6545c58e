//! Text into tokens, one at a time, as the Collector's lexer cuts it.

use super::problem::{Place, Problem};

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    End,
    /// An operator, a bracket, a keyword.
    Sign(&'static str),
    /// Lower case throughout: a part of a path, an editor, the name of an argument.
    Lower(String),
    /// Upper case throughout: an enum, or a converter if a parenthesis follows.
    Upper(String),
    /// Both cases: a converter, or (beginning in lower case) only the name of an editor or argument.
    Mixed(String),
    Text(String),
    Int(i64),
    Double(f64),
    Bytes(Vec<u8>),
}

const KEYWORDS: [&str; 6] = ["nil", "not", "or", "and", "true", "false"];

/// Longest first where one begins another.
const SIGNS: [&str; 20] =
    ["==", "!=", ">=", "<=", "=>", ">", "<", "=", "+", "-", "*", "/", "(", ")", "[", "]", "{", "}", ",", "."];

/// Cuts a text.
#[derive(Debug, Clone)]
pub(super) struct Lexer<'t> {
    text: &'t str,
    position: usize,
}

impl<'t> Lexer<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, position: 0 }
    }

    /// The next token and where it begins.
    pub(super) fn next(&mut self) -> Result<(Token, Place), Problem> {
        let rest = self.text.get(self.position..).unwrap_or_default();
        let blanks = rest.find(|next| !matches!(next, ' ' | '\t' | '\n' | '\r' | '\x0c')).unwrap_or(rest.len());
        self.position += blanks;
        let place = Place::new(self.position);
        let token = self.token(place)?;
        Ok((token, place))
    }

    fn token(&mut self, place: Place) -> Result<Token, Problem> {
        let rest = self.text.get(self.position..).unwrap_or_default();
        let Some(first) = rest.chars().next() else { return Ok(Token::End) };
        let second_is_digit = rest.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
        if first.is_ascii_digit() || (first == '.' && second_is_digit) {
            return self.number(rest, place);
        }
        if first == '"' {
            return self.string(rest, place);
        }
        if first.is_ascii_alphabetic() {
            let length = rest.find(|next: char| next != '_' && !next.is_ascii_alphanumeric()).unwrap_or(rest.len());
            self.position += length;
            return Ok(word(rest.get(..length).unwrap_or(rest)));
        }
        if first == ':' {
            self.position += 1;
            return Ok(Token::Sign(":"));
        }
        match SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
            Some("=>") => Err(self.problem(
                place,
                "lambda expressions are not supported",
                "they are alpha, and off in a Collector as it comes",
            )),
            Some(sign) => {
                self.position += sign.len();
                Ok(Token::Sign(sign))
            }
            None => {
                let remedy = match first {
                    '\'' | '`' => "texts stand in double quotes",
                    '&' => "conditions are joined by `and`",
                    '|' => "conditions are joined by `or`",
                    '!' => "conditions are turned round by `not`",
                    _ => "",
                };
                Err(self.problem(place, format!("{:?} is no part of the language", first.to_string()), remedy))
            }
        }
    }

    fn number(&mut self, rest: &str, place: Place) -> Result<Token, Problem> {
        if let Some(digits) = rest.strip_prefix("0x") {
            let length = digits.find(|next: char| !next.is_ascii_hexdigit()).unwrap_or(digits.len());
            let digits = digits.get(..length).unwrap_or_default();
            let bytes = (!digits.is_empty()).then(|| hex(digits)).flatten();
            self.position += 2 + length;
            return bytes
                .map(Token::Bytes)
                .ok_or_else(|| self.problem(place, "bytes are 0x and an even number of hexadecimal digits", ""));
        }
        let (length, is_double) = number_length(rest);
        let number = rest.get(..length).unwrap_or_default();
        self.position += length;
        let token = if is_double {
            number.parse().ok().filter(|double: &f64| double.is_finite()).map(Token::Double)
        } else {
            // A leading zero means octal, as in Go.
            let octal = number.len() > 1 && number.starts_with('0');
            i64::from_str_radix(number, if octal { 8 } else { 10 }).ok().map(Token::Int)
        };
        token.ok_or_else(|| match number.starts_with('0') && !is_double {
            true => self.problem(place, format!("{number} is no octal number"), "a leading zero means octal"),
            false => self.problem(place, format!("{number} is out of range"), ""),
        })
    }

    fn string(&mut self, rest: &str, place: Place) -> Result<Token, Problem> {
        let mut text = String::new();
        let mut tail = rest.get(1..).unwrap_or_default();
        loop {
            let Some(next) = tail.chars().next() else {
                return Err(self.problem(place, "a text has no end", "close it with a double quote"));
            };
            tail = tail.get(next.len_utf8()..).unwrap_or_default();
            match next {
                '"' => break,
                '\\' => {
                    let at = Place::new(self.text.len() - tail.len() - 1);
                    let (character, length) = escape(tail).ok_or_else(|| {
                        let sign: String = tail.chars().take(1).collect();
                        let remedy = format!("a backslash is written twice: \\\\{sign}");
                        self.problem(at, format!("\\{sign} is no escape sequence"), remedy)
                    })?;
                    text.push(character);
                    tail = tail.get(length..).unwrap_or_default();
                }
                other => text.push(other),
            }
        }
        self.position = self.text.len() - tail.len();
        Ok(Token::Text(text))
    }

    fn problem(&self, place: Place, reason: impl Into<String>, remedy: impl Into<String>) -> Problem {
        Problem::new(self.text, place, reason, remedy)
    }
}

fn word(word: &str) -> Token {
    if let Some(keyword) = KEYWORDS.into_iter().find(|keyword| *keyword == word) {
        return Token::Sign(keyword);
    }
    match (word.bytes().any(|byte| byte.is_ascii_lowercase()), word.bytes().any(|byte| byte.is_ascii_uppercase())) {
        (true, false) => Token::Lower(word.to_owned()),
        (false, true) => Token::Upper(word.to_owned()),
        _ => Token::Mixed(word.to_owned()),
    }
}

/// How many bytes of the text are a number, and whether it has a point.
fn number_length(text: &str) -> (usize, bool) {
    let digits = |from: usize| {
        let rest = text.get(from..).unwrap_or_default();
        rest.find(|next: char| !next.is_ascii_digit()).unwrap_or(rest.len())
    };
    let at = |index: usize| text.as_bytes().get(index).copied();
    let whole = digits(0);
    if at(whole) != Some(b'.') {
        return (whole, false);
    }
    let mut length = whole + 1 + digits(whole + 1);
    if matches!(at(length), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(at(length + 1), Some(b'+' | b'-')));
        let exponent = digits(length + 1 + sign);
        if exponent > 0 {
            length += 1 + sign + exponent;
        }
    }
    (length, true)
}

/// The character that stands behind a backslash, and how many bytes say so. Numbers name code points, as in Go.
fn escape(text: &str) -> Option<(char, usize)> {
    let sign = text.chars().next()?;
    let simple = match sign {
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        '\\' | '"' => sign,
        'x' | 'u' | 'U' | '0'..='7' => {
            let (skip, length, radix) = match sign {
                'x' => (1, 2, 16),
                'u' => (1, 4, 16),
                'U' => (1, 8, 16),
                _ => (0, 3, 8),
            };
            let digits = text.get(skip..skip + length)?;
            let digits = Some(digits).filter(|digits| digits.chars().all(|digit| digit.is_digit(radix)))?;
            let number = u32::from_str_radix(digits, radix).ok()?;
            let character = char::from_u32(number).filter(|_| radix == 16 || number <= 0xff)?;
            return Some((character, skip + length));
        }
        _ => return None,
    };
    Some((simple, 1))
}

/// The bytes that an even number of hexadecimal digits writes.
pub(super) fn hex(digits: &str) -> Option<Vec<u8>> {
    let nibble = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits.as_bytes().chunks_exact(2).map(|pair| Some(nibble(*pair.first()?)? << 4 | nibble(*pair.get(1)?)?)).collect()
}
