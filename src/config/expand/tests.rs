use super::*;
use proptest::prelude::*;

fn env(name: &str) -> Option<String> {
    let value = match name {
        "A" => "value",
        "NAME" => "A",
        "ZEROS" => "0123",
        "NUMBER" => "5",
        "LIST" => "[a, b]",
        "MAP" => "{k: '${env:A}'}",
        "EMPTY" => "",
        "DOLLARS" => "pa$$word",
        "COLON" => "a: b: c",
        "COMMENT" => "pa #ss",
        "QUOTED" => "\"5\"",
        "SPACES" => " two  spaces ",
        "LINES" => "one\ntwo\r\n",
        "TAG" => "!secret",
        "ANCHOR" => "&pass",
        "LOOP" => "${env:LOOP}",
        "LAUGH0" => "ha",
        "LAUGH1" => "${LAUGH0}${LAUGH0}${LAUGH0}${LAUGH0}${LAUGH0}${LAUGH0}${LAUGH0}${LAUGH0}${LAUGH0}${LAUGH0}",
        "LAUGH2" => "${LAUGH1}${LAUGH1}${LAUGH1}${LAUGH1}${LAUGH1}${LAUGH1}${LAUGH1}${LAUGH1}${LAUGH1}${LAUGH1}",
        "LAUGH3" => "${LAUGH2}${LAUGH2}${LAUGH2}${LAUGH2}${LAUGH2}${LAUGH2}${LAUGH2}${LAUGH2}${LAUGH2}${LAUGH2}",
        _ => return None,
    };
    Some(value.to_owned())
}

/// The expanded value and what was said about it.
fn expand(text: &str) -> (Node, Vec<String>) {
    let report = Report::default();
    let position = Position::new(&Arc::from("t"), 1, 1);
    let mut node = Node::new(Value::Scalar(Scalar::text(text)), position);
    Expander { env: &env, files: Files::Refused, report: &report }.expand(&mut node, "a::b");
    let said = match report.into_result() {
        Ok(notes) => notes.iter().map(Diagnostic::to_string).collect(),
        Err(diagnostics) => diagnostics.lines(),
    };
    (node, said)
}

fn text(source: &str) -> String {
    let (node, said) = expand(source);
    assert!(said.is_empty(), "{source}: {said:?}");
    match node.value {
        Value::Scalar(scalar) => scalar.text,
        other => panic!("{source}: {other:?}"),
    }
}

#[test]
fn texts_stay_as_they_are_whatever_yaml_makes_of_them() {
    for (name, value) in
        [("COMMENT", "pa #ss"), ("QUOTED", "\"5\""), ("SPACES", " two  spaces "), ("LINES", "one\ntwo\r\n")]
    {
        assert_eq!(text(&format!("${{env:{name}}}")), value);
    }
    // What YAML reads as nothing is still there for a field that takes text.
    for (source, original) in
        [("${env:TAG}", "!secret"), ("${env:ANCHOR}", "&pass"), ("${env:EMPTY}", ""), ("${env:NONE:-}", "")]
    {
        let (node, said) = expand(source);
        assert_eq!((node.original.as_deref(), said.len()), (Some(original), 0), "{source}: {:?}", node.value);
    }
}

#[test]
fn references_are_replaced() {
    assert_eq!(text("${env:A}"), "value");
    assert_eq!(text("${A}"), "value");
    assert_eq!(text("<${A}-${env:A}>"), "<value-value>");
    assert_eq!(text("${env:${env:NAME}}"), "value");
    assert_eq!(text("${env:NONE:-fall}"), "fall");
    assert_eq!(text("${env:NONE:-${env:A}}:4317"), "value:4317");
    assert_eq!(text("x${env:EMPTY:-fall}"), "x");
    assert_eq!(text("x${env:NONE:-}"), "x");
    assert_eq!(text("$A"), "$A");
    assert_eq!(text("100$"), "100$");
}

#[test]
fn dollars_escape_references() {
    assert_eq!(text("$${A}"), "${A}");
    assert_eq!(text("$$${A}"), "$value");
    assert_eq!(text("$$$${A}"), "$${A}");
    assert_eq!(text("$${A} ${A}"), "${A} value");
    assert_eq!(text("x${DOLLARS}"), "xpa$word");
}

#[test]
fn a_value_that_is_one_reference_takes_the_type_of_its_content() {
    let (node, _) = expand("${ZEROS}");
    assert!(matches!(&node.value, Value::Scalar(scalar) if scalar.kind == Kind::Int(83)));
    assert_eq!(node.original.as_deref(), Some("0123"));
    assert!(matches!(expand("${LIST}").0.value, Value::List(items) if items.len() == 2));
    let (node, _) = expand("${MAP}");
    assert_eq!(node.original.as_deref(), Some("{k: 'value'}"));
    let entries = node.entries().unwrap();
    assert!(matches!(&entries[0].node.value, Value::Scalar(scalar) if scalar.text == "value"));
    assert!(matches!(expand("${yaml:[1, 2]}").0.value, Value::List(_)));
    assert_eq!(text("${COLON}"), "a: b: c");
    assert!(matches!(expand("${EMPTY}").0.value, Value::Null));
}

#[test]
fn what_is_refused_says_why() {
    let said = |source: &str| expand(source).1.join("\n");
    assert!(said("${NONE}").contains("t:1:1: a::b: the environment variable NONE is not set"));
    assert!(said("${1}").contains("environment variable \"1\" has invalid name"));
    assert!(said("${foo:bar}").contains("scheme \"foo\" is not supported for uri \"foo:bar\""));
    assert!(said("${NONE:-x}").contains("${env:NONE:-x}"));
    assert!(said("${https://x}").contains("not fetched over https"));
    assert!(said("${file:/etc/passwd}").contains("a custom resource cannot read files"));
    assert!(said("${A").contains("without its }"));
    assert!(said("${LOOP}").contains("do they go in circles?"));
    assert!(said("${LAUGH3}").contains("more than 1000 ${...} references"));
}

proptest! {
    #[test]
    fn any_text_is_expanded_or_refused(source in "[$${}AN:a-]{0,40}") {
        let _ = expand(&source);
    }

    #[test]
    fn doubled_dollars_give_the_text_back(source in "[$${}a-c: ]{0,40}") {
        prop_assert_eq!(text(&source.replace('$', "$$")), source);
    }
}
