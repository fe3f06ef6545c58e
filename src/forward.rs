//! Destinations: one cursor each, retry, split, bisect, dead letters.
