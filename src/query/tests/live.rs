//! The stream of new traces, as a browser that stays sees it.

use tokio_util::sync::CancellationToken;

use super::*;

#[tokio::test]
async fn a_stream_says_at_once_where_it_stands_and_at_the_end_that_the_process_stops() {
    let stopping = CancellationToken::new();
    let state = QueryState::new(Arc::new(Stored(Memory::default())), Arc::new(Process), QueryLimits::default());
    let api = Api(router(state.until(stopping.clone())));
    let request = Request::get("/ui/api/live").body(Body::empty()).unwrap();
    let mut body = api.call(request).await.into_body();
    let opening = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(&opening[..], b"retry: 2000\nid: 0.0\n\n");

    stopping.cancel();
    let rest = body.collect().await.unwrap().to_bytes();
    let rest = std::str::from_utf8(&rest).unwrap();
    assert!(rest.ends_with("event: end\ndata: {\"message\":\"Spanreel is stopping\"}\n\n"), "{rest}");
}
