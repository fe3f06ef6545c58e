//! `extensions::spanreel::injection`: which agents are injected, from which images, and how.

use std::time::Duration;

use crate::config::Section;
use crate::inject::{Delivery, Images, Language, Settings};

/// `silent_after`; default 5m: a pod that asked and sent nothing for as long is silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SilentAfter(pub Duration);

impl Default for SilentAfter {
    fn default() -> Self {
        Self(Duration::from_secs(300))
    }
}

/// Agents send every few seconds at best; below that every pod would be called silent between two requests.
const SILENT_AFTER_MIN: Duration = Duration::from_secs(1);

/// Reads the section; without it pods are injected as opentelemetry-operator would by default.
pub(super) fn decode(section: &mut Section<'_>) -> (Settings, SilentAfter) {
    let defaults = Settings::default();
    let delivery =
        [("init", Delivery::InitContainer), ("image-volume", Delivery::ImageVolume), ("auto", Delivery::Auto)];
    let settings = Settings {
        languages: section.section("languages", |section| languages(section, &defaults)),
        multi_instrumentation: section.bool("multi_instrumentation", defaults.multi_instrumentation),
        strict_operator_compat: section.bool("strict_operator_compat", defaults.strict_operator_compat),
        images: section.section("images", |section| images(section, &defaults.images)),
        delivery: section.word("delivery", &delivery, defaults.delivery),
        image_volumes_served: false,
    };
    if settings.strict_operator_compat && settings.delivery != Delivery::InitContainer {
        section.error(
            "delivery",
            "must be init with strict_operator_compat",
            "the operator knows init containers only",
        );
    }
    let silent_after = SilentAfter(section.duration("silent_after", SilentAfter::default().0));
    if silent_after.0 < SILENT_AFTER_MIN {
        section.error("silent_after", "must be at least 1s", "remove it for the default, 5m");
    }
    (settings, silent_after)
}

fn languages(section: &mut Section<'_>, defaults: &Settings) -> Vec<Language> {
    Language::ALL.into_iter().filter(|&language| section.bool(language.as_str(), defaults.enables(language))).collect()
}

fn images(section: &mut Section<'_>, defaults: &Images) -> Images {
    let mut image = |language: Language, default: &str| {
        let image = section.text(language.as_str(), default);
        if image.is_empty() || image.trim() != image {
            section.error(language.as_str(), format!("\"{image}\" is no image"), "remove the key for the default");
        }
        image
    };
    Images {
        java: image(Language::Java, &defaults.java),
        nodejs: image(Language::NodeJs, &defaults.nodejs),
        python: image(Language::Python, &defaults.python),
        dotnet: image(Language::DotNet, &defaults.dotnet),
        go: image(Language::Go, &defaults.go),
        apache_httpd: image(Language::ApacheHttpd, &defaults.apache_httpd),
        nginx: image(Language::Nginx, &defaults.nginx),
    }
}
