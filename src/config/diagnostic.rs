//! What is said about a configuration: where, about which key, why, and what to do.

use super::component::Role;
use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

/// More lines than this help nobody; further errors are counted.
const DIAGNOSTICS_MAX: usize = 256;

/// A place in one of the sources a configuration was put together from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The file as the user named it, or `env:NAME`, `--set a.b.c`, ...
    pub source: Arc<str>,
    /// Counted from 1.
    pub line: u32,
    /// Characters, counted from 1.
    pub column: u32,
}

impl Position {
    /// A place in `source`; `line` and `column` are counted from 1.
    pub fn new(source: &Arc<str>, line: u32, column: u32) -> Self {
        Self { source: Arc::clone(source), line, column }
    }
}

impl Position {
    /// How to point here from `other`: the line alone within one source.
    pub fn seen_from(&self, other: &Self) -> String {
        match self.source == other.source {
            true => format!("on line {}", self.line),
            false => format!("at {self}"),
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.source, self.line, self.column)
    }
}

/// How much a [`Diagnostic`] matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Accepted, but means nothing here: said once, so that it is not silence.
    Info,
    /// Accepted, but probably not what was meant.
    Warning,
    /// Refused: the configuration does not load.
    Error,
}

/// One finding. Displays as `file:line:column: path::to::key: reason (remedy)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// None only where no source is to blame, e.g. an unreadable file.
    pub position: Option<Position>,
    /// `exporters::otlp/tempo::endpoint`; empty for a file as a whole.
    pub path: String,
    pub reason: String,
    /// What a person can do about it.
    pub remedy: Option<String>,
}

impl Diagnostic {
    /// A refusal of `path`, because of `reason`.
    pub fn error(position: Option<Position>, path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { severity: Severity::Error, position, path: path.into(), reason: reason.into(), remedy: None }
    }

    /// The same with another severity.
    pub fn with_severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    /// The same with a remedy; an empty one means none.
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into()).filter(|remedy| !remedy.is_empty());
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(position) = &self.position {
            write!(f, "{position}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.reason)?;
        match &self.remedy {
            Some(remedy) => write!(f, " ({remedy})"),
            None => Ok(()),
        }
    }
}

/// Why a configuration was refused: every error, then the warnings that may explain them. One line each when displayed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Diagnostics {
    /// In the order of the sources' lines.
    pub errors: Vec<Diagnostic>,
    /// An unset environment variable is often the reason of an error elsewhere.
    pub warnings: Vec<Diagnostic>,
    /// Errors beyond the number worth listing.
    pub omitted: usize,
}

impl Diagnostics {
    /// One line per finding, as they would be printed.
    pub fn lines(&self) -> Vec<String> {
        let errors = self.errors.iter().map(Diagnostic::to_string);
        let warnings = self.warnings.iter().map(|warning| format!("warning: {warning}"));
        let omitted = (self.omitted > 0).then(|| format!("... and {} more errors", self.omitted));
        errors.chain(warnings).chain(omitted).collect()
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(error: Diagnostic) -> Self {
        Self { errors: vec![error], ..Self::default() }
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().join("\n"))
    }
}

impl std::error::Error for Diagnostics {}

/// Collects findings while a configuration is read, so that all are listed and not just the first.
///
/// Shared by every [`Section`](super::section::Section) of one load, hence the cells; never shared between threads.
#[derive(Debug, Default)]
pub struct Report {
    found: RefCell<Vec<Diagnostic>>,
    errors_omitted: RefCell<usize>,
    references: RefCell<Vec<Reference>>,
}

/// A component's mention of another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    pub role: Role,
    pub id: String,
    pub position: Position,
    pub path: String,
}

impl Report {
    /// Adds a finding. Errors and notes are bounded apart, so that notes never crowd out an error.
    pub fn add(&self, diagnostic: Diagnostic) {
        let mut found = self.found.borrow_mut();
        let is_error = |found: &Diagnostic| found.severity == Severity::Error;
        let alike = found.iter().filter(|found| is_error(found) == is_error(&diagnostic)).count();
        if alike < DIAGNOSTICS_MAX {
            found.push(diagnostic);
        } else if is_error(&diagnostic) {
            *self.errors_omitted.borrow_mut() += 1;
        }
    }

    /// Adds all of `diagnostics`.
    pub fn extend(&self, diagnostics: impl IntoIterator<Item = Diagnostic>) {
        diagnostics.into_iter().for_each(|diagnostic| self.add(diagnostic));
    }

    /// Adds an error.
    pub fn error(&self, position: &Position, path: &str, reason: impl Into<String>, remedy: impl Into<String>) {
        self.add(Diagnostic::error(Some(position.clone()), path, reason).with_remedy(remedy));
    }

    /// Adds a warning.
    pub fn warn(&self, position: &Position, path: &str, reason: impl Into<String>, remedy: impl Into<String>) {
        let warning = Diagnostic::error(Some(position.clone()), path, reason).with_severity(Severity::Warning);
        self.add(warning.with_remedy(remedy));
    }

    /// Keeps a reference until all components are known. Bounded by the number of values in a configuration.
    pub(super) fn refer(&self, reference: Reference) {
        self.references.borrow_mut().push(reference);
    }

    /// The references so far.
    pub(super) fn take_references(&self) -> Vec<Reference> {
        self.references.take()
    }

    /// How many errors were found so far.
    pub(super) fn errors(&self) -> usize {
        self.found.borrow().iter().filter(|found| found.severity == Severity::Error).count()
    }

