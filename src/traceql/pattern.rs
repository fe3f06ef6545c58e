//! Regular expressions as TraceQL means them: RE2 syntax as Go reads it, the whole string must match, a dot matches every
//! character.
//!
//! The `regex` crate reads nearly the same syntax. [`translate`] rewrites the rest, so that a pattern that works in Tempo
//! works here: braces that are no repetition (`/users/{id}`) stand for themselves, `\d \w \s \b` mean ASCII, `\Q...\E`
//! quotes, and brackets, `&` and `~` have no special meaning inside a class.

use std::fmt::{self, Debug, Formatter};
use std::sync::{Arc, OnceLock};

use regex::{Regex, RegexBuilder};

/// A compiled pattern is refused beyond this: `(.{500}){500}` must not eat the memory.
pub const COMPILED_BYTES_MAX: usize = 1 << 20;

/// A regular expression of a query. It is compiled when that is first asked for, and clones share what came of it.
#[derive(Clone)]
pub struct Pattern {
    text: Arc<str>,
    compiled: Arc<OnceLock<Result<Regex, String>>>,
}

impl Pattern {
    #[must_use]
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self { text: text.into(), compiled: Arc::default() }
    }

    #[must_use]
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// # Errors
    /// What is wrong with it, in a few words.
    pub fn regex(&self) -> Result<&Regex, &str> {
        let compiled = self.compiled.get_or_init(|| compile(&self.text).map_err(|error| reason(&error)));
        compiled.as_ref().map_err(String::as_str)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Debug for Pattern {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.text).finish()
    }
}

/// What is wrong with a pattern, without the picture of it that the crate draws over several lines.
fn reason(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => "it would need too much memory".to_owned(),
        other => {
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default();
            last.strip_prefix("error: ").unwrap_or(last).to_owned()
        }
    }
}

/// Compiles a pattern, anchored at both ends.
///
/// # Errors
/// It is no valid pattern, or needs more than a mebibyte when compiled.
pub fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    let translated = translate(pattern);
    // `a)(b` would be made valid by the parentheses around it.
    let text = if closes_too_much(&translated) { translated } else { format!("^(?:{translated})$") };
    RegexBuilder::new(&text)
        .dot_matches_new_line(true)
        .size_limit(COMPILED_BYTES_MAX)
        .dfa_size_limit(COMPILED_BYTES_MAX)
        .build()
}

/// Compiles a pattern that may match anywhere in a text, as Go's `regexp` means it: a dot matches no line feed.
///
/// # Errors
/// It is no valid pattern, or needs more than a mebibyte when compiled.
pub fn search(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(&translate(pattern)).size_limit(COMPILED_BYTES_MAX).dfa_size_limit(COMPILED_BYTES_MAX).build()
}

fn closes_too_much(translated: &str) -> bool {
    let (mut depth, mut class, mut escaped) = (0_i32, 0_i32, false);
    for byte in translated.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'[' => class += 1,
            b']' => class -= 1,
            b'(' if class == 0 => depth += 1,
            b')' if class == 0 => depth -= 1,
            _ => {}
        }
        if depth < 0 {
            return true;
        }
    }
    false
}

/// Rewrites Go's syntax into that of the `regex` crate.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern;
    // Inside [...]; and whether the next character is the first one there, where `]` stands for itself.
    let mut class = false;
    let mut first = false;
    while let Some(next) = rest.chars().next() {
        let tail = rest.get(next.len_utf8()..).unwrap_or_default();
        let (written, taken) = match next {
            '\\' => escape(tail, class, &mut out),
            '[' if class => {
                let named = tail.strip_prefix(':').and_then(|name| name.find(":]")).map(|end| end + 3);
                match named.and_then(|end| tail.get(..end)) {
                    Some(name) => {
                        out.push('[');
                        out.push_str(name);
                        (true, name.len())
                    }
                    None => {
                        out.push_str("\\[");
                        (true, 0)
                    }
                }
            }
            '[' => {
                class = true;
                out.push('[');
                let negated = tail.starts_with('^');
                if negated {
                    out.push('^');
                }
                first = true;
                rest = tail.get(usize::from(negated)..).unwrap_or_default();
                continue;
            }
            ']' if class && first => {
                out.push_str("\\]");
                (true, 0)
            }
            ']' => {
                class = false;
                (false, 0)
            }
            '&' | '~' if class => {
                out.push('\\');
                (false, 0)
            }
            '{' if !class && repetition(tail).is_none() => {
                out.push('\\');
                (false, 0)
            }
            '{' if !class => {
                let length = repetition(tail).unwrap_or(0);
                out.push('{');
                out.push_str(tail.get(..length).unwrap_or_default());
                (true, length)
            }
            '}' if !class => {
                out.push('\\');
                (false, 0)
            }
            _ => (false, 0),
        };
        if !written {
            out.push(next);
        }
        first = false;
        rest = tail.get(taken..).unwrap_or_default();
    }
    out
}

