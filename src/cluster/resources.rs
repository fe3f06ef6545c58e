//! Custom resources as they stand, for people: what runs of them, what is wrong, and the line that leads to mending it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use super::index::Index;
use super::status::Ready;
use super::{Applied, ListenerPort};

/// Resources of each kind that are shown; the others are counted.
const SHOWN_MAX: usize = 500;
/// Collectors that are remembered: those that run, and some of those that do not.
const REMEMBERED_MAX: usize = 1000;

/// What is known of the cluster's resources. Clones show the same.
#[derive(Debug, Clone)]
pub struct Resources {
    index: Arc<Index>,
    collectors: CollectorBoard,
}

/// What became of each OpenTelemetryCollector, by `namespace/name`. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct CollectorBoard(Arc<Mutex<BTreeMap<String, Standing>>>);

#[derive(Debug, Clone)]
struct Standing {
    ready: Ready,
    /// Whether this, or an earlier configuration of it, runs.
    running: bool,
    ports: Vec<ListenerPort>,
    /// Unix seconds.
    since: i64,
}

impl CollectorBoard {
    /// What its status was last made to say.
    pub(super) fn note(&self, owner: &str, ready: &Ready, running: Option<&Applied>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = jiff::Timestamp::now().as_second();
        let since =
            known.get(owner).filter(|before| before.ready.ready == ready.ready).map_or(now, |before| before.since);
        if known.len() >= REMEMBERED_MAX && !known.contains_key(owner) {
            return;
        }
        let ports = running.map(|applied| applied.ports.clone()).unwrap_or_default();
        known.insert(owner.to_owned(), Standing { ready: ready.clone(), running: running.is_some(), ports, since });
    }

    /// It is gone, or not Spanreel's to run.
    pub(super) fn forget(&self, owner: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(owner);
    }
}

impl Resources {
    pub(super) fn new(index: Arc<Index>, collectors: CollectorBoard) -> Self {
        Self { index, collectors }
    }

    /// `collectors`, `instrumentations` and `left_out` of a namespace or of all; docs/ui-api.md describes them.
    #[must_use]
    pub fn report(&self, namespace: Option<&str>) -> Value {
        let (collectors, more_collectors) = self.collectors(namespace);
        let (instrumentations, more_instrumentations) = self.instrumentations(namespace);
        json!({
            "collectors": collectors,
            "instrumentations": instrumentations,
            "left_out": { "collectors": more_collectors, "instrumentations": more_instrumentations },
        })
    }

    fn collectors(&self, wanted: Option<&str>) -> (Vec<Value>, usize) {
        let known = self.collectors.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut of_scope = known.iter().filter_map(|(owner, standing)| {
            let (namespace, name) = owner.split_once('/')?;
            wanted.is_none_or(|wanted| wanted == namespace).then_some((namespace, name, standing))
        });
        let shown = of_scope.by_ref().take(SHOWN_MAX).map(|(namespace, name, standing)| {
            let ports =
                standing.ports.iter().map(|port| json!({ "name": port.name, "port": port.port, "udp": port.udp }));
            let edit = format!("kubectl -n {namespace} edit opentelemetrycollector {name}");
            json!({
                "namespace": namespace,
                "name": name,
                "ready": standing.ready.ready,
                "reason": standing.ready.reason,
                "message": standing.ready.message,
                "since": standing.since,
                "running": standing.running,
                "ports": ports.collect::<Vec<_>>(),
                "fix": (!standing.ready.ready).then_some(edit),
            })
        });
        (shown.collect(), of_scope.count())
    }

    fn instrumentations(&self, wanted: Option<&str>) -> (Vec<Value>, usize) {
        let catalog = self.index.catalog();
        let mut of_scope = catalog.names().filter(|(namespace, _)| wanted.is_none_or(|wanted| wanted == *namespace));
        let shown = of_scope.by_ref().take(SHOWN_MAX).map(|(namespace, name)| {
            let (generation, problem) = match catalog.get(namespace, name) {
                Some(Ok(instrumentation)) => (Some(instrumentation.generation), None),
                Some(Err(malformed)) => (None, Some(malformed.to_string())),
                None => (None, None),
            };
            let edit = format!("kubectl -n {namespace} edit instrumentation {name}");
            json!({
                "namespace": namespace,
                "name": name,
                "generation": generation,
                "ok": problem.is_none(),
                "fix": problem.as_ref().map(|_| edit),
                "message": problem,
            })
        });
        (shown.collect(), of_scope.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::api::DynamicObject;
    use kube::runtime::watcher::Event;

    fn instrumentation(name: &str, spec: Value) -> DynamicObject {
        serde_json::from_value(json!({"metadata": {"namespace": "shop", "name": name, "generation": 3}, "spec": spec}))
            .unwrap()
    }

    #[test]
    fn what_is_wrong_comes_with_the_line_that_leads_to_mending_it() {
        let index = Arc::new(Index::default());
        index.on_instrumentation(Event::Apply(instrumentation("good", json!({}))));
        index.on_instrumentation(Event::Apply(instrumentation("bad", json!({"exporter": 5}))));
        let board = CollectorBoard::default();
        let running = Ready { ready: true, reason: "Running", message: "runs".to_owned() };
        let refused = Ready { ready: false, reason: "ConfigurationRefused", message: "1:2: unknown key".to_owned() };
        let port = ListenerPort { name: "otlp-grpc".to_owned(), port: 4317, udp: false, app_protocol: None };
        let applied = Applied { ports: vec![port], ..Applied::default() };
        board.note("shop/otel", &running, Some(&applied));
        board.note("other/otel", &refused, None);
        board.note("gone/otel", &refused, None);
        board.forget("gone/otel");

        let resources = Resources::new(index, board);
        let report = resources.report(None);
        let collectors = report["collectors"].as_array().unwrap();
        assert_eq!(collectors.len(), 2);
        assert_eq!(collectors[0]["fix"], "kubectl -n other edit opentelemetrycollector otel");
        assert_eq!((&collectors[0]["running"], &collectors[0]["message"]), (&json!(false), &json!("1:2: unknown key")));
        assert_eq!((&collectors[1]["fix"], &collectors[1]["ports"][0]["port"]), (&Value::Null, &json!(4317)));
        let instrumentations = report["instrumentations"].as_array().unwrap();
        assert_eq!(instrumentations[0]["fix"], "kubectl -n shop edit instrumentation bad");
        assert_eq!((&instrumentations[1]["ok"], &instrumentations[1]["generation"]), (&json!(true), &json!(3)));
        let report = resources.report(Some("other"));
        assert_eq!((report["collectors"].as_array().unwrap().len(), &report["instrumentations"]), (1, &json!([])));
    }

    #[test]
    fn more_than_is_shown_is_counted() {
        let board = CollectorBoard::default();
        let ready = Ready { ready: true, reason: "Running", message: String::new() };
        for number in 0..REMEMBERED_MAX + 10 {
            board.note(&format!("shop/c{number}"), &ready, None);
        }
        let report = Resources::new(Arc::default(), board).report(None);
        assert_eq!(report["collectors"].as_array().unwrap().len(), SHOWN_MAX);
        assert_eq!(report["left_out"]["collectors"], REMEMBERED_MAX - SHOWN_MAX);
    }
}
