//! What Grafana's Tempo data source sends, each by the name of what the user does.

use super::shop::{ID_OF_CART, ID_OF_PAYMENT, ID_OF_WORK, attributes, ids, labels, shop, total, values};
use super::*;
use crate::traceql::tests::memory::Memory;
use crate::traceql::tests::spans::{span, trace};
use std::collections::HashMap;

/// Every member that a client of May 2025 knows; it refuses answers with others.
fn assert_strict(answer: &Json) {
    let known = |object: &Json, names: &[&str]| {
        for name in object.as_object().unwrap().keys() {
            assert!(names.contains(&name.as_str()), "{name} in {object}");
        }
    };
    known(answer, &["traces", "metrics"]);
    known(
        &answer["metrics"],
        &[
            "inspectedTraces",
            "inspectedBytes",
            "totalBlocks",
            "completedJobs",
            "totalJobs",
            "totalBlockBytes",
            "inspectedSpans",
        ],
    );
    for trace in answer["traces"].as_array().unwrap() {
        known(
            trace,
            &[
                "traceID",
                "rootServiceName",
                "rootTraceName",
                "startTimeUnixNano",
                "durationMs",
                "spanSet",
                "spanSets",
                "serviceStats",
            ],
        );
        for spanset in trace["spanSets"].as_array().into_iter().flatten() {
            known(spanset, &["spans", "matched", "attributes"]);
            for span in spanset["spans"].as_array().unwrap() {
                known(span, &["spanID", "name", "startTimeUnixNano", "durationNanos", "attributes"]);
            }
        }
    }
}

#[tokio::test]
async fn save_and_test() {
    let answer = shop().get("/api/echo", &[]).await;
    assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "echo\n"));
}

#[tokio::test]
async fn explore_without_a_filter_shows_the_newest_traces_first_up_to_now() {
    let answer = shop().search("{}", &[("limit", "20"), ("spss", "3")]).await;
    assert_strict(&answer);
    assert_eq!(ids(&answer), [ID_OF_WORK, ID_OF_PAYMENT, ID_OF_CART]);
    let [work, pay, cart] = &answer["traces"].as_array().unwrap()[..] else { panic!("three traces: {answer}") };
    assert_eq!(work["rootServiceName"], "<root span not yet received>");
    assert_eq!(work.get("rootTraceName"), None);
    assert_eq!((&pay["rootServiceName"], &pay["rootTraceName"]), (&"frontend".into(), &"POST /pay".into()));
    assert_eq!(pay["durationMs"], 1500);
    assert_eq!(pay["serviceStats"]["payment"], serde_json::json!({"spanCount": 1, "errorCount": 1}));
    assert_eq!(cart["spanSets"][0]["matched"], 4);
    assert_eq!(cart["spanSets"][0]["spans"].as_array().unwrap().len(), 3);
    assert_eq!(cart["spanSet"], cart["spanSets"][0]);
}

#[tokio::test]
async fn search_builder_with_service_name_and_duration() {
    let api = shop();
    let query = r#"{resource.service.name="frontend" && name="POST /pay" && duration>1s}"#;
    let answer = api.search(query, &[]).await;
    assert_strict(&answer);
    assert_eq!(ids(&answer), [ID_OF_PAYMENT]);
    let span = &answer["traces"][0]["spanSets"][0]["spans"][0];
    assert_eq!((&span["name"], &span["spanID"]), (&"POST /pay".into(), &"0000000000000015".into()));
    assert_eq!(span["durationNanos"], "1500000000");
    assert_eq!(attributes(span)["service.name"], "frontend");
}

#[tokio::test]
async fn search_builder_with_several_values() {
    let api = shop();
    for query in [
        r#"{resource.service.name=~"cart|payment"}"#,
        r#"{(resource.service.name="cart" || resource.service.name="payment")}"#,
    ] {
        assert_eq!(ids(&api.search(query, &[]).await), [ID_OF_PAYMENT, ID_OF_CART], "{query}");
    }
}

#[tokio::test]
async fn search_builder_with_status_and_trace_duration() {
    let api = shop();
    assert_eq!(ids(&api.search("{status=error}", &[]).await), [ID_OF_PAYMENT]);
    assert_eq!(ids(&api.search("{traceDuration>1s}", &[]).await), [ID_OF_PAYMENT]);
    assert_eq!(ids(&api.search("{kind=consumer}", &[]).await), [ID_OF_WORK]);
}

