//! The life line fed by hand: events of a watch, visits, spans, and a clock.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::Event;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::line::LifeLine;
use super::{Life, LifeState};
use crate::cluster::events::NoteKind;
use crate::otlp::resource::Speaker;
use crate::receive::Witness as _;
use crate::receive::other_signals::Signal;

const SILENT_AFTER: Duration = Duration::from_secs(300);
const ADDRESS: &str = "10.0.0.7";

/// Seconds after the process began to listen.
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn line() -> Arc<LifeLine> {
    let line = LifeLine::listening_since(at(0), SILENT_AFTER);
    line.set_own_service("spanreel", "spanreel");
    line
}

fn running(since: i64) -> Value {
    json!({"running": {"startedAt": at(since).to_string()}})
}

/// A pod of Deployment `shop` as the watch brings it: each container with its state.
fn pod(uid: &str, injected: bool, containers: &[(&str, Value)]) -> Value {
    let words: BTreeMap<&str, Value> =
        containers.iter().map(|(name, _)| (*name, json!({"java": "injected"}))).collect();
    let record = json!({"instrumentations": {"n/i": 1}, "containers": words}).to_string();
    let mut pod = json!({
        "metadata": {
            "uid": uid, "name": format!("shop-6d4-{uid}"), "namespace": "n", "creationTimestamp": at(-10).to_string(),
            "annotations": {"instrumentation.opentelemetry.io/inject-java": "true"},
            "labels": {"pod-template-hash": "6d4"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "shop-6d4", "uid": "r", "controller": true}],
        },
        "spec": {"containers": containers.iter().map(|(name, _)| json!({
            "name": name, "image": "shop:1",
            "env": [{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://spanreel.spanreel:4318"}],
        })).collect::<Vec<_>>()},
        "status": {
            "podIP": ADDRESS,
            "containerStatuses": containers.iter().map(|(name, state)| json!({
                "name": name, "state": state, "ready": true, "restartCount": 0, "image": "", "imageID": "",
            })).collect::<Vec<_>>(),
        },
    });
    if injected {
        pod["metadata"]["annotations"]["spanreel.dev/injection"] = record.into();
    }
    pod
}

fn apply(line: &LifeLine, pod: &Value) {
    line.on_pod(&Event::Apply(read(pod)), |_| None);
}

fn read(pod: &Value) -> Pod {
    serde_json::from_value(pod.clone()).unwrap()
}

fn peer(address: &str) -> IpAddr {
    address.parse().unwrap()
}

/// By uid, from an address that is nobody's.
fn speak(line: &LifeLine, uid: &str, container: Option<&str>, seconds: i64) {
    line.spoke_at(peer("192.0.2.9"), &Speaker { pod_uid: Some(uid), container, ..Speaker::default() }, at(seconds));
}

fn life(line: &LifeLine, seconds: i64) -> Life {
    line.life_at("u", at(seconds)).unwrap()
}

fn state(line: &LifeLine, seconds: i64) -> LifeState {
    life(line, seconds).state
}

fn cause(line: &LifeLine) -> String {
    life(line, 1000).likely_cause.unwrap()
}

#[test]
fn a_pod_goes_through_its_states() {
    let line = line();
    apply(&line, &pod("u", true, &[("app", json!({"waiting": {"reason": "PodInitializing"}}))]));
    assert_eq!(state(&line, 5), LifeState::Injected);
    assert_eq!(state(&line, 5000), LifeState::Injected, "what does not run is not silent");
    apply(&line, &pod("u", true, &[("app", running(100))]));
    assert_eq!(state(&line, 399), LifeState::Started);
    assert_eq!(state(&line, 400), LifeState::Silent);
    speak(&line, "u", None, 410);
    assert_eq!(state(&line, 411), LifeState::Speaking);
    speak(&line, "u", None, 500);
    assert_eq!(state(&line, 799), LifeState::Speaking);
    assert_eq!(
        life(&line, 800),
        Life {
            state: LifeState::Silent,
            first_span: Some(at(410)),
            last_span: Some(at(500)),
            likely_cause: Some(
                "it has sent spans before; if it has work to do, its log tells why it stopped".to_owned()
            ),
        }
    );
    // A restarted container gets its time again, and so does a pod that the watch only brings anew.
    apply(&line, &pod("u", true, &[("app", running(900))]));
    assert_eq!(state(&line, 1000), LifeState::Started);
    assert_eq!(life(&line, 1000).last_span, Some(at(500)), "what was heard stays");
    line.on_pod(&Event::Delete(read(&pod("u", true, &[("app", running(900))]))), |_| None);
    assert_eq!(line.life_at("u", at(1000)), None);
}

#[test]
fn after_our_restart_nobody_is_silent_before_being_listened_to() {
    let line = line();
    apply(&line, &pod("u", true, &[("app", running(-100_000))]));
    assert_eq!(state(&line, 299), LifeState::Started);
    assert!(line.round(at(299)).is_empty());
    assert_eq!(state(&line, 300), LifeState::Silent);
}

#[test]
fn a_pod_that_asked_in_vain_is_told_from_one_that_was_injected() {
    let line = line();
    apply(&line, &pod("u", false, &[("app", running(0))]));
    assert_eq!(state(&line, 10), LifeState::Asked);
    assert_eq!(life(&line, 10).likely_cause, None);
    assert_eq!(state(&line, 1000), LifeState::Asked);
    assert!(cause(&line).contains("created without instrumentation"));
    speak(&line, "u", None, 1001);
    assert_eq!(state(&line, 1002), LifeState::Speaking, "by an SDK of its own");
}

#[test]
fn whoever_asks_nothing_is_not_kept() {
    let line = line();
    let mut other = pod("u", false, &[("app", running(0))]);
    other["metadata"]["annotations"] = json!({});
    apply(&line, &other);
    assert_eq!(line.entries(), 0);

    let asks = BTreeMap::from([("instrumentation.opentelemetry.io/inject-java".to_owned(), "true".to_owned())]);
    let asks = Arc::new(asks);
    line.on_pod(&Event::Apply(read(&other)), |namespace| (namespace == "n").then(|| Arc::clone(&asks)));
    assert_eq!(state(&line, 1), LifeState::Asked, "its namespace asks");

    other["metadata"]["deletionTimestamp"] = at(5).to_string().into();
    line.on_pod(&Event::Apply(read(&other)), |_| Some(Arc::clone(&asks)));
    assert_eq!(line.life_at("u", at(6)), None, "it is on its way out");
}

#[test]
fn containers_are_told_apart_when_spans_name_them() {
    let line = line();
    apply(&line, &pod("u", true, &[("app", running(0)), ("web", running(0))]));
    let states = |seconds| -> Vec<(String, LifeState)> {
        line.containers_at("u", at(seconds)).into_iter().map(|it| (it.container, it.life.state)).collect()
    };
    let (app, web) = ("app".to_owned(), "web".to_owned());
    speak(&line, "u", Some("app"), 350);
    assert_eq!(states(360), [(app.clone(), LifeState::Speaking), (web.clone(), LifeState::Silent)]);
    assert_eq!(state(&line, 360), LifeState::Silent);
    let notes = line.round(at(360));
    assert!(notes[0].message.contains("container web"), "{}", notes[0].message);
    // Who does not say which container it is may be any.
    speak(&line, "u", None, 370);
    assert_eq!(states(380), [(app, LifeState::Speaking), (web, LifeState::Speaking)]);
}

#[test]
fn who_speaks_is_found_by_uid_then_name_then_address() {
    let heard = |speaker: Speaker<'_>, from: &str| {
        let line = line();
        apply(&line, &pod("u", true, &[("app", running(0))]));
        line.spoke_at(peer(from), &speaker, at(1));
        life(&line, 2).last_span.is_some()
    };
    let none = Speaker::default();
    let name = Speaker { pod_name: Some("shop-6d4-u"), namespace: Some("n"), ..none };
    assert!(heard(Speaker { pod_uid: Some("u"), ..none }, "192.0.2.9"));
    assert!(!heard(Speaker { pod_uid: Some("other"), ..name }, ADDRESS), "a uid that is not known is somebody else's");
    assert!(heard(name, "192.0.2.9"));
    assert!(!heard(Speaker { namespace: Some("m"), ..name }, ADDRESS));
    assert!(heard(Speaker { namespace: None, ..name }, ADDRESS), "a name alone says nothing");
    assert!(heard(none, ADDRESS));
    assert!(!heard(none, "10.0.0.8"));
}

