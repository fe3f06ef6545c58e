//! Where traces are asked for.

use serde_json::Value;

use super::client;
use super::traces::ANSWER_WAIT_MAX;

/// A running process.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// By the URL of its query port.
    Running(&'a str),
}

impl Place<'_> {
    /// The JSON at a path of the query API, or one line for stderr.
    pub fn get(&self, path: &str) -> Result<Value, String> {
        match self {
            Self::Running(endpoint) => {
                client::get(endpoint, path, ANSWER_WAIT_MAX).map_err(|failure| failure.line(endpoint))
            }
        }
    }
}
