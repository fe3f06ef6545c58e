//! What the API server says about itself: its time, which certificates must fit, and what it can do.

use std::time::{Duration, SystemTime};

use http::header::DATE;
use http_body_util::{BodyExt as _, Limited};
use kube::Client;
use kube::client::Body;
use serde_json::Value;

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
    /// Whether pods may mount images. That a node's kubelet and runtime can do it as well is not known here.
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

    use serde_json::json;

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
