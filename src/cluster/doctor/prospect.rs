//! A workload before its pods are looked at: what it asks for, and what would become of a pod that came now.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

use super::remedy::{self, Site};
use super::report::{Asked, Condition, DecisionReport, InstrumentationReport};
use crate::cluster::workloads::Workload;
use crate::inject::{self, Decision, Language, Place, PodRequest, Reason, Record, Verdict, View, Wish};

/// Annotations on a workload itself, which have no effect there.
const REQUESTS: &str = "instrumentation.opentelemetry.io/inject-";

/// What is known of a workload without its pods.
#[derive(Debug)]
pub(super) struct Prospect {
    pub(super) workload: Workload,
    pub(super) asked: Vec<Asked>,
    pub(super) decisions: Vec<DecisionReport>,
    pub(super) notes: Vec<String>,
    /// Whether pods of its namespace are never asked about.
    pub(super) excluded: bool,
    /// For a workload that asks for nothing: how it stands, why, and what would change it.
    pub(super) unasked: Unasked,
}

/// Why nothing is asked for.
#[derive(Debug)]
pub(super) struct Unasked {
    pub(super) condition: Condition,
    pub(super) why: String,
    pub(super) remedy: String,
}

impl Prospect {
    /// `pod`: one that the workload makes, or itself. `own`: the annotations of the workload itself, if it is no pod.
    pub(super) fn new(
        workload: Workload,
        request: &PodRequest<'_>,
        own: &BTreeMap<String, String>,
        decision: &Decision,
        view: &View<'_>,
        excluded: bool,
    ) -> Self {
        let wishes = inject::wishes(request);
        let site = Site { workload: &workload, request, wishes: &wishes, view };
        // A pod that exists (templates have no uid) is decided about as it is, with what was injected into it.
        let record = Record::of(request.pod).filter(|_| request.pod.metadata.uid.is_some());
        let decisions = decision.outcomes.iter().map(|outcome| {
            let done = record.as_ref().filter(|_| outcome.reason == Reason::AlreadyInstrumented);
            let wish = wishes.iter().find(|wish| wish.language == outcome.language);
            DecisionReport {
                language: outcome.language.as_str(),
                container: outcome.container.clone(),
                result: outcome.verdict.as_str(),
                reason: outcome.reason.as_str(),
                message: done.map_or_else(|| outcome.message.clone(), of_record),
                instrumentation: wish.and_then(|wish| inject::chosen(wish, request.namespace, view)).map(|chosen| {
                    InstrumentationReport {
                        name: chosen.full_name(),
                        generation: Some(chosen.generation),
                        created: None,
                        injected_generation: None,
                    }
                }),
                agent_image: decision.pod.as_ref().and_then(|pod| image(pod, outcome.language)),
                remedy: if excluded {
                    remedy::excluded(request.namespace)
                } else if done.is_some() {
                    remedy::restart(&workload, None)
                } else {
                    remedy::of_outcome(outcome, &decision.outcomes, &site)
                },
            }
        });
        let decisions: Vec<DecisionReport> = decisions.collect();
        let unknown: Vec<Unknown> = inject::unknown_requests(request).iter().map(|key| Unknown::read(key)).collect();
        let mut unasked = unasked(&site, own, &wishes, &unknown);
        if excluded {
            unasked.remedy = remedy::excluded(request.namespace);
        }
        let mut notes = decision.notes.clone();
        notes.extend(unknown.into_iter().map(|unknown| unknown.sentence));
        let asked = wishes.iter().map(Asked::from).collect();
        Self { asked, decisions, notes, excluded, unasked, workload }
    }

    /// Whether anything is to be said of it that concerns injection.
    pub(super) fn asks(&self) -> bool {
        !self.decisions.is_empty() || self.unasked.condition != Condition::NotAsked || !self.notes.is_empty()
    }

    /// The decision about a language, in a container if it got that far.
    pub(super) fn decision(&self, language: &str, container: Option<&str>) -> Option<&DecisionReport> {
        let of_language = |decision: &&DecisionReport| decision.language == language;
        let exact =
            self.decisions.iter().filter(of_language).find(|decision| decision.container.as_deref() == container);
        exact.or_else(|| self.decisions.iter().filter(of_language).find(|decision| decision.container.is_none()))
    }

