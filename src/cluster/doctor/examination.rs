//! One examination: reads what the scope needs, page by page, and keeps of each object only what the report says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DynamicObject, ListParams};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use super::judge::{self, Detail, Member, Present};
use super::prospect::Prospect;
use super::report::{InstrumentationReport, Report, Scope};
use super::templates::Listed;
use super::{Doctor, DoctorError};
use crate::cluster::crds;
use crate::cluster::template::Template;
use crate::cluster::workloads::Workload;
use crate::config::nearest;
use crate::inject::{OwnerKind, OwnerMap, PodRequest};

/// Objects per page: whole ones are some KiB each.
const PAGE_OBJECTS: u32 = 100;
/// Workloads that are kept.
const WORKLOADS_MAX: usize = 2_000;
/// Of these, in the report.
const WORKLOADS_SHOWN_MAX: usize = 200;
/// Pods that are kept, about 500 bytes each.
const PODS_MAX: usize = 10_000;
/// Objects that are read one by one, beside the pages.
const READS_MAX: usize = 200;
/// Names that are looked through for one that is near.
const NAMES_MAX: u32 = 500;
/// Names in an error text.
const NAMES_SHOWN_MAX: usize = 8;
/// Pods that are done say nothing more.
const UNFINISHED: &str = "status.phase!=Succeeded,status.phase!=Failed";
const KUBE_SYSTEM: &str = "kube-system";

pub(super) struct Examination<'a> {
    doctor: &'a Doctor,
    deadline: Instant,
    report: Report,
    prospects: BTreeMap<Workload, Prospect>,
    members: BTreeMap<Workload, Vec<Member>>,
    /// Known to ask for nothing, in an examination of everything.
    not_asking: BTreeSet<Workload>,
    /// Jobs whose CronJob is the workload.
    aliases: BTreeMap<Workload, Workload>,
    pods_kept: usize,
    reads: usize,
}

/// Why something could not be read.
enum Trouble {
    Forbidden(String),
    /// The time is over.
    Late,
    Api(String),
}

impl From<Trouble> for DoctorError {
    fn from(trouble: Trouble) -> Self {
        Self::Unavailable(match trouble {
            Trouble::Forbidden(why) => format!("the API server does not let Spanreel look: {why}"),
            Trouble::Late => "the API server did not answer in time".to_owned(),
            Trouble::Api(why) => format!("the API server cannot be asked: {why}"),
        })
    }
}

impl From<kube::Error> for Trouble {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if status.code == 403 => Self::Forbidden(status.message.clone()),
            _ => Self::Api(chain(&error)),
        }
    }
}

/// An error with what is behind it: the outermost says only that the service failed.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

impl<'a> Examination<'a> {
    pub(super) fn new(doctor: &'a Doctor, deadline: Instant) -> Self {
        Self {
            doctor,
            deadline,
            report: Report::default(),
            prospects: BTreeMap::new(),
            members: BTreeMap::new(),
            not_asking: BTreeSet::new(),
            aliases: BTreeMap::new(),
            pods_kept: 0,
            reads: 0,
        }
    }

    pub(super) async fn run(mut self, scope: Scope) -> Result<Report, DoctorError> {
        self.report.webhook_registered = *self.doctor.registered.borrow();
        let detail = match (&scope.namespace, &scope.name) {
            (Some(namespace), Some(name)) => {
                self.check_namespace(namespace).await?;
                self.find_named(namespace, name).await?;
                Detail::Full
            }
            (Some(namespace), None) => {
                self.check_namespace(namespace).await?;
                self.read_all(Some(namespace)).await?;
                Detail::OneOfEach
            }
            (None, _) => {
                self.read_all(None).await?;
                Detail::Summary
            }
        };
        self.report.scope = scope;
        self.conclude(detail);
        self.read_ages().await;
        Ok(self.report)
    }

