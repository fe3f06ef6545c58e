//! The body of a streaming answer: messages as they come, then trailers.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::frame::{self, Messages};
use super::status::Status;
use crate::query::admission::Room;
use crate::query::error::QueryError;
use crate::query::paced::READ_WAIT_MAX;

/// Messages on their way to a client; more wait where they are made, or are left out.
const UNDER_WAY_MAX: usize = 2;

/// Where messages are sent while a query runs.
#[derive(Debug, Clone)]
pub struct Sender(mpsc::Sender<Part>);

#[derive(Debug)]
enum Part {
    Message(Bytes),
    End(HeaderMap),
}

/// Ends its task when it is dropped: a client that leaves does not leave its query behind.
struct Stream {
    parts: mpsc::Receiver<Part>,
    task: AbortHandle,
    ended: bool,
}

impl Sender {
    /// Whether a message would be taken at once.
    pub fn is_free(&self) -> bool {
        self.0.capacity() > 0
    }

    /// Sends a message unless the client is still reading earlier ones; `false`: it was not sent.
    pub fn try_send(&self, message: &[u8]) -> bool {
        match self.0.try_reserve() {
            Ok(place) => {
                place.send(Part::Message(frame::frame(message)));
                true
            }
            Err(_) => false,
        }
    }
}

/// Runs a query in a task of its own and streams what it sends, then its last messages, then how it ended.
pub fn answer<F>(run: impl FnOnce(Sender) -> F + Send + 'static) -> Body
where
    F: Future<Output = Result<Messages, QueryError>> + Send + 'static,
{
    let (sender, parts) = mpsc::channel(UNDER_WAY_MAX);
    let task = tokio::spawn(async move {
        let trailers = match run(Sender(sender.clone())).await {
            Ok(messages) => {
                let mut trailers = Status::ok().headers();
                messages.put_trailers(&mut trailers);
                let (frames, room) = messages.into_frames();
                for frame in frames {
                    match timeout(READ_WAIT_MAX, sender.send(Part::Message(frame))).await {
                        Ok(Ok(())) => {}
                        Ok(Err(_)) => return,
                        // The stream ends without a status, which clients take for a failure.
                        Err(_) => {
                            room.iter().for_each(Room::was_left_unread);
                            return;
                        }
                    }
                }
                trailers
            }
            Err(error) => Status::from(error).headers(),
        };
        // Only a client that has left does not take it.
        let _ = timeout(READ_WAIT_MAX, sender.send(Part::End(trailers))).await;
    });
    Body::new(Stream { parts, task: task.abort_handle(), ended: false })
}

/// One message and success.
pub fn unary(message: Vec<u8>) -> Body {
    answer(move |_| async move { Messages::new(vec![message]) })
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
        let part = std::task::ready!(self.parts.poll_recv(context));
        Poll::Ready(part.map(|part| {
            Ok(match part {
                Part::Message(frame) => Frame::data(frame),
                Part::End(trailers) => {
                    self.ended = true;
                    Frame::trailers(trailers)
                }
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}
