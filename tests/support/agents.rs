//! Runs a program as the kubelet would run a container of a stored pod: the same environment, the same mounts.
//!
//! The environment is the pod's: references to fields are resolved, `$(NAME)` is expanded by the kubelet's rules. What differs
//! from a node, and all that differs:
//! - fields that only a node gives (addresses, the node's name) have made-up values, the same for every pod;
//! - a mount point such as `/otel-auto-instrumentation-java-app` lies below a temporary folder, so wherever a variable names it,
//!   that folder comes before; files of the application's image lie where they were built, so that place stands instead;
//! - Service names resolve through a hosts file.
//!
//! Volume and hosts file are mounted in a mount namespace of the program's own, which takes root or user namespaces.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

/// A program with an agent needs one to five seconds on an idle machine.
const START_MAX: Duration = Duration::from_secs(120);
const POD_IP: &str = "192.0.2.20";
const NODE_IP: &str = "192.0.2.1";
pub const NODE_NAME: &str = "node-1";

/// The image of a language's agent: a folder with the files that are in the operator's.
pub struct AgentImage {
    language: &'static str,
    root: PathBuf,
}

impl AgentImage {
    /// `root` is what `.ci/java-agent` and its siblings print.
    pub fn new(language: &'static str, root: impl Into<PathBuf>) -> Self {
        Self { language, root: root.into() }
    }

    /// Of the volume with the agent, and of the init container that fills it.
    fn name(&self) -> String {
        format!("opentelemetry-auto-instrumentation-{}", self.language)
    }
}

/// A folder of this machine that a program sees elsewhere as well.
struct BindMount {
    from: PathBuf,
    to: PathBuf,
    read_only: bool,
}

/// A container of a stored pod, made runnable below a temporary folder.
pub struct Container {
    root: tempfile::TempDir,
    /// In the pod's order, later ones winning, as the kubelet passes them.
    environment: Vec<(String, String)>,
    agent: BindMount,
}

impl Container {
    /// The container with the agent's volume: filled by the pod's init container, or that image itself, read-only.
    pub fn of_pod(pod: &Value, container: &str, agent: &AgentImage) -> Self {
        let root = tempfile::Builder::new().prefix("spanreel-container-").tempdir().expect("a temporary folder");
        let spec = named(&pod["spec"]["containers"], container);
        let mount = named(&spec["volumeMounts"], &agent.name());
        let path = mount["mountPath"].as_str().expect("a mount path").to_owned();
        let place = below(root.path(), &path);
        fs::create_dir_all(&place).expect("a writable folder");
        let is_image = named(&pod["spec"]["volumes"], &agent.name())["image"].is_object();
        let volume = if is_image { agent.root.clone() } else { run_init_container(pod, agent, root.path()) };
        let from = volume.join(mount["subPath"].as_str().unwrap_or_default());
        let agent = BindMount { from, to: place.clone(), read_only: is_image };
        Self { environment: environment_of(pod, spec), root, agent }.with_files(&path, &place)
    }

    /// What the container sees at `path` lies at `here`, so every variable that names it names that place instead.
    pub fn with_files(mut self, path: &str, here: &Path) -> Self {
        let here = here.display().to_string();
        for (_, value) in &mut self.environment {
            *value = value.replace(path, &here);
        }
        self
    }

    /// The environment as the program gets it.
    pub fn environment(&self) -> &[(String, String)] {
        &self.environment
    }

    /// Starts `INTERPRETER PROGRAM ARGUMENTS` in this container, with a program of `tests/agents`, and waits for the port that it
    /// prints on its first line.
    ///
    /// `hosts` maps the names of Services to addresses. The program sees nothing of the test's own environment but `PATH`.
    pub fn run(self, interpreter: &str, program: &str, arguments: &[String], hosts: &[(&str, &str)]) -> Program {
        let log = self.root.path().join("stderr.log");
        let hosts = hosts_file(hosts, &self.root.path().join("hosts"));
        let mut child = with_mounts(&[&hosts, &self.agent])
            .arg(interpreter)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/agents").join(program))
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).expect("a log file"))
            .spawn()
            .unwrap_or_else(|error| panic!("{interpreter} {program}: {error}"));
        let stdout = child.stdout.take().expect("a pipe");
        let mut program = Program { name: program.to_owned(), child, log, port: 0, _container: self };
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
pub struct Program {
    pub port: u16,
    name: String,
    child: Child,
    log: PathBuf,
    /// Agent and hosts file are read as long as it runs.
    _container: Container,
}

impl Program {
    /// What it wrote to stderr so far: its own log and the agent's.
    pub fn stderr(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- stderr of {}\n{}", self.name, self.stderr());
        }
    }
}

/// A command that runs its arguments as a program for which names resolve by `hosts` and nothing else, written to `file`.
pub fn with_hosts(hosts: &[(&str, &str)], file: &Path) -> Command {
    with_mounts(&[&hosts_file(hosts, file)])
}

fn hosts_file(hosts: &[(&str, &str)], file: &Path) -> BindMount {
    let lines: String = hosts.iter().map(|(name, address)| format!("{address} {name}\n")).collect();
    fs::write(file, format!("127.0.0.1 localhost\n{lines}")).expect("a writable folder");
    BindMount { from: file.to_owned(), to: PathBuf::from("/etc/hosts"), read_only: false }
}

/// A command that runs its arguments as a program in a mount namespace of its own.
fn with_mounts(mounts: &[&BindMount]) -> Command {
    let mut command = Command::new("unshare");
    command.arg("--mount");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    let script = r#"while [ "$1" != -- ]; do mount -o "$1" "$2" "$3" || exit; shift 3; done; shift; exec "$@""#;
    command.args(["--", "sh", "-c", script, "sh"]);
    for mount in mounts {
        command.arg(if mount.read_only { "bind,ro" } else { "bind" }).arg(&mount.from).arg(&mount.to);
    }
    command.arg("--");
    command
}

/// Does what the agent's init container does: its `cp`, from the image to the volume. Returns the folder of that volume.
fn run_init_container(pod: &Value, agent: &AgentImage, root: &Path) -> PathBuf {
    let init = named(&pod["spec"]["initContainers"], &agent.name());
    let mount = &named(&init["volumeMounts"], &agent.name())["mountPath"];
    let mount = mount.as_str().expect("a mount path");
    let folder = root.join("volumes").join(agent.name());
    fs::create_dir_all(&folder).expect("a writable folder");

    let command: Vec<&str> = init["command"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let [program, options @ .., source, target] = &command[..] else {
        panic!("an init container that copies, not {command:?}")
    };
    assert!(*program == "cp" && matches!(options, [] | ["-r"]), "all that the images have is cp: {command:?}");
    let source = format!("{}{source}", agent.root.display());
    let target = target.strip_prefix(mount).unwrap_or_else(|| panic!("{target} lies outside {mount}"));
    let target = format!("{}{target}", folder.display());
    let status = Command::new(program).args(options).args([&source, &target]).status().expect("cp can be run");
    assert!(status.success(), "cp {options:?} {source} {target} ended with {status}");
    folder
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
