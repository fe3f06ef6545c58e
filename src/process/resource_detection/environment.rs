//! The `env` detector: `OTEL_RESOURCE_ATTRIBUTES`, `key1=value1,key2=value2`.

/// In the order of the text.
///
/// # Errors
/// An entry is none.
pub fn detect(variable: &dyn Fn(&str) -> Option<String>) -> Result<Vec<(String, String)>, String> {
    let text = |name| variable(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    // The second name is the one that the variable once had.
    let Some(text) = text("OTEL_RESOURCE_ATTRIBUTES").or_else(|| text("OTEL_RESOURCE")) else {
        return Ok(Vec::new());
    };
    let entries = text.strip_suffix(',').unwrap_or(&text).split(',');
    entries
        .map(|entry| {
            let problem = || format!("{:?} in OTEL_RESOURCE_ATTRIBUTES is not of the form key=value", entry.trim());
            let (key, value) = entry.split_once('=').ok_or_else(problem)?;
            let key = key.trim();
            if key.is_empty() || !entry.is_ascii() {
                return Err(problem());
            }
            Ok((key.to_owned(), unescaped(value.trim()).ok_or_else(problem)?))
        })
        .collect()
}

/// `%41` and `+` as in the query of a URL. `None`: a percent sign without two digits, or no text behind it.
fn unescaped(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                let digits =
                    std::str::from_utf8(&digits).ok().filter(|it| it.bytes().all(|it| it.is_ascii_hexdigit()))?;
                u8::from_str_radix(digits, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detected(text: &str) -> Result<Vec<(String, String)>, String> {
        detect(&|name| (name == "OTEL_RESOURCE_ATTRIBUTES").then(|| text.to_owned()))
    }

    #[test]
    fn entries_are_read_as_the_collector_reads_them() {
        let pairs = |pairs: &[(&str, &str)]| -> Result<Vec<_>, String> {
            Ok(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
        };
        assert_eq!(detected(" a = 1 , b=x=y,"), pairs(&[("a", "1"), ("b", "x=y")]));
        assert_eq!(detected("a=%2C%20b+c"), pairs(&[("a", ", b c")]));
        assert_eq!(detected("a="), pairs(&[("a", "")]));
        assert_eq!(detected("  "), pairs(&[]));
        assert_eq!(detect(&|name| (name == "OTEL_RESOURCE").then(|| "k=v".to_owned())), pairs(&[("k", "v")]));
    }

    #[test]
    fn what_is_no_entry_is_named() {
        for text in ["a", "=1", "a=1,,b=2", "a=%zz", "a=\u{e9}"] {
            assert!(detected(text).unwrap_err().contains("is not of the form key=value"), "{text}");
        }
    }
}
