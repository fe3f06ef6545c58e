//! What Traces Drilldown sends, with each of its primary signals.

use super::shop::{ID_OF_CART, ID_OF_PAYMENT, attributes, ids, labels, shop, total};
use super::*;

/// The primary signals, and how many spans of the shop each takes.
const SIGNALS: [(&str, f64); 5] = [
    ("nestedSetParent<0", 2.0),
    ("true", 7.0),
    ("kind=server", 4.0),
    ("kind=consumer", 1.0),
    (r#"span.db.system.name!="""#, 1.0),
];

async fn range(api: &Api, query: &str) -> Vec<Json> {
    let (start, end) = last_hour();
    let answer =
        api.json("/api/metrics/query_range", &[("q", query), ("start", &start), ("end", &end), ("step", "60")]).await;
    answer["series"].as_array().unwrap().clone()
}

#[tokio::test]
async fn probe() {
    let now = call::now() / 1_000_000_000;
    let (start, end) = ((now - 60).to_string(), now.to_string());
    let answer =
        shop().json("/api/metrics/query_range", &[("q", "{} | rate()"), ("start", &start), ("end", &end)]).await;
    assert_eq!(labels(&answer["series"][0])["__name__"], "rate");
}

#[tokio::test]
async fn rate_of_every_primary_signal() {
    let api = shop();
    for (signal, count) in SIGNALS {
        let series = range(&api, &format!("{{{signal}}} | rate()")).await;
        assert_eq!(series.len(), 1, "{signal}");
        assert!((total(&series[0]) * 60.0 - count).abs() < 1e-9, "{signal}: {}", total(&series[0]));
    }
}

#[tokio::test]
async fn errors_of_every_primary_signal() {
    let api = shop();
    for (signal, count) in [
        ("nestedSetParent<0", 1.0),
        ("true", 2.0),
        ("kind=server", 2.0),
        ("kind=consumer", 0.0),
        (r#"span.db.system.name!="""#, 0.0),
    ] {
        let series = range(&api, &format!("{{{signal} && status=error}} | rate()")).await;
        let rate: f64 = series.iter().map(total).sum();
        assert!((rate * 60.0 - count).abs() < 1e-9, "{signal}: {rate}");
    }
}

#[tokio::test]
async fn rate_broken_down_by_an_attribute() {
    let query = "{true && resource.service.name != nil} | rate() by(resource.service.name)";
    let mut services: Vec<String> = Vec::new();
    for series in range(&shop(), query).await {
        services.push(labels(&series)["resource.service.name"].as_str().unwrap().to_owned());
    }
    services.sort_unstable();
    assert_eq!(services, ["cart", "frontend", "payment", "worker"]);
}

#[tokio::test]
async fn errors_broken_down_by_an_attribute() {
    let query = "{true && status = error && span.http.route != nil} | rate() by(span.http.route)";
    let series = range(&shop(), query).await;
    assert_eq!(series.len(), 1, "{series:?}");
    assert_eq!(labels(&series[0])["span.http.route"], "/pay");
    assert!((total(&series[0]) * 60.0 - 1.0).abs() < 1e-9);
}

#[tokio::test]
async fn durations_as_quantiles() {
    let series = range(&shop(), "{nestedSetParent<0} | quantile_over_time(duration, 0.9)").await;
    assert_eq!(series.len(), 1);
    assert_eq!(labels(&series[0])["p"], 0.9);
    let by = range(&shop(), "{nestedSetParent<0} | quantile_over_time(duration, 0.9) by(span.http.route)").await;
    assert_eq!(by.len(), 2);
}

#[tokio::test]
async fn durations_as_a_heatmap() {
    let series = range(&shop(), "{nestedSetParent<0} | histogram_over_time(duration) with(sample=true)").await;
    assert_eq!(series.len(), 2);
    let count: f64 = series.iter().map(total).sum();
    assert_eq!(count, 2.0);
    for series in &series {
        assert!(labels(series)["__bucket"].is_number(), "{series}");
    }
}

#[tokio::test]
async fn comparison_of_errors_with_the_rest() {
    let series = range(&shop(), "{nestedSetParent<0} | compare({status=error})").await;
    let types: Vec<Json> = series.iter().map(|series| labels(series)["__meta_type"].clone()).collect();
    for kind in ["baseline", "selection", "baseline_total", "selection_total"] {
        assert!(types.contains(&kind.into()), "{kind}: {types:?}");
    }
}

#[tokio::test]
async fn comparison_within_a_window() {
    let now = shop::newest();
    let query = format!("{{nestedSetParent<0}} | compare({{duration >= 1s}}, 10, {}, {now})", now - 600_000_000_000);
    let series = range(&shop(), &query).await;
    assert!(series.iter().any(|series| labels(series)["__meta_type"] == "selection"), "{series:?}");
}

/// The step is the whole range, as the comparison sends it.
#[tokio::test]
async fn comparison_over_the_range_as_one_step() {
    let (start, end) = last_hour();
    for query in [
        "{nestedSetParent<0 && kind=server} | compare({status=error})",
        "{nestedSetParent<0 && true} | compare({duration >= 1s}, 10)",
    ] {
        let parameters = [("q", query), ("start", &start), ("end", &end), ("step", "3600s")];
        let answer = shop().json("/api/metrics/query_range", &parameters).await;
        let of = |kind: &str| -> f64 {
            let series = answer["series"].as_array().unwrap().iter();
            let routes = series.filter(|series| labels(series)["__meta_type"] == kind);
            routes.filter(|series| labels(series).contains_key("span.http.route")).map(total).sum()
        };
        assert_eq!((of("baseline"), of("selection")), (1.0, 1.0), "{query}: {answer}");
    }
}

#[tokio::test]
async fn list_of_spans() {
    let query = "{nestedSetParent<0 && status=error} | select(status, resource.service.name, name, kind)";
    let answer = shop().search(query, &[("limit", "200"), ("spss", "10")]).await;
    assert_eq!(ids(&answer), [ID_OF_PAYMENT]);
    let span = &answer["traces"][0]["spanSets"][0]["spans"][0];
    assert_eq!(span["name"], "POST /pay");
    let shown = attributes(span);
    assert_eq!(
        (&shown["status"], &shown["service.name"], &shown["kind"]),
        (&"error".into(), &"frontend".into(), &"server".into())
    );
}

#[tokio::test]
async fn exceptions() {
    let query = "{true && status = error} | select(resource.service.name, event.exception.message, \
                 event.exception.stacktrace, event.exception.type) with(most_recent=true)";
    let answer = shop().search(query, &[("limit", "400"), ("spss", "10")]).await;
    let spans = answer["traces"][0]["spanSets"][0]["spans"].as_array().unwrap();
    let shown: Vec<_> = spans.iter().map(attributes).filter(|shown| shown.contains_key("exception.message")).collect();
    assert_eq!(shown.len(), 1, "{answer}");
    assert_eq!(
        (&shown[0]["exception.message"], &shown[0]["exception.type"]),
        (&"card declined".into(), &"Declined".into())
    );
}

#[tokio::test]
async fn structure_of_traces() {
    let select = "select(status, resource.service.name, name, nestedSetParent, nestedSetLeft, nestedSetRight)";
    let query = format!("({{nestedSetParent<0}} &>> {{ kind = server }}) || ({{nestedSetParent<0}}) | {select}");
    let answer = shop().search(&query, &[("limit", "200"), ("spss", "20")]).await;
    assert_eq!(ids(&answer), [ID_OF_PAYMENT, ID_OF_CART]);
    let spans = answer["traces"][1]["spanSets"][0]["spans"].as_array().unwrap();
    assert_eq!(spans.len(), 2, "{answer}");
    let number = |span: &Json, name: &str| attributes(span)[name].as_str().unwrap().parse::<i64>().unwrap();
    let (root, child) = (&spans[0], &spans[1]);
    assert_eq!(number(root, "nestedSetParent"), -1);
    assert_eq!((number(root, "nestedSetLeft"), number(root, "nestedSetRight")), (1, 8));
    assert_eq!(number(child, "nestedSetParent"), 1);
    for matching in ["status = error", "duration > 1s"] {
        let query = format!("({{nestedSetParent<0}} &>> {{ {matching} }}) || ({{nestedSetParent<0}}) | {select}");
        let answer = shop().search(&query, &[("limit", "200"), ("spss", "20")]).await;
        assert_eq!(answer["traces"][0]["spanSets"][0]["matched"], 2, "{matching}");
    }
}

/// Signals and the filters that a user has chosen beside them.
fn chosen() -> impl Iterator<Item = String> {
    const FILTERS: [&str; 3] =
        ["", r#" && resource.service.name="frontend""#, r#" && span.http.route=~"/.*" && duration>10ms"#];
    SIGNALS.iter().flat_map(|(signal, _)| FILTERS.map(|filter| format!("{signal}{filter}")))
}

async fn count(api: &Api, filter: &str) -> f64 {
    range(api, &format!("{{{filter}}} | count_over_time()")).await.iter().map(total).sum()
}

#[tokio::test]
async fn rates_and_errors_by_an_attribute_of_every_signal_add_up() {
    let api = shop();
    for chosen in chosen() {
        for attribute in ["resource.service.name", "span.http.route", "name"] {
            for filter in [chosen.clone(), format!("{chosen} && status=error")] {
                // An intrinsic is always there.
                let filter = match attribute {
                    "name" => filter,
                    _ => format!("{filter} && {attribute} != nil"),
                };
                let series = range(&api, &format!("{{{filter}}} | rate() by({attribute})")).await;
                let sum: f64 = series.iter().map(total).sum();
                assert!((sum * 60.0 - count(&api, &filter).await).abs() < 1e-9, "{filter} by({attribute}): {sum}");
                assert!(series.iter().all(|series| labels(series).contains_key(attribute)), "{filter}");
            }
        }
    }
}

#[tokio::test]
async fn durations_of_every_signal_as_quantiles_and_heatmaps() {
    let api = shop();
    for chosen in chosen() {
        let spans = count(&api, &chosen).await;
        let quantiles = range(&api, &format!("{{{chosen}}} | quantile_over_time(duration, 0.5, 0.9)")).await;
        assert_eq!(quantiles.len(), if spans > 0.0 { 2 } else { 0 }, "{chosen}");
        let by = format!(
            "{{{chosen} && resource.service.name != nil}} | quantile_over_time(duration, 0.9) by(resource.service.name)"
        );
        assert_eq!(range(&api, &by).await.is_empty(), spans == 0.0, "{by}");
        let heatmap = range(&api, &format!("{{{chosen}}} | histogram_over_time(duration) with(sample=true)")).await;
        assert_eq!(heatmap.iter().map(total).sum::<f64>(), spans, "{chosen}");
    }
}

#[tokio::test]
async fn comparisons_of_every_signal_count_its_spans() {
    let api = shop();
    for chosen in chosen() {
        for selection in ["{status=error}", "{duration >= 1s}, 10"] {
            let series = range(&api, &format!("{{{chosen}}} | compare({selection})")).await;
            let totals = series.iter().filter(|series| {
                let labels = labels(series);
                let kind = labels["__meta_type"].as_str().unwrap_or_default().to_owned();
                kind.ends_with("_total") && labels.contains_key("resource.service.name")
            });
            let counted: f64 = totals.map(total).sum();
            assert_eq!(counted, count(&api, &chosen).await, "{chosen} {selection}: {series:?}");
        }
    }
}

#[tokio::test]
async fn lists_and_structures_of_every_signal_are_of_its_traces() {
    let api = shop();
    let select = "select(status, resource.service.name, name, nestedSetParent, nestedSetLeft, nestedSetRight)";
    for chosen in chosen() {
        let found = api.search(&format!("{{{chosen}}}"), &[("limit", "200")]).await;
        let expected = ids(&found);
        let list = format!("{{{chosen}}} | select(status, resource.service.name, name, nestedSetParent)");
        assert_eq!(ids(&api.search(&list, &[("limit", "200"), ("spss", "10")]).await), expected, "{list}");
        for matching in ["kind = server", "status = error", "duration > 1s"] {
            let structure = format!("({{{chosen}}} &>> {{ {matching} }}) || ({{{chosen}}}) | {select}");
            let answer = api.search(&structure, &[("limit", "200"), ("spss", "20")]).await;
            assert_eq!(ids(&answer), expected, "{structure}");
            for trace in answer["traces"].as_array().unwrap() {
                for span in trace["spanSets"][0]["spans"].as_array().unwrap() {
                    assert!(attributes(span).contains_key("nestedSetLeft"), "{structure}: {span}");
                }
            }
        }
    }
}
