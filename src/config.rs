//! Collector YAML to typed settings, with positions.
//!
//! ```text
//! Source ─▶ yaml ─▶ Node tree ─▶ merge, --set ─▶ expand ${} ─▶ structure ─▶ Section per component ─▶ Config
//!                   every value knows file:line:column                      └▶ Report: everything that is wrong
//! ```
//!
//! In come the `--config` values, `--set` arguments and an environment; out comes a [`Config`] whose settings are plain
//! structs, or every error there is, each with its place, its path and what to do. What is accepted but means nothing
//! here is said in a note; nothing is ignored in silence. Same YAML as the OpenTelemetry Collector: a configuration of
//! supported components loads and means the same.
//!
//! This room knows no sockets, no RocksDB, no Kubernetes and no component: those declare themselves ([`Declaration`])
//! and a [`Kit`] lists them.

pub mod component;
pub mod diagnostic;
pub mod duration;
pub mod effective;
mod expand;
mod graph;
mod json;
mod node;
mod origin;
pub mod section;
mod source;
mod structure;
pub mod telemetry;
pub mod tls;
pub mod url;
mod yaml;

pub use component::{ComponentId, Declaration, IdError, Kit, Role, Stability};
pub use diagnostic::{Diagnostic, Diagnostics, Position, Report, Severity, nearest};
pub use effective::{Effective, Format, Secrets};
pub use json::to_json;
pub use origin::{Origins, Setting};
#[cfg(test)]
pub(crate) use section::decode_for_test;
pub use section::{Item, ListText, Plain, Secrecy, Section, Shape, WhenNull};
pub use source::{Files, Reach, Source};
pub use telemetry::TelemetrySettings;

use crate::otlp::Signal;
use std::collections::BTreeMap;

/// What a configuration is loaded from.
pub struct Input<'a> {
    /// Merged in order. None at all is an error: the caller decides about [`Source::built_in`].
    pub sources: &'a [Source],
    /// `--set` arguments, `a.b.c=value`, applied last.
    pub sets: &'a [String],
    /// For `${env:NAME}`: the process's environment, or a custom resource's `spec.env`.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Whether `${file:...}` works.
    pub files: Files,
}

/// A configuration that loaded, and what is worth saying about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded<K: Kit> {
    pub config: Config<K>,
    /// Warnings and infos in the order of the sources' lines; bounded.
    pub notes: Vec<Diagnostic>,
}

/// A configuration with types.
#[derive(Debug, Clone, PartialEq)]
pub struct Config<K: Kit> {
    pub receivers: BTreeMap<ComponentId, Component<K::Receiver>>,
    pub processors: BTreeMap<ComponentId, Component<K::Processor>>,
    pub exporters: BTreeMap<ComponentId, Component<K::Exporter>>,
    pub connectors: BTreeMap<ComponentId, Component<K::Connector>>,
    pub extensions: BTreeMap<ComponentId, Component<K::Extension>>,
    pub service: Service,
    /// Everything with its defaults filled in, for `print-config`.
    pub effective: Effective,
    pub origins: Origins,
}

/// One configured component.
#[derive(Debug, Clone, PartialEq)]
pub struct Component<S> {
    pub settings: S,
    /// The canonical type: `otlp_grpc` also where the id says `otlp`.
    pub type_name: &'static str,
    /// Of its id in the source.
    pub position: Position,
}

/// `service`.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// In the order they start.
    pub extensions: Vec<ComponentId>,
    /// In the order of the source.
    pub pipelines: Vec<Pipeline>,
    pub telemetry: TelemetrySettings,
}

/// One pipeline. Every id in it is configured, and serves the pipeline's signal.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    /// `traces`, `metrics/name`, ...
    pub name: ComponentId,
    pub signal: Signal,
    /// At least one, or a connector in `fed_by`.
    pub receivers: Vec<ComponentId>,
    /// Connectors that stand among the receivers.
    pub fed_by: Vec<ComponentId>,
    /// In the order they run.
    pub processors: Vec<ComponentId>,
    /// May be empty for traces: they are kept in the store, with or without a destination.
    pub exporters: Vec<ComponentId>,
    /// Connectors that stand among the exporters.
    pub feeds: Vec<ComponentId>,
    pub position: Position,
}

/// Loads a configuration, or says everything that is wrong with it.
pub fn load<K: Kit>(input: &Input<'_>) -> Result<Loaded<K>, Diagnostics> {
    let report = Report::default();
    let Some(mut root) = merged(input, &report).filter(|_| !report.has_errors()) else {
        return Err(report.into_diagnostics());
    };
    expand::Expander { env: input.env, files: input.files, report: &report }.expand(&mut root, "");
    let config = structure::read::<K>(&root, &report);
    if !report.has_errors() {
        K::check(&config, &report);
    }
    Ok(Loaded { notes: report.into_result()?, config })
}

/// `None` and trees that are not whole come with errors in the report.
fn merged(input: &Input<'_>, report: &Report) -> Option<node::Node> {
    let sources = input.sources.iter().map(|source| source.read(input.env, report));
    let sets = input.sets.iter().map(|set| source::read_set(set));
    let mut root: Option<node::Node> = None;
    for tree in sources.chain(sets) {
        match (tree, &mut root) {
            // An empty file changes nothing; a null replaces a section only where it is written as its value.
            (Ok(tree), Some(_)) if matches!(tree.value, node::Value::Null) => {}
            (Ok(tree), Some(root)) => node::merge(root, tree),
            (Ok(tree), None) => root = Some(tree),
            (Err(error), _) => report.add(error),
        }
    }
    if input.sources.is_empty() && input.sets.is_empty() {
        report.add(Diagnostic::error(None, "", "at least one --config must be provided"));
    }
    root
}
