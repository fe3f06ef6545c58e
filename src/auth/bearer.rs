//! The `bearertokenauth` extension: one of a few tokens in a header.

use super::{AuthError, Denied, Digest};
use crate::appliance::components::ExtensionSettings;
use crate::config::{Declaration, Secrecy, Section, Shape, Stability};
use crate::process::ClientMetadata;
use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

/// How often a token file is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// The `bearertokenauth` extension.
pub const DECLARATION: Declaration<ExtensionSettings> = Declaration::new(
    "bearertokenauth",
    Stability::Beta,
    "Bearer tokens: what receivers ask of clients, and exporters send along.",
    |section| ExtensionSettings::BearerTokenAuth(BearerTokenSettings::decode(section)),
);

/// `extensions::bearertokenauth`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BearerTokenSettings {
    /// Default `Authorization`.
    pub header: String,
    /// What stands before the token, with a space between; default `Bearer`; empty: nothing.
    pub scheme: String,
    /// `token`, or `tokens`: a server takes each, a client sends the first. Unused where there is a file.
    pub tokens: Vec<String>,
    /// A token a line, what follows a space is a comment. Read again when it changes.
    pub filename: Option<PathBuf>,
}

/// The tokens that are good.
pub struct Tokens {
    header: String,
    scheme: String,
    file: Option<WatchedFile>,
    good: ArcSwap<Vec<Digest>>,
}

struct WatchedFile {
    path: PathBuf,
    looked: Mutex<(Instant, Option<SystemTime>)>,
}

impl BearerTokenSettings {
    fn decode(section: &mut Section<'_>) -> Self {
        let header = section.text("header", "Authorization");
        if http::HeaderName::from_bytes(header.as_bytes()).is_err() {
            section.error("header", format!("{header:?} is no name of a header"), "e.g. Authorization");
        }
        let token = section.optional_text("token", Secrecy::Secret).filter(|token| !token.is_empty());
        let tokens = section.secret_list("tokens");
        let settings = Self {
            header,
            scheme: section.text("scheme", "Bearer"),
            filename: section.file_path("filename"),
            tokens: token.iter().cloned().chain(tokens.iter().cloned()).collect(),
        };
        if tokens.iter().any(String::is_empty) {
            section.error("tokens", "an empty token would let everybody in", "remove it, or give the variable a value");
        }
        if token.is_some() && !tokens.is_empty() {
            section.error("tokens", "either tokens or token should be provided, not both", "remove one of them");
        }
        if settings.tokens.is_empty() && settings.filename.is_none() && section.is_sound() {
            section.error("token", "no bearer token provided", "give token, tokens or filename");
        }
        if settings.filename.is_some() && !settings.tokens.is_empty() {
            section.warn("filename", "the token of the file counts, the others are ignored", "remove one of them");
        }
        section.inert("retry_on_failure", Shape::Map, "the file must be there at the start");
        section.inert_but("wait_for_token_file", Shape::Bool, &["false"], "the file must be there at the start");
        settings
    }

    /// The tokens as they are now, the file's where there is one.
    pub fn read_tokens(&self) -> Result<Vec<String>, AuthError> {
        match &self.filename {
            None => Ok(self.tokens.clone()),
            Some(path) => read(path),
        }
    }
}

fn read(path: &Path) -> Result<Vec<String>, AuthError> {
    let failed = |problem| AuthError::File { path: path.to_owned(), problem };
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let tokens: Vec<String> =
        text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    if tokens.is_empty() { Err(AuthError::NoToken(path.to_owned())) } else { Ok(tokens) }
}

impl Tokens {
    /// # Errors
    /// The file cannot be read or holds no token.
    pub fn new(settings: &BearerTokenSettings) -> Result<Self, AuthError> {
        let tokens = settings.read_tokens()?;
        let file = settings
            .filename
            .as_ref()
            .map(|path| WatchedFile { path: path.clone(), looked: Mutex::new((Instant::now(), modified(path))) });
        let scheme = settings.scheme.clone();
        let good = ArcSwap::from_pointee(digests(&scheme, &tokens));
        Ok(Self { header: settings.header.clone(), scheme, file, good })
    }

