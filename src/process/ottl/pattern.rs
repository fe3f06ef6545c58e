//! Patterns: regular expressions as Go reads them, and globs.

use regex::{Regex, RegexBuilder};

use crate::process::pattern::Pattern;
use crate::traceql::pattern::COMPILED_BYTES_MAX;

/// Compiles a regular expression that may match anywhere in a text.
///
/// # Errors
/// It is none, or too large when compiled.
pub(super) fn compile(text: &str) -> Result<Regex, String> {
    Pattern::compile(text).map(|pattern| pattern.regex().clone())
}

/// Compiles a glob that must match the whole text: `*` and `?`, `[a-z]` and `[!a-z]`, `{a,b}`, `\` before what stands for
/// itself.
///
/// # Errors
/// It is none, or too large when compiled.
pub(super) fn glob(text: &str) -> Result<Regex, String> {
    let mut out = String::from("^");
    let mut characters = text.chars();
    let mut alternatives = 0_u32;
    while let Some(next) = characters.next() {
        match next {
            '*' => out.push_str(".*"),
            '?' => out.push('.'),
            '\\' => literal(&mut out, characters.next().ok_or("a backslash stands at the end")?),
            '{' => {
                alternatives += 1;
                out.push_str("(?:");
            }
            '}' if alternatives > 0 => {
                alternatives -= 1;
                out.push(')');
            }
            ',' if alternatives > 0 => out.push('|'),
            '[' => {
                let rest = characters.as_str();
                let length = rest.find(']').ok_or("a [ has no ]")?;
                let class = rest.get(..length).unwrap_or_default();
                out.push_str(&self::class(class)?);
                characters = rest.get(length + 1..).unwrap_or_default().chars();
            }
            other => literal(&mut out, other),
        }
    }
    if alternatives > 0 {
        return Err("a { has no }".to_owned());
    }
    out.push('$');
    RegexBuilder::new(&out)
        .dot_matches_new_line(true)
        .size_limit(COMPILED_BYTES_MAX)
        .dfa_size_limit(COMPILED_BYTES_MAX)
        .build()
        .map_err(|_| "it is too large when compiled".to_owned())
}

fn class(class: &str) -> Result<String, String> {
    let (negated, characters) = match class.strip_prefix('!') {
        Some(rest) => ("^", rest),
        None => ("", class),
    };
    if characters.is_empty() {
        return Err("[] names no character".to_owned());
    }
    let mut out = format!("[{negated}");
    for character in characters.chars() {
        match character {
            '-' => out.push('-'),
            other => literal(&mut out, other),
        }
    }
    out.push(']');
    Ok(out)
}

fn literal(out: &mut String, character: char) {
    if character.is_ascii_punctuation() {
        out.push('\\');
    }
    out.push(character);
}
