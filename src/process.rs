//! The processor trait and the processors.
