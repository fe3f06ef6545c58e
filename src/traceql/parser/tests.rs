//! The tables in `tests/data/traceql`, and what holds for every text and every tree.

mod generate;

use proptest::prelude::*;

use super::super::ast::{Expression, Operator, Pipeline, Root, Spanset, Stage};
use super::super::{check, field, parse};
use super::DEPTH_MAX;

const VALID: &str = include_str!("../../../tests/data/traceql/valid.txt");
const UNPARSABLE: &str = include_str!("../../../tests/data/traceql/unparsable.txt");
const INVALID: &str = include_str!("../../../tests/data/traceql/invalid.txt");

/// The lines of a table, with what stands behind the arrow.
fn rows(table: &'static str) -> impl Iterator<Item = (&'static str, Option<&'static str>)> {
    table
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once(" => ").map_or((line, None), |(query, text)| (query, Some(text))))
}

#[test]
fn valid_queries_parse_and_make_sense_and_are_printed_canonically() {
    for (text, canonical) in rows(VALID) {
        let query = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(check(&query), Ok(()), "{text}");
        if let Some(canonical) = canonical {
            assert_eq!(query.to_string(), canonical, "{text}");
        }
    }
}

#[test]
fn texts_that_are_no_queries_are_refused_with_the_place_and_what_is_wrong() {
    let said = rows(UNPARSABLE).map(|(text, _)| format!("{text} => {}", parse(text).expect_err(text)));
    let said: Vec<String> = said.collect();
    let written: Vec<String> =
        rows(UNPARSABLE).map(|(text, error)| format!("{text} => {}", error.unwrap_or_default())).collect();
    let differences: Vec<&String> =
        said.iter().zip(&written).filter(|(one, other)| one != other).map(|(said, _)| said).collect();
    assert!(differences.is_empty(), "{differences:#?}");
}

#[test]
fn an_unexpected_token_comes_with_what_was_expected() {
    for (text, _) in rows(UNPARSABLE).chain([("", None)]) {
        let error = parse(text).expect_err(text).to_string();
        assert!(!error.contains("unexpected") || error.contains(", expecting "), "{text}: {error}");
    }
}

#[test]
fn queries_that_make_no_sense_are_refused_with_the_part_that_does_not() {
    for (text, error) in rows(INVALID) {
        let query = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let refused = check(&query).expect_err(text);
        assert_eq!(Some(refused.to_string().as_str()), error, "{text}");
    }
}

#[test]
fn what_was_printed_parses_to_the_same_tree() {
    for (text, _) in rows(VALID).chain(rows(INVALID)) {
        let query = parse(text).unwrap();
        assert_eq!(parse(&query.to_string()).as_ref(), Ok(&query), "{text}");
    }
}

#[test]
fn places_of_errors_are_lines_and_columns_of_characters() {
    let error = parse("{ span.größe = 1 &&\n\t\tfoo = 2 }").unwrap_err();
    assert_eq!((error.line, error.column), (2, 3));
    let error = parse("{ span.größe = 1 } ;").unwrap_err();
    assert_eq!((error.line, error.column), (1, 20));
    let error = parse("{ span.a = \"a\nb\" }").unwrap_err();
    assert_eq!(error.to_string(), "parse error at line 1, col 12: literal not terminated");
    assert_eq!(
        parse("").unwrap_err().to_string(),
        "parse error at line 1, col 1: syntax error: unexpected $end, expecting { or ( or by or select or aggregate or number"
    );
}

