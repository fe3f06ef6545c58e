//! Bodies that wait for their clients only so long.
//!
//! An answer holds memory until its client has read it. Here it is handed on in pieces, each with its part of the answer's
//! room, which is free once nobody holds the piece: not here, and not in the buffers of the connection. A client that takes
//! no piece for [`QueryLimits::read_wait_max`](super::QueryLimits::read_wait_max) loses what is left. What is in the
//! buffers already only the end of the connection takes out of them, so the connection ends, too ([`Hangup`]): an HTTP/2
//! client can leave the window of a stream closed for ever. That is counted.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::admission::Room;

/// Pieces on their way, besides what is in the buffers of the connection.
const PIECES_MAX: usize = 1;

/// A body that is made in a task of its own.
struct Paced {
    pieces: mpsc::Receiver<Bytes>,
    left: u64,
}

/// A body without an end of its own, which a task feeds.
struct Fed(mpsc::Receiver<Bytes>);

/// Where a task sends what it makes for a client.
#[derive(Debug)]
pub(super) struct Feed {
    pieces: mpsc::Sender<Bytes>,
    outstanding: Outstanding,
    wait_max: Duration,
}

/// The client has left, or takes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unread;

/// Ends the connection of an answer that its client does not read. It is among the extensions of the response, for whoever
/// serves the connection.
#[derive(Debug, Clone, Default)]
pub struct Hangup(Arc<OnceLock<CancellationToken>>);

impl Hangup {
    /// It is this connection that the answer goes out on; the token ends it.
    pub fn ends(&self, connection: &CancellationToken) {
        // An answer goes out once.
        let _ = self.0.set(connection.clone());
    }

    pub(super) fn now(&self) {
        if let Some(connection) = self.0.get() {
            connection.cancel();
        }
    }
}

/// How many pieces of an answer were handed on and not taken yet. Clones count the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Outstanding(Arc<watch::Sender<usize>>);

impl Outstanding {
    pub fn is_handed_on(&self) {
        self.0.send_modify(|pieces| *pieces += 1);
    }

    pub fn is_taken(&self) {
        self.0.send_modify(|pieces| *pieces = pieces.saturating_sub(1));
    }

    /// Waits for something as long as pieces are handed on or taken meanwhile.
    ///
    /// # Errors
    /// None was for so long.
    pub async fn patiently<T>(&self, wait_max: Duration, waited_for: impl Future<Output = T>) -> Result<T, Unread> {
        let mut pieces = self.0.subscribe();
        tokio::pin!(waited_for);
        loop {
            tokio::select! {
                biased;
                done = &mut waited_for => return Ok(done),
                moved = timeout(wait_max, pieces.changed()) => if moved.is_err() { return Err(Unread) },
            }
        }
    }

    /// Waits until all are taken, in the same way.
    pub async fn all_taken(&self, wait_max: Duration) -> Result<(), Unread> {
        let mut pieces = self.0.subscribe();
        let none = async { pieces.wait_for(|pieces| *pieces == 0).await.map_or((), |_| ()) };
        self.patiently(wait_max, none).await
    }
}

impl Feed {
    /// Waits until there is room for it, which is when the client has taken what came before.
    pub(super) async fn send(&self, piece: Bytes) -> Result<(), Unread> {
        match self.outstanding.patiently(self.wait_max, self.pieces.send(piece)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(Unread) => Err(Unread),
        }
    }

    /// A piece that takes its room with it.
    pub(super) fn held(&self, piece: Vec<u8>, room: Option<Room>) -> Bytes {
        match room {
            Some(room) => room.counted_with(&self.outstanding).hold(piece),
            None => piece.into(),
        }
    }
}

/// A body that ends when the task does; the task ends when the client leaves.
pub(super) fn fed<F>(wait_max: Duration, run: impl FnOnce(Feed) -> F) -> (Body, Hangup)
where
    F: Future<Output = Result<(), Unread>> + Send + 'static,
{
    let (pieces, receiver) = mpsc::channel(PIECES_MAX);
    let (outstanding, hangup) = (Outstanding::default(), Hangup::default());
    let running = run(Feed { pieces: pieces.clone(), outstanding: outstanding.clone(), wait_max });
    let ending = hangup.clone();
    tokio::spawn(async move {
        let fed = tokio::select! {
            fed = running => fed,
            () = pieces.closed() => Ok(()),
        };
        // One that left takes nothing either.
        let is_unread = fed.is_err() && !pieces.is_closed();
        drop(pieces);
        if is_unread || outstanding.all_taken(wait_max).await.is_err() {
            ending.now();
        }
    });
    (Body::new(Fed(receiver)), hangup)
}

