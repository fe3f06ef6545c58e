//! Who comes to the door, for whoever wants to know which pods speak.

use super::other_signals::Signal;
use crate::otlp::resource::Speaker;
use std::net::IpAddr;

/// Is told of clients. Called while they wait: never blocks for long, and keeps nothing that clients could make grow.
pub trait Witness: Send + Sync + 'static {
    /// A connection was accepted.
    fn connected(&self, peer: IpAddr);

    /// A request was refused; `outcome` as in `spanreel_receiver_requests_total`.
    fn refused(&self, peer: IpAddr, outcome: &'static str);

    /// Metrics or logs came.
    fn other_signal(&self, peer: IpAddr, signal: Signal);

    /// Spans of one resource became durable.
    fn spoke(&self, peer: IpAddr, speaker: &Speaker<'_>);
}