#[tokio::test]
async fn service_graph_link_to_a_database() {
    let query = r#"{span.db.name="mysql" || span.db.system="mysql" || span.peer.service="mysql" || span.messaging.system="mysql" || span.net.peer.name="mysql"}"#;
    assert_eq!(ids(&shop().search(query, &[]).await), [ID_OF_CART]);
}

#[tokio::test]
async fn limit_keeps_the_newest() {
    assert_eq!(ids(&shop().search("{}", &[("limit", "2")]).await), [ID_OF_WORK, ID_OF_PAYMENT]);
}

#[tokio::test]
async fn search_as_protobuf() {
    let (start, end) = last_hour();
    let uri = uri("/api/search", &[("q", "{}"), ("start", &start), ("end", &end)]);
    let answer = shop().request(Method::GET, &uri, &[("accept", "application/protobuf")]).await;
    assert_eq!(
        (answer.status, &answer.headers["content-type"]),
        (StatusCode::OK, &"application/protobuf".parse().unwrap())
    );
    let fields = crate::otlp::wire::Fields::new(&answer.body).map(|field| field.unwrap().number);
    assert_eq!(fields.collect::<Vec<_>>(), [1, 1, 1, 2]);
}

#[tokio::test]
async fn search_by_tags_as_before_traceql() {
    let api = shop();
    let search = |tags: &'static str| {
        let api = &api;
        async move { api.json("/api/search", &[("tags", tags), ("since", "1h")]).await }
    };
    let by_part = search("service.name=front name=\"GET /\"").await;
    assert_eq!(ids(&by_part), [ID_OF_CART]);
    assert_eq!(by_part["traces"][0].get("spanSets"), None);
    assert_eq!(ids(&search("service.name=cart status.code=error").await), [""; 0]);
    assert_eq!(ids(&search("http.status_code=500").await), [ID_OF_PAYMENT]);
    // Columns of Tempo's own: texts in parts, numbers by value.
    assert_eq!(ids(&search("http.route=ca").await), [ID_OF_CART]);
    assert_eq!(ids(&search("k8s.namespace.name=ro").await), [ID_OF_CART]);
    assert_eq!(ids(&search("http.response.status_code=503 server.port=8080").await), [ID_OF_WORK]);
    assert_eq!(ids(&search("http.response.status_code=50").await), [""; 0]);
    assert_eq!(ids(&search("db.system=mysql").await), [ID_OF_CART]);
    assert_eq!(ids(&search("db.system=my").await), [""; 0]);
    let long = api.json("/api/search", &[("minDuration", "1s"), ("maxDuration", "2s"), ("since", "1h")]).await;
    assert_eq!(ids(&long), [ID_OF_PAYMENT]);
    let old_style = api.json("/api/search", &[("root.name", "pay"), ("limit", "5")]).await;
    assert_eq!(ids(&old_style), [ID_OF_PAYMENT]);
}

#[tokio::test]
async fn search_by_tags_finds_traces_of_which_a_moment_lies_in_the_window() {
    const SECOND: u64 = 1_000_000_000;
    let begin = (call::now() as u64 / SECOND - 600) * SECOND;
    let long = [
        span(1).named("long").lasting(begin, 100 * SECOND).attribute("x", "y"),
        span(2).child_of(1).named("late").lasting(begin + 90 * SECOND, SECOND),
    ];
    let short = span(3).named("short").lasting(begin, SECOND).attribute("x", "y");
    for parts in [
        vec![vec![trace(1, long.clone()), trace(2, [short.clone()])]],
        // In pieces, too.
        vec![vec![trace(1, [long[0].clone()]), trace(2, [short])], vec![trace(1, [long[1].clone()])]],
    ] {
        let api = Api::over(Memory::parts(parts));
        for (from, to, found) in
            [(50, 60, vec![ID_OF_CART]), (0, 10, vec![ID_OF_CART, ID_OF_PAYMENT]), (200, 210, vec![])]
        {
            let at = |offset: u64| (begin / SECOND + offset).to_string();
            let (start, end) = (at(from), at(to));
            let answer = api.json("/api/search", &[("tags", "x=y"), ("start", &start), ("end", &end)]).await;
            let mut ids = ids(&answer);
            ids.sort_unstable();
            assert_eq!(ids, found, "{from}..{to}");
            // TraceQL asks when spans began.
            let answer = api.json("/api/search", &[("q", "{ .x = `y` }"), ("start", &start), ("end", &end)]).await;
            assert_eq!(answer["traces"].as_array().unwrap().is_empty(), from > 0, "{answer}");
        }
    }
}