    /// Whether something at this place was refused already.
    pub(super) fn has_error_at(&self, position: &Position) -> bool {
        let at = |found: &Diagnostic| found.severity == Severity::Error && found.position.as_ref() == Some(position);
        self.found.borrow().iter().any(at)
    }

    /// Whether an error was found so far.
    pub fn has_errors(&self) -> bool {
        self.errors() > 0
    }

    /// `Ok` with notes and warnings if nothing is wrong; everything in the order of the sources' lines.
    pub fn into_result(self) -> Result<Vec<Diagnostic>, Diagnostics> {
        if self.has_errors() { Err(self.into_diagnostics()) } else { Ok(self.into_sorted()) }
    }

    /// The errors, of which there are some, and the warnings, in the order of the sources' lines.
    pub fn into_diagnostics(self) -> Diagnostics {
        let omitted = *self.errors_omitted.borrow();
        let found = self.into_sorted();
        let (errors, rest): (Vec<_>, Vec<_>) = found.into_iter().partition(|found| found.severity == Severity::Error);
        let warnings = rest.into_iter().filter(|found| found.severity == Severity::Warning).collect();
        Diagnostics { errors, warnings, omitted }
    }

    fn into_sorted(self) -> Vec<Diagnostic> {
        let mut found = self.found.into_inner();
        // Stable: findings about one place stay in the order in which they were made.
        found.sort_by(|a, b| a.position.cmp(&b.position));
        found
    }
}

/// `name` if it is near enough to be a slip of the fingers: the closest of `candidates`.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let slips_max = 1 + word.chars().count() / 4;
    candidates
        .into_iter()
        .map(|candidate| (distance(&fold(word), &fold(candidate)), candidate))
        .filter(|(slips, _)| *slips <= slips_max)
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, candidate)| candidate)
}

/// `(did you mean "x"?)` without the parentheses, or the list of what is known.
pub fn suggestion<'a>(word: &str, what: &str, candidates: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match nearest(word, candidates.clone()) {
        Some(candidate) => format!("did you mean {candidate:?}?"),
        None => {
            let mut known: Vec<&str> = candidates.into_iter().filter(|candidate| !candidate.is_empty()).collect();
            known.sort_unstable();
            known.dedup();
            match known.is_empty() {
                true => String::new(),
                false => format!("{what}: {}", known.join(", ")),
            }
        }
    }
}

/// `sendingQueue`, `sending-queue` and `sending_queue` are one name to a person.
fn fold(word: &str) -> Vec<char> {
    /// Longer words are no slips of the fingers; bounds the work of [`distance`].
    const CHARS_MAX: usize = 64;
    word.chars().filter(|c| !matches!(c, '_' | '-')).map(|c| c.to_ascii_lowercase()).take(CHARS_MAX).collect()
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let replaced = get(&last, j) + usize::from(from != to);
            let best = replaced.min(get(&last, j + 1) + 1).min(get(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(to) && b.get(j - 1) == Some(from);
            row.push(if swapped { best.min(get(&before_last, j - 1) + 1) } else { best });
        }
        before_last = std::mem::replace(&mut last, row);
    }
    get(&last, b.len())
}

fn get(row: &[usize], index: usize) -> usize {
    row.get(index).copied().unwrap_or(usize::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        let keys = ["endpoint", "sending_queue", "retry_on_failure", "tls", "timeout"];
        assert_eq!(nearest("endpont", keys), Some("endpoint"));
        assert_eq!(nearest("edpoint", keys), Some("endpoint"));
        assert_eq!(nearest("sendingQueue", keys), Some("sending_queue"));
        assert_eq!(nearest("tsl", keys), Some("tls"));
        assert_eq!(nearest("banana", keys), None);
        assert_eq!(suggestion("banana", "known keys", ["b", "a"]), "known keys: a, b");
    }

    #[test]
    fn a_diagnostic_reads_as_place_key_reason_remedy() {
        let position = Position::new(&Arc::from("c.yaml"), 3, 7);
        let diagnostic = Diagnostic::error(Some(position), "exporters::otlp", "bad").with_remedy("fix it");
        assert_eq!(diagnostic.to_string(), "c.yaml:3:7: exporters::otlp: bad (fix it)");
    }

    #[test]
    fn findings_are_bounded_and_sorted() {
        let report = Report::default();
        let source = Arc::from("c.yaml");
        for line in (0..1000).rev() {
            report.error(&Position::new(&source, line, 1), "a", "bad", "");
        }
        let diagnostics = report.into_result().unwrap_err();
        assert_eq!(diagnostics.errors.len(), DIAGNOSTICS_MAX);
        assert_eq!(diagnostics.omitted, 1000 - DIAGNOSTICS_MAX);
        assert!(diagnostics.errors.is_sorted_by_key(|error| error.position.clone()));
        assert_eq!(diagnostics.lines().last().unwrap(), "... and 744 more errors");
    }

    #[test]
    fn many_notes_are_no_error_and_hide_none() {
        let report = Report::default();
        let position = Position::new(&Arc::from("c.yaml"), 1, 1);
        for _ in 0..1000 {
            let note = Diagnostic::error(Some(position.clone()), "a", "fine").with_severity(Severity::Info);
            report.add(note);
        }
        assert!(!report.has_errors());
        report.error(&position, "a", "bad", "");
        assert_eq!(report.into_result().unwrap_err().errors.len(), 1);
    }
}
