//! HTTP/2 connections to a destination, opened when needed: one, or one to each address of its name, used in turn.

use super::client::{CallError, describe};
use super::settings::Balancer;
use crate::forward::body::Segments;
use crate::forward::breaks::{Breaks, Life};
use crate::forward::connect::{ConnectError, Connector, Stream};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

/// A connection on which a request waits for so long without a byte is asked whether it still lives. Rarely: grpc-go
/// closes connections that ask more than twice in five minutes without getting an answer in between.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Addresses of one name that are sent to; further ones are left out.
const ADDRESSES_MAX: usize = 16;

/// How often a name is looked up, as gRPC's own resolver does at most.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(30);

/// An address that refused a connection is passed over for so long, unless all have.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);

pub(super) struct Connections {
    connector: Connector,
    balancer: Balancer,
    pool: Mutex<Pool>,
    /// Held while the one connection of [`Balancer::PickFirst`] is opened.
    dialing: Mutex<()>,
    pub(super) breaks: Arc<Breaks>,
}

#[derive(Default)]
struct Pool {
    open: Vec<Connection>,
    /// Numbers connections, from 1.
    opened: u64,
    /// What the name was when it was last looked up.
    addresses: Vec<Address>,
    looked_up: Option<Instant>,
    /// Whose turn it is, among `addresses`.
    next: usize,
}

struct Address {
    address: SocketAddr,
    refused: Option<Instant>,
}

/// Cloning gives another handle.
#[derive(Clone)]
pub(super) struct Connection {
    /// 0 before it is kept.
    number: u64,
    /// `None`: whichever of the name's took it.
    address: Option<SocketAddr>,
    pub(super) sender: SendRequest<Segments>,
    pub(super) life: Arc<Life>,
}

/// Which connection an exchange uses; it may be given up while it waits.
#[derive(Default)]
pub(super) struct Used(AtomicU64);

impl Connections {
    pub(super) fn new(connector: Connector, balancer: Balancer) -> Self {
        // Behind a proxy or a socket there are no addresses that could be told apart.
        let balancer = if connector.is_elsewhere() { Balancer::PickFirst } else { balancer };
        Self { connector, balancer, pool: Mutex::default(), dialing: Mutex::default(), breaks: Arc::default() }
    }

    /// An open connection, or a new one. The flag says whether it was open before.
    pub(super) async fn get(&self, used: &Used) -> Result<(Connection, bool), CallError> {
        if self.balancer == Balancer::RoundRobin {
            self.look_up().await?;
        }
        let mut pool = self.pool.lock().await;
        pool.open.retain(|connection| {
            let is_closed = connection.sender.is_closed();
            if is_closed {
                // Its own task may come to it only after the next answer.
                self.breaks.ended(&connection.life);
            }
            !is_closed
        });
        let (connection, is_reused) = match self.balancer {
            Balancer::PickFirst => match pool.open.first() {
                Some(open) => (open.clone(), true),
                None => {
                    drop(pool);
                    self.dial().await?
                }
            },
            Balancer::RoundRobin => self.next(pool).await?,
        };
        used.0.store(connection.number, Ordering::Relaxed);
        Ok((connection, is_reused))
    }

    /// One connection, for all who wait for one.
    async fn dial(&self) -> Result<(Connection, bool), CallError> {
        let _dialing = self.dialing.lock().await;
        if let Some(open) = self.pool.lock().await.open.first() {
            return Ok((open.clone(), true));
        }
        let stream = self.connector.connect().await.map_err(CallError::Connect)?;
        let connection = self.open(None, stream).await?;
        Ok((self.pool.lock().await.keep(connection), false))
    }

    /// Later calls do not use the connection of this one: they open another, to whatever addresses the name has then.
    pub(super) async fn forget(&self, used: &Used) {
        let number = used.0.swap(0, Ordering::Relaxed);
        let mut pool = self.pool.lock().await;
        if let Some(at) = pool.open.iter().position(|connection| connection.number == number) {
            let gone = pool.open.swap_remove(at);
            self.breaks.ended(&gone.life);
            pool.looked_up = None;
        }
    }

