import assert from "node:assert/strict";
import { test } from "node:test";
import { buildTrace, matches, rows } from "../src/trace/model";
import type { Node, Trace } from "../src/trace/model";
import { SAVED_CLOSE, SAVED_OPEN, byTrace, readFile, readTrace } from "../src/trace/read";
import { toJaeger } from "../src/trace/jaeger";
import { toOtlp } from "../src/trace/otlp";
import type { SpanData } from "../src/trace/read";
// @ts-expect-error: plain JavaScript, shared with the browser tests
import { generator, largeTrace, oddTraces, request } from "./shop.mjs";

const START = 1_700_000_000_000;
const odd = oddTraces(generator(3), START) as Record<string, unknown[]>;
const build = (name: string, clocks: "as sent" | "corrected" = "as sent"): Trace => buildTrace(name, readTrace(request(odd[name])), clocks);

/** Every span stands once in the waterfall, behind its parent. */
function isWhole(trace: Trace): void {
  const spans = trace.nodes.filter((node) => node.span);
  assert.equal(new Set(spans).size, trace.spans);
  for (const node of trace.nodes) if (node.parent) assert.ok(node.parent.index < node.index, node.name);
  assert.deepEqual(trace.nodes.map((node) => node.index), trace.nodes.map((_, i) => i));
}

test("every odd trace is shown whole", () => {
  for (const name of Object.keys(odd)) {
    isWhole(build(name));
    isWhole(build(name, "corrected"));
  }
});

test("spans of a parent that never arrived stand together under one row for it", () => {
  const trace = build("missingParent");
  assert.equal(trace.orphans, 3);
  const ghosts = trace.nodes.filter((node) => !node.span);
  assert.deepEqual(ghosts.map((ghost) => [ghost.missingId, ghost.children.length]), [["00000000000000aa", 2], ["00000000000000bb", 1]]);
  assert.equal(ghosts[0]!.start, 0);
  assert.equal(ghosts[0]!.self, 0);
});

test("a ring of parents is opened at its first span and said", () => {
  const trace = build("cycle");
  assert.equal(trace.rings, 2);
  assert.deepEqual(trace.roots.map((root) => root.name), ["first of a ring", "its own parent"]);
});

test("clocks are corrected only when asked, with all that lies below", () => {
  const sent = build("clockSkew");
  assert.equal(sent.early, 1);
  assert.equal(sent.earlyMax, 41_010e6);
  const corrected = build("clockSkew", "corrected");
  const byName = (name: string) => corrected.nodes.find((node) => node.name === name)!;
  const moved = byName("served by a clock 41 s off");
  const call = byName("call");
  assert.ok(moved.start >= call.start && moved.end <= call.end);
  assert.equal(byName("inside").start - moved.start, 10e6);
  assert.equal(corrected.duration, 100e6);
});

test("a span that ends before it starts is a moment and is counted", () => {
  const trace = build("zeroAndNegative");
  assert.equal(trace.negative, 1);
  assert.ok(trace.nodes.every((node) => node.end >= node.start));
});

test("the server's half of a shared id lies below the client's, and children below the server's", () => {
  const trace = build("twins");
  assert.equal(trace.twins, 2);
  assert.deepEqual(trace.nodes.map((node) => [node.name, node.depth]), [["call", 0], ["same span id, as Zipkin has it", 1], ["child of the server's half", 2]]);
});

const span = (id: string, parent: string, name: string, start: number, end: number) => ({
  traceId: "0af7651916cd43dd8448eb211c80319c", spanId: id.padStart(16, "0"), parentSpanId: parent && parent.padStart(16, "0"), name,
  startTimeUnixNano: String(BigInt(START) * 1_000_000n + BigInt(start)), endTimeUnixNano: String(BigInt(START) * 1_000_000n + BigInt(end)),
});
const of = (spans: object[]): Trace => buildTrace("t", readTrace({ resourceSpans: [{ resource: {}, scopeSpans: [{ spans }] }] }));

test("self time is what no child covers, however children overlap", () => {
  const trace = of([span("1", "", "root", 0, 10_240), span("2", "1", "a", 1_024, 4_096), span("3", "1", "b", 2_048, 6_144), span("4", "1", "late", 9_216, 20_480)]);
  assert.equal(trace.nodes[0]!.self, 10_240 - (6_144 - 1_024) - (10_240 - 9_216));
});

test("the critical path covers the root's time once and without gaps", () => {
  const random = generator(11);
  for (const size of [3, 50, 2_000]) {
    const trace = buildTrace("t", readTrace(request(largeTrace(random, START, size))));
    const root = trace.roots[0]!;
    let at = root.start;
    for (const segment of trace.critical) {
      assert.ok(Math.abs(segment.start - at) < 1, `${segment.start} after ${at}`);
      at = segment.end;
    }
    assert.ok(Math.abs(at - root.end) < 1);
  }
});

