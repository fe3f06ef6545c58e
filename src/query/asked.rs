//! The parameters of a request: those of its URL, and of a form that is sent along.
//!
//! The query of a URL that is too long for a [`http::Uri`] comes in a header ([`LONG_QUERY`]), where the server puts it. A
//! query can also be sent with POST as a form (`application/x-www-form-urlencoded`), as browsers do it; Tempo reads URLs
//! alone. The URL's parameters come first, so that they win.

use std::time::Duration;

use axum::extract::{FromRequest, Query, Request};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, Method};
use http_body_util::{BodyExt, Limited};

use super::call::QUERY_BYTES_MAX;
use super::error::QueryError;
use super::parameters::Parameters;

/// Holds what stands behind the `?` of a URL that is longer than hyper takes.
pub const LONG_QUERY: HeaderName = HeaderName::from_static("x-spanreel-query");

const FORM: &[u8] = b"application/x-www-form-urlencoded";

/// A query of which every byte is percent-encoded, and room for the other parameters.
const FORM_BYTES_MAX: usize = 3 * QUERY_BYTES_MAX + 16 * 1024;

/// A client that takes longer to send it has gone.
const FORM_WAIT_MAX: Duration = Duration::from_secs(30);

/// What was asked.
#[derive(Debug, Clone)]
pub(super) struct Asked(pub Parameters);

impl<S: Send + Sync> FromRequest<S> for Asked {
    type Rejection = QueryError;

    async fn from_request(request: Request, _: &S) -> Result<Self, QueryError> {
        let malformed = |error: &dyn std::fmt::Display| QueryError::Message(error.to_string());
        let Query(mut pairs) =
            Query::<Vec<(String, String)>>::try_from_uri(request.uri()).map_err(|error| malformed(&error))?;
        if request.uri().query().is_none()
            && let Some(query) = request.headers().get(LONG_QUERY)
        {
            pairs.extend(form_pairs(query.as_bytes()));
        }
        if request.method() == Method::POST && is_form(request.headers()) {
            let body = Limited::new(request.into_body(), FORM_BYTES_MAX).collect();
            let body =
                tokio::time::timeout(FORM_WAIT_MAX, body).await.map_err(|_| malformed(&"the form was cut off"))?;
            let body = body.map_err(|error| malformed(&format!("the form cannot be read: {error}")))?.to_bytes();
            pairs.extend(form_pairs(&body));
        }
        Ok(Self(Parameters::new(pairs)))
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(FORM))
}

/// Names and values of a form. What is no UTF-8 once it is decoded gets signs of replacement.
fn form_pairs(form: &[u8]) -> impl Iterator<Item = (String, String)> {
    let parts = form.split(|byte| *byte == b'&').filter(|part| !part.is_empty());
    parts.map(|part| {
        let (name, value) = match part.iter().position(|byte| *byte == b'=') {
            Some(place) => (&part[..place], &part[place + 1..]),
            None => (part, &[][..]),
        };
        (decoded(name), decoded(value))
    })
}

/// `+` is a space, `%41` an `A`; what is no such escape stands for itself.
fn decoded(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        let escape = if *first == b'%' { tail.first_chunk::<2>().and_then(hex) } else { None };
        bytes.push(match escape {
            Some(byte) => {
                rest = tail.get(2..).unwrap_or_default();
                byte
            }
            None if *first == b'+' => b' ',
            None => *first,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digits: &[u8; 2]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    Some(digit(digits[0])? << 4 | digit(digits[1])?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::percent::url_value;
    use proptest::prelude::*;

    fn pairs(form: &str) -> Vec<(String, String)> {
        form_pairs(form.as_bytes()).collect()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn forms_are_read_as_browsers_write_them() {
        assert_eq!(
            pairs("q=%7B+%7D&limit=5&&x&=y"),
            [pair("q", "{ }"), pair("limit", "5"), pair("x", ""), pair("", "y")]
        );
        assert_eq!(pairs("a=%zz%4&b=%"), [pair("a", "%zz%4"), pair("b", "%")]);
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_read_back(name: String, value: String) {
            prop_assume!(!name.is_empty() || !value.is_empty());
            let form = format!("{}={}", url_value(&name), url_value(&value));
            prop_assert_eq!(pairs(&form), [(name, value)]);
        }

        #[test]
        fn any_bytes_are_read(bytes: Vec<u8>) {
            prop_assert!(form_pairs(&bytes).count() <= bytes.len());
        }
    }
}
