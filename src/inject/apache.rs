//! Apache HTTPD, as opentelemetry-operator injects it; see `web_server`.

use k8s_openapi::api::core::v1::EnvVar;
use serde::Deserialize;

use super::Language;
use super::agent::Preparation;
use super::agent_files::AgentSection;
use super::outcome::Refusal;
use super::volumes::agent_volume;
use super::web_server::{AGENT_DIRECTORY, AgentImage, STAGING_DIRECTORY, Server, WebServerAgent, normalized};

const CONFIGURATION_DIRECTORY_DEFAULT: &str = "/usr/local/apache2/conf";
const LIBRARIES: [&str; 7] =
    ["common", "resources", "trace", "otlp_recordable", "exporter_ostream_span", "exporter_otlp_grpc", "webserver_sdk"];

static SERVER: Server = Server {
    language: Language::ApacheHttpd,
    attach_container: "otel-agent-attach-apache",
    configuration_volume: "otel-apache-conf-dir",
    agent_volume: "otel-apache-agent",
    configuration_variable: "OTEL_APACHE_AGENT_CONF",
    instance_variable: "APACHE_SERVICE_INSTANCE_ID",
    attach_script: include_str!("web_server/apache_attach.sh"),
    directive_prefix: "ApacheModule",
    line_end: "",
    needs_library_path: false,
};

/// `spec.apacheHttpd`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApacheSection {
    #[serde(flatten)]
    pub agent: AgentSection,
    /// Directives of the module.
    pub attrs: Vec<EnvVar>,
    /// `2.4`, the default, or `2.2`.
    pub version: String,
    /// The folder of `httpd.conf`.
    pub config_path: String,
}

/// # Errors
/// The section would make pods invalid.
pub(super) fn agent<'a>(preparation: &Preparation<'a>) -> Result<WebServerAgent<'a>, Refusal> {
    let apache = &preparation.spec.apache_httpd;
    let files = AgentImage::new(Language::ApacheHttpd, &apache.agent, preparation)?;
    let directory = match apache.config_path.as_str() {
        "" => CONFIGURATION_DIRECTORY_DEFAULT.to_owned(),
        given => normalized("spec.apacheHttpd.configPath", given)?,
    };
    let mut doubts = Vec::new();
    if !["", "2.2", "2.4"].contains(&apache.version.as_str()) {
        doubts.push(format!("spec.apacheHttpd.version \"{}\" is neither 2.2 nor 2.4; taken as 2.4", apache.version));
    }
    let (claim, limit) = (apache.agent.volume_claim_template.as_ref(), apache.agent.volume_limit_size.as_ref());
    Ok(WebServerAgent {
        server: &SERVER,
        section: &apache.agent,
        attributes: &apache.attrs,
        written: ["httpd.conf", "opentemetry_agent.conf"].map(str::to_owned).to_vec(),
        clone_command: ["cp", "-r", &format!("{directory}/."), STAGING_DIRECTORY].map(str::to_owned).to_vec(),
        clone_arguments: None,
        attach_argument: directory.clone(),
        directory,
        preamble: preamble(&apache.version),
        volumes: vec![
            agent_volume(SERVER.configuration_volume, None, limit),
            agent_volume(SERVER.agent_volume, claim, limit),
        ],
        doubts,
        files,
    })
}

/// Loads the SDK's libraries in the order in which they need one another, then the module.
fn preamble(version: &str) -> String {
    let libraries =
        LIBRARIES.map(|library| format!("LoadFile {AGENT_DIRECTORY}/sdk_lib/lib/libopentelemetry_{library}.so\n"));
    let suffix = if version == "2.2" { "22" } else { "" };
    let module = format!("{AGENT_DIRECTORY}/WebServerModule/Apache/libmod_apache_otel{suffix}.so");
    libraries.concat() + &format!("LoadModule otel_apache_module {module}\n")
}
