//! TraceQL. Empty until search is built.
