//! What the schema of an Instrumentation cannot say (reference section 2.3).

use serde_json::Value;

use super::{Review, SECTIONS, text, upgrade};
use crate::inject::Images;

const SAMPLERS_WITH_RATIO: [&str; 2] = ["traceidratio", "parentbased_traceidratio"];
const SAMPLERS_FROM_JAEGER: [&str; 2] = ["jaeger_remote", "parentbased_jaeger_remote"];
const OTHER_SAMPLERS: [&str; 5] =
    ["always_on", "always_off", "parentbased_always_on", "parentbased_always_off", "xray"];

/// Checks an Instrumentation that is created or updated. All errors are found, not only the first.
#[must_use]
pub fn validate_instrumentation(object: &Value, images: &Images) -> Review {
    let mut review = Review::default();
    review.warnings.extend(SECTIONS.iter().filter_map(|section| upgrade::warning(section, object, images)));
    check_sampler(text(object, "/spec/sampler/type"), text(object, "/spec/sampler/argument"), &mut review);
    for section in &SECTIONS {
        check_volume(object, section.key, &mut review);
    }
    check_exporter(object, &mut review);
    review
}

fn check_sampler(sampler: &str, argument: &str, review: &mut Review) {
    const ARGUMENT: &str = "spec.sampler.argument";
    if sampler.is_empty() {
        review.warnings.push("spec.sampler.type is not set: every agent samples as it likes by default".to_owned());
    } else if SAMPLERS_WITH_RATIO.contains(&sampler) {
        if !argument.is_empty()
            && let Err(wrong) = check_ratio(argument)
        {
            review.errors.push(format!("{ARGUMENT}: {argument:?} {wrong}, as {sampler} wants it"));
        }
    } else if SAMPLERS_FROM_JAEGER.contains(&sampler) {
        if !argument.is_empty() {
            let wrong = argument.split(',').filter_map(|part| check_jaeger_part(part).err());
            review.errors.extend(wrong.map(|wrong| {
                format!(
                    "{ARGUMENT}: {wrong}; {sampler} wants e.g. endpoint=http://host:14250,pollingIntervalMs=5000,initialSamplingRate=0.25"
                )
            }));
        }
    } else if !OTHER_SAMPLERS.contains(&sampler) {
        let known = [&OTHER_SAMPLERS[..], &SAMPLERS_WITH_RATIO, &SAMPLERS_FROM_JAEGER].concat().join(", ");
        review.errors.push(format!("spec.sampler.type: {sampler:?} is no sampler; there are {known}"));
    }
}

fn check_ratio(text: &str) -> Result<(), &'static str> {
    let ratio: f64 = text.parse().map_err(|_| "is no number between 0 and 1")?;
    if (0.0..=1.0).contains(&ratio) { Ok(()) } else { Err("is not between 0 and 1") }
}

/// One of the comma-separated parts. Keys that are not known pass: agents may know them.
fn check_jaeger_part(part: &str) -> Result<(), String> {
    let pair = part.split_once('=').filter(|(_, value)| !value.contains('='));
    let Some((key, value)) = pair else { return Err(format!("{part:?} is not of the form key=value")) };
    match key {
        "endpoint" if value.is_empty() => Err("endpoint is empty".to_owned()),
        "pollingIntervalMs" if value.parse::<i64>().is_err() => {
            Err(format!("pollingIntervalMs {value:?} is no whole number"))
        }
        "initialSamplingRate" => check_ratio(value).map_err(|wrong| format!("initialSamplingRate {value:?} {wrong}")),
        _ => Ok(()),
    }
}

fn check_volume(object: &Value, language: &str, review: &mut Review) {
    let at = |key: &str| object.pointer(&format!("/spec/{language}/{key}"));
    let Some(limit) = at("volumeLimitSize").filter(|limit| !limit.is_null()) else { return };
    if at("volumeClaimTemplate").is_some_and(|template| !is_empty(template)) {
        review.errors.push(format!(
            "spec.{language}.volumeLimitSize: {limit} does not go with spec.{language}.volumeClaimTemplate, which has a size of its own; remove one"
        ));
    }
    review.warnings.push(format!(
        "spec.{language}.volumeLimitSize is deprecated and works as before; later versions of the resource have no such field"
    ));
}

