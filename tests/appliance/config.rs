//! Configurations as files, with everything that is said about them.
//!
//! Each file under `tests/data/config/{valid,invalid,real}` is a case; those under `real` are shaped as people have them. Comments in it say what surrounds it and what is
//! expected, completely and in order:
//!
//! ```text
//! # env: NAME=value        an environment variable; no other is set
//! # with: base             parts/base.yaml is merged below this file
//! # set: a.b=c             a --set argument
//! # error: 3:5: path: ...  a finding, without the file's name (also warning, info)
//! ```
//!
//! A positions's file name is left out where it is the case's own.

use proptest::prelude::*;
use spanreel::appliance::components::{Components, ExtensionSettings, files_of_the_process, spanreel_settings};
use spanreel::cli::components::components;
use spanreel::cli::print_config::print_config;
use spanreel::cli::validate::validate;
use spanreel::config::{
    self, ComponentId, Config, Diagnostic, Files, Format, Input, Loaded, Reach, Secrets, Severity, Source,
};
use spanreel::forward::settings::{Compression, ExporterSettings};
use spanreel::process::settings::ProcessorSettings;
use spanreel::query::Role;
use spanreel::receive::settings::ReceiverSettings;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A file with the comments that direct its test.
pub struct Case {
    pub path: PathBuf,
    pub env: BTreeMap<String, String>,
    sources: Vec<Source>,
    pub sets: Vec<String>,
    /// `error: 3:5: ...`, sorted as in the file.
    expected: Vec<String>,
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/config")
}

fn case(path: PathBuf) -> Case {
    let text = std::fs::read_to_string(&path).unwrap();
    let directives = |word: &str| -> Vec<String> {
        let prefix = format!("# {word}: ");
        text.lines().filter_map(|line| line.strip_prefix(prefix.as_str())).map(str::to_owned).collect()
    };
    let env = directives("env").iter().map(|pair| pair.split_once('=').unwrap()).map(owned).collect();
    let parts = directives("with").into_iter().map(|name| data().join("parts").join(name + ".yaml"));
    let sources = parts.chain([path.clone()]).map(Source::File).collect();
    let is_finding =
        |line: &&str| ["error", "warning", "info"].iter().any(|word| line.starts_with(&format!("# {word}: ")));
    let expected = text.lines().filter(is_finding).map(|line| line[2..].to_owned()).collect();
    Case { env, sources, sets: directives("set"), expected, path }
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

pub fn cases(folder: &str) -> Vec<Case> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(data().join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(case).collect()
}

impl Case {
    fn input<T>(&self, then: impl FnOnce(&Input<'_>) -> T) -> T {
        let env = |name: &str| self.env.get(name).cloned();
        then(&Input { sources: &self.sources, sets: &self.sets, env: &env, files: Files::Readable })
    }

    /// The files, in the order in which they are merged.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.sources.iter().filter_map(|source| match source {
            Source::File(path) => Some(path.as_path()),
            _ => None,
        })
    }

    /// Whether the case loads, and everything that is said.
    pub fn said(&self) -> (bool, Vec<String>) {
        let line = |diagnostic: &Diagnostic| {
            let severity = match diagnostic.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
                Severity::Info => "info",
            };
            let text = diagnostic.to_string();
            let own = format!("{}:", self.path.display());
            let folder = format!("{}/", data().display());
            format!("{severity}: {}", text.strip_prefix(&own).unwrap_or(&text).replace(&folder, ""))
        };
        match self.input(config::load::<Components>) {
            Ok(loaded) => (true, loaded.notes.iter().map(line).collect()),
            Err(found) => (false, found.errors.iter().chain(&found.warnings).map(line).collect()),
        }
    }
}

fn check(folder: &str, loads: bool) {
    let mut wrong = String::new();
    for case in cases(folder) {
        let (loaded, said) = case.said();
        if loaded != loads || said != case.expected {
            wrong.push_str(&format!("\n=== {} loads: {loaded}\n", case.path.display()));
            said.iter().for_each(|line| wrong.push_str(&format!("# {line}\n")));
        }
    }
    assert!(wrong.is_empty(), "these cases say something else:{wrong}");
}

#[test]
fn valid_configurations_load_and_say_what_is_worth_saying() {
    check("valid", true);
}

#[test]
fn configurations_as_people_have_them_load() {
    check("real", true);
}

