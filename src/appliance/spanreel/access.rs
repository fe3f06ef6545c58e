//! `extensions::spanreel::access`: who may ask on the query port, and who may change something.

use crate::auth::AddressRange;
use crate::config::{Role as ComponentRole, Section, WhenNull};
use crate::query::Role;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Without it, everybody who reaches the port may do everything, as is fit for loopback and the inside of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccessSettings {
    /// `anonymous`: who comes without credentials; default `full` if nothing else lets anybody in, otherwise `none`.
    pub anonymous: Role,
    /// `loopback`: the same for who is on this machine, or in this pod; default as `anonymous`.
    pub loopback: Role,
    /// `full`: authenticators (`basicauth`, `bearertokenauth`) whose clients may do everything.
    pub full: Vec<String>,
    /// `read_only`: those whose clients may look and change nothing.
    pub read_only: Vec<String>,
    /// `trusted_proxy`; default none.
    pub trusted_proxy: Option<TrustedProxySettings>,
    /// `hosts`: names under which browsers come to the web UI, besides addresses and names that nobody can register; default
    /// none. `*.example.com` is all below, `*` any. Without credentials nothing is seen under others over plain HTTP, and with
    /// this over TLS neither.
    pub hosts: Vec<String>,
}

/// `extensions::spanreel::access::trusted_proxy`: a proxy that has its clients log in, and says in a header who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedProxySettings {
    /// `header`; default `X-Forwarded-User`.
    pub header: String,
    /// `sources`: addresses of the proxy; the header of anybody else counts for nothing.
    pub sources: Vec<AddressRange>,
    /// `role`: what its users may; default `read_only`.
    pub role: Role,
    /// `full_users`: who of them may do everything.
    pub full_users: Vec<String>,
}

const ROLES: [(&str, Role); 3] = [("none", Role::None), ("read_only", Role::ReadOnly), ("full", Role::Full)];

impl AccessSettings {
    pub(super) fn decode(section: &mut Section<'_>) -> Self {
        let full = section.references("full", ComponentRole::Extension);
        let read_only = section.references("read_only", ComponentRole::Extension);
        let trusted_proxy = section.optional("trusted_proxy", WhenNull::Absent, TrustedProxySettings::decode);
        if let Some(both) = full.iter().find(|id| read_only.contains(id)) {
            section.error("read_only", format!("{both} is under full, too"), "an authenticator has one role");
        }
        let lets_in = !full.is_empty() || !read_only.is_empty() || trusted_proxy.is_some();
        let anonymous = section.word("anonymous", &ROLES, if lets_in { Role::None } else { Role::Full });
        let loopback = section.word("loopback", &ROLES, anonymous);
        if !lets_in && anonymous == Role::None {
            section.error("anonymous", "nobody could come in", "name authenticators under full or read_only");
        }
        let own: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let is_own = |range: &AddressRange| own.into_iter().any(|address| range.contains(address));
        if loopback > anonymous && trusted_proxy.as_ref().is_some_and(|proxy| proxy.sources.iter().any(is_own)) {
            let reason =
                "whoever comes through the trusted proxy, which is on loopback, would have this role without its login";
            section.error("loopback", reason, "leave it out, or have the proxy on another address");
        }
        let hosts = section.list("hosts");
        Self { anonymous, loopback, full, read_only, trusted_proxy, hosts }
    }

    /// The ids of authenticators.
    pub fn authenticators(&self) -> impl Iterator<Item = (&str, Role)> {
        let full = self.full.iter().map(|id| (id.as_str(), Role::Full));
        full.chain(self.read_only.iter().map(|id| (id.as_str(), Role::ReadOnly)))
    }
}

impl TrustedProxySettings {
    fn decode(section: &mut Section<'_>) -> Self {
        let header = section.text("header", "X-Forwarded-User");
        if http::HeaderName::from_bytes(header.as_bytes()).is_err() {
            section.error("header", format!("{header:?} is no name of a header"), "e.g. X-Forwarded-User");
        }
        let mut sources = Vec::new();
        for text in section.texts("sources") {
            match text.text.parse() {
                Ok(range) => sources.push(range),
                Err(error) => section.error_in(&text, format!("{:?} {error}", text.text), "e.g. 10.42.0.0/16 or ::1"),
            }
        }
        if sources.is_empty() && section.is_sound() {
            let remedy = "name the proxy's addresses: anybody else could write the header";
            section.error("sources", "is missing", remedy);
        }
        Self {
            header,
            sources,
            role: section.word("role", &ROLES, Role::ReadOnly),
            full_users: section.list("full_users"),
        }
    }
}
