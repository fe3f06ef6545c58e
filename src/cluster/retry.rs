//! Trying again until the API server plays along, and saying so once.

use std::fmt::Display;
use std::time::Duration;

use kube::runtime::watcher;
use tokio_util::sync::CancellationToken;

const DELAY_MIN: Duration = Duration::from_millis(500);
const DELAY_MAX: Duration = Duration::from_secs(30);

/// Longest time for one step against the API server; a hanging connection must not stop everything.
pub(super) const STEP_TIMEOUT: Duration = Duration::from_secs(45);

/// Remembers what was last said about one activity, so that the log has a line per change and not per attempt.
#[derive(Debug)]
pub(super) struct State {
    activity: &'static str,
    failing: Option<String>,
}

impl State {
    pub(super) fn new(activity: &'static str) -> Self {
        Self { activity, failing: None }
    }

    pub(super) fn ok(&mut self) {
        if self.failing.take().is_some() {
            tracing::info!(activity = self.activity, "the API server plays along again");
        }
    }

    pub(super) fn failed(&mut self, error: &impl Display) {
        let error = error.to_string();
        if self.failing.as_ref() != Some(&error) {
            tracing::warn!(activity = self.activity, %error, "not possible now; tried again until it is, everything else goes on");
            self.failing = Some(error);
        }
    }
}

/// Whether a watch only has to begin again with a list, which it does by itself: the API server forgot the version that
/// it was at. Nothing is missed.
pub(super) fn is_expiry(error: &watcher::Error) -> bool {
    const GONE: u16 = 410;
    match error {
        watcher::Error::WatchError(status) => status.code == GONE,
        watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == GONE,
        _ => false,
    }
}

/// Repeats `step` until it succeeds, with growing delays; `None`: shut down meanwhile.
pub(super) async fn until_done<T, E: Display, F: Future<Output = Result<T, E>>>(
    activity: &'static str,
    shutdown: &CancellationToken,
    mut step: impl FnMut() -> F,
) -> Option<T> {
    let mut state = State::new(activity);
    let mut delay = DELAY_MIN;
    loop {
        let attempt = tokio::time::timeout(STEP_TIMEOUT, step());
        match shutdown.run_until_cancelled(attempt).await? {
            Ok(Ok(done)) => {
                state.ok();
                return Some(done);
            }
            Ok(Err(error)) => state.failed(&error),
            Err(_) => state.failed(&"no answer within 45 s"),
        }
        shutdown.run_until_cancelled(tokio::time::sleep(delay)).await?;
        delay = (delay * 2).min(DELAY_MAX);
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn a_version_that_is_forgotten_is_an_expiry_and_nothing_else_is() {
        let status = |code: u16| Box::new(Status::failure("too old resource version", "Expired").with_code(code));
        assert!(is_expiry(&watcher::Error::WatchError(status(410))));
        assert!(is_expiry(&watcher::Error::WatchStartFailed(kube::Error::Api(status(410)))));
        assert!(!is_expiry(&watcher::Error::WatchError(status(500))));
        assert!(!is_expiry(&watcher::Error::WatchStartFailed(kube::Error::Api(status(403)))));
        assert!(!is_expiry(&watcher::Error::NoResourceVersion));
    }
}
