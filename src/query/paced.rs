//! Bodies that wait for their clients only so long.
//!
//! An answer holds memory until its client has read it. Here it is handed on in pieces, and if a piece is not taken for
//! [`READ_WAIT_MAX`] the answer goes, with the room that it had; the client finds it cut off. That is counted.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::admission::Room;

/// A client that takes nothing for so long has gone, or never wanted it.
pub(super) const READ_WAIT_MAX: Duration = Duration::from_secs(30);

/// What is handed on at once.
const PIECE_BYTES: usize = 64 * 1024;

/// Pieces on their way.
const PIECES_MAX: usize = 2;

/// A body that is made in a task of its own.
struct Paced {
    pieces: mpsc::Receiver<Bytes>,
    left: u64,
    task: AbortHandle,
}

/// A body without an end of its own, which a task feeds.
struct Fed {
    pieces: mpsc::Receiver<Bytes>,
    task: AbortHandle,
}

/// Where a task sends what it makes for a client.
#[derive(Debug)]
pub(super) struct Feed(mpsc::Sender<Bytes>);

/// The client has left, or takes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unread;

impl Feed {
    /// Waits until there is room for it, which is when the client has taken what came before.
    pub(super) async fn send(&self, piece: Bytes) -> Result<(), Unread> {
        match tokio::time::timeout(READ_WAIT_MAX, self.0.send(piece)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Unread),
        }
    }
}

/// A body that ends when the task does; the task ends when the client leaves.
pub(super) fn fed<F>(run: impl FnOnce(Feed) -> F) -> Body
where
    F: Future<Output = ()> + Send + 'static,
{
    let (sender, pieces) = mpsc::channel(1);
    let task = tokio::spawn(run(Feed(sender)));
    Body::new(Fed { pieces, task: task.abort_handle() })
}

impl http_body::Body for Fed {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.pieces.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

impl Drop for Fed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A small body as it is, a large one piece by piece.
pub(super) fn body(bytes: Vec<u8>, room: Option<Room>) -> Body {
    body_within(bytes, room, READ_WAIT_MAX)
}

fn body_within(bytes: Vec<u8>, room: Option<Room>, wait_max: Duration) -> Body {
    if bytes.len() <= PIECE_BYTES {
        // It is in the connection's buffer at once: its room need not wait for that.
        return Body::from(bytes);
    }
    let left = bytes.len() as u64;
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    let task = tokio::spawn(async move {
        for piece in bytes.chunks(PIECE_BYTES) {
            // A copy, so that nothing else holds on to the whole.
            match tokio::time::timeout(wait_max, sender.send(Bytes::copy_from_slice(piece))).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                Err(_) => {
                    if let Some(room) = &room {
                        room.was_left_unread();
                    }
                    return;
                }
            }
        }
    });
    Body::new(Paced { pieces, left, task: task.abort_handle() })
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

impl Drop for Paced {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::query::admission::Admission;
    use crate::query::router::QueryLimits;

    #[tokio::test]
    async fn a_body_arrives_whole_whatever_its_length() {
        for len in [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 10 * PIECE_BYTES + 7] {
            let bytes: Vec<u8> = (0..len).map(|at| at as u8).collect();
            let body = body(bytes.clone(), None);
            assert_eq!(http_body::Body::size_hint(&body).exact(), Some(len as u64));
            assert_eq!(body.collect().await.unwrap().to_bytes(), bytes);
        }
    }

    #[tokio::test]
    async fn an_answer_that_nobody_reads_gives_its_room_back_and_is_counted() {
        let admission = Admission::new(&QueryLimits::default());
        let all = admission.room_left();
        let room = admission.room_for(10 * PIECE_BYTES).await.unwrap();
        assert!(admission.room_left() < all);
        let unread = body_within(vec![0; 10 * PIECE_BYTES], Some(room), Duration::from_millis(1));
        while admission.room_left() < all {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(admission.left_unread(), 1);
        assert!(unread.collect().await.is_err());
    }
}
