//! The Instrumentation as its webhooks see it: any JSON that the API server lets through. Fields that are not known
//! stay as they are.

mod defaults;
mod upgrade;
mod validation;

pub use defaults::default_instrumentation;
pub use upgrade::{Blocked, Upgrade, upgrade_instrumentation};
pub use validation::validate_instrumentation;

/// What an admission webhook has to say about a resource.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Review {
    /// Shown to whoever applied the resource; it is admitted all the same.
    pub warnings: Vec<String>,
    /// Each with its field's path and value. Any of them refuses the resource.
    pub errors: Vec<String>,
}
