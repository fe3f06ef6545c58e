//! Patterns for attribute names, as the Collector's `span_metrics` has them.
//!
//! ```text
//! *  any characters but dots    **  any characters    ?  one character but a dot    \c  the character c
//! [abc] [a-z] [!..]  one character of these, or of none of these    {a,b.*}  either
//! ```

use super::facts::Value;
use regex::bytes::Regex;
use std::fmt::Write as _;
use std::iter::Peekable;
use std::str::Chars;

/// Labels of one series that globs bring in, at most; of more, the first by name.
pub const GLOBBED_MAX: usize = 32;
/// A longer pattern is a mistake, and would be a large program.
const PATTERN_BYTES_MAX: usize = 256;
/// Braces within braces.
const DEPTH_MAX: usize = 8;

/// Compiled patterns; a name matches if it matches one of them.
#[derive(Debug, Clone)]
pub struct Globs {
    texts: Vec<String>,
    regex: Regex,
}

impl PartialEq for Globs {
    fn eq(&self, other: &Self) -> bool {
        self.texts == other.texts
    }
}

impl Globs {
    /// `None`: there are no patterns.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub fn compile(texts: &[String]) -> Result<Option<Self>, String> {
        if texts.is_empty() {
            return Ok(None);
        }
        let patterns: Vec<String> = texts.iter().map(|text| translated(text)).collect::<Result<_, _>>()?;
        let whole = format!("^(?s:{})$", patterns.join("|"));
        let regex = Regex::new(&whole).map_err(|_| "is too large when compiled".to_owned())?;
        Ok(Some(Self { texts: texts.to_vec(), regex }))
    }

    #[inline]
    pub fn matches(&self, name: &[u8]) -> bool {
        self.regex.is_match(name)
    }
}

/// The attributes that matched, by name, each name once: the first that came. Nothing is allocated.
pub struct Globbed<'a> {
    found: [(&'a [u8], Option<Value<'a>>); GLOBBED_MAX],
    count: usize,
    /// There were more than fit.
    pub overflowed: bool,
}

impl Default for Globbed<'_> {
    fn default() -> Self {
        Self { found: [(b"", None); GLOBBED_MAX], count: 0, overflowed: false }
    }
}

impl<'a> Globbed<'a> {
    pub fn add(&mut self, name: &'a [u8], value: Option<Value<'a>>) {
        let known = self.found.get(..self.count).unwrap_or_default();
        let Err(at) = known.binary_search_by_key(&name, |(known, _)| known) else { return };
        self.overflowed |= self.count == GLOBBED_MAX;
        if let Some(rest) = self.found.get_mut(at..(self.count + 1).min(GLOBBED_MAX)).filter(|rest| !rest.is_empty()) {
            // The last one of a full list goes.
            rest.rotate_right(1);
            rest[0] = (name, value);
            self.count = (self.count + 1).min(GLOBBED_MAX);
        }
    }

    /// Those whose values are plain.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], Value<'a>)> {
        self.found.iter().take(self.count).filter_map(|(name, value)| Some((*name, (*value)?)))
    }
}

/// As a regular expression.
fn translated(text: &str) -> Result<String, String> {
    if text.len() > PATTERN_BYTES_MAX {
        return Err(format!("is longer than {PATTERN_BYTES_MAX} bytes"));
    }
    let (mut out, mut depth, mut chars) = (String::new(), 0, text.chars().peekable());
    while let Some(char) = chars.next() {
        match char {
            '*' if chars.next_if_eq(&'*').is_some() => out.push_str(".*"),
            '*' => out.push_str("[^.]*"),
            '?' => out.push_str("[^.]"),
            '[' => class(&mut chars, &mut out)?,
            '{' if depth == DEPTH_MAX => return Err(format!("has more than {DEPTH_MAX} braces within braces")),
            '{' => {
                depth += 1;
                out.push_str("(?:");
            }
            ',' if depth > 0 => out.push('|'),
            '}' if depth > 0 => {
                depth -= 1;
                out.push(')');
            }
            '\\' => literal(chars.next().ok_or("ends in a backslash")?, &mut out),
            char => literal(char, &mut out),
        }
    }
    if depth > 0 { Err("has a brace that is not closed".to_owned()) } else { Ok(out) }
}

