//! The injection decision and the pod mutation, as pure functions.