#[test]
fn pods_on_their_nodes_network_have_no_address_of_their_own() {
    let line = line();
    let mut shared = pod("u", true, &[("app", running(0))]);
    shared["spec"]["hostNetwork"] = true.into();
    apply(&line, &shared);
    line.spoke_at(peer(ADDRESS), &Speaker::default(), at(1));
    assert_eq!(life(&line, 2).last_span, None);
    assert!(cause(&line).contains("shares its node's address"), "{}", cause(&line));
}

#[test]
fn a_pod_is_found_by_each_of_its_addresses_and_only_by_its_present_ones() {
    let line = line();
    let with = |addresses: &[&str]| {
        let mut pod = pod("u", true, &[("app", running(0))]);
        pod["status"]["podIPs"] = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        pod["status"]["podIP"] = addresses[0].into();
        pod
    };
    apply(&line, &with(&["10.0.0.7", "fd00::7"]));
    line.spoke_at(peer("fd00::7"), &Speaker::default(), at(1));
    assert_eq!(life(&line, 2).last_span, Some(at(1)));
    apply(&line, &with(&["10.0.0.9"]));
    line.spoke_at(peer("fd00::7"), &Speaker::default(), at(3));
    line.spoke_at(peer("10.0.0.7"), &Speaker::default(), at(3));
    assert_eq!(life(&line, 4).last_span, Some(at(1)));
    line.spoke_at(peer("10.0.0.9"), &Speaker::default(), at(5));
    assert_eq!(life(&line, 6).last_span, Some(at(5)));
}

