//! Destinations of every kind of badness, and what an operator can ask of delivery: each bounded, counted, without loss.

use super::outage::{Forwarding, Way, names, secured, take_all};
use crate::destination::{self, Answer, Destination, Received};
use crate::support::eventually;
use crate::support::spanreel::{Options, Spanreel, binary};
use crate::support::traces::{Traces, attribute, noise};
use crate::support::{compression::Compression, otlp::Client, otlp::Protocol};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use spanreel::forward::delivery::{DeliverySettings, Hours};
use spanreel::forward::settings::{ClientTlsSettings, Pem};
use spanreel::forward::{self, State};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What a server that does not speak any of our protocols does with a connection.
#[derive(Debug, Clone, Copy)]
enum Badness {
    AcceptsAndNeverAnswers,
    AnswersGarbage,
    AnswersGarbageWithoutEnd,
    ClosesAfterEachByte,
    ClosesAfterAByteOfItsAnswer,
}

async fn misbehave(badness: Badness, mut stream: TcpStream) -> std::io::Result<()> {
    let mut some = [0; 1024];
    match badness {
        Badness::AcceptsAndNeverAnswers => while stream.read(&mut some).await? > 0 {},
        Badness::AnswersGarbage => {
            let _ = stream.read(&mut some).await?;
            stream.write_all(&[0xff; 300]).await?;
        }
        Badness::AnswersGarbageWithoutEnd => {
            let _ = stream.read(&mut some).await?;
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
            while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
        }
        Badness::ClosesAfterEachByte => {
            let _ = stream.read_u8().await?;
        }
        Badness::ClosesAfterAByteOfItsAnswer => {
            let _ = stream.read(&mut some).await?;
            // A frame of HTTP/2, or the first line of an answer, begins so.
            let byte = if some.starts_with(b"PRI") { 0 } else { b'H' };
            stream.write_u8(byte).await?;
        }
    }
    Ok(())
}

/// Serves badly until it is dropped; counts connections.
fn bad_server(badness: Badness, listener: TcpListener) -> (JoinHandle<()>, Arc<AtomicUsize>) {
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let server = tokio::spawn(async move {
        let mut open = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            open.spawn(misbehave(badness, stream));
        }
    });
    (server, connections)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_misbehaves_costs_time_and_no_span() {
    for badness in [
        Badness::AcceptsAndNeverAnswers,
        Badness::AnswersGarbage,
        Badness::AnswersGarbageWithoutEnd,
        Badness::ClosesAfterEachByte,
        Badness::ClosesAfterAByteOfItsAnswer,
    ] {
        for way in Way::both() {
            let way = Way { timeout: Duration::from_millis(300), ..way };
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (server, connections) = bad_server(badness, listener);
            let directory = TempDir::new().unwrap();
            let forwarding = Forwarding::start(directory.path(), &way, address).await;
            forwarding.append(&names("a", 20)).await;
            let is_away =
                || matches!(forwarding.destination.status().state, State::BackingOff { .. } | State::Held { .. });
            eventually("the destination is tried more than once", Duration::from_secs(20), async || {
                connections.load(Ordering::Relaxed) > 1 && is_away()
            })
            .await;
            let account = forwarding.account();
            assert_eq!((account.sent, account.lost.values().sum::<u64>()), (0, 0), "{badness:?}");
            assert!(forwarding.destination.status().last_error.is_some(), "{badness:?}");
            server.abort();
            let _ = server.await;

            let good = good_server(address).await;
            forwarding.accounted(20).await;
            assert_eq!((forwarding.account().sent, good.taken()), (20, names("a", 20)), "{badness:?}");
            forwarding.stop().await;
        }
    }
}

