//! Where configurations come from: `--config` values, `--set`, a custom resource, the built-in text.

use super::diagnostic::{Diagnostic, Position, Report};
use super::node::{self, Node, Value};
use super::yaml::{self, TEXT_BYTES_MAX};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One source of a configuration. Several are merged in order: maps deeply, everything else replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `--config file:/etc/spanreel.yaml` or just the path.
    File(PathBuf),
    /// `--config env:NAME`: the YAML is in an environment variable.
    Env(String),
    /// Text at hand: `--config yaml:...`, a custom resource, the built-in default.
    Text {
        /// What stands before the line number in errors, e.g. `opentelemetry/global-optl`.
        name: String,
        text: String,
    },
}

/// Which addresses the built-in configuration listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Outside a cluster: nobody asked for an open port.
    Loopback,
    /// In a cluster: a pod that only talks to itself is of no use.
    AllInterfaces,
}

/// Whether a configuration may read files by `${file:...}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// The operator's own configuration.
    Readable,
    /// A custom resource: whoever may write one must not thereby read this process's service account token.
    Refused,
}

impl Source {
    /// Reads a `--config` value.
    pub fn parse(uri: &str) -> Result<Self, Diagnostic> {
        let Some((scheme, rest)) = uri.split_once(':').filter(|(scheme, _)| is_scheme(scheme)) else {
            return Ok(Self::File(uri.into()));
        };
        match scheme {
            "file" => Ok(Self::File(rest.into())),
            "env" => Ok(Self::Env(rest.to_owned())),
            "yaml" => Ok(Self::Text { name: "--config yaml".to_owned(), text: rest.to_owned() }),
            "http" | "https" => Err(Diagnostic::error(
                None,
                "",
                format!("--config {uri}: configurations are not fetched over {scheme}"),
            )
            .with_remedy("download it and give the file, or mount it from a ConfigMap")),
            _ => Err(Diagnostic::error(None, "", format!("unsupported scheme on URI {uri:?}"))
                .with_remedy("supported: file:PATH or just PATH, env:NAME, yaml:TEXT")),
        }
    }

    /// What runs when nobody gives a configuration: OTLP in, kept in the store, sent nowhere.
    pub fn built_in(reach: Reach) -> Self {
        let host = match reach {
            Reach::Loopback => "127.0.0.1",
            Reach::AllInterfaces => "0.0.0.0",
        };
        let text = include_str!("built_in.yaml").replace("LISTEN_HOST", host);
        Self::Text { name: "built-in".to_owned(), text }
    }

    /// The tree of this source alone, `a::b` keys nested, references not yet expanded.
    pub(super) fn read(&self, env: &dyn Fn(&str) -> Option<String>, report: &Report) -> Result<Node, Diagnostic> {
        let (name, text) = match self {
            Self::File(path) => (path.display().to_string(), read_file(path)?),
            Self::Text { name, text } => (name.clone(), text.clone()),
            Self::Env(name) => match env(name) {
                Some(text) => (format!("env:{name}"), text),
                None => {
                    let reason = format!("--config env:{name}: the environment variable is not set");
                    return Err(Diagnostic::error(None, "", reason));
                }
            },
        };
        let (mut root, second) = yaml::parse_first(&Arc::from(name), &text)?;
        if let Some(second) = second {
            let reason = "a second YAML document starts here, and is not read, as in the Collector";
            report.warn(&second, "", reason, "give --config several times to merge files");
        }
        node::nest_keys(&mut root);
        match root.value {
            Value::Map(_) | Value::Null => Ok(root),
            _ => Err(Diagnostic::error(
                Some(root.position.clone()),
                "",
                format!("a configuration is a map of sections, this is {}", root.describe()),
            )
            .with_remedy("top level: receivers, processors, exporters, extensions, service")),
        }
    }
}

/// The tree of `--set a.b.c=value`: dots separate keys, the value is YAML.
pub(super) fn read_set(argument: &str) -> Result<Node, Diagnostic> {
    let usage = "write it as --set exporters.otlp.timeout=5s";
    let Some((key, value)) = argument.split_once('=').filter(|(key, _)| !key.trim().is_empty()) else {
        return Err(Diagnostic::error(None, "", format!("--set {argument}: has no key=value")).with_remedy(usage));
    };
    let source: Arc<str> = Arc::from(format!("--set {key}"));
    let parsed = yaml::parse(&source, value)?;
    let mut keys: Vec<&str> = key.split(['.']).flat_map(|part| part.split("::")).collect();
    if keys.iter().any(|key| key.is_empty()) || keys.len() > yaml::DEPTH_MAX {
        return Err(Diagnostic::error(None, "", format!("--set {argument}: an empty key")).with_remedy(usage));
    }
    let mut root = parsed;
    while let Some(key) = keys.pop() {
        let position = Position::new(&source, 1, 1);
        let entry = node::Entry { key: key.trim().to_owned(), position: position.clone(), node: root };
        root = Node::new(Value::Map(vec![entry]), position);
    }
    node::nest_keys(&mut root);
    Ok(root)
}

/// A text file within [`TEXT_BYTES_MAX`].
pub(super) fn read_file(path: &Path) -> Result<String, Diagnostic> {
    let refuse = |reason: String| Diagnostic::error(None, "", format!("{}: {reason}", path.display()));
    let file = File::open(path).map_err(|error| refuse(format!("cannot be read: {error}")))?;
    let mut text = String::new();
    let read = file.take(TEXT_BYTES_MAX as u64 + 1).read_to_string(&mut text);
    let size = read.map_err(|error| refuse(format!("cannot be read as text: {error}")))?;
    match size <= TEXT_BYTES_MAX {
        true => Ok(text),
        false => Err(refuse(format!("is larger than {} KiB", TEXT_BYTES_MAX / 1024))),
    }
}

/// A scheme has at least two characters: `c:\x` is a path.
pub(super) fn is_scheme(text: &str) -> bool {
    text.len() >= 2
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '.' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_values() {
        assert_eq!(Source::parse("a/b.yaml"), Ok(Source::File("a/b.yaml".into())));
        assert_eq!(Source::parse("file:/x"), Ok(Source::File("/x".into())));
        assert_eq!(Source::parse("c:\\x"), Ok(Source::File("c:\\x".into())));
        assert_eq!(Source::parse("env:A"), Ok(Source::Env("A".into())));
        let refused = |uri| Source::parse(uri).unwrap_err().to_string();
        assert!(refused("foo:bar").starts_with("unsupported scheme on URI \"foo:bar\""));
        assert!(refused("https://x/y").contains("not fetched over https"));
    }

    #[test]
    fn set_nests_by_dots() {
        let root = read_set("exporters.otlp.timeout=5s").unwrap();
        let path: Vec<&str> = std::iter::successors(root.entries(), |entries| entries[0].node.entries())
            .map(|entries| entries[0].key.as_str())
            .collect();
        assert_eq!(path, ["exporters", "otlp", "timeout"]);
        assert!(read_set("exporters").unwrap_err().to_string().contains("has no key=value"));
        assert!(read_set("a..b=1").unwrap_err().to_string().contains("empty key"));
    }
}
