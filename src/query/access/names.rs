//! Under which names a page is taken for one of Spanreel's own.
//!
//! The owner of a name can have it lead here (DNS rebinding); to the browser his page is then of the same site. So names that
//! somebody could register count only if they are this process's own, or named in the settings.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Ends that nobody can register: this machine, services of a cluster (`.svc`, `.svc.cluster.local`), and what stands for
/// a private network.
const PRIVATE_ENDS: [&str; 7] = [".localhost", ".svc", ".local", ".internal", ".home.arpa", ".lan", ".localdomain"];

/// Whether `authority` (a host, perhaps with a port) is an address, a name that cannot be registered, or one of `known`,
/// where `*` is any name and `*.example.com` any below that.
pub(super) fn is_own<'a>(authority: &str, known: impl IntoIterator<Item = &'a String>) -> bool {
    let without_port = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let name = without_port.trim_end_matches('.').to_ascii_lowercase();
    let in_brackets = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let is_address =
        in_brackets.map_or_else(|| name.parse::<Ipv4Addr>().is_ok(), |name| name.parse::<Ipv6Addr>().is_ok());
    let is_one_label = !name.is_empty() && !name.contains(['.', ':', '[']);
    is_address
        || is_one_label
        || PRIVATE_ENDS.iter().any(|end| name.ends_with(end))
        || known.into_iter().any(|known| match known.strip_prefix('*') {
            Some(end) => name.ends_with(&end.to_ascii_lowercase()),
            None => known.eq_ignore_ascii_case(&name),
        })
}

#[cfg(test)]
mod tests {
    use super::is_own;

    #[test]
    fn only_names_that_nobody_can_register_are_own_by_themselves() {
        let hosts = ["traces.example".to_owned(), "*.corp.example".to_owned()];
        for own in [
            "127.0.0.1:3200",
            "10.0.0.7",
            "[::1]:3200",
            "localhost:3200",
            "spanreel",
            "Spanreel.Localhost:80",
            "spanreel.observe.svc:3200",
            "spanreel.observe.svc.cluster.local.",
            "Traces.example:443",
            "nas.lan",
            "nas.local:3200",
            "a.Corp.example",
        ] {
            assert!(is_own(own, &hosts), "{own}");
        }
        for other in [
            "evil.example:3200",
            "a.svc.evil.example",
            "127.0.0.1.evil.example",
            "",
            ":80",
            "traces.example.evil",
            "corp.example",
            "evilcorp.example",
            "spanreel.dev",
        ] {
            assert!(!is_own(other, &hosts), "{other}");
        }
        assert!(is_own("evil.example", &["*".to_owned()]), "who says so");
    }
}
