//! New default images for resources whose image nobody chose.

use std::cmp::Ordering;

use serde_json::{Map, Value, json};

use super::{SECTIONS, Section, text};
use crate::inject::{Images, Language, Settings};

/// Agents of these versions and later name HTTP attributes and metrics differently than those before: dashboards and
/// alerts would break without anybody having changed anything. (Reference section 5.1.)
const BREAKING_VERSIONS: [(Language, &str); 2] = [(Language::DotNet, "1.3.0"), (Language::Java, "2.0.0")];

/// What new default images mean for a resource.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Upgrade {
    /// A merge patch of images and annotations; `None`: nothing to write.
    pub patch: Option<Value>,
    /// Languages whose image stays, and why.
    pub blocked: Vec<Blocked>,
}

/// An image that is not replaced by the new default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    pub language: Language,
    /// For `status.upgradeBlockedVersions` and an Event of reason `UpgradeBlocked`.
    pub message: String,
}

/// Replaces images that nobody chose by the current defaults, language by language: those that equal the annotation
/// which holds the default of their day. Languages that the settings switch off stay as they are.
#[must_use]
pub fn upgrade_instrumentation(object: &Value, settings: &Settings) -> Upgrade {
    let mut upgrade = Upgrade::default();
    let (mut annotations, mut spec) = (Map::new(), Map::new());
    for section in SECTIONS.iter().filter(|section| settings.enables(section.language)) {
        let annotation = section.annotation();
        let key = annotation.replace('/', "~1");
        let former = text(object, &format!("/metadata/annotations/{key}"));
        let Some(current) = settings.images.of(section.language).filter(|current| *current != former) else { continue };
        if former.is_empty() {
            continue;
        }
        if let Some(message) = breaking(section.language, former, current) {
            upgrade.blocked.push(Blocked { language: section.language, message });
        } else if section.image(object) == former {
            annotations.insert(annotation, json!(current));
            spec.insert(section.key.to_owned(), json!({"image": current}));
        }
    }
    if !spec.is_empty() {
        upgrade.patch = Some(json!({"metadata": {"annotations": annotations}, "spec": spec}));
    }
    upgrade
}

/// A sentence if the section's image would not be replaced by the default.
pub(super) fn warning(section: &Section, object: &Value, images: &Images) -> Option<String> {
    let image = section.image(object);
    let message = breaking(section.language, image, images.of(section.language)?)?;
    Some(format!("spec.{}.image: {message}", section.key))
}

/// Why `image` must not become `default` by itself, if so.
fn breaking(language: Language, image: &str, default: &str) -> Option<String> {
    let (_, breaking) = BREAKING_VERSIONS.iter().find(|(with, _)| *with == language)?;
    let ((repository, tag), (default_repository, default_tag)) = (split(image), split(default));
    if repository != default_repository {
        return None;
    }
    let crosses = match (compare_with_release(tag, breaking), compare_with_release(default_tag, breaking)) {
        (Some(before), Some(after)) => before.is_lt() && after.is_ge(),
        // Tags such as `latest` say no version.
        _ => tag == *breaking,
    };
    crosses.then(|| {
        format!(
            "{image} is not replaced by the default {default}: from {breaking} on the {language} agent names HTTP attributes and metrics differently \
             (https://opentelemetry.io/blog/2023/http-conventions-declared-stable/). To upgrade, set the image yourself."
        )
    })
}

/// Repository and tag; `latest` if there is none.
fn split(image: &str) -> (&str, &str) {
    match image.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (image, "latest"),
    }
}

/// How a tag compares with a version that is no pre-release; `None` if the tag is no version.
fn compare_with_release(tag: &str, release: &str) -> Option<Ordering> {
    Some(version(tag)?.cmp(&version(release)?))
}

