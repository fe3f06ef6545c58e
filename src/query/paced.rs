//! Bodies that wait for their clients only so long.
//!
//! An answer holds memory until its client has read it. Here it is handed on in pieces, each with its part of the answer's
//! room, and if a piece is not taken for [`READ_WAIT_MAX`] what is left goes; the client finds it cut off. That is counted.
//! A piece in the buffers of a connection whose client opens no window for it keeps its room as long as it is there.

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

/// Pieces on their way, besides what is in the buffers of the connection.
const PIECES_MAX: usize = 1;

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
pub(super) fn body(pieces: Vec<Vec<u8>>, room: Option<Room>) -> Body {
    body_within(pieces, room, READ_WAIT_MAX)
}

fn body_within(mut pieces: Vec<Vec<u8>>, mut room: Option<Room>, wait_max: Duration) -> Body {
    if pieces.len() <= 1 {
        let piece = pieces.pop().unwrap_or_default();
        return Body::from(held(piece, room.as_mut()));
    }
    let left = pieces.iter().map(|piece| piece.len() as u64).sum();
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    let task = tokio::spawn(async move {
        for piece in pieces {
            match tokio::time::timeout(wait_max, sender.send(held(piece, room.as_mut()))).await {
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
    Body::new(Paced { pieces: receiver, left, task: task.abort_handle() })
}

/// A piece that takes its part of the room with it.
pub(super) fn held(piece: Vec<u8>, room: Option<&mut Room>) -> Bytes {
    match room {
        Some(room) => room.hold(piece),
        None => piece.into(),
    }
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
    use crate::query::body::PIECE_BYTES;
    use crate::query::router::QueryLimits;

    #[tokio::test]
    async fn a_body_arrives_whole_whatever_its_length() {
        for count in [0, 1, 2, 10] {
            let pieces: Vec<Vec<u8>> = (0..count).map(|number| vec![number; PIECE_BYTES - 7]).collect();
            let body = body(pieces.clone(), None);
            assert_eq!(http_body::Body::size_hint(&body).exact(), Some(pieces.concat().len() as u64));
            assert_eq!(body.collect().await.unwrap().to_bytes(), pieces.concat());
        }
    }

    #[tokio::test]
    async fn an_answer_that_nobody_reads_gives_its_room_back_and_is_counted() {
        let admission = Admission::new(&QueryLimits::default());
        let all = admission.room_left();
        let room = admission.room_for(10 * PIECE_BYTES).await.unwrap();
        let unread = body_within(vec![vec![0; PIECE_BYTES]; 10], Some(room), Duration::from_millis(1));
        while admission.left_unread() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // But for what is on its way.
        let on_its_way = PIECES_MAX * PIECE_BYTES / 1024;
        while admission.room_left() < all - on_its_way {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(unread.collect().await.is_err());
        assert_eq!((admission.left_unread(), admission.room_left()), (1, all));
    }

    #[tokio::test]
    async fn a_small_answer_takes_room_until_it_has_left_too() {
        let admission = Admission::new(&QueryLimits::default());
        let all = admission.room_left();
        let body = body(vec![vec![0; 2048]], admission.room_for(2048).await.ok());
        assert_eq!(admission.room_left(), all - 2);
        let bytes = body.collect().await.unwrap().to_bytes();
        assert_eq!(admission.room_left(), all - 2);
        drop(bytes);
        assert_eq!(admission.room_left(), all);
    }
}
