//! The banner: what listens where, and where the data lies.

use super::host::Host;
use std::net::SocketAddr;
use std::path::Path;

pub(super) fn print(host: &Host, query: Option<SocketAddr>, data: &Path, text: bool) {
    let data = data.canonicalize().unwrap_or_else(|_| data.to_owned());
    let view = host.view();
    let otlp: Vec<String> = view.listeners.iter().map(|(_, listening)| listening.address.to_string()).collect();
    let destinations: Vec<&str> = view.destinations.iter().map(|running| running.exporter.as_str()).collect();
    if !text {
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            otlp = otlp.join(", "),
            query = query.map(|address| address.to_string()),
            data = %data.display(),
            destinations = destinations.join(", "),
            "ready"
        );
        return;
    }
    let forwards = if destinations.is_empty() {
        "nowhere (kept here; configure an exporter to forward)".to_owned()
    } else {
        destinations.join(", ")
    };
    let query =
        query.map_or_else(|| "off".to_owned(), |address| format!("http://{address}   (Tempo API, /metrics, /ready)"));
    eprintln!(
        "\n  spanreel {}\n\n    OTLP     {}   (gRPC, HTTP protobuf and JSON on each)\n    query    {query}\n    data     {}\n    forward  {forwards}\n",
        env!("CARGO_PKG_VERSION"),
        otlp.join(" and "),
        data.display(),
    );
}
