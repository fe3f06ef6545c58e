//! The load rig: the same load on Spanreel and on real Collectors, one after the other, in one run.
//!
//! ```text
//! cargo bench --bench load -- [--seconds 20] [--rate SPANS_PER_SECOND] [--protocol grpc|http]
//!                             [--connections 4] [--in-flight 8] [--report FILE]
//!                             [--subjects spanreel,spanreel-edge,otelcol,otelcol-fsync,otelcol-file]
//! cargo bench --bench load -- --store 1000,10000,max [--seconds 90] [--report FILE]
//! cargo bench --bench load -- --processors all|NAME,... [--rounds 7] [--spans 300000] [--rate SPANS_PER_SECOND]
//!                             [--report FILE]
//! cargo bench --bench load -- --backlog SPANS [--report FILE]
//! ```
//!
//! What is measured is a whole process that receives, keeps and forwards: CPU is read after the destination (a sink in
//! this process, the same for all) has everything, so that forwarding is included on every side. Afterwards it is
//! checked that nothing acknowledged is missing: Spanreel's ledger must hold exactly the acknowledged spans, a sample of
//! traces is read back by id, and the sink must have counted at least as many.
//!
//! With `--processors` Spanreel and the Collector run with each chain of processors and without; see `processors`. With
//! `--backlog` Spanreel alone spools so many spans for a destination that is away; see `backlog`.
//!
//! With `--store` Spanreel alone stores the load at each of these rates, and is asked meanwhile; see `profile`.
//!
//! Client, sink and subject share the machine's cores: rates are lower than on a machine of their own for all alike.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod backlog;
mod cluster;
mod driver;
#[path = "../../tests/support/kube.rs"]
mod kube_rig;
mod payload;
mod processors;
mod profile;
mod report;
mod sink;
mod subject;
#[path = "../../tests/support/mod.rs"]
mod support;

use driver::Plan;
use processors::Chain;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use subject::Subject;
use support::otlp::Protocol;

struct Arguments {
    plan: Plan,
    subjects: Vec<Subject>,
    /// Rates at which storing is measured instead; `None` among them: full speed.
    store: Vec<Option<u64>>,
    /// Chains of processors whose cost is measured instead.
    chains: Vec<Chain>,
    /// So many times.
    rounds: u64,
    /// Spans whose forwarding is measured instead.
    backlog: Option<u64>,
    report: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = match arguments(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let text = runtime.block_on(async {
        if !arguments.store.is_empty() {
            return profile::measure(arguments.plan, &arguments.store).await;
        }
        if !arguments.chains.is_empty() {
            return processors::measure(arguments.plan, &arguments.chains, arguments.rounds).await;
        }
        if let Some(spans) = arguments.backlog {
            return backlog::measure(arguments.plan, spans).await;
        }
        let mut results = Vec::new();
        for subject in &arguments.subjects {
            eprintln!("== {}", subject.name());
            let result = subject.measure(arguments.plan).await;
            eprintln!("{}", report::line(&result));
            results.push(result);
        }
        report::markdown(&arguments.plan, &results)
    });
    println!("{text}");
    if let Some(path) = arguments.report
        && let Err(error) = std::fs::write(&path, text)
    {
        eprintln!("{} cannot be written: {error}", path.display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn arguments(mut given: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut plan = Plan {
        protocol: Protocol::Grpc,
        duration: Duration::from_secs(20),
        rate: None,
        connections: 4,
        in_flight: 8,
        spans_max: None,
        seed: u64::from(std::process::id()),
    };
    let mut subjects =
        vec![Subject::Spanreel, Subject::SpanreelEdge, Subject::Otelcol, Subject::OtelcolFileStorage { fsync: true }];
    let mut store = Vec::new();
    let (mut chains, mut rounds, mut backlog) = (Vec::new(), processors::ROUNDS, None);
    let mut report = None;
    while let Some(flag) = given.next() {
        // `cargo bench` says so itself.
        if flag == "--bench" {
            continue;
        }
        let value = given.next().ok_or_else(|| format!("{flag} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{flag} needs a number, not {value:?}"));
        match flag.as_str() {
            "--seconds" => plan.duration = Duration::from_secs(number()?),
            "--rate" => plan.rate = Some(number()?).filter(|rate| *rate > 0),
            "--connections" => plan.connections = number()?.max(1) as usize,
            "--in-flight" => plan.in_flight = number()?.max(1) as usize,
            "--protocol" => {
                plan.protocol = match value.as_str() {
                    "grpc" => Protocol::Grpc,
                    "http" => Protocol::HttpProtobuf,
                    other => return Err(format!("--protocol is grpc or http, not {other:?}")),
                }
            }
            "--subjects" => subjects = value.split(',').map(Subject::from_name).collect::<Result<_, _>>()?,
            "--store" => store = value.split(',').map(rate).collect::<Result<_, _>>()?,
            "--processors" => chains = Chain::named(&value)?,
            "--rounds" => rounds = number()?.max(1),
            "--spans" => plan.spans_max = Some(number()?.max(1)),
            "--backlog" => backlog = Some(number()?.max(1)),
            "--report" => report = Some(PathBuf::from(value)),
            other => return Err(format!("unknown argument {other:?}; see the head of benches/load/main.rs")),
        }
    }
    Ok(Arguments { plan, subjects, store, chains, rounds, backlog, report })
}

/// `max`, or spans per second.
fn rate(text: &str) -> Result<Option<u64>, String> {
    match text {
        "max" => Ok(None),
        number => number.parse().map(Some).map_err(|_| format!("--store needs rates or \"max\", not {number:?}")),
    }
}
