//! The one line that would change how something stands: a command, a line of a manifest, or a line of Spanreel's own
//! configuration. Each says behind `#` what is not plain from itself.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::report::Asked;
use crate::cluster::life::Fix;
use crate::cluster::workloads::Workload;
use crate::inject::{self, Instrumentation, Language, Outcome, Place, PodRequest, Reason, View, Wish};

/// Where something is to be changed.
#[derive(Clone, Copy)]
pub(super) struct Site<'a> {
    pub(super) workload: &'a Workload,
    /// A pod of it and its namespace's annotations.
    pub(super) request: &'a PodRequest<'a>,
    pub(super) wishes: &'a [Wish],
    pub(super) view: &'a View<'a>,
}

/// Variables that agents extend.
const EXTENDED: [(Language, &[&str]); 5] = [
    (Language::Java, &["JAVA_TOOL_OPTIONS"]),
    (Language::NodeJs, &["NODE_OPTIONS"]),
    (Language::Python, &["PYTHONPATH"]),
    (Language::DotNet, &["DOTNET_STARTUP_HOOKS", "DOTNET_ADDITIONAL_DEPS", "DOTNET_SHARED_STORE"]),
    (Language::Nginx, &["LD_LIBRARY_PATH"]),
];
/// What tells an agent that another is there.
const DOTNET_HOME: &str = "OTEL_DOTNET_AUTO_HOME";

/// For what a decision came to. `others`: all outcomes of the same pod.
pub(super) fn of_outcome(outcome: &Outcome, others: &[Outcome], site: &Site<'_>) -> String {
    let language = outcome.language;
    let container = outcome.container.as_deref().unwrap_or_else(|| site.first_container());
    let lists = || inject::container_lists(site.request, language);
    let own_list = || {
        let [_, (key, _)] = lists();
        key
    };
    match outcome.reason {
        Reason::Asked => restart(site.workload, None),
        Reason::AlreadyInstrumented => site.edit(
            "remove what was copied from an injected pod: init containers and volumes opentelemetry-auto-instrumentation-*, \
             variable OTEL_RESOURCE_ATTRIBUTES_NODE_NAME",
        ),
        Reason::MirrorPod => {
            "# a static pod is changed on its node, in the kubelet's staticPodPath; set the OTEL_* variables there".to_owned()
        }
        Reason::LanguageDisabled => {
            format!("extensions::spanreel: {{injection: {{languages: {{{language}: true}}}}}}  # Spanreel's own configuration")
        }
        Reason::InstrumentationMissing => site.other_instrumentation(language),
        Reason::InstrumentationAmbiguous => {
            let namespace = site.request.namespace;
            let names: Vec<&str> = site.view.catalog.in_namespace(namespace).map(|(name, _)| name).collect();
            let first = names.first().copied().unwrap_or("NAME");
            site.request_line(language, first, &format!("there are: {}", listed(&names)))
        }
        Reason::InstrumentationMalformed | Reason::InstrumentationInvalid => {
            site.edit_instrumentation(language, &outcome.message)
        }
        Reason::ContainerNamesInvalid => {
            let valid = |list: &str| list.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == ',');
            let wrong = lists().into_iter().find(|(_, list)| !valid(list));
            let key = wrong.map_or_else(own_list, |(key, _)| key);
            site.annotation(&key, site.first_container(), &site.containers_note())
        }
        Reason::ContainerNamesDuplicated => {
            let [(common_key, common), (own_key, own)] = lists();
            let in_common = once(names(common), &[]);
            let in_own = once(names(own), &in_common);
            let note = "each container once, in this and container-names together";
            if in_common.len() < names(common).count() {
                site.annotation(&common_key, &in_common.join(","), note)
            } else if in_own.is_empty() {
                site.edit(&format!("remove annotation {own_key}: container-names has all of it"))
            } else {
                site.annotation(&own_key, &in_own.join(","), note)
            }
        }
        Reason::ContainerNamesIncomplete => {
            let without = |wish: &&Wish| {
                !wish.is_off() && inject::container_lists(site.request, wish.language).iter().all(|(_, list)| list.is_empty())
            };
            let language = site.wishes.iter().find(without).map_or(language, |wish| wish.language);
            let [_, (key, _)] = inject::container_lists(site.request, language);
            site.annotation(&key, site.first_container(), &site.containers_note())
        }
        Reason::ContainerNamesNeeded => site.annotation(
            &own_list(),
            site.first_container(),
            &format!("and a list for each of the others; {}", site.containers_note()),
        ),
        Reason::ContainerNotFound => {
            let [(common_key, common), (own_key, _)] = lists();
            let key = if names(common).any(|name| name == container) { common_key } else { own_key };
            site.annotation(&key, site.first_container(), &site.containers_note())
        }
        Reason::InitContainerUnsuitable => site.annotation(&own_list(), site.first_container(), &site.containers_note()),
        Reason::OneContainerOnly => {
            let [(common_key, common), (own_key, own)] = lists();
            let (key, list) = if own.is_empty() { (common_key, common) } else { (own_key, own) };
            site.annotation(&key, names(list).next().unwrap_or_else(|| site.first_container()), "one of them")
        }
        Reason::ProcessesNotShared => site.edit("remove shareProcessNamespace: false and hostPID; Windows has no way"),
        Reason::TargetExecutableMissing => site.annotation(
            &format!("{PREFIX}otel-go-auto-target-exe"),
            "/path/of/the/executable",
            &format!("as container {container} has it"),
        ),
        Reason::NameTaken => site.edit(&format!("rename what takes the agent's name: {}", outcome.message)),
        Reason::MountPathTaken => site.edit(&format!("mount it elsewhere: {}", outcome.message)),
        Reason::EnvironmentFromSource => site.plain_variable(language, container),
        Reason::PodTooLarge => site.edit("make the pod smaller: move large values of env and annotations into a ConfigMap"),
        Reason::PodSecurityEnforced => format!(
            "kubectl label namespace {} pod-security.kubernetes.io/enforce=privileged --overwrite  # {language} needs it",
            site.request.namespace
        ),
        Reason::TlsObjectMissing => site.create_tls_objects(language),
        Reason::PlatformUnknown => {
            let (key, value) = match language {
                Language::DotNet => ("otel-dotnet-auto-runtime", "linux-x64"),
                _ => ("otel-python-platform", "glibc"),
            };
            let other = if language == Language::DotNet { "linux-musl-x64" } else { "musl" };
            site.annotation(&format!("{PREFIX}{key}"), value, &format!("{other} for images of Alpine Linux"))
        }
        Reason::AgentPresent => site.remove_variable(container, DOTNET_HOME, "or leave the annotation out: an agent is there"),
        Reason::ImageVolumesNotServed => {
            "extensions::spanreel: {injection: {delivery: auto}}  # Spanreel's own configuration".to_owned()
        }
        Reason::OtherLanguageRefused => {
            let culprit = others.iter().find(|other| {
                other.reason != Reason::OtherLanguageRefused && other.verdict == inject::Verdict::Refused
            });
            match culprit {
                Some(culprit) => of_outcome(culprit, &[], site),
                None => site.request_line(language, "true", "and no other language"),
            }
        }
    }
}

