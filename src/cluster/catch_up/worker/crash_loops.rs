//! Workloads that crash-loop: whether they ran without injection, and what is done about it.

use jiff::{SignedDuration, Timestamp, Unit};
use tokio::time::Instant;

use super::super::act::{self, INJECTION_OFF};
use super::super::guard::Suspect;
use super::super::report::{CrashLoop, Evidence, RestartResult, SHOWN_MAX};
use super::super::{census, revisions};
use super::{Round, Worker, workload_name};
use crate::appliance::spanreel::catch_up::CrashLoopMode;
use crate::cluster::events::NoteKind;
use crate::cluster::template::Template;
use crate::cluster::workloads::Workload;

/// That it ran without injection, and how that is known.
enum Ran {
    Pod,
    Revision(SignedDuration),
}

impl Worker {
    /// Injected pods of the workload crash-loop; whether they would without, others tell.
    pub(super) async fn crash_loop(
        &mut self,
        workload: &Workload,
        template: Option<&Template>,
        suspect: Suspect,
        round: &mut Round,
        now: Timestamp,
    ) {
        let Some(ran) = self.ran_without(workload, template, &suspect, now).await else { return };
        let Suspect { languages, example, .. } = suspect;
        let generation = template.and_then(|template| template.metadata.generation).unwrap_or_default();
        let all = languages.join(", ");
        let mut sentence = match ran {
            Ran::Pod => format!(
                "Pod {example} crash-loops since it is injected ({all}), and pods of the same {} ran without",
                workload.kind
            ),
            Ran::Revision(lived) => format!(
                "Pod {example} crash-loops and is injected ({all}); an earlier revision of the {} ran the same, asked for no \
                 injection and was there for {}",
                workload.kind,
                people(lived)
            ),
        };
        let evidence = if matches!(ran, Ran::Pod) { Evidence::Pod } else { Evidence::Revision };
        // Nobody saw the pods of a revision run, so it is not acted upon.
        let wanted = self.settings.crash_loops == CrashLoopMode::Restart && evidence == Evidence::Pod;
        let (mut done, mut news) = (false, self.guard.is_news(workload, generation));
        if let (true, Some(template)) = (wanted, template) {
            done = self.switch_off(workload, template, &languages, &sentence).await;
            news |= done;
        }
        if news {
            sentence.push_str(if done {
                "; it is restarted without injection (see spanreel.dev/injection-off on its template)"
            } else {
                "; set instrumentation.opentelemetry.io/inject-<language>: \"false\" on its template to run it without"
            });
            tracing::warn!(workload = %workload_name(workload), pod = example, languages = all, "crash loop since injection");
            self.publish(workload, template, NoteKind::Warning, "CrashLoopSinceInjection", sentence);
        }
        if round.report.crash_loops.len() < SHOWN_MAX {
            round.report.crash_loops.push(CrashLoop { workload: workload.clone(), languages, example, evidence });
        }
    }

    async fn ran_without(
        &mut self,
        workload: &Workload,
        template: Option<&Template>,
        suspect: &Suspect,
        now: Timestamp,
    ) -> Option<Ran> {
        if self.guard.remembers(workload, suspect.program) {
            return Some(Ran::Pod);
        }
        match census::runs_without_injection(&self.client, workload, suspect.program, now).await {
            Ok(true) => return Some(Ran::Pod),
            Ok(false) => {}
            Err(error) => {
                self.reading.failed(&error);
                return None;
            }
        }
        let annotations = self.pods.index.namespace(&workload.namespace).unwrap_or_default();
        let before = revisions::without_injection(&self.client, workload, template?, suspect.program, &annotations);
        match before.await {
            Ok(lived) => lived.map(Ran::Revision),
            Err(error) => {
                self.reading.failed(&error);
                None
            }
        }
    }

    /// Restarts without injection, once: who takes the annotation off wants to try again.
    async fn switch_off(
        &mut self,
        workload: &Workload,
        template: &Template,
        languages: &[&'static str],
        why: &str,
    ) -> bool {
        let marked = template.pod.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(INJECTION_OFF));
        let reachable = template.rollout.is_some_and(|rollout| !rollout.held);
        if marked || !reachable || !self.guard.may_switch_off(workload, Instant::now()) {
            return false;
        }
        match act::restart_without(&self.client, workload, template, languages, why).await {
            Ok(_) => {
                self.restarting.ok();
                self.catch_up.count_restart(RestartResult::InjectionOff);
                true
            }
            Err(error) => {
                self.refused(&error);
                false
            }
        }
    }
}

/// To the second below an hour, to the minute above.
fn people(lived: SignedDuration) -> String {
    let unit = if lived < SignedDuration::from_hours(1) { Unit::Second } else { Unit::Minute };
    format!("{:#}", lived.round(unit).unwrap_or(lived))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_exact_as_people_read_them() {
        assert_eq!(people(SignedDuration::from_millis(61_400)), "1m 1s");
        assert_eq!(people(SignedDuration::from_secs(7261)), "2h 1m");
    }
}
