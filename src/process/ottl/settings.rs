//! Statements and conditions of a configuration: found wrong where they stand, and what happens when one does not work.

use super::{Condition, Context, Failure, Loaded, NoContext, Prefixes, Problem, Statement, infer};
use crate::config::{ListText, Section};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What happens when a statement or condition does not work on a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorMode {
    /// Said in the log, and passed over.
    Ignore,
    /// Passed over.
    Silent,
    /// The whole request is refused.
    Propagate,
}

const ERROR_MODES: [(&str, ErrorMode); 3] =
    [("ignore", ErrorMode::Ignore), ("silent", ErrorMode::Silent), ("propagate", ErrorMode::Propagate)];

impl ErrorMode {
    pub fn decode(section: &mut Section<'_>, default: Self) -> Self {
        section.word_any_case("error_mode", &ERROR_MODES, default)
    }
}

/// The condition in a text of a list; what is wrong with it is reported there.
pub fn condition(section: &Section<'_>, text: &ListText, context: Context, prefixes: Prefixes) -> Option<Condition> {
    loaded(section, text, Condition::parse(&text.text, context, prefixes))
}

/// The statement in a text of a list; what is wrong with it is reported there.
pub fn statement(section: &Section<'_>, text: &ListText, context: Context, prefixes: Prefixes) -> Option<Statement> {
    loaded(section, text, Statement::parse(&text.text, context, prefixes))
}

fn loaded<T>(section: &Section<'_>, text: &ListText, result: Result<Loaded<T>, Problem>) -> Option<T> {
    match result {
        Ok(Loaded { value, warnings }) => {
            for warning in warnings {
                section.warn_in(text, at(&warning), warning.remedy);
            }
            Some(value)
        }
        Err(problem) => {
            section.error_in(text, at(&problem), problem.remedy);
            None
        }
    }
}

/// With the place within the text, which the place of the text itself does not tell.
fn at(problem: &Problem) -> String {
    match problem.line {
        1 => format!("at column {}: {}", problem.column, problem.reason),
        line => format!("at line {line}, column {}: {}", problem.column, problem.reason),
    }
}

fn texts(list: &[ListText]) -> Vec<&str> {
    list.iter().map(|it| it.text.as_str()).collect()
}

/// The context that statements and conditions are about together; why there is none is reported.
pub fn inferred(section: &Section<'_>, statements: &[ListText], conditions: &[ListText]) -> Option<Context> {
    let first = statements.iter().chain(conditions).next()?;
    match infer(&texts(statements), &texts(conditions)) {
        Ok(context) => return Some(context),
        Err(NoContext::Statement(index, problem)) => {
            let text = statements.get(index).unwrap_or(first);
            section.error_in(text, at(&problem), problem.remedy);
        }
        Err(NoContext::Condition(index, problem)) => {
            let text = conditions.get(index).unwrap_or(first);
            section.error_in(text, at(&problem), problem.remedy);
        }
        Err(NoContext::NoPath) => {
            let remedy = "begin paths with resource., scope., span. or spanevent.";
            section.error_in(first, "no path says which context is meant", remedy);
        }
        Err(NoContext::NoneFits) => {
            let remedy = "IsRootSpan is only there in the span context; put it into a group of its own";
            section.error_in(first, "no context has all the functions that are used with these paths", remedy);
        }
    }
    None
}

/// Says in the log that something did not work, once a minute and not once a span.
#[derive(Debug)]
pub struct Complaints {
    started: Instant,
    /// Seconds since the start before which nothing is said.
    quiet_until: AtomicU64,
    unsaid: AtomicU64,
}

impl Default for Complaints {
    fn default() -> Self {
        Self { started: Instant::now(), quiet_until: AtomicU64::new(0), unsaid: AtomicU64::new(0) }
    }
}

impl Complaints {
    const INTERVAL: Duration = Duration::from_secs(60);

    pub fn say(&self, processor: &str, text: &str, failure: &Failure) {
        let now = self.started.elapsed().as_secs();
        let quiet_until = self.quiet_until.load(Ordering::Relaxed);
        let next = now + Self::INTERVAL.as_secs();
        let speaks = now >= quiet_until
            && self.quiet_until.compare_exchange(quiet_until, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if !speaks {
            self.unsaid.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let more = self.unsaid.swap(0, Ordering::Relaxed);
        tracing::warn!(
            ottl = text,
            %failure,
            failures_before = more,
            "{processor}: does not work on a message and is passed over; error_mode: silent says nothing"
        );
    }
}

/// Whether one of the conditions holds; none of them is no. What cannot be said is passed over, or fails.
pub fn any_holds(
    conditions: &[Condition],
    view: super::View<'_, '_>,
    failing: &Failing<'_>,
) -> Result<bool, crate::process::Failed> {
    for condition in conditions {
        match condition.holds(view) {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(failure) => failing.happened(condition.text(), &failure)?,
        }
    }
    Ok(false)
}

/// What to do when something does not work.
#[derive(Clone, Copy)]
pub struct Failing<'f> {
    pub processor: &'static str,
    pub mode: ErrorMode,
    pub complaints: &'f Complaints,
}

impl Failing<'_> {
    pub fn happened(&self, text: &str, failure: &Failure) -> Result<(), crate::process::Failed> {
        match self.mode {
            ErrorMode::Silent => Ok(()),
            ErrorMode::Ignore => {
                self.complaints.say(self.processor, text, failure);
                Ok(())
            }
            ErrorMode::Propagate => Err(crate::process::Failed(format!("{}: {failure}, in {text}", self.processor))),
        }
    }
}
