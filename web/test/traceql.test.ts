import assert from "node:assert/strict";
import { test } from "node:test";
import { afterKey, attribute, completionAt, condition, conditions, holds, quote, takesMetrics, traceIdOf, withCondition, withoutCondition, withoutField } from "../src/traceql";
import { bytes, count, duration, durationLiteral, percent } from "../src/format";
import { seconds, step } from "../src/range";

test("a condition goes into the filter and out again", () => {
  const wanted = condition("resource.service.name", "shop");
  const one = withCondition("{ }", wanted);
  assert.equal(one, '{ resource.service.name = "shop" }');
  const two = withCondition(one, "status = error");
  assert.equal(two, '{ resource.service.name = "shop" && status = error }');
  assert.ok(holds(two, 'resource.service.name="shop"'));
  assert.equal(withCondition(two, wanted), two);
  assert.equal(withoutCondition(withoutCondition(two, wanted), "status = error"), "{ }");
  assert.equal(withoutField(two, "resource.service.name"), "{ status = error }");
});

test("what stands around the first filter stays", () => {
  assert.equal(withCondition("{ a = 1 } >> { b = 2 } | count() > 3", "c = 3"), "{ a = 1 && c = 3 } >> { b = 2 } | count() > 3");
});

test("alternatives are kept together in brackets", () => {
  assert.equal(withCondition("{ a = 1 || b = 2 }", "c = 3"), "{ (a = 1 || b = 2) && c = 3 }");
  assert.deepEqual(conditions("{ (a = 1 || b = 2) && c = 3 }"), ["(a = 1 || b = 2)", "c = 3"]);
});

test("signs in strings are no signs", () => {
  const hostile = condition("name", 'a" && } || {b\\');
  const query = withCondition("{ }", hostile);
  assert.deepEqual(conditions(query), [hostile]);
  assert.equal(withoutCondition(query, hostile), "{ }");
  assert.equal(quote("a\"b\\c\n"), '"a\\"b\\\\c\\n"');
});

test("names that need quotes get them, values of words and numbers none", () => {
  assert.equal(attribute("span", "http.route"), "span.http.route");
  assert.equal(attribute("span", "with space"), 'span."with space"');
  assert.equal(condition("status", "error"), "status = error");
  assert.equal(condition("span.code", "200", "int"), "span.code = 200");
});

test("metrics follow filters and structure, not aggregates", () => {
  assert.ok(takesMetrics("{ a = 1 } >> { b = 2 }"));
  assert.ok(takesMetrics("{ a = 1 || b = 2 }"));
  assert.ok(!takesMetrics("{ a = 1 } | count() > 2"));
  assert.ok(takesMetrics('{ name = "a | b" }'));
});

const at = (text: string) => completionAt(text.replace("|", ""), text.indexOf("|"));

test("completion knows whether a name or a value is wanted", () => {
  assert.equal(at("{ | }").kind, "key");
  assert.deepEqual([at("{ serv| }").kind, at("{ serv| }").typed], ["key", "serv"]);
  assert.deepEqual([at("{ status = err| }").kind, at("{ status = err| }").field], ["value", "status"]);
  assert.deepEqual([at('{ span.a = "x y| }').kind, at('{ span.a = "x y| }').typed], ["value", "x y"]);
  assert.equal(at("{ a = 1 && |").kind, "key");
  assert.equal(at("{ a = 1 | }").kind, "none");
  assert.equal(at("{ a = 1 } |").kind, "none");
});

test("what is closed by itself is typed over, and nothing else is", () => {
  const type = (text: string): string => {
    let now = { text: "", caret: 0 };
    for (const key of text) now = afterKey(now.text.slice(0, now.caret) + key + now.text.slice(now.caret), now.caret + 1, key);
    return now.text;
  };
  for (const text of ["{ status = error }", "{ status = error}", "{ }", '{ name = "}" }', "{ a = 1 } > { b = 2 } | count() > 1", "({ a = 1 }) || { b = 2 }"]) assert.equal(type(text), text);
  assert.deepEqual(["{status = error}", "{}"].map(type), ["{ status = error}", "{ }"]);
  assert.deepEqual(afterKey("{ a } } && { b }", 5, "}"), { text: "{ a } } && { b }", caret: 5 });
  assert.deepEqual(afterKey("{ { a } }", 7, "}"), { text: "{ { a } }", caret: 7 });
  assert.deepEqual(afterKey("{ a } }", 5, ""), { text: "{ a } }", caret: 5 }, "pasted");
});

test("accepting a value replaces the whole of what was typed", () => {
  const text = '{ resource.service.name = "sh" && x = 1 }';
  const found = completionAt(text, text.indexOf('sh"') + 2);
  assert.equal(text.slice(0, found.from) + "|" + text.slice(found.to), "{ resource.service.name = | && x = 1 }");
});

test("numbers are short and right", () => {
  assert.deepEqual([0, 999, 1_500, 999_499, 999_600, 12_340_000, 1e9, 59.96e9, 3_600e9, 90_000e9].map(duration), ["0", "999ns", "1.5µs", "999µs", "1ms", "12.3ms", "1s", "1m 0s", "1h 0m", "1d 1h"]);
  assert.deepEqual([1.5e9, 250e6, 1_500, 7].map(durationLiteral), ["1.5s", "250ms", "1.5us", "7ns"]);
  assert.deepEqual([9_999, 12_345, 1_234_567].map(count), ["9,999", "12.3k", "1.23M"]);
  assert.deepEqual([512, 1536, 5 * 1024 ** 3].map(bytes), ["512 B", "1.5 KiB", "5 GiB"]);
  assert.deepEqual([0, 0.0004, 0.023, 0.5, 1].map(percent), ["0%", "<0.1%", "2.3%", "50%", "100%"]);
});

test("ranges are read or refused, and steps are round", () => {
  assert.deepEqual(["15m", "7d", "0m", "1y", ""].map(seconds), [900, 604_800, null, null, null]);
  assert.equal(step({ start: 0, end: 3600 }, 60), 60);
});

test("a text that is a trace id is one, however it is written", () => {
  assert.equal(traceIdOf("0xABCDEF0123456789"), "abcdef0123456789");
  assert.equal(traceIdOf("00187aa4-2451-2a36-29b9-7b7cd98e6518"), "00187aa424512a3629b97b7cd98e6518");
  for (const other of ["{ }", "GET /", "{ trace:id = 1 }", "f".repeat(40)]) assert.equal(traceIdOf(other), undefined, other);
});