impl http_body::Body for Fed {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

/// An answer, piece by piece.
pub(super) fn body(pieces: Vec<Vec<u8>>, room: Option<Room>) -> (Body, Hangup) {
    let hangup = Hangup::default();
    let left: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
    let Some(mut room) = room.filter(|_| left > 0) else { return (Body::from(pieces.concat()), hangup) };
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    let ending = hangup.clone();
    tokio::spawn(async move {
        let (outstanding, wait_max) = (room.outstanding().clone(), room.wait_max());
        for piece in pieces {
            let piece = room.hold(piece);
            match outstanding.patiently(wait_max, sender.send(piece)).await {
                Ok(Ok(())) => {}
                // The client left, or has all.
                Ok(Err(_)) => break,
                Err(Unread) => {
                    room.was_left_unread();
                    return ending.now();
                }
            }
        }
        drop(sender);
        room.release_rest();
        if outstanding.all_taken(wait_max).await.is_err() {
            room.was_left_unread();
            ending.now();
        }
    });
    (Body::new(Paced { pieces: receiver, left }), hangup)
}

impl http_body::Body for Paced {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let piece = std::task::ready!(self.pieces.poll_recv(context));
        Poll::Ready(Some(match piece {
            Some(piece) => {
                self.left = self.left.saturating_sub(piece.len() as u64);
                Ok(Frame::data(piece))
            }
            None => Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "the client took too long to read")),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::query::admission::Admission;
    use crate::query::body::PIECE_BYTES;
    use crate::query::router::QueryLimits;

    fn impatient() -> Admission {
        Admission::new(&QueryLimits { read_wait_max: Duration::from_millis(1), ..QueryLimits::default() })
    }

    /// A hangup, and the connection that it ends.
    fn connected(hangup: &Hangup) -> CancellationToken {
        let connection = CancellationToken::new();
        hangup.ends(&connection);
        connection
    }

    #[tokio::test]
    async fn a_body_arrives_whole_whatever_its_length() {
        let admission = Admission::new(&QueryLimits::default());
        for count in [0, 1, 2, 10] {
            let pieces: Vec<Vec<u8>> = (0..count).map(|number| vec![number; PIECE_BYTES - 7]).collect();
            for room in [None, admission.room_for(pieces.concat().len()).await.ok()] {
                let (body, _) = body(pieces.clone(), room);
                assert_eq!(http_body::Body::size_hint(&body).exact(), Some(pieces.concat().len() as u64));
                assert_eq!(body.collect().await.unwrap().to_bytes(), pieces.concat());
            }
        }
    }

    #[tokio::test]
    async fn an_answer_that_nobody_reads_ends_its_connection_and_is_counted() {
        let admission = impatient();
        let all = admission.room_left();
        let room = admission.room_for(10 * PIECE_BYTES).await.unwrap();
        let (unread, hangup) = body(vec![vec![0; PIECE_BYTES]; 10], Some(room));
        connected(&hangup).cancelled().await;
        assert!(unread.collect().await.is_err());
        assert_eq!((admission.left_unread(), admission.room_left()), (1, all));
    }

    #[tokio::test]
    async fn what_the_buffers_of_a_connection_keep_ends_it() {
        let admission = impatient();
        let all = admission.room_left();
        for pieces in [1, 3] {
            let room = admission.room_for(pieces * PIECE_BYTES).await.unwrap();
            let (mut body, hangup) = body(vec![vec![0; PIECE_BYTES]; pieces], Some(room));
            let mut buffers = Vec::new();
            while let Some(Ok(frame)) = body.frame().await {
                buffers.push(frame);
            }
            // As hyper does it once it has everything.
            drop(body);
            connected(&hangup).cancelled().await;
            assert_eq!(admission.room_left(), all - pieces * PIECE_BYTES / 1024);
            drop(buffers);
            assert_eq!(admission.room_left(), all);
        }
    }

    #[tokio::test]
    async fn a_client_that_leaves_gives_the_room_of_what_it_did_not_take() {
        let admission = Admission::new(&QueryLimits::default());
        let all = admission.room_left();
        let room = admission.room_for(10 * PIECE_BYTES).await.unwrap();
        let (mut body, hangup) = body(vec![vec![0; PIECE_BYTES]; 10], Some(room));
        let frame = body.frame().await;
        drop(body);
        let one = PIECE_BYTES / 1024;
        while admission.room_left() < all - one {
            tokio::task::yield_now().await;
        }
        drop(frame);
        assert_eq!((admission.room_left(), admission.left_unread()), (all, 0));
        assert!(!connected(&hangup).is_cancelled());
    }

    #[tokio::test]
    async fn a_client_that_takes_little_at_a_time_is_waited_for() {
        let outstanding = Outstanding::default();
        (0..3).for_each(|_| outstanding.is_handed_on());
        let taking = async {
            for _ in 0..3 {
                outstanding.is_taken();
                tokio::task::yield_now().await;
            }
        };
        let (taken, ()) = tokio::join!(outstanding.all_taken(Duration::from_secs(60)), taking);
        assert_eq!(taken, Ok(()));
        outstanding.is_handed_on();
        assert_eq!(outstanding.all_taken(Duration::from_millis(1)).await, Err(Unread));
    }

    #[tokio::test]
    async fn a_stream_of_which_nothing_is_taken_ends_its_connection() {
        let admission = impatient();
        let all = admission.room_left();
        let room = admission.room_for(1024).await.unwrap();
        let (mut body, hangup) = fed(Duration::from_millis(1), |feed| async move {
            let piece = feed.held(vec![7; 1024], Some(room));
            feed.send(piece).await?;
            std::future::pending().await
        });
        let connection = connected(&hangup);
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(admission.room_left(), all - 1);
        // It has left, and its buffers are still full.
        drop(body);
        connection.cancelled().await;
        drop(frame);
        assert_eq!(admission.room_left(), all);
    }

    #[tokio::test]
    async fn a_small_answer_takes_room_until_it_has_left_too() {
        let admission = Admission::new(&QueryLimits::default());
        let all = admission.room_left();
        let (body, _) = body(vec![vec![0; 2048]], admission.room_for(2048).await.ok());
        assert_eq!(admission.room_left(), all - 2);
        let bytes = body.collect().await.unwrap().to_bytes();
        assert_eq!(admission.room_left(), all - 2);
        drop(bytes);
        assert_eq!(admission.room_left(), all);
    }
}