#[test]
fn nesting_beyond_the_limit_is_refused_and_never_overflows_the_stack() {
    let nest = |open: &str, middle: &str, close: &str, depth: usize| {
        format!("{}{middle}{}", open.repeat(depth), close.repeat(depth))
    };
    let texts = [
        format!("{{ {} }}", nest("(", "true", ")", 10_000)),
        format!("{{ {} }}", nest("!", "true", "", 10_000)),
        format!("{{ {}1 = 1 }}", "-".repeat(10_000)),
        format!("{{ {} = 1 }}", nest("2 ^ ", "2", "", 10_000)),
        format!("{{ 1{} = 1 }}", " + 1".repeat(10_000)),
        format!("{{ .a{} }}", " = nil".repeat(10_000)),
        format!("{{ {} }}", nest("nil = (", ".a", ")", 10_000)),
        format!("{{ {}true }}", "true && true || ".repeat(10_000)),
        nest("(", "{}", ")", 10_000),
        nest("({} | count() > 1) && (", "{}", ")", 10_000),
        format!("{{}}{}", " > {}".repeat(10_000)),
        format!("{} > 1", nest("(", "count()", ")", 10_000)),
        format!("count(){} > 1", " + count()".repeat(10_000)),
        nest("(", "{} | rate()", ")", 10_000),
        format!("({{}} | rate()){}", " + 1".repeat(10_000)),
        format!("({{}} | rate()) + {}1", "-".repeat(10_000)),
    ];
    let refused = move || {
        for text in &texts {
            let error = parse(text).expect_err(text);
            assert!(error.to_string().ends_with("the query is nested more than 64 levels deep"), "{error}");
        }
    };
    // Threads that run queries have 2 MiB, of which the half is left for what calls the parser.
    std::thread::Builder::new().stack_size(1024 * 1024).spawn(refused).unwrap().join().unwrap();
}

