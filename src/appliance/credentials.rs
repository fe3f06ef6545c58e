//! The credentials that a configuration's exporters name: what extensions know, as the header that goes along.

use super::components::{Components, ExtensionSettings};
use crate::auth::basic::{BasicAuthSettings, ClientAuthSettings};
use crate::auth::bearer::BearerTokenSettings;
use crate::config::Config;
use crate::forward::credentials::Credentials;
use base64::Engine as _;
use http::{HeaderName, HeaderValue, header};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Files are read again that often: tokens of service accounts and the like are exchanged under a process that runs.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// What an extension can say about an exporter.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ClientSettings {
    Basic(ClientAuthSettings),
    Bearer(BearerTokenSettings),
}

impl ClientSettings {
    /// Of an extension by its id; `None`: it is none that exporters can name.
    pub fn find(config: &Config<Components>, id: &str) -> Option<Self> {
        let extension = config.extensions.iter().find(|(known, _)| known.to_string() == id)?;
        match &extension.1.settings {
            ExtensionSettings::BasicAuth(BasicAuthSettings { client_auth: Some(settings), .. }) => {
                Some(Self::Basic(settings.clone()))
            }
            ExtensionSettings::BearerTokenAuth(settings) => Some(Self::Bearer(settings.clone())),
            _ => None,
        }
    }

    pub fn credentials(self) -> Arc<dyn Credentials> {
        Arc::new(Watched { settings: self, read: Mutex::new(None) })
    }

    fn read(&self) -> Result<(HeaderName, HeaderValue), String> {
        match self {
            Self::Basic(settings) => {
                let user = text_or_file(&settings.username, settings.username_file.as_deref())?;
                let password = text_or_file(&settings.password, settings.password_file.as_deref())?;
                let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
                Ok((header::AUTHORIZATION, value(&format!("Basic {encoded}"))?))
            }
            Self::Bearer(settings) => {
                let tokens = settings.read_tokens().map_err(|error| error.to_string())?;
                let token = tokens.first().map(String::as_str).unwrap_or_default();
                let name = HeaderName::from_bytes(settings.header.as_bytes()).map_err(|error| error.to_string())?;
                let text =
                    if settings.scheme.is_empty() { token.to_owned() } else { format!("{} {token}", settings.scheme) };
                Ok((name, value(&text)?))
            }
        }
    }
}

fn value(text: &str) -> Result<HeaderValue, String> {
    // The text is a secret: the error does not repeat it.
    HeaderValue::try_from(text).map_err(|_| "the credentials hold characters that a header cannot carry".to_owned())
}

/// A file goes before the text.
fn text_or_file(text: &str, file: Option<&Path>) -> Result<String, String> {
    match file {
        None => Ok(text.to_owned()),
        Some(path) => match std::fs::read_to_string(path) {
            Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).to_owned()),
            Err(error) => Err(format!("cannot read {}: {error}", path.display())),
        },
    }
}

/// Credentials with what was last read of them.
struct Watched {
    settings: ClientSettings,
    read: Mutex<Option<(Instant, (HeaderName, HeaderValue))>>,
}

impl Credentials for Watched {
    fn header(&self) -> Result<(HeaderName, HeaderValue), String> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, header)) = &*read
            && at.elapsed() < LOOK_INTERVAL
        {
            return Ok(header.clone());
        }
        match (self.settings.read(), &mut *read) {
            (Ok(header), read) => {
                *read = Some((Instant::now(), header.clone()));
                Ok(header)
            }
            // A file that is being exchanged: what it held a moment ago is the best guess.
            (Err(error), Some((at, header))) => {
                tracing::warn!(error, "an exporter's credentials cannot be read; those before are sent");
                *at = Instant::now();
                Ok(header.clone())
            }
            (Err(error), None) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_go_before_texts_and_what_they_held_lasts_while_they_are_gone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "secret\n").unwrap();
        let settings = ClientAuthSettings {
            username: "me".to_owned(),
            username_file: None,
            password: "ignored".to_owned(),
            password_file: Some(file.clone()),
        };
        let credentials = ClientSettings::Basic(settings.clone()).credentials();
        let expected = HeaderValue::from_static("Basic bWU6c2VjcmV0");
        assert_eq!(credentials.header().unwrap(), (header::AUTHORIZATION, expected.clone()));
        std::fs::remove_file(&file).unwrap();
        assert_eq!(credentials.header().unwrap().1, expected);
        let error = ClientSettings::Basic(settings).credentials().header().unwrap_err();
        assert!(error.contains("password") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn the_first_token_goes_under_its_scheme() {
        let bearer = |scheme: &str| BearerTokenSettings {
            header: "X-Token".to_owned(),
            scheme: scheme.to_owned(),
            tokens: vec!["one".to_owned(), "two".to_owned()],
            filename: None,
        };
        let header = |scheme| ClientSettings::Bearer(bearer(scheme)).credentials().header().unwrap();
        assert_eq!(header("Bearer"), (HeaderName::from_static("x-token"), HeaderValue::from_static("Bearer one")));
        assert_eq!(header("").1, "one");
    }
}
