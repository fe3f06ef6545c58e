//! The ports of `prometheus` exporters.

use super::http_server;
use crate::forward::prometheus::Page;
use crate::forward::prometheus::board::Format;
use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Before a port that could not be had is tried again.
const BIND_PAUSE: Duration = Duration::from_secs(1);
/// So many tries are between two lines of the log about the same port.
const TRIES_PER_LINE: u64 = 60;

/// Serves a page until `shutdown`; of several who want to, one at a time.
pub(super) async fn serve(page: Arc<Page>, shutdown: CancellationToken) {
    let Some(_turn) = shutdown.run_until_cancelled(page.turn()).await else { return };
    for tried in 0.. {
        match http_server::bind(page.endpoint()).await {
            Ok(server) => return server.serve(router(page), shutdown).await,
            Err(error) if tried % TRIES_PER_LINE == 0 => tracing::error!("the prometheus exporter {error}"),
            Err(_) => {}
        }
        if shutdown.run_until_cancelled(tokio::time::sleep(BIND_PAUSE)).await.is_none() {
            return;
        }
    }
}

fn router(page: Arc<Page>) -> Router {
    Router::new().route("/metrics", get(move |headers: HeaderMap| std::future::ready(answer(&page, &headers))))
}

fn answer(page: &Arc<Page>, headers: &HeaderMap) -> Response {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let format = page.format(accept);
    let content_type = match format {
        Format::Text => "text/plain; version=0.0.4; charset=utf-8",
        Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
    };
    let text = Arc::clone(page).text(format).map(Ok::<String, std::convert::Infallible>);
    ([(CONTENT_TYPE, content_type)], Body::from_stream(futures_util::stream::iter(text))).into_response()
}