#[test]
fn invalid_configurations_say_everything_that_is_wrong_and_where() {
    check("invalid", false);
}

fn load(path: &str) -> Config<Components> {
    let case = case(data().join(path));
    case.input(config::load::<Components>).unwrap_or_else(|error| panic!("{error}")).config
}

fn id(text: &str) -> ComponentId {
    ComponentId::parse(text).unwrap()
}

fn load_text(text: &str) -> Result<Loaded<Components>, String> {
    let sources = [Source::Text { name: "text".to_owned(), text: text.to_owned() }];
    let input = Input { sources: &sources, sets: &[], env: &|_| None, files: Files::Refused };
    config::load(&input).map_err(|error| error.to_string())
}

/// Texts that are merged; the error is everything that is said.
pub fn load_merged(texts: &[&str]) -> Result<(), String> {
    let source = |text: &&str| Source::Text { name: "text".to_owned(), text: (*text).to_owned() };
    let sources: Vec<Source> = texts.iter().map(source).collect();
    let input = Input { sources: &sources, sets: &[], env: &|_| None, files: Files::Readable };
    config::load::<Components>(&input).map(|_| ()).map_err(|error| error.to_string())
}

#[test]
fn the_walk_through_means_what_it_says() {
    let config = load("walkthrough.yaml");
    let ReceiverSettings::Otlp(receiver) = &config.receivers[&id("otlp")].settings else { panic!() };
    assert_eq!(receiver.grpc.as_ref().unwrap().endpoint, "0.0.0.0:4317");
    assert_eq!(receiver.http.as_ref().unwrap().server.endpoint, "0.0.0.0:4318");
    assert_eq!(receiver.http.as_ref().unwrap().server.max_request_body_size, 20 << 20);
    let ProcessorSettings::MemoryLimiter(limiter) = &config.processors[&id("memory_limiter")].settings else {
        panic!()
    };
    assert_eq!((limiter.check_interval, limiter.limit_percentage), (Duration::from_secs(1), 75));
    assert_eq!(limiter.spike_limit_percentage, 15);
    let ProcessorSettings::Batch(batch) = &config.processors[&id("batch")].settings else { panic!() };
    assert_eq!((batch.send_batch_size, batch.timeout), (10_000, Duration::from_secs(10)));
    let exporter = &config.exporters[&id("otlp")];
    assert_eq!(exporter.type_name, "otlp_grpc");
    let ExporterSettings::OtlpGrpc(grpc) = &exporter.settings else { panic!() };
    assert_eq!((grpc.endpoint.as_str(), grpc.tls.insecure), ("tempo.tempo:4317", true));
    assert_eq!(grpc.compression, Compression::Auto);
    let [pipeline] = config.service.pipelines.as_slice() else { panic!() };
    assert_eq!(pipeline.name.to_string(), "traces");
    assert_eq!(pipeline.processors, [id("memory_limiter"), id("batch")]);
    assert_eq!(pipeline.exporters, [id("otlp")]);
}

#[test]
fn references_take_types_where_they_stand_alone_and_text_where_text_is_wanted() {
    let config = load("valid/environment.yaml");
    let ReceiverSettings::Otlp(receiver) = &config.receivers[&id("otlp")].settings else { panic!() };
    let grpc = receiver.grpc.as_ref().unwrap();
    assert_eq!((grpc.endpoint.as_str(), grpc.max_recv_msg_size_mib), ("10.1.2.3:4317", 16));
    assert_eq!(receiver.http.as_ref().unwrap().server.endpoint, "0.0.0.0:4318");
    let ExporterSettings::OtlpGrpc(exporter) = &config.exporters[&id("otlp")].settings else { panic!() };
    assert!(exporter.tls.insecure);
    assert_eq!(exporter.headers, [owned(("x-scope-orgid", "0042")), owned(("x-price", "$5"))]);
}

#[test]
fn sources_merge_maps_and_replace_lists() {
    let config = load("valid/lists_are_replaced_in_a_merge.yaml");
    assert_eq!(config.service.pipelines[0].processors, [id("memory_limiter")]);
    assert_eq!(config.service.pipelines[0].exporters, [id("otlp")]);
    let config = load("valid/null_deletes_in_a_merge.yaml");
    assert!(config.processors.is_empty());
    let config = load("valid/set_arguments.yaml");
    let ReceiverSettings::Otlp(receiver) = &config.receivers[&id("otlp")].settings else { panic!() };
    assert_eq!(receiver.http.as_ref().unwrap().server.endpoint, "0.0.0.0:4318");
}

