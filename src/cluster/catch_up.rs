//! Catch-up: pods that should be instrumented as the Instrumentations say now, and are not.
//!
//! In: now and then a list of all pods, and of each workload's template what would become of it now. Out: Events on the
//! workloads, metrics, a [`CatchUp`] that others read, `status.workloads` of Instrumentations, and, if asked for, restarts.
//!
//! ```text
//! start, change, interval ─▶ census ─▶ compare ◀─ template, Pods::decide
//!                                         ├─▶ report, Events, status of Instrumentations
//!                                         ├─▶ restarts, one at a time
//!                                         └─▶ guard: crash loops since injection
//! ```
//!
//! Invariants: memory is bounded whatever the cluster holds; nothing is changed in the default mode; a workload is never
//! restarted twice for the same when that did not help; what cannot be restarted is reported, with why.

mod act;
mod census;
mod compare;
mod guard;
mod report;
mod restart;
mod revisions;
mod worker;

use std::collections::BTreeMap;

pub use compare::OutOfDate;
pub use report::{CatchUp, CrashLoop, Evidence, Finding, Report};
pub(super) use worker::{Worker, run};

use crate::appliance::spanreel::catch_up::CatchUpMode;

/// A namespace's own mode: `off`, `report` or `restart`.
pub(super) const ANNOTATION: &str = "spanreel.dev/catch-up";

/// A namespace's mode. `Err`: the annotation's value is no mode, which counts as `report`.
fn mode_of(annotations: &BTreeMap<String, String>, cluster: CatchUpMode) -> Result<CatchUpMode, String> {
    match annotations.get(ANNOTATION).map(String::as_str) {
        None => Ok(cluster),
        Some("off") => Ok(CatchUpMode::Off),
        Some("report") => Ok(CatchUpMode::Report),
        Some("restart") => Ok(CatchUpMode::Restart),
        Some(other) => Err(other.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_the_last_word() {
        let of = |value: &str, cluster| mode_of(&BTreeMap::from([(ANNOTATION.to_owned(), value.to_owned())]), cluster);
        assert_eq!(of("off", CatchUpMode::Restart), Ok(CatchUpMode::Off));
        assert_eq!(of("restart", CatchUpMode::Off), Ok(CatchUpMode::Restart));
        assert_eq!(of("report", CatchUpMode::Off), Ok(CatchUpMode::Report));
        assert_eq!(of("Restart", CatchUpMode::Off), Err("Restart".to_owned()));
        assert_eq!(mode_of(&BTreeMap::new(), CatchUpMode::Restart), Ok(CatchUpMode::Restart));
    }
}
