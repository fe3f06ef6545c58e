//! How connectors join pipelines: what a Collector refuses of it is refused here, with a place.

use super::component::{ComponentId, Role};
use super::diagnostic::{Position, Report};
use super::{Pipeline, Service};
use crate::otlp::Signal;
use std::collections::{BTreeMap, BTreeSet};

/// Where each connector leads, by the signals of the pipelines at its ends.
pub(super) type Routes = BTreeMap<ComponentId, &'static [(Signal, Signal)]>;

/// Whether pipeline `from` hands what passes to pipeline `to` by `connector`.
pub(super) fn leads(routes: &Routes, connector: &ComponentId, from: &Pipeline, to: &Pipeline) -> bool {
    from.feeds.contains(connector)
        && to.fed_by.contains(connector)
        && routes.get(connector).is_some_and(|routes| routes.contains(&(from.signal, to.signal)))
}

/// Connectors that lead nowhere or come from nowhere, and circles.
pub(super) fn check(service: &Service, connectors: &BTreeMap<ComponentId, Position>, routes: &Routes, report: &Report) {
    for (id, position) in connectors {
        check_ends(service, id, position, routes, report);
    }
    if let Some(circle) = circle(service, routes) {
        let position = circle.first().map(|(pipeline, _)| &pipeline.position);
        let steps: Vec<String> =
            circle.iter().map(|(pipeline, connector)| format!("{} -> {connector}", pipeline.name)).collect();
        let first = circle.first().map(|(pipeline, _)| pipeline.name.to_string()).unwrap_or_default();
        if let Some(position) = position {
            let reason = format!("cycle detected: {} -> {first}", steps.join(" -> "));
            let path = format!("service::pipelines::{first}");
            report.error(position, &path, reason, "take the connector out of one of these pipelines");
        }
    }
}

/// What enters a connector must leave it, and the other way round.
fn check_ends(service: &Service, id: &ComponentId, position: &Position, routes: &Routes, report: &Report) {
    let ends: Vec<&Pipeline> = service.pipelines.iter().filter(|pipeline| pipeline.feeds.contains(id)).collect();
    let begins: Vec<&Pipeline> = service.pipelines.iter().filter(|pipeline| pipeline.fed_by.contains(id)).collect();
    let lonely = |pipelines: &[&Pipeline], is_met: &dyn Fn(&Pipeline) -> bool| {
        let names = pipelines.iter().filter(|pipeline| !is_met(pipeline)).map(|pipeline| pipeline.name.to_string());
        names.collect::<Vec<_>>().join(" ")
    };
    let without_begin = lonely(&ends, &|from| begins.iter().any(|to| leads(routes, id, from, to)));
    let without_end = lonely(&begins, &|to| ends.iter().any(|from| leads(routes, id, from, to)));
    let leads_to = |pick: fn(&(Signal, Signal)) -> Signal| {
        let signals: BTreeSet<Signal> = routes.get(id).into_iter().flat_map(|routes| routes.iter().map(pick)).collect();
        signals.into_iter().map(Signal::as_str).collect::<Vec<_>>().join(" or ")
    };
    for (names, used, other, list, signals) in [
        (without_begin, Role::Exporter, Role::Receiver, "receivers", leads_to(|route| route.1)),
        (without_end, Role::Receiver, Role::Exporter, "exporters", leads_to(|route| route.0)),
    ] {
        if !names.is_empty() {
            let (used, other) = (used.word(), other.word());
            let reason = format!(
                "connector {:?} used as {used} in [{names}] pipeline but not used in any supported {other} pipeline",
                id.to_string()
            );
            let remedy = format!("list it under {list} of a {signals} pipeline as well");
            report.error(position, &format!("connectors::{id}"), reason, remedy);
        }
    }
}

/// The first circle there is, as pipelines with the connector that leads on.
fn circle<'a>(service: &'a Service, routes: &Routes) -> Option<Vec<(&'a Pipeline, &'a ComponentId)>> {
    // Pipelines from which no circle is reached.
    let mut clear: BTreeSet<&ComponentId> = BTreeSet::new();
    for start in &service.pipelines {
        // Each with the successors that are still to be looked at; a list, so that depth costs no stack.
        let mut way: Vec<(&Pipeline, Vec<(&ComponentId, &Pipeline)>)> =
            vec![(start, successors(service, routes, start))];
        let mut taken: Vec<&ComponentId> = Vec::new();
        while let Some((pipeline, rest)) = way.last_mut() {
            let Some((connector, next)) = rest.pop() else {
                clear.insert(&pipeline.name);
                way.pop();
                taken.pop();
                continue;
            };
            if let Some(begin) = way.iter().position(|(pipeline, _)| pipeline.name == next.name) {
                taken.push(connector);
                let pipelines = way.iter().skip(begin).map(|(pipeline, _)| *pipeline);
                return Some(pipelines.zip(taken.into_iter().skip(begin)).collect());
            }
            if !clear.contains(&next.name) {
                taken.push(connector);
                way.push((next, successors(service, routes, next)));
            }
        }
    }
    None
}

fn successors<'a>(service: &'a Service, routes: &Routes, from: &'a Pipeline) -> Vec<(&'a ComponentId, &'a Pipeline)> {
    let to = |connector| {
        let pipelines = service.pipelines.iter();
        pipelines.filter(move |to| leads(routes, connector, from, to)).map(move |to| (connector, to))
    };
    from.feeds.iter().flat_map(to).collect()
}
