//! The authenticators that a configuration's receivers name, each built once.

use super::components::{Components, ExtensionSettings};
use super::pipelines::StartError;
use crate::auth::{AuthError, Authenticator, basic, bearer};
use crate::config::Config;
use crate::receive::Policy;
use crate::receive::policy::Cors;
use crate::receive::settings::PolicySettings;
use http::{HeaderName, HeaderValue};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Default)]
pub(super) struct Authenticators {
    built: BTreeMap<String, Arc<Authenticator>>,
}

impl Authenticators {
    /// The policy of a port; what it names was checked when the configuration was read.
    pub fn policy(&mut self, config: &Config<Components>, settings: &PolicySettings) -> Result<Policy, StartError> {
        let authenticator = settings.authenticator.as_ref().map(|id| self.get(config, id)).transpose()?;
        let header = |(name, value): &(String, String)| {
            Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?))
        };
        Ok(Policy {
            authenticator,
            cors: settings.cors.as_ref().and_then(Cors::new),
            response_headers: settings.response_headers.iter().filter_map(header).collect(),
            include_metadata: settings.include_metadata,
        })
    }

    /// The authenticator that an extension configures, built when it is first asked for.
    pub fn get(&mut self, config: &Config<Components>, id: &str) -> Result<Arc<Authenticator>, StartError> {
        if let Some(built) = self.built.get(id) {
            return Ok(Arc::clone(built));
        }
        let failed = |problem: AuthError| StartError::Auth { extension: id.to_owned(), problem };
        let extension = config.extensions.iter().find(|(known, _)| known.to_string() == id);
        let built = match extension.map(|(_, extension)| &extension.settings) {
            Some(ExtensionSettings::BearerTokenAuth(settings)) => {
                Authenticator::Bearer(bearer::Tokens::new(settings).map_err(failed)?)
            }
            Some(ExtensionSettings::BasicAuth(basic::BasicAuthSettings { htpasswd: Some(settings), .. })) => {
                Authenticator::Basic(basic::Users::new(settings).map_err(failed)?)
            }
            // Whoever cannot be judged is not let in.
            _ => return Err(StartError::Internal(format!("extension {id} is no authenticator of a server"))),
        };
        let built = Arc::new(built);
        self.built.insert(id.to_owned(), Arc::clone(&built));
        Ok(built)
    }
}
