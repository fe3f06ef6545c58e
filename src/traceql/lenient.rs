//! Filters from queries that are still being typed: the `q` of the tag endpoints.
//!
//! Conditions that are whole are kept. A condition without its right side (`span.b =`), or whose string has no end yet,
//! counts as true, and braces that are open are closed. What cannot be read even so filters nothing, since suggestions
//! for too much are better than an error while somebody types.

use super::ast::{Attribute, Comparison, Expression, Field, Operator, Pipeline, Query, Spanset, Stage};
use super::error::TooManyGroups;
use super::lexer::{Lexer, Token};
use super::value::Value;
use super::{check, parse};

/// Alternatives that a filter of the tag endpoints may have, multiplied out.
const GROUPS_MAX: usize = 100;

/// The condition that spans have to meet, or `None` where the text asks for nothing that can be told: no text, no query,
/// several spansets, alternatives of which one is open or has attributes without scope only.
///
/// # Errors
/// There are more than 100 alternatives.
pub fn lenient(text: &str) -> Result<Option<Expression>, TooManyGroups> {
    let Some(filter) = parse(text).ok().or_else(|| parse(&repaired(text)).ok()).and_then(only_filter) else {
        return Ok(None);
    };
    if is_open(&filter, &is_condition) || is_open(&filter, &is_scoped) {
        return Ok(None);
    }
    if groups(&filter) > GROUPS_MAX {
        return Err(TooManyGroups(GROUPS_MAX));
    }
    Ok(pruned(filter))
}

/// The values that a field can have where a condition pins it with `=` in every alternative; `None` if one leaves it open.
#[must_use]
pub fn pinned<'a>(condition: &'a Expression, field: &Field) -> Option<Vec<&'a Value>> {
    let Expression::Binary { op, left, right } = condition else { return None };
    match op {
        Operator::And => pinned(left, field).or_else(|| pinned(right, field)),
        Operator::Or => {
            let mut values = pinned(left, field)?;
            for value in pinned(right, field)? {
                if !values.contains(&value) {
                    values.push(value);
                }
            }
            Some(values)
        }
        Operator::Comparison(Comparison::Equal) => match (&**left, &**right) {
            (Expression::Field(found), Expression::Literal(value))
            | (Expression::Literal(value), Expression::Field(found))
                if found == field =>
            {
                Some(vec![value])
            }
            _ => None,
        },
        _ => None,
    }
}

/// The filter of a query that begins with one in braces and makes sense.
fn only_filter(query: Query) -> Option<Expression> {
    check(&query).ok()?;
    let pipelines = query.pipelines();
    let [pipeline] = pipelines.as_slice() else { return None };
    first_filter(pipeline).cloned()
}

fn first_filter(pipeline: &Pipeline) -> Option<&Expression> {
    match pipeline.stages.first()? {
        Stage::Spanset(Spanset::Spans(filter)) => filter.as_ref(),
        Stage::Spanset(Spanset::Pipeline(pipeline)) => first_filter(pipeline),
        _ => None,
    }
}

/// The text with `true` for conditions that lack their right side, and with its braces closed.
fn repaired(text: &str) -> String {
    let mut lexer = Lexer::new(text);
    let mut tokens = Vec::new();
    loop {
        let (token, start) = lexer.next();
        // What is behind a token that is none cannot be told.
        if matches!(token, Token::End | Token::Bad(_)) {
            break;
        }
        tokens.push((token, start..lexer.position()));
    }
    let mut out = String::with_capacity(text.len() + 8);
    let mut open = 0_usize;
    let mut piped = false;
    let mut index = 0;
    while let Some((token, range)) = tokens.get(index) {
        let matcher = if piped { None } else { tokens.get(index..).and_then(matcher_length) };
        if let Some(length) = matcher
            && tokens.get(index + length).is_none_or(|(next, _)| ends_matcher(next))
        {
            out.push_str(" true ");
            index += length;
            continue;
        }
        match token {
            Token::Sign("{") => open += 1,
            Token::Sign("}") => open = open.saturating_sub(1),
            Token::Sign("|") => piped = true,
            _ => {}
        }
        out.push_str(text.get(range.clone()).unwrap_or_default());
        // Names end where the text had a blank; words that meet would become one.
        if !matches!(token, Token::Sign(sign) if sign.ends_with(['.', ':'])) {
            out.push(' ');
        }
        index += 1;
    }
    out.extend(std::iter::repeat_n("} ", open));
    out
}

/// How many tokens a field and a comparison behind it take, where they stand at the start.
fn matcher_length<R>(tokens: &[(Token, R)]) -> Option<usize> {
    // At most two: `parent.span.`
    let begins = |(token, _): &&(Token, R)| matches!(token, Token::Sign(sign) if sign.ends_with(['.', ':']));
    let signs = tokens.iter().take(2).take_while(begins).count();
    let named = match tokens.get(signs)?.0 {
        Token::Name(_) | Token::Identifier => true,
        Token::Sign(word) => word.starts_with(|letter: char| letter.is_ascii_alphabetic()),
        _ => false,
    };
    let compared = matches!(tokens.get(signs + 1)?.0, Token::Sign("=" | "!=" | "<" | "<=" | ">" | ">=" | "=~" | "!~"));
    (named && compared).then_some(signs + 2)
}

fn ends_matcher(token: &Token) -> bool {
    matches!(token, Token::Sign("}" | ")" | "&&" | "||"))
}

/// A literal or a field alone asks nothing of a span.
fn is_condition(leaf: &Expression) -> bool {
    !matches!(leaf, Expression::Literal(_) | Expression::Field(_))
}

