//! The scripts, run by `sh` on folders that look like the containers'.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;

const CLONE: &str = include_str!("nginx_clone.sh");
const NGINX: &str = include_str!("nginx_attach.sh");
const APACHE: &str = include_str!("apache_attach.sh");
const MODULE: &str = "agent/WebServerModule/Nginx/1.23.1/ngx_http_opentelemetry_module.so";

/// A folder in place of `/opt`, with the agent's image and both volumes.
struct Pod {
    folder: tempfile::TempDir,
}

/// What a script left behind and said.
struct Ran {
    success: bool,
    said: String,
}

impl Pod {
    fn new() -> Self {
        let pod = Self { folder: tempfile::tempdir().unwrap() };
        pod.write("opentelemetry/conf/opentelemetry_sdk_log4cxx.xml.template", "<log dir=\"__agent_log_dir__\"/>\n");
        pod.write("opentelemetry/WebServerModule/Nginx/1.23.1/ngx_http_opentelemetry_module.so", "module");
        pod.write("opentelemetry/sdk_lib/lib/libopentelemetry_common.so", "library");
        for volume in ["agent", "source-conf"] {
            fs::create_dir_all(pod.path(&format!("opentelemetry-webserver/{volume}"))).unwrap();
        }
        pod
    }

    fn path(&self, inner: &str) -> PathBuf {
        self.folder.path().join(inner)
    }

    fn write(&self, inner: &str, text: &str) {
        fs::create_dir_all(self.path(inner).parent().unwrap()).unwrap();
        fs::write(self.path(inner), text).unwrap();
    }

    fn staged(&self, inner: &str) -> String {
        self.path(&format!("opentelemetry-webserver/source-conf/{inner}")).to_string_lossy().into_owned()
    }

    fn read_staged(&self, inner: &str) -> String {
        fs::read_to_string(self.staged(inner)).unwrap_or_else(|e| panic!("{inner}: {e}"))
    }

    fn read_agent(&self, inner: &str) -> String {
        fs::read_to_string(self.path(&format!("opentelemetry-webserver/agent/{inner}"))).unwrap()
    }

