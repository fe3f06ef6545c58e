//! The webhook's own certificate authority and serving certificate.
//!
//! Both live in one Secret, so that a restart serves the same ones and two processes starting at once agree: who loses
//! the race to create it reads what the winner wrote. What is in the Secret is believed only if it fits together; if not,
//! it is made anew. A new leaf is taken up without restart through [`Served`].

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prometheus_client::metrics::gauge::Gauge;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const CA_LIFE: Duration = DAY.saturating_mul(3650);
const LEAF_LIFE: Duration = DAY.saturating_mul(90);
/// Certificates are valid from a little earlier: clocks differ.
const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);

/// A certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("making a certificate failed: {0}")]
    Make(#[from] rcgen::Error),
    #[error("{0}")]
    Unusable(String),
}

/// The authority and the serving certificate, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Certificates {
    /// The authority, and behind it the one that it replaced: until all know the new one, both are trusted.
    pub(super) ca: String,
    pub(super) ca_key: String,
    pub(super) leaf: String,
    pub(super) leaf_key: String,
}

/// Keys stay out of logs.
impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").field("ca", &self.ca).field("leaf", &self.leaf).finish_non_exhaustive()
    }
}

/// What is to be done about certificates that were found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Condition {
    Good,
    /// Usable, but the leaf (and if so, the authority) is to be replaced now.
    Due {
        authority: bool,
        why: String,
    },
    /// Not usable at all.
    Broken(String),
}

impl Certificates {
    /// A new authority and a leaf for `names`, which are host names and IP addresses.
    pub(super) fn generate(names: &[String], now: SystemTime) -> Result<Self, CertificateError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        // The time makes authorities distinguishable while the API server is told of a change.
        params.distinguished_name.push(DnType::CommonName, format!("Spanreel webhook CA {}", seconds(now)));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, now, CA_LIFE);
        let ca = params.self_signed(&key)?.pem();
        Self { ca, ca_key: key.serialize_pem(), leaf: String::new(), leaf_key: String::new() }.with_new_leaf(names, now)
    }

    /// A new authority and leaf, with this one's authority still trusted.
    pub(super) fn with_new_authority(&self, names: &[String], now: SystemTime) -> Result<Self, CertificateError> {
        let mut next = Self::generate(names, now)?;
        // Only the newest of what was trusted; older ones signed nothing that is still served.
        if let Ok(previous) = certificate(&self.ca) {
            next.ca.push_str(&pem("CERTIFICATE", &previous));
        }
        Ok(next)
    }

    /// The same authority with a new leaf.
    pub(super) fn with_new_leaf(&self, names: &[String], now: SystemTime) -> Result<Self, CertificateError> {
        let issuer = Issuer::from_ca_cert_pem(&self.ca, KeyPair::from_pem(&self.ca_key)?)?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "Spanreel webhook");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, now, LEAF_LIFE);
        let leaf = params.signed_by(&key, &issuer)?.pem();
        Ok(Self { leaf, leaf_key: key.serialize_pem(), ..self.clone() })
    }

    /// Whether these serve `names` at `now`, and for how long they should.
    pub(super) fn condition(&self, names: &[String], now: SystemTime) -> Condition {
        match self.check(names, now) {
            Ok(condition) => condition,
            Err(why) => Condition::Broken(why),
        }
    }

    fn check(&self, names: &[String], now: SystemTime) -> Result<Condition, String> {
        for trusted in CertificateDer::pem_slice_iter(self.ca.as_bytes()) {
            let trusted = trusted.map_err(|e| format!("an authority cannot be read: {e}"))?;
            parsed(&trusted)?;
        }
        let (ca_der, leaf_der) = (certificate(&self.ca)?, certificate(&self.leaf)?);
        let (ca, leaf) = (parsed(&ca_der)?, parsed(&leaf_der)?);
        leaf.verify_signature(Some(ca.public_key())).map_err(|_| "the leaf is not signed by the authority")?;
        self.check_authority(&ca)?;
        self.certified_key().map_err(|e| e.to_string())?;
        for (what, certificate, life) in [("authority", &ca, CA_LIFE), ("leaf", &leaf, LEAF_LIFE)] {
            let (from, until) = validity(certificate);
            let authority = what == "authority";
            if now >= until {
                return Ok(Condition::Due { authority, why: format!("the {what} has expired") });
            }
            if now < from {
                return Ok(Condition::Due { authority, why: format!("the {what} is not valid yet; a clock is wrong") });
            }
            // Two thirds of life are over, whoever chose how long it is.
            let life = until.duration_since(from).unwrap_or(life);
            if now >= from + life * 2 / 3 {
                return Ok(Condition::Due { authority, why: format!("two thirds of the {what}'s life are over") });
            }
        }
        let present = alternative_names(&leaf);
        if let Some(missing) = names.iter().find(|name| !present.contains(name)) {
            return Ok(Condition::Due { authority: false, why: format!("it does not name {missing}") });
        }
        Ok(Condition::Good)
    }

    fn check_authority(&self, ca: &X509Certificate<'_>) -> Result<(), String> {
        let ca_key = KeyPair::from_pem(&self.ca_key).map_err(|e| format!("the authority's key: {e}"))?;
        if ca_key.public_key_raw() != &*ca.public_key().subject_public_key.data {
            return Err("the authority's key is of another certificate".to_owned());
        }
        Ok(())
    }

    /// New ones where these are broken. An authority that is whole goes on: who trusts it need not be told anything.
    pub(super) fn mended(&self, names: &[String], now: SystemTime) -> Result<Self, CertificateError> {
        let authority_is_whole = certificate(&self.ca).is_ok_and(|der| {
            parsed(&der).is_ok_and(|ca| self.check_authority(&ca).is_ok() && ca.tbs_certificate.is_ca())
        });
        if authority_is_whole {
            let mended = self.with_new_leaf(names, now)?;
            if mended.condition(names, now) == Condition::Good {
                return Ok(mended);
            }
        }
        Self::generate(names, now)
    }

    /// Whether both leaves are signed by the same authority.
    pub(super) fn shares_authority(&self, other: &Self) -> bool {
        self.ca_key == other.ca_key
    }

    /// As the TLS server takes it.
    pub(super) fn certified_key(&self) -> Result<CertifiedKey, CertificateError> {
        let unusable = |what: &str, e: &dyn std::fmt::Display| CertificateError::Unusable(format!("{what}: {e}"));
        let chain = vec![certificate(&self.leaf).map_err(CertificateError::Unusable)?];
        let key =
            PrivateKeyDer::from_pem_slice(self.leaf_key.as_bytes()).map_err(|e| unusable("the leaf's key", &e))?;
        let provider = rustls::crypto::ring::default_provider();
        CertifiedKey::from_der(chain, key, &provider).map_err(|e| unusable("the leaf and its key", &e))
    }
}

