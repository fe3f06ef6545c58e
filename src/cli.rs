//! The command line: arguments, subcommands, human and JSON output, exit codes.
//!
//! In: arguments and environment. Out: 0 when it went well, 1 when it failed, 2 when the command line or the
//! configuration is wrong; every failure is one line (or one per configuration error) on stderr.

mod client;
pub mod components;
mod dead_letters;
mod doctor;
pub mod outcome;
mod place;
pub mod print_config;
mod run;
mod search;
mod show;
mod status;
mod tail;
mod traces;
mod upkeep;
pub mod validate;

use crate::config::{Diagnostic, Files, Format, Input, Reach, Secrets, Source};
use clap::{Args, Parser, Subcommand, ValueEnum};
use dead_letters::Handling;
use outcome::Outcome;
use place::Place;
use std::io::{ErrorKind, IsTerminal, Write};
use std::path::PathBuf;
use traces::Form;
use upkeep::Pinning;

const EXIT_OK: u8 = 0;
const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;

#[derive(Debug, Parser)]
#[command(
    name = "spanreel",
    version,
    about = "A tracing appliance in one process",
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the appliance (the default)
    Run(RunArgs),
    /// Check a configuration: silent if it is fine, every error with its place otherwise
    Validate(ConfigArgs),
    /// List what a configuration can name
    Components(OutputArgs),
    /// Print the configuration with defaults filled in
    #[command(alias = "print-initial-config")]
    PrintConfig(PrintConfigArgs),
    /// Show what a running spanreel has received, stored and forwarded
    Status(StatusArgs),
    /// Why pods have no traces: what they ask for, what became of it, and the line that would change it
    Doctor(DoctorArgs),
    /// Find traces by a TraceQL query, newest first
    Search(SearchArgs),
    /// Show one trace as a tree of its spans
    Show(ShowArgs),
    /// Print spans as they come, until it is stopped
    Tail(TailArgs),
    /// What destinations refused for good: list, show, retry, drop
    DeadLetters(DeadLetterArgs),
    /// Keep a trace whatever retention says; without an id, list the kept ones
    Pin(PinArgs),
    /// Read everything that is stored, and say what is damaged and where
    Verify(AskArgs),
    /// Copy the data directory as it stands, while the process runs
    Snapshot(SnapshotArgs),
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// A Collector configuration: FILE, file:FILE, env:NAME or yaml:TEXT; several are merged in order
    #[arg(long = "config", value_name = "URI")]
    configs: Vec<String>,
    /// Set one value, e.g. exporters.otlp.endpoint=tempo:4317; after all --config
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Data directory [default: ./spanreel-data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Serve the cluster that this file names; inside a cluster its own is found without it
    #[arg(long, value_name = "FILE", conflicts_with = "no_cluster")]
    kubeconfig: Option<PathBuf>,
    /// Stay away from any cluster
    #[arg(long)]
    no_cluster: bool,
    /// error, warn, info, debug, trace, or a filter such as spanreel=debug; wins over RUST_LOG
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

#[derive(Debug, Args)]
struct OutputArgs {
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Yaml)]
    output: OutputFormat,
}

#[derive(Debug, Args)]
struct PrintConfigArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[arg(long, value_enum, default_value_t = Mode::Redacted)]
    mode: Mode,
    #[arg(long, value_enum, default_value_t = OutputFormat::Yaml)]
    format: OutputFormat,
}

