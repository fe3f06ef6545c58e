//! The webhook's certificates against a real API server: lost, tampered with, out of time, made twice, and changed while
//! pods are created.
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd};
use serde_json::json;

use crate::kube_rig::{KubeCluster, free_ports, wait_until};
use crate::room::{MUTATING, Room, SECRET, SOON, asks, injecting, install, is_injected, post, secret, try_pod};

const FIELDS: [&str; 4] = ["ca.crt", "ca.key", "tls.crt", "tls.key"];
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const YEAR: Duration = DAY.saturating_mul(365);

/// From and until.
type Validity = (SystemTime, SystemTime);

/// What could be in the Secret, with lives of one's own choice.
fn forged(authority: Validity, leaf: Validity) -> BTreeMap<String, String> {
    let set = |params: &mut CertificateParams, (from, until): Validity| {
        let at = |time: SystemTime| date_time_ymd(1970, 1, 1) + time.duration_since(UNIX_EPOCH).unwrap();
        (params.not_before, params.not_after) = (at(from), at(until));
    };
    let (ca_key, leaf_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "Spanreel webhook CA forged");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    set(&mut ca, authority);
    let ca = ca.self_signed(&ca_key).unwrap().pem();
    let names =
        ["spanreel.spanreel.svc", "spanreel.spanreel.svc.cluster.local", "spanreel.spanreel", "spanreel", "127.0.0.1"];
    let mut served = CertificateParams::new(names.map(str::to_owned)).unwrap();
    served.use_authority_key_identifier_extension = true;
    set(&mut served, leaf);
    let issuer = Issuer::from_ca_cert_pem(&ca, KeyPair::from_pem(&ca_key.serialize_pem()).unwrap()).unwrap();
    let served = served.signed_by(&leaf_key, &issuer).unwrap().pem();
    let values = [ca, ca_key.serialize_pem(), served, leaf_key.serialize_pem()];
    FIELDS.map(str::to_owned).into_iter().zip(values).collect()
}

/// Two thirds of its life are over at `when`.
fn due_at(when: SystemTime) -> Validity {
    (when - HOUR * 2, when + HOUR)
}

/// Overwrites what is there as a person with `kubectl apply --force-conflicts` does.
async fn put_secret(kube: &KubeCluster, data: &BTreeMap<String, String>) {
    let encoded: BTreeMap<&String, String> = data.iter().map(|(key, value)| (key, STANDARD.encode(value))).collect();
    let text = format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: spanreel-webhook-cert\n  namespace: spanreel\ntype: Opaque\ndata: {}\n",
        json!(encoded)
    );
    kube.apply("spanreel", &text).await;
}

async fn wait_for_secret(kube: &KubeCluster, what: &str, is_it: impl Fn(&BTreeMap<String, String>) -> bool) {
    wait_until(what, SOON, async || secret(kube).await.filter(|found| is_it(found)).map(drop)).await;
}

