// Every page in a real browser (Debian's Chromium), against a real Spanreel that real OTLP requests have filled.
//
//   SPANREEL_BIN=target/release/spanreel node test/browser.mjs [--shots DIRECTORY]
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";
import { fill, generator, largeTrace, oddTraces, send } from "./shop.mjs";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const shotsAt = process.argv.indexOf("--shots");
const SHOTS = shotsAt > 0 ? process.argv[shotsAt + 1] : null;
const BINARY = resolve(process.env.SPANREEL_BIN ?? "../target/release/spanreel");
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const START_MS = 30_000;
const WAIT_MS = 20_000;
const LARGE = 10_000;

let browser;
let spanreel;
/** Whatever a test leaves running is stopped at the end. */
const running = new Set();
let directory;
let base;
let otlp;
let ids;

async function freePort() {
  const server = createServer();
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address();
  await new Promise((done) => server.close(done));
  return port;
}

async function startSpanreel(data) {
  const [grpc, http, query] = [await freePort(), await freePort(), await freePort()];
  const set = [`receivers.otlp.protocols.grpc.endpoint=127.0.0.1:${grpc}`, `receivers.otlp.protocols.http.endpoint=127.0.0.1:${http}`, `extensions.spanreel.query_endpoint=127.0.0.1:${query}`, "service.telemetry.metrics.level=none"];
  const child = spawn(BINARY, ["run", "--no-cluster", "--data", data, ...set.flatMap((one) => ["--set", one])], { stdio: ["ignore", "ignore", "pipe"] });
  running.add(child);
  let log = "";
  child.stderr.on("data", (chunk) => (log = (log + chunk).slice(-20_000)));
  const url = `http://127.0.0.1:${query}`;
  for (const until = Date.now() + START_MS; ; ) {
    if (child.exitCode !== null) throw new Error(`spanreel ended with ${child.exitCode}:\n${log}`);
    const answer = await fetch(`${url}/ready`).catch(() => null);
    if (answer?.ok) break;
    if (Date.now() > until) throw new Error(`spanreel is not ready:\n${log}`);
    await new Promise((done) => setTimeout(done, 50));
  }
  return { child, url, otlp: `http://127.0.0.1:${http}` };
}

async function stop({ child }) {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((done) => child.once("exit", done));
  child.kill("SIGTERM");
  await ended;
}

/** A page that fails the test if anything is wrong with it: errors, CSP, requests to elsewhere. */
async function open(path, { width = 1440, height = 900, scheme = "light", origin = base, ...more } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme, ...more });
  const page = await context.newPage();
  page.setDefaultTimeout(WAIT_MS);
  const problems = [];
  page.on("pageerror", (error) => problems.push(`error: ${error.message}`));
  page.on("console", (message) => {
    if (message.type() === "error" && !/the server responded with a status of 40[04]/.test(message.text())) problems.push(`console: ${message.text()}`);
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(origin) && !/^(blob|data):/.test(request.url())) problems.push(`elsewhere: ${request.url()}`);
  });
  page.on("dialog", (dialog) => {
    problems.push(`a script of the data ran: ${dialog.message()}`);
    void dialog.dismiss();
  });
  await page.goto(origin + path);
  return {
    page,
    async close() {
      assert.equal(await page.evaluate(() => window.pwned), undefined);
      await context.close();
      assert.deepEqual(problems, []);
    },
  };
}

async function shot(page, name) {
  if (SHOTS) await page.screenshot({ path: join(SHOTS, `${name}.png`) });
}

