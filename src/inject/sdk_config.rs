//! The configuration that every SDK reads from its environment, in opentelemetry-operator's order.

use k8s_openapi::api::core::v1::{Container, Pod, Volume};

use super::InstrumentationSpec;
use super::environment::{Environment, RESOURCE_ATTRIBUTES_VARIABLE, literal, node_name, pod_name, pod_uid};
use super::outcome::Refusal;
use super::owners::Owner;
use super::resource_attributes::Attributes;
use super::tls;

const SAMPLER_VARIABLE: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARGUMENT_VARIABLE: &str = "OTEL_TRACES_SAMPLER_ARG";

/// What the configuration is derived from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) pod: &'a Pod,
    pub(super) namespace: &'a str,
    pub(super) owners: &'a [Owner],
    pub(super) spec: &'a InstrumentationSpec,
    /// `strict_operator_compat`.
    pub(super) strict: bool,
}

/// # Errors
/// The TLS files cannot be where they must be.
pub(super) fn apply(
    facts: &Facts<'_>,
    container: &mut Container,
    env: &mut Environment,
    volumes: &mut Vec<Volume>,
) -> Result<(), Refusal> {
    let described = container.clone();
    let described_env = env.clone();
    apply_for(facts, (&described, &described_env), container, env, volumes)
}

/// As [`apply`], for a container that observes another one: `described`, with its environment.
///
/// # Errors
/// The TLS files cannot be where they must be.
pub(super) fn apply_for(
    facts: &Facts<'_>,
    described: (&Container, &Environment),
    container: &mut Container,
    env: &mut Environment,
    volumes: &mut Vec<Volume>,
) -> Result<(), Refusal> {
    let spec = facts.spec;
    let mut attributes = Attributes::collect(facts, described.0, described.1);

    env.push_absent(literal("OTEL_SERVICE_NAME", attributes.take_service_name()));
    if !spec.exporter.endpoint.is_empty() {
        env.push_absent(literal("OTEL_EXPORTER_OTLP_ENDPOINT", spec.exporter.endpoint.as_str()));
    }
    tls::apply(&spec.exporter.tls, container, env, volumes)?;

    // The operator adds these even where they are.
    let add =
        |env: &mut Environment, variable| if facts.strict { env.push(variable) } else { env.push_absent(variable) };
    add(env, pod_name());
    if spec.resource.add_k8s_uid_attributes && !attributes.knows_pod_uid() {
        add(env, pod_uid());
        attributes.refer_to_pod_uid();
    }
    if attributes.knows_node_name() {
        // Even so: the variable marks the container as injected.
        env.push_absent(node_name());
    } else {
        add(env, node_name());
        attributes.refer_to_node_name();
    }

    if !spec.propagators.is_empty() {
        env.push_absent(literal("OTEL_PROPAGATORS", spec.propagators.join(",")));
    }
    let sampler_chosen = env.has(SAMPLER_VARIABLE) || env.has(SAMPLER_ARGUMENT_VARIABLE);
    if !spec.sampler.kind.is_empty() && !sampler_chosen {
        env.push_absent(literal(SAMPLER_VARIABLE, spec.sampler.kind.as_str()));
        if !spec.sampler.argument.is_empty() {
            env.push_absent(literal(SAMPLER_ARGUMENT_VARIABLE, spec.sampler.argument.as_str()));
        }
    }

    // A valueFrom cannot be extended, and value with valueFrom is an invalid pod: then it stays as the author has it.
    let own = env.get(RESOURCE_ATTRIBUTES_VARIABLE);
    if own.is_none_or(|var| var.value_from.is_none()) {
        let existing = own.map(|var| var.value.clone().unwrap_or_default());
        env.set_last(literal(RESOURCE_ATTRIBUTES_VARIABLE, attributes.appended_to(existing.as_deref())));
    }
    Ok(())
}
