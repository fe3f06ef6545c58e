//! Trace ids as people and Grafana write them.

use thiserror::Error;

use crate::otlp::TraceId;

/// Digits of a whole id.
const DIGITS_MAX: usize = 32;

/// Tempo's texts.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TraceIdError {
    /// The position counts characters from 1.
    #[error("trace IDs can only contain hex characters: invalid character '{character}' at position {position}")]
    Character { character: char, position: usize },
    #[error("trace IDs can't be larger than 128 bits")]
    TooLong,
}

/// Reads up to 32 hex digits of any case; fewer stand for an id with zeros in front, such as Jaeger's 64-bit ids
/// (as Tempo does).
///
/// # Errors
/// A character that is no hex digit, else more than 32 digits.
pub fn parse_trace_id(text: &str) -> Result<TraceId, TraceIdError> {
    let mut id = 0u128;
    for (index, character) in text.chars().enumerate() {
        let digit = character.to_digit(16).ok_or(TraceIdError::Character { character, position: index + 1 })?;
        // Digits beyond the limit fall out at the top; their number is checked below.
        id = id << 4 | u128::from(digit);
    }
    if text.len() > DIGITS_MAX {
        return Err(TraceIdError::TooLong);
    }
    Ok(TraceId(id.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Result<String, String> {
        parse_trace_id(text).map(|id| id.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn short_ids_are_padded_in_front_and_case_does_not_matter() {
        assert_eq!(parsed("1").unwrap(), "00000000000000000000000000000001");
        assert_eq!(parsed("0001").unwrap(), parsed("1").unwrap());
        assert_eq!(parsed("ABC").unwrap(), parsed("0abc").unwrap());
        assert_eq!(parsed("463ac35c9f6413ad").unwrap(), "0000000000000000463ac35c9f6413ad");
        assert_eq!(parsed(&"f".repeat(32)).unwrap(), "f".repeat(32));
    }

    #[test]
    fn wrong_ids_are_named_as_tempo_names_them() {
        let too_long = "trace IDs can't be larger than 128 bits";
        assert_eq!(parsed(&"f".repeat(33)).unwrap_err(), too_long);
        assert_eq!(parsed(&"0".repeat(40)).unwrap_err(), too_long);
        let invalid = "trace IDs can only contain hex characters: invalid character ";
        assert_eq!(parsed("12g4").unwrap_err(), format!("{invalid}'g' at position 3"));
        assert_eq!(parsed("äé").unwrap_err(), format!("{invalid}'ä' at position 1"));
        assert_eq!(parsed(&format!("{}-", "f".repeat(40))).unwrap_err(), format!("{invalid}'-' at position 41"));
    }

    proptest! {
        #[test]
        fn an_id_as_it_is_shown_is_read_back(id: [u8; 16]) {
            prop_assert_eq!(parse_trace_id(&TraceId(id).to_string()), Ok(TraceId(id)));
        }

        #[test]
        fn any_text_is_read_or_refused_without_panic(text: String) {
            let _ = parse_trace_id(&text);
        }
    }
}
