//! Settings of the `jaeger` receiver, with the Collector's names and defaults (contrib v0.162; every protocol is
//! optional there, at least one is required).

use crate::config::{Declaration, Section, Stability, WhenNull};
use crate::receive::settings::{GrpcServerSettings, HttpServerSettings, Port, ReceiverSettings};

/// The `jaeger` receiver.
pub const DECLARATION: Declaration<ReceiverSettings> =
    Declaration::new("jaeger", Stability::Beta, "Jaeger spans: gRPC (api_v2) and Thrift over HTTP.", |section| {
        ReceiverSettings::Jaeger(JaegerReceiverSettings::decode(section))
    });

/// `receivers::jaeger`.
#[derive(Debug, Clone, PartialEq)]
pub struct JaegerReceiverSettings {
    /// Default endpoint `localhost:14250`.
    pub grpc: Option<GrpcServerSettings>,
    /// Default endpoint `localhost:14268`.
    pub thrift_http: Option<HttpServerSettings>,
}

impl JaegerReceiverSettings {
    fn decode(section: &mut Section<'_>) -> Self {
        let settings = section.section("protocols", |protocols| {
            for key in ["thrift_compact", "thrift_binary"] {
                protocols.unsupported(key, "UDP is not listened on yet", "have clients send by thrift_http or grpc");
            }
            Self {
                grpc: protocols
                    .optional("grpc", WhenNull::On, |grpc| GrpcServerSettings::decode(grpc, "localhost:14250")),
                thrift_http: protocols
                    .optional("thrift_http", WhenNull::On, |http| HttpServerSettings::decode(http, "localhost:14268")),
            }
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
        grpc.chain(self.thrift_http.iter().map(|http| http.port("thrift_http"))).collect()
    }
}
