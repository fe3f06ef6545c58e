//! Zipkin over HTTP: POST to any path; version 1 where it contains `api/v1/spans`.

use super::{Format, Rules, to_request};
use crate::process::Client;
use crate::receive::answer::{AnswerBody, Refusal, accepted, only_post};
use crate::receive::body::{decompress, read};
use crate::receive::http::{content_encoding, media_type};
use crate::receive::{Receiver, foreign};
use ::http::{HeaderMap, Method, Request, Response};
use hyper::body::Incoming;
use std::time::{SystemTime, UNIX_EPOCH};

const V1_PATH: &str = "api/v1/spans";

/// The label `protocol`, and the answer with the label `outcome`.
pub async fn serve(
    receiver: &Receiver,
    rules: Rules,
    client: &Client,
    request: Request<Incoming>,
) -> (&'static str, (Response<AnswerBody>, &'static str)) {
    let format = match format(request.uri().path(), request.headers()) {
        Ok(format) => format,
        Err(refusal) => return ("http/other", (refusal.to_plain(), refusal.outcome())),
    };
    let protocol = match format {
        Format::JsonV2 => "http_v2_json",
        Format::ProtobufV2 => "http_v2_proto",
        Format::JsonV1 => "http_v1_json",
        Format::ThriftV1 => "http_v1_thrift",
    };
    if request.method() != Method::POST {
        return (protocol, (only_post(), "method"));
    }
    let answer = match post(receiver, format, rules, client, request).await {
        // What the Zipkin API asks for.
        Ok(()) => (accepted(), "ok"),
        Err(refusal) => (refusal.to_plain(), refusal.outcome()),
    };
    (protocol, answer)
}

fn format(path: &str, headers: &HeaderMap) -> Result<Format, Refusal> {
    let media_type = media_type(headers);
    match (path.contains(V1_PATH), media_type.as_deref()) {
        (true, Some("application/x-thrift")) => Ok(Format::ThriftV1),
        (true, _) => Ok(Format::JsonV1),
        (false, Some("application/x-protobuf")) => Ok(Format::ProtobufV2),
        (false, Some("application/x-thrift")) => {
            Err(Refusal::BadData(format!("Thrift is Zipkin's version 1: send it to /{V1_PATH}")))
        }
        (false, _) => Ok(Format::JsonV2),
    }
}

async fn post(
    receiver: &Receiver,
    format: Format,
    rules: Rules,
    client: &Client,
    request: Request<Incoming>,
) -> Result<(), Refusal> {
    let (head, body) = request.into_parts();
    receiver.sink.admit()?;
    let encoding = content_encoding(&head.headers, receiver.limits.http_encodings.as_deref())?;
    let max = receiver.limits.http_body_bytes_max;
    let held = decompress(encoding, read(receiver, body, &head.headers, max).await?, max)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64);
    foreign::accept(receiver, client, held, move |body, max| to_request(format, body, rules, now, max)).await?;
    Ok(())
}
