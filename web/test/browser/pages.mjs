import assert from "node:assert/strict";
import { createServer, request } from "node:http";
import { join } from "node:path";
import { test } from "node:test";
import { checkoutTrace, generator, send } from "../shop.mjs";
import { findings, open, shot, startSpanreel, stop, until, world } from "./world.mjs";

/** A compressed request without spans has less, one with a span more. */
const EMPTY_BYTES_MAX = 64;

// No API server runs here: the answer stands in for one and has the shape of docs/ui-api.md.
const CLUSTER = {
  examination: {
    scope: { namespace: null, name: null },
    webhook_registered: true,
    conditions: { silent: 1, missed: 1, speaking: 1 },
    workloads: [
      {
        kind: "Deployment", namespace: "shop", name: "web", condition: "silent", why: "no span came since 12 min", remedy: "kubectl -n shop logs deployment/web",
        asked: [{ language: "java", annotation: "instrumentation.opentelemetry.io/inject-java", value: "true", where: "pod" }],
        decisions: [
          { language: "java", container: "app", result: "injected", reason: "injected", message: null, instrumentation: { name: "built-in", generation: null, created: null }, agent_image: "agent:1", remedy: null },
          { language: "python", container: null, result: "refused", reason: "several_languages", message: "two languages ask for one container", instrumentation: null, agent_image: null, remedy: 'instrumentation.opentelemetry.io/python-container-names: "job"' },
        ],
        notes: [], pods: 2, pod_conditions: { silent: 2 }, examples: [],
      },
      { kind: "Deployment", namespace: "shop", name: "api", condition: "missed", why: "it was created without instrumentation", remedy: "kubectl -n shop rollout restart deployment/api", asked: [], decisions: [], notes: [], pods: 1, pod_conditions: { missed: 1 }, examples: [] },
      {
        kind: "Deployment", namespace: "shop", name: "<b>speaks</b>", condition: "speaking", why: "last span 3 s ago", remedy: null, asked: [], decisions: [], notes: [], pods: 1, pod_conditions: { speaking: 1 },
        examples: [{ name: "speaks-1", condition: "speaking", containers: [{ container: "app", language: "java", condition: "speaking", why: "a span came lately", remedy: null, life: { state: "speaking", first_span: "2026-01-01T00:00:00Z", last_span: new Date().toISOString(), likely_cause: null } }] }],
      },
    ],
    left_out: { workloads: 0, pods: 0, not_asking: 4 },
    notes: [],
  },
  catch_up: {
    at: new Date().toISOString(), mode: "report", pods: { missed: 1 }, pods_left_out: 0, unreadable: 0,
    workloads: [{ namespace: "shop", kind: "Deployment", name: "api", state: "missed", pods: { missed: 1 }, example: "api-1", instrumentations: ["shop/java"], waits: null }],
    crash_loops: [{ namespace: "shop", kind: "StatefulSet", name: "db", languages: ["java"], example: "db-0", evidence: "revision" }],
  },
  collectors: [
    { namespace: "shop", name: "edge", ready: false, reason: "ConfigurationRefused", message: "config.yaml:3:5: there is no exporter \"otpl\"; did you mean otlp?", since: Date.now() / 1000 - 600, running: true, ports: [{ name: "otlp-grpc", port: 4317, udp: false }], fix: "kubectl -n shop edit opentelemetrycollector edge" },
    { namespace: "shop", name: "core", ready: true, reason: "Running", message: "", since: Date.now() / 1000 - 600, running: true, ports: [], fix: null },
  ],
  instrumentations: [{ namespace: "shop", name: "java", generation: 3, ok: false, message: "spec.sampler.argument: 2 is not between 0 and 1", fix: "kubectl -n shop edit instrumentation java" }],
  left_out: { collectors: 0, instrumentations: 0 },
};

