//! What a query mentions.

use std::collections::BTreeSet;

use super::ast::{
    Aggregate, Expression, Field, FirstStage, Metrics, OverTime, Pipeline, Query, Root, Scalar, Spanset, Stage,
};
use super::value::Value;

impl Query {
    /// The value of a hint, `with(name=...)`; of several by one name the first.
    #[must_use]
    pub fn hint(&self, name: &str) -> Option<&Value> {
        self.hints.iter().find(|hint| hint.name == name).map(|hint| &hint.value)
    }

    /// Whether a hint is there and says `true`.
    #[must_use]
    pub fn is_hinted(&self, name: &str) -> bool {
        self.hint(name) == Some(&Value::Bool(true))
    }

    /// The pipeline of a search, or those of all series, in the order written.
    #[must_use]
    pub fn pipelines(&self) -> Vec<&Pipeline> {
        match &self.root {
            Root::Search(pipeline) => vec![pipeline],
            Root::Metrics(metrics) => metrics.series().into_iter().map(|(pipeline, _)| pipeline).collect(),
        }
    }
}

impl Query {
    /// How much there is to do for each segment and each trace: stages, filters, aggregates, attributes that are grouped by
    /// or shown, quantiles. What is within one filter counts as one.
    #[must_use]
    pub fn parts(&self) -> usize {
        match &self.root {
            Root::Search(pipeline) => pipeline.parts(),
            Root::Metrics(metrics) => metrics.parts(),
        }
    }
}

impl Metrics {
    fn parts(&self) -> usize {
        match self {
            Self::Series { pipeline, first } => pipeline.parts() + first.parts(),
            Self::Staged { of, stages } => of.parts() + stages.len(),
            Self::Binary { left, right, .. } => left.parts() + right.parts(),
            Self::Constant(_) => 1,
        }
    }

    /// What the series of an expression are made of, in the order written.
    #[must_use]
    pub fn series(&self) -> Vec<(&Pipeline, &FirstStage)> {
        match self {
            Self::Series { pipeline, first } => vec![(pipeline, first)],
            Self::Staged { of, .. } => of.series(),
            Self::Binary { left, right, .. } => [left.series(), right.series()].concat(),
            Self::Constant(_) => Vec::new(),
        }
    }
}

impl FirstStage {
    fn parts(&self) -> usize {
        match self {
            Self::Over { function: OverTime::Quantile(_, quantiles), by } => quantiles.len() + by.len(),
            Self::Over { by, .. } => 1 + by.len(),
            Self::Compare { selection, .. } => selection.parts(),
        }
    }

    /// The fields that are grouped by or folded; for `compare` those of its selection.
    #[must_use]
    pub fn fields(&self) -> BTreeSet<&Field> {
        match self {
            Self::Over { function, by } => by.iter().chain(function.field()).collect(),
            Self::Compare { selection, .. } => {
                let mut fields = BTreeSet::new();
                selection.expressions(&mut |expression| fields.extend(expression.fields()));
                fields
            }
        }
    }
}

impl OverTime {
    /// The field that is folded; none for those that count spans.
    #[must_use]
    pub fn field(&self) -> Option<&Field> {
        match self {
            Self::Rate | Self::Count => None,
            Self::Min(field)
            | Self::Max(field)
            | Self::Avg(field)
            | Self::Sum(field)
            | Self::Histogram(field)
            | Self::Quantile(field, _) => Some(field),
        }
    }
}

impl Pipeline {
    fn parts(&self) -> usize {
        let of_stage = |stage: &Stage| match stage {
            Stage::Spanset(set) => set.parts(),
            Stage::Filter { left, right, .. } => 1 + left.parts() + right.parts(),
            Stage::By(_) | Stage::Coalesce => 1,
            Stage::Select(fields) => fields.len(),
        };
        self.stages.iter().map(of_stage).sum()
    }

    /// Every expression that decides what is found: filters, groupings, what aggregates fold.
    pub fn expressions<'a>(&'a self, visit: &mut dyn FnMut(&'a Expression)) {
        for stage in &self.stages {
            match stage {
                Stage::Spanset(set) => set.expressions(visit),
                Stage::Filter { left, right, .. } => {
                    left.expressions(visit);
                    right.expressions(visit);
                }
                Stage::By(by) => visit(by),
                Stage::Coalesce | Stage::Select(_) => {}
            }
        }
    }