test("self times of a trace without parallel work add up to its duration", () => {
  const trace = of([span("1", "", "root", 0, 4_096), span("2", "1", "a", 0, 2_048), span("3", "1", "b", 2_048, 4_096), span("4", "3", "c", 2_048, 3_072)]);
  assert.equal(trace.nodes.reduce((sum, node) => sum + node.self, 0), 4_096);
});

test("a chain of 50,000 spans is no deeper than memory", () => {
  const chain = Array.from({ length: 50_000 }, (_, i) => span((i + 1).toString(16), i === 0 ? "" : i.toString(16), "link", i * 256, 20_000_000));
  const trace = of(chain);
  assert.equal(trace.depth, 50_000);
  isWhole(trace);
});

test("runs of like siblings are one row until they are opened", () => {
  const many = [span("1", "", "root", 0, 100_000), ...Array.from({ length: 47 }, (_, i) => span((i + 2).toString(16), "1", "SELECT", i * 1_024, i * 1_024 + 512))];
  const trace = of(many);
  const closed = rows(trace, { closed: new Set(), opened: new Set() });
  assert.deepEqual(closed.map((row) => row.repeats.length), [0, 47]);
  const opened = rows(trace, { closed: new Set(), opened: new Set([closed[1]!.node.index]) });
  assert.equal(opened.length, 48);
  assert.equal(rows(trace, { closed: new Set([0]), opened: new Set() }).length, 1);
});

test("search finds names, attributes and events", () => {
  const trace = build("hostile");
  const node = trace.nodes[0] as Node;
  for (const text of ["<script>", "onload", "<h1>event", "0000000000000001"]) assert.ok(matches(node, text), text);
  assert.ok(!matches(node, "not there"));
});

test("Tempo's base64 ids and words for enums are read, and written as OTLP wants them", () => {
  const answer = {
    trace: { resourceSpans: [{ resource: {}, scopeSpans: [{ spans: [{ traceId: "pDNpg3A4yTVW/bCdsNx0bw==", spanId: "o6J2YHuAhTg=", name: "x", kind: "SPAN_KIND_SERVER", status: { code: "STATUS_CODE_ERROR" } }] }] }] },
  };
  const [read] = readTrace(answer);
  assert.equal(read!.traceId, "a43369837038c93556fdb09db0dc746f");
  assert.equal(read!.kind, "server");
  assert.equal(read!.status, "error");
  const again = readTrace(toOtlp([read!]));
  assert.deepEqual({ ...again[0], raw: null }, { ...read, raw: null });
  assert.match(JSON.stringify(toOtlp([read!])), /"traceId":"a43369837038c93556fdb09db0dc746f".*"kind":2.*"code":2/);
});

test("Jaeger's JSON is read with parents, services, logs and errors", () => {
  const jaeger = {
    data: [{
      traceID: "1f", processes: { p1: { serviceName: "web", tags: [{ key: "host.name", type: "string", value: "pi-1" }] } },
      spans: [
        { traceID: "1f", spanID: "a", operationName: "GET /", startTime: 1_000_000, duration: 500, processID: "p1", tags: [{ key: "span.kind", type: "string", value: "server" }], logs: [{ timestamp: 1_000_100, fields: [{ key: "event", type: "string", value: "cache miss" }] }] },
        { traceID: "1f", spanID: "b", operationName: "call", references: [{ refType: "CHILD_OF", traceID: "1f", spanID: "a" }], startTime: 1_000_100, duration: 100, processID: "p1", tags: [{ key: "error", type: "bool", value: true }] },
      ],
    }],
  };
  const trace = buildTrace("t", readFile(JSON.stringify(jaeger)));
  assert.deepEqual(trace.nodes.map((node) => [node.service, node.name, node.depth, node.error]), [["web", "GET /", 0, false], ["web", "call", 1, true]]);
  assert.equal(trace.nodes[0]!.span!.events[0]!.name, "cache miss");
  assert.equal(trace.duration, 500_000);
});

/** What a person sees of a span, whatever shape it came in. Jaeger's times are microseconds, and it has fewer fields. */
const seen = (span: SpanData) => ({
  ids: [span.traceId, span.spanId, span.parentId],
  name: span.name,
  kind: span.kind,
  start: span.startNano / 1000n,
  status: [span.status, span.statusMessage],
  service: span.resource.service,
  attributes: span.attributes.filter(({ key }) => !/^(span\.kind|error|otel\.|w3c\.)/.test(key)).map(({ key, text, type }) => [key, text, type]),
  events: span.events.map((event) => event.name),
});

test("a trace written as Jaeger's JSON reads as the same trace", () => {
  for (const name of ["hostile", "missingParent", "clockSkew", "twins"]) {
    const spans = readTrace(request(odd[name]));
    const again = readTrace(JSON.parse(JSON.stringify(toJaeger(name, spans))));
    assert.deepEqual(again.map(seen), spans.map(seen), name);
  }
  const shop = readTrace(request(largeTrace(generator(5), START, 500)));
  assert.deepEqual(readTrace(JSON.parse(JSON.stringify(toJaeger("t", shop)))).map(seen), shop.map(seen));
});