/// The port may need a moment until it is free.
pub async fn good_server(address: SocketAddr) -> Destination {
    let began = Instant::now();
    while std::net::TcpListener::bind(address).is_err() {
        assert!(began.elapsed() < Duration::from_secs(20), "{address} stays in use");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let options = destination::Options { address: Some(address), ..Default::default() };
    Destination::start(options, take_all).await
}

/// Forwarding to a destination that took `before` and died, and with its memory what it had taken.
async fn with_a_dead_destination(directory: &Path, way: &Way) -> (Forwarding, SocketAddr) {
    let destination = Destination::start(destination::Options::default(), take_all).await;
    let address = destination.address;
    let forwarding = Forwarding::start(directory, way, address).await;
    forwarding.append(&names("before", 5)).await;
    forwarding.accounted(5).await;
    (forwarding, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_shortly_before_a_destination_died_goes_again_if_so_configured() {
    let delivery = DeliverySettings { resend: Duration::from_secs(60), ..Default::default() };
    for way in Way::both() {
        let way = Way { delivery: delivery.clone(), ..way };
        let directory = TempDir::new().unwrap();
        let (forwarding, address) = with_a_dead_destination(directory.path(), &way).await;
        forwarding.append(&names("during", 5)).await;
        eventually("the destination is missed", Duration::from_secs(20), async || {
            matches!(forwarding.destination.status().state, State::BackingOff { .. })
        })
        .await;
        let second = good_server(address).await;
        forwarding.accounted(10).await;
        let expected = [names("before", 5), names("during", 5)].concat();
        eventually("what the dead one had taken is there again", Duration::from_secs(20), async || {
            let taken = second.taken();
            expected.iter().all(|name| taken.contains(name))
        })
        .await;
        let account = forwarding.account();
        assert_eq!((account.sent, account.lost.len()), (10, 0), "accounts know of each span once");
        forwarding.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_was_restarted_between_two_requests_gets_again_what_it_had_taken() {
    let delivery = DeliverySettings { resend: Duration::from_secs(60), ..Default::default() };
    for way in Way::both() {
        // A backoff that the test would not outlive: no request may fail.
        let way = Way { delivery: delivery.clone(), retry: Duration::from_secs(600), ..way };
        let directory = TempDir::new().unwrap();
        let (forwarding, address) = with_a_dead_destination(directory.path(), &way).await;
        let second = good_server(address).await;
        forwarding.append(&names("after", 5)).await;
        forwarding.accounted(10).await;
        eventually("what the one before had taken is there again", Duration::from_secs(20), async || {
            let taken = second.taken();
            [names("before", 5), names("after", 5)].concat().iter().all(|name| taken.contains(name))
        })
        .await;
        assert_eq!(forwarding.account().sent, 10, "accounts know of each span once");
        forwarding.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_closes_after_each_answer_gets_nothing_twice() {
    let delivery = DeliverySettings { resend: Duration::from_secs(600), ..Default::default() };
    let way = Way { delivery, ..Way::http() };
    let options = destination::Options { closes_after_each: true, ..Default::default() };
    let (destination, directory) = (Destination::start(options, take_all).await, TempDir::new().unwrap());
    let forwarding = Forwarding::start(directory.path(), &way, destination.address).await;
    let mut expected = Vec::new();
    for round in 1..=6 {
        let names = names(&format!("round-{round}"), 5);
        forwarding.append(&names).await;
        forwarding.accounted(round * 5).await;
        expected.extend(names);
    }
    assert!(destination.connections() >= 6, "it did close");
    forwarding.stop().await;
    assert_eq!(destination.taken(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_that_began_before_a_restart_is_remembered() {
    let delivery = DeliverySettings { resend: Duration::from_secs(60), ..Default::default() };
    let way = Way { delivery, ..Way::grpc() };
    let directory = TempDir::new().unwrap();
    let (forwarding, address) = with_a_dead_destination(directory.path(), &way).await;
    forwarding.append(&names("during", 5)).await;
    eventually("the destination is missed", Duration::from_secs(20), async || {
        matches!(forwarding.destination.status().state, State::BackingOff { .. })
    })
    .await;
    forwarding.stop().await;
    // What waits must have waited for longer than a restart takes.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let second = good_server(address).await;
    let forwarding = Forwarding::start(directory.path(), &way, address).await;
    forwarding.accounted(10).await;
    eventually("what the dead one had taken is there again", Duration::from_secs(20), async || {
        let taken = second.taken();
        names("before", 5).iter().all(|name| taken.contains(name))
    })
    .await;
    forwarding.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_trusted_without_a_restart_where_an_interval_is_set() {
    for way in Way::both() {
        let directory = TempDir::new().unwrap();
        let first = Destination::start(secured(directory.path()), take_all).await;
        let (address, ca) = (first.address, Pem::File(directory.path().join("ca.pem")));
        let tls = ClientTlsSettings {
            ca: Some(ca),
            reload_interval: Some(Duration::from_millis(1)),
            ..ClientTlsSettings::default()
        };
        let spool = TempDir::new().unwrap();
        let forwarding = Forwarding::start(spool.path(), &Way { tls, ..way }, address).await;
        forwarding.append(&names("a", 5)).await;
        forwarding.accounted(5).await;
        drop(first);
        eventually("the port is free", Duration::from_secs(20), async || std::net::TcpListener::bind(address).is_ok())
            .await;
        // Another certificate, and its file in the place of the first.
        let options = destination::Options { address: Some(address), ..secured(directory.path()) };
        let second = Destination::start(options, take_all).await;
        forwarding.append(&names("b", 5)).await;
        forwarding.accounted(10).await;
        assert_eq!(second.taken(), names("b", 5));
        forwarding.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exporters_say_who_they_are_and_logs_do_not() {
    const PASSWORD: &str = "p@ssword";
    let folder = TempDir::new().unwrap();
    let tokens = folder.path().join("tokens");
    std::fs::write(&tokens, "first\n").unwrap();
    let [basic, bearer, url] = [
        Destination::start(destination::Options::default(), take_all).await,
        Destination::start(destination::Options::default(), take_all).await,
        Destination::start(destination::Options::default(), take_all).await,
    ];
    let owned = |pairs: [(&str, String); 2]| pairs.map(|(id, settings)| (id.to_owned(), settings)).to_vec();
    let mut options = Options {
        extensions: owned([
            ("basicauth/client", format!("{{client_auth: {{username: me, password: '{PASSWORD}'}}}}")),
            ("bearertokenauth", format!("{{filename: '{}'}}", tokens.display())),
        ]),
        ..Options::default()
    };
    let exporter = |id: &str, endpoint: String, auth: &str| {
        let auth = if auth.is_empty() { String::new() } else { format!(", auth: {{authenticator: {auth}}}") };
        (id.to_owned(), format!("{{endpoint: '{endpoint}', tls: {{insecure: true}}{auth}}}"))
    };
    options.exporters = vec![
        exporter("otlp/basic", basic.address.to_string(), "basicauth/client"),
        exporter("otlphttp/bearer", format!("http://{}", bearer.address), "bearertokenauth"),
        exporter("otlphttp/url", format!("http://me:p%40ssword@{}", url.address), ""),
    ];
    let spanreel = Spanreel::start(&options).await;
    let traces = Traces { seed: 6, spans_per_trace: 1 };
    let mut client = Client::connect(spanreel.ports.grpc, Protocol::Grpc).await.unwrap();
    let mut sent = 0;
    let mut send = async || {
        let answer = client.export(&traces.request("shop", sent..sent + 1), Compression::Identity).await.unwrap();
        assert!(answer.is_ok(), "{answer:?}");
        sent += 1;
    };
    send().await;
    let said = |destination: &Destination| -> Vec<String> {
        let received = destination.received();
        received.iter().map(|it| it.headers["authorization"].to_str().unwrap().to_owned()).collect()
    };
    for (destination, expected) in
        [(&basic, "Basic bWU6cEBzc3dvcmQ="), (&bearer, "Bearer first"), (&url, "Basic bWU6cEBzc3dvcmQ=")]
    {
        eventually(expected, Duration::from_secs(30), async || !destination.received().is_empty()).await;
        assert!(said(destination).iter().all(|it| it == expected), "{:?}", said(destination));
    }
    let host = url.received()[0].headers.get("host").map(|host| host.to_str().unwrap().to_owned());
    assert_eq!(host, Some(url.address.to_string()));

    std::fs::write(&tokens, "second\n").unwrap();
    let began = Instant::now();
    while !said(&bearer).contains(&"Bearer second".to_owned()) {
        assert!(began.elapsed() < Duration::from_secs(60), "the token's file is read again");
        send().await;
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    drop(url);
    send().await;
    eventually("the outage is logged", Duration::from_secs(30), async || spanreel.log().contains("otlphttp/url")).await;
    let printed = [spanreel.log(), ask(&spanreel, &["status"]).1].concat();
    for secret in [PASSWORD, "p%40ssword", "bWU6cEBzc3dvcmQ", "Bearer"] {
        assert!(!printed.contains(secret), "{printed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn outside_its_hours_a_destination_gets_nothing_and_loses_nothing() {
    let minute = (SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 60) as u32;
    let time = |minute: u32| format!("{:02}:{:02}", minute / 60 % 24, minute % 60);
    let hours = |from: u32, to: u32| Hours::parse(&format!("{}-{}", time(minute + from), time(minute + to)));
    let (closed, open) = (hours(120, 180).unwrap(), hours(24 * 60 - 60, 120).unwrap());
    let destination = Destination::start(destination::Options::default(), take_all).await;
    let directory = TempDir::new().unwrap();
    let way = |hours| Way { delivery: DeliverySettings { hours: Some(hours), ..Default::default() }, ..Way::grpc() };
    let forwarding = Forwarding::start(directory.path(), &way(closed), destination.address).await;
    forwarding.append(&names("a", 5)).await;
    eventually("it says why nothing goes", Duration::from_secs(20), async || {
        matches!(forwarding.destination.status().state, State::OutsideHours { .. })
    })
    .await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!((destination.connections(), forwarding.account().accounted()), (0, 0));
    forwarding.stop().await;

    let forwarding = Forwarding::start(directory.path(), &way(open), destination.address).await;
    forwarding.accounted(5).await;
    assert_eq!(destination.taken(), names("a", 5));
    forwarding.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_is_kept() {
    const LIMIT: u64 = 8 * 1024;
    let destination = Destination::start(destination::Options::default(), take_all).await;
    let delivery = DeliverySettings { bytes_per_second_max: Some(LIMIT), ..Default::default() };
    let way = Way { delivery, compression: forward::settings::Compression::None, ..Way::http() };
    let directory = TempDir::new().unwrap();
    let forwarding = Forwarding::start(directory.path(), &way, destination.address).await;
    let began = Instant::now();
    for round in 0..8 {
        forwarding.append(&names(&format!("{round}"), 100)).await;
        forwarding.accounted((round + 1) * 100).await;
    }
    let received = destination.received();
    // What came before a request had its time until that request came.
    let mut bytes = 0;
    for request in &received {
        let earliest = began + Duration::from_secs_f64(bytes as f64 / LIMIT as f64);
        assert!(request.at >= earliest, "{:?} too early", earliest - request.at);
        bytes += request.raw_bytes;
    }
    assert!(bytes as u64 > 2 * LIMIT, "the limit had something to do: {bytes}");
    forwarding.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_answers_slowly_stops_no_other() {
    const REQUESTS: u64 = 160;
    const SPANS: u64 = 16;
    // More in all than bodies under way may take, several times.
    const NOISE_BYTES: usize = 8 * 1024;
    let is_slow = Arc::new(AtomicBool::new(false));
    let slowly = {
        let is_slow = Arc::clone(&is_slow);
        move |_: &Received| match is_slow.load(Ordering::Relaxed) {
            true => Answer::Silence(Duration::from_secs(600)),
            false => Answer::Ok,
        }
    };
    let slow = Destination::start(destination::Options::default(), slowly).await;
    let quick = Destination::start(destination::Options::default(), take_all).await;
    // Within its timeout a destination that takes long is one that answers.
    let exporter = |destination: &Destination| {
        format!("{{endpoint: 'http://{}', compression: none, timeout: 600s}}", destination.address)
    };
    let exporters = [("otlphttp/slow", exporter(&slow)), ("otlphttp/quick", exporter(&quick))];
    let exporters = exporters.map(|(id, settings)| (id.to_owned(), settings)).to_vec();
    let spanreel = Spanreel::start(&Options { exporters, ..Options::default() }).await;
    let traces = Traces { seed: 8, spans_per_trace: SPANS as usize };
    let mut client = Client::connect(spanreel.ports.grpc, Protocol::Grpc).await.unwrap();
    for index in 0..REQUESTS {
        let mut request = traces.request("shop", index..index + 1);
        for (at, span) in request.resource_spans[0].scope_spans[0].spans.iter_mut().enumerate() {
            let noise = noise(index * SPANS + at as u64, NOISE_BYTES);
            span.attributes.push(attribute("noise", Value::StringValue(noise)));
        }
        assert!(client.export(&request, Compression::Identity).await.unwrap().is_ok());
        if index == 0 {
            eventually("both answer", Duration::from_secs(20), async || {
                !slow.taken().is_empty() && !quick.taken().is_empty()
            })
            .await;
            is_slow.store(true, Ordering::Relaxed);
        }
    }
    eventually("the quick one has everything", Duration::from_secs(60), async || {
        quick.taken().len() as u64 == REQUESTS * SPANS
    })
    .await;
    assert_eq!(slow.taken().len() as u64, SPANS, "the other one was slow all the while");
}

/// Output of a subcommand against the running process.
fn ask(spanreel: &Spanreel, arguments: &[&str]) -> (bool, String) {
    let endpoint = format!("http://127.0.0.1:{}", spanreel.ports.query);
    let output = binary().args(arguments).args(["--endpoint", &endpoint]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_shown_tried_again_and_dropped() {
    let is_strict = Arc::new(AtomicBool::new(true));
    let strict = Arc::clone(&is_strict);
    let answer = move |received: &Received| match received.span_names.is_empty() || !strict.load(Ordering::Relaxed) {
        true => Answer::Ok,
        false => Answer::Grpc { code: 3, message: "not today", retry_after: None },
    };
    let destination = Destination::start(destination::Options::default(), answer).await;
    let spanreel =
        Spanreel::start(&Options::default().with_grpc_destination("otlp/strict", destination.address.port())).await;
    let traces = Traces { seed: 5, spans_per_trace: 1 };
    let mut client = Client::connect(spanreel.ports.grpc, Protocol::Grpc).await.unwrap();
    for index in 0..2 {
        assert!(client.export(&traces.request("shop", index..index + 1), Compression::Identity).await.unwrap().is_ok());
        eventually("the span is parked", Duration::from_secs(20), async || {
            let (_, listed) = ask(&spanreel, &["dead-letters"]);
            listed.lines().filter(|line| line.contains("not today")).count() == index as usize + 1
        })
        .await;
    }
    let (_, listed) = ask(&spanreel, &["dead-letters", "list"]);
    let ids: Vec<&str> = listed.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert!(ids[0].starts_with("otlp/strict@traces:"), "{listed}");
    let (shows, shown) = ask(&spanreel, &["dead-letters", "show", ids[0]]);
    assert!(shows && shown.contains("resourceSpans") && shown.contains("shop"), "{shown}");

    let (is_ok, text) = ask(&spanreel, &["dead-letters", "retry", ids[0]]);
    assert!(!is_ok && text.contains("not today"), "still refused, and kept: {text}");
    is_strict.store(false, Ordering::Relaxed);
    assert_eq!(ask(&spanreel, &["dead-letters", "retry", ids[0]]), (true, "delivered 1, rejected 0\n".to_owned()));
    assert_eq!(destination.taken().len(), 1);
    assert!(ask(&spanreel, &["dead-letters", "drop", ids[1]]).0);
    assert_eq!(ask(&spanreel, &["dead-letters"]), (true, "no dead letters\n".to_owned()));
    assert!(!ask(&spanreel, &["dead-letters", "show", ids[1]]).0);

    let metrics = spanreel.metrics().await;
    let sum = |name: &str, labels: &[(&str, &str)]| metrics.sum(name, labels).unwrap_or(0.0) as u64;
    assert_eq!(sum("spanreel_spans_sent_total", &[]), 1, "what was delivered late is sent");
    assert_eq!(sum("spanreel_spans_expired_total", &[("reason", "poison")]), 1, "what was dropped stays lost");
    assert_eq!(sum("spanreel_spans_queued", &[]), 0);
}
