//! Why nothing is heard of a container: what its specification and the receivers' door tell, most certain first.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Container;

use super::Fix;
use super::facts::{ContainerFacts, Endpoint, Facts, Run};
use super::speech::Speech;
use crate::inject::Language;

/// Something in a container's specification that keeps spans from coming.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Suspicion {
    /// A variable switches the whole agent or SDK off.
    SwitchedOff { variable: &'static str, value: Arc<str> },
    /// Traces go elsewhere or nowhere.
    Exporter(Arc<str>),
    /// The sampler keeps no span.
    Sampler(Arc<str>),
    /// The agent is for another language than the program seems to be written in.
    Language { agent: Language, program: &'static str },
}

/// Where Spanreel is for pods.
#[derive(Debug, Clone, Default)]
pub(super) struct OwnService {
    pub(super) service: String,
    pub(super) namespace: String,
}

/// Variables that switch an agent off, and the values that do.
const SWITCHES: [(&str, &str); 3] =
    [("OTEL_SDK_DISABLED", "true"), ("OTEL_JAVAAGENT_ENABLED", "false"), ("OTEL_DOTNET_AUTO_TRACES_ENABLED", "false")];

/// Names of programs and images, and the language that they stand for.
const PROGRAMS: [(&str, &str); 24] = [
    ("java", "java"),
    ("openjdk", "java"),
    ("eclipse-temurin", "java"),
    ("amazoncorretto", "java"),
    ("tomcat", "java"),
    ("jetty", "java"),
    ("node", "nodejs"),
    ("nodejs", "nodejs"),
    ("npm", "nodejs"),
    ("yarn", "nodejs"),
    ("python", "python"),
    ("python3", "python"),
    ("gunicorn", "python"),
    ("uvicorn", "python"),
    ("dotnet", "dotnet"),
    ("aspnet", "dotnet"),
    ("httpd", "apache-httpd"),
    ("nginx", "nginx"),
    ("golang", "go"),
    ("ruby", "ruby"),
    ("php", "php"),
    ("rust", "rust"),
    ("perl", "perl"),
    ("erlang", "erlang"),
];

impl Suspicion {
    /// The most certain one. `share` keeps a text.
    pub(super) fn of(
        container: &Container,
        languages: &[Language],
        share: &mut dyn FnMut(&str) -> Arc<str>,
    ) -> Option<Self> {
        let value = |name: &str| {
            let variable = container.env.iter().flatten().rfind(|variable| variable.name == name)?;
            variable.value.as_deref().map(str::trim).filter(|value| !value.is_empty())
        };
        for (variable, off) in SWITCHES {
            if let Some(value) = value(variable).filter(|value| value.eq_ignore_ascii_case(off)) {
                return Some(Self::SwitchedOff { variable, value: share(value) });
            }
        }
        if let Some(exporter) = value("OTEL_TRACES_EXPORTER")
            && !exporter.contains("otlp")
            && !exporter.contains("$(")
        {
            return Some(Self::Exporter(share(exporter)));
        }
        if let Some(sampler) = value("OTEL_TRACES_SAMPLER") {
            let argument = value("OTEL_TRACES_SAMPLER_ARG");
            let ratio = argument.and_then(|argument| argument.parse::<f64>().ok());
            match sampler {
                "always_off" | "parentbased_always_off" => return Some(Self::Sampler(share(sampler))),
                "traceidratio" | "parentbased_traceidratio" if ratio.is_some_and(|ratio| ratio <= 0.0) => {
                    return Some(Self::Sampler(share(&format!("{sampler} with {}", argument.unwrap_or_default()))));
                }
                _ => {}
            }
        }
        let agent = *languages.iter().find(|language| **language != Language::Sdk)?;
        let program = program(container)?;
        let fits = languages.iter().any(|language| language.as_str() == program);
        (!fits).then_some(Self::Language { agent, program })
    }

    fn sentence(&self) -> String {
        match self {
            Self::SwitchedOff { variable, value } => {
                format!("{variable}={value} switches its instrumentation off; remove the variable")
            }
            Self::Exporter(exporter) => {
                format!(
                    "OTEL_TRACES_EXPORTER={exporter} sends its traces elsewhere or nowhere; set it to otlp or remove it"
                )
            }
            Self::Sampler(sampler) => format!(
                "its sampler, {sampler}, keeps no span that begins a trace; choose another in the Instrumentation's spec.sampler or in OTEL_TRACES_SAMPLER"
            ),
            Self::Language { agent, program } => format!(
                "the agent is for {agent} and the image or command looks like {program}; ask for the language that the program is written in"
            ),
        }
    }

    fn fix(&self) -> Fix {
        match self {
            Self::SwitchedOff { variable, .. } => Fix::NoVariable((*variable).to_owned()),
            Self::Exporter(_) => Fix::NoVariable("OTEL_TRACES_EXPORTER".to_owned()),
            Self::Sampler(_) => Fix::Sampler,
            Self::Language { agent, program } => Fix::Language { instead_of: *agent, program },
        }
    }

    /// Whether no other evidence is needed.
    fn is_certain(&self) -> bool {
        !matches!(self, Self::Language { .. })
    }
}

/// The language that the command, else the image's name, gives away.
fn program(container: &Container) -> Option<&'static str> {
    let known = |word: &str| PROGRAMS.iter().find(|(name, _)| *name == word).map(|(_, language)| *language);
    let base = |path: &str| path.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    if let Some(command) = container.command.as_ref().and_then(|command| command.first()) {
        // `python3.12` is python.
        let name = base(command);
        return known(&name).or_else(|| known(name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.')));
    }
    let image = base(container.image.as_deref()?);
    let name = image.split(['@', ':']).next().unwrap_or_default();
    // A name such as `node-exporter` or `java-and-node` says less than a base image's.
    known(name)
}

/// What is most likely wrong.
#[derive(Debug, PartialEq)]
pub(super) struct Likely {
    /// With the remedy.
    pub(super) sentence: String,
    pub(super) fix: Option<Fix>,
}

impl Likely {
    fn with(self, fix: Fix) -> Self {
        Self { fix: Some(fix), ..self }
    }
}

impl From<String> for Likely {
    fn from(sentence: String) -> Self {
        Self { sentence, fix: None }
    }
}

impl From<&str> for Likely {
    fn from(sentence: &str) -> Self {
        sentence.to_owned().into()
    }
}

impl From<&Suspicion> for Likely {
    fn from(suspicion: &Suspicion) -> Self {
        Self { sentence: suspicion.sentence(), fix: Some(suspicion.fix()) }
    }
}

/// One sentence with the remedy, for a container that is not heard.
pub(super) fn likely(facts: &Facts, container: &ContainerFacts, speech: &Speech, own: &OwnService) -> Likely {
    if !facts.injected {
        return "it was created without instrumentation, for example while Spanreel was not there or because that was \
                refused; restart its workload, and if it stays so `spanreel doctor` tells why"
            .into();
    }
    if let Run::Not { reason } = &container.run {
        return not_running(facts, container, reason.as_deref());
    }
    if let Some(certain) = container.suspicion.as_ref().filter(|suspicion| suspicion.is_certain()) {
        return certain.into();
    }
    if speech.of_pod().last.is_some() {
        return "it has sent spans before; if it has work to do, its log tells why it stopped".into();
    }
    let from = facts.addresses.first().map_or_else(|| "its node".to_owned(), ToString::to_string);
    if let Some((count, outcome)) = speech.visits.refusals() {
        return format!(
            "{count} requests from {from} were refused, the last one as {outcome}; spanreel_receiver_requests_total and the agent's log tell more"
        ).into();
    }
    if speech.visits.other_signals() > 0 {
        return format!(
            "metrics or logs come from {from} and no spans: the agent works, but nothing that it instruments is in use, or its traces are switched off"
        ).into();
    }
    if speech.visits.connections() > 0 {
        return format!(
            "it connected from {from} and sent no spans: nothing that the agent instruments is in use yet, or it speaks something other than OTLP (https to a port without TLS, for one)"
        ).into();
    }
    if let Some(suspicion) = &container.suspicion {
        return suspicion.into();
    }
    unheard(container, facts.addresses.first(), own)
}

fn not_running(facts: &Facts, container: &ContainerFacts, reason: Option<&str>) -> Likely {
    match (&facts.blocked, reason) {
        (Some((init, reason)), _) => {
            format!("init container {init} does not get on ({reason}); `kubectl describe pod` tells why").into()
        }
        (None, Some("CrashLoopBackOff")) => {
            let crash = format!(
                "the container crashes again and again ({} restarts); `kubectl logs --previous` tells why, and without the annotation it starts uninstrumented",
                container.restarts
            );
            Likely::from(crash).with(Fix::PreviousLog)
        }
        (None, Some(reason)) => {
            format!("the container does not run ({reason}); `kubectl describe pod` tells why").into()
        }
        (None, None) => "the container does not run yet".into(),
    }
}

/// Nobody came from its address at all.
fn unheard(container: &ContainerFacts, address: Option<&IpAddr>, own: &OwnService) -> Likely {
    let right = format!("http://{}.{}:4318", own.service, own.namespace);
    let nobody = match address {
        Some(address) => format!("no connection came from {address}"),
        None => "it shares its node's address, so its connections cannot be told apart".to_owned(),
    };
    let url = match &container.endpoint {
        Endpoint::Unset => {
            let sentence = format!(
                "{nobody}, and no endpoint is set, so agents send to the pod itself; set the Instrumentation's spec.exporter.endpoint to {right}"
            );
            return Likely::from(sentence).with(Fix::Endpoint(right));
        }
        Endpoint::Unknown => {
            return format!(
                "{nobody}; check that OTEL_EXPORTER_OTLP_ENDPOINT leads to {right}, then the container's log"
            )
            .into();
        }
        Endpoint::Url(url) => url,
    };
    let (host, port) = host_and_port(url);
    if ["localhost", "127.0.0.1", "::1", "0.0.0.0"].contains(&host.as_str()) {
        let sentence = format!(
            "it sends to {url}, which is the pod itself; set the Instrumentation's spec.exporter.endpoint to {right}"
        );
        return Likely::from(sentence).with(Fix::Endpoint(right));
    }
    if !own.is_host(&host) {
        return format!(
            "{nobody}; it sends to {url}: if that does not lead to Spanreel, set the Instrumentation's spec.exporter.endpoint to {right}"
        ).into();
    }
    if !matches!(port, Some(4317 | 4318)) {
        let sentence = format!(
            "{nobody}; it sends to {url}, and Spanreel takes OTLP on ports 4317 and 4318 unless configured otherwise; set the Instrumentation's spec.exporter.endpoint to {right}"
        );
        return Likely::from(sentence).with(Fix::Endpoint(right));
    }
    format!(
        "{nobody}: the agent did not start (the container's log tells), or a NetworkPolicy stands between it and {url}"
    )
    .into()
}

/// Of a URL, or of `host:port` as gRPC has it. Without a port: that of the scheme.
fn host_and_port(url: &str) -> (String, Option<u16>) {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let by_scheme = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    match authority.parse::<http::uri::Authority>() {
        Ok(authority) => {
            let host = authority.host().trim_matches(['[', ']']).to_ascii_lowercase();
            (host, authority.port_u16().or(by_scheme))
        }
        Err(_) => (authority.to_owned(), None),
    }
}

impl OwnService {
    fn is_host(&self, host: &str) -> bool {
        let Some(rest) = host.strip_prefix(&self.service) else { return false };
        let Some(rest) = rest.strip_prefix('.').and_then(|rest| rest.strip_prefix(&self.namespace)) else {
            return rest.is_empty();
        };
        ["", ".svc", ".svc.cluster.local", ".svc.cluster.local."].contains(&rest)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn suspicion(container: Value, languages: &[Language]) -> Option<Suspicion> {
        let mut container: Value = container;
        container["name"] = "app".into();
        let container: Container = serde_json::from_value(container).unwrap();
        Suspicion::of(&container, languages, &mut |text| text.into())
    }

    fn env(name: &str, value: &str) -> Value {
        json!({"env": [{"name": name, "value": value}]})
    }

    #[test]
    fn what_switches_spans_off_is_seen() {
        let java = &[Language::Java];
        let off = |container| suspicion(container, java).map(|suspicion| suspicion.sentence());
        assert!(off(env("OTEL_SDK_DISABLED", "True")).unwrap().contains("OTEL_SDK_DISABLED=True"));
        assert_eq!(off(env("OTEL_SDK_DISABLED", "false")), None);
        assert!(off(env("OTEL_TRACES_EXPORTER", "none")).is_some());
        assert_eq!(off(env("OTEL_TRACES_EXPORTER", "otlp,console")), None);
        assert!(off(env("OTEL_TRACES_SAMPLER", "always_off")).is_some());
        assert_eq!(off(env("OTEL_TRACES_SAMPLER", "traceidratio")), None);
        let ratio = |argument: &str| {
            off(json!({"env": [{"name": "OTEL_TRACES_SAMPLER", "value": "parentbased_traceidratio"},
                {"name": "OTEL_TRACES_SAMPLER_ARG", "value": argument}]}))
        };
        assert!(ratio("0").is_some() && ratio("0.0").is_some());
        assert_eq!(ratio("0.25"), None);
    }

    #[test]
    fn languages_are_guessed_from_the_command_then_the_image() {
        let wrong = |container| match suspicion(container, &[Language::Java, Language::Sdk]) {
            Some(Suspicion::Language { program, .. }) => Some(program),
            _ => None,
        };
        assert_eq!(wrong(json!({"image": "docker.io/library/node:20-alpine"})), Some("nodejs"));
        assert_eq!(wrong(json!({"image": "node@sha256:00", "command": ["/usr/bin/java", "-jar"]})), None);
        assert_eq!(wrong(json!({"image": "shop:1", "command": ["python3.12"]})), Some("python"));
        assert_eq!(wrong(json!({"image": "registry.example:5000/java-node-shop"})), None);
        assert_eq!(wrong(json!({"image": "eclipse-temurin:21"})), None);
        assert_eq!(suspicion(json!({"image": "node:20"}), &[Language::Sdk]), None);
        assert_eq!(suspicion(json!({"image": "node:20"}), &[]), None, "injected by somebody else");
    }

    #[test]
    fn own_hosts_are_known_in_every_form() {
        let own = OwnService { service: "spanreel".to_owned(), namespace: "obs".to_owned() };
        for host in ["spanreel", "spanreel.obs", "spanreel.obs.svc", "spanreel.obs.svc.cluster.local"] {
            assert!(own.is_host(host), "{host}");
        }
        for host in ["spanreel.other", "spanreel2", "spanreel.obs.example", "collector.obs", "spanreel.obsx"] {
            assert!(!own.is_host(host), "{host}");
        }
        assert_eq!(host_and_port("http://Spanreel.obs:4318/v1"), ("spanreel.obs".to_owned(), Some(4318)));
        assert_eq!(host_and_port("http://[::1]:1"), ("::1".to_owned(), Some(1)));
        assert_eq!(host_and_port("https://h"), ("h".to_owned(), Some(443)));
        assert_eq!(host_and_port("h:4317"), ("h".to_owned(), Some(4317)));
    }
}