    /// The header that holds a token as it is looked for here; `None`: no header can.
    pub fn header_of(&self, token: &str) -> Option<(HeaderName, HeaderValue)> {
        let name = HeaderName::from_bytes(self.header.as_bytes()).ok()?;
        Some((name, HeaderValue::from_str(&header_value(&self.scheme, token)).ok()?))
    }

    pub fn authenticate(&self, headers: &HeaderMap) -> Result<ClientMetadata, Denied> {
        self.look_again();
        let given = headers.get(self.header.as_str()).ok_or_else(|| Denied::Missing(self.header.clone()))?;
        let given = Digest::of(given.as_bytes());
        // Every one is compared, whichever is right.
        let right = self.good.load().iter().fold(false, |right, good| right | (*good == given));
        if right {
            return Ok(ClientMetadata::default());
        }
        Err(Denied::Wrong("provided authorization does not match expected scheme or token"))
    }

    /// Reads the file again if it changed. A file that is gone or broken changes nothing: a token in it may be right.
    fn look_again(&self) {
        let Some(file) = &self.file else { return };
        let Ok(mut looked) = file.looked.try_lock() else { return };
        if looked.0.elapsed() < LOOK_INTERVAL {
            return;
        }
        let modified = modified(&file.path);
        let changed = modified.is_some() && modified != looked.1;
        *looked = (Instant::now(), modified.or(looked.1));
        if changed {
            match read(&file.path) {
                Ok(tokens) => {
                    self.good.store(digests(&self.scheme, &tokens).into());
                    tracing::info!(file = %file.path.display(), "bearer tokens were read again");
                }
                Err(error) => tracing::warn!(%error, "bearer tokens could not be read again; those before still count"),
            }
        }
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|file| file.modified()).ok()
}

fn digests(scheme: &str, tokens: &[String]) -> Vec<Digest> {
    tokens.iter().map(|token| Digest::of(header_value(scheme, token).as_bytes())).collect()
}

fn header_value(scheme: &str, token: &str) -> String {
    if scheme.is_empty() { token.to_owned() } else { format!("{scheme} {token}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(tokens: &[&str], filename: Option<PathBuf>) -> BearerTokenSettings {
        let tokens = tokens.iter().map(|token| (*token).to_owned()).collect();
        BearerTokenSettings { header: "Authorization".to_owned(), scheme: "Bearer".to_owned(), tokens, filename }
    }

    fn try_token(tokens: &Tokens, value: &str) -> Result<ClientMetadata, Denied> {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", HeaderValue::from_str(value).unwrap());
        tokens.authenticate(&headers)
    }

    #[test]
    fn any_of_the_tokens_lets_in_and_nothing_else() {
        let tokens = Tokens::new(&settings(&["one", "two"], None)).unwrap();
        assert!(try_token(&tokens, "Bearer one").is_ok() && try_token(&tokens, "Bearer two").is_ok());
        for wrong in ["one", "Bearer three", "Bearer one ", "bearer one", ""] {
            assert!(matches!(try_token(&tokens, wrong), Err(Denied::Wrong(_))), "{wrong:?}");
        }
        assert!(matches!(tokens.authenticate(&HeaderMap::new()), Err(Denied::Missing(_))));
    }

    #[test]
    fn a_file_holds_a_token_a_line_and_comments() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "\n  first # of the first client\nsecond\n").unwrap();
        let tokens = Tokens::new(&settings(&[], Some(path.clone()))).unwrap();
        assert!(try_token(&tokens, "Bearer first").is_ok() && try_token(&tokens, "Bearer second").is_ok());
        std::fs::write(&path, "\n").unwrap();
        assert!(matches!(Tokens::new(&settings(&[], Some(path))), Err(AuthError::NoToken(_))));
    }
}
