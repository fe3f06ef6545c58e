//! The service graph: who calls whom, how often, how long it takes and how often it fails.
//!
//! A call has two spans, the caller's (client or producer) and the callee's (server or consumer). They come in any order,
//! in different requests, and are paired by trace id and the caller's span id. What stays alone is a call to or from
//! something that sends no spans, if its attributes say to what.

mod waiting;

use self::waiting::{Connection, Edge, EdgeKey, Waiting};
use super::facts::{Facts, Keys, Resource, Value, kind};
use super::histogram::{Distribution, Scheme, Witness};
use super::labels::{Builder, Labels, VALUE_BYTES_MAX};
use super::symbols::{Symbol, Symbols};
use super::table::Table;
use super::{Census, Family, Now, Reading};

/// What is counted and under which names.
#[derive(Debug, Clone)]
pub struct Plan {
    pub requests: Family,
    pub failed: Family,
    pub server_latency: Family,
    pub client_latency: Family,
    /// From the end of the sending to the beginning of the receiving.
    pub messaging_latency: Option<Family>,
    /// 1 for each edge.
    pub connection_info: Option<Family>,
    /// Attributes, resource's and span's, that become labels: label names and key indexes.
    pub dimensions: Vec<(String, usize)>,
    /// Each dimension as two labels, `client_x` and `server_x`.
    pub client_server_prefix: bool,
    /// A label that tells which side of a `virtual_node` sends no spans.
    pub virtual_node_label: bool,
    /// A label `failed`, as the Collector's connector has it.
    pub failed_label: bool,
    pub scheme: Scheme,
    /// So long a span waits for the other side.
    pub wait_millis: u64,
    /// So many spans wait at most.
    pub waiting_max: usize,
    /// Key indexes of attributes that name the other side, in order of preference.
    pub peer: Vec<usize>,
    /// Key indexes of attributes that make a call one to a database, in order of preference for its name.
    pub database: Vec<usize>,
    /// What names a database before its own attributes do.
    pub database_address: Option<DatabaseAddress>,
    /// Whether a root's attributes name its caller, as in Tempo; in the Collector's connector every root's is the same.
    pub peer_calls_roots: bool,
    /// What a callee is called of which nothing is known; `None`: such calls are left out.
    pub unknown_server: Option<&'static str>,
    pub exemplars: bool,
    pub series_max: usize,
}

/// Key indexes of what names a database, in Tempo's order.
#[derive(Debug, Clone, Copy)]
pub struct DatabaseAddress {
    pub peer_service: usize,
    pub server_address: usize,
    pub network_peer_address: usize,
    pub network_peer_port: usize,
}

/// The figures of one edge of the graph.
#[derive(Debug)]
struct Figures {
    requests: u64,
    failed: u64,
    server: Distribution,
    client: Distribution,
    messaging: Option<Distribution>,
}

/// Which figure a family shows.
#[derive(Debug, Clone, Copy)]
enum Figure {
    Requests,
    Failed,
    Server,
    Client,
    Messaging,
    Connection,
}

#[derive(Debug)]
pub struct ServiceGraph {
    plan: Plan,
    names: Vec<String>,
    families: Vec<(Family, Figure)>,
    service_key: usize,
    /// Of the resource that is looked at.
    service: Symbol,
    waiting: Waiting,
    symbols: Symbols,
    table: Table<Figures>,
    builder: Builder,
    scratch: Vec<u8>,
    edges: u64,
    expired: u64,
    unpaired: u64,
}

/// The label of a connector that says whether calls failed: `true` or `false`.
pub const FAILED: &str = "failed";
/// Who calls this, where nobody who sends spans does.
const USER: &str = "user";

impl ServiceGraph {
    pub fn new(plan: Plan, keys: &mut Keys) -> Self {
        let mut names: Vec<String> = ["client", "server", "connection_type"].map(str::to_owned).into();
        if plan.failed_label {
            names.push(FAILED.to_owned());
        }
        if plan.virtual_node_label {
            names.push("virtual_node".to_owned());
        }
        for (name, _) in &plan.dimensions {
            match plan.client_server_prefix {
                true => names.extend([format!("client_{name}"), format!("server_{name}")]),
                false => names.push(name.clone()),
            }
        }
        let families = [
            Some((plan.requests.clone(), Figure::Requests)),
            Some((plan.failed.clone(), Figure::Failed)),
            Some((plan.server_latency.clone(), Figure::Server)),
            Some((plan.client_latency.clone(), Figure::Client)),
            plan.messaging_latency.clone().map(|family| (family, Figure::Messaging)),
            plan.connection_info.clone().map(|family| (family, Figure::Connection)),
        ];
        Self {
            names,
            families: families.into_iter().flatten().collect(),
            service_key: keys.index_of("service.name"),
            service: Symbol::from(""),
            waiting: Waiting::new(plan.waiting_max),
            symbols: Symbols::default(),
            table: Table::new(plan.series_max),
            builder: Builder::default(),
            scratch: Vec::new(),
            edges: 0,
            expired: 0,
            unpaired: 0,
            plan,
        }
    }

