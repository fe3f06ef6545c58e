//! The `basicauth` extension: user and password in the `Authorization` header, judged by an htpasswd file.

use super::htpasswd::{self, Hash};
use super::{AuthError, Denied, Digest};
use crate::appliance::components::ExtensionSettings;
use crate::config::{Declaration, Secrecy, Section, Stability, WhenNull};
use crate::process::ClientMetadata;
use base64::Engine as _;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Passwords that are checked at once: a check takes as much CPU time as whoever made the hash wanted.
pub const CHECKS_MAX: usize = 2;
/// How long a client waits for its turn.
const CHECK_WAIT_MAX: Duration = Duration::from_secs(5);

/// The `basicauth` extension.
pub const DECLARATION: Declaration<ExtensionSettings> = Declaration::new(
    "basicauth",
    Stability::Beta,
    "User and password: what receivers ask of clients (htpasswd), and exporters send along (client_auth).",
    |section| ExtensionSettings::BasicAuth(BasicAuthSettings::decode(section)),
);

/// `extensions::basicauth`: one of the two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BasicAuthSettings {
    pub htpasswd: Option<HtpasswdSettings>,
    pub client_auth: Option<ClientAuthSettings>,
}

/// Who may come in: lines `user:hash`, those written inline go before those of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HtpasswdSettings {
    pub file: Option<PathBuf>,
    pub inline: String,
}

/// What an exporter says it is; a file goes before the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAuthSettings {
    pub username: String,
    pub username_file: Option<PathBuf>,
    pub password: String,
    pub password_file: Option<PathBuf>,
}

/// The users that may come in.
pub struct Users {
    hashes: Arc<BTreeMap<String, Hash>>,
    /// Of `user:password` that were found right: at most one for each user.
    right: Mutex<BTreeSet<Digest>>,
    checks: Arc<Semaphore>,
}

impl BasicAuthSettings {
    /// Whether credentials are in files.
    pub fn names_files(&self) -> bool {
        let server = self.htpasswd.as_ref().is_some_and(|htpasswd| htpasswd.file.is_some());
        let client = |client: &ClientAuthSettings| client.username_file.is_some() || client.password_file.is_some();
        server || self.client_auth.as_ref().is_some_and(client)
    }

    fn decode(section: &mut Section<'_>) -> Self {
        let htpasswd = section.optional("htpasswd", WhenNull::Absent, |section| {
            let settings = HtpasswdSettings {
                file: section.file_path("file"),
                inline: section.optional_text("inline", Secrecy::Secret).unwrap_or_default(),
            };
            if settings.file.is_none() && settings.inline.is_empty() && section.is_sound() {
                section.error("file", "no credential source provided", "give a file, or lines inline");
            }
            settings
        });
        let client_auth = section.optional("client_auth", WhenNull::Absent, |section| ClientAuthSettings {
            username: section.text("username", ""),
            username_file: section.file_path("username_file"),
            password: section.optional_text("password", Secrecy::Secret).unwrap_or_default(),
            password_file: section.file_path("password_file"),
        });
        match (&htpasswd, &client_auth) {
            (Some(_), Some(_)) => section.error(
                "client_auth",
                "only one of `htpasswd` or `client_auth` can be specified",
                "use two extensions, e.g. basicauth/server and basicauth/client",
            ),
            (None, None) => section.error(
                "",
                "no credential source provided",
                "give htpasswd for receivers, or client_auth for exporters",
            ),
            _ => {}
        }
        Self { htpasswd, client_auth }
    }
}

impl Users {
    /// # Errors
    /// The file cannot be read, or a line is none of the kinds that are supported.
    pub fn new(settings: &HtpasswdSettings) -> Result<Self, AuthError> {
        let mut hashes = BTreeMap::new();
        if let Some(path) = &settings.file {
            let failed = |problem| AuthError::File { path: path.clone(), problem };
            let text = std::fs::read_to_string(path).map_err(failed)?;
            htpasswd::read(&path.display().to_string(), &text, &mut hashes)?;
        }
        htpasswd::read("htpasswd::inline", &settings.inline, &mut hashes)?;
        let checks = Arc::new(Semaphore::new(CHECKS_MAX));
        Ok(Self { hashes: Arc::new(hashes), right: Mutex::default(), checks })
    }

