//! `spanreel run`: from arguments to a running appliance, and from a signal to its orderly end.

use super::{EXIT_FAILED, EXIT_OK, EXIT_USAGE, RunArgs, input, sources};
use crate::appliance::components::Components;
use crate::appliance::{Appliance, ClusterAccess, Options};
use crate::config::telemetry::{LogEncoding, LogLevel};
use crate::config::{self, Diagnostic, Loaded, Reach, Severity, Source};
use crate::telemetry::logs;
use rustix::process::{Resource, getrlimit, setrlimit};
use std::path::Path;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// More workers than this gain nothing: compression, syncing and sealing have threads of their own.
const WORKER_THREADS_MAX: usize = 4;
/// Threads for blocking reads (queries, forwarding); each costs a stack.
const BLOCKING_THREADS_MAX: usize = 16;
/// Where a pod finds the credentials of its service account.
const SERVICE_ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

pub fn run(mut args: RunArgs) -> u8 {
    let cluster = cluster_access(&args);
    let (loaded, built_in) = match load(&args, cluster.is_some()) {
        Ok(loaded) => loaded,
        Err(lines) => return failed(EXIT_USAGE, &lines),
    };
    let telemetry = &loaded.config.service.telemetry;
    let format = match telemetry.log_encoding {
        None => logs::Format::of_stderr(),
        Some(LogEncoding::Console) => logs::Format::Text,
        Some(LogEncoding::Json) => logs::Format::Json,
    };
    let level = match telemetry.log_level {
        None | Some(LogLevel::Info) => "info",
        Some(LogLevel::Debug) => "debug",
        Some(LogLevel::Warn) => "warn",
        Some(LogLevel::Error) => "error",
    };
    if let Err(error) = logs::init(args.log_level.as_deref(), level, format) {
        return failed(EXIT_USAGE, &[error.to_string()]);
    }
    loaded.notes.iter().for_each(log_note);
    raise_file_limit();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.min(WORKER_THREADS_MAX))
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failed(EXIT_FAILED, &[format!("no threads to be had: {error}")]),
    };
    let options = Options {
        config: loaded.config,
        built_in,
        data_directory: args.data.take(),
        cluster,
        text_banner: format == logs::Format::Text,
    };
    let reload = Reload { args, in_cluster: options.cluster.is_some() };
    let code = runtime.block_on(serve(options, &reload));
    // Whatever still blocks a thread (a slow disk) is not waited for: all that was acknowledged is synced.
    runtime.shutdown_background();
    code
}

/// How the configuration is read again.
struct Reload {
    args: RunArgs,
    in_cluster: bool,
}

impl Reload {
    /// As in a Collector, SIGHUP reads everything again; other than there, a bad configuration changes nothing.
    async fn reload(&self, appliance: &Appliance) {
        let loaded = match load(&self.args, self.in_cluster) {
            Ok((loaded, _)) => loaded,
            Err(lines) => {
                for line in lines {
                    tracing::error!("SIGHUP: {line}");
                }
                tracing::error!("SIGHUP: the new configuration is not valid; the old one goes on");
                return;
            }
        };
        loaded.notes.iter().for_each(log_note);
        match appliance.reload(loaded.config).await {
            Ok(remarks) => {
                remarks.iter().for_each(|remark| tracing::warn!("{remark}"));
                tracing::info!("SIGHUP: the configuration was read again and runs");
            }
            Err(error) => tracing::error!("SIGHUP: {error}; the old configuration goes on"),
        }
    }
}

/// Lets the process have as many files as the system allows: connections are files, and some container runtimes start
/// everything with 1,024.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the number of files that may be open could not be raised");
    }
}

fn log_note(note: &Diagnostic) {
    match note.severity {
        Severity::Info => tracing::info!("{note}"),
        _ => tracing::warn!("{note}"),
    }
}

async fn serve(options: Options, reload: &Reload) -> u8 {
    let (mut interrupt, mut terminate) = match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(interrupt), Ok(terminate)) => (interrupt, terminate),
        (Err(error), _) | (_, Err(error)) => return failed(EXIT_FAILED, &[format!("signals: {error}")]),
    };
    // Taken from the start, so that one that comes too early does not end the process.
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => hangup,
        Err(error) => return failed(EXIT_FAILED, &[format!("signals: {error}")]),
    };
    let appliance = tokio::select! {
        started = Appliance::start(options) => match started {
            Ok(appliance) => appliance,
            Err(error) => return failed(EXIT_FAILED, &[error.to_string()]),
        },
        _ = either(&mut interrupt, &mut terminate) => return EXIT_OK,
    };
    let name = loop {
        tokio::select! {
            name = either(&mut interrupt, &mut terminate) => break name,
            _ = hangup.recv() => reload.reload(&appliance).await,
        }
    };
    tracing::info!(signal = name, "stopping; a second signal stops at once");
    tokio::select! {
        () = appliance.stop() => EXIT_OK,
        _ = either(&mut interrupt, &mut terminate) => {
            tracing::warn!("stopped at once");
            EXIT_FAILED
        }
    }
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) -> &'static str {
    tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    }
}

fn load(args: &RunArgs, in_cluster: bool) -> Result<(Loaded<Components>, bool), Vec<String>> {
    let mut sources = sources(&args.config).map_err(|diagnostic| vec![diagnostic.to_string()])?;
    let built_in = sources.is_empty();
    if built_in {
        sources.push(Source::built_in(if in_cluster { Reach::AllInterfaces } else { Reach::Loopback }));
    }
    let environment = |name: &str| std::env::var(name).ok();
    let loaded = config::load(&input(&sources, &args.config, &environment)).map_err(|errors| errors.lines())?;
    Ok((loaded, built_in))
}

/// `--kubeconfig`, or the cluster that this pod is in.
fn cluster_access(args: &RunArgs) -> Option<ClusterAccess> {
    if args.no_cluster {
        return None;
    }
    let in_pod = || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() && Path::new(SERVICE_ACCOUNT_TOKEN).exists();
    match &args.kubeconfig {
        Some(path) => Some(ClusterAccess::Kubeconfig(path.clone())),
        None => in_pod().then_some(ClusterAccess::InCluster),
    }
}

fn failed(code: u8, lines: &[String]) -> u8 {
    for line in lines {
        eprintln!("spanreel: {line}");
    }
    code
}