#[test]
fn an_address_is_the_pods_that_got_it_last() {
    let line = line();
    let old = pod("old", true, &[("app", running(0))]);
    apply(&line, &old);
    apply(&line, &pod("u", true, &[("app", running(1))]));
    apply(&line, &old);
    line.on_pod(&Event::Delete(read(&old)), |_| None);
    line.spoke_at(peer(ADDRESS), &Speaker::default(), at(2));
    assert_eq!(state(&line, 3), LifeState::Speaking);
}

#[test]
fn clients_add_nothing_however_much_they_claim() {
    let line = line();
    apply(&line, &pod("u", true, &[("app", running(0))]));
    let before = line.entries();
    for number in 0..5000u32 {
        let (uid, name) = (format!("uid-{number}"), format!("pod-{number}"));
        let from = IpAddr::from(number.to_be_bytes());
        line.connected(from);
        line.refused(from, "bad_data");
        line.other_signal(from, Signal::Logs);
        line.spoke(from, &Speaker { pod_uid: Some(&uid), ..Speaker::default() });
        line.spoke(from, &Speaker { pod_name: Some(&name), namespace: Some(&name), ..Speaker::default() });
        line.spoke(from, &Speaker { pod_uid: Some("u"), container: Some(&name), ..Speaker::default() });
    }
    assert!(line.entries() <= before + 1024, "{}", line.entries());
}