test("the cluster page shows who is silent, how far each came, and the line that changes it", async () => {
  const { page, close } = await open("/health");
  await page.route("**/ui/api/cluster*", (route) => route.fulfill({ json: CLUSTER }));
  await page.getByRole("link", { name: "Cluster" }).click();
  await page.locator(".workload", { hasText: "<b>speaks</b>" }).waitFor();
  await page.locator(".workload pre", { hasText: "rollout restart deployment/api" }).waitFor();
  await page.getByRole("img", { name: "asked, injected, started, not speaking" }).waitFor();
  await page.locator(".decisions [role=row]", { hasText: "several languages: two languages ask" }).waitFor();
  await shot(page, "cluster-workloads");
  await page.getByRole("button", { name: "who asks, and its pods" }).click();
  await page.getByText(/first span \d+d ago, last/).waitFor();
  await page.getByRole("button", { name: "silent 1" }).click();
  await page.waitForURL(/condition=silent/);
  await page.waitForFunction(() => document.querySelectorAll(".workload").length === 1);
  await page.locator(".workload", { hasText: "agent:1" }).waitFor();
  await page.getByRole("tab", { name: "Restarts (2)" }).click();
  await page.locator("pre", { hasText: "logs db-0 --previous" }).waitFor();
  await page.locator("pre", { hasText: "rollout restart deployment/api" }).waitFor();
  await shot(page, "cluster-restarts");
  await page.getByRole("tab", { name: "Resources (3)" }).click();
  await page.locator(".workload", { hasText: "did you mean otlp?" }).locator("pre", { hasText: "edit opentelemetrycollector edge" }).waitFor();
  await page.locator(".workload", { hasText: "not between 0 and 1" }).waitFor();
  await shot(page, "cluster-resources");
  await close();
  for (const tab of ["", "?tab=catch-up", "?tab=resources"]) {
    const narrow = await open("/health", { width: 360, height: 740, bypassCSP: true });
    await narrow.page.route("**/ui/api/cluster*", (route) => route.fulfill({ json: CLUSTER }));
    await narrow.page.goto(`${world.base}/cluster${tab}`);
    await narrow.page.locator(".workload").first().waitFor();
    assert.deepEqual(await findings(narrow.page), [], tab);
    await shot(narrow.page, `cluster${tab.replace(/\W+/g, "-")}-360`);
    await narrow.close();
  }
});

test("the map shows services, databases and queues with their calls", async () => {
  const { page, close } = await open("/map");
  await page.locator(".map-node", { hasText: "checkout" }).first().waitFor();
  for (const name of ["postgresql", "redis", "orders"]) assert.ok((await page.locator(".map-node", { hasText: name }).count()) > 0, name);
  assert.ok((await page.locator(".map-edge").count()) >= 8);
  // Where a call's line is not covered, it leads to the traces that have the call.
  const at = await page.evaluate(() => {
    for (const line of document.querySelectorAll(".map-hit")) {
      line.scrollIntoView({ block: "center", inline: "center" });
      const { x, y } = line.getPointAtLength(line.getTotalLength() / 2).matrixTransform(line.getScreenCTM());
      if (document.elementFromPoint(x, y)?.classList.contains("map-hit")) return [x, y];
    }
    return null;
  });
  assert.ok(at, "some line is in sight");
  await page.mouse.click(...at);
  await page.waitForURL((url) => url.pathname === "/traces" && /[>&]/.test(url.searchParams.get("q") ?? ""));
  await page.locator("a.trace").first().waitFor();
  await close();
});

test("cluster says that there is none", async () => {
  const { page, close } = await open("/cluster");
  await page.getByText("This Spanreel serves no cluster", { exact: true }).waitFor();
  await close();
});

