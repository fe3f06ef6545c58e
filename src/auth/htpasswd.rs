//! Apache's htpasswd format: lines `user:hash`.

use super::{AuthError, Digest};
use base64::Engine as _;
use md5::{Digest as _, Md5};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use std::collections::BTreeMap;

/// The digits of crypt's base 64, least significant first.
const CRYPT_DIGITS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const MD5_ROUNDS: usize = 1_000;

/// A password as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hash {
    /// `$2a$`, `$2b$`, `$2y$`: `htpasswd -B`.
    Bcrypt(String),
    /// `$apr1$`, Apache's own, and `$1$`: `htpasswd -m`.
    Md5 { magic: &'static str, salt: String, hash: String },
    /// `{SHA}`: `htpasswd -s`; with a salt behind the digest `{SSHA}`.
    Sha1 { digest: Vec<u8>, salt: Vec<u8> },
    /// Anything else: `htpasswd -p`.
    Plain(Digest),
}

/// Reads the lines of a text into `users`; later ones go before earlier ones.
pub fn read(place: &str, text: &str, users: &mut BTreeMap<String, Hash>) -> Result<(), AuthError> {
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let failed = |problem| AuthError::Htpasswd { place: place.to_owned(), line: at + 1, problem };
        let (user, hash) = line.split_once(':').ok_or(failed("is not user:hash"))?;
        users.insert(user.to_owned(), Hash::parse(hash).map_err(failed)?);
    }
    Ok(())
}

impl Hash {
    fn parse(text: &str) -> Result<Self, &'static str> {
        if ["$2a$", "$2b$", "$2y$"].iter().any(|magic| text.starts_with(magic)) {
            return match text.len() {
                60 => Ok(Self::Bcrypt(text.to_owned())),
                _ => Err("is no whole bcrypt hash"),
            };
        }
        for magic in ["$apr1$", "$1$"] {
            if let Some(rest) = text.strip_prefix(magic) {
                let (salt, hash) = rest.split_once('$').ok_or("is no whole MD5 hash")?;
                return Ok(Self::Md5 { magic, salt: salt.chars().take(8).collect(), hash: hash.to_owned() });
            }
        }
        if text.starts_with("$5$") || text.starts_with("$6$") || text.starts_with("$y$") {
            return Err("is a kind of hash that is not supported; make one with htpasswd -B");
        }
        let base64 = |text: &str| {
            let bytes = base64::engine::general_purpose::STANDARD.decode(text).map_err(|_| "is no base64")?;
            if bytes.len() < 20 { Err("is shorter than a SHA-1 hash") } else { Ok(bytes) }
        };
        if let Some(rest) = text.strip_prefix("{SHA}").or_else(|| text.strip_prefix("{SSHA}")) {
            let mut digest = base64(rest)?;
            let salt = digest.split_off(20);
            return Ok(Self::Sha1 { digest, salt });
        }
        Ok(Self::Plain(Digest::of(text.as_bytes())))
    }

    /// Whether this is the hash of the password.
    pub fn is_of(&self, password: &[u8]) -> bool {
        // What is compared are digests: where they begin to differ tells nothing about the password.
        match self {
            Self::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Self::Md5 { magic, salt, hash } => md5_crypt(magic, salt.as_bytes(), password) == *hash,
            Self::Sha1 { digest: expected, salt } => {
                digest(&SHA1_FOR_LEGACY_USE_ONLY, &[password, salt].concat()).as_ref() == expected.as_slice()
            }
            Self::Plain(expected) => Digest::of(password) == *expected,
        }
    }
}

/// Poul-Henning Kamp's crypt over MD5, as FreeBSD and Apache have it.
fn md5_crypt(magic: &str, salt: &[u8], password: &[u8]) -> String {
    let between = Md5::new().chain_update(password).chain_update(salt).chain_update(password).finalize();
    let mut first = Md5::new().chain_update(password).chain_update(magic).chain_update(salt);
    for part in password.chunks(16) {
        first.update(&between[..part.len()]);
    }
    let mut bits = password.len();
    while bits > 0 {
        first.update(if bits & 1 == 1 { &[0][..] } else { password.get(..1).unwrap_or_default() });
        bits >>= 1;
    }
    let mut last = first.finalize();
    for round in 0..MD5_ROUNDS {
        let mut next = Md5::new();
        next.update(if round % 2 == 1 { password } else { &last[..] });
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(password);
        }
        next.update(if round % 2 == 1 { &last[..] } else { password });
        last = next.finalize();
    }
    let mut out = String::with_capacity(22);
    let mut put = |value: u32, digits: u32| {
        (0..digits).for_each(|at| out.push(char::from(CRYPT_DIGITS[(value >> (6 * at) & 63) as usize])));
    };
    let byte = |at: usize| u32::from(last[at]);
    for [high, middle, low] in [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]] {
        put(byte(high) << 16 | byte(middle) << 8 | byte(low), 4);
    }
    put(byte(11), 2);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hashes of `myPassword` but for the plain one, made by Apache's htpasswd and OpenSSL.
    #[test]
    fn each_kind_of_hash_knows_its_password() {
        for (line, password) in [
            ("$apr1$qHDFfhPC$nITSVHgYbDAK1Y0acGRnY0", "myPassword"),
            ("$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC", "myPassword"),
            ("{SHA}VBPuJHI7uixaa6LQGWx4s+5GKNE=", "myPassword"),
            ("just text", "just text"),
        ] {
            let hash = Hash::parse(line).unwrap();
            assert!(hash.is_of(password.as_bytes()), "{line}");
            assert!(!hash.is_of(b"another"), "{line}");
            assert!(!hash.is_of(b""), "{line}");
        }
    }

    #[test]
    fn what_is_not_supported_is_said_with_its_line() {
        for (text, expected) in [
            ("a:b\n\nnothing", "x, line 3: is not user:hash"),
            ("a:$6$salt$hash", "x, line 1: is a kind of hash that is not supported; make one with htpasswd -B"),
            ("a:$2y$05$short", "x, line 1: is no whole bcrypt hash"),
            ("a:{SHA}AAAA", "x, line 1: is shorter than a SHA-1 hash"),
        ] {
            assert_eq!(read("x", text, &mut BTreeMap::new()).unwrap_err().to_string(), expected);
        }
    }
}
