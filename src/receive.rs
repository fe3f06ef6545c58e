//! Listeners, protocol detection, limits, answers.
