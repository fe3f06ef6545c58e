import assert from "node:assert/strict";
import { createServer, request } from "node:http";
import { join } from "node:path";
import { test } from "node:test";
import { checkoutTrace, generator, send } from "../shop.mjs";
import { findings, open, shot, startSpanreel, stop, until, world } from "./world.mjs";

/** A compressed request without spans has less, one with a span more. */
const EMPTY_BYTES_MAX = 64;
/** For a click on what may vanish by itself. */
const CLICK_MS = 2_000;

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

test("health forecasts nothing in the first minutes, and a failing destination is read whole on a narrow screen", async () => {
  const { page, close } = await open("/", { width: 360, height: 740 });
  let uptime = 37;
  let full = 5 * 86_400;
  const error = "127.0.0.1:34499: Connection refused (os error 111), and what else a system has to say about that";
  const away = { destination: "otlphttp/away", pipeline: "traces", configured: true, sent: 12, queued: 3, expired: {}, state: `backing off: ${error}`, last_error: { at: Date.now() / 1000 - 5, text: error }, last_success: null };
  await page.route("**/ui/api/health", async (route) => {
    const answer = await route.fetch();
    const now = await answer.json();
    const store = { ...now.store, spans: 0, waiting_spans: 4321, max_age_seconds: 14 * 86_400 };
    await route.fulfill({ json: { ...now, uptime_seconds: uptime, destinations: [away], store, spool: { ...now.spool, full_in_seconds: full, written_per_day_bytes: 2 ** 31 } } });
  });
  await page.goto(`${world.base}/health`);
  const [spool, store, flash] = ["Spool", "Store", "Written to the flash"].map((title) => page.locator(".cards .card").filter({ has: page.getByRole("heading", { name: title, exact: true }) }));
  await page.locator(".card", { hasText: "too early to say when the spool is full" }).waitFor();
  assert.doesNotMatch(await spool.innerText(), /the oldest goes/);
  assert.match(await store.innerText(), /kept 14d; 4,321 more are still in the spool/);
  assert.match(await flash.innerText(), /Too early to say how much it is a day/);
  const state = page.locator("td.state");
  assert.equal((await state.innerText()).split(error).length, 2, "once");
  const place = await state.boundingBox();
  assert.ok(place.x + place.width <= 360, "all of it is in sight");
  uptime = 3600;
  await page.reload();
  await page.locator(".card", { hasText: "the spool is full in about 5d, then the oldest goes" }).waitFor();
  assert.match(await flash.innerText(), /2 GiB a day[\s\S]*a year/);
  full = null;
  await page.reload();
  await page.locator(".card", { hasText: "not filling up" }).waitFor();
  assert.doesNotMatch(await spool.innerText(), /the oldest goes/);
  await close();
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

test("an answer that is an error is shown where it belongs on every page, and tried again there", async () => {
  const box = `${Math.round(Date.now() / 1000 - 2_400)},${Math.round(Date.now() / 1000)},200ms,5s`;
  for (const [path, filled] of [
    ["/", ".services-table tbody tr"], ["/traces", "a.trace"], ["/map", ".map-node"], [`/explain?box=${box}`, ".difference"], ["/cluster", ".empty"], ["/health", ".equation"],
    ["/health?tab=letters", ".empty"], ["/health?tab=config", "tbody tr"], [`/trace/${world.ids.odd.twins}`, ".line"], [`/trace/${world.ids.odd.twins}?tab=compare&with=${world.ids.large}`, ".sheet tbody tr"],
  ]) {
    const { page, close } = await open("/no-such-page", { expected: /status of (404|500)/ });
    const broken = /\/(ui\/)?api\//;
    // The session is asked once, and the trace itself must be there to be compared.
    const isSpared = (url) => url.includes("/ui/api/session") || (path.includes("compare") && url.includes(world.ids.odd.twins));
    const isHealth = path.startsWith("/health?");
    await page.route(broken, (route) => (isSpared(route.request().url()) || (isHealth && route.request().url().includes("ui/api/health")) ? route.continue() : route.fulfill({ status: 500, contentType: "text/plain", body: "the disk <b>burns</b>" })));
    await page.goto(world.base + path);
    const alerts = page.getByRole("alert").filter({ hasText: "the disk <b>burns</b>" });
    await alerts.first().waitFor();
    await alerts.first().getByRole("button", { name: "Try again" }).waitFor();
    await page.unroute(broken);
    // Each once: a second click would only ask anew. One that looks by itself may be gone before it is clicked.
    for (let shown = await alerts.count(); shown > 0; shown = await alerts.count()) {
      await alerts.first().getByRole("button", { name: "Try again" }).dispatchEvent("click", undefined, { timeout: CLICK_MS }).catch(() => {});
      await until(async () => (await alerts.count()) < shown);
    }
    await page.locator(filled).first().waitFor();
    await close();
  }
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
