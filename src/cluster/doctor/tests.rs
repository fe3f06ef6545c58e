//! Every reason has its line, and every way in which a pod can stand is told from the others.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::judge::{self, Detail, Member, Present};
use super::prospect::Prospect;
use super::remedy::{self, Site};
use super::report::{Condition, WorkloadReport};
use super::*;
use crate::cluster::life::{Fix, Life, LifeState};
use crate::cluster::workloads::Workload;
use crate::inject::{
    self, Catalog, Decision, Instrumentation, Language, Outcome, OwnerMap, PodRequest, Reason, Settings, Verdict, View,
};

const JAVA: &str = "instrumentation.opentelemetry.io/inject-java";

/// What a cluster with Instrumentation `shop/main` in some generation would decide.
struct World {
    catalog: Catalog,
    settings: Settings,
    built_in: Instrumentation,
    owners: OwnerMap,
    namespace: BTreeMap<String, String>,
}

impl World {
    fn new(generation: i64) -> Self {
        let mut catalog = Catalog::default();
        let main = Instrumentation::read("shop", "main", generation, json!({})).unwrap();
        catalog.insert("shop", "main", Ok(main.into()));
        Self {
            catalog,
            settings: Settings::default(),
            built_in: Instrumentation::built_in("http://spanreel:4318"),
            owners: OwnerMap::new(),
            namespace: BTreeMap::new(),
        }
    }

    fn view(&self) -> View<'_> {
        View {
            settings: &self.settings,
            catalog: &self.catalog,
            built_in: &self.built_in,
            owners: &self.owners,
            absent: &[],
        }
    }

    fn decide(&self, pod: &Pod) -> Decision {
        inject::decide(&self.request(pod), &self.view())
    }

    fn request<'a>(&'a self, pod: &'a Pod) -> PodRequest<'a> {
        PodRequest { pod, namespace: "shop", namespace_annotations: &self.namespace }
    }

    fn prospect(&self, template: &Pod) -> Prospect {
        let decision = self.decide(template);
        Prospect::new(workload("Deployment"), &self.request(template), &BTreeMap::new(), &decision, &self.view(), false)
    }

    /// How a pod of a Deployment stands beside the Deployment's template.
    fn judge(&self, template: &Pod, pod: &Pod, life: Option<LifeState>) -> WorkloadReport {
        let lives = Same(life);
        let present = Present { lives: &lives, catalog: &self.catalog };
        judge::workload(&self.prospect(template), &[Member::read(pod)], present, Detail::Full, &mut 0)
    }
}

/// Everybody is in the same state; silent ones have never spoken.
struct Same(Option<LifeState>);

impl Lives for Same {
    fn life(&self, _uid: &str) -> Option<Life> {
        let spoke = (self.0 == Some(LifeState::Speaking)).then(Timestamp::now);
        self.0.map(|state| Life { state, first_span: spoke, last_span: spoke, likely_cause: None })
    }
}

fn workload(kind: &'static str) -> Workload {
    Workload { kind, namespace: "shop".to_owned(), name: "web".to_owned() }
}

fn pod(annotations: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "web-1", "uid": "u", "annotations": annotations},
        "spec": {"containers": [{"name": "app", "image": "app"}, {"name": "proxy", "image": "proxy"}]},
    }))
    .unwrap()
}

#[test]
fn every_reason_has_one_line_for_every_kind() {
    let world = World::new(1);
    let pod = pod(json!({JAVA: "true"}));
    let (request, view) = (world.request(&pod), world.view());
    let wishes = inject::wishes(&request);
    for reason in Reason::ALL {
        for kind in ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "CronJob", "Job", "Pod"] {
            let workload = workload(kind);
            let site = Site { workload: &workload, request: &request, wishes: &wishes, view: &view };
            for language in Language::ALL {
                let outcome = Outcome {
                    language,
                    container: Some("app".to_owned()),
                    verdict: Verdict::Refused,
                    reason,
                    instrumentation: None,
                    generation: None,
                    message: "why".to_owned(),
                };
                let line = remedy::of_outcome(&outcome, &[], &site);
                assert!(line.len() > 20 && !line.contains('\n'), "{reason:?} {kind}: {line:?}");
                let command = line.starts_with("kubectl ") || line.starts_with("extensions::spanreel: ");
                let annotation = line.starts_with("instrumentation.opentelemetry.io/") && line.contains(": \"");
                assert!(command || annotation || line.starts_with("# "), "{reason:?} {kind}: {line}");
                assert!(!line.contains(": \"\""), "{reason:?} {kind}: an empty value: {line}");
            }
        }
    }
}

#[test]
fn reasons_are_listed_once() {
    let codes: std::collections::BTreeSet<&str> = Reason::ALL.into_iter().map(Reason::as_str).collect();
    assert_eq!(codes.len(), Reason::ALL.len());
}

