//! A real Kubernetes control plane on loopback: etcd, kube-apiserver and, if asked for, kube-controller-manager.
//!
//! What is real: storage, validation, defaulting, RBAC, admission with webhooks, server-side apply, ServiceAccount tokens, and
//! the controllers that turn a Deployment into pods. What is missing: nodes. Pods stay Pending, Services route nowhere.
//!
//! ServiceAccount *admission* is off, because no controller makes each namespace's `default` account; pods therefore lack the
//! token volume that a cluster adds. Everything listens on 127.0.0.1; all state lies in one temporary folder.
//!
//! The processes form one group, led by a shell that reads from a pipe which only this process holds. However this process
//! ends (drop, panic, `kill -9`), the pipe closes and the shell kills the group: no test leaves a server behind.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, File};
use std::future::Future;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::{Value, json};

/// The controllers that most tests want: those that make pods, and the one that removes what an owner leaves behind.
pub const POD_CONTROLLERS: &[&str] = &[
    "deployment-controller",
    "replicaset-controller",
    "job-controller",
    "daemonset-controller",
    "garbage-collector-controller",
];

/// Two to seven seconds on an idle machine; this is for one that also compiles.
const START_MAX: Duration = Duration::from_secs(120);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Ports are free when they are picked and may be gone when they are bound.
const START_ATTEMPTS: usize = 3;
const LOG_TAIL_LINES: usize = 25;
/// Who owns the fields that [`KubeCluster::apply`] sets.
const FIELD_MANAGER: &str = "tests";
const ADMIN_TOKEN: &str = "admin-of-a-throwaway-cluster";

/// A control plane that lives as long as this value.
pub struct KubeCluster {
    client: kube::Client,
    binaries: PathBuf,
    api_port: u16,
    etcd_port: u16,
    api_server: Option<Child>,
    // Dropped in this order: first the processes end, then the folder goes.
    group: ProcessGroup,
    dir: tempfile::TempDir,
}

impl KubeCluster {
    /// etcd, the API server and no controllers.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Like [`start`](Self::start), and these controllers, e.g. [`POD_CONTROLLERS`].
    pub async fn start_with(controllers: &[&str]) -> Self {
        let binaries = PathBuf::from(script_output(".ci/kube"));
        for attempt in 1.. {
            match Self::try_start(&binaries, controllers).await {
                Ok(cluster) => return cluster,
                Err(reason) if attempt < START_ATTEMPTS && reason.contains("address already in use") => {}
                Err(reason) => panic!("the Kubernetes control plane did not start: {reason}"),
            }
        }
        unreachable!("the loop above returns or panics")
    }

    async fn try_start(binaries: &Path, controllers: &[&str]) -> Result<Self, String> {
        let dir = tempfile::Builder::new().prefix("spanreel-kube-").tempdir().expect("a temporary folder");
        write_credentials(dir.path());
        let [api_port, etcd_port, etcd_peer_port] = free_ports();
        write_kubeconfig(&dir.path().join("admin.kubeconfig"), dir.path(), api_port, ADMIN_TOKEN);

        let mut group = ProcessGroup::new();
        let mut etcd = Command::new("etcd");
        etcd.arg("--data-dir").arg(dir.path().join("etcd")).args([
            format!("--listen-client-urls=http://127.0.0.1:{etcd_port}"),
            format!("--advertise-client-urls=http://127.0.0.1:{etcd_port}"),
            format!("--listen-peer-urls=http://127.0.0.1:{etcd_peer_port}"),
            format!("--initial-advertise-peer-urls=http://127.0.0.1:{etcd_peer_port}"),
            format!("--initial-cluster=default=http://127.0.0.1:{etcd_peer_port}"),
            "--logger=zap".to_owned(),
        ]);
        group.spawn(&mut etcd, &dir.path().join("etcd.log"));

        let client = client_of(&dir.path().join("admin.kubeconfig")).await;
        let mut cluster =
            Self { client, binaries: binaries.to_owned(), api_port, etcd_port, api_server: None, group, dir };
        cluster.try_start_api_server().await?;
        if !controllers.is_empty() {
            cluster.start_controllers(controllers);
        }
        Ok(cluster)
    }

