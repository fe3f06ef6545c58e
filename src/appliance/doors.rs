//! The open ports of receivers, whoever's configuration asked for them.
//!
//! A port changes hands without being closed: what stands behind it is exchanged, its connections stay. A change is
//! prepared first (ports bound, certificates read), which can fail and disturbs nobody, and carried out then.

use crate::cluster::ListenerPort;
use crate::receive::accept::Address;
use crate::receive::listener::{Behind, DoorChange, Transport};
use crate::receive::settings::ServerTlsSettings;
use crate::receive::{Door, Endpoint, ListenError, Listener};
use futures_util::future::join_all;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Whose port it is: a custom resource's (`namespace/name`), or the process's own configuration's.
pub(super) type Holder = Option<String>;

/// A port as configured, and what is to stand behind it.
#[derive(Clone)]
pub(super) struct Wanted {
    /// `grpc`, `http`, ..., as configured; both are spoken on each. Empty where the receiver has but one port.
    pub protocol: &'static str,
    pub endpoint: Endpoint,
    pub behind: Behind,
}

/// An open port, for status.
#[derive(Debug, Clone)]
pub(super) struct Listening {
    pub receiver: String,
    pub protocol: &'static str,
    pub udp: bool,
    pub address: Address,
    /// `None`: in the clear.
    pub tls: Option<Arc<ServerTlsSettings>>,
}

#[derive(Default)]
pub(super) struct Doors {
    open: Vec<Open>,
    /// Of the next door.
    next_id: u64,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

struct Open {
    id: u64,
    holder: Holder,
    wanted: Wanted,
    address: Address,
    door: Arc<Door>,
    /// Cancelled to close this port alone; `ended` is cancelled once it is closed and its connections have ended.
    stop: CancellationToken,
    ended: CancellationToken,
}

/// A change that nothing stands in the way of, as far as can be known without closing a port.
pub(super) struct Prepared {
    holder: Holder,
    changed: Vec<(u64, DoorChange, Wanted)>,
    opened: Vec<(Listener, Wanted)>,
    /// Another address on a port that one's own listener is in the way of: that must close first.
    moved: Vec<Wanted>,
    in_the_way: BTreeSet<u64>,
}

impl Doors {
    /// What `holder` needs open; it may take over the doors of those for whom `takes` says so.
    pub async fn prepare(
        &self,
        holder: Holder,
        wanted: Vec<Wanted>,
        takes: impl Fn(Option<&str>) -> bool,
    ) -> Result<Prepared, ListenError> {
        let (changed, opened, moved) = (Vec::new(), Vec::new(), Vec::new());
        let mut prepared = Prepared { holder, changed, opened, moved, in_the_way: BTreeSet::new() };
        let available = || self.open.iter().filter(|open| takes(open.holder.as_deref()));
        let mut taken = BTreeSet::new();
        let mut others = Vec::new();
        for wanted in wanted {
            let address = &wanted.endpoint.address;
            // Port 0 is another port for everybody.
            let same = |open: &&Open| {
                open.wanted.endpoint.address == *address
                    && open.wanted.endpoint.transport == wanted.endpoint.transport
                    && (is_fixed(&wanted.endpoint) || open.holder == prepared.holder)
            };
            match available().filter(|open| !taken.contains(&open.id)).find(same) {
                Some(open) => {
                    taken.insert(open.id);
                    let change = Door::prepare(&wanted.endpoint, wanted.behind.clone())?;
                    prepared.changed.push((open.id, change, wanted));
                }
                None => others.push(wanted),
            }
        }
        for wanted in others {
            let name = wanted.endpoint.name();
            let before = prepared.in_the_way.len();
            let free = available().filter(|open| !taken.contains(&open.id));
            let in_the_way = free.filter(|open| overlap(&open.wanted.endpoint.name(), &name)).map(|open| open.id);
            prepared.in_the_way.extend(in_the_way);
            if prepared.in_the_way.len() > before {
                prepared.moved.push(wanted);
            } else {
                prepared.opened.push((Listener::bind(&wanted.endpoint).await?, wanted));
            }
        }
        Ok(prepared)
    }