/// What stands behind `[`.
fn class(chars: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    const OPEN: &str = "has a bracket that is not closed";
    out.push('[');
    if chars.next_if_eq(&'!').is_some() {
        out.push('^');
    }
    let mut members = Vec::new();
    loop {
        match chars.next().ok_or(OPEN)? {
            ']' if !members.is_empty() => break,
            ']' => return Err("has brackets with nothing between them".to_owned()),
            '\\' => members.push(chars.next().ok_or(OPEN)?),
            '-' if members.len() == 1 => {
                let (low, high) = (members[0], chars.next().ok_or(OPEN)?);
                if chars.next() != Some(']') {
                    return Err("has more than a range between brackets".to_owned());
                }
                if low > high {
                    return Err(format!("has a range from {low:?} down to {high:?}"));
                }
                literal(low, out);
                out.push('-');
                literal(high, out);
                out.push(']');
                return Ok(());
            }
            char => members.push(char),
        }
    }
    members.into_iter().for_each(|member| literal(member, out));
    out.push(']');
    Ok(())
}

/// One character as itself, inside brackets and outside.
fn literal(char: char, out: &mut String) {
    // Writing to a String cannot fail.
    let _ = write!(out, "\\x{{{:x}}}", u32::from(char));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Globs::compile(&[pattern.to_owned()]).unwrap().unwrap().matches(name.as_bytes())
    }

    #[test]
    fn patterns_mean_what_they_mean_in_the_collector() {
        for (pattern, yes, no) in [
            ("db.*", &["db.name", "db."][..], &["db.mysql.name", "db", "xdb.name"][..]),
            ("db.**", &["db.name", "db.mysql.name"], &["dbx.name"]),
            ("http.?etho[a-e]", &["http.method"], &["http..ethod", "http.methof"]),
            ("[!ab]c", &["cc", ".c"], &["ac", "bc", "c"]),
            ("[abc]", &["a", "c"], &["d", "ab"]),
            ("{db,http}.{name,*.x}", &["db.name", "http.y.x"], &["rpc.name", "db.x"]),
            ("a,b}", &["a,b}"], &["a", "b"]),
            ("\\*", &["*"], &["x"]),
            ("(a|b)+", &["(a|b)+"], &["a"]),
            ("", &[""], &["a"]),
        ] {
            yes.iter().for_each(|name| assert!(matches(pattern, name), "{pattern} {name}"));
            no.iter().for_each(|name| assert!(!matches(pattern, name), "{pattern} {name}"));
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_the_reason() {
        for (pattern, reason) in [
            ("db.[", "not closed"),
            ("[]", "nothing between"),
            ("[a-cx]", "more than a range"),
            ("[c-a]", "down to"),
            ("{a", "not closed"),
            ("a\\", "backslash"),
        ] {
            let error = Globs::compile(&[pattern.to_owned()]).unwrap_err();
            assert!(error.contains(reason), "{pattern}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic_and_what_has_no_signs_matches_itself(text in ".{0,20}", plain in "[a-z._|()+$^-]{0,20}") {
            let _ = Globs::compile(std::slice::from_ref(&text));
            prop_assert!(matches(&plain, &plain));
        }

        #[test]
        fn what_matched_is_in_order_of_names_and_each_once(names in proptest::collection::vec("[a-z]{1,2}", 0..80)) {
            let mut globbed = Globbed::default();
            names.iter().enumerate().for_each(|(index, name)| {
                globbed.add(name.as_bytes(), Some(Value::Int(index as i64)));
            });
            let mut first: Vec<(&[u8], Value<'_>)> = Vec::new();
            for (index, name) in names.iter().enumerate() {
                if !first.iter().any(|(known, _)| *known == name.as_bytes()) {
                    first.push((name.as_bytes(), Value::Int(index as i64)));
                }
            }
            first.sort_by_key(|(name, _)| *name);
            prop_assert_eq!(globbed.overflowed, first.len() > GLOBBED_MAX);
            first.truncate(GLOBBED_MAX);
            prop_assert_eq!(globbed.iter().collect::<Vec<_>>(), first);
        }
    }
}
