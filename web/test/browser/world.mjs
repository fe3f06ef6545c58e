// What the browser tests share: a real Spanreel, a real browser (Debian's Chromium), and pages that fail a test if anything
// is wrong with them.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { after, before } from "node:test";
import { chromium } from "playwright-core";

const shotsAt = process.argv.indexOf("--shots");
const SHOTS = shotsAt > 0 ? process.argv[shotsAt + 1] : null;
const BINARY = resolve(process.env.SPANREEL_BIN ?? "../target/release/spanreel");
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const START_MS = 60_000;
const WAIT_MS = 60_000;
/** Below the range from which Linux takes the ports of outgoing connections: a server that returns finds its port free. */
const FIRST_PORT = 20_000;
const PORTS = 12_000;
/** Processes that run at the same time start their search at different places. */
let nextPort = process.pid % PORTS;

/** Known from the first test on; `ids` from `home.mjs` on. */
export const world = { base: "", otlp: "", directory: "", ids: { large: "", odd: {} } };

let browser;
/** Whatever a test leaves running is stopped at the end. */
const running = new Set();

/** On which nobody listens; none is given out twice. */
export async function freePort() {
  for (let tried = 0; tried < PORTS; tried++) {
    const port = FIRST_PORT + (nextPort++ % PORTS);
    const server = createServer();
    const isFree = await new Promise((done) => server.once("error", () => done(false)).listen(port, "127.0.0.1", () => done(true)));
    if (!isFree) continue;
    await new Promise((done) => server.close(done));
    return port;
  }
  throw new Error(`no free port between ${FIRST_PORT} and ${FIRST_PORT + PORTS}`);
}

/** Has a process ended at the end of the tests, if it is there by then. */
export const keep = (child) => running.add(child);

/** Takes the ports of an earlier one if they are given; serves no cluster unless there is a `kubeconfig`. */
export async function startSpanreel(data, { set = [], ports, kubeconfig } = {}) {
  const [grpc, http, query] = ports ?? [await freePort(), await freePort(), await freePort()];
  const all = [`receivers.otlp.protocols.grpc.endpoint=127.0.0.1:${grpc}`, `receivers.otlp.protocols.http.endpoint=127.0.0.1:${http}`, `extensions.spanreel.query_endpoint=127.0.0.1:${query}`, "service.telemetry.metrics.level=none", ...set];
  const child = spawn(BINARY, ["run", ...(kubeconfig ? ["--kubeconfig", kubeconfig] : ["--no-cluster"]), "--data", data, ...all.flatMap((one) => ["--set", one])], { stdio: ["ignore", "ignore", "pipe"] });
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
  return { child, url, otlp: `http://127.0.0.1:${http}`, ports: [grpc, http, query], data };
}

/** Asks again until it holds. */
export async function until(holds) {
  for (const end = Date.now() + WAIT_MS; !(await holds()); ) {
    if (Date.now() > end) throw new Error("what was waited for did not come");
    await new Promise((done) => setTimeout(done, 100));
  }
}

export async function stop({ child }) {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((done) => child.once("exit", done));
  child.kill("SIGTERM");
  await ended;
}

/** A page that fails the test if anything is wrong with it: errors, CSP, requests to elsewhere. `expected` are refusals that belong to the test. */
export async function open(path, { width = 1440, height = 900, scheme = "light", origin = world.base, expected = /status of 40[04]/, ...more } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme, ...more });
  const page = await context.newPage();
  page.setDefaultTimeout(WAIT_MS);
  const problems = [];
  page.on("pageerror", (error) => problems.push(`error: ${error.message}`));
  page.on("console", (message) => {
    if (message.type() === "error" && !expected.test(message.text())) problems.push(`console: ${message.text()}`);
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
    context,
    async close() {
      assert.equal(await page.evaluate(() => window.pwned), undefined);
      await context.close();
      assert.deepEqual(problems, []);
    },
  };
}

export async function shot(page, name) {
  if (SHOTS) await page.screenshot({ path: join(SHOTS, `${name}.png`) });
}

/** What is dim or moves only for a moment: whether that is looked at must not depend on when. */
const AT_REST = "*, ::before, ::after { animation: none !important; transition: none !important; } .stale { opacity: 1 !important; }";
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** What is seriously wrong with a page for people who cannot see, use a mouse, or have a small screen. The page must have been opened with `bypassCSP`. */
export async function findings(page) {
  await page.addStyleTag({ content: AT_REST });
  await page.evaluate(AXE);
  const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  const serious = found.violations.filter((one) => one.impact === "serious" || one.impact === "critical");
  const list = serious.map((one) => `${one.id}: ${one.nodes.slice(0, 3).map((node) => `${node.html.slice(0, 160)} ${node.any[0]?.message ?? ""}`).join(" | ")}`);
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  if (overflow > 0) list.push(`${overflow} pixels too wide`);
  return list;
}

/** As if a person dropped a file onto the page. */
export const drop = (page, name, contents) =>
  page.evaluate(
    ([name, contents]) => {
      const data = new DataTransfer();
      data.items.add(new File([contents], name, { type: "application/json" }));
      dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
    },
    [name, contents],
  );

/** What an item of the download menu gives: its suggested name and text. */
export async function downloaded(page, item) {
  await page.getByRole("button", { name: "Download" }).click();
  const waiting = page.waitForEvent("download");
  await page.getByRole("menuitem", { name: item }).click();
  const download = await waiting;
  const path = join(world.directory, download.suggestedFilename());
  await download.saveAs(path);
  return { path, name: download.suggestedFilename(), text: readFileSync(path, "utf8") };
}

before(async () => {
  world.directory = mkdtempSync(join(tmpdir(), "spanreel-web-"));
  const spanreel = await startSpanreel(join(world.directory, "data"));
  world.base = spanreel.url;
  world.otlp = spanreel.otlp;
  browser = await chromium.launch({
    executablePath: CHROMIUM,
    // As if the owner of every such name had it lead here.
    args: ["--host-resolver-rules=MAP *.example 127.0.0.1", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
});

after(async () => {
  await browser?.close();
  for (const child of running) await stop({ child });
  if (world.directory) rmSync(world.directory, { recursive: true, force: true });
});
