//! The body of a streaming answer: messages as they come, then trailers.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use tokio::sync::mpsc;

use super::frame::{self, Messages};
use super::status::Status;
use crate::query::admission::{Admission, Room};
use crate::query::error::QueryError;
use crate::query::paced::{Hangup, Outstanding, Unread};

/// Messages that wait for a client to read the ones before; more wait where they are made, or are left out.
const WAITING_MAX: usize = 1;

/// Where messages are sent while a query runs.
#[derive(Debug, Clone)]
pub struct Sender {
    parts: mpsc::Sender<Part>,
    admission: Arc<Admission>,
    outstanding: Outstanding,
}

#[derive(Debug)]
enum Part {
    /// In pieces, each with the room that it takes.
    Message(VecDeque<Bytes>),
    End(HeaderMap),
}

/// Its task ends when it is dropped: a client that leaves does not leave its query behind.
struct Stream {
    parts: mpsc::Receiver<Part>,
    /// Of the message that is under way.
    pieces: VecDeque<Bytes>,
    ended: bool,
}

impl Sender {
    /// Whether a message would be taken at once.
    pub fn is_free(&self) -> bool {
        self.parts.capacity() > 0
    }

    /// Sends a message unless the client is still reading earlier ones, or answers have no room; `false`: it was not sent.
    pub fn try_send(&self, message: &[u8]) -> bool {
        match (self.parts.try_reserve(), self.admission.room_now(message.len())) {
            (Ok(place), Some(room)) => {
                let mut room = room.counted_with(&self.outstanding);
                place.send(Part::Message(pieces(message, Some(&mut room))));
                true
            }
            _ => false,
        }
    }
}

fn pieces(message: &[u8], mut room: Option<&mut Room>) -> VecDeque<Bytes> {
    let held = |piece| match &mut room {
        Some(room) => room.hold(piece),
        None => piece.into(),
    };
    frame::frame(message).map(held).collect()
}

/// Runs a query in a task of its own and streams what it sends, then its last messages, then how it ended.
pub fn answer<F>(admission: &Arc<Admission>, run: impl FnOnce(Sender) -> F + Send + 'static) -> (Body, Hangup)
where
    F: Future<Output = Result<Messages, QueryError>> + Send + 'static,
{
    let (parts, receiver) = mpsc::channel(WAITING_MAX);
    let (outstanding, wait_max) = (Outstanding::default(), admission.read_wait_max());
    let sender = Sender { parts: parts.clone(), admission: Arc::clone(admission), outstanding: outstanding.clone() };
    let hangup = Hangup::default();
    let ending = hangup.clone();
    tokio::spawn(async move {
        let told = tokio::select! {
            told = tell(run(sender), &parts, &outstanding, wait_max) => told,
            () = parts.closed() => Ok(()),
        };
        // What has no status at its end clients take for a failure.
        drop(parts);
        if told.is_err() || outstanding.all_taken(wait_max).await.is_err() {
            ending.now();
        }
    });
    (Body::new(Stream { parts: receiver, pieces: VecDeque::new(), ended: false }), hangup)
}

async fn tell(
    running: impl Future<Output = Result<Messages, QueryError>>,
    parts: &mpsc::Sender<Part>,
    outstanding: &Outstanding,
    wait_max: Duration,
) -> Result<(), Unread> {
    let trailers = match running.await {
        Ok(messages) => {
            let mut trailers = Status::ok().headers();
            messages.put_trailers(&mut trailers);
            let (messages, room) = messages.into_parts();
            let mut room = room.map(|room| room.counted_with(outstanding));
            for message in messages {
                // Its place first: what has none is not copied into pieces yet.
                let place = outstanding.patiently(wait_max, parts.reserve()).await;
                let place = place.inspect_err(|Unread| room.iter().for_each(Room::was_left_unread))?;
                match place {
                    Ok(place) => place.send(Part::Message(pieces(&message, room.as_mut()))),
                    // The client left.
                    Err(_) => return Ok(()),
                }
            }
            trailers
        }
        Err(error) => Status::from(error).headers(),
    };
    // Only a client that has left does not take it.
    outstanding.patiently(wait_max, parts.send(Part::End(trailers))).await.map(|_| ())
}

/// One message and success.
pub fn unary(admission: &Arc<Admission>, message: Vec<u8>) -> (Body, Hangup) {
    answer(admission, move |_| async move { Ok(Messages::new(vec![message])) })
}

impl http_body::Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            match std::task::ready!(self.parts.poll_recv(context)) {
                Some(Part::Message(pieces)) => self.pieces = pieces,
                Some(Part::End(trailers)) => {
                    self.ended = true;
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                None => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::query::body::PIECE_BYTES;
    use crate::query::router::QueryLimits;

    #[tokio::test]
    async fn what_a_client_has_not_read_takes_room_until_it_has() {
        let admission = Arc::new(Admission::new(&QueryLimits::default()));
        let all = admission.room_left();
        let (began, mut begun) = mpsc::channel(1);
        let (mut body, _) = answer(&admission, move |sender| async move {
            assert!(sender.try_send(&[7; 2 * PIECE_BYTES]));
            // One waits already.
            assert!(!sender.is_free() && !sender.try_send(&[7]));
            began.send(()).await.unwrap();
            Ok(Messages::new(Vec::new()))
        });
        begun.recv().await.unwrap();
        assert_eq!(admission.room_left(), all - 2 * PIECE_BYTES / 1024);
        let first = body.frame().await.unwrap().unwrap();
        assert_eq!(first.data_ref().unwrap().len(), PIECE_BYTES);
        assert_eq!(admission.room_left(), all - 2 * PIECE_BYTES / 1024, "it has not left yet");
        drop(first);
        assert!(admission.room_left() > all - 2 * PIECE_BYTES / 1024);
        drop(body);
        assert_eq!(admission.room_left(), all);
    }

    #[tokio::test]
    async fn progress_is_left_out_while_answers_have_no_room() {
        let admission = Arc::new(Admission::new(&QueryLimits::default()));
        let _all = admission.room_for(usize::MAX).await.unwrap();
        let (body, _) = answer(&admission, |sender| async move {
            assert!(!sender.try_send(&[7; 10]));
            Ok(Messages::new(Vec::new()))
        });
        assert!(body.collect().await.unwrap().trailers().is_some());
    }
}
