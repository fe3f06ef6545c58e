//! The `zpages` extension: what runs, as pages for people. What is not here in the Collector's set (traces of itself,
//! feature gates, Go variables) does not exist in this process.

pub mod settings;

use super::components::Components;
use crate::config::{ComponentId, Config};
use axum::Router;
use axum::response::Html;
use axum::routing::get;
use settings::ZPagesSettings;
use std::fmt::Write;
use std::time::Instant;

/// The pages of one configuration: they change when it does.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pages {
    pub settings: ZPagesSettings,
    pipelines: String,
    extensions: String,
}

impl Pages {
    pub fn new(settings: &ZPagesSettings, config: &Config<Components>) -> Self {
        let mut pipelines = table(&["Pipeline", "Receivers", "Processors", "Exporters"]);
        for pipeline in &config.service.pipelines {
            row(
                &mut pipelines,
                &[
                    pipeline.name.to_string(),
                    joined(pipeline.receivers.iter().chain(&pipeline.fed_by)),
                    joined(&pipeline.processors),
                    joined(pipeline.exporters.iter().chain(&pipeline.feeds)),
                ],
            );
        }
        let mut extensions = table(&["Extension"]);
        for id in &config.service.extensions {
            row(&mut extensions, &[id.to_string()]);
        }
        Self { settings: settings.clone(), pipelines, extensions }
    }

    pub fn router(&self) -> Router {
        let started = Instant::now();
        let service = move || async move {
            let mut body = table(&["Name", "Value"]);
            row(&mut body, &["Command".to_owned(), "spanreel".to_owned()]);
            row(&mut body, &["Version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()]);
            row(&mut body, &["Up".to_owned(), format!("{} s", started.elapsed().as_secs())]);
            body.push_str("</table><p><a href=pipelinez>Pipelines</a> <a href=extensionz>Extensions</a></p>");
            page("Service", &body)
        };
        let (pipelines, extensions) = (page("Pipelines", &self.pipelines), page("Extensions", &self.extensions));
        Router::new()
            .route("/debug/servicez", get(service))
            .route("/debug/pipelinez", get(move || async move { pipelines }))
            .route("/debug/extensionz", get(move || async move { extensions }))
    }
}

fn joined<'a>(ids: impl IntoIterator<Item = &'a ComponentId>) -> String {
    ids.into_iter().map(ComponentId::to_string).collect::<Vec<_>>().join(", ")
}

fn page(title: &str, body: &str) -> Html<String> {
    Html(format!("<!DOCTYPE html><meta charset=utf-8><title>{title}</title><h1>{title}</h1>{body}"))
}

fn table(heads: &[&str]) -> String {
    let mut out = "<table border=1><tr>".to_owned();
    for head in heads {
        // Writing to a string cannot fail.
        let _ = write!(out, "<th align=left>{head}</th>");
    }
    out + "</tr>"
}

fn row(out: &mut String, cells: &[String]) {
    out.push_str("<tr>");
    for cell in cells {
        out.push_str("<td>");
        for character in cell.chars() {
            match character {
                '<' => out.push_str("&lt;"),
                '&' => out.push_str("&amp;"),
                character => out.push(character),
            }
        }
        out.push_str("</td>");
    }
    out.push_str("</tr>");
}
