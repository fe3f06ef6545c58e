//! Pod Security `restricted`: whether a pod passes it, and what our init containers need in order not to spoil that.
//!
//! The rules differ a little between versions of Kubernetes, and a namespace may name an old one. A pod counts as passing
//! here if it passes in any of them: then what is added must be without reproach in all.

use k8s_openapi::api::core::v1::{
    Capabilities, Container, Pod, PodSecurityContext, PodSpec, SELinuxOptions, SeccompProfile, SecurityContext, Volume,
};

/// The label by which a namespace refuses pods below a level of Pod Security.
pub const ENFORCE_LABEL: &str = "pod-security.kubernetes.io/enforce";

/// For images that run as root by default and pods that must not; the usual "nobody" of distroless images.
const USER: i64 = 65532;

const CAPABILITY_ALLOWED: &str = "NET_BIND_SERVICE";
/// What containers may add where a namespace enforces `baseline`.
const CAPABILITIES_BASELINE: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    CAPABILITY_ALLOWED,
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
const SELINUX_TYPES: [&str; 5] = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
const SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];
const APP_ARMOR_PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Whether the pod passes. Pods of Windows never count: most fields that would have to be set do not exist for them.
pub(super) fn is_restricted(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let annotations = pod.metadata.annotations.iter().flatten();
    let profile = |value: &str| ["", "runtime/default"].contains(&value) || value.starts_with("localhost/");
    annotations.into_iter().all(|(key, value)| !key.starts_with(APP_ARMOR_PREFIX) || profile(value))
        && spec.os.as_ref().is_none_or(|os| os.name != "windows")
        && [spec.host_network, spec.host_pid, spec.host_ipc].iter().all(|host| *host != Some(true))
        && spec.volumes.iter().flatten().all(is_restricted_volume)
        && spec.security_context.as_ref().is_none_or(is_harmless)
        && spec.containers.iter().chain(spec.init_containers.iter().flatten()).all(|c| is_restricted_container(c, spec))
}

fn is_restricted_volume(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.csi.is_some()
        || volume.downward_api.is_some()
        || volume.empty_dir.is_some()
        || volume.ephemeral.is_some()
        || volume.image.is_some()
        || volume.persistent_volume_claim.is_some()
        || volume.projected.is_some()
        || volume.secret.is_some()
}

/// What a pod's own context may not have; that it has enough is asked per container.
fn is_harmless(context: &PodSecurityContext) -> bool {
    context.sysctls.iter().flatten().all(|sysctl| SYSCTLS.contains(&sysctl.name.as_str()))
        && context.se_linux_options.as_ref().is_none_or(is_restricted_selinux)
        && context.app_armor_profile.as_ref().is_none_or(|profile| profile.type_ != "Unconfined")
        && context.windows_options.as_ref().is_none_or(|options| options.host_process != Some(true))
        && context.seccomp_profile.as_ref().is_none_or(is_restricted_seccomp)
}

fn is_restricted_container(container: &Container, spec: &PodSpec) -> bool {
    let Some(context) = &container.security_context else { return false };
    let pod = spec.security_context.as_ref();
    // A pod with users of its own may be root in it.
    let own_users = spec.host_users == Some(false);
    let non_root = context.run_as_non_root.or(pod.and_then(|pod| pod.run_as_non_root)) == Some(true);
    let root = context.run_as_user.or(pod.and_then(|pod| pod.run_as_user)) == Some(0);
    let seccomp = context.seccomp_profile.as_ref().or(pod.and_then(|pod| pod.seccomp_profile.as_ref()));
    container.ports.iter().flatten().all(|port| port.host_port.unwrap_or_default() == 0)
        && context.allow_privilege_escalation == Some(false)
        && (own_users || (non_root && !root))
        && seccomp.is_some_and(is_restricted_seccomp)
        && drops_all(context.capabilities.as_ref())
        && is_harmless_in(context, own_users)
}

/// What no container's context may have.
fn is_harmless_in(context: &SecurityContext, own_users: bool) -> bool {
    context.privileged != Some(true)
        && context.capabilities.iter().flat_map(|c| c.add.iter().flatten()).all(|c| c == CAPABILITY_ALLOWED)
        && (own_users || context.proc_mount.as_deref().is_none_or(|mount| mount == "Default"))
        && context.se_linux_options.as_ref().is_none_or(is_restricted_selinux)
        && context.app_armor_profile.as_ref().is_none_or(|profile| profile.type_ != "Unconfined")
        && context.windows_options.as_ref().is_none_or(|options| options.host_process != Some(true))
}

fn is_restricted_seccomp(profile: &SeccompProfile) -> bool {
    ["RuntimeDefault", "Localhost"].contains(&profile.type_.as_str())
}

fn is_restricted_selinux(options: &SELinuxOptions) -> bool {
    let absent = |text: &Option<String>| text.as_deref().unwrap_or_default().is_empty();
    SELINUX_TYPES.contains(&options.type_.as_deref().unwrap_or_default())
        && absent(&options.user)
        && absent(&options.role)
}

