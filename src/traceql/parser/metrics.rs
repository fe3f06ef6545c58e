//! What turns spans into series, and what is done with series.

use super::{Deep, Parser, comparison};
use crate::traceql::ast::{Arithmetic, Field, FirstStage, Metrics, OverTime, SecondStage};
use crate::traceql::error::ParseError;
use crate::traceql::lexer::Token;

impl Parser<'_> {
    /// The function behind a pipeline, if one stands here.
    pub(super) fn first_stage(&mut self) -> Result<Option<Deep<FirstStage>>, ParseError> {
        let Some(word) = self.sign() else { return Ok(None) };
        let over_field = match word {
            "compare" => return self.compare().map(Some),
            "rate" | "count_over_time" => None,
            "min_over_time" => Some(OverTime::Min as fn(Field) -> OverTime),
            "max_over_time" => Some(OverTime::Max as fn(Field) -> OverTime),
            "avg_over_time" => Some(OverTime::Avg as fn(Field) -> OverTime),
            "sum_over_time" => Some(OverTime::Sum as fn(Field) -> OverTime),
            "histogram_over_time" => Some(OverTime::Histogram as fn(Field) -> OverTime),
            "quantile_over_time" => Some((|field| OverTime::Quantile(field, Vec::new())) as fn(Field) -> OverTime),
            _ => return Ok(None),
        };
        self.advance();
        self.expect("(", &["("])?;
        let mut function = match over_field {
            Some(make) => make(self.field()?),
            None if word == "rate" => OverTime::Rate,
            None => OverTime::Count,
        };
        if let OverTime::Quantile(_, quantiles) = &mut function {
            self.expect(",", &[","])?;
            quantiles.push(self.quantile()?);
            while self.take(",") {
                quantiles.push(self.quantile()?);
            }
        }
        self.expect(")", &[")"])?;
        let by = if self.take("by") {
            self.expect("(", &["("])?;
            self.fields()?
        } else {
            Vec::new()
        };
        Ok(Some(Deep::flat(FirstStage::Over { function, by })))
    }

    fn quantile(&mut self) -> Result<f64, ParseError> {
        let quantile = match self.token {
            Token::Float(float) => float,
            Token::Int(int) => int as f64,
            _ => return Err(self.unexpected(&["FLOAT", "INTEGER"])),
        };
        self.advance();
        Ok(quantile)
    }

    fn compare(&mut self) -> Result<Deep<FirstStage>, ParseError> {
        self.advance();
        self.expect("(", &["("])?;
        let selection = self.braces()?;
        let top = if self.take(",") { Some(self.integer()?) } else { None };
        let window = if top.is_some() && self.take(",") {
            let start = self.integer()?;
            self.expect(",", &[","])?;
            Some((start, self.integer()?))
        } else {
            None
        };
        self.expect(")", &[")", ","])?;
        Ok(selection.map(|selection| FirstStage::Compare { selection, top, window }))
    }

    fn integer(&mut self) -> Result<i64, ParseError> {
        let Token::Int(int) = self.token else { return Err(self.unexpected(&["INTEGER"])) };
        self.advance();
        Ok(int)
    }

    /// `topk(n)` or `bottomk(n)`
    pub(super) fn ranking(&mut self) -> Result<SecondStage, ParseError> {
        let make = match self.sign() {
            Some("topk") => SecondStage::TopK as fn(i64) -> SecondStage,
            Some("bottomk") => SecondStage::BottomK as fn(i64) -> SecondStage,
            _ => return Err(self.unexpected(&["topk", "bottomk"])),
        };
        self.advance();
        self.expect("(", &["("])?;
        let limit = self.integer()?;
        self.expect(")", &[")"])?;
        Ok(make(limit))
    }

    /// Comparisons right behind series.
    pub(super) fn filters(&mut self, series: Deep<Metrics>) -> Result<Deep<Metrics>, ParseError> {
        let Deep { mut node, depth } = series;
        while let Some(op) = self.sign().and_then(comparison) {
            self.advance();
            *node = node.then(SecondStage::Filter(op, self.constant()?));
        }
        Ok(Deep { node, depth })
    }
}

impl Metrics {
    /// With one more second stage.
    pub(super) fn then(self, stage: SecondStage) -> Self {
        match self {
            Self::Staged { of, mut stages } => {
                stages.push(stage);
                Self::Staged { of, stages }
            }
            other => Self::Staged { of: Box::new(other), stages: vec![stage] },
        }
    }

    pub(super) fn with(self, op: Arithmetic, right: Self) -> Self {
        Self::Binary { op, left: Box::new(self), right: Box::new(right) }
    }
}
