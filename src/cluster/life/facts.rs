//! What is kept of a pod: a few hundred bytes of several kilobytes.

use std::collections::{BTreeMap, HashSet};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodStatus};

use super::cause::Suspicion;
use crate::cluster::workloads::Workload;
use crate::inject::{self, Language, OwnerMap, PodRequest};

/// Containers followed per pod; more are left out. A pod with more injected containers than that is not seen in the wild.
const CONTAINERS_MAX: usize = 16;

/// Kubernetes gives a pod at most one address of each family.
const ADDRESSES_MAX: usize = 2;

/// A pod that asks for instrumentation or has it.
#[derive(Debug, PartialEq)]
pub(super) struct Facts {
    pub(super) uid: Arc<str>,
    pub(super) namespace: Arc<str>,
    pub(super) name: Arc<str>,
    pub(super) workload: Arc<Workload>,
    /// One per IP family; none at first, and for pods that share their node's.
    pub(super) addresses: Box<[IpAddr]>,
    pub(super) created: Option<Timestamp>,
    pub(super) injected: bool,
    /// The injected ones; of a pod that was not injected the first.
    pub(super) containers: Box<[ContainerFacts]>,
    /// An init container that does not get on, and why.
    pub(super) blocked: Option<(Arc<str>, Arc<str>)>,
}

/// One container.
#[derive(Debug, PartialEq)]
pub(super) struct ContainerFacts {
    pub(super) name: Arc<str>,
    pub(super) run: Run,
    pub(super) restarts: u32,
    /// Something in its specification that keeps spans from coming.
    pub(super) suspicion: Option<Suspicion>,
    /// Where it sends; `None`: nothing is set, or it is put together by the kubelet.
    pub(super) endpoint: Endpoint,
}

/// Whether a container runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Run {
    Running {
        since: Option<Timestamp>,
    },
    /// With the kubelet's word for why not, where there is one.
    Not {
        reason: Option<Arc<str>>,
    },
}

/// Where spans are sent to, as far as the container's environment says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Endpoint {
    Unset,
    /// From a ConfigMap, a Secret or another variable.
    Unknown,
    Url(Arc<str>),
}

/// Texts and workloads that many pods have in common are kept once.
#[derive(Debug, Default)]
pub(super) struct Shared {
    texts: HashSet<Arc<str>>,
    workloads: HashSet<Arc<Workload>>,
}

/// Values of variables may be as long as a pod; of longer ones the beginning tells enough.
const TEXT_BYTES_MAX: usize = 256;

impl Shared {
    fn text(&mut self, text: &str) -> Arc<str> {
        let text = text.get(..text.floor_char_boundary(TEXT_BYTES_MAX)).unwrap_or_default();
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known);
        }
        let new: Arc<str> = text.into();
        self.texts.insert(Arc::clone(&new));
        new
    }

    fn workload(&mut self, workload: Workload) -> Arc<Workload> {
        if let Some(known) = self.workloads.get(&workload) {
            return Arc::clone(known);
        }
        let new = Arc::new(workload);
        self.workloads.insert(Arc::clone(&new));
        new
    }

    /// Lets go of what no pod has any more.
    pub(super) fn prune(&mut self) {
        fn prune<T: ?Sized + Eq + Hash>(set: &mut HashSet<Arc<T>>) {
            set.retain(|item| Arc::strong_count(item) > 1);
            set.shrink_to_fit();
        }
        prune(&mut self.texts);
        prune(&mut self.workloads);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.texts.len() + self.workloads.len()
    }
}

impl Facts {
    /// Whether the container cannot get to run: it fails, or an init container before it does.
    pub(super) fn is_stuck(&self, container: &ContainerFacts) -> bool {
        let waits = matches!(&container.run, Run::Not { reason } if reason.as_deref() != Some("Completed"));
        container.is_waiting_in_vain() || (waits && self.blocked.is_some())
    }

