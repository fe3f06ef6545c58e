//! Span metrics and service graph. Empty until spans are turned into metrics.
