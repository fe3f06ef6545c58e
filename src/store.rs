//! The tail index and trace assembly.