/// The authorities that the API server trusts for the webhook.
async fn trusted(kube: &KubeCluster) -> String {
    let configuration = kube.get(MUTATING).await.unwrap();
    let bundle = configuration["webhooks"][0]["clientConfig"]["caBundle"].as_str().unwrap().to_owned();
    String::from_utf8(STANDARD.decode(bundle).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_survive_loss_tampering_and_wrong_clocks() {
    let kube = KubeCluster::start().await;
    let kubeconfig = install(&kube).await;

    // Two that start at once agree, and each serves what the API server trusts.
    let [port, second_port] = free_ports();
    let (room, second) = tokio::join!(Room::start(&kubeconfig, port), Room::start(&kubeconfig, second_port));
    room.registered(&kube).await;
    second.registered(&kube).await;
    let made = secret(&kube).await.unwrap();
    for port in [port, second_port] {
        assert_eq!(post(port, &made["ca.crt"], "/elsewhere", Vec::new()).await.0, 404);
    }
    assert_eq!(trusted(&kube).await, made["ca.crt"]);
    second.stop().await;
    room.registered(&kube).await;

    // Lost or spoilt while the process runs: what it serves is good and comes back, so that no pod is missed.
    kube.delete(SECRET).await;
    assert!(is_injected(&try_pod(&kube, "default", &asks()).await));
    wait_for_secret(&kube, "the lost Secret", |found| *found == made).await;
    let other = forged(
        (SystemTime::now() - HOUR, SystemTime::now() + YEAR),
        (SystemTime::now() - HOUR, SystemTime::now() + DAY),
    );
    for field in FIELDS {
        for value in ["", "garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &other[field]] {
            let mut spoilt = made.clone();
            spoilt.insert(field.to_owned(), value.to_owned());
            put_secret(&kube, &spoilt).await;
            assert!(is_injected(&try_pod(&kube, "default", &asks()).await), "{field} {value:?}");
            wait_for_secret(&kube, field, |found| *found == made).await;
        }
    }
    assert!(is_injected(&try_pod(&kube, "default", &asks()).await));
    room.stop().await;

    // Spoilt while no process runs: an authority that is whole goes on, everything else is made anew.
    for field in FIELDS {
        let before = secret(&kube).await.unwrap();
        let mut spoilt = before.clone();
        spoilt.insert(field.to_owned(), "garbage".to_owned());
        put_secret(&kube, &spoilt).await;
        let room = Room::start(&kubeconfig, port).await;
        room.registered(&kube).await;
        let after = secret(&kube).await.unwrap();
        assert_ne!(after["tls.crt"], before["tls.crt"], "{field}");
        assert_eq!(after["ca.crt"] == before["ca.crt"], field.starts_with("tls"), "{field}");
        room.stop().await;
    }

    // Made by a clock that was wrong: in the far future, long ago, or only the leaf.
    let now = SystemTime::now();
    let (past, future, present) =
        ((now - YEAR * 2, now - YEAR), (now + YEAR, now + YEAR * 9), (now - HOUR, now + YEAR));
    for (authority, leaf) in [(past, past), (future, future), (present, past), (present, future)] {
        let wrong = forged(authority, leaf);
        put_secret(&kube, &wrong).await;
        let room = Room::start(&kubeconfig, port).await;
        room.registered(&kube).await;
        let after = secret(&kube).await.unwrap();
        assert_ne!(after["tls.crt"], wrong["tls.crt"]);
        assert_eq!(after["ca.crt"] == wrong["ca.crt"], authority == present);
        room.stop().await;
    }

    // Our own clock is wrong: the API server's counts, whether certificates are there or not.
    let clocks: [fn() -> SystemTime; 2] = [|| SystemTime::now() - YEAR * 20, || SystemTime::now() + YEAR * 20];
    for clock in clocks {
        for is_lost in [false, true] {
            let before = secret(&kube).await.unwrap();
            if is_lost {
                kube.delete(SECRET).await;
            }
            let room = Room::start_with(&kubeconfig, port, |settings| settings.clock = clock).await;
            room.registered(&kube).await;
            assert_eq!(secret(&kube).await.unwrap() == before, !is_lost);
            room.stop().await;
        }
    }
}

/// Both the leaf and, later, the authority reach two thirds of their lives while pods are created without a pause.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_certificates_under_load_misses_no_pod() {
    let kube = KubeCluster::start().await;
    let kubeconfig = install(&kube).await;
    let [port] = free_ports();
    let now = SystemTime::now();
    let (leaf_due, authority_due) = (now + Duration::from_secs(15), now + Duration::from_secs(25));
    let first = forged(due_at(authority_due), due_at(leaf_due));
    put_secret(&kube, &first).await;
    let room = Room::start(&kubeconfig, port).await;
    room.registered(&kube).await;
    assert_eq!(secret(&kube).await.unwrap(), first, "started before anything was due");

    let done = tokio_util::sync::CancellationToken::new();
    let load = async {
        let (mut pods, asking) = (0_u32, asks());
        while !done.is_cancelled() {
            let some = (0..4).map(|_| try_pod(&kube, "default", &asking));
            for stored in futures_util::future::join_all(some).await {
                assert!(is_injected(&stored), "pod {pods}: {stored:#}");
                pods += 1;
            }
        }
        pods
    };
    let watch = async {
        wait_for_secret(&kube, "a new leaf", |found| found["tls.crt"] != first["tls.crt"]).await;
        assert_eq!(secret(&kube).await.unwrap()["ca.crt"], first["ca.crt"], "the leaf goes first, alone");
        wait_for_secret(&kube, "a new authority", |found| found["ca.key"] != first["ca.key"]).await;
        wait_until("both authorities to be trusted", SOON, async || {
            let trusted = trusted(&kube).await;
            let count = trusted.matches("BEGIN CERTIFICATE").count();
            (count == 2 && trusted.contains(&secret(&kube).await?["ca.crt"])).then_some(())
        })
        .await;
        // Until what the new authority signed is served, and some more.
        let ca = secret(&kube).await.unwrap()["ca.crt"].clone();
        let newest = ca.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap().to_owned();
        wait_until("the new leaf to be served", SOON, async || {
            let trusting = crate::room::try_post(port, &newest, "/elsewhere", Vec::new()).await;
            trusting.is_ok().then_some(())
        })
        .await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        done.cancel();
    };
    let (pods, ()) = tokio::join!(load, watch);
    assert!(pods > 100, "{pods} pods are no load");
    injecting(&kube).await;
    room.stop().await;
}