fn is_scoped(leaf: &Expression) -> bool {
    is_condition(leaf)
        && leaf.fields().iter().any(|field| !matches!(field, Field::Attribute(Attribute { scope: None, .. })))
}

/// Whether one of the alternatives has no condition that counts.
fn is_open(condition: &Expression, counts: &impl Fn(&Expression) -> bool) -> bool {
    match condition {
        Expression::Binary { op: Operator::And, left, right } => is_open(left, counts) && is_open(right, counts),
        Expression::Binary { op: Operator::Or, left, right } => is_open(left, counts) || is_open(right, counts),
        leaf => !counts(leaf),
    }
}

/// How many alternatives there are when all are multiplied out.
fn groups(condition: &Expression) -> usize {
    match condition {
        Expression::Binary { op: Operator::And, left, right } => groups(left).saturating_mul(groups(right)),
        Expression::Binary { op: Operator::Or, left, right } => groups(left).saturating_add(groups(right)),
        _ => 1,
    }
}

/// The condition without the parts that ask nothing.
fn pruned(condition: Expression) -> Option<Expression> {
    match condition {
        Expression::Binary { op: Operator::And, left, right } => match (pruned(*left), pruned(*right)) {
            (Some(left), Some(right)) => {
                Some(Expression::Binary { op: Operator::And, left: Box::new(left), right: Box::new(right) })
            }
            (one, other) => one.or(other),
        },
        Expression::Binary { op: Operator::Or, left, right } => {
            let (left, right) = (pruned(*left)?, pruned(*right)?);
            Some(Expression::Binary { op: Operator::Or, left: Box::new(left), right: Box::new(right) })
        }
        leaf => is_condition(&leaf).then_some(leaf),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traceql::field;

    fn filter(text: &str) -> String {
        lenient(text).unwrap().map_or_else(|| "nothing".to_owned(), |condition| condition.to_string())
    }

    #[test]
    fn whole_conditions_are_kept_and_unfinished_ones_dropped() {
        assert_eq!(filter("{ span.a = \"x\" && span.b = }"), "span.a = `x`");
        assert_eq!(filter("{ span.a = \"x\" && span.b = "), "span.a = `x`");
        assert_eq!(filter("{span.b=&&span.a=1}"), "span.a = 1");
        assert_eq!(
            filter("{ (span.a = 1 || name = `y`) && resource.service.name =~ }"),
            "(span.a = 1) || (name = `y`)"
        );
        assert_eq!(filter("{ span.a = \"x\" && span:status != } | rate() by (name)"), "span.a = `x`");
        assert_eq!(filter("{ span.a = 1 && parent.span.b > }"), "span.a = 1");
        assert_eq!(filter("{ span.\"a b\" = 1 && span.b=~}"), "span.\"a b\" = 1");
    }

    #[test]
    fn a_string_without_its_end_is_an_unfinished_condition() {
        assert_eq!(filter("{ span.a = \"x\" && span.b = \"unfin"), "span.a = `x`");
    }

    #[test]
    fn what_tells_nothing_filters_nothing() {
        for text in [
            "",
            "  ",
            "{}",
            "{ true }",
            "{ span.a = }",
            "{ span.a }",
            "{ span.a = 1 && ",
            "{ span.a = 1 || span.b = }",
            "{ .a = 1 }",
            "{ .a = 1 || span.b = 2 }",
            "{ span.a = 1 } >> { span.b = 2 }",
            "count() > 1 | { span.a = 1 }",
            "({ span.a = 1 } | rate()) + ({ span.b = 1 } | rate())",
            "{ span.a = 1 && name = 2 }",
            "span.a = 1",
            "<<<",
        ] {
            assert_eq!(filter(text), "nothing", "{text}");
        }
    }

    #[test]
    fn attributes_without_scope_help_where_others_stand_with_them() {
        assert_eq!(filter("{ .a = 1 && span.b = 2 }"), "(.a = 1) && (span.b = 2)");
    }

    #[test]
    fn more_than_a_hundred_alternatives_are_refused() {
        let alternatives = |count: usize| {
            let list = (0..count).map(|value| format!("span.a = {value}")).collect::<Vec<_>>().join(" || ");
            format!("{{ {list} }}")
        };
        assert!(lenient(&alternatives(100)).unwrap().is_some());
        assert_eq!(
            lenient(&alternatives(101)).unwrap_err().to_string(),
            "maximum condition groups reached (limit: 100). Reduce the number of OR conditions in the query"
        );
        let tens = "(span.a = 1 || span.a = 2 || span.a = 3 || span.a = 4)";
        assert!(lenient(&format!("{{ {tens} && {tens} && {tens} && {tens} }}")).is_err());
        assert!(lenient(&format!("{{ {tens} && {tens} && {tens} }}")).is_ok());
    }

    #[test]
    fn a_field_is_pinned_only_where_every_alternative_pins_it() {
        let values = |text: &str, name: &str| {
            let condition = lenient(text).unwrap().unwrap();
            pinned(&condition, &field(name).unwrap())
                .map(|values| values.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
        };
        assert_eq!(values("{ span.a = `x` && span.b = 1 }", "span.a").as_deref(), Some("`x`"));
        assert_eq!(values("{ 5 = span.a }", "span.a").as_deref(), Some("5"));
        assert_eq!(values("{ span.a = 1 || span.a = 2 || span.a = 1 }", "span.a").as_deref(), Some("1,2"));
        assert_eq!(values("{ span.a = 1 || span.b = 2 }", "span.a"), None);
        assert_eq!(values("{ span.a != 1 && span.b = 1 }", "span.a"), None);
        assert_eq!(values("{ !(span.a = 1) }", "span.a"), None);
        assert_eq!(values("{ resource.a = 1 }", "span.a"), None);
    }
}