    /// `None`: the pod is of no interest: it asks for nothing, or is on its way out.
    pub(super) fn read(
        pod: &Pod,
        namespace_annotations: &BTreeMap<String, String>,
        shared: &mut Shared,
    ) -> Option<Self> {
        let meta = &pod.metadata;
        let (uid, name, namespace) = (meta.uid.as_deref()?, meta.name.as_deref()?, meta.namespace.as_deref()?);
        if meta.deletion_timestamp.is_some() {
            return None;
        }
        let injected = inject::injected_containers(pod);
        let spec = pod.spec.as_ref()?;
        let mut containers: Vec<ContainerFacts> = injected
            .iter()
            .take(CONTAINERS_MAX)
            .map(|it| ContainerFacts::read(pod, it.container, &it.languages, shared))
            .collect();
        if injected.is_empty() {
            let asked = inject::asked_languages(&PodRequest { pod, namespace, namespace_annotations });
            if asked.is_empty() {
                return None;
            }
            containers.extend(spec.containers.first().map(|first| ContainerFacts::read(pod, first, &[], shared)));
        }
        let status = pod.status.as_ref();
        let own_address = spec.host_network != Some(true);
        let addresses = status.filter(|_| own_address).map(addresses).unwrap_or_default();
        let blocked = status.and_then(|status| blocked(status.init_container_statuses.as_deref()?));
        Some(Self {
            uid: uid.into(),
            namespace: shared.text(namespace),
            name: name.into(),
            workload: shared.workload(Workload::of_pod(pod, namespace, &OwnerMap::new())),
            addresses,
            created: meta.creation_timestamp.as_ref().map(|time| time.0),
            injected: !injected.is_empty(),
            containers: containers.into(),
            blocked: blocked.map(|(name, reason)| (shared.text(name), shared.text(reason))),
        })
    }
}

impl ContainerFacts {
    /// Neither running nor on its way nor done.
    fn is_waiting_in_vain(&self) -> bool {
        const ON_ITS_WAY_OR_DONE: [&str; 3] = ["PodInitializing", "ContainerCreating", "Completed"];
        matches!(&self.run, Run::Not { reason: Some(reason) } if !ON_ITS_WAY_OR_DONE.contains(&&**reason))
    }

    fn read(pod: &Pod, container: &Container, languages: &[Language], shared: &mut Shared) -> Self {
        let status = status_of(pod, &container.name);
        let state = status.and_then(|status| status.state.as_ref());
        let run = match state.and_then(|state| state.running.as_ref()) {
            Some(running) => Run::Running { since: running.started_at.as_ref().map(|time| time.0) },
            None => {
                let waiting = state.and_then(|state| state.waiting.as_ref()?.reason.as_deref());
                let ended = state.and_then(|state| state.terminated.as_ref()?.reason.as_deref());
                Run::Not { reason: waiting.or(ended).map(|reason| shared.text(reason)) }
            }
        };
        let endpoint = match endpoint(container) {
            None => Endpoint::Unset,
            Some("") => Endpoint::Unknown,
            Some(url) if url.contains("$(") => Endpoint::Unknown,
            Some(url) => Endpoint::Url(shared.text(url)),
        };
        Self {
            name: shared.text(&container.name),
            run,
            restarts: status.map_or(0, |status| u32::try_from(status.restart_count).unwrap_or_default()),
            suspicion: Suspicion::of(container, languages, &mut |text| shared.text(text)),
            endpoint,
        }
    }
}

/// The value that the agent uses for traces; empty where it is not in the specification.
fn endpoint(container: &Container) -> Option<&str> {
    ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"].into_iter().find_map(|name| {
        let variable = container.env.iter().flatten().rfind(|variable| variable.name == name)?;
        Some(variable.value.as_deref().unwrap_or_default())
    })
}

fn status_of<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    all.into_iter().find(|status| status.name == container)
}

fn addresses(status: &PodStatus) -> Box<[IpAddr]> {
    let all = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).chain(status.pod_ip.as_deref());
    let mut addresses: Vec<IpAddr> = all.filter_map(|ip| ip.parse().ok()).map(|ip: IpAddr| ip.to_canonical()).collect();
    // `podIP` repeats the first of `podIPs`.
    let mut seen = HashSet::new();
    addresses.retain(|address| seen.insert(*address));
    addresses.truncate(ADDRESSES_MAX);
    addresses.into()
}

/// The first init container that waits for something other than its turn, and for what.
fn blocked(statuses: &[ContainerStatus]) -> Option<(&str, &str)> {
    statuses.iter().find_map(|status| {
        let reason = status.state.as_ref()?.waiting.as_ref()?.reason.as_deref()?;
        (reason != "PodInitializing").then_some((status.name.as_str(), reason))
    })
}
