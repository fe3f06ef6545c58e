//! The web servers' scripts as the cases of `tests/data/inject` name them.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use serde_json::Value;

/// Puts a script's file name in its place. What scripts do is tested where they are, in `src/inject/web_server`.
pub fn name_scripts(pod: &mut Value) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/inject/web_server");
    let scripts = ["apache_attach.sh", "nginx_attach.sh", "nginx_clone.sh"];
    let init_containers = pod.pointer_mut("/spec/initContainers").and_then(Value::as_array_mut);
    for argument in init_containers.into_iter().flatten().filter_map(|container| container.get_mut("args")?.get_mut(0))
    {
        let is_it = |name: &&&str| argument.as_str() == Some(&std::fs::read_to_string(folder.join(name)).unwrap());
        if let Some(name) = scripts.iter().find(is_it) {
            *argument = Value::from(*name);
        }
    }
}
