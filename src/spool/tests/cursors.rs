//! Cursors and accounts: they move together, over reopening too, and go when nothing is left to account for.

use super::*;

#[tokio::test]
async fn pipelines_of_which_nothing_is_left_are_forgotten_and_their_numbers_given_out_again() {
    let directory = TempDir::new().unwrap();
    let spool = open(&directory);
    let [kept, behind, empty] = ["a/kept/traces", "a/behind/traces", "a/empty/traces"];
    let all = || [kept, behind, empty].map(str::to_owned).to_vec();
    let (kept_id, behind_id) = (spool.pipeline(kept).await.unwrap(), spool.pipeline(behind).await.unwrap());
    let empty_id = spool.pipeline(empty).await.unwrap();
    spool.append(append(kept_id, &[1], 3)).await.unwrap();
    spool.append(append(behind_id, &[1], 4)).await.unwrap();
    let (of_behind, of_empty) = (spool.consumer("otlp", behind_id).unwrap(), spool.consumer("otlp", empty_id).unwrap());
    assert_eq!(spool.forget(all()).await.unwrap(), 0, "its destination is configured");
    of_behind.retire();
    of_empty.retire();
    assert_eq!(spool.forget(vec!["traces".to_owned()]).await.unwrap(), 0);
    assert_eq!(spool.forget(all()).await.unwrap(), 1, "what is stored keeps its account");
    spool.close().await;
    drop((spool, of_behind, of_empty));

    let spool = open(&directory);
    let names = |spool: &Spool| -> Vec<String> {
        spool.snapshot().ledger.known().map(|(_, account)| account.name.clone()).collect()
    };
    assert_eq!(names(&spool), [kept, behind]);
    let new = spool.pipeline("a/new/traces").await.unwrap();
    assert_eq!(new, empty_id, "its number is free");
    assert_eq!(spool.pipeline(kept).await.unwrap(), kept_id);
    let consumer = spool.consumer("otlp", new).unwrap();
    spool.append(append(new, &[2], 5)).await.unwrap();
    assert_eq!(consumer.backlog().spans, 5);
    check_ledger(&spool);
}

#[tokio::test]
async fn a_forgotten_pipeline_that_extents_still_speak_of_keeps_its_number() {
    let mut ledger = Ledger::default();
    let (id, _) = ledger.register("a/one/traces", Signal::Traces, |_| false).unwrap();
    ledger.account_mut(id).unwrap().stored = 7;
    ledger.forget(id);
    assert_eq!(ledger.stored_spans(), 7, "what the log is checked against stays");
    let (other, _) = ledger.register("a/two/traces", Signal::Traces, |_| false).unwrap();
    assert_ne!(other, id);
    assert_eq!(ledger.register("a/three/traces", Signal::Traces, |_| true), Some((id, true)));
    assert_eq!(ledger.account(id).unwrap().stored, 0);
}

#[tokio::test]
async fn what_was_sent_ahead_of_the_cursor_is_booked_at_once_and_jumped_over_after_a_restart_too() {
    let directory = TempDir::new().unwrap();
    let spool = open(&directory);
    let traces = spool.pipeline("traces").await.unwrap();
    let consumer = spool.consumer("otlp", traces).unwrap();
    // Batches 1 to 6, of as many spans.
    for spans in 1..=6 {
        spool.append(append(traces, &[spans], spans)).await.unwrap();
    }
    let sent = |sent| Outcome { sent, ..Outcome::default() };
    assert!(consumer.advance(Seq(1), Seq(2), sent(1)).unwrap());
    assert!(consumer.advance_ahead(Seq(4), Seq(5), sent(4)).unwrap());
    assert!(!consumer.advance_ahead(Seq(4), Seq(5), sent(4)).unwrap(), "it is booked already");
    assert!(!consumer.advance_ahead(Seq(6), Seq(7), sent(6)).unwrap(), "there is one stretch at a time");
    let refused = Outcome { lost: vec![(LossReason::Poison, 5)], ..Outcome::default() };
    assert!(consumer.advance_ahead(Seq(5), Seq(6), refused).unwrap());
    let stands = |consumer: &Consumer| (consumer.position(), consumer.ahead(), consumer.backlog().spans);
    assert_eq!(stands(&consumer), (Seq(2), Some((Seq(4), Seq(6))), 2 + 3 + 6));
    check_ledger(&spool);
    spool.close().await;
    drop((spool, consumer));

    let spool = open(&directory);
    let consumer = spool.consumer("otlp", traces).unwrap();
    assert_eq!(stands(&consumer), (Seq(2), Some((Seq(4), Seq(6))), 2 + 3 + 6));
    let newest = consumer.newest(Seq(u64::MAX)).unwrap();
    assert!(newest.end == Seq(7) && newest.received.is_some(), "{newest:?}");
    assert!(consumer.advance(Seq(2), Seq(4), sent(5)).unwrap());
    assert_eq!(stands(&consumer), (Seq(6), None, 6));
    check_ledger(&spool);
    assert!(consumer.advance(Seq(6), Seq(7), sent(6)).unwrap());
    assert_eq!(stands(&consumer), (Seq(7), None, 0));
    check_ledger(&spool);
    spool.close().await;
}

#[tokio::test]
async fn a_cursor_moves_with_its_account_and_survives() {
    let directory = TempDir::new().unwrap();
    let spool = open(&directory);
    let traces = spool.pipeline("traces").await.unwrap();
    spool.append(append(traces, &[1], 5)).await.unwrap();
    let late = spool.consumer("late", traces).unwrap();
    assert_eq!(late.position(), Seq(2));
    spool.append(append(traces, &[2], 3)).await.unwrap();
    let outcome = Outcome {
        sent: 1,
        lost: vec![(LossReason::Poison, 2)],
        parked: vec![Parked { seq: Seq(2), spans: 2, answer: "no".to_owned(), frame: Bytes::from_static(b"frame") }],
        ..Outcome::default()
    };
    assert!(late.advance(Seq(2), Seq(3), outcome.clone()).unwrap());
    assert!(!late.advance(Seq(2), Seq(3), outcome).unwrap(), "booked twice");
    spool.append(append(traces, &[3], 4)).await.unwrap();
    assert_eq!(late.backlog().spans, 4);
    check_ledger(&spool);
    spool.close().await;
    drop((spool, late));

    let spool = open(&directory);
    let late = spool.consumer("late", traces).unwrap();
    assert_eq!((late.position(), late.backlog().spans), (Seq(3), 4));
    check_ledger(&spool);
}
