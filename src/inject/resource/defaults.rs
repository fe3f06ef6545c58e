//! What is missing is written into the resource, so that it says what pods will get.

use serde_json::{Map, Value, json};

use super::{SECTIONS, Section, fields, set_if_absent};
use crate::inject::validity::{Requests, completed};
use crate::inject::{Images, Language};

const APACHE_VERSION: &str = "2.4";
const APACHE_CONFIG_PATH: &str = "/usr/local/apache2/conf";
const NGINX_CONFIG_FILE: &str = "/etc/nginx/nginx.conf";

/// Completes an Instrumentation as opentelemetry-operator's webhook does on create and update (reference section 2.2).
/// A second time it changes nothing.
pub fn default_instrumentation(object: &mut Value, images: &Images) {
    let Some(object) = object.as_object_mut() else { return };
    if let Some(spec) = fields(object, "spec") {
        for section in &SECTIONS {
            complete(spec, section, images);
        }
    }
    let Some(metadata) = fields(object, "metadata") else { return };
    fields(metadata, "labels");
    if let Some(annotations) = fields(metadata, "annotations") {
        for section in &SECTIONS {
            if let Some(image) = images.of(section.language) {
                annotations.insert(section.annotation(), json!(image));
            }
        }
    }
}

fn complete(spec: &mut Map<String, Value>, section: &Section, images: &Images) {
    let Some(own) = fields(spec, section.key) else { return };
    set_if_empty(own, "image", images.of(section.language).unwrap_or_default());
    match section.language {
        Language::ApacheHttpd => {
            set_if_empty(own, "version", APACHE_VERSION);
            set_if_empty(own, "configPath", APACHE_CONFIG_PATH);
        }
        Language::Nginx => set_if_empty(own, "configFile", NGINX_CONFIG_FILE),
        _ => {}
    }
    if let Some(resources) = fields(own, section.resources_key) {
        // Unlike the operator's these defaults give way to what is given: requests above limits make pods invalid.
        let given = serde_json::from_value(Value::Object(resources.clone())).unwrap_or_default();
        let (requests, limits) = completed(&given, &Requests { cpu: section.cpu, memory: section.memory });
        set_if_absent(resources, "limits", json!(limits));
        set_if_absent(resources, "requests", json!(requests));
    }
}

fn set_if_empty(parent: &mut Map<String, Value>, key: &str, value: &str) {
    if parent.get(key).is_none_or(|present| present.is_null() || present == "") {
        parent.insert(key.to_owned(), json!(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaulted(mut object: Value) -> Value {
        default_instrumentation(&mut object, &Images::default());
        object
    }

    #[test]
    fn nothing_given_becomes_the_operators_defaults() {
        let object = defaulted(json!({"metadata": {"name": "x"}}));
        let images = Images::default();
        for (key, resources, image, requests) in [
            ("java", "resources", &images.java, json!({"cpu": "50m", "memory": "64Mi"})),
            ("nodejs", "resourceRequirements", &images.nodejs, json!({"cpu": "50m", "memory": "128Mi"})),
            ("python", "resourceRequirements", &images.python, json!({"cpu": "50m", "memory": "64Mi"})),
            ("dotnet", "resourceRequirements", &images.dotnet, json!({"cpu": "50m", "memory": "128Mi"})),
            ("go", "resourceRequirements", &images.go, json!({"cpu": "50m", "memory": "64Mi"})),
            ("apacheHttpd", "resourceRequirements", &images.apache_httpd, json!({"cpu": "1m", "memory": "128Mi"})),
            ("nginx", "resourceRequirements", &images.nginx, json!({"cpu": "1m", "memory": "128Mi"})),
        ] {
            let section = &object["spec"][key];
            assert_eq!(section["image"], json!(image), "{key}");
            assert_eq!(section[resources]["limits"], json!({"cpu": "500m", "memory": "256Mi"}), "{key}");
            assert_eq!(section[resources]["requests"], requests, "{key}");
        }
        assert_eq!(object["spec"]["apacheHttpd"]["version"], "2.4");
        assert_eq!(object["spec"]["apacheHttpd"]["configPath"], "/usr/local/apache2/conf");
        assert_eq!(object["spec"]["nginx"]["configFile"], "/etc/nginx/nginx.conf");
        assert_eq!(object["metadata"]["labels"], json!({}));
        let annotations = object["metadata"]["annotations"].as_object().unwrap();
        assert_eq!(annotations.len(), 7);
        for (language, image) in
            [("java", &images.java), ("apache-httpd", &images.apache_httpd), ("dotnet", &images.dotnet)]
        {
            let key = format!("instrumentation.opentelemetry.io/default-auto-instrumentation-{language}-image");
            assert_eq!(annotations[&key], json!(image));
        }
        let spec = object["spec"].clone();
        let read = crate::inject::Instrumentation::read("n", "x", 1, spec);
        assert!(read.is_ok(), "{read:?}");
    }

    #[test]
    fn what_is_given_stays() {
        let given = json!({
            "metadata": {"annotations": {"mine": "1"}, "labels": {"a": "b"}},
            "spec": {
                "java": {"image": "own:1", "resources": {"limits": {}, "requests": {"cpu": "1"}}, "futureField": [1]},
                "apacheHttpd": {"version": "2.2", "configPath": "/a"},
                "nginx": {"configFile": "/b", "resourceRequirements": null, "image": ""},
                "future": {"x": 1},
            },
        });
        let object = defaulted(given.clone());
        assert_eq!(object["spec"]["java"], given["spec"]["java"]);
        assert_eq!(object["spec"]["apacheHttpd"]["version"], "2.2");
        assert_eq!(object["spec"]["apacheHttpd"]["configPath"], "/a");
        assert_eq!(object["spec"]["nginx"]["configFile"], "/b");
        assert_eq!(object["spec"]["nginx"]["image"], json!(Images::default().nginx), "empty is unset");
        assert_eq!(object["spec"]["future"], json!({"x": 1}));
        assert_eq!(object["metadata"]["annotations"]["mine"], "1");
        assert_eq!(object["metadata"]["labels"], json!({"a": "b"}));
        assert_eq!(defaulted(object.clone()), object, "twice is once");
    }

    #[test]
    fn defaults_of_resources_give_way_to_what_is_given() {
        let object = defaulted(json!({"spec": {
            "java": {"resources": {"limits": {"memory": "32Mi"}}},
            "nodejs": {"resourceRequirements": {"requests": {"cpu": "2"}}},
        }}));
        assert_eq!(object["spec"]["java"]["resources"]["requests"], json!({"cpu": "50m", "memory": "32Mi"}));
        assert_eq!(object["spec"]["nodejs"]["resourceRequirements"]["limits"], json!({"cpu": "2", "memory": "256Mi"}));
    }

    #[test]
    fn other_types_are_left_to_the_schema() {
        for object in [json!(null), json!([1]), json!("x")] {
            assert_eq!(defaulted(object.clone()), object);
        }
        let object = defaulted(json!({"metadata": 1, "spec": {"java": "text", "go": {"resourceRequirements": 5}}}));
        assert_eq!((&object["metadata"], &object["spec"]["java"]), (&json!(1), &json!("text")));
        assert_eq!(object["spec"]["go"]["resourceRequirements"], 5);
    }
}
