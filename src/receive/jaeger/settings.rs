//! Settings of the `jaeger` receiver, with the Collector's names and defaults (contrib v0.162; every protocol is
//! optional there, at least one is required).

use super::udp::UdpSettings;
use crate::config::{Declaration, Section, Shape, Stability, WhenNull};
use crate::receive::listener::Endpoint;
use crate::receive::settings::{GrpcServerSettings, HttpServerSettings, Port, ReceiverSettings};
use crate::receive::thrift::Encoding;

/// What a UDP packet over IPv4 can hold.
const PACKET_BYTES_MAX: u32 = 65_507;
/// More packets under way would not be bounded by much.
const QUEUE_PACKETS_MAX: u32 = 100_000;

/// The `jaeger` receiver.
pub const DECLARATION: Declaration<ReceiverSettings> = Declaration::new(
    "jaeger",
    Stability::Beta,
    "Jaeger spans: gRPC (api_v2), Thrift over HTTP, and Thrift over UDP as an agent takes it.",
    |section| ReceiverSettings::Jaeger(JaegerReceiverSettings::decode(section)),
);

/// `receivers::jaeger`.
#[derive(Debug, Clone, PartialEq)]
pub struct JaegerReceiverSettings {
    /// Default endpoint `localhost:14250`.
    pub grpc: Option<GrpcServerSettings>,
    /// Default endpoint `localhost:14268`.
    pub thrift_http: Option<HttpServerSettings>,
    /// Default endpoint `localhost:6831`.
    pub thrift_compact: Option<UdpPortSettings>,
    /// Default endpoint `localhost:6832`.
    pub thrift_binary: Option<UdpPortSettings>,
}

/// `protocols::thrift_compact` and `thrift_binary`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpPortSettings {
    /// `host:port`.
    pub endpoint: String,
    pub packets: UdpSettings,
}

impl UdpPortSettings {
    fn decode(section: &mut Section<'_>, endpoint: &str, encoding: Encoding) -> Self {
        let queue = section.u32("queue_size", 1_000);
        let packet = section.u32("max_packet_size", 65_000);
        for (key, value, max) in
            [("queue_size", queue, QUEUE_PACKETS_MAX), ("max_packet_size", packet, PACKET_BYTES_MAX)]
        {
            if value == 0 || value > max {
                section.error(key, format!("must be from 1 to {max}, is {value}"), "");
            }
        }
        section.inert_but("workers", Shape::Int, &["10"], "every packet of the queue is worked on at once");
        let buffer = section.u32("socket_buffer_size", 0);
        Self {
            endpoint: section.endpoint("endpoint", endpoint),
            packets: UdpSettings {
                encoding,
                queue_packets_max: queue as usize,
                packet_bytes_max: packet as usize,
                socket_buffer_bytes: (buffer > 0).then_some(buffer as usize),
            },
        }
    }

    fn port(&self, protocol: &'static str) -> Port {
        Port { protocol, endpoint: Endpoint::udp(&self.endpoint, self.packets), policy: Default::default() }
    }
}

impl JaegerReceiverSettings {
    fn decode(section: &mut Section<'_>) -> Self {
        let settings = section.section("protocols", |protocols| Self {
            grpc: protocols.optional("grpc", WhenNull::On, |grpc| GrpcServerSettings::decode(grpc, "localhost:14250")),
            thrift_http: protocols
                .optional("thrift_http", WhenNull::On, |http| HttpServerSettings::decode(http, "localhost:14268")),
            thrift_compact: protocols.optional("thrift_compact", WhenNull::On, |udp| {
                UdpPortSettings::decode(udp, "localhost:6831", Encoding::Compact)
            }),
            thrift_binary: protocols.optional("thrift_binary", WhenNull::On, |udp| {
                UdpPortSettings::decode(udp, "localhost:6832", Encoding::Binary)
            }),
        });
        if settings.ports().is_empty() && section.is_sound() {
            let remedy = "write protocols: {grpc: , thrift_http: }, with a colon after each";
            section.error("protocols", "must specify at least one protocol when using the Jaeger receiver", remedy);
        }
        let why = "sampling strategies are not served";
        section.unsupported("remote_sampling", why, "remove it; clients fall back to their own sampler");
        settings
    }

    pub fn ports(&self) -> Vec<Port> {
        let grpc = self.grpc.iter().map(|grpc| grpc.port("grpc"));
        let http = self.thrift_http.iter().map(|http| http.port("thrift_http"));
        let compact = self.thrift_compact.iter().map(|udp| udp.port("thrift_compact"));
        let binary = self.thrift_binary.iter().map(|udp| udp.port("thrift_binary"));
        grpc.chain(http).chain(compact).chain(binary).collect()
    }
}
