//! Settings of attribute actions, with the Collector's names and checks.

use crate::config::{Plain, Secrecy, Section, nearest};
use crate::process::pattern::Pattern;

/// One action on attributes.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Put {
        how: Put,
        key: String,
        source: Source,
    },
    /// The key, and every key that the pattern matches.
    Delete {
        key: String,
        pattern: Option<Pattern>,
    },
    Hash {
        key: String,
        pattern: Option<Pattern>,
    },
    /// Every group of the pattern has a name, which is the key that its text goes to.
    Extract {
        key: String,
        pattern: Pattern,
    },
    Convert {
        key: String,
        to: Conversion,
    },
}

/// When a value is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// Only if the key is not there.
    Insert,
    /// Only if it is.
    Update,
    Upsert,
}

/// Where a value comes from: the first that has one.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    pub value: Option<Plain>,
    pub from_context: Option<ContextValue>,
    pub from_attribute: Option<String>,
    pub default_value: Option<Plain>,
}

/// What is known about the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContextValue {
    /// Its IP address.
    Address,
    /// A request header.
    Metadata(String),
    /// What the authenticator found out.
    Auth(String),
}

/// What `convert` makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conversion {
    Text,
    Int,
    Double,
}

const ACTIONS: [&str; 7] = ["insert", "update", "upsert", "delete", "hash", "extract", "convert"];

/// The list of actions at `key`, which must not be empty.
pub fn actions(section: &mut Section<'_>, key: &'static str) -> Vec<Action> {
    let actions: Vec<Option<Action>> = section.sections(key, Action::decode);
    if actions.is_empty() && section.is_sound() {
        section.error(
            key,
            "must have at least one action",
            "e.g. - {key: deployment.environment, value: prod, action: upsert}",
        );
    }
    actions.into_iter().flatten().collect()
}

impl Action {
    /// `None`: refused.
    fn decode(section: &mut Section<'_>) -> Option<Self> {
        let key = section.text("key", "");
        let word = section.text("action", "").to_ascii_lowercase();
        let (value, default_value) = (section.plain("value"), section.plain("default_value"));
        let text =
            |section: &mut Section<'_>, key| section.optional_text(key, Secrecy::Open).filter(|it| !it.is_empty());
        let from_attribute = text(section, "from_attribute");
        let from_context = text(section, "from_context");
        let pattern = text(section, "pattern");
        let converted_type = text(section, "converted_type");
        if !section.is_sound() {
            return None;
        }
        if !ACTIONS.contains(&word.as_str()) {
            let reason =
                if word.is_empty() { "is missing".to_owned() } else { format!("{word:?} is not one of its values") };
            let remedy = match nearest(&word, ACTIONS) {
                Some(action) => format!("did you mean {action:?}?"),
                None => format!("one of: {}", ACTIONS.join(", ")),
            };
            section.error("action", reason, remedy);
            return None;
        }
        let by_key_or_pattern = matches!(word.as_str(), "delete" | "hash");
        if key.is_empty() && !(by_key_or_pattern && pattern.is_some()) {
            let remedy = if by_key_or_pattern { "name the attribute, or give a pattern" } else { "name the attribute" };
            section.error("key", "is missing", remedy);
            return None;
        }
        let unused = |present: bool, field: &str| {
            if present {
                section.error(field, format!("is not used by the action {word}"), "remove it");
            }
        };
        let sources = [
            ("value", value.is_some()),
            ("from_attribute", from_attribute.is_some()),
            ("from_context", from_context.is_some()),
        ];
        if !matches!(word.as_str(), "insert" | "update" | "upsert") {
            for (field, present) in sources {
                // The Collector lets this pair pass.
                unused(present && !(by_key_or_pattern && field == "from_context"), field);
            }
        }
        if default_value.is_some() && !matches!(word.as_str(), "insert" | "update" | "upsert") {
            section.warn("default_value", format!("is not used by the action {word}"), "remove it");
        }
        unused(pattern.is_some() && matches!(word.as_str(), "insert" | "update" | "upsert" | "convert"), "pattern");
        unused(converted_type.is_some() && word != "convert", "converted_type");
        let compiled = pattern.as_deref().and_then(|text| Pattern::reported(section, "pattern", text));
        if !section.is_sound() {
            return None;
        }
        match word.as_str() {
            "insert" | "update" | "upsert" => {
                let given: Vec<&str> =
                    sources.iter().filter(|(_, present)| *present).map(|(field, _)| *field).collect();
                if given.is_empty() && default_value.is_none() {
                    let reason = "one of value, from_attribute, from_context and default_value must be given";
                    section.error("", reason, "e.g. value: prod");
                    return None;
                }
                if let [_, second, ..] = given.as_slice() {
                    section.error(
                        second,
                        format!("{} cannot be given together", given.join(" and ")),
                        "keep one of them",
                    );
                    return None;
                }
                let how = match word.as_str() {
                    "insert" => Put::Insert,
                    "update" => Put::Update,
                    _ => Put::Upsert,
                };
                let from_context = from_context.map(ContextValue::named);
                Some(Self::Put { how, key, source: Source { value, from_context, from_attribute, default_value } })
            }
            "delete" => Some(Self::Delete { key, pattern: compiled }),
            "hash" => Some(Self::Hash { key, pattern: compiled }),
            "extract" => {
                let Some(pattern) = compiled else {
                    section.error("pattern", "is missing: extract needs one", "e.g. ^(?P<http_method>[A-Z]+) ");
                    return None;
                };
                let mut names = pattern.regex().capture_names().skip(1).peekable();
                if names.peek().is_none() || names.any(|name| name.is_none()) {
                    let reason = "every group must have a name, and there must be one: it is the key of what it finds";
                    section.error("pattern", reason, "write (?P<name>...), and (?:...) for what is not wanted");
                    return None;
                }
                drop(names);
                Some(Self::Extract { key, pattern })
            }
            // It is one of the seven, and the others are above.
            _ => {
                let to = match converted_type.as_deref() {
                    Some("string") => Conversion::Text,
                    Some("int") => Conversion::Int,
                    Some("double") => Conversion::Double,
                    other => {
                        let reason = match other {
                            None => "is missing: convert needs one".to_owned(),
                            Some(other) => format!("{other:?} is not one of its values"),
                        };
                        section.error("converted_type", reason, "one of: string, int, double");
                        return None;
                    }
                };
                Some(Self::Convert { key, to })
            }
        }
    }
}

impl ContextValue {
    fn named(name: String) -> Self {
        if name == "client.address" {
            return Self::Address;
        }
        match (name.strip_prefix("metadata."), name.strip_prefix("auth.")) {
            (Some(name), _) => Self::Metadata(name.to_owned()),
            (None, Some(name)) => Self::Auth(name.to_owned()),
            // As in the Collector: a bare name is a header.
            (None, None) => Self::Metadata(name),
        }
    }
}