#[test]
fn nesting_up_to_the_limit_is_fine() {
    let depth = DEPTH_MAX as usize - 4;
    let text = format!("{{ {}.a = 1{} }}", "(".repeat(depth), ")".repeat(depth));
    assert_eq!(parse(&text), parse("{ .a = 1 }"));
    // Printed, every level has its parentheses.
    for text in [
        format!("{{ .a{} = 1 }}", " + 1".repeat(depth)),
        format!("{{ {}.a = 1 }}", ".b ^ ".repeat(depth)),
        format!("{{ {}.a }}", "!".repeat(depth / 2)),
        format!("{{ .a{} }}", " = nil".repeat(depth)),
        format!("{{ {}.a = 1 }}", ".a && .b || ".repeat(depth / 2)),
        format!("{{}}{}", " > {}".repeat(depth)),
        format!("count(){} > 1", " ^ count()".repeat(depth / 2)),
        format!("({{}} | rate()){}", " + 1".repeat(depth)),
    ] {
        let query = parse(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let _ = check(&query);
        assert_eq!(parse(&query.to_string()), Ok(query));
    }
}

#[test]
fn thousands_of_alternatives_are_no_deep_tree() {
    fn depth(expression: &Expression) -> usize {
        match expression {
            Expression::Binary { op: Operator::Or, left, right } => 1 + depth(left).max(depth(right)),
            _ => 1,
        }
    }
    let alternatives = (0..8_000).map(|value| format!(".a = {value}")).collect::<Vec<_>>().join(" || ");
    let query = parse(&format!("{{ {alternatives} }}")).unwrap();
    let Root::Search(Pipeline { stages }) = &query.root else { panic!("no search") };
    let [Stage::Spanset(Spanset::Spans(Some(filter)))] = stages.as_slice() else { panic!("no filter") };
    assert!(depth(filter) < 50, "{}", depth(filter));
    assert_eq!(filter.to_string().matches("||").count(), 7_999);
    assert_eq!(parse(&query.to_string()), Ok(query.clone()));

    let spansets = vec!["{ .a = 1 }"; 8_000].join(" && ");
    let query = parse(&spansets).unwrap();
    assert_eq!(parse(&query.to_string()), Ok(query));
}

#[test]
fn fields_are_named_as_answers_name_them() {
    for (text, name) in [
        ("resource.service.name", "resource.service.name"),
        (".http.method", ".http.method"),
        ("name", "name"),
        ("span:name", "name"),
        ("trace:rootService", "rootServiceName"),
        ("event:timeSinceStart", "event:timeSinceStart"),
        ("span.\"foo bar\"", "span.\"foo bar\""),
        ("span.a/b-c:d", "span.a/b-c:d"),
        (" span.a ", "span.a"),
    ] {
        assert_eq!(field(text).unwrap().to_string(), name);
    }
    for text in ["", "foo", "span.", "span.a = 1", "span.a span.b", "span:foo", "{}", "\"a\"", "1", "span.\"open"] {
        assert!(field(text).is_err(), "{text}");
    }
}

#[test]
fn hints_are_found_by_name() {
    let query = parse("{} with(most_recent=true, exemplars=5, exemplars=6, sample=false)").unwrap();
    assert!(query.is_hinted("most_recent"));
    assert!(!query.is_hinted("sample"));
    assert!(!query.is_hinted("missing"));
    assert_eq!(query.hint("exemplars").unwrap().to_string(), "5");
}

#[test]
fn the_fields_of_a_query_are_told_apart_by_what_they_are_for() {
    let query = parse(
        "({ span.a = 1 && !(.b + 1 > name) } > { span.c != nil }) | by(span.d) | max(duration) > 1s \
         | select(span.a, status, status)",
    )
    .unwrap();
    let [pipeline] = query.pipelines()[..] else { panic!("one pipeline") };
    let names = |fields: Vec<String>| fields.join(" ");
    let conditions = pipeline.condition_fields().into_iter().map(ToString::to_string).collect();
    assert_eq!(names(conditions), ".b span.a span.c span.d duration name");
    let selected = pipeline.selected_fields().into_iter().map(ToString::to_string).collect();
    assert_eq!(names(selected), "span.a status");
    let metrics = parse("({ span.x = 1 } | rate() by (name)) / ({} | max_over_time(span.y))").unwrap();
    assert_eq!(metrics.pipelines().len(), 2);
}

proptest! {
    #[test]
    fn every_tree_survives_being_printed(query in generate::query()) {
        let text = query.to_string();
        let parsed = parse(&text);
        prop_assert_eq!(parsed.as_ref(), Ok(&query), "{}", text);
    }

    #[test]
    fn every_field_survives_being_printed(of in generate::field()) {
        prop_assert_eq!(field(&of.to_string()), Ok(of));
    }

    #[test]
    fn no_text_makes_it_fall_over(text in "\\PC{0,40}") {
        let _ = parse(&text);
    }

    /// Tokens in any order: what is accepted keeps its meaning when printed.
    #[test]
    fn what_is_accepted_survives_being_printed(tokens in proptest::collection::vec(generate::token(), 0..16)) {
        let text = format!("{{}} {}", tokens.join(" "));
        for text in [text.as_str(), &format!("{{ .a {} }}", tokens.join(" ")), &tokens.concat()] {
            if let Ok(query) = parse(text) {
                let _ = check(&query);
                prop_assert_eq!(parse(&query.to_string()), Ok(query), "{}", text);
            }
        }
    }

    /// Queries of the tables with a few bytes changed.
    #[test]
    fn damaged_queries_are_refused_or_survive(
        row in 0_usize..1000, cut in 0_usize..200, length in 0_usize..4, put in generate::token(),
    ) {
        let all: Vec<_> = rows(VALID).chain(rows(INVALID)).chain(rows(UNPARSABLE)).collect();
        let (text, _) = all[row % all.len()];
        let mut characters: Vec<char> = text.chars().collect();
        let start = cut % (characters.len() + 1);
        let end = (start + length).min(characters.len());
        characters.splice(start..end, put.chars());
        let text: String = characters.into_iter().collect();
        let _ = super::super::lenient(&text);
        if let Ok(query) = parse(&text) {
            let _ = check(&query);
            prop_assert_eq!(parse(&query.to_string()), Ok(query), "{}", text);
        }
    }
}

#[test]
fn a_query_of_very_many_parts_is_refused_before_anything_is_compiled() {
    let patterns = |count| format!("{{ {} }}", vec![".a =~ \"x\""; count].join(" || "));
    assert!(crate::traceql::read(&patterns(64)).is_ok());
    let error = crate::traceql::read(&patterns(65)).unwrap_err().to_string();
    assert!(error.contains("at most 64 regular expressions"), "{error}");
    let filters = vec!["{ .a = 1 }"; 257].join(" || ");
    let error = crate::traceql::read(&filters).unwrap_err().to_string();
    assert!(error.contains("at most 256 stages, filters"), "{error}");
}