    pub async fn authenticate(&self, headers: &HeaderMap) -> Result<ClientMetadata, Denied> {
        let given = headers.get(header::AUTHORIZATION).ok_or_else(|| Denied::Missing("authorization".to_owned()))?;
        let given = given.to_str().ok().and_then(credentials);
        let credentials = given.ok_or(Denied::Wrong("the authorization is not Basic with user:password in base64"))?;
        let (user, password) =
            credentials.split_once(':').ok_or(Denied::Wrong("the authorization holds no user:password"))?;
        let digest = Digest::of(credentials.as_bytes());
        let known = self.right.lock().unwrap_or_else(PoisonError::into_inner).contains(&digest);
        if !known {
            if !self.check(user, password).await? {
                return Err(Denied::Wrong("invalid credentials"));
            }
            self.right.lock().unwrap_or_else(PoisonError::into_inner).insert(digest);
        }
        Ok([("username", user)].into_iter().collect())
    }

    async fn check(&self, user: &str, password: &str) -> Result<bool, Denied> {
        let wait = tokio::time::timeout(CHECK_WAIT_MAX, Arc::clone(&self.checks).acquire_owned());
        let Ok(Ok(turn)) = wait.await else { return Err(Denied::Busy) };
        let (hashes, user, password) = (Arc::clone(&self.hashes), user.to_owned(), password.to_owned());
        let checked = tokio::task::spawn_blocking(move || {
            let hash = hashes.get(&user);
            // For one that is not known as much is done, so that the time does not tell who is.
            let right = hash.or(hashes.values().next()).is_some_and(|hash| hash.is_of(password.as_bytes()));
            drop(turn);
            hash.is_some() && right
        });
        checked.await.map_err(|_| Denied::Busy)
    }
}

/// The header that says who somebody is; `None`: no header can.
pub fn header_of(user: &str, password: &str) -> Option<(HeaderName, HeaderValue)> {
    if user.contains(':') {
        return None;
    }
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    Some((header::AUTHORIZATION, HeaderValue::from_str(&format!("Basic {encoded}")).ok()?))
}

/// `user:password` of a header's value.
fn credentials(value: &str) -> Option<String> {
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    String::from_utf8(base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(user: &str, password: &str) -> HeaderMap {
        HeaderMap::from_iter(header_of(user, password))
    }

    #[tokio::test]
    async fn who_is_in_the_file_comes_in_with_the_right_password_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("htpasswd");
        std::fs::write(&file, "# people\nann:{SHA}fEqNCco3Yq9h5ZUglD3CZJT4lBs=\nbob:from the file\n").unwrap();
        let users = Users::new(&HtpasswdSettings { file: Some(file), inline: "bob:inline:x".to_owned() }).unwrap();
        for (user, password, right) in [
            ("ann", "123456", true),
            ("ann", "12345", false),
            ("bob", "inline:x", true),
            ("bob", "from the file", false),
            ("eve", "inline:x", false),
        ] {
            for _ in 0..2 {
                let outcome = users.authenticate(&headers(user, password)).await;
                assert_eq!(outcome.is_ok(), right, "{user} {password}: {outcome:?}");
                if let Ok(known) = outcome {
                    assert_eq!(known.get("username").collect::<Vec<_>>(), [user]);
                }
            }
        }
        let mut wrong = HeaderMap::new();
        assert!(matches!(users.authenticate(&wrong).await, Err(Denied::Missing(_))));
        wrong.insert("authorization", HeaderValue::from_static("Bearer x"));
        assert!(matches!(users.authenticate(&wrong).await, Err(Denied::Wrong(_))));
    }
}
