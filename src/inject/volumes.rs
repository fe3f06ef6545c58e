//! Volumes and mounts of the agent beside those that the pod has already.

use k8s_openapi::api::core::v1::{
    Container, EmptyDirVolumeSource, EphemeralVolumeSource, PersistentVolumeClaimTemplate, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::outcome::{Reason, Refusal};
use super::quantity;

/// `volumeLimitSize` where the Instrumentation sets none.
const VOLUME_LIMIT_DEFAULT: &str = "200Mi";

/// The volume that agents are copied to: an emptyDir, or what the claim template says.
pub(super) fn agent_volume(
    name: &str,
    claim: Option<&PersistentVolumeClaimTemplate>,
    limit: Option<&Quantity>,
) -> Volume {
    let name = name.to_owned();
    match claim {
        Some(template) => {
            let source = EphemeralVolumeSource { volume_claim_template: Some(template.clone()) };
            Volume { name, ephemeral: Some(source), ..Volume::default() }
        }
        None => {
            let limit = limit.cloned().unwrap_or_else(|| Quantity(VOLUME_LIMIT_DEFAULT.to_owned()));
            let source = EmptyDirVolumeSource { size_limit: Some(limit), ..EmptyDirVolumeSource::default() };
            Volume { name, empty_dir: Some(source), ..Volume::default() }
        }
    }
}

/// Whether `present` is the agent's volume, left by an earlier injection whose other traces somebody removed. The API
/// server fills in defaults and writes quantities its own way.
pub(super) fn is_same(present: &Volume, ours: &Volume) -> bool {
    let amount = |quantity: &Option<Quantity>| quantity.as_ref().and_then(quantity::value);
    if present.name != ours.name {
        return false;
    }
    if let (Some(present), Some(ours)) = (&present.image, &ours.image) {
        return present.reference == ours.reference;
    }
    match (&present.empty_dir, &ours.empty_dir, &present.ephemeral, &ours.ephemeral) {
        (Some(a), Some(b), None, None) => {
            a.medium.as_deref().unwrap_or_default() == b.medium.as_deref().unwrap_or_default()
                && amount(&a.size_limit) == amount(&b.size_limit)
        }
        (None, None, Some(a), Some(b)) => {
            let claim = |source: &EphemeralVolumeSource| {
                let claim = &source.volume_claim_template.as_ref()?.spec;
                let storage = claim.resources.as_ref().and_then(|r| r.requests.as_ref()?.get("storage").cloned());
                Some((claim.access_modes.clone(), claim.storage_class_name.clone(), amount(&storage)))
            };
            claim(a) == claim(b)
        }
        _ => false,
    }
}

/// What occupies a path in a container: a volume by name. A trailing slash makes no other place.
fn occupant<'a>(container: &'a Container, path: &str) -> Option<(&'a str, Option<&'a VolumeMount>)> {
    let same = |other: &str| other.trim_end_matches('/') == path.trim_end_matches('/');
    let mount = container.volume_mounts.iter().flatten().find(|mount| same(&mount.mount_path));
    let device = || container.volume_devices.iter().flatten().find(|device| same(&device.device_path));
    mount.map(|mount| (mount.name.as_str(), Some(mount))).or_else(|| device().map(|d| (d.name.as_str(), None)))
}

/// Mounts a volume, or finds it mounted there. Two mounts at one path make a pod invalid, and what the author mounts
/// there has not the files that ours has.
///
/// # Errors
/// Something that is not `is_ours` (a volume's name) is at that path.
pub(super) fn mount(
    container: &mut Container,
    wanted: VolumeMount,
    is_ours: impl Fn(&str) -> bool,
) -> Result<(), Refusal> {
    let path = &wanted.mount_path;
    match occupant(container, path) {
        Some((name, Some(mount)))
            if is_ours(name) && mount.sub_path == wanted.sub_path && mount.sub_path_expr.is_none() =>
        {
            return Ok(());
        }
        Some((name, _)) => {
            let message =
                format!("container {} has volume {name} at {path}, a path that is needed; move it", container.name);
            return Err(Refusal::new(Reason::MountPathTaken, message));
        }
        None => {}
    }
    container.volume_mounts.get_or_insert_default().push(wanted);
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn volume(value: Value) -> Volume {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn our_volume_is_known_again_as_the_api_server_stores_it() {
        let limit = Quantity("1024Mi".to_owned());
        let ours = agent_volume("a", None, Some(&limit));
        assert!(is_same(&volume(json!({"name": "a", "emptyDir": {"sizeLimit": "1Gi"}})), &ours));
        for other in [
            json!({"name": "b", "emptyDir": {"sizeLimit": "1Gi"}}),
            json!({"name": "a", "emptyDir": {"sizeLimit": "1Mi"}}),
            json!({"name": "a", "emptyDir": {"sizeLimit": "1Gi", "medium": "Memory"}}),
            json!({"name": "a", "configMap": {"name": "c"}}),
        ] {
            assert!(!is_same(&volume(other.clone()), &ours), "{other}");
        }
        let claim = |mode: Value| {
            let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "volumeMode": mode});
            json!({"spec": spec})
        };
        let template = serde_json::from_value(claim(Value::Null)).unwrap();
        let stored = json!({"name": "a", "ephemeral": {"volumeClaimTemplate": claim(json!("Filesystem"))}});
        assert!(is_same(&volume(stored), &agent_volume("a", Some(&template), None)));
    }

    #[test]
    fn an_occupied_path_is_refused_unless_the_volume_is_ours() {
        for (container, expected) in [
            (json!({"name": "c"}), Some(1)),
            (json!({"name": "c", "volumeMounts": [{"name": "ours", "mountPath": "/p"}]}), Some(1)),
            (json!({"name": "c", "volumeMounts": [{"name": "other", "mountPath": "/q"}]}), Some(2)),
            (json!({"name": "c", "volumeMounts": [{"name": "other", "mountPath": "/p"}]}), None),
            (json!({"name": "c", "volumeMounts": [{"name": "other", "mountPath": "/p/"}]}), None),
            (json!({"name": "c", "volumeMounts": [{"name": "ours", "mountPath": "/p", "subPath": "x"}]}), None),
            (json!({"name": "c", "volumeDevices": [{"name": "other", "devicePath": "/p"}]}), None),
        ] {
            let mut changed: Container = serde_json::from_value(container.clone()).unwrap();
            let wanted = VolumeMount { name: "ours".to_owned(), mount_path: "/p".to_owned(), ..VolumeMount::default() };
            let mounted = mount(&mut changed, wanted, |name| name == "ours");
            assert_eq!(mounted.ok().map(|()| changed.volume_mounts.unwrap().len()), expected, "{container}");
        }
    }
}
