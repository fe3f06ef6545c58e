//! The bytes of a connection: on their way in long targets become what hyper takes, on their way out they are watched.
//!
//! A client that takes nothing for [`WRITE_WAIT_MAX`] loses its connection, and with it whatever waited for it here. Answers
//! are written as the pieces that they are made of, which keep their room until then; copied together by hyper they would
//! be memory that nobody counts. And the one answer that hyper writes by itself, to a target that is still too long, gets a
//! text: Grafana shows bodies.

use super::target::Targets;
use prometheus_client::metrics::counter::Counter;
use std::io::{self, ErrorKind, IoSlice};
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
    connection: close\r\ncontent-length: 212\r\n\r\n\
    the path of the URL is too long, or its query behind a body of no known length; send the parameters with POST as \
    application/x-www-form-urlencoded, or ask over gRPC: queries of up to 131072 bytes are taken there\n";

/// What a connection keeps for what comes next.
const READ_BYTES_KEPT: usize = 1024;

/// A connection.
pub struct Watched<S> {
    stream: S,
    /// Runs while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    wait_max: Duration,
    /// What is still to be written in place of hyper's own answer.
    instead: &'static [u8],
    given_up: Counter,
    targets: Targets,
    /// What is still to be read of what came.
    came: Vec<u8>,
    /// So much of it was read.
    came_read: usize,
}

impl<S> Watched<S> {
    pub fn new(stream: S, given_up: Counter) -> Self {
        Self::within(stream, given_up, WRITE_WAIT_MAX)
    }

    fn within(stream: S, given_up: Counter, wait_max: Duration) -> Self {
        let targets = Targets::default();
        Self { stream, stalled: None, wait_max, instead: &[], given_up, targets, came: Vec::new(), came_read: 0 }
    }

    /// Hands out what came, as far as it fits; whether there was any.
    fn hand_out(&mut self, into: &mut ReadBuf<'_>) -> bool {
        let rest = self.came.get(self.came_read..).unwrap_or_default();
        let part = &rest[..rest.len().min(into.remaining())];
        into.put_slice(part);
        self.came_read += part.len();
        let any = !part.is_empty();
        if self.came_read == self.came.len() {
            self.came.clear();
            self.came_read = 0;
            self.came.shrink_to(READ_BYTES_KEPT);
        }
        any
    }

    /// Writes the text in place of hyper's answer, which has so many bytes.
    fn answer_instead(&mut self, context: &mut Context<'_>, bytes: usize) -> Poll<io::Result<usize>>
    where
        S: AsyncWrite + Unpin,
    {
        if self.instead.is_empty() {
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
        Poll::Ready(Ok(bytes))
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
        let this = &mut *self;
        loop {
            if this.hand_out(into) || into.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let before = into.filled().len();
            std::task::ready!(Pin::new(&mut this.stream).poll_read(context, into))?;
            match &into.filled()[before..] {
                [] => {
                    this.targets.end(&mut this.came);
                    this.hand_out(into);
                    return Poll::Ready(Ok(()));
                }
                came => this.targets.pass(came, &mut this.came),
            }
            into.set_filled(before);
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.instead.is_empty() && !bytes.starts_with(TOO_LONG) {
            let tried = Pin::new(&mut self.stream).poll_write(context, bytes);
            return self.watch(context, tried);
        }
        self.answer_instead(context, bytes.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let is_too_long = parts.iter().find(|part| !part.is_empty()).is_some_and(|part| part.starts_with(TOO_LONG));
        if self.instead.is_empty() && !is_too_long {
            let tried = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
            return self.watch(context, tried);
        }
        self.answer_instead(context, parts.iter().map(|part| part.len()).sum())
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
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
    async fn what_comes_in_is_read_whatever_fits_at_once() {
        let query = "x".repeat(100_000);
        let came = format!("GET /a?{query} HTTP/1.1\r\n\r\nGET /b HTT");
        let (ours, mut theirs) = tokio::io::duplex(1000);
        let writing = tokio::spawn(async move { theirs.write_all(came.as_bytes()).await });
        let (mut stream, mut read, mut part) = (Watched::new(ours, Counter::default()), Vec::new(), [0; 77]);
        loop {
            match stream.read(&mut part).await.unwrap() {
                0 => break,
                len => read.extend_from_slice(&part[..len]),
            }
        }
        writing.await.unwrap().unwrap();
        let expected = format!("GET /a HTTP/1.1\r\nx-spanreel-query: {query}\r\n\r\nGET /b HTT");
        assert!(read == expected.as_bytes());
    }

    #[tokio::test]
    async fn what_goes_out_is_what_was_written() {
        let (ours, mut theirs) = tokio::io::duplex(16);
        let writing = tokio::spawn(async move {
            let mut stream = Watched::new(ours, Counter::default());
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
            stream.write_all(b"HTTP/1.1 414 URI Too Long\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            let parts = [IoSlice::new(b""), IoSlice::new(b"HTTP/1.1 200 OK\r\n"), IoSlice::new(b"x")];
            let written = stream.write_vectored(&parts).await.unwrap();
            assert!(written > 0);
        });
        let mut came = Vec::new();
        theirs.read_to_end(&mut came).await.unwrap();
        writing.await.unwrap();
        let expected = [b"HTTP/1.1 200 OK\r\n", TOO_LONG_ANSWER].concat();
        assert!(came.starts_with(&expected) && b"HTTP/1.1 200 OK\r\nx".starts_with(&came[expected.len()..]));
    }
}