/// Writes what stands for a backslash and the text behind it. Says that it did, and how many bytes of the text it took.
fn escape(tail: &str, class: bool, out: &mut String) -> (bool, usize) {
    let Some(next) = tail.chars().next() else {
        out.push('\\');
        return (true, 0);
    };
    let bracketed = |inner: &str| if class { inner.to_owned() } else { format!("[{inner}]") };
    match next {
        'd' => out.push_str(&bracketed("0-9")),
        'D' => out.push_str("[^0-9]"),
        'w' => out.push_str(&bracketed("0-9A-Za-z_")),
        'W' => out.push_str("[^0-9A-Za-z_]"),
        's' => out.push_str(&bracketed("\\t\\n\\f\\r ")),
        'S' => out.push_str("[^\\t\\n\\f\\r ]"),
        'b' if !class => out.push_str("(?-u:\\b)"),
        'Q' if !class => {
            let quoted = tail.get(1..).unwrap_or_default();
            let end = quoted.find("\\E");
            let text = end.and_then(|end| quoted.get(..end)).unwrap_or(quoted);
            out.push_str(&regex::escape(text));
            return (true, 1 + text.len() + if end.is_some() { 2 } else { 0 });
        }
        // Signs of their own in the crate, the bare characters in Go.
        '<' | '>' => out.push(next),
        // Braces belong to these: they are no repetition.
        'x' | 'p' | 'P' => {
            let inner = tail.get(1..).and_then(|rest| rest.strip_prefix('{')).and_then(|rest| rest.find('}'));
            let length = 1 + inner.map_or(0, |length| length + 2);
            out.push('\\');
            out.push_str(tail.get(..length).unwrap_or_default());
            return (true, length);
        }
        _ => {
            out.push('\\');
            out.push(next);
        }
    }
    (true, next.len_utf8())
}

/// The length of `n}`, `n,}` or `n,m}` at the start of a text.
fn repetition(text: &str) -> Option<usize> {
    let length = text.find('}')?;
    let (least, most) = match text.get(..length)?.split_once(',') {
        Some((least, most)) => (least, most),
        None => (text.get(..length)?, ""),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    (!least.is_empty() && digits(least) && digits(most)).then_some(length + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        compile(pattern).unwrap().is_match(text)
    }

    #[test]
    fn the_whole_string_must_match_and_a_dot_matches_a_line_feed() {
        assert!(matches("a.*b", "a\nb"));
        assert!(!matches("b", "abc"));
        assert!(matches("a|bc", "bc"));
        assert!(!matches("a|bc", "ac"));
        assert!(!matches("a", "a\n"));
        assert!(matches("(?i)get", "GET"));
    }

    #[test]
    fn a_search_matches_anywhere_and_a_dot_matches_no_line_feed() {
        let found = |pattern: &str, text: &str| search(pattern).unwrap().is_match(text);
        assert!(found("b", "abc"));
        assert!(found("^/users/{id}$", "/users/{id}"));
        assert!(!found("a.b", "a\nb"));
        assert!(search("a)(b").is_err());
        assert!(search("(.{500}){500}").is_err());
    }

    #[test]
    fn braces_that_are_no_repetition_stand_for_themselves() {
        assert!(matches("GET /users/{id}", "GET /users/{id}"));
        assert!(matches("a{,2}", "a{,2}"));
        assert!(matches("a{2}", "aa"));
        assert!(matches("a{1,}b", "aaab"));
        assert!(matches("[{}]+", "{}{"));
        assert!(matches("x}", "x}"));
        assert!(matches(r"\x{61}\p{Greek}", "aλ"));
    }

    #[test]
    fn classes_mean_ascii_and_know_no_set_operations() {
        assert!(matches(r"\d\w\s", "1a "));
        assert!(!matches(r"\d", "\u{0663}"));
        assert!(matches(r"[\d.-]+", "1.2-3"));
        assert!(matches(r"[a&&b~~]+", "&a~b"));
        assert!(matches("[[:alpha:][]+", "a[b"));
        assert!(matches("[]a]+", "]a"));
        assert!(matches("[^]a]+", "xyz"));
        assert!(matches(r"\Qa.b\E+", "a.bbb"));
        assert!(matches(r"\<a\>", "<a>"));
        assert!(matches(r"a\b.b", "a b"));
        assert!(matches(r"\D[\D]", "ab"));
    }

    #[test]
    fn what_is_no_pattern_or_too_large_is_refused() {
        assert!(compile("[").is_err());
        assert!(compile("(a").is_err());
        assert!(compile("a)(b").is_err());
        assert!(compile("*").is_err());
        assert!(compile(r"a\").is_err());
        assert!(compile("(.{900}){900}").is_err());
    }

    proptest! {
        #[test]
        fn quoted_text_matches_itself_only(text in "\\PC*", other in "\\PC*") {
            let pattern = compile(&regex::escape(&text)).unwrap();
            prop_assert!(pattern.is_match(&text));
            prop_assert_eq!(pattern.is_match(&other), text == other);
        }

        #[test]
        fn no_text_makes_it_fall_over(text in "[\\\\\\[\\]{}()^QEdwsbxp:a-c0-9,.*&~-]{0,24}") {
            let _ = compile(&text).map(|pattern| pattern.is_match(&text));
        }
    }
}
