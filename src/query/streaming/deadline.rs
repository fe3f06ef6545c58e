//! `grpc-timeout`: when a client stops waiting, the query ends and says so.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use tokio::time::{Instant, Sleep, sleep_until};

use super::status::{Code, Status};

/// Digits that the value has at most.
const DIGITS_MAX: usize = 8;

/// Queries end by themselves long before.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

/// Until when the client waits; `None`: it did not say so in the words of gRPC.
pub fn of(headers: &HeaderMap) -> Option<Instant> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    Some(Instant::now() + timeout(text)?.min(TIMEOUT_MAX))
}

/// Up to eight digits and a unit.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > DIGITS_MAX || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

/// What is answered when the time is over.
pub fn passed() -> Status {
    Status::new(Code::DeadlineExceeded, "the time that the client gave (grpc-timeout) is over".to_owned())
}

/// A streaming answer that is cut off, with a status, when the time is over.
pub fn until(deadline: Instant, body: Body) -> Body {
    Body::new(Until { body: Some(body), over: Box::pin(sleep_until(deadline)) })
}

struct Until {
    /// Dropped when the time is over, which ends the query behind it.
    body: Option<Body>,
    over: Pin<Box<Sleep>>,
}

impl http_body::Body for Until {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Self { body, over } = self.get_mut();
        let Some(answer) = body else { return Poll::Ready(None) };
        // Nobody waits any more, even if there were something now.
        if Instant::now() < over.deadline() {
            if let Poll::Ready(frame) = Pin::new(answer).poll_frame(context) {
                return Poll::Ready(frame);
            }
            std::task::ready!(over.as_mut().poll(context));
        }
        *body = None;
        Poll::Ready(Some(Ok(Frame::trailers(passed().headers()))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    #[test]
    fn a_timeout_is_digits_and_a_unit() {
        for (text, expected) in [
            ("5S", Some(Duration::from_secs(5))),
            ("250m", Some(Duration::from_millis(250))),
            ("1H", Some(Duration::from_secs(3600))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("100000000S", None),
            ("S", None),
            ("5", None),
            ("-5S", None),
            ("5µ", None),
            ("", None),
        ] {
            assert_eq!(timeout(text), expected, "{text}");
        }
    }

    #[tokio::test]
    async fn what_is_not_there_in_time_ends_with_a_status() {
        let never = futures_util::stream::pending::<Result<Frame<Bytes>, std::convert::Infallible>>();
        let body = until(Instant::now(), Body::new(StreamBody::new(never)));
        let trailers = body.collect().await.unwrap().trailers().cloned().unwrap();
        assert_eq!(trailers["grpc-status"], "4");
        let whole = until(Instant::now() + TIMEOUT_MAX, Body::from("x")).collect().await.unwrap();
        assert_eq!(whole.to_bytes(), "x");
    }
}
