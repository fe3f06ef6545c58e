//! Collector YAML to typed settings, with positions.
