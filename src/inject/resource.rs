//! The Instrumentation as its webhooks see it: any JSON that the API server lets through, changed or judged in place.
//!
//! Fields that are not known stay as they are; fields of a type that is not expected are left to the schema, which
//! refuses them.

mod defaults;
mod upgrade;
mod validation;

use serde_json::{Map, Value, json};

use super::Language;

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

impl Review {
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        !self.errors.is_empty()
    }
}

/// Where a language with an agent has its settings.
struct Section {
    language: Language,
    /// The key below `spec`.
    key: &'static str,
    /// Java's resources have a name of their own.
    resources_key: &'static str,
    /// Default requests of its container.
    cpu: &'static str,
    memory: &'static str,
}

const SECTIONS: [Section; 7] = [
    section(Language::Java, "java", "50m", "64Mi"),
    section(Language::NodeJs, "nodejs", "50m", "128Mi"),
    section(Language::Python, "python", "50m", "64Mi"),
    section(Language::DotNet, "dotnet", "50m", "128Mi"),
    section(Language::Go, "go", "50m", "64Mi"),
    section(Language::ApacheHttpd, "apacheHttpd", "1m", "128Mi"),
    section(Language::Nginx, "nginx", "1m", "128Mi"),
];

const fn section(language: Language, key: &'static str, cpu: &'static str, memory: &'static str) -> Section {
    let resources_key = if matches!(language, Language::Java) { "resources" } else { "resourceRequirements" };
    Section { language, key, resources_key, cpu, memory }
}

impl Section {
    /// Holds what the language's default image was when the resource was last written.
    fn annotation(&self) -> String {
        format!("instrumentation.opentelemetry.io/default-auto-instrumentation-{}-image", self.language)
    }

    fn image<'a>(&self, object: &'a Value) -> &'a str {
        text(object, &format!("/spec/{}/image", self.key))
    }
}

/// The text at a JSON pointer; empty if there is none.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The object at `key`, made if there is none; `None` if something else is there.
pub(crate) fn fields<'a>(parent: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Map<String, Value>> {
    set_if_absent(parent, key, json!({}));
    parent.get_mut(key)?.as_object_mut()
}

/// An empty object is a choice and stays.
pub(crate) fn set_if_absent(parent: &mut Map<String, Value>, key: &str, value: Value) {
    if parent.get(key).is_none_or(Value::is_null) {
        parent.insert(key.to_owned(), value);
    }
}