#[derive(Debug, Args)]
struct StatusArgs {
    /// The query port of the running spanreel
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:3200")]
    endpoint: String,
    #[arg(short, long, value_enum, default_value_t = StatusFormat::Text)]
    output: StatusFormat,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
struct DeadLetterArgs {
    #[command(subcommand)]
    command: Option<DeadLetterCommand>,
    #[command(flatten)]
    asked: StatusArgs,
}

#[derive(Debug, Subcommand)]
enum DeadLetterCommand {
    /// One a line: its name, what is in it, and what the destination said (the default)
    List(StatusArgs),
    /// One of them with its content as OTLP JSON
    Show(LetterArgs),
    /// Send one once more; it goes if the destination takes it
    Retry(LetterArgs),
    /// Remove one; its spans stay booked as lost
    Drop(LetterArgs),
}

#[derive(Debug, Args)]
struct LetterArgs {
    /// As listed: exporter@pipeline:batch-number
    #[arg(value_name = "NAME")]
    id: String,
    #[command(flatten)]
    asked: StatusArgs,
}

#[derive(Debug, Args)]
struct DoctorArgs {
    /// A namespace, or a pod or workload of it: shop, shop/web, shop/deployment/web [default: everything]
    #[arg(value_name = "NAMESPACE[/NAME]")]
    scope: Option<String>,
    #[command(flatten)]
    asked: StatusArgs,
}

#[derive(Debug, Args)]
struct AskArgs {
    #[command(flatten)]
    asked: StatusArgs,
    /// Read this data directory instead, of a spanreel that does not run; nothing in it is changed
    #[arg(long, value_name = "DIR", conflicts_with = "endpoint")]
    data: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct PinArgs {
    /// 32 hexadecimal digits; fewer stand for zeros in front
    #[arg(value_name = "TRACE_ID")]
    id: Option<String>,
    /// Leave it to retention again
    #[arg(long, requires = "id")]
    remove: bool,
    #[command(flatten)]
    asked: StatusArgs,
}

#[derive(Debug, Args)]
struct SnapshotArgs {
    /// A directory that does not exist yet, best on the same disk; a path of the running process
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    #[command(flatten)]
    asked: StatusArgs,
}

#[derive(Debug, Args)]
struct SearchArgs {
    /// Such as '{ resource.service.name = "shop" && status = error }'
    #[arg(value_name = "TRACEQL")]
    query: String,
    /// How far back, such as 90s, 15m, 1h30m, 7d
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    since: String,
    /// Traces shown at most
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    limit: u32,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// 32 hexadecimal digits; fewer stand for zeros in front
    #[arg(value_name = "TRACE_ID")]
    id: String,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Debug, Args)]
struct TailArgs {
    /// Only spans that match
    #[arg(value_name = "TRACEQL", default_value = "{}")]
    query: String,
    /// First the spans of so many of the newest traces [default: 0; of a data directory 20]
    #[arg(long, value_name = "COUNT")]
    last: Option<u32>,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OutputFormat {
    Yaml,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StatusFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Secrets as [REDACTED]
    Redacted,
    Unredacted,
}

impl From<OutputFormat> for Format {
    fn from(format: OutputFormat) -> Self {
        match format {
            OutputFormat::Yaml => Self::Yaml,
            OutputFormat::Json => Self::Json,
        }
    }
}

/// The whole program: its exit code, once everything it started has ended or was abandoned.
pub fn main() -> u8 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; clap knows which stream they belong to.
            let _ = error.print();
            return if error.use_stderr() { EXIT_USAGE } else { EXIT_OK };
        }
    };
    let environment = |name: &str| std::env::var(name).ok();
    match cli.command {
        None => run::run(cli.run),
        Some(Command::Run(args)) => run::run(args),
        Some(Command::Status(args)) => finish(status::status(&args.endpoint, args.output == StatusFormat::Json)),
        Some(Command::Doctor(DoctorArgs { scope, asked })) => {
            let scope = scope.as_deref().unwrap_or_default();
            finish(doctor::doctor(&asked.endpoint, scope, form(asked.output)))
        }
        Some(Command::Search(SearchArgs { query, since, limit, ask })) => {
            let asks = search::Search { query: &query, since: &since, limit };
            finish(at(&ask, |place| search::search(place, asks, form(ask.asked.output))))
        }
        Some(Command::Show(ShowArgs { id, ask })) => {
            finish(at(&ask, |place| show::show(place, &id, form(ask.asked.output))))
        }
        Some(Command::Tail(TailArgs { query, last, ask })) => {
            match Place::of(&ask.asked.endpoint, ask.data.as_deref()) {
                Ok(place) => tail::tail(&place, &query, last, form(ask.asked.output)),
                Err(line) => finish(Outcome::failed(&[line])),
            }
        }
        Some(Command::DeadLetters(DeadLetterArgs { command, asked })) => {
            let (handling, asked) = match &command {
                None => (Handling::List, &asked),
                Some(DeadLetterCommand::List(asked)) => (Handling::List, asked),
                Some(DeadLetterCommand::Show(letter)) => (Handling::Show(&letter.id), &letter.asked),
                Some(DeadLetterCommand::Retry(letter)) => (Handling::Retry(&letter.id), &letter.asked),
                Some(DeadLetterCommand::Drop(letter)) => (Handling::Drop(&letter.id), &letter.asked),
            };
            finish(dead_letters::dead_letters(&Place::Running(asked.endpoint.clone()), handling, form(asked.output)))
        }
        Some(Command::Pin(PinArgs { id, remove, asked })) => {
            let pinning = if remove { Pinning::Remove } else { Pinning::Pin };
            finish(upkeep::pin(&Place::Running(asked.endpoint), id.as_deref(), pinning, form(asked.output)))
        }
        Some(Command::Verify(ask)) => finish(at(&ask, |place| upkeep::verify(place, form(ask.asked.output)))),
        Some(Command::Snapshot(SnapshotArgs { directory, asked })) => {
            finish(upkeep::snapshot(&Place::Running(asked.endpoint), &directory, form(asked.output)))
        }
        Some(Command::Components(args)) => finish(components::components(args.output.into())),
        Some(Command::Validate(args)) => {
            finish(with_sources(&args, |sources| validate::validate(&input(sources, &args, &environment))))
        }
        Some(Command::PrintConfig(args)) => finish(with_sources(&args.config, |sources| {
            let secrets = if args.mode == Mode::Redacted { Secrets::Redacted } else { Secrets::Shown };
            print_config::print_config(&input(sources, &args.config, &environment), args.format.into(), secrets)
        })),
    }
}

