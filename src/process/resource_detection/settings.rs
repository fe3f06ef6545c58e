//! Settings of the `resource_detection` processor, with the Collector's names and defaults.

use crate::config::{Declaration, Section, Shape, Stability, nearest};
use crate::otlp::Signal;
use crate::process::settings::ProcessorSettings;
use std::time::Duration;

/// The `resource_detection` processor.
pub const DECLARATION: Declaration<ProcessorSettings> = Declaration::new(
    "resource_detection",
    Stability::Beta,
    "Adds attributes of the process's surroundings to resources.",
    |section| ProcessorSettings::ResourceDetection(ResourceDetectionSettings::decode(section)),
)
.with_aliases(&["resourcedetection"])
.serving(&Signal::ALL);

/// `processors::resource_detection`.
#[derive(Debug, Clone, PartialEq)]
pub struct ResourceDetectionSettings {
    /// In order; of a key that two of them know the first one's value counts. Default: `env`.
    pub detectors: Vec<Detector>,
    /// `override`: whether attributes that are there give way. Default true.
    pub overrides: bool,
    /// For a detector that asks somebody. Default 5 s.
    pub timeout: Duration,
    pub system: SystemSettings,
    pub node: NodeSettings,
}

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detector {
    /// `OTEL_RESOURCE_ATTRIBUTES`.
    Env,
    System,
    /// The node that the pod runs on.
    K8sNode,
}

/// `system`: where the host's name comes from, and which attributes are wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct SystemSettings {
    /// The first that knows. Default: dns, os.
    pub host_name_sources: Vec<HostNameSource>,
    pub host_name: bool,
    pub os_type: bool,
    pub host_id: bool,
    pub host_arch: bool,
    pub os_name: bool,
    pub os_version: bool,
    pub os_build_id: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostNameSource {
    /// The full name, of `/etc/hosts`; no server is asked.
    Dns,
    /// The kernel's.
    Os,
}

/// `k8snode`: which variable names the node, and which attributes are wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeSettings {
    /// Default `K8S_NODE_NAME`.
    pub node_from_env_var: String,
    pub name: bool,
    pub uid: bool,
}

const DETECTORS: [(&str, Detector); 4] = [
    ("env", Detector::Env),
    ("system", Detector::System),
    ("k8snode", Detector::K8sNode),
    // What the detector is going to be called.
    ("k8s_api", Detector::K8sNode),
];

impl Detector {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Env => "env",
            Self::System => "system",
            Self::K8sNode => "k8snode",
        }
    }
}

impl ResourceDetectionSettings {
    pub(super) fn decode(section: &mut Section<'_>) -> Self {
        let written = section.has("detectors");
        let names = section.list("detectors");
        let find = |name: &String| {
            let found = DETECTORS.iter().find(|(known, _)| known == name).map(|(_, detector)| *detector);
            if found.is_none() {
                let remedy = match nearest(name, DETECTORS.iter().map(|(name, _)| *name)) {
                    Some(close) => format!("did you mean {close:?}?"),
                    None => "supported: env, system, k8snode".to_owned(),
                };
                section.error("detectors", format!("{name:?} is not supported"), remedy);
            }
            found
        };
        let detectors = if written { names.iter().filter_map(find).collect() } else { vec![Detector::Env] };
        let settings = Self {
            detectors,
            overrides: section.bool("override", true),
            timeout: section.duration("timeout", Duration::from_secs(5)),
            system: section.section("system", SystemSettings::decode),
            node: NodeSettings::decode(section),
        };
        section.inert("refresh_interval", Shape::Duration, "what these detectors find does not change");
        section.inert("retry", Shape::Map, "a detector is asked once; a pipeline that could not start says so");
        section.inert("fail_on_missing_metadata", Shape::Bool, "these detectors always fail when they find nothing");
        section.unsupported(
            "attributes",
            "the Collector gave it up",
            "list them under resource_attributes of the detector",
        );
        settings
    }
}

impl SystemSettings {
    fn decode(section: &mut Section<'_>) -> Self {
        let names = section.list("hostname_sources");
        let mut host_name_sources = Vec::new();
        for name in &names {
            match name.as_str() {
                "dns" => host_name_sources.push(HostNameSource::Dns),
                "os" => host_name_sources.push(HostNameSource::Os),
                other => {
                    let remedy = "supported: dns (of /etc/hosts; no server is asked), os";
                    section.error("hostname_sources", format!("{other:?} is not supported"), remedy);
                }
            }
        }
        if names.is_empty() {
            host_name_sources = vec![HostNameSource::Dns, HostNameSource::Os];
        }
        section.section("resource_attributes", |section| {
            for key in [
                "host.ip",
                "host.mac",
                "host.interface",
                "host.cpu.vendor.id",
                "host.cpu.family",
                "host.cpu.model.id",
                "host.cpu.model.name",
                "host.cpu.stepping",
                "host.cpu.cache.l2.size",
                "os.description",
            ] {
                section.section(key, |section| {
                    let why = "Spanreel does not find it out";
                    section.only("enabled", &["false"], why, "remove it, or set it with the resource processor");
                });
            }
            Self {
                host_name_sources,
                host_name: enabled(section, "host.name", true),
                os_type: enabled(section, "os.type", true),
                host_id: enabled(section, "host.id", false),
                host_arch: enabled(section, "host.arch", false),
                os_name: enabled(section, "os.name", false),
                os_version: enabled(section, "os.version", false),
                os_build_id: enabled(section, "os.build.id", false),
            }
        })
    }
}

impl NodeSettings {
    /// Under either of the detector's names; the newer one wins.
    fn decode(section: &mut Section<'_>) -> Self {
        let old = section.section("k8snode", Self::decode_section);
        let new = section.has("k8s_api").then(|| section.section("k8s_api", Self::decode_section));
        new.unwrap_or(old)
    }

    fn decode_section(section: &mut Section<'_>) -> Self {
        let node_from_env_var = section.text("node_from_env_var", "K8S_NODE_NAME");
        let why = "Spanreel uses the access to the cluster that it has anyway";
        section.inert_but("auth_type", Shape::Text, &["serviceAccount"], why);
        for key in ["context", "kube_api_qps", "kube_api_burst"] {
            section.inert(key, Shape::Any, why);
        }
        section.section("resource_attributes", |section| Self {
            node_from_env_var,
            name: enabled(section, "k8s.node.name", true),
            uid: enabled(section, "k8s.node.uid", true),
        })
    }
}

fn enabled(section: &mut Section<'_>, key: &'static str, default: bool) -> bool {
    section.section(key, |section| section.bool("enabled", default))
}