    /// The fields of [`Pipeline::expressions`].
    #[must_use]
    pub fn condition_fields(&self) -> BTreeSet<&Field> {
        let mut fields = BTreeSet::new();
        self.expressions(&mut |expression| fields.extend(expression.fields()));
        fields
    }

    /// The fields of `select(...)`, in the order written, each once, those of pipelines in parentheses included.
    #[must_use]
    pub fn selected_fields(&self) -> Vec<&Field> {
        let mut selected = Vec::new();
        self.select(&mut |field| {
            if !selected.contains(&field) {
                selected.push(field);
            }
        });
        selected
    }

    fn select<'a>(&'a self, visit: &mut dyn FnMut(&'a Field)) {
        for stage in &self.stages {
            match stage {
                Stage::Select(fields) => fields.iter().for_each(&mut *visit),
                Stage::Spanset(set) => set.select(visit),
                Stage::Filter { .. } | Stage::By(_) | Stage::Coalesce => {}
            }
        }
    }
}

impl Spanset {
    fn parts(&self) -> usize {
        match self {
            Self::Spans(_) => 1,
            Self::Binary { left, right, .. } => left.parts() + right.parts(),
            Self::Pipeline(pipeline) => 1 + pipeline.parts(),
        }
    }

    /// The filters in it, from left to right.
    pub fn expressions<'a>(&'a self, visit: &mut dyn FnMut(&'a Expression)) {
        match self {
            Self::Spans(filter) => filter.iter().for_each(visit),
            Self::Binary { left, right, .. } => {
                left.expressions(visit);
                right.expressions(visit);
            }
            Self::Pipeline(pipeline) => pipeline.expressions(visit),
        }
    }

    fn select<'a>(&'a self, visit: &mut dyn FnMut(&'a Field)) {
        match self {
            Self::Spans(_) => {}
            Self::Binary { left, right, .. } => {
                left.select(visit);
                right.select(visit);
            }
            Self::Pipeline(pipeline) => pipeline.select(visit),
        }
    }
}

impl Scalar {
    fn parts(&self) -> usize {
        match self {
            Self::Literal(_) | Self::Aggregate(_) => 1,
            Self::Binary { left, right, .. } => left.parts() + right.parts(),
            Self::Pipeline { pipeline, .. } => 1 + pipeline.parts(),
        }
    }

    fn expressions<'a>(&'a self, visit: &mut dyn FnMut(&'a Expression)) {
        match self {
            Self::Literal(_) | Self::Aggregate(Aggregate::Count) => {}
            Self::Aggregate(Aggregate::Of(_, of)) => visit(of),
            Self::Binary { left, right, .. } => {
                left.expressions(visit);
                right.expressions(visit);
            }
            Self::Pipeline { pipeline, aggregate } => {
                pipeline.expressions(visit);
                if let Aggregate::Of(_, of) = aggregate {
                    visit(of);
                }
            }
        }
    }
}

impl Expression {
    #[must_use]
    pub fn fields(&self) -> BTreeSet<&Field> {
        let mut fields = BTreeSet::new();
        self.visit_fields(&mut |field| {
            fields.insert(field);
        });
        fields
    }

    /// Every mention of a field, from left to right.
    pub fn visit_fields<'a>(&'a self, visit: &mut dyn FnMut(&'a Field)) {
        match self {
            Self::Literal(_) | Self::Pattern(_) => {}
            Self::Field(field) => visit(field),
            Self::Binary { left, right, .. } => {
                left.visit_fields(visit);
                right.visit_fields(visit);
            }
            Self::Unary { operand, .. } | Self::Exists { operand, .. } => operand.visit_fields(visit),
        }
    }

    /// Whether it depends on the span at all.
    #[must_use]
    pub fn mentions_span(&self) -> bool {
        match self {
            Self::Literal(_) | Self::Pattern(_) => false,
            Self::Field(_) => true,
            Self::Binary { left, right, .. } => left.mentions_span() || right.mentions_span(),
            Self::Unary { operand, .. } | Self::Exists { operand, .. } => operand.mentions_span(),
        }
    }
}
