//! nginx, as opentelemetry-operator injects it; see `web_server`.

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, EnvVar, Volume};
use serde::Deserialize;

use super::Language;
use super::agent::Preparation;
use super::agent_files::AgentSection;
use super::outcome::{Reason, Refusal};
use super::volumes::agent_volume;
use super::web_server::{AgentImage, Server, WebServerAgent, normalized, shell};

const CONFIGURATION_FILE_DEFAULT: &str = "/etc/nginx/nginx.conf";
const CLONE_SCRIPT: &str = include_str!("web_server/nginx_clone.sh");

static SERVER: Server = Server {
    language: Language::Nginx,
    attach_container: "otel-agent-attach-nginx",
    configuration_volume: "otel-nginx-conf-dir",
    agent_volume: "otel-nginx-agent",
    configuration_variable: "OTEL_NGINX_AGENT_CONF",
    instance_variable: "OTEL_NGINX_SERVICE_INSTANCE_ID",
    attach_script: include_str!("web_server/nginx_attach.sh"),
    directive_prefix: "NginxModule",
    line_end: ";",
    needs_library_path: true,
};

/// `spec.nginx`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NginxSection {
    #[serde(flatten)]
    pub agent: AgentSection,
    /// Directives of the module.
    pub attrs: Vec<EnvVar>,
    /// The file that nginx reads; its whole folder is copied.
    pub config_file: String,
}

/// # Errors
/// The section would make pods invalid.
pub(super) fn agent<'a>(preparation: &Preparation<'a>) -> Result<WebServerAgent<'a>, Refusal> {
    const FIELD: &str = "spec.nginx.configFile";
    let nginx = &preparation.spec.nginx;
    let files = AgentImage::new(Language::Nginx, &nginx.agent, preparation)?;
    let given = match nginx.config_file.as_str() {
        "" => CONFIGURATION_FILE_DEFAULT,
        given => given,
    };
    let path = normalized(FIELD, given)?;
    let (directory, file) = match path.rsplit_once('/') {
        Some((directory, file)) if !directory.is_empty() => (directory.to_owned(), file.to_owned()),
        _ => {
            let message =
                format!("{FIELD} \"{given}\" is in the root; a folder of its own is needed, for it is replaced");
            return Err(Refusal::new(Reason::InstrumentationInvalid, message));
        }
    };
    let strict = preparation.settings.strict_operator_compat;
    let volume = |name: &str| {
        if strict {
            let source = EmptyDirVolumeSource::default();
            return Volume { name: name.to_owned(), empty_dir: Some(source), ..Volume::default() };
        }
        agent_volume(name, None, nginx.agent.volume_limit_size.as_ref())
    };
    let mut doubts = Vec::new();
    if nginx.agent.volume_claim_template.is_some() {
        doubts.push("spec.nginx.volumeClaimTemplate has no effect; the agent comes in an emptyDir".to_owned());
    }
    if strict && nginx.agent.volume_limit_size.is_some() {
        doubts.push("spec.nginx.volumeLimitSize has no effect with strict_operator_compat".to_owned());
    }
    Ok(WebServerAgent {
        server: &SERVER,
        section: &nginx.agent,
        attributes: &nginx.attrs,
        written: vec![file.clone(), "conf.d".to_owned(), "conf.d/opentelemetry_agent.conf".to_owned()],
        clone_command: shell(),
        clone_arguments: Some(vec![CLONE_SCRIPT.to_owned(), "--".to_owned(), directory.clone()]),
        attach_argument: file,
        directory,
        preamble: String::new(),
        volumes: vec![volume(SERVER.configuration_volume), volume(SERVER.agent_volume)],
        doubts,
        files,
    })
}
