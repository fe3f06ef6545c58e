//! What is asked, and what must come back.

use serde_json::Value;

use crate::shop::{Shop, USERS};

pub struct Question {
    pub title: String,
    pub path: String,
    kind: Kind,
    expected: Expected,
}

#[derive(Clone, Copy)]
enum Kind {
    Search,
    Range,
    Tags,
    Values,
}

enum Expected {
    Exactly(usize),
    Some,
}

const LIMIT: usize = 20;
const USER: u64 = 4242;

impl Question {
    /// Traces, series, names or values of an answer.
    pub fn count(&self, answer: &Value) -> usize {
        let list = |value: &Value| value.as_array().map_or(0, Vec::len);
        match self.kind {
            Kind::Search => list(&answer["traces"]),
            Kind::Range => list(&answer["series"]),
            Kind::Tags => {
                answer["scopes"].as_array().map_or(0, |scopes| scopes.iter().map(|scope| list(&scope["tags"])).sum())
            }
            Kind::Values => list(&answer["tagValues"]),
        }
    }

    pub fn check(&self, found: usize) {
        match self.expected {
            Expected::Exactly(expected) => assert_eq!(found, expected, "{}", self.title),
            Expected::Some => assert!(found > 0, "{}: nothing found", self.title),
        }
    }
}

pub fn all(shop: &Shop) -> Vec<Question> {
    let (start, end) = shop.window();
    let visits = |of: &dyn Fn(u64) -> bool| (0..shop.traces()).filter(|trace| of(*trace)).count().min(LIMIT);
    let needles = visits(&|trace| shop.visit(trace).user == USER % USERS);
    let failures = visits(&|trace| shop.visit(trace).fails);
    let search = |query: &str, limit: usize, expected: Expected| Question {
        title: query.to_owned(),
        path: format!("/api/search?q={}&start={start}&end={end}&limit={limit}", encoded(query)),
        kind: Kind::Search,
        expected,
    };
    let range = |query: &str, step: u64, expected: Expected| Question {
        title: query.to_owned(),
        path: format!("/api/metrics/query_range?q={}&start={start}&end={end}&step={step}s", encoded(query)),
        kind: Kind::Range,
        expected,
    };
    let get = |path: &str, kind: Kind, expected: Expected| Question {
        title: path.to_owned(),
        path: format!("{path}?start={start}&end={end}"),
        kind,
        expected,
    };
    let services = || Expected::Exactly(4);
    let names = 9;
    vec![
        search(&format!("{{ span.enduser.id = \"user-{USER}\" }}"), LIMIT, Expected::Exactly(needles)),
        search("{ span.enduser.id = \"nobody\" }", LIMIT, Expected::Exactly(0)),
        // Values that no column lists: they are looked at span by span.
        search("{ span.enduser.id =~ \".*-424[0-9]\" }", LIMIT, Expected::Some),
        search("{ resource.service.name = \"ratings\" && status = error }", LIMIT, Expected::Exactly(failures)),
        search("{ duration > 500ms }", LIMIT, Expected::Some),
        search("{ name = \"GET /reviews/{id}\" && duration > 50ms }", LIMIT, Expected::Exactly(LIMIT)),
        search("{ span.http.response.status_code >= 500 }", LIMIT, Expected::Exactly(failures)),
        search("{ .http.route =~ \"/rev.*\" }", LIMIT, Expected::Exactly(LIMIT)),
        search("{ span.url.full =~ \".*/ratings/4[0-9]+\" && status = error }", LIMIT, Expected::Some),
        search(
            "{ resource.service.name = \"productpage\" } >> { resource.service.name = \"ratings\" && status = error }",
            LIMIT,
            Expected::Exactly(failures),
        ),
        search(
            "{ resource.service.name = \"details\" } > { resource.service.name = \"ratings\" }",
            LIMIT,
            Expected::Exactly(0),
        ),
        search("{ nestedSetParent < 0 && duration > 300ms } | select(resource.k8s.pod.name)", LIMIT, Expected::Some),
        search("{ status = error } | count() > 4", LIMIT, Expected::Exactly(failures)),
        search("{ traceDuration > 500ms }", LIMIT, Expected::Some),
        search(
            "{ rootServiceName = \"productpage\" && span.db.system = \"redis\" && duration > 20ms }",
            LIMIT,
            Expected::Exactly(LIMIT),
        ),
        search(
            "({ nestedSetParent < 0 } &>> { kind = server }) || ({ nestedSetParent < 0 }) | select(status, resource.service.name, name, nestedSetParent, nestedSetLeft, nestedSetRight)",
            200,
            Expected::Exactly(200.min(shop.traces() as usize)),
        ),
        range("{} | rate() by (resource.service.name)", 60, services()),
        range("{} | quantile_over_time(duration, .5, .99) by (name)", 60, Expected::Exactly(2 * names)),
        range("{ status = error } | count_over_time() by (resource.service.name, name)", 60, Expected::Some),
        range("{} | histogram_over_time(duration)", 60, Expected::Some),
        range("{ nestedSetParent < 0 } | compare({ status = error })", 3600, Expected::Some),
        get("/api/v2/search/tags", Kind::Tags, Expected::Some),
        get("/api/v2/search/tag/resource.service.name/values", Kind::Values, services()),
    ]
}

fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}
