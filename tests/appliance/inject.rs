//! Injected pods, each written by hand from opentelemetry-operator's rules: `tests/data/inject/*.yaml`.
//!
//! A file has what the cluster holds (`instrumentations`, `namespaceAnnotations`, `owners`, `absent`), Spanreel's own
//! `settings` where they are not the defaults, the pod as it is created, and what is expected: `expected`, the pod as it
//! is stored (`null`: unchanged), one line per outcome, and texts that the warnings contain. Scripts of init containers
//! stand there by the names of their files.
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde::Deserialize;
use serde_json::Value;
use spanreel::inject::{
    Catalog, Delivery, Instrumentation, Language, OwnerMap, PodRequest, Settings, TlsObject, TlsObjectKind, View,
    decide, look_ups, patch,
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Case {
    /// What is peculiar.
    #[allow(dead_code)]
    about: String,
    #[serde(default)]
    settings: SettingsFile,
    #[serde(default)]
    namespace_annotations: BTreeMap<String, String>,
    #[serde(default)]
    instrumentations: Vec<InstrumentationFile>,
    #[serde(default)]
    owners: Vec<OwnerFile>,
    #[serde(default)]
    absent_secrets: Vec<String>,
    pod: Value,
    expected: Value,
    outcomes: Vec<String>,
    #[serde(default)]
    warnings: Vec<String>,
}

/// As under `extensions::spanreel::injection`; what the server can do stands beside it.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct SettingsFile {
    languages: BTreeMap<String, bool>,
    multi_instrumentation: Option<bool>,
    strict_operator_compat: bool,
    images: BTreeMap<String, String>,
    delivery: String,
    image_volumes_served: bool,
}

impl SettingsFile {
    fn settings(&self) -> Settings {
        let mut settings = Settings {
            strict_operator_compat: self.strict_operator_compat,
            image_volumes_served: self.image_volumes_served,
            ..Settings::default()
        };
        settings.multi_instrumentation = self.multi_instrumentation.unwrap_or(settings.multi_instrumentation);
        settings.delivery = match self.delivery.as_str() {
            "" | "init" => Delivery::InitContainer,
            "image-volume" => Delivery::ImageVolume,
            "auto" => Delivery::Auto,
            other => panic!("delivery {other}"),
        };
        for (name, on) in &self.languages {
            let language = Language::ALL.into_iter().find(|l| l.as_str() == name).expect("a language");
            settings.languages.retain(|other| *other != language);
            settings.languages.extend(on.then_some(language));
        }
        for (language, image) in &self.images {
            let place = match language.as_str() {
                "java" => &mut settings.images.java,
                "nodejs" => &mut settings.images.nodejs,
                "python" => &mut settings.images.python,
                "dotnet" => &mut settings.images.dotnet,
                "go" => &mut settings.images.go,
                "apache-httpd" => &mut settings.images.apache_httpd,
                "nginx" => &mut settings.images.nginx,
                other => panic!("image of {other}"),
            };
            place.clone_from(image);
        }
        settings
    }
}

#[derive(Deserialize)]
struct InstrumentationFile {
    namespace: String,
    name: String,
    #[serde(default)]
    spec: Value,
}

/// A ReplicaSet or Job and its owners.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OwnerFile {
    name: String,
    owner_references: Vec<OwnerReference>,
}

use crate::scripts::name_scripts;

const NAMESPACE: &str = "shop";

#[test]
fn every_case_of_the_data_folder() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/inject");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 10, "the cases are missing: {files:?}");
    let failures: Vec<String> = files.iter().filter_map(|file| check(file).err()).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

fn check(file: &Path) -> Result<(), String> {
    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    let text = std::fs::read_to_string(file).unwrap();
    let case: Case = serde_saphyr::from_str(&text).map_err(|e| format!("{name}: {e}"))?;
    let pod: Pod = serde_json::from_value(case.pod.clone()).map_err(|e| format!("{name}: pod: {e}"))?;

    let mut catalog = Catalog::default();
    for i in case.instrumentations {
        let entry = Instrumentation::read(&i.namespace, &i.name, 1, i.spec).map(Arc::new);
        catalog.insert(&i.namespace, &i.name, entry);
    }
    let request = PodRequest { pod: &pod, namespace: NAMESPACE, namespace_annotations: &case.namespace_annotations };
    let built_in = Instrumentation::built_in("http://spanreel.spanreel:4318");
    let settings = case.settings.settings();
    let first =
        View { settings: &settings, catalog: &catalog, built_in: &built_in, owners: &OwnerMap::new(), absent: &[] };
    // As the cluster room does it: look up what is wanted, as far as it exists.
    let wanted = look_ups(&request, &first);
    let mut owners = OwnerMap::new();
    for key in wanted.owners {
        if let Some(file) = case.owners.iter().find(|file| file.name == key.name) {
            owners.insert(key, file.owner_references.clone());
        }
    }
    let is_absent = |o: &TlsObject| o.kind == TlsObjectKind::Secret && case.absent_secrets.contains(&o.name);
    let absent: Vec<TlsObject> = wanted.tls.into_iter().filter(is_absent).collect();
    let view = View { owners: &owners, absent: &absent, ..first };
    let decision = decide(&request, &view);

    let outcomes: Vec<String> = decision
        .outcomes
        .iter()
        .map(|o| {
            let container = o.container.as_deref().unwrap_or("-");
            format!("{} {container} {} {}", o.language, o.verdict.as_str(), o.reason.as_str())
        })
        .collect();
    if outcomes != case.outcomes {
        return Err(format!("{name}: outcomes {outcomes:#?}\nexpected {:#?}", case.outcomes));
    }
    let warnings = decision.warnings();
    if warnings.len() != case.warnings.len() || !warnings.iter().zip(&case.warnings).all(|(w, text)| w.contains(text)) {
        return Err(format!("{name}: warnings {warnings:#?}\nexpected {:#?}", case.warnings));
    }
    let Some(mutated) = &decision.pod else {
        return if case.expected.is_null() { Ok(()) } else { Err(format!("{name}: the pod was not changed")) };
    };
    let patch = patch(&case.pod, &pod, mutated).unwrap();
    let mut stored = case.pod.clone();
    json_patch::patch(&mut stored, &patch).unwrap();
    name_scripts(&mut stored);
    if stored != case.expected {
        let difference = json_patch::diff(&case.expected, &stored);
        let stored = serde_saphyr::to_string(&stored).unwrap();
        return Err(format!("{name}: the stored pod is\n{stored}\nfrom expected to stored: {difference:#}"));
    }
    let again = PodRequest { pod: mutated, ..request };
    let second = decide(&again, &view);
    if second.pod.is_some() { Err(format!("{name}: injected twice")) } else { Ok(()) }
}