    /// Carries out a change; doors of the same holder that it does not want any more drain and close. On an error
    /// everything is as before, but for connections to a port whose address was to change.
    pub async fn carry_out(&mut self, prepared: Prepared) -> Result<(), ListenError> {
        let Prepared { holder, changed, mut opened, moved, in_the_way } = prepared;
        let closed = self.close(|open| in_the_way.contains(&open.id)).await;
        for wanted in moved {
            match Listener::bind(&wanted.endpoint).await {
                Ok(listener) => opened.push((listener, wanted)),
                Err(error) => {
                    drop(opened);
                    self.open_again(closed).await;
                    return Err(error);
                }
            }
        }
        let mut current = BTreeSet::new();
        for (id, change, wanted) in changed {
            current.insert(id);
            self.hand_over(id, change, holder.clone(), wanted);
        }
        for (listener, wanted) in opened {
            current.insert(self.serve(holder.clone(), wanted, listener));
        }
        self.close(|open| open.holder == holder && !current.contains(&open.id)).await;
        Ok(())
    }

    async fn open_again(&mut self, closed: Vec<Open>) {
        for open in closed {
            match Listener::bind(&open.wanted.endpoint).await {
                Ok(listener) => {
                    self.serve(open.holder, open.wanted, listener);
                }
                Err(error) => tracing::error!(%error, "a port could not be taken back after a change that failed"),
            }
        }
    }

    fn hand_over(&mut self, id: u64, change: DoorChange, holder: Holder, wanted: Wanted) {
        if let Some(open) = self.open.iter_mut().find(|open| open.id == id) {
            open.door.change(change, open.wanted.endpoint.tls == wanted.endpoint.tls);
            (open.holder, open.wanted) = (holder, wanted);
        }
    }

    fn serve(&mut self, holder: Holder, wanted: Wanted, listener: Listener) -> u64 {
        let (stop, ended, address) =
            (self.shutdown.child_token(), CancellationToken::new(), listener.address().clone());
        let (door, serving) = listener.open(wanted.behind.clone(), stop.clone());
        let done = ended.clone();
        self.tasks.spawn(async move {
            serving.await;
            done.cancel();
        });
        let id = self.next_id;
        self.next_id += 1;
        self.open.push(Open { id, holder, wanted, address, door, stop, ended });
        id
    }

    async fn close(&mut self, which: impl Fn(&Open) -> bool) -> Vec<Open> {
        let (closed, kept): (Vec<Open>, Vec<Open>) = std::mem::take(&mut self.open).into_iter().partition(which);
        self.open = kept;
        closed.iter().for_each(|open| open.stop.cancel());
        join_all(closed.iter().map(|open| open.ended.cancelled())).await;
        closed
    }

    /// No new requests for `owner`, requests under way are answered. A port that `heirs` want too goes to the process's
    /// own configuration, with its connections.
    pub async fn close_all_of(&mut self, owner: &str, heirs: &[Wanted]) {
        let of_owner = |open: &Open| open.holder.as_deref() == Some(owner);
        for heir in heirs {
            let same = |open: &&Open| of_owner(open) && open.wanted.endpoint.name() == heir.endpoint.name();
            let Some(id) = self.open.iter().find(same).map(|open| open.id) else { continue };
            match Door::prepare(&heir.endpoint, heir.behind.clone()) {
                Ok(change) => self.hand_over(id, change, None, heir.clone()),
                Err(error) => tracing::error!(%error, "a port that was lent could not be taken back"),
            }
        }
        self.close(of_owner).await;
    }

    /// The process's own configuration listens again where nobody else does.
    pub async fn take_back(&mut self, wanted: &[Wanted]) {
        for wanted in wanted {
            let name = wanted.endpoint.name();
            if self.open.iter().any(|open| overlap(&open.wanted.endpoint.name(), &name)) || !is_fixed(&wanted.endpoint)
            {
                continue;
            }
            match Listener::bind(&wanted.endpoint).await {
                Ok(listener) => {
                    self.serve(None, wanted.clone(), listener);
                }
                Err(error) => tracing::error!(%error, "a port that was lent could not be taken back"),
            }
        }
    }

    /// Everything closes; requests under way are answered.
    pub async fn stop(&mut self) {
        self.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.open.clear();
    }