/// Numbers, and whether it is a release: pre-releases come before it. Missing numbers are 0.
fn version(tag: &str) -> Option<([u64; 3], bool)> {
    let tag = tag.strip_prefix('v').unwrap_or(tag);
    let without_build = tag.split_once('+').map_or(tag, |(version, _)| version);
    let (numbers, pre_release) = match without_build.split_once('-') {
        Some((numbers, pre_release)) => (numbers, Some(pre_release)),
        None => (without_build, None),
    };
    let mut parsed = [0; 3];
    let mut parts = numbers.split('.');
    for (slot, part) in parsed.iter_mut().zip(&mut parts) {
        *slot = part.parse().ok()?;
    }
    parts.next().is_none().then_some((parsed, pre_release.is_none()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(language: &str, key: &str, annotation: &str, image: &str) -> Value {
        let name = format!("instrumentation.opentelemetry.io/default-auto-instrumentation-{language}-image");
        json!({"metadata": {"annotations": {name: annotation}}, "spec": {key: {"image": image}}})
    }

    #[test]
    fn an_image_that_nobody_chose_becomes_the_new_default() {
        let settings = Settings::default();
        let former = "ghcr.io/open-telemetry/opentelemetry-operator/autoinstrumentation-java:2.10.0";
        let upgrade = upgrade_instrumentation(&with("java", "java", former, former), &settings);
        let name = "instrumentation.opentelemetry.io/default-auto-instrumentation-java-image";
        let java = &settings.images.java;
        let expected = json!({"metadata": {"annotations": {name: java}}, "spec": {"java": {"image": java}}});
        assert_eq!(upgrade, Upgrade { patch: Some(expected), blocked: vec![] });

        // The former default may come from anywhere.
        let upgrade = upgrade_instrumentation(&with("apache-httpd", "apacheHttpd", "old:1", "old:1"), &settings);
        assert_eq!(upgrade.patch.unwrap()["spec"], json!({"apacheHttpd": {"image": settings.images.apache_httpd}}));
    }

    #[test]
    fn all_others_stay() {
        let settings = Settings::default();
        for object in [
            with("java", "java", "old:1", "mine:1"),
            with("java", "java", "", ""),
            with("java", "java", &settings.images.java, &settings.images.java),
            // Off by default.
            with("go", "go", "old:1", "old:1"),
            json!({"spec": {"java": {"image": "old:1"}}}),
            json!({"metadata": {"annotations": 5}, "spec": []}),
            json!(null),
        ] {
            assert_eq!(upgrade_instrumentation(&object, &settings), Upgrade::default(), "{object}");
        }
    }

    #[test]
    fn breaking_versions_are_not_crossed() {
        let repository = "ghcr.io/open-telemetry/opentelemetry-operator/autoinstrumentation";
        let settings = Settings::default();
        for (language, former, is_blocked) in [
            ("java", "java:1.32.1", true),
            ("java", "java:v1.32", true),
            ("java", "java:2.0.0-alpha", true),
            ("java", "java:2.0.0", false),
            ("java", "java:2.1.0", false),
            ("java", "java:latest", false),
            ("java", "java", false),
            ("dotnet", "dotnet:1.2.0", true),
            ("dotnet", "dotnet:1.3.0", false),
            ("nodejs", "nodejs:0.1.0", false),
        ] {
            let former = format!("{repository}-{former}");
            let object = with(language, language, &former, &former);
            let upgrade = upgrade_instrumentation(&object, &settings);
            assert_eq!(!upgrade.blocked.is_empty(), is_blocked, "{former}");
            assert_eq!(upgrade.patch.is_none(), is_blocked, "{former}");
            if let [blocked] = &*upgrade.blocked {
                assert_eq!(blocked.language.as_str(), language);
                assert!(blocked.message.contains(&former) && blocked.message.contains("set the image"), "{blocked:?}");
            }
        }
        // An image of another repository is nobody's business here.
        let elsewhere = with("java", "java", "registry.example:5000/java:1.0.0", "registry.example:5000/java:1.0.0");
        assert_eq!(upgrade_instrumentation(&elsewhere, &settings).blocked, vec![]);
    }

    #[test]
    fn without_versions_only_the_breaking_one_itself_counts() {
        assert!(breaking(Language::Java, "r:2.0.0", "r:latest").is_some());
        assert!(breaking(Language::Java, "r:1.0.0", "r:latest").is_none());
        assert!(breaking(Language::Java, "r:1.0.0", "r:1.9.0").is_none());
    }
}
