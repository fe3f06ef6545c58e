//! What stands between pipelines: the end of one and the beginning of another.

use bytes::Bytes;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A future that a trait object returns.
pub type Task<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A connector that is to end waits so long for requests that began before.
pub const LAST_REQUESTS_WAIT_MAX: Duration = Duration::from_secs(4);

/// A running connector: takes in what its source pipelines took in, and makes something of its own from it.
pub trait Connector: Send + Sync + 'static {
    /// Told of each request that a source pipeline has made durable, once. The client waits meanwhile: no I/O, no waiting.
    fn consume(&self, request: &Bytes);

    /// Emits until `shutdown`, then, once no request under way can bring more (nobody else holds the connector) or after
    /// [`LAST_REQUESTS_WAIT_MAX`], what is left, and returns. Called once.
    fn run(self: Arc<Self>, outlet: Arc<dyn Outlet>, shutdown: CancellationToken) -> Task<'static, ()>;
}

/// The beginning of the pipelines that a connector feeds.
pub trait Outlet: Send + Sync + 'static {
    /// Makes a request durable in every one of them. `items` counts what it holds: data points of metrics.
    ///
    /// # Errors
    /// It is not stored, or not everywhere: emit it again later, or count it as lost.
    fn emit(&self, request: Bytes, items: u32) -> Task<'_, Result<(), EmitError>>;
}

/// What a connector made could not be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EmitError(pub String);
