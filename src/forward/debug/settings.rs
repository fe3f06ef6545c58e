//! Settings of the `debug` exporter.

/// How much is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verbosity {
    /// One line per request: counts.
    #[default]
    Basic,
    /// One line per span.
    Normal,
    /// Every field.
    Detailed,
}

/// `exporters::debug`.
#[derive(Debug, Clone, PartialEq)]
pub struct DebugSettings {
    pub verbosity: Verbosity,
    /// Requests printed in each second before sampling sets in; default 2.
    pub sampling_initial: u32,
    /// After that, every n-th request of the second; default 1 (all), 0 none.
    pub sampling_thereafter: u32,
}
