//! Python, as opentelemetry-operator injects it: `PYTHONPATH` begins with a folder whose `sitecustomize` loads the agent,
//! and ends with the agent's packages, so that the application's own versions come first.

use k8s_openapi::api::core::v1::{Container, EnvVar};

use super::Language;
use super::agent::{self, Agent, Delivery, Preparation};
use super::agent_files::{AgentFiles, AgentSection};
use super::annotations;
use super::environment::{Environment, literal};
use super::outcome::{Reason, Refusal};
use super::validity::Requests;

const VARIABLE: &str = "PYTHONPATH";
const PLATFORM_KEY: &str = "otel-python-platform";
const REQUESTS_DEFAULT: Requests = Requests { cpu: "50m", memory: "64Mi" };

/// What the agent supports best, where nobody says otherwise.
const DEFAULTS: [(&str, &str); 4] = [
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
    ("OTEL_TRACES_EXPORTER", "otlp"),
    ("OTEL_METRICS_EXPORTER", "otlp"),
    ("OTEL_LOGS_EXPORTER", "otlp"),
];

#[derive(Debug)]
pub(super) struct PythonAgent<'a> {
    section: &'a AgentSection,
    common_env: &'a [EnvVar],
    files: AgentFiles,
    /// Where the image has the agent for the pod's C library, or the annotation that names no such library.
    source: Result<&'static str, &'a str>,
}

impl<'a> PythonAgent<'a> {
    pub(super) fn new(preparation: &Preparation<'a>) -> Result<Self, Refusal> {
        let section = &preparation.spec.python;
        let source = match annotations::option(&preparation.request, PLATFORM_KEY) {
            "" | "glibc" => Ok("autoinstrumentation"),
            "musl" => Ok("autoinstrumentation-musl"),
            other => Err(other),
        };
        let files = AgentFiles::new(Language::Python, section.files(), &REQUESTS_DEFAULT, preparation)?;
        Ok(Self { section, common_env: &preparation.spec.env, files, source })
    }

    /// The folder of `sitecustomize`, and the packages.
    fn paths(&self) -> (String, &str) {
        let directory = self.files.directory();
        (format!("{directory}/opentelemetry/instrumentation/auto_instrumentation"), directory)
    }
}

impl Agent for PythonAgent<'_> {
    fn env(&self) -> &[EnvVar] {
        &self.section.env
    }

    fn attach(&self, container: &mut Container, env: &Environment) -> Result<(), Refusal> {
        agent::check_extensible(Language::Python, &container.name, env, VARIABLE)?;
        let source = self.source.map_err(|platform| {
            let key = annotations::option_key(PLATFORM_KEY);
            Refusal::new(
                Reason::PlatformUnknown,
                format!("python: annotation {key} is \"{platform}\"; it must be glibc or musl"),
            )
        })?;
        self.files.mount(container, self.files.directory(), Some(source))
    }

    fn load_early(&self, env: &mut Environment) -> Vec<String> {
        let (first, last) = self.paths();
        let extended = env.change_value(VARIABLE, |existing| match existing {
            Some(existing) => format!("{first}:{existing}:{last}"),
            None => format!("{first}:{last}"),
        });
        agent::note_unless(extended, Language::Python, VARIABLE, &format!(" {first} and {last}"))
    }

    fn load(&self, _container: &str, env: &mut Environment) -> Vec<String> {
        for (name, value) in DEFAULTS {
            env.push_absent(literal(name, value));
        }
        Vec::new()
    }

    fn doubts(&self) -> Vec<String> {
        let mut doubts = self.files.doubts();
        if self.common_env.iter().any(|var| var.name == VARIABLE) {
            doubts.push(format!("{VARIABLE} in spec.env has no effect on python; set it in spec.python.env"));
        }
        doubts
    }

    fn delivery(&self) -> Option<Delivery> {
        let source = format!("/{}/.", self.source.ok()?);
        Some(self.files.delivery(&["cp", "-r", &source, self.files.directory()]))
    }
}