fn drops_all(capabilities: Option<&Capabilities>) -> bool {
    capabilities.is_some_and(|c| c.drop.iter().flatten().any(|dropped| dropped == "ALL"))
}

/// Makes the context of an init container of ours as a restricted pod's must be: what is missing is filled in, what is
/// forbidden is taken back. Returns the names of fields that were taken back.
pub(super) fn restrict(context: &mut SecurityContext, pod: Option<&PodSecurityContext>) -> Vec<&'static str> {
    let mut taken_back = Vec::new();
    let mut take_back = |field: &'static str, wrong: bool| {
        if wrong {
            taken_back.push(field);
        }
        wrong
    };
    if take_back("privileged", context.privileged == Some(true)) {
        context.privileged = None;
    }
    take_back("allowPrivilegeEscalation", context.allow_privilege_escalation == Some(true));
    context.allow_privilege_escalation = Some(false);

    let capabilities = context.capabilities.get_or_insert_default();
    if let Some(added) = &mut capabilities.add {
        let before = added.len();
        added.retain(|capability| capability == CAPABILITY_ALLOWED);
        take_back("capabilities.add", added.len() < before);
    }
    if capabilities.add.as_ref().is_some_and(Vec::is_empty) {
        capabilities.add = None;
    }
    if !drops_all(Some(capabilities)) {
        capabilities.drop = Some(vec!["ALL".to_owned()]);
    }

    let pod_non_root = pod.and_then(|pod| pod.run_as_non_root) == Some(true);
    if take_back("runAsNonRoot", context.run_as_non_root == Some(false))
        || (context.run_as_non_root.is_none() && !pod_non_root)
    {
        context.run_as_non_root = Some(true);
    }
    if take_back("runAsUser", context.run_as_user == Some(0)) {
        context.run_as_user = None;
    }
    let pod_seccomp = pod.and_then(|pod| pod.seccomp_profile.as_ref());
    let unconfined = context.seccomp_profile.as_ref().is_some_and(|profile| !is_restricted_seccomp(profile));
    if take_back("seccompProfile", unconfined) || (context.seccomp_profile.is_none() && pod_seccomp.is_none()) {
        let profile = SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None };
        context.seccomp_profile = Some(profile);
    }
    if take_back("procMount", context.proc_mount.as_deref().is_some_and(|mount| mount != "Default")) {
        context.proc_mount = None;
    }
    if take_back("seLinuxOptions", context.se_linux_options.as_ref().is_some_and(|o| !is_restricted_selinux(o))) {
        context.se_linux_options = None;
    }
    if take_back("appArmorProfile", context.app_armor_profile.as_ref().is_some_and(|p| p.type_ == "Unconfined")) {
        context.app_armor_profile = None;
    }
    taken_back
}

/// Takes back what `baseline` forbids, which is less than [`restrict`] does. Returns the names of the fields.
pub(super) fn keep_to_baseline(context: &mut SecurityContext) -> Vec<&'static str> {
    let mut taken_back = Vec::new();
    if context.privileged == Some(true) {
        context.privileged = None;
        taken_back.push("privileged");
    }
    if let Some(added) = context.capabilities.as_mut().and_then(|capabilities| capabilities.add.as_mut()) {
        let before = added.len();
        added.retain(|capability| CAPABILITIES_BASELINE.contains(&capability.as_str()));
        if added.len() < before {
            taken_back.push("capabilities.add");
        }
    }
    if context.seccomp_profile.as_ref().is_some_and(|profile| !is_restricted_seccomp(profile)) {
        context.seccomp_profile = None;
        taken_back.push("seccompProfile");
    }
    if context.proc_mount.as_deref().is_some_and(|mount| mount != "Default") {
        context.proc_mount = None;
        taken_back.push("procMount");
    }
    if context.se_linux_options.as_ref().is_some_and(|options| !is_restricted_selinux(options)) {
        context.se_linux_options = None;
        taken_back.push("seLinuxOptions");
    }
    if context.app_armor_profile.as_ref().is_some_and(|profile| profile.type_ == "Unconfined") {
        context.app_armor_profile = None;
        taken_back.push("appArmorProfile");
    }
    if context.windows_options.as_ref().is_some_and(|options| options.host_process == Some(true)) {
        context.windows_options = None;
        taken_back.push("windowsOptions");
    }
    taken_back
}