#[test]
fn what_is_kept_of_a_pod_is_short_whatever_its_author_wrote() {
    let line = line();
    let mut pod = pod("u", true, &[("app", running(0))]);
    let endpoint = format!("http://{}", "ä".repeat(400_000));
    pod["spec"]["containers"][0]["env"] = json!([
        {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": endpoint},
        {"name": "OTEL_TRACES_EXPORTER", "value": "x".repeat(400_000)},
    ]);
    apply(&line, &pod);
    let kept = format!("{line:?}").len();
    assert!(kept < 16 * 1024, "{kept}");
}

#[test]
fn a_list_lets_go_of_what_is_gone_and_keeps_what_was_heard() {
    let line = line();
    for uid in ["u", "gone"] {
        apply(&line, &pod(uid, true, &[("app", running(0))]));
        speak(&line, uid, None, 5);
    }
    line.on_pod(&Event::Init, |_| None);
    line.on_pod(&Event::InitApply(read(&pod("u", true, &[("app", running(0))]))), |_| None);
    assert!(line.life_at("gone", at(6)).is_some(), "the old list counts until the new one is whole");
    line.on_pod(&Event::InitDone, |_| None);
    assert_eq!(line.life_at("gone", at(6)), None);
    assert_eq!(life(&line, 6).last_span, Some(at(5)));
    line.on_pod(&Event::Init, |_| None);
    line.on_pod(&Event::InitDone, |_| None);
    assert_eq!(line.entries(), 0, "texts and addresses go with their pods");
}

#[test]
fn a_workload_whose_pods_never_spoke_gets_one_event() {
    let line = line();
    for uid in ["a", "b"] {
        apply(&line, &pod(uid, true, &[("app", running(0))]));
    }
    assert!(line.round(at(299)).is_empty());
    let notes = line.round(at(301));
    assert_eq!(notes.len(), 1);
    assert_eq!((notes[0].kind, notes[0].reason), (NoteKind::Warning, "NeverSpoke"));
    let regarding = &notes[0].regarding;
    assert_eq!((regarding.kind.as_deref(), regarding.name.as_deref()), (Some("Deployment"), Some("shop")));
    assert!(notes[0].message.contains("Pod shop-6d4-a (and 1 more), container app"), "{}", notes[0].message);
    assert!(line.round(at(302)).is_empty(), "it is said once");
    // Who spoke once and fell silent is counted, but may just have nothing to do.
    apply(&line, &pod("c", true, &[("app", running(0))]));
    speak(&line, "c", None, 310);
    assert!(line.round(at(900)).is_empty());
    let census = line.census(at(900));
    assert_eq!((census.never_spoke, census.fell_silent), (2, 1));
    assert_eq!(census.workloads, BTreeMap::from([(LifeState::Silent, 1)]));
}

/// An agent's image that cannot be pulled is the commonest reason of all.
#[test]
fn a_pod_that_does_not_get_to_run_is_reported_too() {
    let line = line();
    let waiting = |reason: &str| json!({"waiting": {"reason": reason}});
    let mut blocked = pod("blocked", true, &[("app", waiting("PodInitializing"))]);
    blocked["status"]["initContainerStatuses"] = json!([{
        "name": "opentelemetry-auto-instrumentation-java", "ready": false, "restartCount": 0, "image": "", "imageID": "",
        "state": {"waiting": {"reason": "ImagePullBackOff"}},
    }]);
    apply(&line, &blocked);
    assert!(line.round(at(299)).is_empty());
    let notes = line.round(at(301));
    assert_eq!(notes.len(), 1);
    assert!(notes[0].message.contains("ImagePullBackOff"), "{}", notes[0].message);
    assert_eq!(line.census(at(301)).never_spoke, 1);

    apply(&line, &pod("crashing", true, &[("app", waiting("CrashLoopBackOff"))]));
    let notes = line.round(at(302));
    assert_eq!(notes.len(), 1);
    assert!(notes[0].message.contains("crashes again and again"), "{}", notes[0].message);

    // These are on their way, or have done what they were there for.
    let done = json!({"terminated": {"reason": "Completed", "exitCode": 0}});
    for (number, state) in [waiting("PodInitializing"), waiting("ContainerCreating"), done].into_iter().enumerate() {
        let uid = format!("fine{number}");
        apply(&line, &pod(&uid, true, &[("app", state)]));
        assert!(line.round(at(5000)).is_empty(), "{uid}");
        assert_eq!(line.life_at(&uid, at(5000)).unwrap().likely_cause, None);
    }
}

#[test]
fn the_likely_cause_follows_the_evidence() {
    let with_env = |name: &str, value: &str| {
        let mut pod = pod("u", true, &[("app", running(0))]);
        pod["spec"]["containers"][0]["env"] = json!([{"name": name, "value": value}]);
        pod
    };
    let line = line();
    let plain = pod("u", true, &[("app", running(0))]);
    apply(&line, &plain);
    let unheard = cause(&line);
    assert!(unheard.starts_with("no connection came from 10.0.0.7: the agent did not start"), "{unheard}");

    apply(&line, &with_env("OTEL_TRACES_SAMPLER", "always_off"));
    assert!(cause(&line).contains("always_off"));
    for (endpoint, said) in [
        ("http://localhost:4318", "which is the pod itself"),
        ("http://collector.other:4318", "if that does not lead to Spanreel"),
        ("http://spanreel.spanreel:9999", "4317 and 4318"),
        ("$(COLLECTOR)", "check that OTEL_EXPORTER_OTLP_ENDPOINT leads to http://spanreel.spanreel:4318"),
    ] {
        apply(&line, &with_env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint));
        assert!(cause(&line).contains(said), "{endpoint}: {}", cause(&line));
    }
    apply(&line, &with_env("OTHER", "x"));
    assert!(cause(&line).contains("no endpoint is set"));

    let mut node = plain.clone();
    node["spec"]["containers"][0]["image"] = "node:20".into();
    apply(&line, &node);
    assert!(cause(&line).contains("agent is for java and the image or command looks like nodejs"));

    apply(&line, &plain);
    line.connected(peer("::ffff:10.0.0.7").to_canonical());
    assert!(cause(&line).contains("it connected from 10.0.0.7"));
    line.other_signal(peer(ADDRESS), Signal::Metrics);
    assert!(cause(&line).contains("metrics or logs come from 10.0.0.7 and no spans"));
    line.refused(peer(ADDRESS), "bad_data");
    assert!(cause(&line).contains("1 requests from 10.0.0.7 were refused, the last one as bad_data"));

    apply(&line, &pod("u", true, &[("app", json!({"waiting": {"reason": "CrashLoopBackOff"}}))]));
    assert!(cause(&line).contains("crashes again and again"));
    let mut blocked = pod("u", true, &[("app", json!({"waiting": {"reason": "PodInitializing"}}))]);
    blocked["status"]["initContainerStatuses"] = json!([{
        "name": "opentelemetry-auto-instrumentation-java", "ready": false, "restartCount": 0, "image": "", "imageID": "",
        "state": {"waiting": {"reason": "ImagePullBackOff"}},
    }]);
    apply(&line, &blocked);
    assert!(cause(&line).contains("opentelemetry-auto-instrumentation-java does not get on (ImagePullBackOff)"));
}