#[tokio::test]
async fn a_root_without_the_name_of_a_service_is_there_nevertheless() {
    let begin = shop::newest();
    let api = Api::over(Memory::whole(&[trace(1, [span(1).named("cron").lasting(begin, 1)])]));
    let answer = api.search("{}", &[]).await;
    assert_strict(&answer);
    assert_eq!(answer["traces"][0]["rootTraceName"], "cron");
    assert_eq!(answer["traces"][0].get("rootServiceName"), None);
}

#[tokio::test]
async fn tags_keep_to_their_limit_and_values_to_fields_that_there_are() {
    let api = shop();
    let answer = api.json("/api/v2/search/tags", &[("scope", "resource"), ("limit", "1")]).await;
    assert_eq!(answer["scopes"][0]["tags"], serde_json::json!(["service.name"]));
    let refused = api.get("/api/v2/search/tag/parent.service.name/values", &[]).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert_eq!(refused.text(), "please provide a valid tagName: parent.service.name not yet supported");
}

#[tokio::test]
async fn autocompletion_of_tags() {
    let api = shop();
    let (start, end) = last_hour();
    let answer = api.json("/api/v2/search/tags", &[("limit", "5000"), ("start", &start), ("end", &end)]).await;
    let scopes: HashMap<&str, Vec<&str>> = answer["scopes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|scope| {
            let tags = scope["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap());
            (scope["name"].as_str().unwrap(), tags.collect())
        })
        .collect();
    assert_eq!(
        scopes["span"],
        [
            "a/b c",
            "db.system",
            "db.system.name",
            "http.response.status_code",
            "http.route",
            "http.status_code",
            "server.port"
        ]
    );
    assert_eq!(scopes["resource"], ["k8s.namespace.name", "service.name"]);
    assert_eq!(scopes["event"], ["exception.message", "exception.stacktrace", "exception.type"]);
    assert_eq!(scopes["intrinsic"].len(), 25);
    assert_eq!(scopes.len(), 4);

    let one = api.json("/api/v2/search/tags", &[("scope", "resource")]).await;
    assert_eq!(
        one["scopes"],
        serde_json::json!([{"name": "resource", "tags": ["k8s.namespace.name", "service.name"]}])
    );
    let intrinsic = api.json("/api/v2/search/tags", &[("scope", "intrinsic")]).await;
    assert_eq!(intrinsic["scopes"][0]["tags"].as_array().unwrap().len(), 25);
    let v1 = api.json("/api/search/tags", &[]).await;
    assert_eq!(v1["tagNames"].as_array().unwrap().len(), 12);
    assert_eq!(api.json("/api/search/tags", &[("scope", "intrinsic")]).await["tagNames"].as_array().unwrap().len(), 25);
}

#[tokio::test]
async fn service_name_is_offered_before_there_is_any() {
    let answer = Api::over(Memory::whole(&[])).json("/api/v2/search/tags", &[("scope", "resource")]).await;
    assert_eq!(answer["scopes"], serde_json::json!([{"name": "resource", "tags": ["service.name"]}]));
}