    /// To the address whose turn it is, or the next one that takes a connection.
    async fn next<'a>(&'a self, mut pool: MutexGuard<'a, Pool>) -> Result<(Connection, bool), CallError> {
        let mut last = None;
        for address in pool.turns() {
            pool.took_turn(address);
            if let Some(open) = pool.open_to(address) {
                return Ok((open, true));
            }
            // It counts as refusing until it has answered: others do not wait for it, and go elsewhere.
            pool.refuses(address, true);
            drop(pool);
            let opened = match self.connector.connect_to(address).await {
                Ok(stream) => self.open(Some(address), stream).await,
                Err(error) => Err(CallError::Connect(error)),
            };
            pool = self.pool.lock().await;
            pool.refuses(address, opened.is_err());
            match opened {
                Ok(connection) => return Ok((pool.keep(connection), false)),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| {
            let (target, problem) = (self.connector.target().to_string(), "the name has no address".to_owned());
            CallError::Connect(ConnectError::Unreachable { target, problem })
        }))
    }

    /// Takes up what the name is now, if it is time. If that cannot be had, and there is something from before, that
    /// holds on; meanwhile others go by it.
    async fn look_up(&self) -> Result<(), CallError> {
        let mut pool = self.pool.lock().await;
        let is_due = pool.looked_up.is_none_or(|looked_up| looked_up.elapsed() >= LOOKUP_INTERVAL);
        if !is_due && !pool.addresses.is_empty() {
            return Ok(());
        }
        pool.looked_up = Some(Instant::now());
        drop(pool);
        let found = self.connector.addresses().await;
        let mut pool = self.pool.lock().await;
        match found {
            Ok(found) if !found.is_empty() => pool.take_addresses(found),
            Err(error) if pool.addresses.is_empty() => return Err(CallError::Connect(error)),
            _ => {}
        }
        Ok(())
    }

    async fn open(&self, address: Option<SocketAddr>, stream: Box<dyn Stream>) -> Result<Connection, CallError> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).keep_alive_interval(KEEPALIVE_INTERVAL).keep_alive_timeout(KEEPALIVE_TIMEOUT);
        let (sender, driver) = builder
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| CallError::Broken { why: describe(&error), is_reused: false })?;
        let life = self.breaks.follow(driver);
        Ok(Connection { number: 0, address, sender, life })
    }
}

impl Pool {
    /// The addresses, from the one whose turn it is. Those that refused come last: they are only tried if no other is left.
    fn turns(&self) -> Vec<SocketAddr> {
        let (before, from) = self.addresses.split_at(self.next.min(self.addresses.len()));
        let is_refusing = |it: &&Address| it.refused.is_some_and(|refused| refused.elapsed() < REFUSED_PAUSE);
        let (refusing, willing): (Vec<_>, Vec<_>) = from.iter().chain(before).partition(is_refusing);
        willing.into_iter().chain(refusing).map(|it| it.address).collect()
    }

    fn took_turn(&mut self, address: SocketAddr) {
        if let Some(at) = self.addresses.iter().position(|known| known.address == address) {
            self.next = (at + 1) % self.addresses.len();
        }
    }

    fn refuses(&mut self, address: SocketAddr, is_refusing: bool) {
        if let Some(known) = self.addresses.iter_mut().find(|known| known.address == address) {
            known.refused = is_refusing.then(Instant::now);
        }
    }

    fn open_to(&self, address: SocketAddr) -> Option<Connection> {
        self.open.iter().find(|connection| connection.address == Some(address)).cloned()
    }

    /// Numbers a new connection and keeps it; if another one to its address was opened meanwhile, that is the one.
    fn keep(&mut self, connection: Connection) -> Connection {
        if let Some(open) = connection.address.and_then(|address| self.open_to(address)) {
            return open;
        }
        self.opened += 1;
        let connection = Connection { number: self.opened, ..connection };
        self.open.push(connection.clone());
        connection
    }