test("attributes that are named like Jaeger's own tags are written besides those", () => {
  const spans = readTrace(request(odd["twins"]));
  const named = (key: string, text: string) => ({ key, text, type: "string" as const, value: { stringValue: text } });
  const first: SpanData = { ...spans[0]!, kind: "server", status: "error", attributes: [named("error", "timeout"), named("span.kind", "special"), named("otel.status_code", "ERROR")] };
  const again = readTrace(toJaeger("t", [first]))[0]!;
  assert.deepEqual([again.kind, again.status], ["server", "error"]);
  const values = (key: string) => again.attributes.filter((one) => one.key === key).map((one) => one.text);
  assert.deepEqual([values("error"), values("span.kind"), values("otel.status_code")], [["true", "timeout"], ["server", "special"], ["ERROR"]]);
});

test("what refers to another trace in Jaeger's JSON is a link and no parent", () => {
  const refer = (refType: string, traceID: string, spanID: string) => ({ refType, traceID, spanID });
  const read = (...references: unknown[]) => readTrace({ data: [{ processes: {}, spans: [{ traceID: "1f", spanID: "b", operationName: "x", references }] }] })[0]!;
  for (const type of ["FOLLOWS_FROM", "CHILD_OF"]) {
    const apart = read(refer(type, "2f", "c"));
    assert.deepEqual([apart.parentId, apart.links.length], ["", 1]);
    const within = read(refer(type, "2f", "c"), refer(type, "001f", "a"));
    assert.deepEqual([within.parentId, within.links.map((one) => one.spanId)], ["a".padStart(16, "0"), ["c".padStart(16, "0")]]);
  }
});

test("what came as Jaeger's JSON is written as OTLP with its types", () => {
  const shop = readTrace(request(largeTrace(generator(5), START, 200)));
  const jaeger = readTrace(JSON.parse(JSON.stringify(toJaeger("t", shop))));
  const otlp = toOtlp(jaeger);
  assert.deepEqual(readTrace(otlp).map(seen), shop.map(seen));
  assert.ok(JSON.stringify(otlp).includes('"intValue":'));
});

test("OTLP is written whole: resources, scopes, schemas and every field of a span", () => {
  const whole = {
    resourceSpans: [{
      resource: { attributes: [{ key: "service.name", value: { stringValue: "a" } }] },
      scopeSpans: [{
        scope: { name: "s", version: "1", attributes: [{ key: "k", value: { arrayValue: { values: [{ intValue: "1" }] } } }] },
        spans: [{ ...span("1", "", "x", 0, 1), kind: 2, flags: 257, droppedAttributesCount: 3, attributes: [{ key: "b", value: { bytesValue: "AAE=" } }] }],
        schemaUrl: "https://opentelemetry.io/schemas/1.30.0",
      }],
      schemaUrl: "https://opentelemetry.io/schemas/1.29.0",
    }],
  };
  const { parentSpanId: _, ...wanted } = whole.resourceSpans[0]!.scopeSpans[0]!.spans[0]!;
  const written = toOtlp(readTrace(whole)) as typeof whole;
  const { parentSpanId: __, ...got } = written.resourceSpans[0]!.scopeSpans[0]!.spans[0]!;
  assert.deepEqual(got, wanted);
  written.resourceSpans[0]!.scopeSpans[0]!.spans = whole.resourceSpans[0]!.scopeSpans[0]!.spans;
  assert.deepEqual(written, whole);
});

test("a page that was saved is opened by the trace in it", () => {
  const spans = readTrace(request(odd["hostile"]));
  const data = JSON.stringify({ id: "t", from: "", at: 0, otlp: toOtlp(spans) }).replace(/</g, "\\u003c");
  const page = `<!doctype html>\n<html><body>${SAVED_OPEN}${data}${SAVED_CLOSE}<script>0</script></body></html>`;
  assert.deepEqual(readFile(page).map(seen), spans.map(seen));
});

test("a file with one request a line is one trace again", () => {
  const lines = ["1", "2"].map((id) => JSON.stringify({ resourceSpans: [{ scopeSpans: [{ spans: [span(id, "", id, 0, 1)] }] }] })).join("\n");
  assert.deepEqual(byTrace(readFile(lines)).map(([, spans]) => spans.length), [2]);
});

test("garbage is refused with its place", () => {
  for (const [text, wanted] of [
    ["", /not JSON/],
    ["<b>", /not JSON/],
    ["<html>", /an HTML page without a trace/],
    ["[1]", /not an object/],
    ['{"a":1}', /neither OTLP/],
    ['{"resourceSpans":[{"scopeSpans":[{"spans":[{"spanId":5}]}]}]}', /resourceSpans\[0\]\.scopeSpans\[0\]\.spans\[0\]\.spanId/],
    ['{"resourceSpans":[{"scopeSpans":[{"spans":[{"startTimeUnixNano":"-1"}]}]}]}', /startTimeUnixNano/],
    ['{"resourceSpans":[]}\n{', /line 2/],
  ] as const) {
    assert.throws(() => readFile(text), wanted, text);
  }
});