    /// The `nginx` that the clone finds prints this.
    fn nginx_prints(&self, text: &str) {
        self.write("bin/nginx", &format!("#!/bin/sh\n[ \"$1\" = -v ] && echo '{text}' >&2\n"));
        fs::set_permissions(self.path("bin/nginx"), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// As the container runs it, `/opt` replaced.
    fn run(&self, script: &str, argument: &str, env: &[(&str, &str)]) -> Ran {
        let script = script.replace("/opt/", &format!("{}/", self.folder.path().display()));
        let path = format!("{}:/usr/bin:/bin", self.path("bin").display());
        let output = Command::new(shell()[0].as_str())
            .args(["-c", &script, "--", argument])
            .env("PATH", path)
            .envs(env.iter().copied())
            .output()
            .unwrap();
        Ran { success: output.status.success(), said: String::from_utf8_lossy(&output.stderr).into_owned() }
    }
}

fn assert_success(ran: &Ran) {
    assert!(ran.success, "{}", ran.said);
}

fn assert_failure(ran: &Ran, text: &str) {
    assert!(!ran.success && ran.said.contains(text), "success {}: {}", ran.success, ran.said);
}

#[test]
fn apache_gets_the_agent_its_configuration_and_the_include_line() {
    let pod = Pod::new();
    pod.write("opentelemetry-webserver/source-conf/httpd.conf", "Listen 80\n");
    fs::set_permissions(pod.staged("httpd.conf"), fs::Permissions::from_mode(0o604)).unwrap();
    let conf = "A \\n $HOME `x`\nB <<SID-PLACEHOLDER>>/<<SID-PLACEHOLDER>>\n";
    let env = [("OTEL_APACHE_AGENT_CONF", conf), ("APACHE_SERVICE_INSTANCE_ID", "web-1")];
    assert_success(&pod.run(APACHE, "/etc/apache; x", &env));
    assert_eq!(pod.read_staged("opentemetry_agent.conf"), "A \\n $HOME `x`\nB web-1/web-1\n\n");
    assert_eq!(pod.read_staged("httpd.conf"), "Listen 80\n\nInclude /etc/apache; x/opentemetry_agent.conf\n");
    let agent = pod.path("opentelemetry-webserver/agent");
    let logging = format!("<log dir=\"{}/logs\"/>\n", agent.display());
    assert_eq!(pod.read_agent("conf/opentelemetry_sdk_log4cxx.xml"), logging);
    assert_eq!(pod.read_agent("sdk_lib/lib/libopentelemetry_common.so"), "library");
    assert_eq!(fs::metadata(pod.staged("httpd.conf")).unwrap().permissions().mode() & 0o777, 0o604);
    let mut left: Vec<_> = fs::read_dir(pod.staged("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["httpd.conf", "opentemetry_agent.conf"]);
}

#[test]
fn a_file_of_another_user_is_replaced_by_a_copy() {
    let pod = Pod::new();
    pod.write("opentelemetry-webserver/source-conf/..data/httpd.conf", "Listen 80\n");
    symlink("..data/httpd.conf", pod.staged("httpd.conf")).unwrap();
    assert_success(&pod.run(&as_another_user(APACHE, "httpd.conf"), "/conf", &[]));
    assert_eq!(pod.read_staged("httpd.conf"), "Listen 80\n\nInclude /conf/opentemetry_agent.conf\n");
    assert_eq!(pod.read_staged("..data/httpd.conf"), "Listen 80\n");

    let pod = staged_nginx("1.23.1");
    assert_success(&pod.run(&as_another_user(NGINX, "$1"), "nginx.conf", &NGINX_ENV));
    assert_nginx_has_the_agent(&pod);
    assert_eq!(pod.read_staged("..data/nginx.conf"), "events {}\n");
    assert!(!Path::new(&pod.staged("nginx.conf.original")).exists());
}

/// Root may write everywhere; `test -w` is where the script notices, so that answer is what is made up.
fn as_another_user(script: &str, file: &str) -> String {
    let changed = script.replace(&format!("[ ! -w \"$staged/{file}\" ]"), "true");
    assert_ne!(script, changed);
    changed
}

#[test]
fn apache_without_its_file_is_told_so() {
    let ran = Pod::new().run(APACHE, "/etc/apache", &[]);
    assert_failure(&ran, "/etc/apache of the server's image has no httpd.conf; spec.apacheHttpd.configPath must name");
}

#[test]
fn the_clone_copies_the_folder_and_writes_the_version() {
    let pod = Pod::new();
    pod.nginx_prints("nginx version: nginx/1.23.1");
    // As a ConfigMap is mounted: files are links into a hidden folder.
    pod.write("etc/nginx/..data/nginx.conf", "events {}\n");
    symlink("..data/nginx.conf", pod.path("etc/nginx/nginx.conf")).unwrap();
    pod.write("etc/nginx/conf.d/default.conf", "server {}\n");
    assert_success(&pod.run(CLONE, &pod.path("etc/nginx").to_string_lossy(), &[]));
    assert_eq!(pod.read_staged("version.txt"), "1.23.1\n");
    assert_eq!(pod.read_staged("nginx.conf"), "events {}\n");
    assert_eq!(pod.read_staged("conf.d/default.conf"), "server {}\n");
}

#[test]
fn the_clone_says_what_is_missing() {
    let pod = Pod::new();
    assert_failure(&pod.run(CLONE, "/nowhere", &[]), "there is no folder /nowhere; spec.nginx.configFile must name");
    fs::create_dir_all(pod.path("etc/nginx")).unwrap();
    let ran = pod.run(CLONE, &pod.path("etc/nginx").to_string_lossy(), &[]);
    assert_failure(&ran, "nginx -v gives no version");
}

/// A staged configuration of nginx as the clone leaves it.
fn staged_nginx(version: &str) -> Pod {
    let pod = Pod::new();
    pod.write("opentelemetry-webserver/source-conf/..data/nginx.conf", "events {}\n");
    symlink("..data/nginx.conf", pod.staged("nginx.conf")).unwrap();
    pod.write("opentelemetry-webserver/source-conf/conf.d/default.conf", "server {}\n");
    pod.write("opentelemetry-webserver/source-conf/version.txt", &format!("{version}\n"));
    pod
}

const NGINX_ENV: [(&str, &str); 2] =
    [("OTEL_NGINX_AGENT_CONF", "A <<SID-PLACEHOLDER>>;\n"), ("OTEL_NGINX_SERVICE_INSTANCE_ID", "web-1")];

fn assert_nginx_has_the_agent(pod: &Pod) {
    let module = pod.path("opentelemetry-webserver").join(MODULE);
    assert_eq!(fs::read_to_string(&module).unwrap(), "module");
    let expected = format!("env OTEL_RESOURCE_ATTRIBUTES;\nload_module {};\nevents {{}}\n", module.display());
    assert_eq!(pod.read_staged("nginx.conf"), expected);
    assert_eq!(pod.read_staged("conf.d/opentelemetry_agent.conf"), "A web-1;\n\n");
    assert!(pod.read_agent("conf/opentelemetry_sdk_log4cxx.xml").contains("/agent/logs"));
}

#[test]
fn nginx_gets_the_agent_its_configuration_and_the_module() {
    let pod = staged_nginx("1.23.1");
    assert_success(&pod.run(NGINX, "nginx.conf", &NGINX_ENV));
    assert_nginx_has_the_agent(&pod);
    assert_eq!(pod.read_staged("conf.d/default.conf"), "server {}\n");
}

#[test]
fn nginx_without_a_folder_for_parts_gets_one() {
    let pod = staged_nginx("1.23.1");
    fs::remove_dir_all(pod.staged("conf.d")).unwrap();
    assert_success(&pod.run(NGINX, "nginx.conf", &NGINX_ENV));
    assert_nginx_has_the_agent(&pod);
}

#[test]
fn a_folder_of_another_user_is_replaced_by_a_copy() {
    let pod = staged_nginx("1.23.1");
    assert_success(&pod.run(&as_another_user(NGINX, "conf.d"), "nginx.conf", &NGINX_ENV));
    assert_nginx_has_the_agent(&pod);
    assert_eq!(pod.read_staged("conf.d/default.conf"), "server {}\n");
    assert!(Path::new(&pod.staged("conf.d.original/default.conf")).exists());
    assert!(!Path::new(&pod.staged("conf.d.original/opentelemetry_agent.conf")).exists());
}

#[test]
fn a_version_without_a_module_leaves_nginx_as_it_was() {
    let pod = staged_nginx("1.99.0");
    let ran = pod.run(NGINX, "nginx.conf", &NGINX_ENV);
    assert_success(&ran);
    assert!(ran.said.contains("no module for nginx 1.99.0"), "{}", ran.said);
    assert_eq!(pod.read_staged("nginx.conf"), "events {}\n");
    assert!(!Path::new(&pod.staged("conf.d/opentelemetry_agent.conf")).exists());
}

#[test]
fn nginx_without_its_file_is_told_so() {
    let ran = staged_nginx("1.23.1").run(NGINX, "other.conf", &NGINX_ENV);
    assert_failure(&ran, "the server's image has no other.conf; spec.nginx.configFile must name the file");
}

/// The kubelet would replace `$(NAME)` and `$$` in what a container is started with.
#[test]
fn scripts_pass_the_kubelet_unchanged() {
    for script in [APACHE, CLONE, NGINX] {
        assert!(!script.contains("$$"));
        for (_, rest) in script.match_indices("$(").map(|(at, _)| script.split_at(at + 2)) {
            let name = rest.split_once(')').unwrap().0;
            assert!(!name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)), "$({name})");
        }
    }
}

#[test]
fn paths_are_absolute_and_no_root() {
    for (path, expected) in [
        ("/usr/local/apache2/conf", Some("/usr/local/apache2/conf")),
        ("/a//b/./c/", Some("/a/b/c")),
        ("a/b", None),
        ("/", None),
        ("//.", None),
        ("/a/../b", None),
        ("/a b", None),
        ("/a:b", None),
        ("", None),
    ] {
        assert_eq!(normalized("spec.nginx.configFile", path).ok().as_deref(), expected, "{path}");
    }
    assert!(normalized("f", &format!("/{}", "a".repeat(PATH_BYTES_MAX))).is_err());
}
