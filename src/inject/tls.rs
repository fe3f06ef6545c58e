//! The exporter's TLS files: a Secret and a ConfigMap of the pod's namespace, mounted.

use k8s_openapi::api::core::v1::{ConfigMapVolumeSource, Container, SecretVolumeSource, Volume, VolumeMount};

use super::InstrumentationSpec;
use super::environment::{Environment, literal};
use super::instrumentation::Tls;
use super::outcome::{Reason, Refusal};
use super::volumes::mount;

/// Volume names are DNS labels.
const VOLUME_NAME_BYTES_MAX: usize = 63;

/// A Secret or ConfigMap that an exporter's TLS section names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TlsObject {
    pub kind: TlsObjectKind,
    pub namespace: String,
    pub name: String,
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsObjectKind {
    Secret,
    ConfigMap,
}

impl TlsObjectKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
        }
    }
}

/// Objects that must exist in the pod's namespace, or its containers would never start.
pub(super) fn objects(spec: &InstrumentationSpec, namespace: &str) -> Vec<TlsObject> {
    let tls = &spec.exporter.tls;
    [(TlsObjectKind::Secret, &tls.secret_name), (TlsObjectKind::ConfigMap, &tls.config_map_name)]
        .into_iter()
        .filter(|(_, name)| !name.is_empty())
        .map(|(kind, name)| TlsObject { kind, namespace: namespace.to_owned(), name: name.clone() })
        .collect()
}

pub(super) fn check(spec: &InstrumentationSpec, namespace: &str, absent: &[TlsObject]) -> Result<(), Refusal> {
    let missing: Vec<String> = objects(spec, namespace)
        .iter()
        .filter(|object| absent.contains(object))
        .map(|object| format!("{} {namespace}/{}", object.kind.as_str(), object.name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let message =
        format!("spec.exporter.tls of the Instrumentation needs {}, which does not exist", missing.join(" and "));
    Err(Refusal::new(Reason::TlsObjectMissing, message))
}

/// Variables, volumes (once per pod) and mounts (once per container).
///
/// # Errors
/// The container has something else at one of the paths.
pub(super) fn apply(
    tls: &Tls,
    container: &mut Container,
    env: &mut Environment,
    volumes: &mut Vec<Volume>,
) -> Result<(), Refusal> {
    let secret_path = format!("/otel-auto-instrumentation-secret-{}", tls.secret_name);
    let config_map_path = format!("/otel-auto-instrumentation-configmap-{}", tls.config_map_name);
    if !tls.secret_name.is_empty() {
        let source = SecretVolumeSource { secret_name: Some(tls.secret_name.clone()), ..SecretVolumeSource::default() };
        let volume = Volume { secret: Some(source), ..Volume::default() };
        add(container, volumes, &format!("otel-auto-secret-{}", tls.secret_name), volume, &secret_path)?;
    }
    if !tls.config_map_name.is_empty() {
        let source = ConfigMapVolumeSource { name: tls.config_map_name.clone(), ..ConfigMapVolumeSource::default() };
        let volume = Volume { config_map: Some(source), ..Volume::default() };
        add(container, volumes, &format!("otel-auto-configmap-{}", tls.config_map_name), volume, &config_map_path)?;
    }
    let ca_directory = if tls.config_map_name.is_empty() { &secret_path } else { &config_map_path };
    for (name, directory, file) in [
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", ca_directory, &tls.ca_file),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", &secret_path, &tls.cert_file),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", &secret_path, &tls.key_file),
    ] {
        if !file.is_empty() {
            let path = if file.starts_with('/') { file.clone() } else { format!("{directory}/{file}") };
            env.push_absent(literal(name, path));
        }
    }
    Ok(())
}

/// Adds and mounts a volume. What the author mounted from the same source at that path serves as well.
fn add(
    container: &mut Container,
    volumes: &mut Vec<Volume>,
    wanted: &str,
    volume: Volume,
    path: &str,
) -> Result<(), Refusal> {
    let serves = |volumes: &[Volume], name: &str| volumes.iter().any(|v| v.name == name && same_source(v, &volume));
    let mounted = container.volume_mounts.iter().flatten().any(|m| m.mount_path == path && serves(volumes, &m.name));
    if mounted {
        return Ok(());
    }
    let name = add_volume(volumes, wanted, volume);
    let wanted = VolumeMount { name, mount_path: path.to_owned(), read_only: Some(true), ..VolumeMount::default() };
    mount(container, wanted, |_| false)
}

/// Adds the volume unless one with the same content is there; returns the name it has.
///
/// The operator only cuts names at 63 bytes. Names of Secrets may have dots, which volume names may not: they become
/// dashes, and two sources that end up with one name get a number.
fn add_volume(volumes: &mut Vec<Volume>, wanted: &str, volume: Volume) -> String {
    let mut number = 1;
    loop {
        let suffix = if number == 1 { String::new() } else { format!("-{number}") };
        let mut name: String = wanted
            .chars()
            .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' })
            .take(VOLUME_NAME_BYTES_MAX - suffix.len())
            .collect();
        name.truncate(name.trim_end_matches('-').len());
        name.push_str(&suffix);
        let named = Volume { name: name.clone(), ..volume.clone() };
        match volumes.iter().find(|present| present.name == name) {
            None => {
                volumes.push(named);
                return name;
            }
            Some(present) if same_source(present, &named) => return name,
            // Ends: a pod has a finite number of volumes.
            Some(_) => number += 1,
        }
    }
}

/// Compared by what they name: the API server fills in `defaultMode` on stored pods.
fn same_source(a: &Volume, b: &Volume) -> bool {
    let secret = |volume: &Volume| volume.secret.as_ref().and_then(|source| source.secret_name.clone());
    let config_map = |volume: &Volume| volume.config_map.as_ref().map(|source| source.name.clone());
    secret(a) == secret(b) && config_map(a) == config_map(b)
}
