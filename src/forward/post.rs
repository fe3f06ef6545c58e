//! Finished bodies to one URL: for what is not in the spool.

use super::answer::Answer;
use super::body::{Body, Codec};
use super::headers::HeaderError;
use super::link::Transport;
use super::otlp_http::Client;
use super::otlp_http::settings::OtlpHttpSettings;
use super::settings::ClientTlsSettings;
use crate::otlp::Signal;
use bytes::Bytes;
use std::time::Duration;

/// Sends POSTs of protobuf in a block of snappy, on kept connections.
pub struct Poster(Client);

/// What became of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Posted {
    Taken,
    /// It may be sent again, at once or when the server says.
    Again {
        after: Option<Duration>,
        why: String,
    },
    /// It would be refused again.
    Refused {
        why: String,
    },
}

impl Poster {
    /// # Errors
    /// If the URL, a header, or a file that TLS needs is not usable.
    pub fn new(
        url: &str,
        headers: Vec<(String, String)>,
        tls: ClientTlsSettings,
        timeout: Duration,
    ) -> Result<Self, HeaderError> {
        let settings = OtlpHttpSettings::for_posts(url, headers, tls, timeout);
        Client::new(&settings, Signal::Metrics, None).map(Self)
    }

    pub async fn post(&self, body: Bytes) -> Posted {
        let body = Body::of_block(body, Codec::Snappy);
        match self.0.send(body).await.answer {
            Answer::Delivered { .. } => Posted::Taken,
            Answer::Retry { after, why } | Answer::Limited { after, why } => Posted::Again { after, why },
            // Credentials, certificates, a path: a person changes them, and the body is as good as before.
            Answer::Misconfigured { why } | Answer::Internal { why } => Posted::Again { after: None, why },
            Answer::TooLarge { why } | Answer::Refused { why } | Answer::CompressionRefused { why } => {
                Posted::Refused { why }
            }
        }
    }
}
