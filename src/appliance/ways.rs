//! The ways through pipelines: from where data comes in to every pipeline that takes it, `forward` connectors included.

use super::components::Components;
use super::connectors::ConnectorSettings;
use super::intake::PipelineIntake;
use super::pipelines::StartError;
use crate::config::{ComponentId, Config, Pipeline};
use crate::otlp::Signal;

/// Each way is an append of its own. Pipelines that fork and meet again multiply their ways.
const WAYS_MAX: usize = 64;

/// The pipelines of a configuration with what stands at their beginning.
pub(super) struct Ways<'a> {
    config: &'a Config<Components>,
    /// In the order of the configuration's pipelines.
    intakes: &'a [PipelineIntake],
}

impl<'a> Ways<'a> {
    pub fn new(config: &'a Config<Components>, intakes: &'a [PipelineIntake]) -> Self {
        Self { config, intakes }
    }

    /// Where requests of `signal` go that this receiver takes in.
    pub fn of_receiver(&self, id: &ComponentId, signal: Signal) -> Result<Vec<PipelineIntake>, StartError> {
        self.from(id, |pipeline| pipeline.signal == signal && pipeline.receivers.contains(id))
    }

    /// Where requests go that this connector makes.
    pub fn of_connector(&self, id: &ComponentId) -> Result<Vec<PipelineIntake>, StartError> {
        self.from(id, |pipeline| pipeline.fed_by.contains(id))
    }

    fn from(&self, id: &ComponentId, begins: impl Fn(&Pipeline) -> bool) -> Result<Vec<PipelineIntake>, StartError> {
        let mut found: Vec<PipelineIntake> = Vec::new();
        let all = || self.config.service.pipelines.iter().zip(self.intakes);
        let mut open: Vec<(&Pipeline, PipelineIntake)> = all()
            .filter(|(pipeline, _)| begins(pipeline))
            .map(|(pipeline, intake)| (pipeline, intake.clone()))
            .collect();
        // There are no circles: the configuration was checked for them.
        while let Some((pipeline, intake)) = open.pop() {
            for (next, behind) in all().filter(|(next, _)| self.is_forwarded(pipeline, next)) {
                let chain = intake.chain.then(&behind.chain);
                open.push((next, PipelineIntake { chain, ..behind.clone() }));
            }
            found.push(intake);
            if found.len() + open.len() > WAYS_MAX {
                let problem =
                    format!("{id} reaches pipelines by more than {WAYS_MAX} ways; use fewer forward connectors");
                return Err(StartError::Internal(problem));
            }
        }
        Ok(found)
    }

    fn is_forwarded(&self, from: &Pipeline, to: &Pipeline) -> bool {
        let is_forward = |id: &&ComponentId| {
            self.config.connectors.get(*id).is_some_and(|it| it.settings == ConnectorSettings::Forward)
        };
        from.signal == to.signal && from.feeds.iter().filter(is_forward).any(|id| to.fed_by.contains(id))
    }
}