#[test]
fn an_agent_faster_than_the_watch_has_connected_all_the_same() {
    let line = line();
    line.connected(peer(ADDRESS));
    let mut late = pod("u", true, &[("app", running(0))]);
    late["metadata"]["creationTimestamp"] = Timestamp::from_second(1).unwrap().to_string().into();
    apply(&line, &late);
    assert!(cause(&line).contains("it connected from 10.0.0.7"), "{}", cause(&line));
}

#[test]
fn there_is_a_bound_and_it_is_counted() {
    let line = line();
    let mut pod = read(&pod("u", true, &[("app", running(0))]));
    for number in 0..=super::index::PODS_MAX {
        pod.metadata.uid = Some(format!("u{number}"));
        pod.metadata.name = Some(format!("p{number}"));
        pod.status.as_mut().unwrap().pod_ip = Some(std::net::Ipv4Addr::from(number as u32).to_string());
        line.on_pod(&Event::Apply(pod.clone()), |_| None);
    }
    let census = line.census(at(1));
    assert_eq!(census.left_out, 1);
    assert_eq!(census.pods.values().sum::<u64>(), super::index::PODS_MAX as u64);
}

#[test]
fn metrics_tell_states_and_bound_namespaces() {
    let line = line();
    for number in 0..120 {
        let mut pod = pod(&format!("u{number}"), true, &[("app", running(0))]);
        pod["metadata"]["namespace"] = format!("n{number:03}").into();
        apply(&line, &pod);
    }
    let mut registry = prometheus_client::registry::Registry::default();
    line.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    // The clock of the test lies in the future, so nobody has been listened to for long.
    assert!(text.contains("spanreel_workloads{state=\"started\"} 120"), "{text}");
    assert!(text.contains("spanreel_pods{namespace=\"n099\",state=\"started\"} 1"), "{text}");
    assert!(text.contains("spanreel_pods{namespace=\"other\",state=\"started\"} 20"), "{text}");
    assert!(text.contains("spanreel_silent_pods{heard=\"never\"} 0"), "{text}");
    assert!(text.contains("spanreel_pods_left_out_total 0"), "{text}");
    assert_eq!(line.summary()["workloads"], 120);
    assert_eq!(line.summary()["pods"]["started"], 120);
}

/// One thing that a watch may bring, about few pods that share names and addresses.
fn any_event() -> impl Strategy<Value = Event<Pod>> {
    // A uid has one name for good; the next pod of that name has another uid.
    let some_pod = (0..4u8, 0..3u8, any::<bool>()).prop_map(|(uid, address, asks)| {
        let mut pod = pod(&format!("u{uid}"), asks, &[("app", running(0))]);
        pod["metadata"]["name"] = format!("p{}", uid % 2).into();
        pod["status"]["podIP"] = format!("10.0.0.{address}").into();
        if !asks {
            pod["metadata"]["annotations"] = json!({});
        }
        read(&pod)
    });
    (0..8u8, some_pod).prop_map(|(kind, pod)| match kind {
        0 => Event::Init,
        1 => Event::InitDone,
        2 | 3 => Event::InitApply(pod),
        4 => Event::Delete(pod),
        _ => Event::Apply(pod),
    })
}

proptest! {
    #[test]
    fn whatever_the_watch_brings_an_empty_list_leaves_nothing(events in proptest::collection::vec(any_event(), 0..60)) {
        let line = line();
        for event in &events {
            line.on_pod(event, |_| None);
            for address in 0..3 {
                // An address leads to a pod that has it, or nowhere.
                let address = format!("10.0.0.{address}");
                prop_assert!(line.addresses_of_who_is_at(peer(&address)).is_none_or(|all| all.contains(&peer(&address))));
            }
        }
        line.on_pod(&Event::Init, |_| None);
        line.on_pod(&Event::InitDone, |_| None);
        prop_assert_eq!(line.entries(), 0);
    }
}