/// Asks whoever the arguments name.
fn at(ask: &AskArgs, look: impl FnOnce(&Place) -> Outcome) -> Outcome {
    match Place::of(&ask.asked.endpoint, ask.data.as_deref()) {
        Ok(place) => look(&place),
        Err(line) => Outcome::failed(&[line]),
    }
}

fn form(output: StatusFormat) -> Form {
    match output {
        StatusFormat::Json => Form::Json,
        StatusFormat::Text if is_colourful() => Form::Coloured,
        StatusFormat::Text => Form::Plain,
    }
}

/// Whether somebody looks who has not asked for plain text.
fn is_colourful() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn input<'a>(sources: &'a [Source], args: &'a ConfigArgs, env: &'a dyn Fn(&str) -> Option<String>) -> Input<'a> {
    Input { sources, sets: &args.sets, env, files: Files::Readable }
}

fn with_sources(args: &ConfigArgs, use_them: impl FnOnce(&[Source]) -> Outcome) -> Outcome {
    match sources(args) {
        // What `run` would take, outside a cluster.
        Ok(sources) if sources.is_empty() => use_them(&[Source::built_in(Reach::Loopback)]),
        Ok(sources) => use_them(&sources),
        Err(diagnostic) => Outcome::failed(&[diagnostic.to_string()]),
    }
}

fn sources(args: &ConfigArgs) -> Result<Vec<Source>, Diagnostic> {
    args.configs.iter().map(|uri| Source::parse(uri)).collect()
}

fn finish(outcome: Outcome) -> u8 {
    let printed = print(&mut std::io::stdout().lock(), &outcome.stdout);
    // Nobody is left to be told if stderr cannot be written.
    let _ = print(&mut std::io::stderr().lock(), &outcome.stderr);
    match printed {
        Ok(()) => outcome.code,
        Err(error) => {
            let _ = print(&mut std::io::stderr().lock(), &format!("spanreel: writing the output: {error}\n"));
            EXIT_FAILED
        }
    }
}

/// A reader that has seen enough, such as `head`, is no error.
fn print(stream: &mut impl Write, text: &str) -> std::io::Result<()> {
    match stream.write_all(text.as_bytes()).and_then(|()| stream.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_went_away_is_no_error() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        drop(reader);
        print(&mut writer, "text\n").unwrap();
        assert!(print(&mut [0u8; 2].as_mut_slice(), "text\n").is_err());
    }
}
