//! What an exporter says it is: a header that is asked for before each request, because tokens are exchanged while it runs.

use http::{HeaderMap, HeaderName, HeaderValue};
use std::sync::Arc;

/// Where credentials come from; the appliance reads them from extensions.
pub trait Credentials: Send + Sync + 'static {
    /// The header as it is now.
    ///
    /// # Errors
    /// There is none to be had; the text says why, and never what it holds.
    fn header(&self) -> Result<(HeaderName, HeaderValue), String>;
}

/// Adds the header, in the place of a configured one of its name.
pub(super) fn apply(credentials: Option<&Arc<dyn Credentials>>, headers: &mut HeaderMap) -> Result<(), String> {
    let Some(credentials) = credentials else { return Ok(()) };
    let (name, mut value) = credentials.header()?;
    value.set_sensitive(true);
    headers.insert(name, value);
    Ok(())
}