    pub fn listening(&self) -> impl Iterator<Item = (Holder, Listening)> {
        self.open.iter().map(|open| {
            let Wanted { protocol, behind, endpoint } = &open.wanted;
            let udp = matches!(endpoint.transport, Transport::Udp(_));
            let tls = endpoint.tls.clone().map(Arc::new);
            let receiver = behind.receiver.name.clone();
            let listening = Listening { receiver, protocol, udp, address: open.address.clone(), tls };
            (open.holder.clone(), listening)
        })
    }

    /// The ports of a custom resource as Services name them.
    pub fn service_ports(&self, owner: &str) -> Vec<ListenerPort> {
        let of_owner = self.listening().filter(|(holder, _)| holder.as_deref() == Some(owner));
        let mut ports: Vec<ListenerPort> = of_owner
            .filter_map(|(_, listening)| {
                // A socket in the file system is reached by no Service.
                let port = listening.address.port()?;
                let parts = [listening.receiver.as_str(), listening.protocol];
                let name = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-");
                let app_protocol = match listening.protocol {
                    _ if listening.udp => None,
                    "grpc" => Some("grpc"),
                    _ => Some("http"),
                };
                Some(ListenerPort {
                    name: name.replace(['/', '_'], "-"),
                    port,
                    udp: listening.udp,
                    app_protocol: app_protocol.map(str::to_owned),
                })
            })
            .collect();
        ports.sort_by(|a, b| (&a.name, a.port).cmp(&(&b.name, b.port)));
        ports
    }
}

/// Whether a configured address is the same one each time, which port 0 is not.
fn is_fixed(endpoint: &Endpoint) -> bool {
    endpoint.transport == Transport::Unix || port_of(&endpoint.address).is_some()
}

/// `None` for port 0, which is another one each time, and for a path.
fn port_of(address: &str) -> Option<u16> {
    address.rsplit(':').next()?.parse().ok().filter(|port| *port != 0)
}

/// Whether two configured addresses ([`Endpoint::name`]) cannot be listened on at once. A name of a host may be any address.
pub(super) fn overlap(a: &str, b: &str) -> bool {
    const UDP: &str = "udp ";
    const UNIX: &str = "unix ";
    if a.starts_with(UNIX) || b.starts_with(UNIX) {
        return a == b;
    }
    match (a.strip_prefix(UDP), b.strip_prefix(UDP)) {
        (Some(a), Some(b)) => return overlap(a, b),
        (None, None) => {}
        _ => return false,
    }
    let host = |address: &str| -> Option<IpAddr> {
        let (host, _) = address.rsplit_once(':')?;
        host.trim_start_matches('[').trim_end_matches(']').parse().ok()
    };
    if port_of(a).is_none() || port_of(a) != port_of(b) {
        return false;
    }
    match (host(a), host(b)) {
        (Some(a), Some(b)) if a == b => true,
        // `[::]` takes IPv4 as well.
        (Some(a), Some(b)) => {
            let takes = |any: IpAddr, other: IpAddr| any.is_unspecified() && (any.is_ipv6() || other.is_ipv4());
            takes(a, b) || takes(b, a)
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::overlap;

    #[test]
    fn addresses_overlap_where_one_socket_would_be_refused() {
        for (a, b, expected) in [
            ("0.0.0.0:4317", "127.0.0.1:4317", true),
            ("127.0.0.1:4317", "127.0.0.1:4317", true),
            ("127.0.0.1:4317", "127.0.0.2:4317", false),
            ("127.0.0.1:4317", "127.0.0.1:4318", false),
            ("0.0.0.0:4317", "[::1]:4317", false),
            ("[::]:4317", "127.0.0.1:4317", true),
            ("[::]:4317", "[::1]:4317", true),
            ("localhost:4317", "127.0.0.2:4317", true),
            ("0.0.0.0:0", "0.0.0.0:0", false),
            ("unix /run/a.sock", "unix /run/a.sock", true),
            ("unix /run/a.sock", "unix /run/b.sock", false),
            ("unix /run/a.sock", "127.0.0.1:4317", false),
            ("udp 0.0.0.0:6831", "127.0.0.1:6831", false),
            ("udp 0.0.0.0:6831", "udp 127.0.0.1:6831", true),
        ] {
            assert_eq!(overlap(a, b), expected, "{a} {b}");
            assert_eq!(overlap(b, a), expected, "{b} {a}");
        }
    }
}
