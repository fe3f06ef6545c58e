//! Label values put end to end: what series are found by, and what their labels are read from.
//!
//! ```text
//! length u16 ┆ value ┆ length u16 ┆ value ┆ ...
//! ```

use std::borrow::Cow;

/// A value is cut to this many bytes: a span name may be as long as a request, and every series keeps its own.
pub const VALUE_BYTES_MAX: usize = 512;
/// The label of the series that counts what had no room; the Collector's attribute is `otel.metric.overflow`.
pub const OVERFLOW: (&str, &str) = ("otel_metric_overflow", "true");

/// Builds the values of one series; used again for the next.
#[derive(Debug, Default)]
pub struct Builder {
    bytes: Vec<u8>,
}

impl Builder {
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    #[inline]
    pub fn push(&mut self, value: &[u8]) {
        self.push_with(|out| out.extend_from_slice(value.get(..=VALUE_BYTES_MAX).unwrap_or(value)));
    }

    /// Adds a value that `write` appends.
    #[inline]
    pub fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        let begin = self.bytes.len();
        write(&mut self.bytes);
        if self.bytes.len() - begin > VALUE_BYTES_MAX {
            self.cut(begin);
        }
        let length = (self.bytes.len() - begin) as u16;
        if let Some(place) = self.bytes.get_mut(at..begin) {
            place.copy_from_slice(&length.to_le_bytes());
        }
    }

    /// Not within a character.
    #[cold]
    fn cut(&mut self, begin: usize) {
        let mut end = begin + VALUE_BYTES_MAX;
        while end > begin && self.bytes.get(end).is_some_and(|byte| byte & 0xc0 == 0x80) {
            end -= 1;
        }
        self.bytes.truncate(end);
    }

    pub fn values(&self) -> &[u8] {
        &self.bytes
    }
}

/// The values of `encoded`, in order.
pub fn values(encoded: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = encoded;
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let (value, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        rest = after;
        Some(value)
    })
}

/// The first value and the others.
pub fn split_first(encoded: &[u8]) -> Option<(&[u8], &[u8])> {
    let first = values(encoded).next()?;
    Some((first, encoded.get(first.len() + 2..)?))
}

/// The same values as UTF-8, or `None` if they are that already.
pub fn repaired(encoded: &[u8]) -> Option<Vec<u8>> {
    if values(encoded).all(|value| std::str::from_utf8(value).is_ok()) {
        return None;
    }
    let mut builder = Builder::default();
    values(encoded).for_each(|value| builder.push(String::from_utf8_lossy(value).as_bytes()));
    Some(builder.bytes)
}

/// The labels of one series.
#[derive(Debug, Clone, Copy)]
pub struct Labels<'a> {
    /// Of the first values, in order; behind these, names and values alternate in `values`.
    pub names: &'a [String],
    pub values: &'a [u8],
    pub is_overflow: bool,
    /// The number and the message of the resource that the series belongs to, where they are told apart.
    pub resource: (u32, &'a [u8]),
    /// Since when it is counted, Unix milliseconds.
    pub born_millis: u64,
}

impl<'a> Labels<'a> {
    /// Names and values; empty values are left out.
    pub fn iter(&self) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> + use<'a> {
        let (is_overflow, names) = (self.is_overflow, self.names);
        let mut values = values(if is_overflow { &[] } else { self.values });
        let mut names = names.iter();
        let overflow = is_overflow.then_some((Cow::Borrowed(OVERFLOW.0), Cow::Borrowed(OVERFLOW.1)));
        let listed = std::iter::from_fn(move || {
            let name = match names.next() {
                Some(name) => Cow::Borrowed(name.as_str()),
                None => String::from_utf8_lossy(values.next()?),
            };
            Some((name, String::from_utf8_lossy(values.next()?)))
        });
        overflow.into_iter().chain(listed).filter(|(_, value)| !value.is_empty())
    }
}

/// A label name that Prometheus takes: other characters become `_`, and a leading digit gets one in front.
pub fn sanitized(name: &str) -> String {
    let mut clean: String =
        name.chars().map(|char| if char.is_ascii_alphanumeric() || char == '_' { char } else { '_' }).collect();
    if clean.starts_with(|char: char| char.is_ascii_digit()) {
        clean.insert(0, '_');
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn values_come_back_cut_and_in_utf8(texts in proptest::collection::vec(".{0,300}", 0..5)) {
            let mut builder = Builder::default();
            texts.iter().for_each(|text| builder.push(text.as_bytes()));
            let back: Vec<&str> = values(builder.values()).map(|value| std::str::from_utf8(value).unwrap()).collect();
            prop_assert_eq!(back.len(), texts.len());
            for (text, back) in texts.iter().zip(back) {
                prop_assert!(text.starts_with(back));
                prop_assert!(back.len() == text.len() || (VALUE_BYTES_MAX - 3..=VALUE_BYTES_MAX).contains(&back.len()));
            }
        }

        #[test]
        fn any_bytes_are_walked_and_repaired_without_panic(bytes: Vec<u8>) {
            let repaired = repaired(&bytes).unwrap_or(bytes);
            prop_assert!(values(&repaired).all(|value| std::str::from_utf8(value).is_ok()));
        }
    }

    #[test]
    fn names_are_sanitized_as_prometheus_wants_them() {
        for (name, clean) in [("http.method", "http_method"), ("9lives", "_9lives"), ("a-b/c", "a_b_c"), ("ok", "ok")] {
            assert_eq!(sanitized(name), clean);
        }
    }
}
