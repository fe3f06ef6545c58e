//! Sealing against what was appended.