    /// Connections to addresses that are gone end with what is under way on them.
    fn take_addresses(&mut self, found: Vec<SocketAddr>) {
        let mut addresses: Vec<Address> = Vec::new();
        for address in found {
            if addresses.len() < ADDRESSES_MAX && !addresses.iter().any(|known| known.address == address) {
                let known = self.addresses.iter().find(|known| known.address == address);
                addresses.push(Address { address, refused: known.and_then(|known| known.refused) });
            }
        }
        for connection in &self.open {
            if !addresses.iter().any(|known| Some(known.address) == connection.address) {
                connection.life.ends_in_order();
            }
        }
        self.open.retain(|open| addresses.iter().any(|known| Some(known.address) == open.address));
        // The resolver's order changes from call to call; the turns go on through all of them.
        addresses.sort_unstable_by_key(|known| known.address);
        self.addresses = addresses;
        self.next %= self.addresses.len().max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::connect::Target;
    use hyper::service::service_fn;
    use hyper_util::server::conn::auto;
    use std::convert::Infallible;
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    /// Speaks HTTP/2 to whoever comes.
    async fn server() -> (SocketAddr, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                open.spawn(async move {
                    let service = service_fn(|_| async {
                        Ok::<_, Infallible>(http::Response::new(http_body_util::Empty::<bytes::Bytes>::new()))
                    });
                    let server = auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        (address, task)
    }

    fn connections(balancer: Balancer, port: u16) -> Connections {
        let target = Target { host: "127.0.0.1".to_owned(), port };
        Connections::new(Connector::new(target, None, b"h2").unwrap(), balancer)
    }

    /// As if the name had these addresses.
    async fn resolved(connections: &Connections, addresses: &[SocketAddr]) {
        let mut pool = connections.pool.lock().await;
        pool.take_addresses(addresses.to_vec());
        pool.looked_up = Some(Instant::now());
    }

    async fn turns(connections: &Connections, count: usize) -> Vec<SocketAddr> {
        let mut turns = Vec::new();
        for _ in 0..count {
            let Ok((connection, _)) = connections.get(&Used::default()).await else { panic!("no connection") };
            turns.push(connection.address.unwrap());
        }
        turns
    }

    #[tokio::test]
    async fn addresses_take_turns_and_one_that_refuses_is_passed_over() {
        let ((one, first), (other, second)) = (server().await, server().await);
        let (one, other) = (one.min(other), one.max(other));
        let connections = connections(Balancer::RoundRobin, one.port());
        resolved(&connections, &[other, one, other]).await;
        assert_eq!(turns(&connections, 4).await, [one, other, one, other]);
        assert_eq!(connections.pool.lock().await.opened, 2, "a connection each");

        // A port that nobody listens on any more.
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        resolved(&connections, &[one, closed]).await;
        assert_eq!(turns(&connections, 3).await, [one; 3]);
        assert_eq!(connections.pool.lock().await.open.len(), 1, "what the name has no more is given up");

        // When all refuse, each is tried again at once: the pauses between tries are the gate's.
        first.abort();
        second.abort();
        let _ = (first.await, second.await);
        connections.pool.lock().await.open.clear();
        resolved(&connections, &[closed]).await;
        for _ in 0..2 {
            let refused = connections.get(&Used::default()).await;
            assert!(matches!(refused, Err(CallError::Connect(ConnectError::Unreachable { .. }))));
        }
    }

    #[tokio::test]
    async fn a_unix_socket_is_one_address() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tempo.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let accepted = tokio::spawn(async move { listener.accept().await.unwrap() });
        let target = Target { host: "localhost".to_owned(), port: 4317 };
        let connector = Connector::new(target, None, b"h2").unwrap().at_socket(Some(path.clone()));
        let connections = Connections::new(connector, Balancer::RoundRobin);
        for expected in [(1, false), (1, true)] {
            let Ok((connection, is_reused)) = connections.get(&Used::default()).await else { panic!("no connection") };
            assert_eq!((connection.number, is_reused), expected);
        }
        drop(accepted.await.unwrap());
        // Nobody listens any more.
        std::fs::remove_file(&path).unwrap();
        let connector = Connector::new(Target { host: "localhost".to_owned(), port: 1 }, None, b"h2").unwrap();
        let gone = Connections::new(connector.at_socket(Some(path.clone())), Balancer::RoundRobin);
        let Err(CallError::Connect(error)) = gone.get(&Used::default()).await else { panic!("a connection") };
        assert!(error.to_string().contains("tempo.sock"), "{error}");
    }

    #[tokio::test]
    async fn pick_first_stays_with_one_connection() {
        let (address, _server) = server().await;
        let connections = connections(Balancer::PickFirst, address.port());
        let mut numbers = Vec::new();
        for _ in 0..3 {
            let Ok((connection, is_reused)) = connections.get(&Used::default()).await else { panic!("no connection") };
            numbers.push((connection.number, is_reused));
        }
        assert_eq!(numbers, [(1, false), (1, true), (1, true)]);
    }
}
