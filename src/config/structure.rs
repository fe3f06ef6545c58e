//! The top level: component sections, `service`, pipelines, and the references between them.

use super::component::{ComponentId, Declaration, Kit, Role};
use super::diagnostic::{Diagnostic, Position, Report, Severity, suggestion};
use super::effective::Effective;
use super::node::{Entry, Node, Value};
use super::origin::Origins;
use super::section::Section;
use super::telemetry::TelemetrySettings;
use super::{Component, Config, Pipeline, Service, graph};
use crate::otlp::Signal;
use std::collections::{BTreeMap, BTreeSet};

/// Where each id of a role was written, supported or not: a reference to a refused component is no second error.
type Written = BTreeMap<ComponentId, Position>;

/// Reads a whole configuration. What is returned is of use only if `report` has no errors.
pub(super) fn read<K: Kit>(root: &Node, report: &Report) -> Config<K> {
    let mut top = Section::over(report, Some(root), root.position.clone(), String::new());
    let is_empty = matches!(&root.value, Value::Null) || root.entries().is_some_and(<[Entry]>::is_empty);
    if is_empty {
        let remedy = "run spanreel without --config for the built-in configuration";
        report.error(&root.position, "", "empty configuration file", remedy);
    }
    let mut components =
        Components { report, written: BTreeMap::new(), signals: BTreeMap::new(), routes: BTreeMap::new() };
    let receivers = components.read(&mut top, Role::Receiver, K::receivers(), &others::<K>(Role::Receiver));
    let processors = components.read(&mut top, Role::Processor, K::processors(), &others::<K>(Role::Processor));
    let exporters = components.read(&mut top, Role::Exporter, K::exporters(), &others::<K>(Role::Exporter));
    let connectors = components.read(&mut top, Role::Connector, K::connectors(), &others::<K>(Role::Connector));
    let extensions = components.read(&mut top, Role::Extension, K::extensions(), &others::<K>(Role::Extension));
    if !is_empty && components.of(Role::Receiver).is_empty() {
        let remedy = "configure one, e.g. receivers: {otlp: {protocols: {grpc: , http: }}}";
        report.error(&root.position, "", "no receiver configuration specified in config", remedy);
    }
    components.check_ambiguity();
    let service = top.section("service", |section| read_service(section, &components, report));
    if !is_empty && service.pipelines.is_empty() && !has_pipelines(root) {
        let service = root.entries().unwrap_or_default().iter().find(|entry| entry.key == "service");
        let position = service.map_or(&root.position, |entry| &entry.position);
        let remedy = "e.g. service: {pipelines: {traces: {receivers: [otlp]}}}";
        report.error(position, "", "service must have at least one pipeline", remedy);
    }
    components.check_references();
    let always_on = |id: &ComponentId| {
        K::extensions()
            .iter()
            .any(|declaration| declaration.always_on && declaration.names().any(|name| name == id.kind()))
    };
    if !report.has_errors() {
        graph::check(&service, components.of(Role::Connector), &components.routes, report);
    }
    if !report.has_errors() {
        components.warn_of_unused(&service, always_on);
    }
    let (effective, _) = top.finish();
    let origins = Origins::of(root);
    Config { receivers, processors, exporters, connectors, extensions, service, effective, origins }
}

/// The names that the other roles declare, to say "batch is a processor".
fn others<K: Kit>(role: Role) -> Vec<(Role, &'static str)> {
    fn names<S>(role: Role, declarations: &'static [Declaration<S>]) -> impl Iterator<Item = (Role, &'static str)> {
        declarations.iter().flat_map(Declaration::names).map(move |name| (role, name))
    }
    names(Role::Receiver, K::receivers())
        .chain(names(Role::Processor, K::processors()))
        .chain(names(Role::Exporter, K::exporters()))
        .chain(names(Role::Connector, K::connectors()))
        .chain(names(Role::Extension, K::extensions()))
        .filter(|(other, _)| *other != role)
        .collect()
}

struct Components<'a> {
    report: &'a Report,
    written: BTreeMap<&'static str, Written>,
    /// Of every supported component but connectors, by section: which pipelines may name it.
    signals: BTreeMap<(&'static str, ComponentId), &'static [Signal]>,
    routes: graph::Routes,
}