const PREFIX: &str = "instrumentation.opentelemetry.io/";

/// For pods that are not what they would be if they came now.
pub(super) fn restart(workload: &Workload, pod: Option<&str>) -> String {
    let Workload { kind, namespace, name } = workload;
    match *kind {
        "Pod" => format!("kubectl -n {namespace} delete pod {name}  # and apply its manifest again"),
        "Job" => format!("kubectl -n {namespace} delete job {name}  # and apply its manifest again"),
        "CronJob" => {
            format!("kubectl -n {namespace} create job --from=cronjob/{name} {name}-now  # or wait for its next run")
        }
        "ReplicaSet" => {
            format!("kubectl -n {namespace} delete pod {}  # replicaset/{name} makes it anew", pod.unwrap_or("NAME"))
        }
        kind => format!("kubectl -n {namespace} rollout restart {}/{name}", kind.to_ascii_lowercase()),
    }
}

/// For a container that runs and is not heard.
pub(super) fn listen(namespace: &str, pod: &str, container: &str) -> String {
    format!("kubectl -n {namespace} logs {pod} -c {container}")
}

/// For a container that does not get to run.
pub(super) fn look(namespace: &str, pod: &str) -> String {
    format!("kubectl -n {namespace} describe pod {pod}")
}

/// For a namespace whose pods are never asked about.
pub(super) fn excluded(namespace: &str) -> String {
    format!(
        "# nothing in {namespace} is ever injected; run it in another namespace, or set the OTEL_* variables by hand"
    )
}

