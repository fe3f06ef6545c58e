//! What is refused, with which words, and what is not refused.

use super::shop::shop;
use super::*;

async fn refused(api: &Api, path: &str, parameters: &[(&str, &str)]) -> (u16, String) {
    let answer = api.get(path, parameters).await;
    assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8", "{path} {parameters:?}");
    (answer.status.as_u16(), answer.text())
}

fn nothing() -> Api {
    Api::over(Memory::whole(&[]))
}

#[tokio::test]
async fn parameters_of_a_search_are_refused_with_tempos_texts() {
    let api = nothing();
    for (parameters, text) in [
        (&[("limit", "0")][..], "invalid limit: must be a positive number"),
        (&[("limit", "-1")], "invalid limit: must be a positive number"),
        (&[("limit", "x")], r#"invalid limit: strconv.ParseUint: parsing "x": invalid syntax"#),
        (&[("limit", "99999999999")], r#"invalid limit: strconv.ParseUint: parsing "99999999999": value out of range"#),
        (&[("limit", "262145")], "limit 262145 exceeds max limit 262144"),
        (&[("spss", "101")], "spans per span set exceeds 100. received 101"),
        (&[("spss", "x")], r#"invalid spss: strconv.ParseUint: parsing "x": invalid syntax"#),
        (&[("start", "x")], r#"invalid start: strconv.ParseUint: parsing "x": invalid syntax"#),
        (&[("end", "1.5")], r#"invalid end: strconv.ParseUint: parsing "1.5": invalid syntax"#),
        (&[("start", "20"), ("end", "10")], "http parameter start must be before end. received start=20 end=10"),
        (&[("start", "10"), ("end", "10")], "http parameter start must be before end. received start=10 end=10"),
        (&[("start", "10")], "http parameter start must be before end. received start=10 end=0"),
        (
            &[("end", "10")],
            "error parsing date range: only one of start and end provided: must provide both or neither",
        ),
        (
            &[("start", "1"), ("end", "604802")],
            "range specified by start and end exceeds 168h0m0s. received start=1 end=604802",
        ),
        (&[("minDuration", "5")], r#"invalid minDuration: time: missing unit in duration "5""#),
        (&[("maxDuration", "x")], r#"invalid maxDuration: time: invalid duration "x""#),
        (&[("minDuration", "2s"), ("maxDuration", "1s")], "invalid maxDuration: must be greater than minDuration"),
        (&[("tags", "a=b"), ("q", "{}")], "invalid request: can't specify tags and q in the same query"),
        (&[("tags", "a=b a=c")], "invalid tags: tag a has been set twice"),
        (&[("tags", "a=b=c")], "invalid tags: unexpected '=' at pos 4"),
        (
            &[("since", "x"), ("q", "{}")],
            r#"error parsing date range: could not parse 'since' parameter: not a valid duration string: "x""#,
        ),
    ] {
        assert_eq!(refused(&api, "/api/search", parameters).await, (400, text.to_owned()), "{parameters:?}");
    }
}

#[tokio::test]
async fn a_query_that_cannot_be_read_is_refused_with_its_place() {
    let api = nothing();
    for path in ["/api/search", "/api/metrics/query_range", "/api/metrics/query"] {
        let (status, text) = refused(&api, path, &[("q", "{ .a = }")]).await;
        assert_eq!(status, 400);
        assert!(text.starts_with("invalid TraceQL query: parse error at line 1, col "), "{path}: {text}");
        let (status, text) = refused(&api, path, &[("q", "{ 1 + 1 } | rate()")]).await;
        assert_eq!(status, 400, "{path}: {text}");
        assert!(text.starts_with("invalid TraceQL query: span filter field expressions"), "{path}: {text}");
    }
    let (status, _) = refused(&api, "/api/metrics/query_range", &[]).await;
    assert_eq!(status, 400);
    for (path, query) in [("/api/search", "{} | rate()"), ("/api/metrics/query", "{}")] {
        assert_eq!(refused(&api, path, &[("q", query)]).await.0, 400, "{path} {query}");
    }
}

#[tokio::test]
async fn a_tail_that_cannot_be_followed_is_refused() {
    let api = nothing();
    for (parameters, text) in [
        (&[("q", "{} | rate()")][..], "a metrics query has no traces to show; ask /api/metrics/query_range"),
        (&[("from", "x")], r#"invalid from: strconv.ParseInt: parsing "x": invalid syntax"#),
        (&[("last", "1001")], "limit 1001 exceeds max limit 1000"),
    ] {
        assert_eq!(refused(&api, "/api/spanreel/tail", parameters).await, (400, text.to_owned()), "{parameters:?}");
    }
}

async fn form(api: &Api, path: &str, form: String) -> (u16, String) {
    let request = Request::builder().method(Method::POST).uri(path);
    let request = request.header("content-type", "application/x-www-form-urlencoded").body(Body::from(form)).unwrap();
    let (head, body) = api.call(request).await.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status.as_u16(), String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn long_queries_come_as_forms_up_to_tempos_limit() {
    let api = nothing();
    let asked = |bytes: usize| {
        let frame = "{ .a = \"\" }".len();
        format!("q={}", encoded(&format!("{{ .a = \"{}\" }}", "ü".repeat((bytes - frame) / 2))))
    };
    let paths = ["/api/search", "/api/v2/search/tags", "/api/v2/search/tag/name/values"];
    for path in paths {
        let (status, text) = form(&api, path, asked(128 * 1024)).await;
        assert_eq!(status, 200, "{path}: {text}");
        let (status, text) = form(&api, path, asked(128 * 1024 + 2)).await;
        assert!(status == 400 && text.starts_with("TraceQL expression exceeds the configured maximum size"), "{text}");
    }
    // The URL wins.
    assert_eq!(form(&api, "/api/search?limit=0", "limit=5&q=%7B%7D".to_owned()).await.0, 400);
    assert_eq!(form(&api, "/api/search?limit=5", "limit=0&q=%7B%7D".to_owned()).await.0, 200);
    let (status, text) = form(&api, "/api/search", format!("q={}", "x".repeat(1 << 20))).await;
    assert_eq!(status, 400, "{text}");
}

#[tokio::test]
async fn series_made_to_hurt_are_refused() {
    let api = nothing();
    for query in [
        format!("{{}} | rate(){}", " | topk(5)".repeat(10_000)),
        format!("{{}} | rate(){}", " > 1".repeat(20_000)),
        format!("{{}} | quantile_over_time(duration{})", ", .5".repeat(20_000)),
        format!("({{}} | rate()){}", " + ({} | rate())".repeat(6_000)),
        format!("{{}} | rate() by (name{})", ", .a".repeat(20_000)),
        format!("{{}}{} | rate()", "|{}".repeat(12_000)),
        format!("{{}} | compare({{}}{})", " && {}".repeat(12_000)),
    ] {
        let (status, text) = form(&api, "/api/metrics/query_range", format!("q={}", encoded(&query))).await;
        let shown: String = query.chars().take(40).collect();
        assert!(status == 400 && text.starts_with("invalid TraceQL query: ") && text.len() < 4096, "{shown}: {text}");
    }
}

/// As one that is still being typed: suggestions for too much are better than an error.
#[tokio::test]
async fn a_filter_of_tags_that_is_too_large_filters_nothing() {
    for count in [300, 5_000] {
        let conditions: String = (0..count).map(|number| format!("span.a{number} = 1 && ")).collect();
        let query = format!("{{ {conditions} span.a = 1 }}");
        for path in ["/api/v2/search/tags", "/api/v2/search/tag/name/values"] {
            let unfiltered = form(&nothing(), path, String::new()).await;
            assert_eq!(form(&nothing(), path, format!("q={}", encoded(&query))).await, unfiltered, "{path}");
            assert_eq!(unfiltered.0, 200);
        }
    }
}

/// What the server makes of a URL that is longer than a URI may be here.
#[tokio::test]
async fn parameters_that_a_uri_cannot_hold_are_read_from_the_header_that_they_came_in() {
    let api = shop();
    let query = format!("q={}&limit=1", encoded("{ kind = server }"));
    let found = api.request(Method::GET, "/api/search", &[("x-spanreel-query", &query)]).await;
    let found: Json = serde_json::from_slice(&found.body).unwrap();
    assert_eq!(found["traces"].as_array().map(Vec::len), Some(1), "{found}");
    let refused = api.request(Method::GET, "/api/traces/1", &[("x-spanreel-query", "start=20&end=10")]).await;
    assert_eq!((refused.status, refused.text().contains("must be before end")), (StatusCode::BAD_REQUEST, true));
    // What stands in the URL is not overruled.
    let url = api.request(Method::GET, "/api/search?limit=0", &[("x-spanreel-query", "limit=5")]).await;
    assert_eq!(url.status, StatusCode::BAD_REQUEST);
}

/// What a query may do to whoever reads it: each is refused, or answered, within the limits of one query.
#[tokio::test]
async fn queries_made_to_hurt_are_refused_or_answered() {
    let api = nothing();
    let many = |open: &str, middle: &str, close: &str, count: usize| {
        format!("{}{middle}{}", open.repeat(count), close.repeat(count))
    };
    for (query, status) in [
        (format!("{{ {} }}", many("(", "true", ")", 10_000)), 400),
        (many("(", "{}", ")", 10_000), 400),
        (format!("{{ {}true }}", "!".repeat(10_000)), 400),
        (r#"{ .a =~ "(a+)+$" }"#.to_owned(), 200),
        (r#"{ .a =~ "(.{500}){500}" }"#.to_owned(), 400),
        (r#"{ .a =~ "((((a{99}){99}){99}){99})" }"#.to_owned(), 400),
        (format!("{{ .a =~ \"{}\" }}", many("(", "a", ")*", 20_000)), 400),
        (format!("{{ {}.a =~ `x` }}", ".a =~ `x` || ".repeat(100)), 400),
        (many("{} || (", "{}", ")", 300), 400),
        // Each stage that asks for nothing is a level of the plan.
        (format!("{{}}{}", "|{}".repeat(12_000)), 400),
        (format!("({{}}{}) && {{}}", "|{}".repeat(12_000)), 400),
        (format!("{{}}{}", " || {}".repeat(12_000)), 400),
        (format!("{{}}{}", " >> {}".repeat(12_000)), 400),
        (format!("{{}}{}", "|coalesce()".repeat(10_000)), 400),
        (format!("{{}}{}", "|by(name)".repeat(10_000)), 400),
        (format!("{{}}{}", "|count()>1".repeat(10_000)), 400),
        (format!("{{}} | {}count() > 1", "count() + ".repeat(10_000)), 400),
        (format!("{{}} | select(name{})", ", .a".repeat(20_000)), 400),
        (format!("{{}}{}", "|select(name)".repeat(9_000)), 400),
        (format!("{{ {} .a = 1 }}", (0..9_000).map(|number| format!(".a{number} = 1 ||")).collect::<String>()), 400),
        (format!("{{ {} .a = 1 }}", (0..9_000).map(|number| format!(".a = {number} ||")).collect::<String>()), 200),
        (format!("{{ .a = {} }}", "9".repeat(400)), 400),
        (format!("{{ duration > {}h }}", "9".repeat(30)), 400),
        ("{ .a = \"\u{0}\u{feff}\" }".to_owned(), 200),
        ("{ .a = \"".to_owned(), 400),
        ("/*".to_owned(), 400),
        ("\\".to_owned(), 400),
    ] {
        let (found, text) = form(&api, "/api/search", format!("q={}", encoded(&query))).await;
        let shown: String = query.chars().take(40).collect();
        assert_eq!(found, status, "{shown}: {text}");
        assert!(status == 200 || (text.starts_with("invalid TraceQL query: ") && text.len() < 4096), "{shown}: {text}");
    }
}

#[test]
fn an_endless_query_is_refused_before_it_is_read() {
    use crate::query::call::{RangeCall, SearchCall, TagNames, TagsCall, ValuesCall};
    use crate::query::parameters::Parameters;

    let query = format!("{{ .a = \"{}\" }}", "x".repeat(128 * 1024));
    let with = |name: &str, text: &str| Parameters::new(vec![(name.to_owned(), text.to_owned())]);
    let both = Parameters::new(vec![("q".to_owned(), "{}".to_owned()), ("query".to_owned(), query.clone())]);
    let now = call::now();
    for error in [
        SearchCall::from_url(&with("q", &query), now).unwrap_err(),
        SearchCall::from_url(&both, now).unwrap_err(),
        RangeCall::from_url(&with("query", &query), now).unwrap_err(),
        TagsCall::from_url(&with("q", &query), now).unwrap_err(),
        ValuesCall::from_url("name", TagNames::TraceQl, &with("q", &query), now).unwrap_err(),
    ] {
        let text = "TraceQL expression exceeds the configured maximum size of 131072 bytes, reduce the query expression \
                    size or contact your system administrator";
        assert_eq!((error.status(), error.to_string().as_str()), (StatusCode::BAD_REQUEST, text));
    }
}

#[tokio::test]
async fn parameters_of_tags_are_refused_with_tempos_texts() {
    let api = nothing();
    for (path, parameters, text) in [
        ("/api/v2/search/tags", &[("scope", "planet")][..], "invalid scope: planet"),
        ("/api/search/tags", &[("scope", "planet")], "invalid scope: planet"),
        (
            "/api/v2/search/tags",
            &[("start", "5")],
            "error parsing date range: only one of start and end provided: must provide both or neither",
        ),
        (
            "/api/v2/search/tags",
            &[("start", "x"), ("end", "5")],
            r#"error parsing date range: could not parse 'start' parameter: strconv.ParseInt: parsing "x": invalid syntax"#,
        ),
        (
            "/api/v2/search/tags",
            &[("start", "20"), ("end", "10")],
            "http parameter start must be before end. received start=20 end=10",
        ),
        ("/api/search/tag//values", &[], "please provide a non-empty tagName"),
    ] {
        assert_eq!(refused(&api, path, parameters).await, (400, text.to_owned()), "{path} {parameters:?}");
    }
    for identifier in ["%7Bfoo%7D", "foo%20bar", "1"] {
        let (status, text) = refused(&api, &format!("/api/v2/search/tag/{identifier}/values"), &[]).await;
        assert_eq!(status, 400, "{identifier}");
        assert!(text.starts_with("please provide a valid tagName: "), "{identifier}: {text}");
    }
}

#[tokio::test]
async fn parameters_of_series_are_refused_with_tempos_texts() {
    let api = nothing();
    let both = ["/api/metrics/query_range", "/api/metrics/query"];
    for (paths, parameters, text) in [
        (&both[..], &[("start", "20"), ("end", "10")][..], "end must be greater than start"),
        (&both, &[("start", "10"), ("end", "10")], "end must be greater than start"),
        (
            &both,
            &[("start", "x")],
            r#"could not parse 'start' parameter: strconv.ParseInt: parsing "x": invalid syntax"#,
        ),
        (&both, &[("since", "1x")], r#"could not parse 'since' parameter: not a valid duration string: "1x""#),
        (
            &both,
            &[("start", "1000"), ("end", "100000")],
            "metrics query time range exceeds the maximum allowed duration of 24h0m0s",
        ),
        (&both[..1], &[("step", "x")], r#"cannot parse "x" to a valid duration"#),
        (&both[..1], &[("step", "-1")], r#"cannot parse "-1": step must be positive"#),
        (
            &both[..1],
            &[("start", "1000"), ("end", "4600"), ("step", "10ms")],
            "step of 10ms is too small, minimum step for given range is 360ms",
        ),
        (
            &both[..1],
            &[("start", "1000"), ("end", "4600"), ("step", "0")],
            "step of 0s is too small, minimum step for given range is 360ms",
        ),
    ] {
        for path in paths {
            let mut parameters = parameters.to_vec();
            parameters.push(("q", "{} | rate()"));
            assert_eq!(refused(&api, path, &parameters).await, (400, text.to_owned()), "{path} {parameters:?}");
        }
    }
}

#[tokio::test]
async fn a_query_that_runs_out_of_time_is_504_with_tempos_text() {
    // No time at all, so that it does not depend on how fast this machine is.
    let limits = QueryLimits { query_duration_max: std::time::Duration::ZERO, ..QueryLimits::default() };
    let api = Api::within(super::shop::spans_of_shop(), limits);
    for (path, query) in [
        ("/api/search", "{}"),
        ("/api/search", "{ name = `x` } >> { kind = server } | count() > 2"),
        ("/api/metrics/query_range", "{} | rate() by (name)"),
        ("/api/metrics/query", "{} | quantile_over_time(duration, .9)"),
        ("/api/v2/search/tags", "{ name = `x` }"),
        ("/api/v2/search/tag/resource.service.name/values", "{ name = `x` }"),
    ] {
        let (status, text) = refused(&api, path, &[("q", query)]).await;
        assert!(status == 504 && text.starts_with("context deadline exceeded"), "{path} {query}: {status} {text}");
    }
    let (status, message) = super::streaming::refusal(&api, "Search", &[]).await;
    assert_eq!(status, "13");
    assert!(message.starts_with("context deadline exceeded"), "{message}");
}

#[tokio::test]
async fn unknown_parameters_tenants_and_bad_optional_numbers_are_tolerated() {
    let api = nothing();
    let unknown = [("q", "{}"), ("tag", "service.name"), ("nope", "%ff"), ("mode", "x"), ("maxStaleValues", "-3")];
    assert_eq!(api.json("/api/search", &unknown).await["traces"], serde_json::json!([]));
    for path in ["/api/search/tags", "/api/v2/search/tags"] {
        api.json(path, &[("limit", "x"), ("maxStaleValues", "x")]).await;
    }
    for path in ["/api/search/tag/service.name/values", "/api/v2/search/tag/resource.service.name/values"] {
        for limit in ["x", "-1", "99999999999"] {
            api.json(path, &[("limit", limit), ("maxStaleValues", "x")]).await;
        }
    }
    api.json("/api/metrics/query_range", &[("q", "{} | rate()"), ("exemplars", "x"), ("maxSeries", "-1")]).await;
    // It wins, whatever they are.
    api.json("/api/search", &[("q", "{}"), ("since", "1h"), ("start", "20"), ("end", "10")]).await;
    let tenants = api.request(Method::GET, "/api/search?q=%7B%7D", &[("x-scope-orgid", "a|b")]).await;
    assert_eq!(tenants.status, StatusCode::OK);
}

#[tokio::test]
async fn any_method_reaches_a_query_and_head_has_no_body() {
    let api = nothing();
    for path in ["/api/search", "/api/v2/search/tags", "/api/search/tag/name/values", "/api/metrics/query"] {
        let uri = uri(path, &[("q", if path.ends_with("query") { "{} | rate()" } else { "{}" })]);
        let get = api.request(Method::GET, &uri, &[]).await;
        assert_eq!(get.status, StatusCode::OK, "{uri}: {}", get.text());
        for method in [Method::POST, Method::PUT, Method::DELETE] {
            assert_eq!(api.request(method, &uri, &[]).await.body, get.body);
        }
        let head = api.request(Method::HEAD, &uri, &[]).await;
        assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
    }
}

#[tokio::test]
async fn paths_near_the_tag_endpoints_are_not_found() {
    let api = nothing();
    for path in [
        "/api/search/tag",
        "/api/search/tag/x",
        "/api/search/tag/values",
        "/api/v2/search/tag/x/value",
        "/api/v2/search",
    ] {
        let answer = api.get(path, &[]).await;
        assert_eq!((answer.status, answer.text().as_str()), (StatusCode::NOT_FOUND, "404 page not found\n"), "{path}");
    }
}

#[tokio::test]
async fn status_pages_name_their_parts() {
    let api = nothing();
    let page = api.get("/status", &[]).await.text();
    for part in ["version", "services", "endpoints", "runtime_config", "config"] {
        assert!(page.contains(&format!("GET /status/{part}\n")), "{page}");
        let one = api.get(&format!("/status/{part}"), &[]).await.text();
        assert!(one.starts_with(&format!("GET /status/{part}\n")), "{one}");
    }
    assert!(page.contains("/api/metrics/query_range"), "{page}");
    let wrong = api.get("/status/config", &[("mode", "x")]).await;
    let text = "unknown value for mode query parameter: x";
    assert_eq!((wrong.status, wrong.text().as_str()), (StatusCode::INTERNAL_SERVER_ERROR, text));
    assert_eq!(api.get("/status/nope", &[]).await.status, StatusCode::NOT_FOUND);
    for path in ["/status/overrides", "/status/overrides/single-tenant"] {
        assert!(api.get(path, &[]).await.text().contains("max_bytes_per_trace: 50000000"), "{path}");
    }
    assert_eq!(api.get("/status/usage-stats", &[]).await.status, StatusCode::OK);
    assert_eq!(api.get("/flush", &[]).await.status, StatusCode::NO_CONTENT);
}
