//! The bytes of a connection: on their way out they are watched.
//!
//! A client that takes nothing for [`WRITE_WAIT_MAX`] loses its connection, and with it whatever waited for it here. And
//! the one answer that hyper writes by itself, to a target beyond what a URI may have, gets a text: Grafana shows bodies.

use prometheus_client::metrics::counter::Counter;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// How long a client may take nothing.
const WRITE_WAIT_MAX: Duration = Duration::from_secs(30);

/// How an answer of hyper's own begins. Nothing else here answers with this status.
const TOO_LONG: &[u8] = b"HTTP/1.1 414 ";

const TOO_LONG_ANSWER: &[u8] = b"HTTP/1.1 414 URI Too Long\r\ncontent-type: text/plain; charset=utf-8\r\n\
    connection: close\r\ncontent-length: 168\r\n\r\n\
    the URL is longer than 65534 bytes; send the parameters with POST as application/x-www-form-urlencoded, \
    or ask over gRPC: queries of up to 131072 bytes are taken there\n";

/// A connection.
pub struct Watched<S> {
    stream: S,
    /// Runs while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    wait_max: Duration,
    /// What is still to be written in place of hyper's own answer.
    instead: &'static [u8],
    given_up: Counter,
}

impl<S> Watched<S> {
    pub fn new(stream: S, given_up: Counter) -> Self {
        Self::within(stream, given_up, WRITE_WAIT_MAX)
    }

    fn within(stream: S, given_up: Counter, wait_max: Duration) -> Self {
        Self { stream, stalled: None, wait_max, instead: &[], given_up }
    }

    /// What came of a try to write, unless the client was tried for too long.
    fn watch<T>(&mut self, context: &mut Context<'_>, tried: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if tried.is_ready() {
            self.stalled = None;
            return tried;
        }
        let wait_max = self.wait_max;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(wait_max)));
        std::task::ready!(stalled.as_mut().poll(context));
        self.given_up.inc();
        Poll::Ready(Err(io::Error::new(ErrorKind::TimedOut, "the client took nothing for too long")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.instead.is_empty() {
            if !bytes.starts_with(TOO_LONG) {
                let tried = Pin::new(&mut self.stream).poll_write(context, bytes);
                return self.watch(context, tried);
            }
            self.instead = TOO_LONG_ANSWER;
        }
        while !self.instead.is_empty() {
            let instead = self.instead;
            let tried = Pin::new(&mut self.stream).poll_write(context, instead);
            let written = std::task::ready!(self.watch(context, tried))?;
            if written == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            self.instead = instead.get(written..).unwrap_or_default();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let tried = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(context, tried)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let tried = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch(context, tried)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn the_text_has_the_length_that_is_announced() {
        let text = std::str::from_utf8(TOO_LONG_ANSWER).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("\r\ncontent-length: {}", body.len())), "{}", body.len());
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_given_up_and_counted() {
        let (ours, theirs) = tokio::io::duplex(16);
        let given_up = Counter::default();
        let mut stream = Watched::within(ours, given_up.clone(), Duration::from_millis(1));
        let error = stream.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!((error.kind(), given_up.get()), (ErrorKind::TimedOut, 1));
        drop(theirs);
    }

    #[tokio::test]
    async fn what_goes_out_is_what_was_written() {
        let (ours, mut theirs) = tokio::io::duplex(16);
        let writing = tokio::spawn(async move {
            let mut stream = Watched::new(ours, Counter::default());
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
            stream.write_all(b"HTTP/1.1 414 URI Too Long\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        });
        let mut came = Vec::new();
        theirs.read_to_end(&mut came).await.unwrap();
        writing.await.unwrap();
        assert_eq!(came, [b"HTTP/1.1 200 OK\r\n", TOO_LONG_ANSWER].concat());
    }
}
