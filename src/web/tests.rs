#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::assets::{ASSETS, Asset};
use super::document::{BASE, base};
use super::routes;
use axum::body::Body;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use tower_service::Service as _;

async fn ask(path: &str, headers: &[(&str, &str)]) -> (StatusCode, HeaderMap, Vec<u8>) {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = routes().call(request.body(Body::empty()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    (parts.status, parts.headers, body.collect().await.unwrap().to_bytes().to_vec())
}

#[tokio::test]
async fn every_page_is_the_document_with_a_base_that_leads_to_the_root() {
    for (path, expected) in [("/", "./"), ("/traces?q=x", "./"), ("/trace/00ff", "../"), ("/health", "./")] {
        let (status, headers, body) = ask(path, &[]).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        assert_eq!(headers["cache-control"], "no-cache");
        let text = String::from_utf8(body).unwrap();
        assert!(text.contains(&format!("<base href=\"{expected}\"")), "{path}: {text}");
    }
}

#[tokio::test]
async fn the_document_allows_nothing_from_elsewhere_and_no_inline_script() {
    let (_, headers, body) = ask("/", &[]).await;
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    let text = String::from_utf8(body).unwrap();
    assert!(!text.contains("://"), "{text}");
    for script in text.split("<script").skip(1) {
        assert!(script.starts_with(" type=\"module\"") && script.contains(" src=\"./assets/"), "{script}");
        assert!(script.contains("></script>"), "{script}");
    }
    assert!(!text.contains("style=") && !text.contains("<style"), "{text}");
}

#[tokio::test]
async fn a_proxys_prefix_becomes_the_base_unless_it_is_no_path() {
    let (_, _, body) = ask("/traces", &[("x-forwarded-prefix", "/observe/traces/")]).await;
    assert!(String::from_utf8(body).unwrap().contains("<base href=\"/observe/traces/\""));
    for bad in ["//elsewhere", "observe", "/a\"><script>", "/a/../b", "https://elsewhere", "/", ""] {
        assert_eq!(base("/trace/1", Some(bad)), "../", "{bad}");
    }
}

#[tokio::test]
async fn files_that_the_document_names_exist_and_never_change() {
    let text = String::from_utf8(Asset::find("index.html").unwrap().plain()).unwrap();
    assert!(text.contains(BASE));
    let names: Vec<&str> = text.split("\"./assets/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(names.len() >= 2, "a script and a style: {text}");
    for name in names {
        let path = format!("/assets/{name}");
        let (status, headers, compressed) = ask(&path, &[("accept-encoding", "br, gzip;q=0.8")]).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        assert_eq!(headers["content-encoding"], "gzip");
        assert_eq!(headers["cache-control"], "public, max-age=31536000, immutable");
        let (_, headers, plain) = ask(&path, &[("accept-encoding", "gzip;q=0")]).await;
        assert!(headers.get("content-encoding").is_none());
        assert!(plain.len() > compressed.len());
        assert_eq!(plain, Asset::find(&format!("assets/{name}")).unwrap().plain());
    }
}

#[tokio::test]
async fn an_unknown_file_is_not_found() {
    for path in ["/assets/none.js", "/assets/..%2findex.html", "/assets/index.html"] {
        assert_eq!(ask(path, &[]).await.0, StatusCode::NOT_FOUND, "{path}");
    }
}

#[test]
fn what_the_browser_gets_at_first_and_in_all_stays_small() {
    /// Bytes as they go over the wire: the document with what it names, and everything.
    const FIRST_MAX: usize = 120 * 1024;
    const ALL_MAX: usize = 200 * 1024;
    let text = String::from_utf8(Asset::find("index.html").unwrap().plain()).unwrap();
    let first: usize = ASSETS
        .iter()
        .filter(|asset| asset.name == "index.html" || text.contains(&format!("\"./{}\"", asset.name)))
        .map(|asset| asset.gzip.len())
        .sum();
    let all: usize = ASSETS.iter().map(|asset| asset.gzip.len()).sum();
    assert!(first <= FIRST_MAX, "{first} bytes at first");
    assert!(all <= ALL_MAX, "{all} bytes in all");
}