    /// Whether a span's attributes may say who is on the other side.
    pub fn wants_attributes(&self, span: &Facts<'_>) -> bool {
        match span.kind {
            kind::CLIENT | kind::PRODUCER => true,
            // Who calls another than a root is known by the caller's own span alone.
            kind::SERVER | kind::CONSUMER => span.is_root() || !self.plan.dimensions.is_empty(),
            _ => false,
        }
    }

    /// The spans that follow are of this resource. `false`: it has no name, so it is no node.
    pub fn begin(&mut self, resource: &Resource<'_>) -> bool {
        let Some(service) = resource.found.get(self.service_key).copied().flatten() else { return false };
        self.service = self.symbol(service);
        !self.service.is_empty()
    }

    pub fn observe(&mut self, resource: &Resource<'_>, span: &Facts<'_>, of_span: &[Option<Value<'_>>], now: Now) {
        let is_caller = match span.kind {
            kind::CLIENT | kind::PRODUCER => true,
            kind::SERVER | kind::CONSUMER => false,
            _ => return,
        };
        let id = if is_caller { span.span_id } else { span.parent_id };
        let key = EdgeKey::new(span.trace_id, id);
        let mut edge = match self.waiting.take(&key) {
            Some(edge) => edge,
            None => {
                self.edges += 1;
                Edge::new(key, now.uptime_millis + self.plan.wait_millis)
            }
        };
        let messaging = matches!(span.kind, kind::PRODUCER | kind::CONSUMER);
        edge.connection = if messaging { Connection::Messaging } else { Connection::Direct };
        edge.failed |= span.is_error();
        edge.span_id = span.span_id.try_into().unwrap_or_default();
        if let Some(peer) = self.plan.peer.iter().find_map(|key| of_span.get(*key).copied().flatten()) {
            edge.peer = Some(self.symbol(peer));
        }
        let find = |key: usize| resource.found.get(key).copied().flatten().or(of_span.get(key).copied().flatten());
        if is_caller {
            edge.client = Some(Symbol::clone(&self.service));
            edge.client_seconds = span.seconds();
            edge.client_end = span.end;
            if let Some(database) = self.database(find) {
                edge.connection = Connection::Database;
                edge.server_seconds = span.seconds();
                edge.server = Some(database);
            }
        } else {
            edge.server = Some(Symbol::clone(&self.service));
            edge.server_seconds = span.seconds();
            edge.server_start = span.start;
        }
        if !self.plan.dimensions.is_empty() {
            let found = self.plan.dimensions.iter().map(|(_, key)| find(*key));
            let side = if is_caller { 0 } else { 1 };
            edge.note_dimensions(found, side, self.plan.client_server_prefix);
        }
        match edge.is_complete() {
            true => self.complete(&edge, now),
            // Nobody can be the other side of a call without caller: no need to wait.
            false if !is_caller && span.is_root() => self.give_up(edge, now),
            false => {
                if !self.waiting.insert(edge) {
                    self.unpaired += 1;
                }
            }
        }
    }

    /// Gives up edges that waited long enough.
    pub fn expire(&mut self, now: Now) {
        while let Some(edge) = self.waiting.take_expired(now.uptime_millis) {
            self.expired += 1;
            self.give_up(edge, now);
        }
        self.symbols.tidy();
    }

    /// The other side sends no spans.
    fn give_up(&mut self, mut edge: Edge, now: Now) {
        edge.connection = Connection::VirtualNode;
        if edge.client.is_none() {
            // A root is called from outside: a browser, a person with curl. Of other spans the caller was lost.
            if edge.key.is_of_root() {
                edge.virtual_side = "client";
                let peer = edge.peer.clone().filter(|_| self.plan.peer_calls_roots);
                edge.client = Some(peer.unwrap_or_else(|| self.symbols.intern(USER)));
                self.complete(&edge, now);
            }
        } else if edge.server.is_none() {
            let unknown = || self.plan.unknown_server.map(Symbol::from);
            edge.virtual_side = "server";
            edge.server = edge.peer.clone().or_else(unknown);
            if edge.server.is_some() {
                self.complete(&edge, now);
            }
        }
    }

    fn complete(&mut self, edge: &Edge, now: Now) {
        let Self { plan, builder, table, .. } = self;
        builder.clear();
        builder.push(edge.client.as_deref().unwrap_or_default().as_bytes());
        builder.push(edge.server.as_deref().unwrap_or_default().as_bytes());
        builder.push(edge.connection.as_str().as_bytes());
        if plan.failed_label {
            builder.push(if edge.failed { b"true" } else { b"false" });
        }
        if plan.virtual_node_label {
            builder.push(edge.virtual_side.as_bytes());
        }
        for (number, _) in plan.dimensions.iter().enumerate() {
            edge.dimensions(number, plan.client_server_prefix).for_each(|value| builder.push(value));
        }
        let witness = plan.exemplars.then_some(Witness {
            trace_id: edge.key.trace_id(),
            span_id: edge.span_id,
            unix_millis: now.unix_millis,
        });
        let histogram = || Distribution::new(&plan.scheme);
        let new = || Figures {
            requests: 0,
            failed: 0,
            server: histogram(),
            client: histogram(),
            messaging: plan.messaging_latency.is_some().then(histogram),
        };
        table.update(builder.values(), now, new, |figures| {
            figures.requests += 1;
            figures.failed += u64::from(edge.failed);
            figures.server.observe(&plan.scheme, edge.server_seconds, 1, witness);
            figures.client.observe(&plan.scheme, edge.client_seconds, 1, witness);
            let under_way = edge.server_start.saturating_sub(edge.client_end);
            if let Some(messaging) = figures.messaging.as_mut()
                && edge.connection == Connection::Messaging
                // Zero: the clocks do not agree, so nothing is known.
                && under_way > 0
            {
                messaging.observe(&plan.scheme, under_way as f64 / 1e9, 1, witness);
            }
        });
    }

    /// What the database of a call is called, if it is one to a database.
    fn database<'a>(&mut self, find: impl Fn(usize) -> Option<Value<'a>>) -> Option<Symbol> {
        let name = self.plan.database.iter().find_map(|key| find(*key))?;
        if let Some(address) = self.plan.database_address {
            if let Some(service) = find(address.peer_service).or_else(|| find(address.server_address)) {
                return Some(self.symbol(service));
            }
            if let Some(host) = find(address.network_peer_address) {
                self.scratch.clear();
                host.write(&mut self.scratch);
                if let Some(port) = find(address.network_peer_port) {
                    self.scratch.push(b':');
                    port.write(&mut self.scratch);
                }
                return Some(self.symbols.intern(&cut(&self.scratch)));
            }
        }
        Some(self.symbol(name)).filter(|name| !name.is_empty())
    }

