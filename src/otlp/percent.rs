//! Percent-encoding, in the two forms that the wire has.

/// A value between the separators of a URL: everything is encoded that could mean something there.
#[must_use]
pub fn url_value(text: &str) -> String {
    encoded(text, |byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
}

/// `grpc-message`: printable ASCII but `%` stays.
#[must_use]
pub fn grpc_message(text: &str) -> String {
    encoded(text, |byte| (b' '..=b'~').contains(&byte) && byte != b'%')
}

fn encoded(text: &str, stays: impl Fn(u8) -> bool) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if stays(byte) {
            out.push(char::from(byte));
        } else {
            let digit = |half: u8| char::from(DIGITS[usize::from(half & 15)]);
            out.extend(['%', digit(byte >> 4), digit(byte)]);
        }
    }
    out
}

/// The bytes that either form stands for. What is no escape stays.
#[must_use]
pub fn decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = (byte == b'%')
            .then(|| after.first_chunk::<2>())
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        out.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_urls_are_encoded() {
        assert_eq!(url_value("{ .a = \"ü&\" }"), "%7B%20.a%20%3D%20%22%C3%BC%26%22%20%7D");
    }

    #[test]
    fn grpc_messages_stay_readable() {
        assert_eq!(grpc_message("100 % \n ü"), "100 %25 %0A %C3%BC");
    }

    #[test]
    fn what_was_encoded_comes_back_and_what_is_no_escape_stays() {
        let text = "{ .a = \"ü&\" } 100 %\n";
        assert_eq!(decoded(&url_value(text)), text.as_bytes());
        assert_eq!(decoded(&grpc_message(text)), text.as_bytes());
        assert_eq!(decoded("%zz%4"), b"%zz%4");
    }
}