/// Whether it says nothing at any depth.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn check_exporter(object: &Value, review: &mut Review) {
    let endpoint = text(object, "/spec/exporter/endpoint");
    let is_https = endpoint.starts_with("https://");
    let Some(tls) = object.pointer("/spec/exporter/tls").filter(|tls| !tls.is_null()) else {
        if is_https {
            review.warnings.push(format!(
                "spec.exporter.tls is not set, so {endpoint:?} is trusted only if the containers' own certificate authorities know it"
            ));
        }
        return;
    };
    let (cert, key) = (text(tls, "/cert_file"), text(tls, "/key_file"));
    if cert.is_empty() != key.is_empty() {
        let (given, missing) = if cert.is_empty() { ("key_file", "cert_file") } else { ("cert_file", "key_file") };
        review
            .warnings
            .push(format!("spec.exporter.tls.{given} is of no use without spec.exporter.tls.{missing}: set both"));
    }
    if !is_https {
        review
            .warnings
            .push(format!("spec.exporter.tls is of no use: spec.exporter.endpoint {endpoint:?} is not https://"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn review(spec: Value) -> Review {
        validate_instrumentation(&json!({"metadata": {"name": "x"}, "spec": spec}), &Images::default())
    }

    fn sampler(kind: &str, argument: &str) -> Review {
        review(json!({"sampler": {"type": kind, "argument": argument}}))
    }

    #[test]
    fn samplers_and_their_arguments() {
        for (kind, argument) in [
            ("always_on", ""),
            ("always_off", "anything"),
            ("parentbased_always_on", ""),
            ("parentbased_always_off", ""),
            ("xray", "endpoint=x"),
            ("traceidratio", ""),
            ("traceidratio", "0"),
            ("traceidratio", "1"),
            ("traceidratio", "1e-3"),
            ("parentbased_traceidratio", "0.25"),
            ("jaeger_remote", ""),
            ("jaeger_remote", "endpoint=http://localhost:14250,pollingIntervalMs=5000,initialSamplingRate=0.25"),
            ("parentbased_jaeger_remote", "other="),
            ("jaeger_remote", "pollingIntervalMs=-1"),
        ] {
            assert_eq!(sampler(kind, argument), Review::default(), "{kind} {argument}");
        }
        for (kind, argument, expected) in [
            ("traceidratio", "abc", "spec.sampler.argument: \"abc\" is no number"),
            ("traceidratio", "1.5", "\"1.5\" is not between 0 and 1"),
            ("parentbased_traceidratio", "-0.1", "\"-0.1\" is not between 0 and 1"),
            ("parentbased_traceidratio", "NaN", "\"NaN\" is not between 0 and 1"),
            ("parentbased_traceidratio", " 0.1", "\" 0.1\" is no number"),
            ("jaeger_remote", "endpoint", "\"endpoint\" is not of the form key=value"),
            ("jaeger_remote", "endpoint=a=b", "\"endpoint=a=b\" is not of the form"),
            ("jaeger_remote", "endpoint=a,", "\"\" is not of the form"),
            ("parentbased_jaeger_remote", "endpoint=", "endpoint is empty"),
            ("jaeger_remote", "pollingIntervalMs=5s", "pollingIntervalMs \"5s\" is no whole number"),
            ("jaeger_remote", "initialSamplingRate=x", "initialSamplingRate \"x\" is no number"),
            ("jaeger_remote", "initialSamplingRate=2", "initialSamplingRate \"2\" is not between"),
            ("sometimes", "", "spec.sampler.type: \"sometimes\" is no sampler; there are always_on"),
            ("Always_On", "", "\"Always_On\" is no sampler"),
        ] {
            let found = sampler(kind, argument);
            assert_eq!(found.errors.len(), 1, "{kind} {argument}: {found:?}");
            assert!(found.errors[0].contains(expected), "{kind} {argument}: {found:?}");
            assert!(found.is_refusal() && found.warnings.is_empty(), "{found:?}");
        }
        let found = review(json!({}));
        assert!(found.errors.is_empty() && found.warnings.len() == 1, "{found:?}");
        assert!(found.warnings[0].contains("spec.sampler.type is not set"));
    }

    #[test]
    fn every_wrong_part_is_named() {
        let found = sampler("jaeger_remote", "endpoint=,pollingIntervalMs=x,oops");
        assert_eq!(found.errors.len(), 3, "{found:?}");
    }

    #[test]
    fn volumes_have_one_size() {
        let sampler = json!({"type": "always_on"});
        for section in &SECTIONS {
            let key = section.key;
            let claim = json!({"spec": {"accessModes": ["ReadWriteOnce"]}});
            let both =
                review(json!({"sampler": sampler, key: {"volumeLimitSize": "1Gi", "volumeClaimTemplate": claim}}));
            assert_eq!(both.errors.len(), 1, "{both:?}");
            assert!(both.errors[0].starts_with(&format!("spec.{key}.volumeLimitSize: \"1Gi\"")), "{both:?}");
            assert!(both.errors[0].contains(&format!("spec.{key}.volumeClaimTemplate")), "{both:?}");

            let limit =
                review(json!({"sampler": sampler, key: {"volumeLimitSize": 5, "volumeClaimTemplate": {"spec": {}}}}));
            assert_eq!((limit.errors.len(), limit.warnings.len()), (0, 1), "{limit:?}");
            assert!(limit.warnings[0].starts_with(&format!("spec.{key}.volumeLimitSize is deprecated")), "{limit:?}");

            let fine =
                review(json!({"sampler": sampler, key: {"volumeClaimTemplate": claim, "volumeLimitSize": null}}));
            assert_eq!(fine, Review::default());
        }
    }

    #[test]
    fn exporters_whose_tls_does_not_fit() {
        for (exporter, expected) in [
            (json!({"endpoint": "https://a", "tls": {"cert_file": "c"}}), Some("spec.exporter.tls.key_file")),
            (json!({"endpoint": "https://a", "tls": {"key_file": "k"}}), Some("without spec.exporter.tls.cert_file")),
            (json!({"endpoint": "http://a", "tls": {"ca_file": "c"}}), Some("\"http://a\" is not https://")),
            (json!({"tls": {}}), Some("\"\" is not https://")),
            (json!({"endpoint": "https://a"}), Some("spec.exporter.tls is not set")),
            (json!({"endpoint": "https://a", "tls": null}), Some("spec.exporter.tls is not set")),
            (json!({"endpoint": "https://a", "tls": {"cert_file": "c", "key_file": "k"}}), None),
            (json!({"endpoint": "http://a"}), None),
        ] {
            let found = review(json!({"sampler": {"type": "always_on"}, "exporter": exporter}));
            assert!(found.errors.is_empty(), "{found:?}");
            match expected {
                None => assert_eq!(found, Review::default(), "{exporter}"),
                Some(text) => assert!(found.warnings.len() == 1 && found.warnings[0].contains(text), "{found:?}"),
            }
        }
    }

    #[test]
    fn images_that_will_not_be_upgraded_are_named() {
        let old = Images::default().java.replace("2.30.0", "1.33.0");
        let found = review(json!({"sampler": {"type": "always_on"}, "java": {"image": old}}));
        assert!(found.errors.is_empty() && found.warnings.len() == 1, "{found:?}");
        assert!(found.warnings[0].starts_with("spec.java.image: ") && !found.warnings[0].contains('\n'), "{found:?}");
    }

    #[test]
    fn what_the_defaults_make_is_valid() {
        let mut object = json!({"spec": {"sampler": {"type": "always_on"}}});
        crate::inject::default_instrumentation(&mut object, &Images::default());
        assert_eq!(validate_instrumentation(&object, &Images::default()), Review::default());
    }
}
