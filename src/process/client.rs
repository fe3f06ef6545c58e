//! Who sent a request, as far as processors may ask.

use std::net::IpAddr;
use std::sync::Arc;

/// The sender of one request. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// The other end of the connection; a proxy, where there is one.
    pub peer: IpAddr,
    /// HTTP headers or gRPC metadata; empty unless the receiver's `include_metadata` asks for them.
    pub metadata: ClientMetadata,
    /// What the receiver's authenticator knows, e.g. `username`.
    pub auth: ClientMetadata,
}

/// Names with their values, in the order they came; names match in any case. Bounded: what is beyond
/// [`ClientMetadata::ENTRIES_MAX`] or [`ClientMetadata::BYTES_MAX`] is left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientMetadata(Option<Arc<[Entry]>>);

/// A name and one of its values.
type Entry = (Box<str>, Box<str>);

impl Client {
    /// A client of which only the address is known.
    pub fn of(peer: IpAddr) -> Self {
        Self { peer, metadata: ClientMetadata::default(), auth: ClientMetadata::default() }
    }
}

impl ClientMetadata {
    pub const ENTRIES_MAX: usize = 64;
    /// Of names and values together.
    pub const BYTES_MAX: usize = 16 * 1024;

    /// The values of a name. None: it did not come.
    pub fn get<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let entries = self.0.as_deref().unwrap_or_default();
        entries
            .iter()
            .filter(move |(candidate, _)| candidate.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_ref())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for ClientMetadata {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(entries: I) -> Self {
        let mut bytes = 0usize;
        let fits = |(name, value): &(&str, &str)| {
            bytes = bytes.saturating_add(name.len() + value.len());
            bytes <= Self::BYTES_MAX
        };
        let kept: Arc<[Entry]> = entries
            .into_iter()
            .take(Self::ENTRIES_MAX)
            .take_while(fits)
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        Self((!kept.is_empty()).then_some(kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_in_any_case_and_keep_all_their_values() {
        let metadata: ClientMetadata = [("X-Tenant", "a"), ("other", "b"), ("x-tenant", "c")].into_iter().collect();
        assert_eq!(metadata.get("x-TENANT").collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(metadata.get("absent").count(), 0);
        assert!(std::iter::empty().collect::<ClientMetadata>().is_empty());
    }

    #[test]
    fn metadata_is_bounded() {
        let long = "x".repeat(ClientMetadata::BYTES_MAX);
        let metadata: ClientMetadata = [("a", "1"), ("b", long.as_str()), ("c", "2")].into_iter().collect();
        assert_eq!((metadata.get("a").count(), metadata.get("b").count()), (1, 0));
        let many: ClientMetadata = std::iter::repeat_n(("n", "v"), 1000).collect();
        assert_eq!(many.get("n").count(), ClientMetadata::ENTRIES_MAX);
    }
}
