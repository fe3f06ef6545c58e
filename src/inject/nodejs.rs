//! Node.js, as opentelemetry-operator injects it: `NODE_OPTIONS` requires a file that loads the agent.

use k8s_openapi::api::core::v1::{Container, EnvVar};

use super::Language;
use super::agent::{self, Agent, Delivery, Preparation};
use super::agent_files::{AgentFiles, AgentSection};
use super::environment::{Environment, literal};
use super::outcome::Refusal;
use super::validity::Requests;

const VARIABLE: &str = "NODE_OPTIONS";
/// Where the image has the agent, below its root.
const SOURCE: &str = "autoinstrumentation";
const REQUESTS_DEFAULT: Requests = Requests { cpu: "50m", memory: "128Mi" };

#[derive(Debug)]
pub(super) struct NodeJsAgent<'a> {
    section: &'a AgentSection,
    files: AgentFiles,
}

impl<'a> NodeJsAgent<'a> {
    pub(super) fn new(preparation: &Preparation<'a>) -> Result<Self, Refusal> {
        let section = &preparation.spec.nodejs;
        let files = AgentFiles::new(Language::NodeJs, section.files(), &REQUESTS_DEFAULT, preparation)?;
        Ok(Self { section, files })
    }
}

impl Agent for NodeJsAgent<'_> {
    fn env(&self) -> &[EnvVar] {
        &self.section.env
    }

    fn attach(&self, container: &mut Container, env: &Environment) -> Result<(), Refusal> {
        agent::check_extensible(Language::NodeJs, &container.name, env, VARIABLE)?;
        self.files.mount(container, self.files.directory(), Some(SOURCE))
    }

    fn load(&self, _container: &str, env: &mut Environment) -> Vec<String> {
        let option = format!(" --require {}/autoinstrumentation.js", self.files.directory());
        let extended = env.change_value(VARIABLE, |existing| format!("{}{option}", existing.unwrap_or_default()));
        // Without a reader the SDK would drop metrics in silence.
        env.push_absent(literal("OTEL_METRICS_EXPORTER", "otlp"));
        agent::note_unless(extended, Language::NodeJs, VARIABLE, &option)
    }

    fn doubts(&self) -> Vec<String> {
        self.files.doubts()
    }

    fn delivery(&self) -> Option<Delivery> {
        Some(self.files.delivery(&["cp", "-r", &format!("/{SOURCE}/."), self.files.directory()]))
    }
}