/// For a silence whose end can be told. `used`: what the container was injected from; `None`: the built-in one, or gone.
pub(super) fn of_fix(
    fix: &Fix,
    workload: &Workload,
    asked: &[Asked],
    pod: &str,
    container: &str,
    used: Option<&Instrumentation>,
) -> String {
    let from_instrumentation = |variable: &str| {
        used.filter(|used| used.spec.env.iter().any(|var| var.name == variable)).map(|used| {
            format!(
                "kubectl -n {} edit otelinst {}  # remove {variable} from its env; then restart",
                used.namespace, used.name
            )
        })
    };
    let patch = |used: &Instrumentation, spec: Value| {
        format!(
            "kubectl -n {} patch otelinst {} --type merge -p '{}'  # then restart",
            used.namespace,
            used.name,
            json!({"spec": spec})
        )
    };
    let remove = |variable: &str| {
        from_instrumentation(variable)
            .unwrap_or_else(|| remove_variable(workload, container, variable, "unless its image sets it"))
    };
    match fix {
        Fix::NoVariable(variable) => remove(variable),
        Fix::Sampler => match used.filter(|used| !used.spec.sampler.kind.is_empty()) {
            Some(used) => patch(used, json!({"sampler": {"type": "parentbased_always_on"}})),
            None => remove("OTEL_TRACES_SAMPLER"),
        },
        // What the Instrumentation has is what the container got, unless it had its own.
        Fix::Endpoint(url) => match used {
            Some(used) if used.spec.exporter.endpoint != *url => patch(used, json!({"exporter": {"endpoint": url}})),
            _ => remove("OTEL_EXPORTER_OTLP_ENDPOINT"),
        },
        Fix::Language { instead_of, program } => {
            if !Language::ALL.iter().any(|language| language.as_str() == *program) {
                let note = format!("there is no agent for {program}: the program brings its own SDK");
                return annotation(workload, &format!("{PREFIX}inject-sdk"), "true", &note);
            }
            let value = asked.iter().find(|asked| asked.language == instead_of.as_str());
            let value = value.map_or("true", |asked| asked.value.as_str());
            let note = format!("in place of inject-{instead_of}");
            annotation(workload, &format!("{PREFIX}inject-{program}"), value, &note)
        }
        Fix::PreviousLog => {
            format!("kubectl -n {} logs {pod} -c {container} --previous", workload.namespace)
        }
    }
}