impl Components<'_> {
    fn of(&self, role: Role) -> &Written {
        static NONE: Written = BTreeMap::new();
        self.written.get(role.section()).unwrap_or(&NONE)
    }

    fn read<S>(
        &mut self,
        top: &mut Section<'_>,
        role: Role,
        declarations: &'static [Declaration<S>],
        others: &[(Role, &'static str)],
    ) -> BTreeMap<ComponentId, Component<S>> {
        let mut configured = BTreeMap::new();
        let mut effective = Vec::new();
        let written = self.written.entry(role.section()).or_default();
        let entries = top.free_map(role.section()).map(|(_, entries)| entries).unwrap_or_default();
        for entry in entries {
            let path = format!("{}::{}", role.section(), entry.key);
            let refuse = |reason: String, remedy: String| self.report.error(&entry.position, &path, reason, remedy);
            let id = match ComponentId::parse(&entry.key) {
                Ok(id) => id,
                Err(error) => {
                    refuse(
                        format!("{:?} is no component id: {error}", entry.key),
                        "write type or type/name".to_owned(),
                    );
                    continue;
                }
            };
            if let Some(first) = written.insert(id.clone(), entry.position.clone()) {
                refuse(
                    format!("duplicate name {id}"),
                    format!("the first is {}; spaces around ids do not count", first.seen_from(&entry.position)),
                );
                continue;
            }
            let Some(declaration) =
                declarations.iter().find(|declaration| declaration.names().any(|name| name == id.kind()))
            else {
                let known: Vec<&str> = declarations.iter().flat_map(Declaration::names).collect();
                let (reason, remedy) = unknown_type(role, &id, &known, others);
                refuse(reason, remedy);
                continue;
            };
            let path = format!("{}::{id}", role.section());
            let mut section = Section::over(self.report, Some(&entry.node), entry.position.clone(), path);
            let settings = (declaration.decode)(&mut section);
            effective.push((id.to_string(), section.finish().0));
            let position = entry.position.clone();
            match role {
                Role::Connector => drop(self.routes.insert(id.clone(), declaration.routes)),
                _ => drop(self.signals.insert((role.section(), id.clone()), declaration.signals)),
            }
            configured.insert(id, Component { settings, type_name: declaration.type_name, position });
        }
        if !effective.is_empty() {
            top.record(role.section(), Effective::Map(effective));
        }
        configured
    }

    /// Pipelines name connectors among receivers and exporters: a name must say which is meant.
    fn check_ambiguity(&self) {
        for (id, position) in self.of(Role::Connector) {
            let same = [Role::Receiver, Role::Exporter].into_iter().find(|role| self.of(*role).contains_key(id));
            if let Some(role) = same {
                let reason = format!("ambiguous ID: there is also {} {:?}", role.with_article(), id.to_string());
                let remedy = format!("rename one of them, e.g. {id}/connector");
                self.report.error(position, &format!("connectors::{id}"), reason, remedy);
            }
        }
    }

    /// Whether a pipeline of this signal may name it; the error is a reason and a remedy.
    fn check_signal(&self, role: Role, id: &ComponentId, signal: Signal) -> Result<(), (String, String)> {
        // What was refused where it is configured is no second error.
        let Some(signals) = self.signals.get(&(role.section(), id.clone())) else { return Ok(()) };
        if signals.contains(&signal) {
            return Ok(());
        }
        let serves = signals.iter().map(|signal| signal.as_str()).collect::<Vec<_>>().join(", ");
        let reason = format!("{} \"{id}\" does not serve {signal} pipelines", role.word());
        Err((reason, format!("remove it here; it serves {serves}")))
    }

    /// As [`Self::check_signal`], of a connector that stands among the receivers or exporters of a pipeline.
    fn check_route(&self, stands_for: Role, id: &ComponentId, signal: Signal) -> Result<(), (String, String)> {
        let Some(routes) = self.routes.get(id) else { return Ok(()) };
        // Among the receivers stands where it leads to.
        let begins = stands_for == Role::Receiver;
        let at = |route: &(Signal, Signal)| if begins { route.1 } else { route.0 };
        let does = if begins { "does not begin" } else { "does not end" };
        if routes.iter().any(|route| at(route) == signal) {
            return Ok(());
        }
        let leads: Vec<String> = routes.iter().map(|(from, to)| format!("from {from} to {to}")).collect();
        Err((format!("connector \"{id}\" {does} {signal} pipelines"), format!("it leads {}", leads.join(", "))))
    }

    /// References that components made to one another while they were read.
    fn check_references(&self) {
        for reference in self.report.take_references() {
            let known = ComponentId::parse(&reference.id).ok().filter(|id| self.of(reference.role).contains_key(id));
            if known.is_none() {
                let (reason, remedy) = self.dangling(reference.role, &reference.id);
                self.report.error(&reference.position, &reference.path, reason, remedy);
            }
        }
    }

    fn dangling(&self, role: Role, id: &str) -> (String, String) {
        let names: Vec<String> = self.of(role).keys().map(ComponentId::to_string).collect();
        let reason = format!("references {} {id:?} which is not configured", role.word());
        let remedy = match names.is_empty() {
            true => format!("configure it under {}", role.section()),
            false => suggestion(id, &format!("configured {}", role.section()), names.iter().map(String::as_str)),
        };
        (reason, remedy)
    }

    fn warn_of_unused(&self, service: &Service, always_on: impl Fn(&ComponentId) -> bool) {
        let in_pipelines = |pick: fn(&Pipeline) -> &Vec<ComponentId>| -> BTreeSet<&ComponentId> {
            service.pipelines.iter().flat_map(pick).collect()
        };
        let connectors = service.pipelines.iter().flat_map(|pipeline| pipeline.fed_by.iter().chain(&pipeline.feeds));
        let used = [
            (Role::Receiver, in_pipelines(|pipeline| &pipeline.receivers)),
            (Role::Processor, in_pipelines(|pipeline| &pipeline.processors)),
            (Role::Exporter, in_pipelines(|pipeline| &pipeline.exporters)),
            (Role::Connector, connectors.collect()),
            (Role::Extension, service.extensions.iter().collect()),
        ];
        for (role, used) in used {
            for (id, position) in self.of(role).iter().filter(|(id, _)| !used.contains(id)) {
                let (reason, remedy) = match role {
                    Role::Extension if always_on(id) => continue,
                    Role::Extension => ("configured but not started", "list it under service::extensions".to_owned()),
                    Role::Connector => {
                        let remedy = "list it under exporters of one pipeline and receivers of another";
                        ("configured but in no pipeline", remedy.to_owned())
                    }
                    _ => ("configured but in no pipeline", format!("list it under {} of a pipeline", role.section())),
                };
                let path = format!("{}::{id}", role.section());
                let warning = Diagnostic::error(Some(position.clone()), path, reason).with_remedy(remedy);
                self.report.add(warning.with_severity(Severity::Warning));
            }
        }
    }
}

/// Why a type is refused: a slip, another section's component, or one the Collector has and Spanreel does not.
fn unknown_type(role: Role, id: &ComponentId, known: &[&str], others: &[(Role, &'static str)]) -> (String, String) {
    let kind = id.kind();
    let word = role.word();
    let supported = match known.is_empty() {
        true => format!("Spanreel has no {} yet", role.section()),
        false => format!("supported {}: {}", role.section(), known.join(", ")),
    };
    if let Some((other, _)) = others.iter().find(|(_, name)| *name == kind)
        && !role.collector_types().contains(&kind)
    {
        let reason = format!("{kind:?} is {}, not {}", other.with_article(), role.with_article());
        return (reason, format!("move it to {}; {supported}", other.section()));
    }
    if (role, kind) == (Role::Exporter, "logging") {
        let reason = "the Collector's exporter \"logging\" was removed".to_owned();
        return (reason, "use the exporter debug instead; it prints what passes".to_owned());
    }
    if role.collector_types().contains(&kind) {
        return (format!("the Collector's {word} {kind:?} is not supported by Spanreel"), supported);
    }
    let reason = format!("unknown type: {kind:?} for id: \"{id}\" (valid values: [{}])", known.join(", "));
    let candidates = known.iter().copied().chain(role.collector_types().iter().copied());
    match super::diagnostic::nearest(kind, candidates) {
        Some(near) if known.contains(&near) => (reason, format!("did you mean {near:?}?")),
        Some("logging") => (reason, "did you mean \"debug\"? It took the place of \"logging\"".to_owned()),
        Some(near) => (reason, format!("the Collector's {near:?} is not supported either")),
        None => (reason, String::new()),
    }
}

/// Whether any pipeline is written, right or wrong.
fn has_pipelines(root: &Node) -> bool {
    fn below<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
        node.entries()?.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }
    match below(root, "service").and_then(|service| below(service, "pipelines")).map(|pipelines| &pipelines.value) {
        None | Some(Value::Null) => false,
        Some(Value::Map(entries)) => !entries.is_empty(),
        // Of the wrong type, which is reported.
        Some(Value::List(_) | Value::Scalar(_)) => true,
    }
}

fn read_service(section: &mut Section<'_>, components: &Components<'_>, report: &Report) -> Service {
    let extensions = references(section, "extensions", Role::Extension, components, None, None, report).ids;
    let telemetry = section.section("telemetry", TelemetrySettings::decode);
    let entries = section.free_map("pipelines").map(|(_, entries)| entries).unwrap_or_default();
    let (mut pipelines, mut effective): (Vec<Pipeline>, Vec<_>) = (Vec::new(), Vec::new());
    for entry in entries {
        let path = section.child_path(&format!("pipelines::{}", entry.key));
        let refuse = |reason: String, remedy: &str| report.error(&entry.position, &path, reason, remedy);
        let name = match ComponentId::parse(&entry.key) {
            Ok(name) => name,
            Err(error) => {
                refuse(format!("{:?} is no pipeline id: {error}", entry.key), "write traces or traces/name");
                continue;
            }
        };
        let signal = match Signal::from_name(name.kind()) {
            Some(_) if pipelines.iter().any(|pipeline| pipeline.name == name) => {
                refuse(format!("duplicate name {name}"), "spaces around ids do not count");
                continue;
            }
            Some(signal) => signal,
            None if name.kind() == "profiles" => {
                let reason = "profiles pipelines are not supported: Spanreel takes traces, metrics and logs";
                refuse(reason.to_owned(), "remove it");
                continue;
            }
            None => {
                let signals = Signal::ALL.map(Signal::as_str);
                refuse(format!("unknown signal {:?}", name.kind()), &suggestion(name.kind(), "supported", signals));
                continue;
            }
        };
        let mut inner = Section::over(report, Some(&entry.node), entry.position.clone(), path);
        let mut named = |key, role, required: Option<&Position>| {
            references(&mut inner, key, role, components, Some(signal), required, report)
        };
        let receivers = named("receivers", Role::Receiver, Some(&entry.position));
        let processors = named("processors", Role::Processor, None);
        // Of traces, no exporter is no error, as it is in the Collector: the store keeps them anyway.
        let required = (signal != Signal::Traces).then_some(&entry.position);
        let exporters = named("exporters", Role::Exporter, required);
        effective.push((name.to_string(), inner.finish().0));
        pipelines.push(Pipeline {
            name,
            signal,
            receivers: receivers.ids,
            fed_by: receivers.connectors,
            processors: processors.ids,
            exporters: exporters.ids,
            feeds: exporters.connectors,
            position: entry.position.clone(),
        });
    }
    if !effective.is_empty() {
        section.record("pipelines", Effective::Map(effective));
    }
    Service { extensions, pipelines, telemetry }
}

/// What a list of ids names.
#[derive(Default)]
struct Named {
    ids: Vec<ComponentId>,
    connectors: Vec<ComponentId>,
}

/// Reads a list of ids and checks that each is configured, serves the pipeline's signal and is named once. `required`:
/// where to say that none is there.
fn references(
    section: &mut Section<'_>,
    key: &'static str,
    role: Role,
    components: &Components<'_>,
    signal: Option<Signal>,
    required: Option<&Position>,
    report: &Report,
) -> Named {
    let items = section.located_list(key);
    // The Collector names the pipeline, not the list inside it.
    let path = match section.path() {
        "service" => section.child_path(key),
        pipeline => pipeline.to_owned(),
    };
    if let (true, true, Some(position)) = (items.is_empty(), section.is_sound(), required) {
        report.error(position, &path, format!("must have at least one {}", role.word()), format!("e.g. {key}: [otlp]"));
    }
    let may_connect = matches!(role, Role::Receiver | Role::Exporter);
    let mut named = Named::default();
    for item in items {
        let id = ComponentId::parse(&item.text).ok();
        let configured = |role: Role| id.clone().filter(|id| components.of(role).contains_key(id));
        if let Some(id) = configured(role) {
            let fits = signal.map_or(Ok(()), |signal| components.check_signal(role, &id, signal));
            named.add(role, id, fits, &item.position, &path, report);
        } else if let Some(id) = configured(Role::Connector).filter(|_| may_connect) {
            let fits = signal.map_or(Ok(()), |signal| components.check_route(role, &id, signal));
            named.add(Role::Connector, id, fits, &item.position, &path, report);
        } else {
            let (reason, remedy) = components.dangling(role, &item.text);
            report.error(&item.position, &path, reason, remedy);
        }
    }
    named
}

impl Named {
    fn add(
        &mut self,
        role: Role,
        id: ComponentId,
        fits: Result<(), (String, String)>,
        position: &Position,
        path: &str,
        report: &Report,
    ) {
        let ids = if role == Role::Connector { &mut self.connectors } else { &mut self.ids };
        if ids.contains(&id) {
            let reason = format!("references {} \"{id}\" multiple times", role.word());
            // The Collector refuses it for processors, where twice could mean something.
            return match role {
                Role::Processor => report.error(position, path, reason, "remove one"),
                _ => report.warn(position, path, reason, "it counts once: remove one"),
            };
        }
        if let Err((reason, remedy)) = fits {
            report.error(position, path, reason, remedy);
        }
        ids.push(id);
    }
}
