//! The `resource_detection` processor: attributes of this process's surroundings on every resource.
//!
//! What is detected is detected once, when the pipeline is built; a detector that fails keeps the pipeline from starting,
//! as in the Collector. The schema URL of resources is left alone: attributes of two origins follow no one schema.

mod environment;
pub mod settings;
mod system;

use self::settings::{Detector, ResourceDetectionSettings};
use super::client::Client;
use super::surroundings::Surroundings;
use super::{Processor, ResourceEditor};
use crate::otlp::edit::{Attributes, Value};
use std::borrow::Cow;

/// One instance per pipeline.
#[derive(Debug)]
pub struct ResourceDetection {
    /// Keys are unique; a detector before another wins.
    detected: Vec<(String, String)>,
    overrides: bool,
}

impl ResourceDetection {
    /// Runs the detectors.
    ///
    /// # Errors
    /// What a detector says, in one line.
    pub async fn detect(settings: &ResourceDetectionSettings, surroundings: &Surroundings) -> Result<Self, String> {
        let mut detected: Vec<(String, String)> = Vec::new();
        for detector in &settings.detectors {
            let found = match detector {
                Detector::Env => environment::detect(&|name| std::env::var(name).ok()),
                Detector::System => system::detect(&settings.system),
                Detector::K8sNode => {
                    let detection = node(settings, surroundings);
                    tokio::time::timeout(settings.timeout, detection)
                        .await
                        .unwrap_or_else(|_| Err(format!("took longer than {:?}", settings.timeout)))
                }
            };
            let found = found.map_err(|problem| format!("the detector {} failed: {problem}", detector.as_str()))?;
            for (key, value) in found {
                if !detected.iter().any(|(known, _)| *known == key) {
                    detected.push((key, value));
                }
            }
        }
        Ok(Self { detected, overrides: settings.overrides })
    }
}

async fn node(
    settings: &ResourceDetectionSettings,
    surroundings: &Surroundings,
) -> Result<Vec<(String, String)>, String> {
    let variable = &settings.node.node_from_env_var;
    let name = std::env::var(variable).ok().filter(|name| !name.is_empty());
    let Some(name) = name else {
        return Err(format!(
            "the environment variable {variable} is not set; give it the pod's spec.nodeName (downward API)"
        ));
    };
    let mut found = Vec::new();
    if settings.node.name {
        found.push(("k8s.node.name".to_owned(), name.clone()));
    }
    if settings.node.uid {
        let cluster = surroundings.cluster.as_ref().ok_or("there is no access to a cluster")?;
        found.push(("k8s.node.uid".to_owned(), cluster.node_uid(name).await?));
    }
    Ok(found)
}

impl Processor for ResourceDetection {
    fn resource_editor(&self) -> Option<&dyn ResourceEditor> {
        Some(self)
    }
}

impl ResourceEditor for ResourceDetection {
    fn edit_resource<'a>(&'a self, attributes: &mut Attributes<'a>, _: &'a Client) {
        for (key, value) in &self.detected {
            let value = Value::Text(Cow::Borrowed(value));
            match self.overrides {
                // What says the same already is no change.
                true if attributes.get(key) == Some(&value) => {}
                true => attributes.upsert(key.as_str(), value),
                false => drop(attributes.insert(key.as_str(), value)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::testing::{attribute, decoded_settings, edited, errors_of, request};
    use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
    use opentelemetry_proto::tonic::resource::v1::Resource;
    use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
    use std::net::{IpAddr, Ipv4Addr};

    fn applied(overrides: bool) -> Vec<(String, String)> {
        let detected = [("host.name", "here"), ("os.type", "linux")];
        let detected = detected.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let resource = Resource { attributes: vec![attribute("host.name", "theirs")], ..Default::default() };
        let request = request(vec![ResourceSpans { resource: Some(resource), ..Default::default() }]);
        let processor = ResourceDetection { detected, overrides };
        let edited = edited(&processor, &request, &Client::of(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        let resource = edited.resource_spans.into_iter().next().unwrap().resource.unwrap();
        let text = |value: Option<Any>| match value {
            Some(Any::StringValue(text)) => text,
            other => panic!("{other:?}"),
        };
        resource.attributes.into_iter().map(|it| (it.key, text(it.value.unwrap().value))).collect()
    }

    fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    }

    #[test]
    fn what_is_there_is_kept_or_overridden_as_configured() {
        assert_eq!(applied(true), pairs([("host.name", "here"), ("os.type", "linux")]));
        assert_eq!(applied(false), pairs([("host.name", "theirs"), ("os.type", "linux")]));
    }

    #[tokio::test]
    async fn detectors_that_cannot_work_say_why() {
        let settings = |text: &str| decoded_settings(text, ResourceDetectionSettings::decode);
        let detect = async |text: &str| ResourceDetection::detect(&settings(text), &Surroundings::default()).await;
        let error = detect("{detectors: [k8snode], k8snode: {node_from_env_var: NO_SUCH_VARIABLE}}").await.unwrap_err();
        assert!(error.starts_with("the detector k8snode failed: the environment variable NO_SUCH_VARIABLE is not set"));
        // A variable that every test process has.
        let error = detect("{detectors: [k8snode], k8snode: {node_from_env_var: PATH}}").await.unwrap_err();
        assert_eq!(error, "the detector k8snode failed: there is no access to a cluster");
        let found = detect("{detectors: [system], system: {hostname_sources: [os]}}").await.unwrap().detected;
        assert!(found.iter().any(|(key, value)| key == "host.name" && !value.is_empty()), "{found:?}");
        assert!(found.contains(&("os.type".to_owned(), "linux".to_owned())), "{found:?}");
    }

    #[test]
    fn detectors_that_are_not_there_are_refused_by_name() {
        let errors = |text: &str| errors_of(text, |section| drop(ResourceDetectionSettings::decode(section)));
        let reason = "detectors: \"ec2\" is not supported (supported: env, system, k8snode)";
        assert_eq!(errors("detectors: [env, ec2]"), [reason]);
        assert_eq!(errors("detectors: [evn]"), ["detectors: \"evn\" is not supported (did you mean \"env\"?)"]);
        let reason = errors("{detectors: [system], system: {hostname_sources: [cname]}}");
        assert!(reason[0].starts_with("system::hostname_sources: \"cname\" is not supported"), "{reason:?}");
    }
}