    /// A client with every right.
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// `https://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.api_port)
    }

    /// The kubeconfig of `system:masters`. The product under test gets [`service_account`](Self::service_account)'s instead.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.dir.path().join("admin.kubeconfig")
    }

    /// A kubeconfig for an existing ServiceAccount, with a token as a pod of it would have: RBAC decides what it may do.
    pub async fn service_account(&self, namespace: &str, name: &str) -> PathBuf {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 86_400},
        });
        let answer = self.send("POST", &path, "application/json", request.to_string()).await;
        let answer = answer.unwrap_or_else(|error| panic!("no token for {namespace}/{name}: {error}"));
        let token = answer["status"]["token"].as_str().expect("a token").to_owned();
        let file = self.dir.path().join(format!("{namespace}-{name}.kubeconfig"));
        write_kubeconfig(&file, self.dir.path(), self.api_port, &token);
        file
    }

    /// Applies every document of `yaml` (server-side, forced), as it stands. `namespace` is for documents that name none.
    pub async fn apply(&self, namespace: &str, yaml: &str) -> Vec<Value> {
        let mut applied = Vec::new();
        for document in documents(yaml) {
            applied.push(self.try_apply(namespace, document).await.unwrap_or_else(|error| panic!("{error}")));
        }
        applied
    }

    /// Applies one document; `Err` is the API server's answer.
    pub async fn try_apply(&self, namespace: &str, document: &str) -> Result<Value, String> {
        let header = DocumentHeader::read(document)?;
        let path = self.object_path(&header, namespace).await?;
        let path = format!("{path}?fieldManager={FIELD_MANAGER}&force=true");
        let applied = self.send("PATCH", &path, "application/apply-patch+yaml", document.to_owned()).await;
        applied.map_err(|error| format!("{} {}: {error}", header.kind, header.name))
    }

    /// The object or list at an API path such as `/api/v1/namespaces/a/pods?labelSelector=app%3Db`; `None` if there is none.
    pub async fn get(&self, path: &str) -> Option<Value> {
        match self.request("GET", path, "application/json", String::new()).await {
            Ok(value) => Some(value),
            Err(kube::Error::Api(status)) if status.code == 404 => None,
            Err(error) => panic!("GET {path}: {error}"),
        }
    }

    /// The items of the list at an API path.
    pub async fn list(&self, path: &str) -> Vec<Value> {
        let list = self.get(path).await.unwrap_or_else(|| panic!("GET {path}: not found"));
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// Creates an object by POST to its collection, as clients without server-side apply do; `Err` is the server's answer.
    pub async fn create(&self, collection: &str, object: &Value) -> Result<Value, String> {
        self.send("POST", collection, "application/json", object.to_string()).await
    }

    /// Whether the API server would let this user do that; an empty namespace means all of them.
    pub async fn may(user: &kube::Client, verb: &str, group: &str, resource: &str, namespace: &str) -> bool {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {"verb": verb, "group": group, "resource": resource, "namespace": namespace}},
        });
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let request = kube_request("POST", path, "application/json", review.to_string());
        let answer: Value = user.request(request).await.unwrap_or_else(|error| panic!("POST {path}: {error}"));
        answer["status"]["allowed"] == true
    }

    /// Deletes the object at an API path; it need not exist.
    pub async fn delete(&self, path: &str) {
        match self.request("DELETE", path, "application/json", String::new()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => panic!("DELETE {path}: {error}"),
        }
    }

    /// Starts a process that ends with the cluster, and returns the file that both its outputs go to.
    pub fn spawn(&mut self, command: &mut Command, name: &str) -> PathBuf {
        let log = self.dir.path().join(name).with_extension("log");
        self.group.spawn(command, &log);
        log
    }

    /// Kills the API server at once, as an outage would. What etcd has stays.
    pub fn stop_api_server(&mut self) {
        if let Some(mut api_server) = self.api_server.take() {
            let _ = api_server.kill();
            let _ = api_server.wait();
        }
    }

    /// Starts the API server again at the same address and waits until it is ready.
    pub async fn start_api_server(&mut self) {
        let started = self.try_start_api_server().await;
        started.unwrap_or_else(|reason| panic!("the API server did not come back: {reason}"));
    }

    async fn try_start_api_server(&mut self) -> Result<(), String> {
        let dir = self.dir.path();
        let file = |name: &str| dir.join(name).display().to_string();
        let log = dir.join("kube-apiserver.log");
        let mut command = Command::new(self.binaries.join("kube-apiserver"));
        command.args([
            format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            format!("--secure-port={}", self.api_port),
            format!("--tls-cert-file={}", file("server.crt")),
            format!("--tls-private-key-file={}", file("server.key")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", file("service-account.pub")),
            format!("--service-account-signing-key-file={}", file("service-account.key")),
            format!("--token-auth-file={}", file("tokens.csv")),
            "--authorization-mode=RBAC".to_owned(),
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            "--service-cluster-ip-range=127.96.0.0/16".to_owned(),
            // The `kubernetes` Endpoints would have to hold a loopback address, which validation refuses.
            "--endpoint-reconciler-type=none".to_owned(),
            "--allow-privileged=true".to_owned(),
        ]);
        self.api_server = Some(self.group.spawn_apart(&mut command, &log));

        let started = Instant::now();
        loop {
            let ready = kube_request("GET", "/readyz", "application/json", String::new());
            match tokio::time::timeout(Duration::from_secs(5), self.client.request_text(ready)).await {
                Ok(Ok(_)) => return Ok(()),
                _ if started.elapsed() > START_MAX => {
                    return Err(format!("not ready after {START_MAX:?}\n{}", tail(&log)));
                }
                _ => {}
            }
            let api_server = self.api_server.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if api_server.is_some() || self.group.has_lost_a_member() {
                let etcd_log = tail(&self.dir.path().join("etcd.log"));
                return Err(format!("a server ended too early\n{}\netcd:\n{etcd_log}", tail(&log)));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    fn start_controllers(&mut self, controllers: &[&str]) {
        let mut command = Command::new(self.binaries.join("kube-controller-manager"));
        command.args([
            format!("--kubeconfig={}", self.admin_kubeconfig().display()),
            format!("--controllers={}", controllers.join(",")),
            "--leader-elect=false".to_owned(),
            // It serves only health and metrics, which nobody asks for here.
            "--secure-port=0".to_owned(),
        ]);
        self.group.spawn(&mut command, &self.dir.path().join("kube-controller-manager.log"));
    }

    /// The API path of a document's object; the server says what its kind is called in URLs.
    async fn object_path(&self, header: &DocumentHeader, namespace: &str) -> Result<String, String> {
        let DocumentHeader { api_version, kind, name, .. } = header;
        let root = if api_version.contains('/') { "/apis" } else { "/api" };
        let group = self.send("GET", &format!("{root}/{api_version}"), "application/json", String::new()).await?;
        let resources = group["resources"].as_array().cloned().unwrap_or_default();
        let is_it = |r: &&Value| r["kind"] == kind.as_str() && !r["name"].as_str().unwrap_or_default().contains('/');
        let resource = resources.iter().find(is_it).ok_or(format!("the server has no {kind} in {api_version}"))?;
        let plural = resource["name"].as_str().unwrap_or_default();
        Ok(if resource["namespaced"] == true {
            let namespace = header.namespace.as_deref().unwrap_or(namespace);
            format!("{root}/{api_version}/namespaces/{namespace}/{plural}/{name}")
        } else {
            format!("{root}/{api_version}/{plural}/{name}")
        })
    }

    async fn send(&self, method: &str, path: &str, content_type: &str, body: String) -> Result<Value, String> {
        self.request(method, path, content_type, body).await.map_err(|error| error.to_string())
    }

    async fn request(&self, method: &str, path: &str, content_type: &str, body: String) -> kube::Result<Value> {
        self.client.request(kube_request(method, path, content_type, body)).await
    }
}

impl Drop for KubeCluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let files = fs::read_dir(self.dir.path()).into_iter().flatten().flatten().map(|entry| entry.path());
            for log in files.filter(|file| file.extension().is_some_and(|extension| extension == "log")) {
                eprintln!("--- end of {}\n{}", log.display(), tail(&log));
            }
        }
        self.stop_api_server();
    }
}

