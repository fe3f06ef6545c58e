//! What goes again after a destination was away, as far as the spool still has it.

use super::Source;
use crate::forward::link::{Link, Transport, Verdict};
use crate::forward::request::{Halves, Piece};
use crate::spool::{Batch, ReadLimits, Seq};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Batches that are read at once, at most.
const BATCHES_MAX: usize = 512;

/// Parts of a request that are refused for their content are cut in two so often; what is left then is left out.
const REFUSALS_MAX: u32 = 100;

/// So long before the last batch of a stretch became durable; 0 if that is not known.
pub(super) async fn since_last<S: Source>(source: S, (from, end): (Seq, Seq), nanos: u64) -> u64 {
    let last = Seq(end.0.saturating_sub(1)).max(from);
    let limits = ReadLimits { raw_bytes_max: 0, spans_max: 0, batches_max: 1 };
    let Ok(Ok(chunk)) = tokio::task::spawn_blocking(move || source.read(last, limits)).await else { return 0 };
    let received = chunk.batches.first().filter(|batch| batch.seq < end).map(|batch| batch.header.received);
    received.map_or(0, |received| received.saturating_sub(nanos))
}

/// Sends what the spool still has of a stretch, of what became durable from `since` on; how many spans the destination took.
pub(super) async fn resend<S: Source, T: Transport>(
    source: S,
    link: &Link<T>,
    since: u64,
    (mut next, end): (Seq, Seq),
    shutdown: &CancellationToken,
) -> u64 {
    let mut sent = 0;
    while next < end {
        let from = next;
        let limits =
            ReadLimits { raw_bytes_max: link.request_raw_bytes_max(), spans_max: u64::MAX, batches_max: BATCHES_MAX };
        let source = source.clone();
        let read = tokio::task::spawn_blocking(move || source.read(from, limits)).await;
        let Ok(Ok(chunk)) = read else {
            warn!(
                destination = link.name,
                from = from.0,
                end = end.0,
                "the spool cannot be read: the rest does not go again"
            );
            break;
        };
        if chunk.next <= from {
            break;
        }
        next = chunk.next;
        let batches: Vec<Batch> =
            chunk.batches.into_iter().filter(|batch| batch.seq < end && batch.header.received >= since).collect();
        if batches.is_empty() {
            continue;
        }
        match send(link, Piece::Batches(batches), shutdown).await {
            Some(taken) => sent += taken,
            None => break,
        }
    }
    sent
}

/// Sends a piece, in as many as the destination wants; how many spans it took. `None`: shutting down.
async fn send<T: Transport>(link: &Link<T>, piece: Piece, shutdown: &CancellationToken) -> Option<u64> {
    let spans = piece.spans();
    let (mut sent, mut refusals, mut work) = (0, 0, vec![piece]);
    while let Some(piece) = work.pop() {
        // Behind everything that is new: a closed gate lets the oldest through first.
        match link.attempt(Seq(u64::MAX), shutdown, &piece).await? {
            Verdict::Delivered { rejected_spans } => {
                sent += piece.spans().saturating_sub(rejected_spans);
                continue;
            }
            Verdict::TooMuch { .. } => link.learn_burst(piece.raw_bytes()),
            Verdict::TooLarge { .. } => link.learn_size(piece.raw_bytes()),
            // Accounts have what became of it when it was first sent; its neighbours go without it.
            Verdict::Refused { .. } | Verdict::Internal { .. } if refusals < REFUSALS_MAX => refusals += 1,
            Verdict::Refused { .. } | Verdict::Internal { .. } | Verdict::GivenUp { .. } | Verdict::Damaged { .. } => {
                continue;
            }
        }
        if let Ok(Halves::Two(left, right)) = piece.halves().await {
            work.extend([right, left]);
        }
    }
    link.left_out_of_resend(spans.saturating_sub(sent));
    Some(sent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::answer::Answer;
    use crate::forward::body::Dialect;
    use crate::forward::budget::Budget;
    use crate::forward::metrics::Metrics;
    use crate::forward::settings::{Compression, RetrySettings};
    use crate::forward::testing::{Model, Scripted, batch_of, span_name};
    use std::time::Duration;

    /// Sends two batches of ten spans again; which spans were taken, and how many are counted as left out.
    async fn sent_again(answer: impl Fn(&[String]) -> Option<Answer> + Send + Sync + 'static) -> (Vec<String>, u64) {
        let delay = Duration::from_millis(1);
        let retry = RetrySettings { initial_interval: delay, max_interval: delay, ..Default::default() };
        let transport = Scripted::new(move |names: &[String]| {
            answer(names).unwrap_or(Answer::Delivered { rejected_spans: 0, message: String::new() })
        });
        let (metrics, budget) = (Metrics::default(), Budget::default());
        let link = Link::new("test", transport, Dialect::Grpc, Compression::Auto, retry, metrics.of("test"), &budget);
        let model = Model::new(vec![batch_of(1, 10), batch_of(2, 10)]);
        let sent = resend(model, &link, 0, (Seq(1), Seq(3)), &CancellationToken::new()).await;
        let taken = link.transport().taken.lock().unwrap().clone();
        assert_eq!(sent, taken.len() as u64);
        (taken, metrics.of("test").left_out_of_resend_for_test())
    }

    fn all() -> Vec<String> {
        (1..=2).flat_map(|seq| (0..10).map(move |index| span_name(seq, index))).collect()
    }

    #[tokio::test]
    async fn what_a_rate_limit_never_lets_pass_goes_again_in_parts() {
        let after = Some(Duration::from_millis(1));
        let limit = move |names: &[String]| {
            (names.len() > 7).then(|| Answer::Limited { after, why: "RATE_LIMITED".to_owned() })
        };
        assert_eq!(sent_again(limit).await, (all(), 0));
        let limit = |names: &[String]| (names.len() > 7).then(|| Answer::TooLarge { why: "too large".to_owned() });
        assert_eq!(sent_again(limit).await, (all(), 0));
    }

    #[tokio::test]
    async fn what_is_not_taken_again_is_counted() {
        let refuse = |_: &[String]| Some(Answer::Refused { why: "no".to_owned() });
        assert_eq!(sent_again(refuse).await, (Vec::new(), 20));
    }

    #[tokio::test]
    async fn what_is_refused_for_one_span_goes_again_without_it() {
        let bad = |name: &String| name == "2/3";
        let refuse =
            move |names: &[String]| names.iter().any(bad).then(|| Answer::Refused { why: "bad id".to_owned() });
        let others: Vec<String> = all().into_iter().filter(|name| !bad(name)).collect();
        assert_eq!(sent_again(refuse).await, (others, 1));
    }
}