    /// From what was read to the report.
    fn conclude(&mut self, detail: Detail) {
        let catalog = self.doctor.pods.index.catalog();
        let present = Present { lives: &*self.doctor.lives, catalog: &catalog };
        let mut workloads = Vec::with_capacity(self.prospects.len());
        for (workload, prospect) in &self.prospects {
            let members = self.members.get(workload).map_or(&[][..], Vec::as_slice);
            let left_out = &mut self.report.left_out.pods;
            workloads.push(judge::workload(prospect, members, present, detail, left_out));
        }
        for workload in &workloads {
            *self.report.conditions.entry(workload.condition).or_default() += 1;
        }
        workloads.sort_by(|one, other| {
            let key = |it: &super::report::WorkloadReport| (it.condition, it.workload.namespace.clone());
            key(one).cmp(&key(other)).then_with(|| one.workload.name.cmp(&other.workload.name))
        });
        self.report.left_out.workloads += workloads.len().saturating_sub(WORKLOADS_SHOWN_MAX);
        workloads.truncate(WORKLOADS_SHOWN_MAX);
        self.report.left_out.not_asking = self.not_asking.len();
        self.report.workloads = workloads;
    }

    async fn read_all(&mut self, namespace: Option<&str>) -> Result<(), DoctorError> {
        self.read_workloads::<Deployment>(namespace).await?;
        self.read_workloads::<StatefulSet>(namespace).await?;
        self.read_workloads::<DaemonSet>(namespace).await?;
        self.read_workloads::<CronJob>(namespace).await?;
        self.read_workloads::<Job>(namespace).await?;
        self.read_pods(namespace, None).await
    }