/// The certificate that is served now. Empty until there is one: handshakes fail, and the API server admits unchanged.
#[derive(Debug, Default)]
pub(super) struct Served {
    current: ArcSwapOption<CertifiedKey>,
    /// When it expires, Unix time in seconds.
    expiry: Gauge,
}

impl Served {
    pub(super) fn new(expiry: Gauge) -> Self {
        Self { current: ArcSwapOption::empty(), expiry }
    }

    pub(super) fn replace(&self, key: CertifiedKey) {
        let leaf = key.cert.first().and_then(|leaf| parsed(leaf).ok().map(|leaf| validity(&leaf).1));
        self.expiry.set(leaf.map_or(0, |expiry| seconds(expiry) as i64));
        self.current.store(Some(Arc::new(key)));
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.load_full()
    }
}

fn set_validity(params: &mut CertificateParams, now: SystemTime, life: Duration) {
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(seconds(now)).saturating_sub(CLOCK_SKEW);
    params.not_after = epoch + Duration::from_secs(seconds(now)) + life;
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn certificate(pem: &str) -> Result<CertificateDer<'static>, String> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| format!("a certificate cannot be read: {e}"))
}

/// The text form of one object.
fn pem(label: &str, der: &[u8]) -> String {
    const LINE_BYTES: usize = 64;
    let text = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while let Some((line, behind)) = rest.split_at_checked(LINE_BYTES) {
        pem.push_str(line);
        pem.push('\n');
        rest = behind;
    }
    if !rest.is_empty() {
        pem.push_str(rest);
        pem.push('\n');
    }
    pem + &format!("-----END {label}-----\n")
}

fn parsed<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    X509Certificate::from_der(der).map(|(_, parsed)| parsed).map_err(|e| format!("a certificate cannot be read: {e}"))
}

fn validity(certificate: &X509Certificate<'_>) -> (SystemTime, SystemTime) {
    let time = |timestamp: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(timestamp).unwrap_or(0));
    let validity = certificate.validity();
    (time(validity.not_before.timestamp()), time(validity.not_after.timestamp()))
}

