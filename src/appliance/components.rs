//! The registry: every component that a configuration can name, one line each.
//!
//! Adding one: a folder in its room with `settings.rs` (settings, their decoding and `DECLARATION`), a variant in the
//! role's settings enum, and a line here. `components`, `validate`, error hints and docs all read these lists.

use super::connectors::{self, ConnectorSettings};
use super::credentials::ClientSettings;
use super::file_storage::settings::FileStorageSettings;
use super::health_check::settings::HealthCheckSettings;
use super::spanreel::settings::SpanreelSettings;
use super::zpages::settings::ZPagesSettings;
use super::{file_storage, health_check, spanreel, zpages};
use crate::auth::basic::BasicAuthSettings;
use crate::auth::bearer::BearerTokenSettings;
use crate::auth::{basic, bearer};
use crate::config::{ComponentId, Config, Declaration, Diagnostic, Kit, Position, Report, Severity};
use crate::forward::settings::ExporterSettings;
use crate::forward::{debug, file, otlp_grpc, otlp_http, prometheus};
use crate::otlp::Signal;
use crate::process::settings::ProcessorSettings;
use crate::process::{
    attributes, batch, filter, k8s_attributes, memory_limiter, probabilistic_sampler, queue_batch, resource,
    resource_detection, tail_sampling, transform,
};
use crate::receive::listener::Transport;
use crate::receive::settings::ReceiverSettings;
use crate::receive::{jaeger, otlp, zipkin};
use std::collections::BTreeMap;
use std::path::Path;

/// Spanreel's components.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Components;

/// The settings of one configured extension.
#[derive(Debug, Clone, PartialEq)]
pub enum ExtensionSettings {
    HealthCheck(HealthCheckSettings),
    FileStorage(FileStorageSettings),
    ZPages(ZPagesSettings),
    BasicAuth(BasicAuthSettings),
    BearerTokenAuth(BearerTokenSettings),
    /// Boxed: it is far larger than the others.
    Spanreel(Box<SpanreelSettings>),
}

const RECEIVERS: &[Declaration<ReceiverSettings>] =
    &[jaeger::settings::DECLARATION, otlp::settings::DECLARATION, zipkin::settings::DECLARATION];

const PROCESSORS: &[Declaration<ProcessorSettings>] = &[
    attributes::settings::DECLARATION,
    batch::settings::DECLARATION,
    filter::settings::DECLARATION,
    k8s_attributes::settings::DECLARATION,
    memory_limiter::settings::DECLARATION,
    probabilistic_sampler::settings::DECLARATION,
    queue_batch::settings::DECLARATION,
    resource::settings::DECLARATION,
    resource_detection::settings::DECLARATION,
    tail_sampling::settings::DECLARATION,
    transform::settings::DECLARATION,
];

const EXPORTERS: &[Declaration<ExporterSettings>] = &[
    debug::settings::DECLARATION,
    file::settings::DECLARATION,
    otlp_grpc::settings::DECLARATION,
    otlp_http::settings::DECLARATION,
    prometheus::settings::DECLARATION,
];

const CONNECTORS: &[Declaration<ConnectorSettings>] =
    &[connectors::FORWARD, connectors::SERVICE_GRAPH, connectors::SPAN_METRICS];

const EXTENSIONS: &[Declaration<ExtensionSettings>] = &[
    basic::DECLARATION,
    bearer::DECLARATION,
    file_storage::settings::DECLARATION,
    health_check::settings::DECLARATION,
    spanreel::settings::DECLARATION,
    zpages::settings::DECLARATION,
];

impl Kit for Components {
    type Receiver = ReceiverSettings;
    type Processor = ProcessorSettings;
    type Exporter = ExporterSettings;
    type Connector = ConnectorSettings;
    type Extension = ExtensionSettings;

    fn receivers() -> &'static [Declaration<ReceiverSettings>] {
        RECEIVERS
    }

    fn processors() -> &'static [Declaration<ProcessorSettings>] {
        PROCESSORS
    }

    fn exporters() -> &'static [Declaration<ExporterSettings>] {
        EXPORTERS
    }

    fn connectors() -> &'static [Declaration<ConnectorSettings>] {
        CONNECTORS
    }

    fn extensions() -> &'static [Declaration<ExtensionSettings>] {
        EXTENSIONS
    }

    fn check(config: &Config<Self>, report: &Report) {
        check_own_settings(config, report);
        check_keepers(config, report);
        check_authenticators(config, report);
        check_tail_sampling(config, report);
        check_attributes(config, report);
        check_urls(config, report);
        check_files(config, report);
        check_exporters_authenticators(config, report);
        check_order(config, report);
    }
}

/// There is one appliance, so there is one set of its settings.
fn check_own_settings(config: &Config<Components>, report: &Report) {
    let mut own =
        config.extensions.iter().filter(|(_, extension)| matches!(extension.settings, ExtensionSettings::Spanreel(_)));
    let first = own.next();
    for (id, extension) in own {
        let reason = "configured a second time: these settings are the whole process's";
        let remedy = first
            .map(|(_, first)| format!("the first is {}; merge them", first.position.seen_from(&extension.position)));
        report.error(&extension.position, &format!("extensions::{id}"), reason, remedy.unwrap_or_default());
    }
}

