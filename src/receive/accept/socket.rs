//! What a port listens with: TCP, or a socket in the file system.

use std::fmt;
use std::io::{Error, ErrorKind, Result};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::either::Either;

/// A client of either.
pub type Stream = Either<TcpStream, UnixStream>;

/// Who comes by a socket of this machine is of this machine.
const HERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

pub enum Socket {
    Tcp(TcpListener),
    Unix(UnixSocket),
}

/// A socket in the file system, which goes when nobody listens any more.
pub struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
}

/// Where clients reach a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Ip(SocketAddr),
    Path(PathBuf),
}

impl Address {
    /// `None`: a path has none.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Ip(address) => Some(address.port()),
            Self::Path(_) => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

impl UnixSocket {
    /// Takes the place of a socket that a process left behind which did not end in order.
    pub async fn bind(path: &Path) -> Result<Self> {
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && is_left_behind(path).await => {
                std::fs::remove_file(path)?;
                UnixListener::bind(path)?
            }
            bound => bound?,
        };
        Ok(Self { listener, path: path.to_owned() })
    }
}

/// Whether this is a socket on which nobody listens.
async fn is_left_behind(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let is_refused = |error: Error| error.kind() == ErrorKind::ConnectionRefused;
    is_socket && UnixStream::connect(path).await.is_err_and(is_refused)
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl From<TcpListener> for Socket {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl Socket {
    pub fn address(&self) -> Result<Address> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Address::Ip),
            Self::Unix(socket) => Ok(Address::Path(socket.path.clone())),
        }
    }

    /// The next client, and where it is.
    pub(super) async fn accept(&self) -> Result<(Stream, SocketAddr)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                let _ = stream.set_nodelay(true);
                Ok((Either::Left(stream), peer))
            }
            Self::Unix(socket) => {
                let (stream, _) = socket.listener.accept().await?;
                Ok((Either::Right(stream), HERE))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_was_left_behind_is_taken_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("otlp.sock");
        let first = UnixSocket::bind(&path).await.unwrap();
        assert_eq!(UnixSocket::bind(&path).await.map(|_| ()).unwrap_err().kind(), ErrorKind::AddrInUse);
        // As after kill -9: the file stays, nobody listens.
        let left = std::os::unix::net::UnixListener::bind(folder.path().join("left.sock")).unwrap();
        drop(left);
        let second = UnixSocket::bind(&folder.path().join("left.sock")).await.unwrap();
        UnixStream::connect(&second.path).await.unwrap();
        drop((first, second));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing stays");
        // What is no socket stays what it is.
        std::fs::write(&path, "a file").unwrap();
        assert!(UnixSocket::bind(&path).await.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"a file");
    }
}
