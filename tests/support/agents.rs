//! Runs a program as the kubelet would run a container of a stored pod: the same environment, the same mounts.
//!
//! The environment is the pod's: references to fields are resolved, `$(NAME)` is expanded by the kubelet's rules. What differs
//! from a node, and all that differs:
//! - fields that only a node gives (addresses, the node's name) have made-up values, the same for every pod;
//! - a mount point such as `/otel-auto-instrumentation-java-app` lies below a temporary folder, so wherever a variable names it,
//!   that folder comes before;
//! - Service names resolve through a hosts file that the JVM is told of by a flag on its command line; no variable changes.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

/// A JVM with the agent needs two to five seconds on an idle machine.
const START_MAX: Duration = Duration::from_secs(120);
const POD_IP: &str = "192.0.2.20";
const NODE_IP: &str = "192.0.2.1";
const NODE_NAME: &str = "node-1";

/// A container of a stored pod, made runnable below a temporary folder.
pub struct Container {
    root: tempfile::TempDir,
    /// In the pod's order, later ones winning, as the kubelet passes them.
    environment: Vec<(String, String)>,
}

impl Container {
    /// `agent_jar` stands for the file that the agent's image carries.
    pub fn of_pod(pod: &Value, container: &str, agent_jar: &Path) -> Self {
        let root = tempfile::Builder::new().prefix("spanreel-container-").tempdir().expect("a temporary folder");
        let spec = named(&pod["spec"]["containers"], container);
        let volumes = run_agent_init_containers(pod, agent_jar, root.path());
        let mut mounts = Vec::new();
        for mount in spec["volumeMounts"].as_array().into_iter().flatten() {
            let path = mount["mountPath"].as_str().expect("a mount path");
            let Some(volume) = mount["name"].as_str().and_then(|name| volumes.get(name)) else { continue };
            let place = below(root.path(), path);
            fs::create_dir_all(place.parent().expect("a parent")).expect("a writable folder");
            std::os::unix::fs::symlink(volume, &place).expect("a link");
            mounts.push((path.to_owned(), place.display().to_string()));
        }
        let mut environment = environment_of(pod, spec);
        for (_, value) in &mut environment {
            for (path, place) in &mounts {
                *value = value.replace(path.as_str(), place);
            }
        }
        Self { root, environment }
    }

    /// The environment as the program gets it.
    pub fn environment(&self) -> &[(String, String)] {
        &self.environment
    }

    /// Starts `java PROGRAM ARGUMENTS` in this container and waits for the port that it prints on its first line.
    ///
    /// `hosts` maps the names of Services to addresses. The JVM sees nothing of the test's own environment but `PATH`.
    pub fn run_java(self, program: &str, arguments: &[String], hosts: &[(&str, &str)]) -> JavaProgram {
        let hosts_file = self.root.path().join("hosts");
        let lines: String = hosts.iter().map(|(name, address)| format!("{address} {name}\n")).collect();
        fs::write(&hosts_file, lines + "127.0.0.1 localhost\n").expect("a writable folder");
        let log = self.root.path().join("stderr.log");
        let mut child = Command::new("java")
            .arg(format!("-Djdk.net.hosts.file={}", hosts_file.display()))
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/agents").join(program))
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).expect("a log file"))
            .spawn()
            .unwrap_or_else(|error| panic!("java {program}: {error}"));
        let stdout = child.stdout.take().expect("a pipe");
        let mut program = JavaProgram { name: program.to_owned(), child, log, port: 0, _container: self };
        let (port_sender, port) = mpsc::channel();
        std::thread::spawn(move || {
            // Reads on to the end, so that the program never waits for a reader.
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Ok(port) = line.trim().parse::<u16>() {
                    let _ = port_sender.send(port);
                }
            }
        });
        program.port =
            port.recv_timeout(START_MAX).unwrap_or_else(|_| panic!("{} never printed its port", program.name));
        program
    }
}

/// A running program; killed when dropped, its stderr shown if the test fails.
pub struct JavaProgram {
    pub port: u16,
    name: String,
    child: Child,
    log: PathBuf,
    /// Agent and hosts file are read as long as it runs.
    _container: Container,
}

impl JavaProgram {
    /// What it wrote to stderr so far: the agent's log.
    pub fn stderr(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for JavaProgram {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- stderr of {}\n{}", self.name, self.stderr());
        }
    }
}