test("health shows the ledger, and what a destination refused for good with what it was", async () => {
  // A destination that refuses every span for good, and takes a request without any: so it is the spans that it refuses.
  const refusing = createServer((incoming, outgoing) => {
    let bytes = 0;
    incoming.on("data", (chunk) => (bytes += chunk.length)).on("end", () => {
      if (bytes < EMPTY_BYTES_MAX) outgoing.writeHead(200, { "content-type": "application/x-protobuf" }).end();
      else outgoing.writeHead(400, { "content-type": "text/plain" }).end("no <b>spans</b> today");
    });
  });
  await new Promise((done) => refusing.listen(0, "127.0.0.1", done));
  const set = [`exporters.otlp_http.endpoint=http://127.0.0.1:${refusing.address().port}`, "service.pipelines.traces.exporters=[otlp_http]"];
  const forwarding = await startSpanreel(join(world.directory, "forwarding"), { set });
  const [, , query] = forwarding.ports;
  await send(forwarding.otlp, checkoutTrace(generator(4), Date.now()));
  await until(async () => (await (await fetch(`http://127.0.0.1:${query}/api/spanreel/dead-letters`)).json()).dead_letters.length > 0);
  const { page, close } = await open("/health", { origin: `http://127.0.0.1:${query}` });
  await page.locator(".equation", { hasText: "received" }).first().waitFor();
  await page.getByRole("tab", { name: /^Dead letters \(/ }).click();
  const row = page.locator("tbody tr", { hasText: "no <b>spans</b> today" }).first();
  await row.waitFor();
  await row.getByRole("button").click();
  await page.locator(".letter pre", { hasText: "spanreel dead-letters retry" }).waitFor();
  await page.locator(".letter .raw", { hasText: "resourceSpans" }).waitFor();
  await shot(page, "health-letters");
  await page.getByRole("button", { name: "Show as trace" }).click();
  await page.locator(".line").first().waitFor();
  await page.goBack();
  await page.locator(".letter").waitFor();
  await page.getByRole("tab", { name: /^Warnings \(/ }).click();
  await page.locator(".recent li", { hasText: "no <b>spans</b> today" }).first().waitFor();
  await shot(page, "health-warnings");
  await close();
  await stop(forwarding);
  await new Promise((done) => refusing.close(done));
});

test("health shows the configuration in force, with its defaults", async () => {
  const { page, close } = await open("/health?tab=config");
  await page.locator("tbody tr", { hasText: "receivers::otlp::protocols::grpc::endpoint" }).waitFor();
  const all = await page.locator("tbody tr").count();
  assert.ok((await page.locator("tbody tr.default").count()) > 0);
  await page.getByRole("button", { name: "Only what was set" }).click();
  await page.waitForFunction((all) => document.querySelectorAll("tbody tr").length < all, all);
  assert.equal(await page.locator("tbody tr.default").count(), 0);
  await page.getByLabel("Filter values").fill("query_endpoint");
  await page.waitForFunction(() => document.querySelectorAll("tbody tr").length === 1);
  await close();
});

test("a trace that is not there, and a page that is not there, say so", async () => {
  const { page, close } = await open("/trace/00000000000000000000000000000001");
  await page.getByText("No such trace here").waitFor();
  await close();
  const answer = await fetch(`${world.base}/no-such-page`);
  assert.equal(answer.status, 404);
});

test("behind a proxy's sub-path everything still works", async () => {
  const { createServer, request } = await import("node:http");
  const prefix = "/observe/spanreel";
  const proxy = createServer((incoming, outgoing) => {
    if (!incoming.url.startsWith(prefix)) return outgoing.writeHead(404).end();
    const target = new URL(incoming.url.slice(prefix.length) || "/", world.base);
    incoming.pipe(request(target, { method: incoming.method, headers: incoming.headers }, (answer) => {
      outgoing.writeHead(answer.statusCode, answer.headers);
      answer.pipe(outgoing);
    }));
  });
  await new Promise((done) => proxy.listen(0, "127.0.0.1", done));
  const origin = `http://127.0.0.1:${proxy.address().port}`;
  const { page, close } = await open(`${prefix}/trace/${world.ids.odd.twins}`, { origin });
  await page.locator(".line", { hasText: "call" }).first().waitFor();
  await page.getByRole("link", { name: "Traces" }).click();
  await page.locator("a.trace").first().waitFor();
  assert.ok(new URL(page.url()).pathname.startsWith(`${prefix}/traces`));
  await page.reload();
  await page.locator("a.trace").first().waitFor();
  await close();
  proxy.closeAllConnections();
  await new Promise((done) => proxy.close(done));
});

test("no page has a serious accessibility finding, light or dark, wide or narrow", async () => {
  const { large, odd } = world.ids;
  const pages = [
    "/", "/traces", "/traces?live=1", "/map", "/explain", "/cluster", "/health", "/health?tab=letters", "/health?tab=recent", "/health?tab=config",
    `/trace/${odd.hostile}?span=0000000000000001`, `/trace/${large}?critical=1`, `/trace/${large}?tab=flame`, `/trace/${large}?tab=statistics`, `/trace/${large}?tab=map`, `/trace/${odd.hostile}?tab=events`, `/trace/${large}?tab=compare`,
  ];
  const all = [];
  for (const [scheme, width] of [["light", 1440], ["dark", 1440], ["light", 360], ["dark", 360]]) {
    for (const path of pages) {
      const { page, close } = await open(path, { width, height: width === 360 ? 740 : 900, scheme, bypassCSP: true });
      // A stream of events never ends.
      await page.waitForFunction(() => document.querySelector("main")?.children.length > 0 && !document.querySelector(".waiting, .stale"));
      all.push(...(await findings(page)).map((one) => `${path} ${scheme} ${width}: ${one}`));
      await shot(page, `${path.replace(/[0-9a-f]{32}/, path.includes(large) ? "large" : "odd").replace(/\W+/g, "-").replace(/^-|-$/g, "") || "home"}-${scheme}-${width}`);
      await close();
    }
  }
  assert.deepEqual(all, []);
});

test("a server that vanished is said in place, and its return ends that", async () => {
  const first = await startSpanreel(join(world.directory, "other"));
  // Not a matter of this page: the browser's own report of the refused connection.
  const { page, close } = await open("/traces", { origin: first.url, expected: /ERR_CONNECTION_REFUSED|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET|ERR_INCOMPLETE_CHUNKED/ });
  await page.getByText("No trace matches").waitFor();
  await stop(first);
  await page.getByRole("button", { name: "Load again" }).click();
  const alert = page.getByRole("alert").filter({ hasText: "does not answer" }).first();
  await alert.waitFor();
  const again = await startSpanreel(first.data, { ports: first.ports });
  const spans = checkoutTrace(generator(9), Date.now());
  await send(again.otlp, spans);
  // A retry in place is enough for its part of the page, and a reload for all of them.
  await alert.getByRole("button", { name: "Try again" }).click();
  await page.getByRole("button", { name: "Load again" }).click();
  await page.locator(`a.trace[href*="${spans[0].traceId}"]`).waitFor();
  await page.waitForFunction(() => !document.querySelector("[role=alert]"));
  await close();
  await stop(again);
});

test("a live list goes on when the server returns", async () => {
  const first = await startSpanreel(join(world.directory, "third"));
  const { page, close } = await open("/traces?live=1", { origin: first.url, expected: /ERR_/ });
  await page.locator(".live .lamp:not(.warn):not(.off)").waitFor();
  await stop(first);
  await page.locator(".live .lamp.warn, .live .lamp.off").waitFor();
  const again = await startSpanreel(first.data, { ports: first.ports });
  await page.locator(".live .lamp:not(.warn):not(.off)").waitFor();
  const spans = checkoutTrace(generator(10), Date.now());
  await send(again.otlp, spans);
  await page.locator(`a.trace[href*="${spans[0].traceId}"]`).waitFor();
  await close();
  await stop(again);
});