before(async () => {
  directory = mkdtempSync(join(tmpdir(), "spanreel-web-"));
  spanreel = await startSpanreel(join(directory, "data"));
  base = spanreel.url;
  otlp = spanreel.otlp;
  browser = await chromium.launch({
    executablePath: CHROMIUM,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
});

after(async () => {
  await browser?.close();
  for (const child of running) await stop({ child });
  if (directory) rmSync(directory, { recursive: true, force: true });
});

test("the empty page says how to send the first trace, and changes by itself when it comes", async () => {
  const { page, close } = await open("/");
  await page.getByRole("heading", { name: "Waiting for the first trace" }).waitFor();
  const command = await page.locator(".command pre", { hasText: "curl" }).innerText();
  assert.ok(command.includes(otlp.replace("http://", "")), command);
  await shot(page, "empty");
  const narrow = await open("/", { width: 360, height: 740 });
  await narrow.page.getByRole("heading", { name: "Waiting for the first trace" }).waitFor();
  assert.ok(await narrow.page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
  await narrow.close();
  // The command of the guide, as a person would run it.
  const ended = await new Promise((done) => spawn("bash", ["-c", command], { stdio: "ignore" }).once("exit", done));
  assert.equal(ended, 0);
  await page.locator(".services-table", { hasText: "first" }).waitFor();
  await close();
});

test("data for the other tests arrive", async () => {
  const spans = await fill(otlp, 1_500, 3_000, 5);
  const random = generator(6);
  const now = Date.now();
  const large = largeTrace(random, now - 240_000, LARGE);
  for (let i = 0; i < large.length; i += 2_000) await send(otlp, large.slice(i, i + 2_000));
  const odd = oddTraces(random, now - 60_000);
  for (const one of Object.values(odd)) await send(otlp, one);
  ids = { large: large[0].traceId, odd: Object.fromEntries(Object.entries(odd).map(([name, list]) => [name, list[0].traceId])) };
  assert.ok(spans > 5_000);
});

test("home shows each service with its rate, errors and durations", async () => {
  const { page, close } = await open("/");
  const row = page.locator(".services-table tbody tr", { hasText: "payment" });
  await row.waitFor();
  assert.match(await row.innerText(), /payment[\s\S]*%[\s\S]*ms/);
  await page.locator(".strip", { hasText: "Receiving" }).waitFor();
  await row.getByRole("link").first().click();
  await page.waitForURL(/traces\?.*payment/);
  await page.locator("a.trace").first().waitFor();
  await close();
});

test("a search is in the address, in the box, in the filters and in the list at once", async () => {
  const { page, close } = await open("/traces");
  await page.locator("a.trace").first().waitFor();
  const before = await page.locator('.facet[data-facet="resource.service.name"] .value').count();
  assert.ok(before >= 6);
  await page.locator('.facet[data-facet="resource.service.name"] .value', { hasText: "mailer" }).click();
  await page.locator('.facet[data-facet="status"] .value', { hasText: "unset" }).click();
  await page.waitForFunction(() => document.querySelector("[data-search]").value === '{ resource.service.name = "mailer" && status = unset }');
  assert.equal(new URL(page.url()).searchParams.get("q"), '{ resource.service.name = "mailer" && status = unset }');
  await page.locator(".pills li", { hasText: "status = unset" }).getByRole("button").click();
  await page.waitForFunction(() => document.querySelector("[data-search]").value === '{ resource.service.name = "mailer" }');
  // The address alone gives the same page again.
  const again = await open(new URL(page.url()).pathname + new URL(page.url()).search);
  await again.page.locator("a.trace").first().waitFor();
  assert.equal(await again.page.locator("[data-search]").inputValue(), '{ resource.service.name = "mailer" }');
  await again.close();
  await page.goBack();
  await page.waitForFunction(() => document.querySelector("[data-search]").value.includes("status = unset"));
  await close();
});

test("the box completes names and values that exist", async () => {
  const { page, close } = await open("/traces");
  await page.locator("[data-search]").click();
  await page.locator("[data-search]").fill("");
  await page.keyboard.type("{");
  await page.keyboard.type("resource.serv");
  await page.locator("#offers li", { hasText: "resource.service.name" }).waitFor();
  await page.keyboard.press("Tab");
  await page.keyboard.type('= "pay');
  await page.locator("#offers li", { hasText: "payment" }).waitFor();
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  await page.keyboard.press("Enter");
  await page.waitForURL(/payment/);
  assert.match(await page.locator("[data-search]").inputValue(), /^\{ ?resource\.service\.name = "payment" *\}$/);
  await close();
});

test("a query that is wrong is explained in place", async () => {
  const { page, close } = await open(`/traces?q=${encodeURIComponent("{ nonsense ")}`);
  await page.getByRole("alert").waitFor();
  assert.match(await page.getByRole("alert").innerText(), /syntax error|parse/);
  await close();
});

test("a box in the chart chooses time and duration, and leads to what differs", async () => {
  const { page, close } = await open("/traces?q=%7B%20name%20%3D%20%22POST%20%2Fcheckout%22%20%7D");
  await page.locator("a.trace").first().waitFor();
  const box = await page.locator(".durations canvas").boundingBox();
  await page.mouse.move(box.x + 80, box.y + 8);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width - 30, box.y + 70, { steps: 5 });
  await page.mouse.up();
  await page.getByRole("button", { name: "Explain the difference" }).click();
  await page.locator(".difference", { hasText: "span.app.build" }).waitFor();
  await shot(page, "explain");
  assert.match(await page.locator(".difference").first().innerText(), /app\.build/);
  await page.locator(".difference").first().getByRole("link", { name: "only" }).first().click();
  await page.waitForURL(/app\.build/);
  await close();
});

test("new traces appear while live, and stop when paused", async () => {
  const { page, close } = await open("/traces?since=5m&live=1");
  await page.locator(".summary b").first().waitFor();
  const random = generator(77);
  const { checkoutTrace } = await import("./shop.mjs");
  const spans = checkoutTrace(random, Date.now());
  await send(otlp, spans);
  await page.locator(`a.trace[href*="${spans[0].traceId}"]`).waitFor();
  await page.getByRole("button", { name: "Pause" }).click();
  await page.waitForURL((url) => !url.search.includes("live"));
  await close();
});

test("the waterfall walks by keys, finds, and keeps its place in the address", async () => {
  const { page, close } = await open(`/trace/${ids.large}`);
  const selected = page.locator(".line.selected");
  await page.locator(".line").first().waitFor();
  assert.ok((await page.locator(".line").count()) < 120, "only rows in sight exist");
  await page.keyboard.press("j");
  await page.keyboard.press("j");
  assert.equal(await selected.getAttribute("aria-rowindex"), "2");
  await page.keyboard.press("e");
  await page.locator(".drawer .message", { hasText: "row is locked" }).waitFor();
  assert.ok(await selected.isVisible(), "the next error is in sight");
  const span = new URL(page.url()).searchParams.get("span");
  await page.keyboard.press("[");
  assert.equal(await page.locator(".line").count(), 1);
  await page.keyboard.press("]");
  await page.keyboard.press("c");
  await page.waitForURL(/critical=1/);
  await page.keyboard.press("Escape");
  await page.locator(".drawer").waitFor({ state: "detached" });
  await page.keyboard.press("/");
  await page.keyboard.type("row is locked");
  await page.keyboard.press("Enter");
  await page.locator(".find small", { hasText: /of \d+/ }).waitFor();
  await page.keyboard.press("Escape");
  await page.keyboard.press("+");
  await page.waitForURL(/zoom=/);
  await page.keyboard.press("?");
  await page.getByRole("dialog", { name: "Keyboard" }).waitFor();
  await page.keyboard.press("Escape");
  const again = await open(`/trace/${ids.large}?span=${span}`);
  await again.page.locator(".drawer .message", { hasText: "row is locked" }).waitFor();
  await again.page.locator(".line.selected").waitFor();
  await again.close();
  await close();
});

test("a trace of 10,000 spans scrolls; its frame times are told", async () => {
  const { page, close } = await open(`/trace/${ids.large}`);
  await page.locator(".line").first().waitFor();
  const frames = await page.evaluate(
    () =>
      new Promise((done) => {
        const element = document.querySelector(".waterfall");
        const times = [];
        let last = performance.now();
        const step = (now) => {
          times.push(now - last);
          last = now;
          element.scrollTop += 400;
          if (times.length < 240) requestAnimationFrame(step);
          else done(times.slice(5));
        };
        requestAnimationFrame(step);
      }),
  );
  frames.sort((a, b) => a - b);
  console.log(`frames of a fast scroll: median ${frames[Math.floor(frames.length / 2)].toFixed(1)} ms, p95 ${frames[Math.floor(frames.length * 0.95)].toFixed(1)} ms, longest ${frames.at(-1).toFixed(1)} ms`);
  // Every row that there is room for is drawn where the scroll ended.
  await page.waitForFunction(() => {
    const box = document.querySelector(".waterfall").getBoundingClientRect();
    const rows = [...document.querySelectorAll(".line")].filter((row) => {
      const own = row.getBoundingClientRect();
      return own.bottom > box.top && own.top < box.bottom;
    });
    return rows.length >= Math.floor(box.height / 25);
  });
  await close();
});

test("odd traces are shown with what is odd about them", async () => {
  for (const [name, wanted] of [
    ["missingParent", /3 spans' parents never arrived/],
    ["clockSkew", /1 span starts before its parent, by up to 41s/],
    ["cycle", /2 rings of parents/],
    ["zeroAndNegative", /1 span ends before it starts/],
  ]) {
    const { page, close } = await open(`/trace/${ids.odd[name]}`);
    await page.locator(".mark", { hasText: wanted }).waitFor();
    await close();
  }
  const twins = await open(`/trace/${ids.odd.twins}`);
  await twins.page.locator('.line[aria-level="3"]', { hasText: "child of the server's half" }).waitFor();
  await twins.close();
  const { page, close } = await open(`/trace/${ids.odd.clockSkew}`);
  await page.getByRole("button", { name: "Correct", exact: true }).click();
  await page.locator(".facts", { hasText: "100ms" }).first().waitFor();
  await close();
});

test("what stands in the data is never run and never hidden", async () => {
  const { page, close } = await open(`/trace/${ids.odd.hostile}`);
  await page.locator(".line").first().click();
  const drawer = page.locator(".drawer");
  await drawer.waitFor();
  assert.equal(await drawer.locator("h2").innerText(), "<script>window.pwned = 1</script>");
  const text = await drawer.innerText();
  for (const wanted of ["<b>key</b>", "<svg onload=alert(1)>", "\\u0007", "\\u202e", "javascript:alert(1)"]) assert.ok(text.includes(wanted), wanted);
  assert.equal(await page.locator(".page-trace img, .drawer b b, .drawer a[href^='javascript:']").count(), 0);
  await drawer.getByRole("button", { name: "all 100k characters" }).click();
  await page.waitForFunction(() => document.querySelector(".drawer").textContent.includes("x".repeat(100_000)));
  for (const path of ["/", "/traces", "/map"]) {
    const other = await open(path);
    await other.page.waitForLoadState("networkidle");
    await other.close();
  }
  await close();
});

test("a downloaded trace can be dropped, here and where nothing is stored", async () => {
  const { page, close } = await open(`/trace/${ids.odd.missingParent}`);
  const waiting = page.waitForEvent("download");
  await page.getByRole("button", { name: "OTLP JSON" }).click();
  const file = join(directory, "trace.json");
  await (await waiting).saveAs(file);
  const text = readFileSync(file, "utf8");
  assert.ok(text.includes(`"traceId":"${ids.odd.missingParent}"`));
  const drop = (target, name, contents) =>
    target.evaluate(
      ([name, contents]) => {
        const data = new DataTransfer();
        data.items.add(new File([contents], name, { type: "application/json" }));
        dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
      },
      [name, contents],
    );
  await page.goto(`${base}/health`);
  await drop(page, "trace.json", text);
  await page.locator(".line", { hasText: "orphan two" }).waitFor();
  await drop(page, "garbage.json", "<html>");
  await page.getByRole("alert").filter({ hasText: "not JSON" }).waitFor();
  await close();
});

test("the tabs of a trace show flame graph, statistics and events", async () => {
  const { page, close } = await open(`/trace/${ids.large}?tab=flame`);
  await page.locator(".flame button").first().click();
  await page.getByRole("tab", { name: "Statistics" }).click();
  await page.locator(".sheet tbody tr").first().waitFor();
  await page.locator("select").selectOption("thread.id");
  // Sixteen threads, and the root, which has none.
  await page.waitForFunction(() => document.querySelectorAll(".sheet tbody tr").length === 17);
  await page.getByRole("tab", { name: "Events" }).click();
  await page.getByText("No span of this trace has events").waitFor();
  await close();
});

test("a trace is compared with the median of its route, and with one by its id", async () => {
  const q = encodeURIComponent('{ name = "payment.Payment/Charge" && status = error }');
  const answer = await (await fetch(`${base}/api/search?q=${q}&since=2h&limit=1`)).json();
  const { page, close } = await open(`/trace/${answer.traces[0].traceID}?tab=compare`);
  await page.locator(".sheet tbody tr", { hasText: "payment.Payment/Charge" }).first().waitFor();
  await page.locator(".flame-info", { hasText: "there" }).waitFor();
  await page.getByLabel("With trace").fill(ids.large);
  await page.keyboard.press("Enter");
  await page.locator(".sheet tbody tr", { hasText: "step 1" }).first().waitFor();
  await close();
});

// No API server runs here: the answer stands in for one and has the shape of docs/doctor.md.
test("the cluster page shows who is silent and the line that changes it", async () => {
  const { page, close } = await open("/health");
  const report = {
    scope: { namespace: null, name: null },
    webhook_registered: true,
    conditions: { silent: 1, missed: 1, speaking: 1 },
    workloads: [
      { kind: "Deployment", namespace: "shop", name: "web", condition: "silent", why: "no span came since 12 min", remedy: "kubectl -n shop logs deployment/web", asked: [{ language: "java", annotation: "instrumentation.opentelemetry.io/inject-java", value: "true", where: "pod" }], decisions: [{ language: "java", container: "app", result: "injected", reason: "injected", message: "", instrumentation: { name: "built-in", generation: null, created: null }, agent_image: "agent:1", remedy: "" }], notes: [], pods: 2, pod_conditions: { silent: 2 }, examples: [] },
      { kind: "Deployment", namespace: "shop", name: "api", condition: "missed", why: "it was created without instrumentation", remedy: "kubectl -n shop rollout restart deployment/api", asked: [], decisions: [], notes: [], pods: 1, pod_conditions: { missed: 1 }, examples: [] },
      { kind: "Deployment", namespace: "shop", name: "<b>speaks</b>", condition: "speaking", why: "last span 3 s ago", remedy: null, asked: [], decisions: [], notes: [], pods: 1, pod_conditions: { speaking: 1 }, examples: [] },
    ],
    left_out: { workloads: 0, pods: 0, not_asking: 4 },
    notes: [],
  };
  await page.route("**/api/spanreel/doctor*", (route) => route.fulfill({ json: report }));
  await page.getByRole("link", { name: "Cluster" }).click();
  await page.locator(".workload", { hasText: "<b>speaks</b>" }).waitFor();
  await page.locator(".workload pre", { hasText: "rollout restart deployment/api" }).waitFor();
  await page.getByRole("button", { name: "silent 1" }).click();
  assert.equal(await page.locator(".workload").count(), 1);
  await page.getByRole("button", { name: /^why/ }).click();
  await page.locator(".workload", { hasText: "agent:1" }).waitFor();
  await shot(page, "cluster-report");
  await close();
});

test("the map shows services, databases and queues with their calls", async () => {
  const { page, close } = await open("/map");
  await page.locator(".map-node", { hasText: "checkout" }).first().waitFor();
  for (const name of ["postgresql", "redis", "orders"]) assert.ok((await page.locator(".map-node", { hasText: name }).count()) > 0, name);
  assert.ok((await page.locator(".map-edge").count()) >= 8);
  await close();
});

test("health shows the ledger; cluster says that there is none", async () => {
  const health = await open("/health");
  await health.page.locator(".equation", { hasText: "received" }).waitFor();
  await health.close();
  const cluster = await open("/cluster");
  await cluster.page.getByText("This Spanreel serves no cluster", { exact: true }).waitFor();
  await cluster.close();
});

test("a trace that is not there, and a page that is not there, say so", async () => {
  const { page, close } = await open("/trace/00000000000000000000000000000001");
  await page.getByText("No such trace here").waitFor();
  await close();
  const answer = await fetch(`${base}/no-such-page`);
  assert.equal(answer.status, 404);
});

test("behind a proxy's sub-path everything still works", async () => {
  const { createServer, request } = await import("node:http");
  const prefix = "/observe/spanreel";
  const proxy = createServer((incoming, outgoing) => {
    if (!incoming.url.startsWith(prefix)) return outgoing.writeHead(404).end();
    const target = new URL(incoming.url.slice(prefix.length) || "/", base);
    incoming.pipe(request(target, { method: incoming.method, headers: incoming.headers }, (answer) => {
      outgoing.writeHead(answer.statusCode, answer.headers);
      answer.pipe(outgoing);
    }));
  });
  await new Promise((done) => proxy.listen(0, "127.0.0.1", done));
  const origin = `http://127.0.0.1:${proxy.address().port}`;
  const { page, close } = await open(`${prefix}/trace/${ids.odd.twins}`, { origin });
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
  const pages = ["/", "/traces", `/trace/${ids.odd.hostile}?span=0000000000000001`, `/trace/${ids.large}`, `/trace/${ids.large}?tab=flame`, `/trace/${ids.large}?tab=statistics`, "/map", "/explain", "/health", "/cluster"];
  const all = [];
  for (const [scheme, width] of [["light", 1440], ["dark", 1440], ["light", 360]]) {
    for (const path of pages) {
      const { page, close } = await open(path, { width, height: width === 360 ? 740 : 900, scheme, bypassCSP: true });
      await page.waitForLoadState("networkidle");
      await page.evaluate(AXE);
      const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
      const serious = found.violations.filter((one) => one.impact === "serious" || one.impact === "critical");
      all.push(...serious.map((one) => `${path} ${scheme} ${width}: ${one.id}: ${one.nodes.slice(0, 3).map((node) => `${node.html.slice(0, 160)} ${node.any[0]?.message ?? ""}`).join(" | ")}`));
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      if (overflow > 0) all.push(`${path} ${scheme} ${width}: ${overflow} pixels too wide`);
      await shot(page, `${path.replace(/\W+/g, "-").replace(/^-|-$/g, "") || "home"}-${scheme}-${width}`);
      await close();
    }
  }
  assert.deepEqual(all, []);
});

test("a server that vanished is said in place, and its return ends that", async () => {
  const other = await startSpanreel(join(directory, "other"));
  const { page, close } = await open("/traces", { origin: other.url });
  await page.getByText("No trace matches").waitFor();
  // Not a matter of this page: the browser's own report of the refused connection.
  page.removeAllListeners("console");
  await stop(other);
  await page.getByRole("button", { name: "Load again" }).click();
  await page.getByRole("alert").filter({ hasText: "does not answer" }).first().waitFor();
  await page.getByRole("alert").first().getByRole("button", { name: "Try again" }).waitFor();
  await close();
});