    /// How it stands with no pod to look at.
    pub(super) fn without_pods(&self) -> (Condition, String, Option<String>) {
        let refused = self.decisions.iter().find(|decision| decision.result == Verdict::Refused.as_str());
        let injected = self.decisions.iter().find(|decision| decision.result == Verdict::Injected.as_str());
        match refused.or(injected).or(self.decisions.first()) {
            None => (self.unasked.condition, self.unasked.why.clone(), Some(self.unasked.remedy.clone())),
            Some(decision) if self.excluded => {
                (Condition::Excluded, excluded_why(&self.workload.namespace), Some(decision.remedy.clone()))
            }
            Some(decision) if decision.result == Verdict::Injected.as_str() => {
                (Condition::Ready, "it has no pods; those that come will be injected".to_owned(), None)
            }
            Some(decision) => (Condition::Refused, decision.message.clone(), Some(decision.remedy.clone())),
        }
    }
}

/// What an injected pod says of itself.
fn of_record(record: &Record) -> String {
    let from = record.instrumentations.iter().map(|(name, generation)| format!("{name}, generation {generation}"));
    let into = record.injected().map(|(container, language)| format!("{language} in {container}"));
    let (from, into): (Vec<_>, Vec<_>) = (from.collect(), into.collect());
    format!("it was injected when it was created: {} from {}", into.join(", "), from.join(" and "))
}

/// Why what a pod asks for is not even looked at.
pub(super) fn excluded_why(namespace: &str) -> String {
    format!("the API server never asks about pods of {namespace}, so that it comes up without Spanreel")
}

/// A request for a language that nobody knows.
struct Unknown {
    sentence: String,
    meant: Option<&'static str>,
}

impl Unknown {
    fn read(key: &str) -> Self {
        let known = Language::ALL.map(Language::as_str);
        let word = key.strip_prefix(REQUESTS).unwrap_or_default();
        let begins = || known.into_iter().find(|name| !word.is_empty() && name.starts_with(word));
        let meant = crate::config::nearest(word, known).or_else(begins);
        let sentence = match meant {
            Some(near) => format!("annotation {key} names no language; did you mean inject-{near}?"),
            None => format!("annotation {key} names no language; there are: {}", known.join(", ")),
        };
        Self { sentence, meant }
    }
}

fn unasked(site: &Site<'_>, own: &BTreeMap<String, String>, wishes: &[Wish], unknown: &[Unknown]) -> Unasked {
    let Workload { kind, .. } = site.workload;
    if let Some(off) = wishes.iter().find(|wish| wish.is_off()) {
        let place = Asked::from(off).place;
        let why = format!("{} is \"{}\" on the {place}", short(&off.annotation), off.value);
        return Unasked { condition: Condition::NotAsked, why, remedy: site.ask() };
    }
    if let Some((key, value)) = own.iter().find(|(key, value)| key.starts_with(REQUESTS) && !value.is_empty()) {
        return Unasked {
            condition: Condition::Misplaced,
            why: format!("{} is an annotation of the {kind} itself, where it has no effect", short(key)),
            remedy: site.place(key, value),
        };
    }
    if let Some(unknown) = unknown.first() {
        let remedy = unknown.meant.map_or_else(|| site.ask(), |language| site.ask_for(language));
        return Unasked { condition: Condition::Misspelt, why: unknown.sentence.clone(), remedy };
    }
    let why = "neither its pods nor their namespace ask for instrumentation".to_owned();
    Unasked { condition: Condition::NotAsked, why, remedy: site.ask() }
}

/// Without the prefix that all have.
fn short(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or(key)
}

fn image(pod: &Pod, language: Language) -> Option<String> {
    inject::agent_image(pod, language).map(str::to_owned)
}

impl From<&Wish> for Asked {
    fn from(wish: &Wish) -> Self {
        Self {
            language: wish.language.as_str(),
            annotation: wish.annotation.clone(),
            value: wish.value.clone(),
            place: match wish.place {
                Place::Pod => "pod",
                Place::Namespace => "namespace",
            },
        }
    }
}