    /// All of a kind. Without the right to list them their pods still tell something.
    async fn read_workloads<K: Listed>(&mut self, namespace: Option<&str>) -> Result<(), DoctorError> {
        let api: Api<K> = self.api(namespace);
        let mut params = ListParams::default().limit(PAGE_OBJECTS);
        loop {
            let page = match self.list(&api, &params).await {
                Ok(page) => page,
                Err(Trouble::Forbidden(why)) => {
                    self.note(format!("decisions are taken from pods, not from their templates: {why}"));
                    return Ok(());
                }
                Err(Trouble::Late) => {
                    self.note_late();
                    return Ok(());
                }
                Err(trouble) => return Err(trouble.into()),
            };
            let next = page.metadata.continue_.clone();
            for object in page.items {
                let is_done = object.is_done();
                if let Some(template) = object.template() {
                    self.add_template(K::KIND, template, is_done, namespace.is_none()).await;
                }
            }
            match next.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(()),
            }
        }
    }

    async fn add_template(&mut self, kind: OwnerKind, template: Template, is_done: bool, everything: bool) {
        let meta = &template.metadata;
        let of = |kind: OwnerKind, name: &str| Workload {
            kind: kind.kind(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: name.to_owned(),
        };
        let workload = of(kind, meta.name.as_deref().unwrap_or_default());
        match controller(meta) {
            Some(owner) if owner.kind == OwnerKind::CronJob.kind() => {
                if self.aliases.len() < PODS_MAX {
                    self.aliases.insert(workload, of(OwnerKind::CronJob, &owner.name));
                }
                return;
            }
            None if is_done => return,
            _ => {}
        }
        let late = Instant::now() >= self.deadline;
        if late {
            self.note_late();
        }
        if late || self.prospects.len() + self.not_asking.len() >= WORKLOADS_MAX {
            self.report.left_out.workloads += 1;
            return;
        }
        let prospect = self.prospect_of(workload.clone(), &template).await;
        if everything && !prospect.asks() {
            self.not_asking.insert(workload);
        } else {
            self.prospects.insert(workload, prospect);
        }
    }

    async fn prospect_of(&self, workload: Workload, template: &Template) -> Prospect {
        let none = BTreeMap::new();
        self.prospect(workload, &template.pod, template.metadata.annotations.as_ref().unwrap_or(&none)).await
    }

    /// What would become of this pod if it came now.
    async fn prospect(&self, workload: Workload, pod: &Pod, own: &BTreeMap<String, String>) -> Prospect {
        let pods = &self.doctor.pods;
        let namespace = workload.namespace.clone();
        let decision = pods.decide(pod, &namespace).await;
        let annotations = pods.index.namespace(&namespace).unwrap_or_default();
        let (settings, catalog, owners) = (pods.settings.load_full(), pods.index.catalog(), OwnerMap::new());
        let request = PodRequest { pod, namespace: &namespace, namespace_annotations: &annotations };
        let excluded = namespace == KUBE_SYSTEM || namespace == self.doctor.own_namespace;
        Prospect::new(workload, &request, own, &decision, &pods.view(&settings, &catalog, &owners), excluded)
    }

    /// Pods of the scope to their workloads; with `only` those of one workload.
    async fn read_pods(
        &mut self,
        namespace: Option<&str>,
        only: Option<&BTreeSet<Workload>>,
    ) -> Result<(), DoctorError> {
        let api: Api<Pod> = self.api(namespace);
        let mut params = ListParams::default().limit(PAGE_OBJECTS).fields(UNFINISHED);
        loop {
            let page = match self.list(&api, &params).await {
                Ok(page) => page,
                Err(Trouble::Late) => {
                    self.note_late();
                    return Ok(());
                }
                Err(trouble) => return Err(trouble.into()),
            };
            let next = page.metadata.continue_.clone();
            for pod in page.items {
                if only.is_some_and(|only| !only.contains(&self.workload_of(&pod))) {
                    continue;
                }
                self.add_pod(pod, namespace.is_none()).await;
            }
            match next.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(()),
            }
        }
    }

    fn workload_of(&self, pod: &Pod) -> Workload {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let workload = Workload::of_pod(pod, namespace, &OwnerMap::new());
        self.aliases.get(&workload).cloned().unwrap_or(workload)
    }

    async fn add_pod(&mut self, pod: Pod, everything: bool) {
        let member = Member::read(&pod);
        let mut workload = self.workload_of(&pod);
        if !self.prospects.contains_key(&workload) {
            let asks = || {
                let annotations = self.doctor.pods.index.namespace(&workload.namespace).unwrap_or_default();
                let request =
                    PodRequest { pod: &pod, namespace: &workload.namespace, namespace_annotations: &annotations };
                !crate::inject::asked_languages(&request).is_empty()
                    || !crate::inject::unknown_requests(&request).is_empty()
            };
            if everything && !member.is_injected() && (self.not_asking.contains(&workload) || !asks()) {
                self.not_asking.insert(workload);
                return;
            }
            if self.prospects.len() >= WORKLOADS_MAX {
                self.report.left_out.pods += 1;
                return;
            }
            self.not_asking.remove(&workload);
            workload = self.introduce(workload, &pod).await;
        }
        if self.pods_kept >= PODS_MAX {
            self.report.left_out.pods += 1;
            return;
        }
        self.pods_kept += 1;
        self.members.entry(workload).or_default().push(member);
    }

    /// Makes a workload known that no list had, from its template or, where there is none, from a pod of it.
    async fn introduce(&mut self, workload: Workload, pod: &Pod) -> Workload {
        let Some(template) = self.template(&workload).await else {
            let prospect = self.prospect(workload.clone(), pod, &BTreeMap::new()).await;
            self.prospects.insert(workload.clone(), prospect);
            return workload;
        };
        if let Some(owner) = controller(&template.metadata).filter(|owner| owner.kind == OwnerKind::CronJob.kind()) {
            let cron_job = Workload { kind: OwnerKind::CronJob.kind(), name: owner.name.clone(), ..workload.clone() };
            self.aliases.insert(workload.clone(), cron_job.clone());
            if self.prospects.contains_key(&cron_job) {
                return cron_job;
            }
            if let Some(of_cron_job) = self.template(&cron_job).await {
                let prospect = self.prospect_of(cron_job.clone(), &of_cron_job).await;
                self.prospects.insert(cron_job.clone(), prospect);
                return cron_job;
            }
        }
        let prospect = self.prospect_of(workload.clone(), &template).await;
        self.prospects.insert(workload.clone(), prospect);
        workload
    }

    /// One by one, for what no list has.
    async fn template(&mut self, workload: &Workload) -> Option<Arc<Template>> {
        self.reads += 1;
        if self.reads > READS_MAX {
            return None;
        }
        match timeout_at(self.deadline, self.doctor.templates.read(workload)).await {
            Ok(Ok(template)) => template,
            Ok(Err(error)) if error.is_forbidden() => {
                self.note(format!("decisions are taken from pods, not from their templates: {}", chain(&error)));
                None
            }
            Ok(Err(error)) => {
                self.note(chain(&error));
                None
            }
            Err(_) => {
                self.note_late();
                None
            }
        }
    }

    /// A pod or workloads by name.
    async fn find_named(&mut self, namespace: &str, name: &str) -> Result<(), DoctorError> {
        let (kind, name) = name.split_once('/').map_or((None, name), |(kind, name)| (Some(kind), name));
        let wanted = |known: &str| kind.is_none_or(|kind| is_kind(kind, known));
        let mut found: BTreeSet<Workload> = BTreeSet::new();
        for known in ["Deployment", "StatefulSet", "DaemonSet", "CronJob", "Job", "ReplicaSet"] {
            if !wanted(known) {
                continue;
            }
            let mut workload = Workload { kind: known, namespace: namespace.to_owned(), name: name.to_owned() };
            let Some(mut template) = self.template(&workload).await else { continue };
            // A Deployment's ReplicaSets are its own business.
            let owner = controller(&template.metadata).filter(|owner| owner.kind == OwnerKind::Deployment.kind());
            if let Some(name) = owner.map(|owner| owner.name.clone()) {
                let deployment = Workload { kind: OwnerKind::Deployment.kind(), name, ..workload.clone() };
                if let Some(of_deployment) = self.template(&deployment).await {
                    (workload, template) = (deployment, of_deployment);
                }
            }
            let prospect = self.prospect_of(workload.clone(), &template).await;
            self.prospects.insert(workload.clone(), prospect);
            found.insert(workload);
        }
        if wanted("Pod") {
            let params = ListParams::default().fields(&format!("metadata.name={name}"));
            let pods = self.list::<Pod>(&self.api(Some(namespace)), &params).await?;
            for pod in pods.items {
                if !found.contains(&self.workload_of(&pod)) {
                    self.add_pod(pod, false).await;
                }
            }
        }
        if found.iter().any(|workload| workload.kind == OwnerKind::CronJob.kind()) {
            self.read_aliases(namespace).await?;
        }
        if !found.is_empty() {
            return self.read_pods(Some(namespace), Some(&found)).await;
        }
        if self.members.is_empty() {
            return Err(self.nothing_called(namespace, name).await);
        }
        Ok(())
    }

    /// Which Jobs are a CronJob's.
    async fn read_aliases(&mut self, namespace: &str) -> Result<(), DoctorError> {
        let params = ListParams::default().limit(NAMES_MAX);
        let api: Api<Job> = self.api(Some(namespace));
        let jobs = match timeout_at(self.deadline, api.list_metadata(&params)).await {
            Ok(jobs) => jobs.map_err(Trouble::from)?,
            Err(_) => return Err(Trouble::Late.into()),
        };
        for job in jobs.items {
            if let Some(owner) = controller(&job.metadata).filter(|owner| owner.kind == OwnerKind::CronJob.kind()) {
                let of = |kind: OwnerKind, name: &str| Workload {
                    kind: kind.kind(),
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                };
                self.aliases.insert(of(OwnerKind::Job, &job.name_any()), of(OwnerKind::CronJob, &owner.name));
            }
        }
        Ok(())
    }

    async fn check_namespace(&self, namespace: &str) -> Result<(), DoctorError> {
        if self.doctor.pods.index.namespace(namespace).is_some() {
            return Ok(());
        }
        let api: Api<Namespace> = Api::all(self.doctor.client.clone());
        let found = timeout_at(self.deadline, api.get_metadata_opt(namespace)).await.map_err(|_| Trouble::Late)?;
        if found.map_err(Trouble::from)?.is_some() {
            return Ok(());
        }
        let params = ListParams::default().limit(NAMES_MAX);
        let all = timeout_at(self.deadline, api.list_metadata(&params)).await;
        let names: Vec<String> =
            all.ok().and_then(Result::ok).into_iter().flatten().map(|found| found.name_any()).collect();
        let hint = hint(namespace, &names);
        Err(DoctorError::Unknown(format!("there is no namespace {namespace}{hint}")))
    }

    async fn nothing_called(&self, namespace: &str, name: &str) -> DoctorError {
        let mut names = Vec::new();
        self.names::<Deployment>(namespace, &mut names).await;
        self.names::<StatefulSet>(namespace, &mut names).await;
        self.names::<DaemonSet>(namespace, &mut names).await;
        self.names::<CronJob>(namespace, &mut names).await;
        self.names::<Job>(namespace, &mut names).await;
        self.names::<Pod>(namespace, &mut names).await;
        let hint = hint(name, &names);
        DoctorError::Unknown(format!("no pod and no workload of namespace {namespace} is called {name}{hint}"))
    }

    async fn names<K>(&self, namespace: &str, names: &mut Vec<String>)
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let api: Api<K> = self.api(Some(namespace));
        let params = ListParams::default().limit(NAMES_MAX);
        if let Ok(Ok(found)) = timeout_at(self.deadline, api.list_metadata(&params)).await {
            names.extend(found.items.iter().map(kube::ResourceExt::name_any));
        }
    }

    /// When the Instrumentations were made that the report names.
    async fn read_ages(&mut self) {
        let mut named: BTreeMap<String, Option<jiff::Timestamp>> = BTreeMap::new();
        for used in used(&mut self.report) {
            named.insert(used.name.clone(), None);
        }
        let kind = crds::instrumentations();
        for (full_name, created) in named.iter_mut().take(READS_MAX) {
            let Some((namespace, name)) = full_name.split_once('/') else { continue };
            let api: Api<DynamicObject> = Api::namespaced_with(self.doctor.client.clone(), namespace, &kind);
            match timeout_at(self.deadline, api.get_metadata_opt(name)).await {
                Ok(Ok(found)) => *created = found.and_then(|found| found.creation_timestamp()).map(|time| time.0),
                Ok(Err(_)) | Err(_) => break,
            }
        }
        for used in used(&mut self.report) {
            used.created = named.get(&used.name).copied().flatten();
        }
    }

    fn api<K>(&self, namespace: Option<&str>) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        match namespace {
            Some(namespace) => Api::namespaced(self.doctor.client.clone(), namespace),
            None => Api::all(self.doctor.client.clone()),
        }
    }

    async fn list<K: Clone + Debug + DeserializeOwned>(
        &self,
        api: &Api<K>,
        params: &ListParams,
    ) -> Result<kube::api::ObjectList<K>, Trouble> {
        Ok(timeout_at(self.deadline, api.list(params)).await.map_err(|_| Trouble::Late)??)
    }

    fn note(&mut self, note: String) {
        if !self.report.notes.contains(&note) {
            self.report.notes.push(note);
        }
    }

    fn note_late(&mut self) {
        self.note("the API server took too long: the report is as far as it came".to_owned());
    }
}

fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// Every Instrumentation that a report speaks of.
fn used(report: &mut Report) -> impl Iterator<Item = &mut InstrumentationReport> {
    report.workloads.iter_mut().flat_map(|workload| {
        let decisions = workload.decisions.iter_mut().filter_map(|decision| decision.instrumentation.as_mut());
        let containers = workload.examples.iter_mut().flat_map(|pod| &mut pod.containers);
        decisions.chain(containers.filter_map(|container| container.instrumentation.as_mut()))
    })
}

/// What exists nearby, to go behind an error.
fn hint(word: &str, names: &[String]) -> String {
    if let Some(near) = nearest(word, names.iter().map(String::as_str)) {
        return format!("; did you mean {near}?");
    }
    if names.is_empty() {
        return String::new();
    }
    let shown = names.iter().take(NAMES_SHOWN_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = match names.len().saturating_sub(NAMES_SHOWN_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("; there are: {shown}{more}")
}

/// `deployment`, `deployments` and `Deployment` are one kind to a person, and so is `deploy`.
fn is_kind(word: &str, kind: &str) -> bool {
    let word = word.to_ascii_lowercase();
    let kind = kind.to_ascii_lowercase();
    let short = match kind.as_str() {
        "deployment" => "deploy",
        "statefulset" => "sts",
        "daemonset" => "ds",
        "cronjob" => "cj",
        "replicaset" => "rs",
        _ => "po",
    };
    word == kind || word.strip_suffix('s') == Some(&kind) || word == short
}
