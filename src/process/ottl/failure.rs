//! Why a statement or condition did not work on one span. Made per span in the worst case, so mostly without allocating.

use std::borrow::Cow;

use thiserror::Error;

use super::value::{Types, Value};

#[derive(Debug, Clone, PartialEq, Error)]
pub enum Failure {
    #[error("expected {}, got {}", wanted.words(), found.words())]
    Type { wanted: Types, found: Types },
    #[error("{} cannot be indexed by {}", indexed.words(), key.words())]
    Index { indexed: Types, key: Types },
    #[error("index {index} is out of bounds of {length}")]
    Bounds { index: i64, length: usize },
    #[error("the key is not in the map")]
    NoKey,
    #[error("a division by zero")]
    ZeroDivision,
    #[error("{wanted} cannot hold {}", found.words())]
    Unsettable { wanted: &'static str, found: Types },
    #[error("{0}")]
    Other(Cow<'static, str>),
}

impl Failure {
    pub fn of_type(wanted: Types, found: &Value<'_, '_>) -> Self {
        Self::Type { wanted, found: found.types() }
    }

    pub const fn because(reason: &'static str) -> Self {
        Self::Other(Cow::Borrowed(reason))
    }
}
