//! Who may come in: the authenticators that extensions configure and receivers name.
//!
//! In: the headers of a request. Out: what is known of the client, or why it is not let in. The other side, the
//! credentials that exporters send along, reads the same settings.
//!
//! Invariants: no secret is kept that a digest of it can stand for; a comparison takes as long whatever it compares; the
//! costly check of a password is made once for each that is right, and never for more clients at once than
//! [`basic::CHECKS_MAX`].

mod address_range;
pub mod basic;
pub mod bearer;
mod htpasswd;

pub use address_range::{AddressRange, RangeError};

use crate::process::ClientMetadata;
use http::HeaderMap;
use ring::digest::{SHA256, digest};
use std::path::PathBuf;
use std::sync::Arc;
use thiserror::Error;

/// Lets clients in.
pub enum Authenticator {
    Basic(basic::Users),
    Bearer(bearer::Tokens),
}

/// A client is not let in. The text never tells what would have been right.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Denied {
    #[error("missing header {0}")]
    Missing(String),
    #[error("{0}")]
    Wrong(&'static str),
    /// Not a matter of the client: it may try again.
    #[error("too many passwords are being checked")]
    Busy,
}

/// An authenticator could not be made.
#[derive(Debug, Error)]
pub enum AuthError {
    #[error("cannot read {}: {problem}", path.display())]
    File { path: PathBuf, problem: std::io::Error },
    #[error("{place}, line {line}: {problem}")]
    Htpasswd { place: String, line: usize, problem: &'static str },
    #[error("{} holds no token", .0.display())]
    NoToken(PathBuf),
}

impl Authenticator {
    /// What is known of the client whose request has these headers.
    pub async fn authenticate(self: &Arc<Self>, headers: &HeaderMap) -> Result<ClientMetadata, Denied> {
        match &**self {
            Self::Basic(users) => users.authenticate(headers).await,
            Self::Bearer(tokens) => tokens.authenticate(headers),
        }
    }

    /// What a client that was not let in is asked for (`WWW-Authenticate`).
    pub fn challenge(&self) -> &'static str {
        match self {
            Self::Basic(_) => "Basic realm=\"spanreel\"",
            Self::Bearer(_) => "Bearer",
        }
    }
}

/// What stands for a secret where it is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Digest([u8; 32]);

impl Digest {
    fn of(secret: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, secret).as_ref());
        Self(bytes)
    }
}
