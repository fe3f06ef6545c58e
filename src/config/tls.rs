//! What TLS of listeners and of destinations have in common in a configuration.

use super::section::{Section, Shape, WhenNull};

/// The versions that are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsVersions {
    #[default]
    Both,
    Only12,
    Only13,
}

/// A version as it is written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Version {
    Unset,
    /// 1.0 and 1.1.
    Old,
    V12,
    V13,
}

impl TlsVersions {
    /// Reads `min_version` and `max_version`.
    pub fn decode(section: &mut Section<'_>) -> Self {
        const WORDS: [(&str, Version); 5] = [
            ("", Version::Unset),
            ("1.0", Version::Old),
            ("1.1", Version::Old),
            ("1.2", Version::V12),
            ("1.3", Version::V13),
        ];
        let min = section.word("min_version", &WORDS, Version::Unset);
        let max = section.word("max_version", &WORDS, Version::Unset);
        if min == Version::Old {
            section.note("min_version", "versions below 1.2 are not spoken: who knows no other is not reached");
        }
        match (min, max) {
            (_, Version::Old) => {
                section.error("max_version", "not supported: versions below 1.2 are not spoken", "1.2, or remove it");
                Self::Both
            }
            (Version::V13, Version::V12) => {
                section.error("max_version", "is below min_version", "exchange them");
                Self::Both
            }
            (Version::V13, _) => Self::Only13,
            (_, Version::V12) => Self::Only12,
            _ => Self::Both,
        }
    }

    /// Those of the two that are spoken, as whoever speaks them calls them.
    pub fn among<T>(self, v12: T, v13: T) -> Vec<T> {
        match self {
            Self::Both => vec![v13, v12],
            Self::Only12 => vec![v12],
            Self::Only13 => vec![v13],
        }
    }
}

/// The keys of the Collector that choose how what is spoken is encrypted, and where keys are kept.
pub fn accept_fixed(section: &mut Section<'_>) {
    section.inert("cipher_suites", Shape::List, "the suites are fixed, all of them with forward secrecy");
    section.inert("curve_preferences", Shape::List, "the key exchange groups are fixed");
    if section.optional_bool("include_insecure_cipher_suites") == Some(true) {
        let reason = "insecure suites do not exist here: who knows no other is not reached";
        section.warn("include_insecure_cipher_suites", reason, "remove it");
    }
    let tpm = section.optional("tpm", WhenNull::Absent, |tpm| {
        for key in ["path", "owner_auth", "auth"] {
            tpm.accept(key, Shape::Text);
        }
        // It is off unless it says that it is on.
        tpm.has("enabled")
    });
    if tpm == Some(true) {
        section.error("tpm", "not supported: keys are read from files", "use key_file");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::decode_for_test;

    #[test]
    fn versions_are_those_from_the_least_to_the_greatest() {
        for (text, expected) in [
            ("min_version: ", TlsVersions::Both),
            ("min_version: '1.1'", TlsVersions::Both),
            ("{min_version: '1.2', max_version: '1.3'}", TlsVersions::Both),
            ("max_version: '1.2'", TlsVersions::Only12),
            ("min_version: '1.3'", TlsVersions::Only13),
        ] {
            assert_eq!(decode_for_test(text, TlsVersions::decode).0, expected, "{text}");
        }
    }
}