#[test]
fn the_built_in_configuration_loads_without_a_word() {
    for (reach, host) in [(Reach::Loopback, "127.0.0.1"), (Reach::AllInterfaces, "0.0.0.0")] {
        let sources = [Source::built_in(reach)];
        let input = Input { sources: &sources, sets: &[], env: &|_| None, files: Files::Readable };
        let loaded = config::load::<Components>(&input).unwrap();
        assert_eq!(loaded.notes, []);
        let ReceiverSettings::Otlp(receiver) = &loaded.config.receivers[&id("otlp")].settings else { panic!() };
        assert_eq!(receiver.grpc.as_ref().unwrap().endpoint, format!("{host}:4317"));
        assert!(loaded.config.service.pipelines[0].exporters.is_empty());
        assert_eq!(spanreel_settings(&loaded.config), Default::default());
    }
}

#[test]
fn no_source_at_all_is_an_error() {
    let input = Input { sources: &[], sets: &[], env: &|_| None, files: Files::Readable };
    let error = config::load::<Components>(&input).unwrap_err().to_string();
    assert_eq!(error, "at least one --config must be provided");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let sources = [Source::File("no/such.yaml".into()), Source::Env("NOT_SET".to_owned())];
    let input = Input { sources: &sources, sets: &[], env: &|_| None, files: Files::Readable };
    let error = config::load::<Components>(&input).unwrap_err().to_string();
    assert!(error.contains("no/such.yaml: cannot be read: No such file"), "{error}");
    assert!(error.contains("--config env:NOT_SET: the environment variable is not set"), "{error}");
}

#[test]
fn a_custom_resource_reads_no_files() {
    let error =
        load_text("receivers: {otlp: {protocols: {grpc: {endpoint: \"${file:/etc/hostname}:1\"}}}}\n").unwrap_err();
    assert!(
        error.contains(
            "text:1:49: receivers::otlp::protocols::grpc::endpoint: ${file:/etc/hostname}: a custom resource"
        ),
        "{error}"
    );
}

#[test]
fn a_custom_resource_listens_on_no_socket_in_the_file_system() {
    let text = "receivers: {otlp: {protocols: {grpc: {endpoint: /run/x.sock, transport: unix}}}}\n\
                service: {pipelines: {traces: {receivers: [otlp]}}}\n";
    let said = files_of_the_process(&load_text(text).unwrap().config);
    let reason = "endpoint names a file of the process, which a custom resource cannot use (listen on host:port)";
    assert_eq!(said, [format!("text:1:13: receivers::otlp: {reason}")]);
}

/// Settings without positions, which differ between a file and what is printed of it.
fn settings(config: &Config<Components>) -> impl PartialEq + std::fmt::Debug + use<> {
    fn only<S: Clone>(components: &BTreeMap<ComponentId, config::Component<S>>) -> Vec<(String, S)> {
        components.iter().map(|(id, component)| (id.to_string(), component.settings.clone())).collect()
    }
    let pipelines: Vec<_> = config
        .service
        .pipelines
        .iter()
        .map(|pipeline| {
            (pipeline.name.clone(), pipeline.receivers.clone(), pipeline.processors.clone(), pipeline.exporters.clone())
        })
        .collect();
    (
        only(&config.receivers),
        only(&config.processors),
        only(&config.exporters),
        only(&config.extensions),
        (pipelines, config.service.extensions.clone(), config.service.telemetry.clone()),
    )
}

#[test]
fn what_print_config_prints_loads_back_to_the_same_settings() {
    for case in cases("valid") {
        let before = case.input(config::load::<Components>).unwrap().config;
        for format in [Format::Yaml, Format::Json] {
            let printed = case.input(|input| print_config(input, format, Secrets::Shown));
            assert_eq!((printed.code, printed.stderr.as_str()), (0, ""));
            let after = load_text(&printed.stdout)
                .unwrap_or_else(|error| panic!("{}: {error}\n{}", case.path.display(), printed.stdout));
            assert_eq!(settings(&before), settings(&after.config), "{}\n{}", case.path.display(), printed.stdout);
        }
    }
}