    fn symbol(&mut self, value: Value<'_>) -> Symbol {
        match value {
            Value::Text(text) => self.symbols.intern(&cut(text)),
            other => {
                self.scratch.clear();
                other.write(&mut self.scratch);
                self.symbols.intern(&cut(&self.scratch))
            }
        }
    }

    pub fn forget(&mut self, seen_since_millis: u64) {
        self.table.forget(seen_since_millis);
    }

    pub fn families(&self) -> impl ExactSizeIterator<Item = &Family> {
        self.families.iter().map(|(family, _)| family)
    }

    pub fn slots(&self) -> usize {
        self.table.slots()
    }

    pub fn read(&self, family: usize, slot: usize) -> Option<(Labels<'_>, Reading<'_>)> {
        let (_, figure) = self.families.get(family)?;
        let series = self.table.get(slot)?;
        let scheme = &self.plan.scheme;
        let reading = match figure {
            Figure::Requests => Reading::Counter(series.state.requests),
            // With a label that tells them apart, calls that went well have no failures to show.
            Figure::Failed if self.plan.failed_label && series.state.failed == 0 => return None,
            Figure::Failed => Reading::Counter(series.state.failed),
            Figure::Connection => Reading::Gauge(1),
            Figure::Server => series.state.server.read(scheme)?,
            Figure::Client => series.state.client.read(scheme)?,
            Figure::Messaging => {
                let messaging = series.state.messaging.as_ref().filter(|messaging| messaging.count() > 0)?;
                messaging.read(scheme)?
            }
        };
        let labels = series.labels(&self.names, &series.values, (0, &[]));
        Some((labels, reading))
    }

    pub fn count(&self, census: &mut Census) {
        census.edge_series = self.table.len();
        census.overflowed_edges = self.table.overflowed();
        census.waiting_edges = self.waiting.len();
        census.edges = self.edges;
        census.expired_edges = self.expired;
        census.unpaired_spans = self.unpaired;
    }
}

/// As text, and no longer than a label may be.
fn cut(text: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(text.get(..VALUE_BYTES_MAX).unwrap_or(text))
}
