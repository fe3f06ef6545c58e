//! `sdk`: the application brings its own SDK, only the environment is injected.

use k8s_openapi::api::core::v1::{Container, EnvVar};

use super::agent::{Agent, Delivery};
use super::environment::Environment;
use super::outcome::Refusal;

#[derive(Debug)]
pub(super) struct SdkOnly;

impl Agent for SdkOnly {
    fn env(&self) -> &[EnvVar] {
        &[]
    }

    fn attach(&self, _container: &mut Container, _env: &Environment) -> Result<(), Refusal> {
        Ok(())
    }

    fn load(&self, _container: &str, _env: &mut Environment) -> Vec<String> {
        Vec::new()
    }

    fn doubts(&self) -> Vec<String> {
        Vec::new()
    }

    fn delivery(&self) -> Option<Delivery> {
        None
    }
}
