//! OTLP/gRPC, and Jaeger's: unary calls over HTTP/2, framed here (gRPC over HTTP/2: "Length-Prefixed-Message").

use super::answer::{Accepted, AnswerBody, Refusal};
use super::body::{HeldBody, decompress, read};
use super::framing::{self, FrameError, PREFIX_LEN};
use super::inflate::Encoding;
use super::other_signals::Signal;
use super::{Dialect, Receiver, foreign, items, jaeger, traces};
use crate::process::Client;
use ::http::{HeaderMap, Request, Response};
use hyper::body::Incoming;

const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
const LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

pub async fn serve(
    receiver: &Receiver,
    client: &Client,
    request: Request<Incoming>,
) -> (Response<AnswerBody>, &'static str) {
    match call(receiver, client, request).await {
        Ok(accepted) => (accepted.to_grpc(), "ok"),
        Err(refusal) => (refusal.to_grpc(), refusal.outcome()),
    }
}

async fn call(receiver: &Receiver, client: &Client, request: Request<Incoming>) -> Result<Accepted, Refusal> {
    let (head, body) = request.into_parts();
    let signal = match (receiver.dialect, head.uri.path()) {
        (Dialect::Otlp, TRACES) => None,
        (Dialect::Otlp, METRICS) => Some(Signal::Metrics),
        (Dialect::Otlp, LOGS) => Some(Signal::Logs),
        (Dialect::Jaeger, jaeger::POST_SPANS) => {
            receiver.sink.admit()?;
            let message = message(receiver, body, &head.headers).await?;
            let convert = |batch: &[u8], max| jaeger::to_request(jaeger::Format::Protobuf, batch, max);
            return foreign::accept(receiver, client, message, convert).await;
        }
        (_, path) => {
            let service = path.trim_start_matches('/').split('/').next().unwrap_or_default();
            return Err(Refusal::Unimplemented(format!("unknown service {service}")));
        }
    };
    match signal {
        None => receiver.sink.admit()?,
        Some(signal) => match receiver.items.of(signal) {
            Some(sink) => sink.admit()?,
            None => receiver.other_signals.admit_grpc(signal)?,
        },
    }
    let message = message(receiver, body, &head.headers).await?;
    match signal {
        None => traces::accept(receiver, client, message.bytes.clone()).await,
        Some(signal) => {
            let accepted = items::accept(receiver, client, signal, &message.bytes).await?;
            if accepted.is_none() {
                receiver.other_signals.discard_protobuf(signal, &message.bytes);
            }
            receiver.saw_other_signal(client.peer, signal);
            Ok(accepted.unwrap_or_default())
        }
    }
}

async fn message(receiver: &Receiver, body: Incoming, headers: &HeaderMap) -> Result<HeldBody, Refusal> {
    let max = receiver.limits.grpc_message_bytes_max;
    let held =
        read(receiver, body, headers, max.saturating_add(PREFIX_LEN)).await.map_err(|refusal| match refusal {
            Refusal::TooLarge(_) => too_large(max),
            other => other,
        })?;
    unframe(held, headers, max)
}

/// The one message of a unary call, decompressed.
fn unframe(held: HeldBody, headers: &HeaderMap, max: usize) -> Result<HeldBody, Refusal> {
    let HeldBody { bytes, room } = held;
    let framed = framing::unframe(bytes, max).map_err(|error| match error {
        FrameError::TooLarge { .. } => too_large(max),
        error => Refusal::BadData(error.to_string()),
    })?;
    let message = HeldBody { bytes: framed.message, room };
    let encoding = if framed.is_compressed {
        let name = headers.get("grpc-encoding").and_then(|name| name.to_str().ok()).unwrap_or_default();
        Encoding::from_name(name).filter(|encoding| *encoding != Encoding::Identity).ok_or_else(|| {
            Refusal::UnsupportedEncoding(format!("grpc: Decompressor is not installed for grpc-encoding {name:?}"))
        })?
    } else {
        Encoding::Identity
    };
    decompress(encoding, message, max).map_err(|refusal| match refusal {
        Refusal::TooLarge(_) => {
            Refusal::TooLarge(format!("grpc: received message after decompression larger than max {max}"))
        }
        other => other,
    })
}

fn too_large(max: usize) -> Refusal {
    Refusal::TooLarge(format!("grpc: received message larger than max {max}"))
}
