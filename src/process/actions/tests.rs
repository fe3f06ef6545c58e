use super::settings::actions;
use super::*;
use crate::process::testing::{decoded_settings, errors_of};
use std::net::{IpAddr, Ipv4Addr};

fn client() -> Client {
    Client {
        metadata: [("X-Tenant", "a"), ("x-tenant", "b"), ("single", "s")].into_iter().collect(),
        auth: [("username", "u")].into_iter().collect(),
        ..Client::of(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7)))
    }
}

/// Attributes before and after one action, written as the flow of a YAML map.
fn after(action: &str, before: &[(&'static str, Value<'static>)]) -> Vec<(String, Value<'static>)> {
    let actions = decoded_settings(&format!("actions: [{action}]"), |section| actions(section, "actions"));
    let client = client();
    let mut attributes: Attributes<'_> = before.iter().map(|(key, value)| ((*key).into(), value.detached())).collect();
    run(&actions, &mut attributes, &client);
    attributes.iter().map(|attribute| (attribute.key().to_owned(), attribute.value().detached())).collect()
}

fn pairs<const N: usize>(pairs: [(&str, Value<'static>); N]) -> Vec<(String, Value<'static>)> {
    pairs.map(|(key, value)| (key.to_owned(), value)).into()
}

#[test]
fn insert_update_and_upsert_differ_in_what_must_be_there() {
    let there = [("k", Value::from("old"))];
    let old = pairs([("k", "old".into())]);
    let new = pairs([("k", "new".into())]);
    for (how, present, absent) in [("insert", &old, &new), ("update", &new, &Vec::new()), ("upsert", &new, &new)] {
        let action = format!("{{key: k, value: new, action: {how}}}");
        assert_eq!(after(&action, &there), *present, "{how}");
        assert_eq!(after(&action, &[]), *absent, "{how}");
    }
    assert_eq!(after("{key: k, value: 1.5, action: UPSERT}", &[]), pairs([("k", 1.5.into())]));
    let nested = after("{key: k, value: [1, {a: b}], action: insert}", &[]);
    assert_eq!(text(&nested[0].1), "[1,{\"a\":\"b\"}]");
}

#[test]
fn values_come_from_attributes_and_from_the_client() {
    let from = |source: &str| after(&format!("{{key: k, {source}, action: insert}}"), &[("a", Value::from(7_i64))]);
    let found = |value| pairs([("a", Value::from(7_i64)), ("k", value)]);
    let nothing = pairs([("a", Value::from(7_i64))]);
    assert_eq!(from("from_attribute: a"), found(7_i64.into()));
    assert_eq!(from("from_attribute: absent"), nothing);
    assert_eq!(from("from_attribute: absent, default_value: d"), found("d".into()));
    assert_eq!(from("from_context: metadata.x-tenant"), found("a;b".into()));
    assert_eq!(from("from_context: single"), found("s".into()));
    assert_eq!(from("from_context: metadata.absent"), nothing);
    assert_eq!(from("from_context: auth.username"), found("u".into()));
    assert_eq!(from("from_context: client.address"), found("10.0.0.7".into()));
    assert_eq!(from("default_value: d"), found("d".into()));
}

#[test]
fn delete_and_hash_take_a_key_and_a_pattern() {
    let before = [("password", Value::from("x")), ("pass.word", Value::from("y")), ("other", Value::from("z"))];
    assert_eq!(after("{key: other, pattern: ^pass, action: delete}", &before), []);
    assert_eq!(after("{pattern: word$, action: delete}", &before), pairs([("other", "z".into())]));
    // SHA-256 of "x", as any tool gives it.
    let hash = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
    let expected = pairs([("password", hash.into()), ("pass.word", "y".into()), ("other", "z".into())]);
    assert_eq!(after("{key: password, action: hash}", &before), expected);
    assert_eq!(
        after("{key: b, action: hash}", &[("b", Value::Bytes(b"x".as_slice().into()))]),
        pairs([("b", "".into())])
    );
    // SHA-256 of the byte 1.
    let hash = "4bf5122f344554c53bde2ebb8cd2b7e3d1600ad631c385a5d7cce23c7785459a";
    assert_eq!(after("{pattern: b, action: hash}", &[("b", Value::from(true))]), pairs([("b", hash.into())]));
}

#[test]
fn extract_makes_attributes_of_named_groups() {
    let action = "{key: url, pattern: \"^(?P<scheme>[a-z]+)://(?P<host>[^/]+)(?P<port>:[0-9]+)?\", action: extract}";
    let before = [("url", Value::from("http://shop/a")), ("host", Value::from("old"))];
    let expected =
        [("url", "http://shop/a".into()), ("host", "shop".into()), ("scheme", "http".into()), ("port", "".into())];
    assert_eq!(after(action, &before), pairs(expected));
    assert_eq!(after(action, &[("url", Value::from(1_i64))]), pairs([("url", 1_i64.into())]));
    assert_eq!(after(action, &[("url", Value::from("no url"))]), pairs([("url", "no url".into())]));
}

#[test]
fn convert_changes_what_can_be_and_leaves_the_rest() {
    let convert = |to: &str, value: Value<'static>| {
        after(&format!("{{key: k, action: convert, converted_type: {to}}}"), &[("k", value)]).remove(0).1
    };
    assert_eq!(convert("int", "12".into()), Value::Int(12));
    assert_eq!(convert("int", "1.5".into()), Value::from("1.5"));
    assert_eq!(convert("int", 1.9.into()), Value::Int(1));
    assert_eq!(convert("int", true.into()), Value::Int(1));
    assert_eq!(convert("double", "1.5".into()), Value::Double(1.5));
    assert_eq!(convert("double", "1e999".into()), Value::from("1e999"));
    assert_eq!(convert("double", 3_i64.into()), Value::Double(3.0));
    assert_eq!(convert("string", 3_i64.into()), Value::from("3"));
    assert_eq!(convert("string", 2.0.into()), Value::from("2"));
    assert_eq!(convert("string", Value::Bytes(b"hi".as_slice().into())), Value::from("aGk="));
}

#[test]
fn actions_that_cannot_mean_anything_are_refused_with_their_place() {
    let errors = |action: &str| errors_of(&format!("actions: [{action}]"), |section| drop(actions(section, "actions")));
    let cases = [
        ("{key: a}", "actions::0::action: is missing (one of: insert, update, upsert, delete, hash, extract, convert)"),
        (
            "{key: a, action: upsrt, value: 1}",
            "actions::0::action: \"upsrt\" is not one of its values (did you mean \"upsert\"?)",
        ),
        ("{action: insert, value: 1}", "actions::0::key: is missing (name the attribute)"),
        ("{action: delete}", "actions::0::key: is missing (name the attribute, or give a pattern)"),
        (
            "{key: a, action: insert}",
            "actions::0: one of value, from_attribute, from_context and default_value must be given (e.g. value: prod)",
        ),
        (
            "{key: a, action: insert, value: 1, from_attribute: b}",
            "actions::0::from_attribute: value and from_attribute cannot be given together (keep one of them)",
        ),
        ("{key: a, action: delete, value: 1}", "actions::0::value: is not used by the action delete (remove it)"),
        (
            "{key: a, action: insert, value: 1, pattern: b}",
            "actions::0::pattern: is not used by the action insert (remove it)",
        ),
        (
            "{key: a, action: extract}",
            "actions::0::pattern: is missing: extract needs one (e.g. ^(?P<http_method>[A-Z]+) )",
        ),
        (
            "{key: a, action: convert}",
            "actions::0::converted_type: is missing: convert needs one (one of: string, int, double)",
        ),
        (
            "{key: a, action: convert, converted_type: bool}",
            "actions::0::converted_type: \"bool\" is not one of its values (one of: string, int, double)",
        ),
    ];
    for (action, expected) in cases {
        assert_eq!(errors(action), [expected], "{action}");
    }
    assert!(errors("{key: a, action: extract, pattern: \"(x)\"}")[0].contains("every group must have a name"));
    assert!(errors("{key: a, action: delete, pattern: \"(\"}")[0].contains("is no valid pattern"));
}