/// Does what the agent's init containers do: `cp FILE_OF_THE_IMAGE MOUNT/NAME`. Returns the folder of each volume they fill.
fn run_agent_init_containers(pod: &Value, agent_jar: &Path, root: &Path) -> HashMap<String, PathBuf> {
    let mut volumes = HashMap::new();
    for init in pod["spec"]["initContainers"].as_array().into_iter().flatten() {
        if init["name"] != "opentelemetry-auto-instrumentation-java" {
            continue;
        }
        let mount = &init["volumeMounts"][0];
        let (volume, mount_path) =
            (mount["name"].as_str().expect("a volume"), mount["mountPath"].as_str().expect("a mount path"));
        named(&pod["spec"]["volumes"], volume);
        let command: Vec<&str> = init["command"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let [cp, source, target] = command[..] else { panic!("an init container that copies one file: {command:?}") };
        assert_eq!((cp, source), ("cp", "/javaagent.jar"), "what the agent's image offers");
        let folder = root.join("volumes").join(volume);
        let target = target.strip_prefix(mount_path).unwrap_or_else(|| panic!("{target} lies outside {mount_path}"));
        fs::create_dir_all(&folder).expect("a writable folder");
        std::os::unix::fs::symlink(agent_jar, below(&folder, target)).expect("a link");
        volumes.insert(volume.to_owned(), folder);
    }
    volumes
}

/// The kubelet's rules: in order, each value may refer to those before it, the last of a name counts.
fn environment_of(pod: &Value, container: &Value) -> Vec<(String, String)> {
    assert!(container["envFrom"].is_null(), "envFrom needs ConfigMaps and Secrets, which are not read here");
    let mut environment: Vec<(String, String)> = Vec::new();
    for variable in container["env"].as_array().into_iter().flatten() {
        let name = variable["name"].as_str().expect("a name");
        let value = match variable["valueFrom"].as_object() {
            None => expand(variable["value"].as_str().unwrap_or_default(), &environment),
            Some(source) => {
                let path = source.get("fieldRef").and_then(|field| field["fieldPath"].as_str());
                field_of(pod, path.unwrap_or_else(|| panic!("{name}: only fieldRef is resolved here")))
            }
        };
        environment.push((name.to_owned(), value));
    }
    environment
}

/// The value of a downward API field, made up where only a node would know it.
fn field_of(pod: &Value, path: &str) -> String {
    let stored = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        return stored(&pod["metadata"][map.trim_start_matches("metadata.")][key]);
    }
    match path {
        "metadata.name" => stored(&pod["metadata"]["name"]),
        "metadata.namespace" => stored(&pod["metadata"]["namespace"]),
        "metadata.uid" => stored(&pod["metadata"]["uid"]),
        "spec.serviceAccountName" => stored(&pod["spec"]["serviceAccountName"]),
        "spec.nodeName" => NODE_NAME.to_owned(),
        "status.podIP" | "status.podIPs" => POD_IP.to_owned(),
        "status.hostIP" | "status.hostIPs" => NODE_IP.to_owned(),
        other => panic!("no such field in the downward API: {other}"),
    }
}

/// `$(NAME)` is replaced if the name is known, `$$` is one `$`, everything else stands.
fn expand(value: &str, known: &[(String, String)]) -> String {
    let mut expanded = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) = after.strip_prefix('(').and_then(|after| after.split_once(')')) {
            match known.iter().rev().find(|(known, _)| known == name) {
                Some((_, value)) => expanded.push_str(value),
                None => expanded.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            expanded.push('$');
            rest = after;
        }
    }
    expanded + rest
}

fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
    let found = list.as_array().into_iter().flatten().find(|item| item["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {list}"))
}

fn below(root: &Path, absolute: &str) -> PathBuf {
    root.join(absolute.trim_start_matches('/'))
}

#[test]
fn variables_expand_as_on_a_node() {
    let known = [("A".to_owned(), "1".to_owned()), ("A".to_owned(), "2".to_owned())];
    for (value, expected) in [
        ("$(A)", "2"),
        ("x$(A)y$(B)", "x2y$(B)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$2"),
        ("$A $", "$A $"),
        ("$(A", "$(A"),
    ] {
        assert_eq!(expand(value, &known), expected, "{value}");
    }
}
