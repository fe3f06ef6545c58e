//! Where traces are asked for: a running process, or the data directory of one that does not run.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde_json::Value;

use super::client;
use super::traces::ANSWER_WAIT_MAX;
use crate::otlp::scan::trace_keys;
use crate::query::{self, Introspection, QueryLimits, QueryState, Readiness};
use crate::spool::{self, Spool};
use crate::store::runs::{self, Runs};
use crate::store::{Keeper, Store, TailSettings};

const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Who answers.
#[derive(Debug)]
pub enum Place {
    /// The query port of a running process, by its URL.
    Running(String),
    /// The query API, in this process, over a directory that nothing is changed in.
    Stored(Stored),
}

#[derive(Debug)]
pub struct Stored {
    routes: TowerToHyperService<Router>,
    runtime: tokio::runtime::Runtime,
}

impl Place {
    /// `data` wins over `endpoint`. An error is one line for stderr.
    pub fn of(endpoint: &str, data: Option<&Path>) -> Result<Self, String> {
        match data {
            None => Ok(Self::Running(endpoint.to_owned())),
            Some(directory) => Stored::open(directory).map(Self::Stored).map_err(|error| format!("spanreel: {error}")),
        }
    }

    /// The JSON at a path of the query API, or one line for stderr.
    pub fn get(&self, path: &str) -> Result<Value, String> {
        self.ask(Method::GET, path, ANSWER_WAIT_MAX)
    }

    pub fn ask(&self, method: Method, path: &str, wait_max: Duration) -> Result<Value, String> {
        match self {
            Self::Running(endpoint) => {
                client::ask(endpoint, method, path, wait_max).map_err(|failure| failure.line(endpoint))
            }
            Self::Stored(stored) => stored.ask(method, path).map_err(|error| format!("spanreel: {error}")),
        }
    }
}

impl Stored {
    fn open(directory: &Path) -> Result<Self, String> {
        let settings = spool::Settings {
            directory: PathBuf::from(directory),
            bytes_max: u64::MAX,
            age_max: None,
            free_bytes_min: 0,
            sync_interval: Duration::ZERO,
            memory: spool::Memory::default(),
            trace_keys,
        };
        let spool = Spool::open_read_only(settings, spool::Metrics::default()).map_err(|error| error.to_string())?;
        let runs = Runs::open(spool.database().clone(), runs::Metrics::default(), runs::Memory::default())
            .map_err(|error| format!("the data directory {}: {error}", directory.display()))?;
        let store = Store::new(spool.clone(), Arc::new(runs.clone()), TailSettings::default());
        let state = QueryState::new(Arc::new(store), Arc::new(NobodyRuns), QueryLimits::default());
        let routes = query::router(state).merge(query::upkeep_routes(Arc::new(Keeper { spool, runs, beside: &[] })));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        Ok(Self { routes: TowerToHyperService::new(routes), runtime })
    }

    fn ask(&self, method: Method, path: &str) -> Result<Value, String> {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|error| format!("{path}: {error}"))?;
        // Whoever reads the directory is on its machine.
        request.extensions_mut().insert(query::Peer(([127, 0, 0, 1], 0).into()));
        self.runtime.block_on(async {
            // The routes never fail: their error type has no value.
            let Ok(response) = self.routes.call(request).await;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| error.to_string())?.to_bytes();
            if status != StatusCode::OK {
                return Err(client::message_of(&body).unwrap_or_else(|| format!("answered {status}")));
            }
            serde_json::from_slice(&body).map_err(|error| error.to_string())
        })
    }
}

/// There is no process to tell about.
struct NobodyRuns;

impl Introspection for NobodyRuns {
    fn metrics(&self) -> crate::telemetry::Pages {
        Box::new(std::iter::empty())
    }

    fn readiness(&self) -> Readiness {
        Readiness::NotReady("a data directory is read".to_owned())
    }

    fn status(&self) -> Value {
        Value::Null
    }
}
