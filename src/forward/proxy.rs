//! The way through an HTTP proxy: `proxy_url`, or the environment as Go reads it.
//!
//! Every destination is reached by CONNECT, so that what is inside the tunnel is what it would be without a proxy. A
//! proxy that allows CONNECT to port 443 alone says so, and its words are shown.

use super::connect::Target;
use super::headers;
use crate::config::url::split_user;
use std::io;
use std::net::IpAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer to CONNECT with all its headers; what is longer is no proxy's.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// A proxy and who we are to it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Proxy {
    pub(super) address: Target,
    /// `Proxy-Authorization`, if the URL has a user.
    authorization: Option<String>,
}

/// The name and password are nobody's business.
impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Proxy {
    /// Reads `http://[user:password@]host:port`; without a scheme it is http, as in Go. `None`: no such URL.
    pub(super) fn parse(url: &str) -> Option<Self> {
        let rest = match url.split_once("://") {
            Some(("http", rest)) => rest,
            Some(_) => return None,
            None => url,
        };
        let (user, rest) = split_user(rest);
        let host = rest.split(['/', '?', '#']).next()?;
        Some(Self { address: Target::parse(host, Some(80))?, authorization: user.map(headers::basic) })
    }

    /// What the environment says for a destination: `HTTPS_PROXY` or `HTTP_PROXY` by whether TLS is spoken there, in
    /// capitals or not, unless `NO_PROXY` names it. An address of this machine is never asked for elsewhere.
    pub(super) fn of_environment(target: &Target, is_tls: bool, env: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let either = |upper: &str, lower: &str| env(upper).or_else(|| env(lower)).filter(|value| !value.is_empty());
        let url = match is_tls {
            true => either("HTTPS_PROXY", "https_proxy"),
            false => either("HTTP_PROXY", "http_proxy"),
        }?;
        let is_exempt = is_this_machine(&target.host)
            || either("NO_PROXY", "no_proxy").is_some_and(|list| list.split(',').any(|entry| exempts(entry, target)));
        if is_exempt { None } else { Self::parse(&url) }
    }

    /// Has the proxy open the way; from then on the stream is the destination's.
    pub(super) async fn open(&self, stream: &mut TcpStream, target: &Target) -> io::Result<()> {
        let authorization =
            self.authorization.as_ref().map(|value| format!("Proxy-Authorization: {value}\r\n")).unwrap_or_default();
        let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{authorization}\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut head = Vec::new();
        // Byte by byte: what follows the head belongs to the destination.
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() == HEAD_BYTES_MAX {
                return Err(io::Error::other(format!("proxy {}: the answer to CONNECT does not end", self.address)));
            }
            head.push(stream.read_u8().await?);
        }
        let line = String::from_utf8_lossy(&head);
        let line = line.lines().next().unwrap_or_default();
        match line.split_whitespace().nth(1) {
            Some("200") if line.starts_with("HTTP/1.") => Ok(()),
            _ => Err(io::Error::other(format!("proxy {}: CONNECT {target}: {line}", self.address))),
        }
    }
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// An entry of `NO_PROXY`: `*`, a name with everything below it, `.name` for what is below it alone, an address, or a
/// block of addresses; each perhaps with a port.
fn exempts(entry: &str, target: &Target) -> bool {
    let entry = entry.trim().to_ascii_lowercase();
    if entry == "*" {
        return true;
    }
    let host = target.host.to_ascii_lowercase();
    if let (Some((block, bits)), Ok(address)) = (entry.split_once('/'), host.parse::<IpAddr>()) {
        return block.parse().is_ok_and(|block| bits.parse().is_ok_and(|bits| is_within(address, block, bits)));
    }
    let (name, port) = match entry.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, port.parse::<u16>().ok()),
        _ => (entry.as_str(), None),
    };
    let name = name.trim_matches(['[', ']']);
    if name.is_empty() || port.is_some_and(|port| port != target.port) {
        return false;
    }
    match name.strip_prefix("*.").or_else(|| name.strip_prefix('.')) {
        Some(above) => host.strip_suffix(above).is_some_and(|below| below.ends_with('.')),
        None => host == name || host.strip_suffix(name).is_some_and(|below| below.ends_with('.')),
    }
}

fn is_within(address: IpAddr, block: IpAddr, bits: u32) -> bool {
    let same = |a: u128, b: u128, width: u32| bits <= width && (bits == 0 || (a ^ b) >> (width - bits) == 0);
    match (address, block) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn target(host: &str, port: u16) -> Target {
        Target { host: host.to_owned(), port }
    }

    #[test]
    fn urls() {
        let proxy = Proxy::parse("http://me:p%40ss@proxy.corp:3128/").unwrap();
        assert_eq!(proxy.address, target("proxy.corp", 3128));
        assert_eq!(proxy.authorization.as_deref(), Some("Basic bWU6cEBzcw=="));
        assert!(!format!("{proxy:?}").contains("bWU6"));
        assert_eq!(Proxy::parse("proxy").unwrap().address, target("proxy", 80));
        assert_eq!(Proxy::parse("socks5://proxy:1080"), None);
        assert_eq!(Proxy::parse("http://"), None);
    }

    #[test]
    fn the_environment_is_read_as_go_reads_it() {
        let env = |name: &str| match name {
            "HTTPS_PROXY" => Some("http://secure:1".to_owned()),
            "http_proxy" => Some("http://plain:2".to_owned()),
            "NO_PROXY" => Some("tempo.corp, .inside,10.0.0.0/8,other:4317, fd00::/8".to_owned()),
            _ => None,
        };
        let of =
            |host: &str, port, is_tls| Proxy::of_environment(&target(host, port), is_tls, env).map(|it| it.address);
        assert_eq!(of("far.example", 443, true), Some(target("secure", 1)));
        assert_eq!(of("far.example", 80, false), Some(target("plain", 2)));
        for exempt in ["tempo.corp", "a.TEMPO.corp", "x.inside", "10.1.2.3", "localhost", "127.0.0.2", "::1", "fd12::1"]
        {
            assert_eq!(of(exempt, 4317, true), None, "{exempt}");
        }
        assert_eq!(of("other", 4317, true), None);
        for asked in ["inside", "mytempo.corp", "11.0.0.1"] {
            assert!(of(asked, 4317, true).is_some(), "{asked}");
        }
        assert!(of("other", 4318, true).is_some());
    }

    #[tokio::test]
    async fn the_way_is_open_when_the_proxy_says_so() {
        for (answer, expected) in [
            ("HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\nhello", Ok(())),
            ("HTTP/1.1 403 Forbidden\r\n\r\n", Err("403 Forbidden")),
            ("garbage\r\n\r\n", Err("garbage")),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 1024];
                let read = stream.read(&mut request).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
                String::from_utf8_lossy(&request[..read]).into_owned()
            });
            let proxy = Proxy::parse(&format!("http://a:b@{address}")).unwrap();
            let mut stream = TcpStream::connect(address).await.unwrap();
            let opened = proxy.open(&mut stream, &target("tempo", 4317)).await;
            let request = server.await.unwrap();
            assert!(
                request.starts_with("CONNECT tempo:4317 HTTP/1.1\r\nHost: tempo:4317\r\nProxy-Authorization: Basic ")
            );
            match expected {
                Ok(()) => {
                    opened.unwrap();
                    let mut first = [0; 5];
                    stream.read_exact(&mut first).await.unwrap();
                    assert_eq!(&first, b"hello", "what follows is the destination's");
                }
                Err(words) => assert!(opened.unwrap_err().to_string().contains(words)),
            }
        }
    }
}