#[test]
fn print_config_hides_secrets_and_fills_defaults() {
    let case = case(data().join("valid/tutorial_complete.yaml"));
    let printed = case.input(|input| print_config(input, Format::Yaml, Secrets::Redacted)).stdout;
    assert!(printed.contains("authorization: \"[REDACTED]\""), "{printed}");
    assert!(!printed.contains("Bearer"), "{printed}");
    assert!(printed.contains("randomization_factor: 0.5"), "{printed}");
    assert!(printed.contains("send_batch_size: 8192"), "{printed}");
}

#[test]
fn validate_is_silent_or_lists_errors_by_line() {
    let good = case(data().join("walkthrough.yaml")).input(validate);
    assert_eq!((good.code, good.stdout.as_str(), good.stderr.as_str()), (0, "", ""));
    let path = data().join("invalid/unknown_keys_all_listed.yaml");
    let bad = case(path.clone()).input(validate);
    assert_eq!((bad.code, bad.stdout.as_str()), (1, ""));
    assert!(bad.stderr.lines().count() >= 5);
    assert!(
        bad.stderr
            .lines()
            .all(|line| line.trim_start_matches("warning: ").starts_with(&format!("{}:", path.display())))
    );
}

#[test]
fn components_lists_the_registry() {
    let listed = components(Format::Yaml).stdout;
    assert!(
        listed.contains("  - name: otlp_grpc\n    aliases:\n      - otlp\n    stability:\n      traces: Beta\n"),
        "{listed}"
    );
    for name in ["batch", "memory_limiter", "debug", "otlp_http", "health_check", "file_storage", "spanreel"] {
        assert!(listed.contains(&format!("  - name: {name}\n")), "{name}");
    }
    assert!(components(Format::Json).stdout.contains("\"name\": \"otlp_http\""));
}

#[test]
fn own_settings_hold_without_being_listed() {
    let config = load("valid/own_settings.yaml");
    let own = spanreel_settings(&config);
    assert_eq!(own.data_directory.as_deref(), Some(Path::new("/var/lib/spanreel")));
    assert_eq!(own.query_endpoint.as_deref(), Some(""));
    assert_eq!(own.query_grpc_endpoint.as_deref(), Some("127.0.0.1:9095"));
    assert_eq!(own.query_upstream.as_deref(), Some("http://tempo.tempo:3200"));
    assert_eq!((own.access.anonymous, own.access.loopback), (Role::ReadOnly, Role::Full));
    let proxy = own.access.trusted_proxy.as_ref().unwrap();
    assert_eq!((proxy.header.as_str(), proxy.sources.len(), proxy.role), ("X-Forwarded-User", 2, Role::ReadOnly));
    assert_eq!(own.access.hosts, ["traces.example"]);
    assert_eq!(own.spool.max_age, Some(Duration::from_secs(7 * 24 * 3600)));
    assert_eq!(own.store.keep_sampled_out, Some(Duration::from_secs(6 * 3600)));
    assert!(matches!(config.extensions[&id("spanreel")].settings, ExtensionSettings::Spanreel(_)));
    assert!(!config.service.extensions.contains(&id("spanreel")));
}

/// Lines as they occur in configurations, right and wrong ones.
const LINES: [&str; 24] = [
    "receivers:",
    "  otlp:",
    "    protocols:",
    "      grpc:",
    "      http: {}",
    "        endpoint: 0.0.0.0:4317",
    "processors:",
    "  batch:",
    "    timeout: 10s",
    "    send_batch_size: -1",
    "exporters:",
    "  otlp/a:",
    "    endpoint: &x tempo:4317",
    "    tls: {insecure: *x}",
    "    headers: [a, b]",
    "service:",
    "  pipelines:",
    "    traces:",
    "      receivers: [otlp]",
    "      exporters: otlp/a,otlp/b",
    "    <<: {a: 1}",
    "${env:A}: ${env:A}",
    "  telemetry: {metrics: {readers: [{pull: }]}}",
    "extensions: {spanreel: {spool: {max_age: 5}}}",
];

proptest! {
    #[test]
    fn any_heap_of_lines_loads_or_says_where_it_is_wrong(picked in prop::collection::vec(0..LINES.len(), 0..30)) {
        let text: String = picked.into_iter().flat_map(|index| [LINES[index], "\n"]).collect();
        if let Err(error) = load_text(&text) {
            prop_assert!(error.lines().all(|line| line.trim_start_matches("warning: ").starts_with("text:")), "{}", error);
        }
    }
}