#[test]
fn lines_fit_what_is_wrong() {
    let world = World::new(1);
    let line = |annotations: Value, spec: Value| {
        let mut pod = pod(annotations);
        if !spec.is_null() {
            pod.spec = serde_json::from_value(spec).unwrap();
        }
        world.prospect(&pod).decisions[0].remedy.clone()
    };
    let from_source = json!({"containers": [{"name": "app", "env": [
        {"name": "JAVA_TOOL_OPTIONS", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}]});
    assert_eq!(
        line(json!({JAVA: "true"}), from_source),
        "kubectl -n shop set env deployment/web -c app JAVA_TOOL_OPTIONS-  # or give it a plain value"
    );
    let twice = json!({JAVA: "true", "instrumentation.opentelemetry.io/java-container-names": "app,app"});
    assert!(line(twice, Value::Null).starts_with("instrumentation.opentelemetry.io/java-container-names: \"app\"  # "));
    let covered = json!({JAVA: "true", "instrumentation.opentelemetry.io/container-names": "app",
        "instrumentation.opentelemetry.io/java-container-names": "app"});
    assert!(line(covered, Value::Null).starts_with("kubectl -n shop edit deployment/web  # remove annotation "));
    let dotted = json!({JAVA: "true", "instrumentation.opentelemetry.io/container-names": "app.1"});
    assert!(line(dotted, Value::Null).starts_with("instrumentation.opentelemetry.io/container-names: \"app\"  # "));
    let off = json!({"instrumentation.opentelemetry.io/inject-go": "true"});
    assert!(line(off, Value::Null).contains("languages: {go: true}"));
    let musl = json!({"instrumentation.opentelemetry.io/inject-python": "true", "instrumentation.opentelemetry.io/otel-python-platform": "x"});
    assert!(
        line(musl, Value::Null).starts_with("instrumentation.opentelemetry.io/otel-python-platform: \"glibc\"  # ")
    );
    // What stops another language is what is to be mended.
    let culprit = json!({JAVA: "gone", "instrumentation.opentelemetry.io/inject-sdk": "true"});
    let prospect = world.prospect(&pod(culprit));
    assert_eq!(prospect.decisions[0].reason, "instrumentation_missing");
    assert_eq!(prospect.decisions[1].reason, "other_language_refused");
    assert_eq!(prospect.decisions[0].remedy, prospect.decisions[1].remedy);
}

#[test]
fn a_pod_stands_by_what_it_has_and_what_it_would_get() {
    let (first, second) = (World::new(1), World::new(2));
    let asks = pod(json!({JAVA: "main"}));
    let quiet = pod(json!({}));
    let lost = pod(json!({JAVA: "gone"}));
    let injected = first.decide(&asks).pod.unwrap();
    let stands = |world: &World, template: &Pod, pod: &Pod, life| world.judge(template, pod, life).condition;
    let speaking = Some(LifeState::Speaking);
    assert_eq!(stands(&first, &asks, &injected, speaking), Condition::Speaking);
    assert_eq!(stands(&first, &asks, &injected, Some(LifeState::Started)), Condition::Started);
    assert_eq!(stands(&first, &asks, &injected, Some(LifeState::Injected)), Condition::Injected);
    assert_eq!(stands(&first, &asks, &injected, None), Condition::Injected, "the watch may be behind");
    assert_eq!(stands(&first, &asks, &injected, Some(LifeState::Silent)), Condition::Silent);
    assert_eq!(stands(&second, &asks, &injected, speaking), Condition::Stale);
    assert_eq!(stands(&second, &asks, &injected, Some(LifeState::Silent)), Condition::Silent, "what hurts more");
    assert_eq!(stands(&first, &quiet, &injected, speaking), Condition::Unwanted);
    assert_eq!(stands(&first, &lost, &injected, speaking), Condition::RefusedNext);
    assert_eq!(stands(&first, &asks, &asks, None), Condition::Missed);
    assert_eq!(stands(&first, &lost, &lost, None), Condition::Refused);
    assert_eq!(stands(&first, &quiet, &quiet, None), Condition::NotAsked);

    let other = first.judge(
        &pod(json!({JAVA: "main", "instrumentation.opentelemetry.io/container-names": "proxy"})),
        &injected,
        speaking,
    );
    assert_eq!(other.condition, Condition::Missed, "proxy lacks what it would get");
    let stale = second.judge(&asks, &injected, speaking);
    let used = stale.examples[0].containers[0].instrumentation.clone().unwrap();
    assert_eq!((used.injected_generation, used.generation), (Some(1), Some(2)));
    assert_eq!(stale.remedy.as_deref(), Some("kubectl -n shop rollout restart deployment/web"));
}

#[test]
fn a_silence_whose_cause_is_known_has_its_own_line() {
    let used = |spec: Value| Instrumentation::read("shop", "main", 1, spec).unwrap();
    let line = |fix: Fix, used: Option<&Instrumentation>| {
        remedy::of_fix(&fix, &workload("Deployment"), &[], "web-1", "app", used)
    };
    let off = || Fix::NoVariable("OTEL_SDK_DISABLED".to_owned());
    let own = "kubectl -n shop set env deployment/web -c app OTEL_SDK_DISABLED-  # unless its image sets it";
    assert_eq!(line(off(), None), own);
    let switching = used(json!({"env": [{"name": "OTEL_SDK_DISABLED", "value": "true"}]}));
    assert!(
        line(off(), Some(&switching)).starts_with("kubectl -n shop edit otelinst main  # remove OTEL_SDK_DISABLED")
    );
    let never = used(json!({"sampler": {"type": "always_off"}, "exporter": {"endpoint": "http://localhost:4318"}}));
    assert_eq!(
        line(Fix::Sampler, Some(&never)),
        r#"kubectl -n shop patch otelinst main --type merge -p '{"spec":{"sampler":{"type":"parentbased_always_on"}}}'  # then restart"#
    );
    assert!(line(Fix::Sampler, None).contains("OTEL_TRACES_SAMPLER-"));
    let right = || Fix::Endpoint("http://spanreel.spanreel:4318".to_owned());
    assert!(line(right(), Some(&never)).contains(r#"{"exporter":{"endpoint":"http://spanreel.spanreel:4318"}}"#));
    assert!(line(right(), None).contains("OTEL_EXPORTER_OTLP_ENDPOINT-"));
    let wrong = |program| line(Fix::Language { instead_of: Language::Java, program }, None);
    assert!(wrong("nodejs").starts_with("instrumentation.opentelemetry.io/inject-nodejs: \"true\"  # "));
    assert!(wrong("ruby").starts_with("instrumentation.opentelemetry.io/inject-sdk: \"true\"  # "));
    assert_eq!(line(Fix::PreviousLog, None), "kubectl -n shop logs web-1 -c app --previous");
}

#[test]
fn who_was_injected_by_somebody_else_is_left_in_peace() {
    let world = World::new(1);
    let asks = pod(json!({JAVA: "main"}));
    let mut operators = world.decide(&asks).pod.unwrap();
    operators.metadata.annotations.as_mut().unwrap().remove(inject::RECORD_ANNOTATION);
    let report = world.judge(&asks, &operators, Some(LifeState::Speaking));
    assert_eq!(report.condition, Condition::Speaking);
    assert_eq!(report.remedy, None);
}

#[test]
fn where_a_request_stands_matters() {
    let world = World::new(1);
    let quiet = pod(json!({}));
    let prospect = |pod: &Pod, own: Value, excluded| {
        let own: BTreeMap<String, String> = serde_json::from_value(own).unwrap();
        let decision = world.decide(pod);
        let prospect =
            Prospect::new(workload("Deployment"), &world.request(pod), &own, &decision, &world.view(), excluded);
        let (condition, _, remedy) = prospect.without_pods();
        (condition, remedy)
    };
    let (condition, remedy) = prospect(&quiet, json!({JAVA: "true"}), false);
    assert_eq!(condition, Condition::Misplaced);
    assert!(
        remedy.unwrap().starts_with(&format!("{JAVA}: \"true\"  # annotation of the pod template of deployment/web"))
    );
    let asks = pod(json!({JAVA: "true"}));
    assert_eq!(prospect(&asks, json!({}), false), (Condition::Ready, None));
    assert_eq!(prospect(&asks, json!({}), true).0, Condition::Excluded);
    assert!(prospect(&quiet, json!({}), true).1.unwrap().contains("nothing in shop is ever injected"));
    let (condition, remedy) = prospect(&pod(json!({JAVA: "false"})), json!({}), false);
    assert_eq!(condition, Condition::NotAsked);
    assert!(remedy.unwrap().contains("it is \"false\""));
    let (condition, remedy) =
        prospect(&pod(json!({"instrumentation.opentelemetry.io/inject-node": "true"})), json!({}), false);
    assert_eq!(condition, Condition::Misspelt);
    assert!(remedy.unwrap().starts_with("instrumentation.opentelemetry.io/inject-nodejs: \"true\""));
}

#[test]
fn a_pod_of_its_own_tells_what_its_record_says() {
    let world = World::new(1);
    let injected = world.decide(&pod(json!({JAVA: "main"}))).pod.unwrap();
    let decision = world.decide(&injected);
    let prospect =
        Prospect::new(workload("Pod"), &world.request(&injected), &BTreeMap::new(), &decision, &world.view(), false);
    assert_eq!(
        prospect.decisions[0].message,
        "it was injected when it was created: java in app from shop/main, generation 1"
    );
    assert_eq!(prospect.decisions[0].remedy, "kubectl -n shop delete pod web  # and apply its manifest again");
}

#[test]
fn only_names_are_asked_for() {
    for name in ["web", "web-7f9c", "a.b", "WEB"] {
        assert!(is_name(name), "{name}");
    }
    for name in ["", "..", ".", "a b", "a/b", "a?b", "a%2e", &"a".repeat(300)] {
        assert!(!is_name(name), "{name}");
    }
}