#[tokio::test]
async fn autocompletion_of_values() {
    let api = shop();
    let (start, end) = last_hour();
    let of = |identifier: &'static str, query: &'static str| {
        let (api, start, end) = (&api, &start, &end);
        async move {
            let path = format!("/api/v2/search/tag/{}/values", encoded(identifier));
            api.json(&path, &[("limit", "5000"), ("q", query), ("start", start), ("end", end), ("tag", identifier)])
                .await
        }
    };
    let services = of("resource.service.name", "").await;
    let expected = [("string", "cart"), ("string", "frontend"), ("string", "payment"), ("string", "worker")];
    assert_eq!(values(&services), expected);
    assert_eq!(values(&of("span.http.status_code", "").await), [("int", "200"), ("int", "500")]);
    assert_eq!(values(&of(".http.route", "").await), [("string", "/cart"), ("string", "/pay")]);
    assert_eq!(
        values(&of("name", r#"{resource.service.name="cart"}"#).await),
        [("string", "Get"), ("string", "SELECT")]
    );
    // Complete conditions count, incomplete ones do not.
    let incomplete = of("name", r#"{resource.service.name="payment" && span.x= }"#).await;
    assert_eq!(values(&incomplete), [("string", "Charge")]);
    assert_eq!(values(&of(r#"span."a/b c""#, "").await), [("string", "slash")]);
    assert_eq!(values(&of("event:name", "").await), [("string", "exception")]);
    assert_eq!(values(&of("status", "").await), [("keyword", "error"), ("keyword", "ok"), ("keyword", "unset")]);
    assert_eq!(of("span:kind", "").await["tagValues"].as_array().unwrap().len(), 6);
    assert_eq!(of("duration", "").await["tagValues"], serde_json::json!([]));
    assert_eq!(of("trace:id", "").await["tagValues"], serde_json::json!([]));
}

#[tokio::test]
async fn values_that_the_query_requires_need_no_data() {
    let api = Api::over(Memory::whole(&[]));
    let path = "/api/v2/search/tag/resource.service.name/values";
    let answer = api.json(path, &[("q", r#"{resource.service.name="pinned"}"#)]).await;
    assert_eq!(values(&answer), [("string", "pinned")]);
}

#[tokio::test]
async fn values_of_the_first_version() {
    let api = shop();
    let of = |tag: &'static str| {
        let api = &api;
        async move { api.json(&format!("/api/search/tag/{tag}/values"), &[]).await["tagValues"].clone() }
    };
    assert_eq!(of("error").await, serde_json::json!(["true"]));
    assert_eq!(of("status.code").await, serde_json::json!(["unset", "ok", "error"]));
    assert_eq!(of("service.name").await, serde_json::json!(["cart", "frontend", "payment", "worker"]));
    assert_eq!(of("http.status_code").await, serde_json::json!(["200", "500"]));
    assert_eq!(of("a%2Fb%20c").await, serde_json::json!(["slash"]));
    assert_eq!(of("a/b%20c").await, serde_json::json!(["slash"]));
}

#[tokio::test]
async fn metrics_over_time_and_their_exemplars() {
    let api = shop();
    let (start, end) = last_hour();
    let parameters =
        [("q", "{} | count_over_time() by (resource.service.name)"), ("start", &start), ("end", &end), ("step", "60")];
    let answer = api.json("/api/metrics/query_range", &parameters).await;
    let series = answer["series"].as_array().unwrap();
    let counts: HashMap<String, f64> = series
        .iter()
        .map(|series| (labels(series)["resource.service.name"].as_str().unwrap().to_owned(), total(series)))
        .collect();
    let expected = [("cart", 2.0), ("frontend", 3.0), ("payment", 1.0), ("worker", 1.0)];
    assert_eq!(counts, expected.map(|(service, count)| (service.to_owned(), count)).into());
    for series in series {
        let samples = series["samples"].as_array().unwrap();
        assert!((60..=62).contains(&samples.len()), "{}", samples.len());
        let at = samples[0]["timestampMs"].as_str().unwrap().parse::<u64>().unwrap();
        assert_eq!(at % 60_000, 0);
    }
    // One for each trace, whichever series it went to.
    let exemplars: Vec<&Json> =
        series.iter().flat_map(|series| series["exemplars"].as_array().into_iter().flatten()).collect();
    assert_eq!(exemplars.len(), 3);
    for exemplar in exemplars {
        assert_eq!(labels(exemplar)["trace:id"].as_str().unwrap().len(), 32);
    }
}

#[tokio::test]
async fn instant_metrics_for_an_alert_rule() {
    let api = shop();
    let (start, end) = last_hour();
    let query = "{status=error} | count_over_time()";
    let answer = api.json("/api/metrics/query", &[("query", query), ("start", &start), ("end", &end)]).await;
    assert_eq!(answer["series"].as_array().unwrap().len(), 1, "{answer}");
    assert_eq!(answer["series"][0]["value"], 2);
    assert_eq!(labels(&answer["series"][0])["__name__"], "count_over_time");
    assert_eq!(answer["series"][0].get("exemplars"), None);
}

#[tokio::test]
async fn metrics_without_times_are_of_the_last_hour() {
    let answer = shop().json("/api/metrics/query_range", &[("q", "{} | count_over_time()")]).await;
    assert_eq!(total(&answer["series"][0]), 7.0);
    let samples = answer["series"][0]["samples"].as_array().unwrap().len();
    assert!((240..=242).contains(&samples), "{samples}");
}