/// Somebody must want the spans of a pipeline.
fn check_keepers(config: &Config<Components>, report: &Report) {
    let is_off =
        |settings: &ExtensionSettings| matches!(settings, ExtensionSettings::Spanreel(own) if !own.store.enabled);
    if !config.extensions.values().any(|extension| is_off(&extension.settings)) {
        return;
    }
    for pipeline in &config.service.pipelines {
        if pipeline.signal == Signal::Traces && pipeline.exporters.is_empty() && pipeline.feeds.is_empty() {
            let path = format!("service::pipelines::{}", pipeline.name);
            let reason = "nobody gets its spans: it has no exporters, and extensions::spanreel::store is not enabled";
            report.error(&pipeline.position, &path, reason, "add an exporter, or enable the store");
        }
    }
}

/// Decisions are made on what is stored: once per pipeline, and behind all that changes spans.
fn check_tail_sampling(config: &Config<Components>, report: &Report) {
    for pipeline in &config.service.pipelines {
        let path = format!("service::pipelines::{}::processors", pipeline.name);
        let settings = |id| config.processors.get(id).map(|processor| &processor.settings);
        let mut sampler: Option<&ComponentId> = None;
        for id in &pipeline.processors {
            let Some(settings) = settings(id) else { continue };
            let samples = matches!(settings, ProcessorSettings::TailSampling(_));
            let edits = !matches!(
                settings,
                ProcessorSettings::MemoryLimiter(_) | ProcessorSettings::Batch(_) | ProcessorSettings::QueueBatch(_)
            );
            match sampler {
                None if samples => sampler = Some(id),
                Some(first) if samples => {
                    let reason = format!("{id} is a second tail_sampling processor, after {first}");
                    report.error(&pipeline.position, &path, reason, "join their policies, or use a pipeline for each");
                }
                Some(first) if edits => {
                    let reason =
                        format!("{id} stands after {first}, and works before it: decisions see what it changed");
                    report.warn(&pipeline.position, &path, reason, format!("put {id} before {first}"));
                }
                _ => {}
            }
        }
        if let Some((sampler, connector)) = sampler.zip(pipeline.feeds.first()) {
            let path = format!("service::pipelines::{}::exporters", pipeline.name);
            let reason = format!("connector {connector} gets every span, not only what {sampler} wants");
            report.warn(&pipeline.position, &path, reason, "feed it from a pipeline of its own if that is meant");
        }
    }
}

/// What a processor matches by must say something about what its pipelines carry.
fn check_attributes(config: &Config<Components>, report: &Report) {
    for pipeline in &config.service.pipelines {
        for (id, component) in pipeline.processors.iter().filter_map(|id| config.processors.get_key_value(id)) {
            let ProcessorSettings::Attributes(settings) = &component.settings else { continue };
            if let Some(foreign) = settings.foreign(pipeline.signal) {
                let path = format!("service::pipelines::{}::processors", pipeline.name);
                let reason = format!("{id} has {foreign}, which does not apply to {}", pipeline.signal.as_str());
                let remedy = "name a processor of its own here, without it";
                report.error(&pipeline.position, &path, reason, remedy);
            }
        }
    }
}

/// One exporter may write for several pipelines; two would begin the file anew and write over one another.
fn check_files(config: &Config<Components>, report: &Report) {
    let mut writers: BTreeMap<&Path, &ComponentId> = BTreeMap::new();
    for (id, exporter) in &config.exporters {
        let ExporterSettings::File(settings) = &exporter.settings else { continue };
        if !config.service.pipelines.iter().any(|pipeline| pipeline.exporters.contains(id)) {
            continue;
        }
        if let Some(other) = writers.insert(&settings.path, id) {
            let reason = format!("writes to {}, as {other} does", settings.path.display());
            let remedy = "name one of them in all pipelines, or give each a path of its own";
            report.error(&exporter.position, &format!("exporters::{id}"), reason, remedy);
        }
    }
}

/// What a configuration asks of the process's own files that only whoever runs the process may ask: contents that would
/// be sent, and paths that would be written. A line for each.
pub fn files_of_the_process(config: &Config<Components>) -> Vec<String> {
    let extensions = config.extensions.iter().filter_map(|(id, extension)| {
        let key = match &extension.settings {
            ExtensionSettings::BearerTokenAuth(settings) => settings.filename.is_some().then_some("filename"),
            ExtensionSettings::BasicAuth(settings) => settings.names_files().then_some("file"),
            _ => None,
        };
        Some((
            &extension.position,
            format!("extensions::{id}"),
            key?,
            "give the credentials themselves, e.g. by spec.env",
        ))
    });
    let exporters = config.exporters.iter().filter_map(|(id, exporter)| {
        let is_file = matches!(exporter.settings, ExporterSettings::File(_));
        is_file.then(|| (&exporter.position, format!("exporters::{id}"), "path", "use an otlp exporter"))
    });
    let receivers = config.receivers.iter().filter_map(|(id, receiver)| {
        let is_file = receiver.settings.ports().iter().any(|port| port.endpoint.transport == Transport::Unix);
        is_file.then(|| (&receiver.position, format!("receivers::{id}"), "endpoint", "listen on host:port"))
    });
    let line = |(position, path, key, remedy): (&Position, String, &str, &str)| {
        let reason = format!("{key} names a file of the process, which a custom resource cannot use");
        Diagnostic::error(Some(position.clone()), path, reason).with_remedy(remedy).to_string()
    };
    extensions.chain(exporters).chain(receivers).map(line).collect()
}