impl Site<'_> {
    /// A line for whoever asked for nothing.
    pub(super) fn ask(&self) -> String {
        let off = self.wishes.iter().find(|wish| wish.is_off());
        match off {
            Some(wish) => self.request_line(wish.language, "true", &format!("it is \"{}\"", wish.value)),
            None => self.annotation(
                &format!("{PREFIX}inject-sdk"),
                "true",
                "or inject-java, -nodejs, -python, -dotnet, whichever the program is written in",
            ),
        }
    }

    /// A line for whoever asked for something that does not exist.
    pub(super) fn ask_for(&self, language: &str) -> String {
        self.annotation(&format!("{PREFIX}inject-{language}"), "true", "in place of the one that names no language")
    }

    /// A line for annotations that stand on the workload instead of on its pods.
    pub(super) fn place(&self, key: &str, value: &str) -> String {
        self.annotation(key, value, "on the workload itself it has no effect")
    }

    /// The request for a language with another value, where the present one is.
    fn request_line(&self, language: Language, value: &str, note: &str) -> String {
        let key = format!("{PREFIX}inject-{language}");
        let wish = self.wishes.iter().find(|wish| wish.language == language);
        if wish.is_some_and(|wish| wish.place == Place::Namespace) {
            let namespace = self.request.namespace;
            return format!("kubectl annotate --overwrite namespace {namespace} {key}={value}  # {note}");
        }
        self.annotation(&key, value, note)
    }

    /// A line of the pod's annotations.
    fn annotation(&self, key: &str, value: &str, note: &str) -> String {
        annotation(self.workload, key, value, note)
    }

    fn edit(&self, what: &str) -> String {
        edit(self.workload, what)
    }

    fn remove_variable(&self, container: &str, variable: &str, note: &str) -> String {
        remove_variable(self.workload, container, variable, note)
    }

    fn plain_variable(&self, language: Language, container: &str) -> String {
        let extended = EXTENDED.iter().find(|(of, _)| *of == language).map_or(&[][..], |(_, variables)| variables);
        let from_source = self.spec_containers().find(|found| found.name == container).and_then(|found| {
            let env = found.env.iter().flatten();
            env.rev().find(|var| var.value_from.is_some() && extended.contains(&var.name.as_str()))
        });
        match from_source {
            Some(variable) => self.remove_variable(container, &variable.name, "or give it a plain value"),
            None => self.edit_instrumentation(language, "give the variable a plain value in its env"),
        }
    }

    /// One that exists, in place of one that does not.
    fn other_instrumentation(&self, language: Language) -> String {
        let namespace = self.request.namespace;
        let mut here = self.view.catalog.in_namespace(namespace).map(|(name, _)| name);
        match (here.next(), here.next()) {
            (None, _) => {
                self.request_line(language, "true", "Spanreel's built-in one, or create the one that is named")
            }
            (Some(only), None) => self.request_line(language, only, &format!("the only one in {namespace}")),
            (Some(first), Some(_)) => {
                let names: Vec<&str> = self.view.catalog.in_namespace(namespace).map(|(name, _)| name).collect();
                self.request_line(language, first, &format!("there are: {}", listed(&names)))
            }
        }
    }

    fn edit_instrumentation(&self, language: Language, what: &str) -> String {
        let namespace = self.request.namespace;
        let wish = self.wishes.iter().find(|wish| wish.language == language);
        let (of, name) = match wish.map(|wish| wish.value.as_str()) {
            Some(value) if !value.eq_ignore_ascii_case("true") => value.split_once('/').unwrap_or((namespace, value)),
            _ => (namespace, self.view.catalog.in_namespace(namespace).next().map_or("NAME", |(name, _)| name)),
        };
        format!("kubectl -n {of} edit otelinst {name}  # {what}")
    }

    fn create_tls_objects(&self, language: Language) -> String {
        let namespace = self.request.namespace;
        let wish = self.wishes.iter().find(|wish| wish.language == language);
        let instrumentation = wish.and_then(|wish| inject::chosen(wish, namespace, self.view));
        let tls = instrumentation.as_ref().map(|instrumentation| &instrumentation.spec.exporter.tls);
        match tls {
            Some(tls) if !tls.secret_name.is_empty() => format!(
                "kubectl -n {namespace} create secret generic {} --from-file=ca.crt --from-file=tls.crt --from-file=tls.key  # whichever of them its tls section names",
                tls.secret_name
            ),
            Some(tls) if !tls.config_map_name.is_empty() => {
                format!("kubectl -n {namespace} create configmap {} --from-file=ca.crt", tls.config_map_name)
            }
            _ => self.edit_instrumentation(language, "its spec.exporter.tls names what does not exist"),
        }
    }

    fn spec_containers(&self) -> impl Iterator<Item = &k8s_openapi::api::core::v1::Container> {
        let pod: &Pod = self.request.pod;
        pod.spec.iter().flat_map(|spec| &spec.containers)
    }

    fn first_container(&self) -> &str {
        self.spec_containers().next().map_or("NAME", |container| container.name.as_str())
    }

    fn containers_note(&self) -> String {
        let names: Vec<&str> = self.spec_containers().map(|container| container.name.as_str()).collect();
        format!("it has: {}", listed(&names))
    }
}

fn annotation(workload: &Workload, key: &str, value: &str, note: &str) -> String {
    let Workload { kind, name, .. } = workload;
    let of = match *kind {
        "Pod" => format!("annotation of pod {name}, which must be created anew"),
        "Job" => format!("annotation of the pod template of job/{name}, which must be created anew"),
        kind => format!("annotation of the pod template of {}/{name}", kind.to_ascii_lowercase()),
    };
    format!("{key}: \"{value}\"  # {of}; {note}")
}

fn edit(workload: &Workload, what: &str) -> String {
    let Workload { kind, namespace, name } = workload;
    match *kind {
        "Pod" | "Job" => {
            format!("# in the manifest of {}/{name}, which must be created anew: {what}", kind.to_ascii_lowercase())
        }
        kind => format!("kubectl -n {namespace} edit {}/{name}  # {what}", kind.to_ascii_lowercase()),
    }
}

fn remove_variable(workload: &Workload, container: &str, variable: &str, note: &str) -> String {
    let Workload { kind, namespace, name } = workload;
    match *kind {
        "Pod" | "Job" => edit(workload, &format!("remove variable {variable} of container {container}; {note}")),
        kind => format!(
            "kubectl -n {namespace} set env {}/{name} -c {container} {variable}-  # {note}",
            kind.to_ascii_lowercase()
        ),
    }
}

/// The names of a container list.
fn names(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').filter(|name| !name.is_empty())
}

/// Each name once, without those that are known.
fn once<'a>(names: impl Iterator<Item = &'a str>, known: &[&str]) -> Vec<&'a str> {
    let mut once: Vec<&str> = Vec::new();
    for name in names {
        if !known.contains(&name) && !once.contains(&name) {
            once.push(name);
        }
    }
    once
}

/// Names in one line, the first few of many.
fn listed(names: &[&str]) -> String {
    const SHOWN_MAX: usize = 6;
    let shown = names.iter().take(SHOWN_MAX).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