/// Agents' images run as root unless they are told otherwise, and then the kubelet would not start them in a pod that must
/// not be root.
pub(super) fn give_user(
    context: &mut SecurityContext,
    pod: Option<&PodSecurityContext>,
    target: Option<&SecurityContext>,
) {
    let from_pod = pod.and_then(|pod| pod.run_as_user).filter(|user| *user != 0);
    if context.run_as_user.is_none() && from_pod.is_none() {
        let targets = target.and_then(|target| target.run_as_user).filter(|user| *user != 0);
        context.run_as_user = Some(targets.unwrap_or(USER));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(context: Value, spec: Value) -> Pod {
        let container = json!({"name": "a", "securityContext": context});
        let mut pod = json!({"spec": {"containers": [container]}});
        pod["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(pod).unwrap()
    }

    fn good() -> Value {
        json!({
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": true,
            "seccompProfile": {"type": "RuntimeDefault"},
        })
    }

    fn with(field: &str, value: Value) -> Value {
        let mut context = good();
        context[field] = value;
        context
    }

    #[test]
    fn baseline_takes_back_what_it_forbids_and_nothing_else() {
        let mut context: SecurityContext = serde_json::from_value(json!({
            "privileged": true, "runAsUser": 0, "procMount": "Unmasked", "seccompProfile": {"type": "Unconfined"},
            "capabilities": {"add": ["SYS_ADMIN", "CHOWN"]}, "seLinuxOptions": {"user": "u"},
            "appArmorProfile": {"type": "Unconfined"}, "windowsOptions": {"hostProcess": true},
        }))
        .unwrap();
        assert_eq!(keep_to_baseline(&mut context).len(), 7);
        let left = json!({"runAsUser": 0, "capabilities": {"add": ["CHOWN"]}});
        assert_eq!(serde_json::to_value(&context).unwrap(), left);
        assert_eq!(keep_to_baseline(&mut context), Vec::<&str>::new());
    }

    #[test]
    fn which_pods_pass() {
        let plain = json!({});
        for (context, spec) in [
            (good(), plain.clone()),
            (with("runAsUser", json!(7)), plain.clone()),
            (with("runAsNonRoot", Value::Null), json!({"securityContext": {"runAsNonRoot": true}})),
            (
                with("seccompProfile", Value::Null),
                json!({"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "p"}}}),
            ),
            (with("capabilities", json!({"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]})), plain.clone()),
            (good(), json!({"volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "image": {"reference": "i"}}]})),
        ] {
            assert!(is_restricted(&pod(context.clone(), spec.clone())), "{context} {spec}");
        }
        for (context, spec) in [
            (Value::Null, plain.clone()),
            (with("allowPrivilegeEscalation", Value::Null), plain.clone()),
            (with("capabilities", json!({"drop": ["NET_RAW"]})), plain.clone()),
            (with("capabilities", json!({"drop": ["ALL"], "add": ["SYS_TIME"]})), plain.clone()),
            (with("runAsNonRoot", json!(false)), json!({"securityContext": {"runAsNonRoot": true}})),
            (with("runAsUser", json!(0)), plain.clone()),
            (with("seccompProfile", json!({"type": "Unconfined"})), plain.clone()),
            (with("privileged", json!(true)), plain.clone()),
            (with("procMount", json!("Unmasked")), plain.clone()),
            (with("seLinuxOptions", json!({"user": "u"})), plain),
            (good(), json!({"hostNetwork": true})),
            (good(), json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]})),
            (good(), json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}})),
            (good(), json!({"os": {"name": "windows"}})),
            (good(), json!({"initContainers": [{"name": "i"}]})),
        ] {
            assert!(!is_restricted(&pod(context.clone(), spec.clone())), "{context} {spec}");
        }
    }

    #[test]
    fn what_was_restricted_passes_and_is_left_alone_the_second_time() {
        for context in [
            json!({}),
            json!({"privileged": true, "allowPrivilegeEscalation": true, "runAsUser": 0, "runAsNonRoot": false}),
            json!({"capabilities": {"add": ["SYS_ADMIN", "NET_BIND_SERVICE"], "drop": ["KILL"]}, "procMount": "Unmasked"}),
            json!({"seccompProfile": {"type": "Unconfined"}, "seLinuxOptions": {"type": "spc_t"}, "appArmorProfile": {"type": "Unconfined"}}),
            good(),
        ] {
            let mut restricted: SecurityContext = serde_json::from_value(context.clone()).unwrap();
            restrict(&mut restricted, None);
            give_user(&mut restricted, None, None);
            assert_eq!(restricted.run_as_user, Some(USER), "{context}");
            let written = serde_json::to_value(&restricted).unwrap();
            assert!(is_restricted(&pod(written, json!({}))), "{context}: {restricted:?}");
            let once = restricted.clone();
            assert_eq!(restrict(&mut restricted, None), Vec::<&str>::new(), "{context}");
            assert_eq!(restricted, once);
        }
    }

    #[test]
    fn what_the_pod_says_needs_no_repetition() {
        let pod = json!({"runAsNonRoot": true, "runAsUser": 7, "seccompProfile": {"type": "RuntimeDefault"}});
        let pod: PodSecurityContext = serde_json::from_value(pod).unwrap();
        let mut context = SecurityContext::default();
        restrict(&mut context, Some(&pod));
        give_user(&mut context, Some(&pod), None);
        let expected = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
        assert_eq!(serde_json::to_value(&context).unwrap(), expected);
    }
}
