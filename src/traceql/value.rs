//! Values as TraceQL has them.

use std::sync::Arc;

/// A value of an attribute, an intrinsic or a literal.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    String(Arc<str>),
    Int(i64),
    Float(f64),
    Bool(bool),
    /// Nanoseconds.
    Duration(i64),
    Status(Status),
    Kind(Kind),
    /// An OTLP array of one scalar type.
    Array(Arc<[Value]>),
}

/// `Span.status.code`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    Error,
    Ok,
    Unset,
}

/// `Span.kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Unspecified,
    Internal,
    Client,
    Server,
    Producer,
    Consumer,
}

impl Value {
    /// What it holds in memory beside itself.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::String(text) => text.len(),
            Self::Array(values) => values.iter().map(|value| size_of::<Self>() + value.heap_bytes()).sum(),
            _ => 0,
        }
    }
}

impl Status {
    pub const ALL: [Status; 3] = [Self::Error, Self::Ok, Self::Unset];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Ok => "ok",
            Self::Unset => "unset",
        }
    }

    /// By the number in OTLP (`trace.proto`, `Status.StatusCode`); what it does not know is unset.
    #[must_use]
    pub fn from_otlp(code: u64) -> Self {
        match code {
            1 => Self::Ok,
            2 => Self::Error,
            _ => Self::Unset,
        }
    }
}

impl Kind {
    pub const ALL: [Kind; 6] =
        [Self::Unspecified, Self::Internal, Self::Client, Self::Server, Self::Producer, Self::Consumer];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::Internal => "internal",
            Self::Client => "client",
            Self::Server => "server",
            Self::Producer => "producer",
            Self::Consumer => "consumer",
        }
    }

    /// By the number in OTLP (`trace.proto`, `Span.SpanKind`); what it does not know is unspecified.
    #[must_use]
    pub fn from_otlp(kind: u64) -> Self {
        match kind {
            1 => Self::Internal,
            2 => Self::Server,
            3 => Self::Client,
            4 => Self::Producer,
            5 => Self::Consumer,
            _ => Self::Unspecified,
        }
    }
}