/// Waits until `condition` gives a value, or panics after `bound` with `what` was waited for.
pub async fn wait_until<T, F, Fut>(what: &str, bound: Duration, mut condition: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let started = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(started.elapsed() < bound, "waited {bound:?} in vain for {what}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Runs a script of this repository that prints where it put something, and returns that path.
///
/// The first run on a machine may build for minutes; its progress goes to the test's stderr.
pub fn script_output(script: &str) -> String {
    let root = env!("CARGO_MANIFEST_DIR");
    let output = Command::new(Path::new(root).join(script))
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("{script}: {error}"));
    assert!(output.status.success(), "{script} ended with {}", output.status);
    String::from_utf8(output.stdout).expect("a path in UTF-8").trim().to_owned()
}

/// The documents of a YAML stream, without those that hold only comments.
pub fn documents(yaml: &str) -> impl Iterator<Item = &str> {
    let is_content = |line: &str| !line.trim().is_empty() && !line.starts_with('#') && line != "---";
    yaml.split("\n---\n").filter(move |document| document.lines().any(is_content))
}

/// Where a document belongs, read from its lines: block style, two blanks of indentation, one object a document.
struct DocumentHeader {
    api_version: String,
    kind: String,
    name: String,
    namespace: Option<String>,
}

impl DocumentHeader {
    fn read(document: &str) -> Result<Self, String> {
        let top = |key: &str| document.lines().find_map(|line| scalar(line, key));
        let metadata = || document.lines().skip_while(|line| line.trim_end() != "metadata:").skip(1);
        let in_metadata =
            |key: &str| metadata().take_while(|line| line.starts_with(' ')).find_map(|line| scalar(line, key));
        let missing = |what: &str| format!("no {what} in block style in the document:\n{document}");
        Ok(Self {
            api_version: top("apiVersion").ok_or_else(|| missing("apiVersion"))?,
            kind: top("kind").ok_or_else(|| missing("kind"))?,
            name: in_metadata("  name").ok_or_else(|| missing("metadata.name"))?,
            namespace: in_metadata("  namespace"),
        })
    }
}

/// The value of `key: value` if that is what the line says.
fn scalar(line: &str, key: &str) -> Option<String> {
    let value = line.strip_prefix(key)?.strip_prefix(": ")?;
    let value = value.split(" #").next().unwrap_or(value).trim();
    Some(value.trim_matches(['"', '\'']).to_owned())
}

/// Processes that end together, whatever happens to the test.
struct ProcessGroup {
    leader: Child,
    members: Vec<Child>,
}

impl ProcessGroup {
    fn new() -> Self {
        let mut leader = Command::new("sh");
        leader.args(["-c", "cat >/dev/null; kill -s KILL -- -$$"]).stdin(Stdio::piped()).process_group(0);
        Self { leader: leader.spawn().expect("a shell"), members: Vec::new() }
    }

    /// Starts a member that lives as long as the group.
    fn spawn(&mut self, command: &mut Command, log: &Path) {
        let member = self.spawn_apart(command, log);
        self.members.push(member);
    }

    fn has_lost_a_member(&mut self) -> bool {
        self.members.iter_mut().any(|member| !matches!(member.try_wait(), Ok(None)))
    }

    /// Starts a member that the caller may end earlier, and must then wait for.
    fn spawn_apart(&self, command: &mut Command, log: &Path) -> Child {
        let log = File::options().create(true).append(true).open(log).expect("a log file");
        command
            .process_group(i32::try_from(self.leader.id()).expect("a process id"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", command.get_program().display()))
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        // The end of its input would do; killing them here as well keeps the waits below short whatever became of the leader.
        drop(self.leader.stdin.take());
        for process in self.members.iter_mut().chain([&mut self.leader]) {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Distinct loopback ports that are free now.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("a local address").port())
}

/// A certificate authority with the API server's certificate, the key that signs tokens, and the administrator's token.
fn write_credentials(dir: &Path) {
    let write = |name: &str, content: String| fs::write(dir.join(name), content).expect("a writable folder");
    let new_key = || KeyPair::generate().expect("a key");

    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "tests");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, new_key()).expect("a certificate authority");

    let server_key = new_key();
    let server = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()]).expect("valid names");
    let server = server.signed_by(&server_key, &authority).expect("a certificate");

    write("ca.crt", authority.pem());
    write("server.crt", server.pem());
    write("server.key", server_key.serialize_pem());
    let token_key = new_key();
    write("service-account.key", token_key.serialize_pem());
    write("service-account.pub", token_key.public_key_pem());
    write("tokens.csv", format!("{ADMIN_TOKEN},admin,admin,system:masters\n"));
}

fn write_kubeconfig(file: &Path, dir: &Path, api_port: u16, token: &str) {
    // JSON is YAML.
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tests", "cluster": {
            "server": format!("https://127.0.0.1:{api_port}"), "certificate-authority": dir.join("ca.crt"),
        }}],
        "users": [{"name": "user", "user": {"token": token}}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "user"}}],
        "current-context": "tests",
    });
    fs::write(file, config.to_string()).expect("a writable folder");
}

/// A client that is whoever the kubeconfig says.
pub async fn client_of(kubeconfig: &Path) -> kube::Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("the kubeconfig just written");
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.expect("a valid kubeconfig");
    kube::Client::try_from(config).expect("a client")
}

fn kube_request(method: &str, path: &str, content_type: &str, body: String) -> http::Request<Vec<u8>> {
    http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", content_type)
        .header("accept", "application/json")
        .body(body.into_bytes())
        .expect("a valid request")
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}