fn alternative_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(host) => Some((*host).to_owned()),
        GeneralName::IPAddress(bytes) => match *bytes {
            [a, b, c, d] => Some(IpAddr::from([*a, *b, *c, *d]).to_string()),
            bytes => <[u8; 16]>::try_from(bytes).ok().map(|all| IpAddr::from(all).to_string()),
        },
        _ => None,
    };
    extension.value.general_names.iter().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        ["spanreel.ns.svc", "127.0.0.1", "::1"].map(str::to_owned).to_vec()
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    #[test]
    fn new_certificates_are_good_until_two_thirds_of_their_life() {
        let made = Certificates::generate(&names(), now()).unwrap();
        assert_eq!(made.condition(&names(), now()), Condition::Good);
        assert_eq!(made.condition(&names(), now() + DAY * 59), Condition::Good);
        let Condition::Due { authority: false, .. } = made.condition(&names(), now() + DAY * 61) else { panic!() };
        let Condition::Due { authority: true, .. } = made.condition(&names(), now() + DAY * 2440) else { panic!() };
        assert_eq!(made.condition(&names(), now() - CLOCK_SKEW / 2), Condition::Good);
        let Condition::Due { .. } = made.condition(&names(), now() - DAY) else { panic!() };
    }

    #[test]
    fn a_new_leaf_keeps_the_authority() {
        let made = Certificates::generate(&names(), now()).unwrap();
        let later = made.with_new_leaf(&names(), now() + DAY * 61).unwrap();
        assert_eq!((&later.ca, &later.ca_key), (&made.ca, &made.ca_key));
        assert_ne!(later.leaf, made.leaf);
        assert_eq!(later.condition(&names(), now() + DAY * 61), Condition::Good);
    }

    #[test]
    fn a_new_authority_leaves_the_old_one_trusted() {
        let old = Certificates::generate(&names(), now()).unwrap();
        let later = now() + DAY * 2500;
        let new = old.with_new_authority(&names(), later).unwrap();
        assert_eq!(new.condition(&names(), later), Condition::Good);
        let trusted: Vec<_> = CertificateDer::pem_slice_iter(new.ca.as_bytes()).map(Result::unwrap).collect();
        assert_eq!(trusted.len(), 2);
        assert_eq!(trusted[1], certificate(&old.ca).unwrap());
        let newest = new.with_new_authority(&names(), later + DAY).unwrap();
        assert_eq!(CertificateDer::pem_slice_iter(newest.ca.as_bytes()).count(), 2);
        assert_eq!(new.with_new_leaf(&names(), later).unwrap().condition(&names(), later), Condition::Good);
    }

    #[test]
    fn another_name_asks_for_a_new_leaf() {
        let made = Certificates::generate(&names(), now()).unwrap();
        let Condition::Due { authority: false, .. } = made.condition(&["other.host".to_owned()], now()) else {
            panic!()
        };
    }

    #[test]
    fn what_does_not_fit_together_is_broken() {
        let (a, b) =
            (Certificates::generate(&names(), now()).unwrap(), Certificates::generate(&names(), now()).unwrap());
        for broken in [
            Certificates { ca: b.ca.clone(), ..a.clone() },
            Certificates { ca_key: b.ca_key.clone(), ..a.clone() },
            Certificates { leaf: b.leaf.clone(), ..a.clone() },
            Certificates { leaf_key: b.leaf_key.clone(), ..a.clone() },
            Certificates { leaf: String::new(), ..a.clone() },
            Certificates {
                ca: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(),
                ..a.clone()
            },
        ] {
            assert!(matches!(broken.condition(&names(), now()), Condition::Broken(_)), "{broken:?}");
            let mended = broken.mended(&names(), now()).unwrap();
            assert_eq!(mended.condition(&names(), now()), Condition::Good);
            let authority_was_whole = broken.ca == a.ca && broken.ca_key == a.ca_key;
            assert_eq!(mended.shares_authority(&a), authority_was_whole, "{broken:?}");
        }
        let trailing = format!("{}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", a.ca);
        let broken = Certificates { ca: trailing, ..a };
        assert!(
            matches!(broken.condition(&names(), now()), Condition::Broken(_)),
            "no API server would take that bundle"
        );
        assert_eq!(broken.mended(&names(), now()).unwrap().condition(&names(), now()), Condition::Good);
    }

    #[test]
    fn a_wrong_clock_on_either_side_asks_for_new_ones() {
        let made = Certificates::generate(&names(), now()).unwrap();
        for wrong in [now() - DAY * 365, now() + DAY * 365 * 20] {
            let Condition::Due { authority: true, .. } = made.condition(&names(), wrong) else { panic!() };
            let renewed = made.with_new_authority(&names(), wrong).unwrap();
            assert_eq!(renewed.condition(&names(), wrong), Condition::Good);
            // And back: whoever has the right time mends it.
            assert!(matches!(renewed.condition(&names(), now()), Condition::Due { .. }));
        }
        let Condition::Due { authority: true, .. } = made.condition(&names(), UNIX_EPOCH) else { panic!() };
        let renewed = made.with_new_authority(&names(), UNIX_EPOCH).unwrap();
        assert_eq!(renewed.condition(&names(), UNIX_EPOCH), Condition::Good);
    }
}
