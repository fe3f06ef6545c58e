//! Security contexts of an Instrumentation, as far as the API server checks it.

use k8s_openapi::api::core::v1::{
    AppArmorProfile, PodSpec, SeccompProfile, SecurityContext, WindowsSecurityContextOptions,
};

use super::{Refusal, invalid, is_object_name};

/// Users and groups are 31 bits wide.
const ID_MAX: i64 = i32::MAX as i64;
const APP_ARMOR_PROFILE_BYTES_MAX: usize = 4095;

/// Refuses the context at `field` that would make `pod` invalid; some of it depends on the pod.
pub(in crate::inject) fn check(field: &str, context: &SecurityContext, pod: Option<&PodSpec>) -> Result<(), Refusal> {
    match objection(context, pod) {
        Some(objection) => Err(invalid(format!("{field} {objection}"))),
        None => Ok(()),
    }
}

fn objection(context: &SecurityContext, pod: Option<&PodSpec>) -> Option<String> {
    let no_escalation = context.allow_privilege_escalation == Some(false);
    let added = context.capabilities.iter().flat_map(|c| c.add.iter().flatten());
    let admin = added.into_iter().any(|capability| capability == "CAP_SYS_ADMIN");
    if no_escalation && (context.privileged == Some(true) || admin) {
        let text = "sets allowPrivilegeEscalation: false together with privileged: true or CAP_SYS_ADMIN";
        return Some(text.to_owned());
    }
    let ids = [context.run_as_user, context.run_as_group];
    if ids.into_iter().flatten().any(|id| !(0..=ID_MAX).contains(&id)) {
        return Some(format!("has a user or group outside 0 to {ID_MAX}"));
    }
    let host_users = pod.is_none_or(|pod| pod.host_users != Some(false));
    match context.proc_mount.as_deref() {
        None | Some("Default") => {}
        Some("Unmasked") if !host_users => {}
        Some("Unmasked") => return Some("has procMount Unmasked, which needs a pod with hostUsers: false".to_owned()),
        Some(other) => return Some(format!("has procMount \"{other}\"; it must be Default or Unmasked")),
    }
    context
        .seccomp_profile
        .as_ref()
        .and_then(seccomp)
        .or_else(|| context.app_armor_profile.as_ref().and_then(app_armor))
        .or_else(|| context.windows_options.as_ref().and_then(windows))
        .or_else(|| system(context, pod))
}

fn seccomp(profile: &SeccompProfile) -> Option<String> {
    let file = profile.localhost_profile.as_deref();
    profile_objection("seccompProfile", &profile.type_, file).or_else(|| {
        let leaves = file.is_some_and(|path| path.starts_with('/') || path.split('/').any(|part| part == ".."));
        leaves.then(|| "has a seccompProfile whose localhostProfile must be a relative path without \"..\"".to_owned())
    })
}

fn app_armor(profile: &AppArmorProfile) -> Option<String> {
    let name = profile.localhost_profile.as_deref();
    profile_objection("appArmorProfile", &profile.type_, name).or_else(|| {
        let bad = name.is_some_and(|name| name.trim() != name || name.len() > APP_ARMOR_PROFILE_BYTES_MAX);
        bad.then(|| "has an appArmorProfile whose localhostProfile is too long or has blanks at an end".to_owned())
    })
}

/// The rules that both kinds of profile have in common.
fn profile_objection(field: &str, kind: &str, local: Option<&str>) -> Option<String> {
    match (kind, local) {
        ("Localhost", Some(local)) if !local.trim().is_empty() => None,
        ("Localhost", _) => Some(format!("has {field} of type Localhost without localhostProfile")),
        ("RuntimeDefault" | "Unconfined", None) => None,
        ("RuntimeDefault" | "Unconfined", Some(_)) => {
            Some(format!("has {field} of type {kind} with a localhostProfile, which only type Localhost has"))
        }
        _ => Some(format!("has {field} of type \"{kind}\"; it must be Localhost, RuntimeDefault or Unconfined")),
    }
}