/// What exporters name to say who they are must be able to, and must run.
fn check_exporters_authenticators(config: &Config<Components>, report: &Report) {
    for (id, exporter) in &config.exporters {
        let Some(authenticator) = exporter.settings.authenticator() else { continue };
        let path = format!("exporters::{id}");
        // That it exists is checked where references are.
        if ClientSettings::find(config, authenticator).is_none() {
            let reason = format!("extension {authenticator} cannot say who an exporter is");
            let remedy = "name a bearertokenauth, or a basicauth with client_auth";
            report.error(&exporter.position, &path, reason, remedy);
        } else if !config.service.extensions.iter().any(|listed| listed.to_string() == authenticator) {
            let reason = format!("authenticator {authenticator} is not among service::extensions");
            report.error(&exporter.position, &path, reason, "add it there");
        }
    }
}

/// An `otlp_http` exporter needs a URL for each signal of the pipelines that name it.
fn check_urls(config: &Config<Components>, report: &Report) {
    for pipeline in &config.service.pipelines {
        for id in &pipeline.exporters {
            let Some(component) = config.exporters.get(id) else { continue };
            if let ExporterSettings::OtlpHttp(settings) = &component.settings
                && settings.url(pipeline.signal).is_none()
            {
                let key = otlp_http::settings::endpoint_key(pipeline.signal);
                let reason =
                    format!("either endpoint or {key} must be specified, because pipeline {} uses it", pipeline.name);
                let remedy = "e.g. endpoint: http://gateway.monitoring:4318";
                report.error(&component.position, &format!("exporters::{id}"), reason, remedy);
            }
        }
    }
}

/// The Collector's batches forget who sent them; here they do not, but a configuration is to mean the same on both.
fn check_order(config: &Config<Components>, report: &Report) {
    for pipeline in &config.service.pipelines {
        let processors = pipeline.processors.iter().filter_map(|id| Some((id, config.processors.get(id)?)));
        let mut batch = None;
        for (id, component) in processors {
            match (&component.settings, batch) {
                (ProcessorSettings::Batch(_) | ProcessorSettings::QueueBatch(_), _) => batch = Some(id),
                (ProcessorSettings::K8sAttributes(_), Some(batch)) => {
                    let reason = format!(
                        "pipeline {} names it after {batch}: a Collector would no longer know whose spans they are",
                        pipeline.name
                    );
                    let diagnostic =
                        Diagnostic::error(Some(component.position.clone()), format!("processors::{id}"), reason);
                    report.add(
                        diagnostic.with_severity(Severity::Warning).with_remedy(format!("name it before {batch}")),
                    );
                }
                _ => {}
            }
        }
    }
}

/// What receivers and the query port name to let clients in must be able to, and must run.
fn check_authenticators(config: &Config<Components>, report: &Report) {
    let check = |authenticator: &str, position: &Position, path: String| {
        // That it exists is checked where references are.
        let Some((known, extension)) = config.extensions.iter().find(|(known, _)| known.to_string() == authenticator)
        else {
            return;
        };
        let server = match &extension.settings {
            ExtensionSettings::BasicAuth(settings) => settings.htpasswd.is_some(),
            ExtensionSettings::BearerTokenAuth(_) => true,
            _ => false,
        };
        if !server {
            let reason = format!("extension {authenticator} cannot let clients in");
            let remedy = "name a bearertokenauth, or a basicauth with htpasswd";
            report.error(position, &path, reason, remedy);
        } else if !config.service.extensions.contains(known) {
            let reason = format!("authenticator {authenticator} is not among service::extensions");
            report.error(position, &path, reason, "add it there");
        }
    };
    for (id, receiver) in &config.receivers {
        for authenticator in receiver.settings.ports().iter().filter_map(|port| port.policy.authenticator.as_ref()) {
            check(authenticator, &receiver.position, format!("receivers::{id}"));
        }
    }
    for (id, extension) in &config.extensions {
        if let ExtensionSettings::Spanreel(settings) = &extension.settings {
            for (authenticator, _) in settings.access.authenticators() {
                check(authenticator, &extension.position, format!("extensions::{id}::access"));
            }
        }
    }
}

/// `extensions::spanreel` of a configuration, or its defaults. It holds whether or not the service lists it.
pub fn spanreel_settings(config: &Config<Components>) -> SpanreelSettings {
    let configured = config.extensions.values().find_map(|extension| match &extension.settings {
        ExtensionSettings::Spanreel(settings) => Some((**settings).clone()),
        _ => None,
    });
    configured.unwrap_or_default()
}
