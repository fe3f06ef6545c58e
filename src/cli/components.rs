//! `spanreel components`: what a configuration can name.

use super::outcome::Outcome;
use crate::appliance::components::Components;
use crate::config::{Declaration, Effective, Format, Kit, Secrets};

/// The registry in the layout of `otelcol components`, with aliases and a line about each instead of Go modules.
pub fn components(format: Format) -> Outcome {
    let text = |text: &str| Effective::Text(text.to_owned());
    let buildinfo = vec![
        ("command".to_owned(), text("spanreel")),
        ("description".to_owned(), text(env!("CARGO_PKG_DESCRIPTION"))),
        ("version".to_owned(), text(env!("CARGO_PKG_VERSION"))),
    ];
    let providers = ["env", "file", "yaml"];
    let providers = providers.map(|scheme| Effective::Map(vec![("scheme".to_owned(), text(scheme))])).to_vec();
    let list = Effective::Map(vec![
        ("buildinfo".to_owned(), Effective::Map(buildinfo)),
        ("receivers".to_owned(), list(Components::receivers(), Served::Pipelines)),
        ("processors".to_owned(), list(Components::processors(), Served::Pipelines)),
        ("exporters".to_owned(), list(Components::exporters(), Served::Pipelines)),
        ("connectors".to_owned(), list(Components::connectors(), Served::Routes)),
        ("extensions".to_owned(), list(Components::extensions(), Served::Process)),
        ("providers".to_owned(), Effective::List(providers)),
    ]);
    Outcome::printed(list.print(format, Secrets::Shown))
}

/// What a component's stability is said for.
#[derive(Clone, Copy)]
enum Served {
    /// The signals of its pipelines.
    Pipelines,
    /// From one signal to another.
    Routes,
    /// An extension.
    Process,
}

fn list<S>(declarations: &[Declaration<S>], served: Served) -> Effective {
    let text = |text: &str| Effective::Text(text.to_owned());
    let items = declarations.iter().map(|declaration| {
        let mut item = vec![("name".to_owned(), text(declaration.type_name))];
        if !declaration.aliases.is_empty() {
            let aliases = declaration.aliases.iter().copied().map(text).collect();
            item.push(("aliases".to_owned(), Effective::List(aliases)));
        }
        let served: Vec<String> = match served {
            Served::Pipelines => declaration.signals.iter().map(ToString::to_string).collect(),
            Served::Routes => declaration.routes.iter().map(|(from, to)| format!("{from}-to-{to}")).collect(),
            Served::Process => vec!["extension".to_owned()],
        };
        let stability = served.into_iter().map(|of| (of, text(&declaration.stability.to_string()))).collect();
        item.push(("stability".to_owned(), Effective::Map(stability)));
        item.push(("summary".to_owned(), text(declaration.summary)));
        Effective::Map(item)
    });
    Effective::List(items.collect())
}
