//! Jaeger's agent protocol: one call of `emitBatch` in each UDP packet.
//!
//! Nobody is told whether a packet arrived, so nobody sends it again: what cannot be taken is counted by its reason, what
//! the disk refuses is tried again for a while first, and what the kernel drops while nobody reads is counted as well.

use super::{Format, to_request};
use crate::process::Client;
use crate::receive::accept::Address;
use crate::receive::admission::Reservation;
use crate::receive::answer::Refusal;
use crate::receive::listener::{Door, Origin};
use crate::receive::thrift::Encoding;
use crate::receive::{Receiver, foreign, traces};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a packet that was refused for now is tried again.
const RETRY_MAX: Duration = Duration::from_secs(10);
/// How long packets under way may take to end after shutdown began.
const DRAIN_MAX: Duration = Duration::from_secs(3);
/// Pause after a failed read, so that the loop does not spin.
const READ_PAUSE: Duration = Duration::from_millis(100);
/// How often the kernel is asked what it dropped.
const DROPS_INTERVAL: Duration = Duration::from_secs(10);

/// How packets are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpSettings {
    pub encoding: Encoding,
    /// Packets that may be under way; more are dropped.
    pub queue_packets_max: usize,
    /// Longer packets are dropped.
    pub packet_bytes_max: usize,
    /// What the kernel keeps of packets that nobody has read yet; `None`: its default.
    pub socket_buffer_bytes: Option<usize>,
}

impl UdpSettings {
    /// The label `protocol`, as in a Collector.
    pub fn protocol(&self) -> &'static str {
        match self.encoding {
            Encoding::Compact => "udp_thrift_compact",
            Encoding::Binary => "udp_thrift_binary",
        }
    }
}

/// A bound socket.
pub async fn bind(address: &str, settings: UdpSettings) -> std::io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address).await?;
    if let Some(bytes) = settings.socket_buffer_bytes {
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, bytes)?;
    }
    Ok(socket)
}

/// Takes packets until `shutdown`; returns when those under way have ended, or had their time.
pub async fn serve(
    socket: UdpSocket,
    address: Address,
    settings: UdpSettings,
    door: Arc<Door>,
    shutdown: CancellationToken,
) {
    let packets = TaskTracker::new();
    let queue = Arc::new(Semaphore::new(settings.queue_packets_max));
    // A byte more than is taken shows that a packet is too long.
    let mut buffer = vec![0; settings.packet_bytes_max + 1];
    let port = address.port().unwrap_or(0);
    let mut drops = KernelDrops::of(port);
    let mut look = tokio::time::interval(DROPS_INTERVAL);
    let protocol = settings.protocol();
    loop {
        let read = tokio::select! {
            () = shutdown.cancelled() => break,
            _ = look.tick() => {
                let receiver = door.receiver();
                receiver.metrics.count_kernel_drops(&receiver.name, port, drops.since_last());
                continue;
            }
            read = socket.recv_from(&mut buffer) => read,
        };
        let (len, from) = match read {
            Ok((len, from)) => (len, Origin { port, peer: from.ip().to_canonical() }),
            Err(error) => {
                tracing::warn!(%error, %address, "a packet could not be read");
                tokio::time::sleep(READ_PAUSE).await;
                continue;
            }
        };
        let receiver = door.receiver();
        if len > settings.packet_bytes_max {
            receiver.count(from, protocol, "too_large");
            continue;
        }
        let Ok(slot) = Arc::clone(&queue).try_acquire_owned() else {
            receiver.count(from, protocol, "queue_full");
            continue;
        };
        let Ok(room) = receiver.admission.try_reserve(foreign::bytes_in_all(len)) else {
            receiver.count(from, protocol, "unavailable");
            continue;
        };
        let packet = Bytes::copy_from_slice(buffer.get(..len).unwrap_or_default());
        packets.spawn(async move {
            let client = Client::of(from.peer);
            let outcome = take(&receiver, &client, settings.encoding, packet, room).await;
            receiver.count(from, protocol, outcome);
            drop(slot);
        });
    }
    drop(socket);
    packets.close();
    if tokio::time::timeout(DRAIN_MAX, packets.wait()).await.is_err() {
        tracing::warn!(%address, packets = packets.len(), "packets were given up: what they hold did not become durable in time");
    }
}

/// Converts and stores a packet; the label `outcome`.
async fn take(
    receiver: &Receiver,
    client: &Client,
    encoding: Encoding,
    packet: Bytes,
    mut room: Reservation,
) -> &'static str {
    let converted = to_request(Format::AgentCall(encoding), &packet, foreign::converted_bytes_max(packet.len()));
    let request = match converted.map_err(Refusal::from) {
        Ok(request) => Bytes::from(request),
        Err(refusal) => {
            tracing::debug!(peer = %client.peer, %refusal, "a packet is no Jaeger batch");
            return refusal.outcome();
        }
    };
    drop(packet);
    room.lower(request.len());
    let until = Instant::now() + RETRY_MAX;
    let outcome = loop {
        match traces::accept(receiver, client, request.clone()).await {
            Ok(_) => break "ok",
            Err(Refusal::Unavailable { retry_after, .. }) if Instant::now() + retry_after < until => {
                tokio::time::sleep(retry_after).await;
            }
            Err(refusal) => break refusal.outcome(),
        }
    };
    drop(room);
    outcome
}

/// Packets that the kernel dropped at a port because nobody had read those before (`/proc/net/udp`, last column).
struct KernelDrops {
    port: u16,
    /// What it said last; counters of sockets that were closed are gone.
    last: u64,
}

impl KernelDrops {
    fn of(port: u16) -> Self {
        let mut drops = Self { port, last: 0 };
        drops.since_last();
        drops
    }

    fn since_last(&mut self) -> u64 {
        let tables = ["/proc/net/udp", "/proc/net/udp6"].map(|path| std::fs::read_to_string(path).unwrap_or_default());
        let now = tables.iter().map(|table| dropped_at(table, self.port)).sum();
        let since = u64::saturating_sub(now, self.last);
        self.last = now;
        since
    }
}

/// The sum of `drops` over the sockets of a port.
fn dropped_at(table: &str, port: u16) -> u64 {
    let dropped = |line: &str| {
        let mut columns = line.split_ascii_whitespace();
        let (_, local) = columns.nth(1)?.rsplit_once(':')?;
        let drops = columns.last()?.parse::<u64>().ok()?;
        (u16::from_str_radix(local, 16).ok()? == port).then_some(drops)
    };
    table.lines().skip(1).filter_map(dropped).sum()
}

#[cfg(test)]
mod tests {
    use super::dropped_at;

    #[test]
    fn drops_of_a_port_are_read_from_the_kernels_table() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n \
             1: 0100007F:1AAF 00000000:0000 07 00000000:00000000 00:00000000 00000000  1000        0 1 2 0000000000000000 12\n \
             2: 00000000:1AAF 00000000:0000 07 00000000:00000000 00:00000000 00000000  1000        0 3 2 0000000000000000 3\n \
             3: 0100007F:1AB0 00000000:0000 07 00000000:00000000 00:00000000 00000000  1000        0 4 2 0000000000000000 99\n";
        assert_eq!(dropped_at(table, 6831), 15);
        assert_eq!(dropped_at(table, 1), 0);
        assert_eq!(dropped_at("", 6831), 0);
    }
}