fn windows(options: &WindowsSecurityContextOptions) -> Option<String> {
    if options.host_process == Some(true) {
        // All containers of a pod are host processes or none; the others are the pod author's.
        return Some("has windowsOptions.hostProcess, which one container of a pod cannot have alone".to_owned());
    }
    if options.gmsa_credential_spec_name.as_deref().is_some_and(|name| !is_object_name(name))
        || options.gmsa_credential_spec.as_deref() == Some("")
    {
        return Some("has windowsOptions whose gmsaCredentialSpec or its name is not valid".to_owned());
    }
    let user_is_name = |name: &str| {
        let parts: Vec<&str> = name.split('\\').collect();
        let forbidden = |c: char| c.is_control() || "\"/:;|=,+*?<>[]".contains(c);
        parts.len() <= 2 && parts.iter().all(|part| !part.trim().is_empty() && !part.contains(forbidden))
    };
    let user = options.run_as_user_name.as_deref();
    user.is_some_and(|name| !user_is_name(name)).then(|| "has windowsOptions with no valid runAsUserName".to_owned())
}

/// A pod that names its operating system may not use the other's fields.
fn system(context: &SecurityContext, pod: Option<&PodSpec>) -> Option<String> {
    let posix = context.app_armor_profile.is_some()
        || context.seccomp_profile.is_some()
        || context.se_linux_options.is_some()
        || context.capabilities.is_some()
        || context.read_only_root_filesystem.is_some()
        || context.privileged.is_some()
        || context.allow_privilege_escalation.is_some()
        || context.proc_mount.is_some()
        || context.run_as_user.is_some()
        || context.run_as_group.is_some();
    match pod?.os.as_ref()?.name.as_str() {
        "linux" if context.windows_options.is_some() => {
            Some("has windowsOptions, which a pod of os linux cannot have".to_owned())
        }
        "windows" if posix => Some("has fields that a pod of os windows cannot have".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn message(context: Value, pod: Value) -> Option<String> {
        let pod: PodSpec = serde_json::from_value(pod).unwrap();
        objection(&serde_json::from_value(context).unwrap(), Some(&pod))
    }

    #[test]
    fn what_the_api_server_refuses_is_refused() {
        let linux = json!({"containers": [], "os": {"name": "linux"}});
        let windows = json!({"containers": [], "os": {"name": "windows"}});
        let plain = json!({"containers": []});
        for (context, pod, text) in [
            (json!({"seccompProfile": {"type": "Foo"}}), &plain, "of type \"Foo\""),
            (json!({"seccompProfile": {"type": "Localhost"}}), &plain, "without localhostProfile"),
            (json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "/a"}}), &plain, "relative path"),
            (json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "a/../.."}}), &plain, "relative path"),
            (json!({"seccompProfile": {"type": "Unconfined", "localhostProfile": "a"}}), &plain, "only type Localhost"),
            (json!({"appArmorProfile": {"type": "Foo"}}), &plain, "of type \"Foo\""),
            (json!({"appArmorProfile": {"type": "Localhost"}}), &plain, "without localhostProfile"),
            (json!({"appArmorProfile": {"type": "Localhost", "localhostProfile": "a "}}), &plain, "blanks"),
            (json!({"procMount": "X"}), &plain, "procMount \"X\""),
            (json!({"procMount": "Unmasked"}), &plain, "hostUsers: false"),
            (json!({"windowsOptions": {"hostProcess": true}}), &plain, "hostProcess"),
            (json!({"windowsOptions": {"runAsUserName": ""}}), &plain, "runAsUserName"),
            (json!({"windowsOptions": {}}), &linux, "os linux"),
            (json!({"runAsUser": 1}), &windows, "os windows"),
            (json!({"runAsUser": 3_000_000_000_i64}), &plain, "outside 0 to"),
            (json!({"allowPrivilegeEscalation": false, "privileged": true}), &plain, "privileged: true"),
        ] {
            let message = message(context.clone(), pod.clone()).unwrap_or_default();
            assert!(message.contains(text), "{context}: {message}");
        }
    }

    #[test]
    fn what_the_api_server_takes_is_taken() {
        for (context, pod) in [
            (json!({}), json!({"containers": []})),
            (
                json!({
                    "runAsNonRoot": true, "runAsUser": 65532, "allowPrivilegeEscalation": false,
                    "seccompProfile": {"type": "RuntimeDefault"}, "appArmorProfile": {"type": "Unconfined"},
                    "capabilities": {"drop": ["ALL"]}, "procMount": "Default",
                }),
                json!({"containers": [], "os": {"name": "linux"}}),
            ),
            (json!({"procMount": "Unmasked"}), json!({"containers": [], "hostUsers": false})),
            (
                json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "a/b.json"}}),
                json!({"containers": []}),
            ),
            (
                json!({"windowsOptions": {"runAsUserName": "NT AUTHORITY\\Local service"}}),
                json!({"containers": [], "os": {"name": "windows"}}),
            ),
        ] {
            assert_eq!(message(context, pod), None);
        }
    }
}
