//! The tail sampling of running pipelines: planned and exchanged with them, ended once nobody reads behind it.

use super::pipelines::{StartError, Task, keep_running};
use super::{Shared, intake::PipelineIntake};
use crate::forward::Sampling;
use crate::spool::sampled_out;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The decider's cursor, whatever the processor's id is: a pipeline has one at most.
pub(super) const CURSOR: &str = sampled_out::DECIDER;

/// What decides at present, by pipeline.
#[derive(Default)]
pub(super) struct Samplings {
    running: Vec<Running>,
}

struct Running {
    pipeline: String,
    sampling: Sampling,
    task: Task,
    /// Its pipeline samples no more, but destinations that left still read behind it.
    leaving: bool,
}

/// What is going to decide about a pipeline.
pub(super) struct PlannedSampling {
    pipeline: String,
    pub sampling: Sampling,
    /// It is to be started, in the place of another one if there is one.
    is_new: bool,
}

impl PlannedSampling {
    /// It is not going to run: a cursor that was taken up for it holds nothing back.
    pub fn abandon(&self, running: &Samplings) {
        if !running.running.iter().any(|running| running.pipeline == self.pipeline) {
            self.sampling.consumer().retire();
        }
    }
}

impl Samplings {
    /// What a pipeline asks for. Disturbs nobody.
    pub async fn plan(
        &self,
        shared: &Shared,
        pipeline: &str,
        intake: &PipelineIntake,
    ) -> Result<Option<PlannedSampling>, StartError> {
        let running = self.running.iter().find(|running| running.pipeline == pipeline);
        let (spool, id) = (shared.spool.clone(), intake.id);
        let planned = |sampling, is_new| Some(PlannedSampling { pipeline: pipeline.to_owned(), sampling, is_new });
        match (intake.chain.tail_sampling(), running) {
            (None, Some(_)) => Ok(None),
            (None, None) => {
                blocking(move || spool.remove_consumer(CURSOR, id)).await?;
                Ok(None)
            }
            (Some(settings), Some(running)) => {
                let is_same = running.sampling.settings() == settings;
                let sampling =
                    if is_same { running.sampling.clone() } else { running.sampling.with_settings(settings) };
                Ok(planned(sampling, !is_same))
            }
            (Some(settings), None) => {
                let consumer = {
                    let spool = spool.clone();
                    blocking(move || spool.consumer(CURSOR, id)).await?
                };
                let sampling = Sampling::new(pipeline, settings, &spool, consumer, &shared.sampling_metrics);
                let sampling = if shared.marks_sampled_out { sampling.marking() } else { sampling };
                Ok(planned(sampling, true))
            }
        }
    }

    /// Starts what is new in the place of what was, under `parent` and on `tasks`.
    pub async fn exchange(&mut self, planned: Vec<PlannedSampling>, parent: &CancellationToken, tasks: &TaskTracker) {
        for running in &mut self.running {
            running.leaving = !planned.iter().any(|planned| planned.pipeline == running.pipeline);
        }
        for PlannedSampling { pipeline, sampling, .. } in planned.into_iter().filter(|planned| planned.is_new) {
            if let Some(place) = self.running.iter().position(|running| running.pipeline == pipeline) {
                self.running.swap_remove(place).task.stop().await;
            }
            let task = Task::child_of(parent);
            let (decides, until) = (sampling.clone(), task.clone());
            self.running.push(Running { pipeline: pipeline.clone(), sampling, task, leaving: false });
            tasks.spawn(async move {
                keep_running(&format!("tail_sampling of {pipeline}"), &until.stop, || decides.run(until.stop.clone()))
                    .await;
                until.ended.cancel();
            });
        }
    }

    /// Nobody reads behind them any more: their cursors hold nothing back from now on.
    pub fn retire(&self) {
        self.running.iter().for_each(|running| running.sampling.consumer().retire());
    }

    /// Ends those whose pipeline samples no more and behind which nobody reads.
    pub async fn tidy(&mut self, is_read: impl Fn(&str) -> bool) {
        let (done, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.running)
            .into_iter()
            .partition(|running| running.leaving && !is_read(&running.pipeline));
        self.running = kept;
        for Running { pipeline, sampling, task, .. } in done {
            task.stop().await;
            if let Err(error) = blocking(move || sampling.consumer().remove()).await {
                tracing::warn!(pipeline, %error, "what tail_sampling noted could not be taken away; the next start tries again");
            }
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, crate::spool::ReadError> + Send + 'static,
) -> Result<T, StartError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|error| StartError::Internal(error.to_string()))?;
    Ok(done?)
}
