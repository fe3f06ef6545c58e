//! What the API server says about itself: its time, which certificates must fit, and what it can do.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use http::header::DATE;
use http_body_util::{BodyExt as _, Limited};
use k8s_openapi::api::core::v1::PodTemplate;
use kube::api::PostParams;
use kube::client::Body;
use kube::{Api, Client};
use serde_json::{Value, json};

/// Image volumes are on by default from this minor version of 1.x.
const IMAGE_VOLUMES_MINOR: u32 = 35;
/// An answer is a few hundred bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
const WAIT_MAX: Duration = Duration::from_secs(10);

/// What is known of the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Server {
    /// Its clock, to the second.
    pub(super) now: Option<SystemTime>,
    /// Whether pods may mount images, judging by the version. That a node's kubelet and runtime can do it as well is not
    /// known here.
    pub(super) image_volumes: bool,
}

/// Asks; everybody who can reach the API server may.
///
/// # Errors
/// It cannot be reached.
pub(super) async fn ask(client: &Client) -> Result<Server, Box<kube::Error>> {
    let request = http::Request::get("/version").body(Body::empty()).map_err(kube::Error::HttpError)?;
    let answer = async {
        let response = client.send(request).await?;
        let now = response.headers().get(DATE).and_then(|date| date.to_str().ok()).and_then(time);
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let version: Value =
            body.ok().and_then(|body| serde_json::from_slice(&body.to_bytes()).ok()).unwrap_or_default();
        Ok(Server { now, image_volumes: has_image_volumes(&version) })
    };
    match tokio::time::timeout(WAIT_MAX, answer).await {
        Ok(answer) => answer,
        Err(late) => Err(Box::new(kube::Error::Service(Box::new(late)))),
    }
}

/// Whether the API server takes a pod that mounts an image. It is shown a PodTemplate, which runs nothing, and told not to
/// keep it: unlike the version this tells whether the feature is on, without the right to create pods. `None`: unknown.
pub(super) async fn takes_image_volumes(client: &Client, namespace: &str) -> Option<bool> {
    let container_security = json!({
        "allowPrivilegeEscalation": false, "runAsNonRoot": true,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
    });
    let template: PodTemplate = serde_json::from_value(json!({
        "metadata": {"generateName": "spanreel-probe-"},
        "template": {"spec": {
            "containers": [{"name": "probe", "image": "probe", "securityContext": container_security}],
            "volumes": [{"name": "image", "image": {"reference": "probe"}}],
        }},
    }))
    .ok()?;
    let api: Api<PodTemplate> = Api::namespaced(client.clone(), namespace);
    let params = PostParams { dry_run: true, ..PostParams::default() };
    match tokio::time::timeout(WAIT_MAX, api.create(&params, &template)).await.ok()? {
        Ok(shown) => {
            let spec = shown.template?.spec?;
            Some(spec.volumes.iter().flatten().any(|volume| volume.image.is_some()))
        }
        // Where the feature is off, the volume is left without a source, which is invalid.
        Err(kube::Error::Api(status)) if status.code == StatusCode::UNPROCESSABLE_ENTITY.as_u16() => Some(false),
        Err(error) => {
            tracing::debug!(%error, "whether image volumes are served is told by the version alone");
            None
        }
    }
}

fn time(date: &str) -> Option<SystemTime> {
    let parsed = jiff::fmt::rfc2822::parse(date).ok()?;
    Some(parsed.timestamp().into())
}

fn has_image_volumes(version: &Value) -> bool {
    let number = |key: &str| -> Option<u32> {
        let text = version.get(key)?.as_str()?;
        // Distributions append a plus sign and more.
        text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    match (number("major"), number("minor")) {
        (Some(1), Some(minor)) => minor >= IMAGE_VOLUMES_MINOR,
        (Some(major), _) => major > 1,
        (None, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn image_volumes_come_with_a_version() {
        for (major, minor, expected) in
            [("1", "36", true), ("1", "35+k3s1", true), ("1", "34", false), ("2", "0", true), ("", "", false)]
        {
            assert_eq!(has_image_volumes(&json!({"major": major, "minor": minor})), expected, "{major}.{minor}");
        }
        assert!(!has_image_volumes(&Value::Null));
    }

    #[test]
    fn the_date_of_an_answer_is_read() {
        let expected = UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(time("Sun, 06 Nov 1994 08:49:37 GMT"), Some(expected));
        assert_eq!(time("yesterday"), None);
    }
}
