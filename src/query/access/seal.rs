//! Sessions of browsers: what was given at the login, sealed into a cookie.
//!
//! A browser cannot send a header along with every request that it makes. So the credentials travel in a cookie that no
//! script can read, encrypted under a key that this process made for itself: the cookie says nothing to others, credentials
//! that are withdrawn let nobody in any more, nothing is kept here, and a restart ends all sessions.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};

/// The name of the cookie.
const COOKIE: &str = "spanreel_session";
/// A session ends after this long: a working day.
const LIFE: Duration = Duration::from_secs(12 * 3600);
/// A sealed header is not longer; browsers keep 4 KiB.
const SEALED_BYTES_MAX: usize = 4096;

/// Seals and opens.
pub(super) struct Seal {
    key: LessSafeKey,
    random: SystemRandom,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seal").finish_non_exhaustive()
    }
}

impl Seal {
    /// `None`: the system has no random numbers.
    pub(super) fn new() -> Option<Self> {
        let random = SystemRandom::new();
        let mut key = [0; 32];
        random.fill(&mut key).ok()?;
        Some(Self { key: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).ok()?), random })
    }

    /// The value of `Set-Cookie` for a session that stands for this header. `None`: it is too long.
    pub(super) fn cookie(&self, name: &HeaderName, value: &HeaderValue, transport: Transport) -> Option<HeaderValue> {
        let sealed = self.seal(name, value, SystemTime::now())?;
        set_cookie(&sealed, LIFE.as_secs(), transport)
    }

    /// The header that a request's cookie stands for.
    pub(super) fn opened(&self, headers: &HeaderMap) -> Option<(HeaderName, HeaderValue)> {
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let sealed = pairs.find_map(|(name, value)| (name == COOKIE).then_some(value))?;
        self.open(sealed, SystemTime::now())
    }

    fn seal(&self, name: &HeaderName, value: &HeaderValue, now: SystemTime) -> Option<String> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).ok()?;
        let at = now.duration_since(UNIX_EPOCH).ok()?.as_secs();
        let mut text = [at.to_be_bytes().as_slice(), name.as_str().as_bytes(), b":", value.as_bytes()].concat();
        self.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut text).ok()?;
        let sealed = URL_SAFE_NO_PAD.encode([nonce.as_slice(), &text].concat());
        (sealed.len() <= SEALED_BYTES_MAX).then_some(sealed)
    }

    fn open(&self, sealed: &str, now: SystemTime) -> Option<(HeaderName, HeaderValue)> {
        if sealed.len() > SEALED_BYTES_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (nonce, text) = bytes.split_first_chunk::<NONCE_LEN>()?;
        let mut text = text.to_vec();
        let text = self.key.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::empty(), &mut text).ok()?;
        let (at, pair) = text.split_first_chunk::<8>()?;
        let began = UNIX_EPOCH + Duration::from_secs(u64::from_be_bytes(*at));
        // A clock that was set back makes sessions longer, not endless.
        if now.duration_since(began).unwrap_or_default() >= LIFE {
            return None;
        }
        let colon = pair.iter().position(|byte| *byte == b':')?;
        let (name, value) = (pair.get(..colon)?, pair.get(colon + 1..)?);
        Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?))
    }
}

/// How the browser came here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    /// A proxy says so.
    Encrypted,
    Plain,
}

impl Transport {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let encrypted = headers.get("x-forwarded-proto").is_some_and(|value| value.as_bytes().starts_with(b"https"));
        if encrypted { Self::Encrypted } else { Self::Plain }
    }
}

/// The value of `Set-Cookie` that ends a session.
pub(super) fn end_of_session(transport: Transport) -> Option<HeaderValue> {
    set_cookie("", 0, transport)
}

fn set_cookie(value: &str, seconds: u64, transport: Transport) -> Option<HeaderValue> {
    let secure = if transport == Transport::Encrypted { "; Secure" } else { "" };
    HeaderValue::from_str(&format!("{COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pair(value: &str) -> (HeaderName, HeaderValue) {
        (header::AUTHORIZATION, HeaderValue::from_str(value).unwrap())
    }

    #[test]
    fn a_session_ends_by_time_by_damage_and_with_its_process() {
        let (seal, other) = (Seal::new().unwrap(), Seal::new().unwrap());
        let (name, value) = pair("Bearer se:cret");
        let now = SystemTime::now();
        let sealed = seal.seal(&name, &value, now).unwrap();
        assert!(!sealed.contains("cret"));
        assert_eq!(seal.open(&sealed, now), Some((name.clone(), value.clone())));
        assert_eq!(seal.open(&sealed, now - LIFE), Some((name, value)));
        assert_eq!(seal.open(&sealed, now + LIFE), None);
        assert_eq!(other.open(&sealed, now), None);
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone().into_bytes();
            damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(seal.open(std::str::from_utf8(&damaged).unwrap(), now), None, "{at}");
        }
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let seal = Seal::new().unwrap();
        let (name, value) = pair("Bearer x");
        let cookie = seal.cookie(&name, &value, Transport::Encrypted).unwrap();
        let cookie = cookie.to_str().unwrap();
        assert!(cookie.ends_with("; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict; Secure"), "{cookie}");
        let sent = format!("theme=dark; {}; x=y", cookie.split(';').next().unwrap());
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, HeaderValue::from_str(&sent).unwrap());
        assert_eq!(seal.opened(&headers), Some((name, value)));
        assert!(
            end_of_session(Transport::Plain)
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("spanreel_session=; Path=/; Max-Age=0;")
        );
    }

    proptest! {
        #[test]
        fn any_text_is_no_session(text: String) {
            prop_assert_eq!(Seal::new().unwrap().open(&text, SystemTime::now()), None);
        }
    }
}
