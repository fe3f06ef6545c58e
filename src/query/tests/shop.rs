//! A small shop: three traces of the last minutes, with known numbers of everything.
//!
//! ```text
//! 1  frontend GET /cart (server) ─┬▶ cart Get (server) ─▶ cart SELECT (client, db mysql)
//!                                 └▶ frontend render (internal)
//! 2  frontend POST /pay (server, error) ─▶ payment Charge (server, error, exception event)
//! 3  ... ─▶ worker consume (consumer), its root has not come
//! ```

use std::collections::BTreeMap;

use super::*;
use crate::traceql::tests::memory::Memory;
use crate::traceql::tests::spans::{event, span, trace};
use crate::traceql::value::{Kind, Status};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;

pub const ID_OF_CART: &str = "00000000000000000000000000000001";
pub const ID_OF_PAYMENT: &str = "00000000000000000000000000000002";
pub const ID_OF_WORK: &str = "00000000000000000000000000000003";

/// When the newest trace began: half a second ago, which Tempo would not show yet.
pub fn newest() -> u64 {
    call::now() as u64 - SECOND / 2
}

pub fn shop() -> Api {
    Api::over(spans_of_shop())
}

pub fn spans_of_shop() -> Memory {
    let now = newest();
    let (cart, pay, work) = (now - 120 * SECOND, now - 60 * SECOND, now);
    let cart = trace(
        1,
        [
            span(11)
                .named("GET /cart")
                .kind(Kind::Server)
                .service("frontend")
                .lasting(cart, 250 * MS)
                .attribute("http.route", "/cart")
                .attribute("http.status_code", 200)
                .resource("k8s.namespace.name", "prod"),
            span(12).child_of(11).named("Get").kind(Kind::Server).service("cart").lasting(cart + 10 * MS, 100 * MS),
            span(13)
                .child_of(12)
                .named("SELECT")
                .kind(Kind::Client)
                .service("cart")
                .lasting(cart + 20 * MS, 50 * MS)
                .attribute("db.system", "mysql")
                .attribute("db.system.name", "mysql"),
            span(14)
                .child_of(11)
                .named("render")
                .kind(Kind::Internal)
                .service("frontend")
                .lasting(cart + 200 * MS, 40 * MS),
        ],
    );
    let failure = event("exception")
        .attribute("exception.message", "card declined")
        .attribute("exception.type", "Declined")
        .attribute("exception.stacktrace", "at Charge");
    let pay = trace(
        2,
        [
            span(21)
                .named("POST /pay")
                .kind(Kind::Server)
                .status(Status::Error)
                .service("frontend")
                .lasting(pay, 1500 * MS)
                .attribute("http.route", "/pay")
                .attribute("http.status_code", 500)
                .attribute("a/b c", "slash"),
            span(22)
                .child_of(21)
                .named("Charge")
                .kind(Kind::Server)
                .status(Status::Error)
                .message("declined")
                .service("payment")
                .lasting(pay + 100 * MS, 1200 * MS)
                .event(failure),
        ],
    );
    let work = trace(
        3,
        [span(31)
            .child_of(30)
            .named("consume")
            .kind(Kind::Consumer)
            .service("worker")
            .lasting(work, 5 * MS)
            .attribute("http.response.status_code", 503)
            .attribute("server.port", 8080)],
    );
    Memory::parts(vec![vec![cart], vec![pay, work]])
}

/// The ids of a search's answer in its order.
pub fn ids(answer: &Json) -> Vec<&str> {
    answer["traces"].as_array().unwrap().iter().map(|trace| trace["traceID"].as_str().unwrap()).collect()
}

/// The attributes of a span as it is shown.
pub fn attributes(span: &Json) -> BTreeMap<String, Json> {
    let list = span["attributes"].as_array().cloned().unwrap_or_default();
    let pair = |attribute: &Json| {
        let value = attribute["value"].as_object().unwrap().values().next().unwrap().clone();
        (attribute["key"].as_str().unwrap().to_owned(), value)
    };
    list.iter().map(pair).collect()
}

/// The labels of a series.
pub fn labels(series: &Json) -> BTreeMap<String, Json> {
    attributes(&serde_json::json!({"attributes": series["labels"]}))
}

/// The sum of a series' samples.
pub fn total(series: &Json) -> f64 {
    let samples = series["samples"].as_array().unwrap();
    samples.iter().map(|sample| sample["value"].as_f64().unwrap_or_default()).sum()
}

/// The values of a tag endpoint's second version.
pub fn values(answer: &Json) -> Vec<(&str, &str)> {
    let list = answer["tagValues"].as_array().unwrap();
    let mut values: Vec<(&str, &str)> =
        list.iter().map(|value| (value["type"].as_str().unwrap(), value["value"].as_str().unwrap())).collect();
    values.sort_unstable();
    values
}
