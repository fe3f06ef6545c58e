//! The Prometheus text format, as far as the tests read it.

use super::http::{self, Broken};
use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// One scrape.
#[derive(Debug, Clone, Default)]
pub struct Metrics(pub Vec<Series>);

impl Metrics {
    pub async fn scrape(port: u16) -> Result<Self, Broken> {
        let response = http::get(port, "/metrics", &[]).await?;
        if response.status != 200 {
            return Err(Broken(format!("/metrics answered {}: {}", response.status, response.text())));
        }
        Ok(Self::parse(&response.text()))
    }

    /// Panics on a line that is none: the product's own page must be well-formed.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(lines.map(|line| series(line).unwrap_or_else(|| panic!("not a line of metrics: {line}"))).collect())
    }

    /// All series of this name with at least these labels.
    pub fn matching<'a>(&'a self, name: &'a str, labels: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = &'a Series> {
        self.0.iter().filter(move |series| {
            series.name == name
                && labels.iter().all(|(label, value)| series.labels.get(*label).is_some_and(|found| found == value))
        })
    }

    /// The sum over all series of this name with at least these labels; `None` if there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.matching(name, labels).map(|series| series.value).reduce(|left, right| left + right)
    }
}

/// `name{label="value",...} value [timestamp]`
fn series(line: &str) -> Option<Series> {
    let (name, mut rest) = match line.find(['{', ' '])? {
        at if line[at..].starts_with('{') => (&line[..at], &line[at + 1..]),
        at => {
            let value = line[at..].split_whitespace().next()?.parse().ok()?;
            return Some(Series { name: line[..at].to_owned(), labels: BTreeMap::new(), value });
        }
    };
    let mut labels = BTreeMap::new();
    while !rest.starts_with('}') {
        let (label, after) = rest.trim_start_matches(',').split_once("=\"")?;
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at + 1,
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, char) => value.push(char),
            }
        };
        labels.insert(label.to_owned(), value);
        rest = &after[end..];
    }
    let value = rest[1..].split_whitespace().next()?.parse().ok()?;
    Some(Series { name: name.to_owned(), labels, value })
}
