// What real agents and generators send, as the pages show it.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { keep, open, shot, until, world } from "./world.mjs";

const script = (name) => execFileSync(fileURLToPath(new URL(`../../../.ci/${name}`, import.meta.url)), { encoding: "utf8" }).trim().split("\n").at(-1);

/** A server that asks itself for what is gone and another one for reviews, which asks back for ratings. */
const SHOP = `
const http = require("node:http");
const ask = (port, path, then) => http.get({ port, path }, (inner) => inner.resume().on("end", then));
const server = http.createServer((request, response) => {
  const url = new URL(request.url, "http://shop");
  if (url.pathname !== "/") return response.writeHead(url.pathname === "/gone" ? 410 : 200).end("inner");
  ask(server.address().port, "/gone", () => ask(url.searchParams.get("reviews"), "/reviews", () => response.end("outer")));
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
`;

/** Starts a program with an agent, and returns it with the port that it prints first. */
async function program(command, args, service, env) {
  const child = spawn(command, args, {
    env: {
      PATH: process.env.PATH,
      OTEL_SERVICE_NAME: service,
      OTEL_EXPORTER_OTLP_ENDPOINT: world.otlp,
      OTEL_EXPORTER_OTLP_PROTOCOL: "http/protobuf",
      OTEL_TRACES_EXPORTER: "otlp",
      OTEL_METRICS_EXPORTER: "none",
      OTEL_LOGS_EXPORTER: "none",
      OTEL_BSP_SCHEDULE_DELAY: "100",
      ...env,
    },
    stdio: ["ignore", "pipe", "ignore"],
  });
  keep(child);
  let said = "";
  for await (const chunk of child.stdout) {
    said += chunk;
    if (said.includes("\n")) break;
  }
  return { child, port: Number(/\d+/.exec(said)?.[0]) };
}

test("programs with the agents of Node.js and Python are services, their calls spans of one waterfall", async () => {
  const path = join(world.directory, "shop.cjs");
  writeFileSync(path, SHOP);
  // No question to a cloud that is not there.
  const shop = await program(process.execPath, [path], "agent-shop", { NODE_OPTIONS: `--require ${script("node-agent")}/autoinstrumentation/autoinstrumentation.js`, OTEL_NODE_RESOURCE_DETECTORS: "env,host,process" });
  const python = script("python-agent");
  const agent = join(python, "autoinstrumentation");
  const reviews = await program("python3", [fileURLToPath(new URL("../../../tests/agents/middle.py", import.meta.url)), String(shop.port)], "agent-reviews", {
    PYTHONPATH: [join(agent, "opentelemetry/instrumentation/auto_instrumentation"), agent, join(python, "packages")].join(":"),
  });
  try {
    assert.equal(await (await fetch(`http://127.0.0.1:${shop.port}/?reviews=${reviews.port}`)).text(), "outer");
    // Each agent sends on its own: the root, and what the Python program was asked and asked for.
    const found = async (q) => ((await (await fetch(`${world.base}/api/search?q=${encodeURIComponent(q)}`)).json()).traces ?? []).length > 0;
    await until(async () => (await found('{ resource.service.name = "agent-shop" && nestedSetParent < 0 } && { resource.service.name = "agent-reviews" && kind = server }')) && (await found('{ resource.service.name = "agent-reviews" && kind = client }')));
    const { page, close } = await open(`/traces?since=15m&q=${encodeURIComponent('{ resource.service.name = "agent-reviews" }')}`);
    const row = page.locator("a.trace", { hasText: "agent-shop" }).first();
    await row.waitFor();
    await row.press("Enter");
    // Root; gone: client, server; reviews: client, server, client, server.
    await page.locator(".line").nth(6).waitFor();
    await page.locator('.line[aria-level="5"]').first().waitFor();
    await page.locator(".line", { hasText: "agent-reviews" }).first().click();
    await page.locator(".drawer", { hasText: "telemetry.sdk.language" }).waitFor();
    await page.locator(".drawer", { hasText: "python" }).first().waitFor();
    await shot(page, "agent");
    await close();
    const map = await open(`/map?since=15m&q=${encodeURIComponent('{ resource.service.name =~ "agent-.*" }')}`);
    await map.page.locator(".map-node", { hasText: "agent-reviews" }).waitFor();
    await map.page.locator("tbody tr", { hasText: "agent-reviews" }).first().waitFor();
    await map.close();
  } finally {
    // The agents hold SIGTERM back.
    for (const { child } of [shop, reviews]) {
      const ended = new Promise((done) => child.once("exit", done));
      child.kill("SIGKILL");
      await ended;
    }
  }
});

test("what the Collector's generator sends arrives whole", async () => {
  execFileSync(script("telemetrygen"), ["traces", "--otlp-http", "--otlp-insecure", "--otlp-endpoint", world.otlp.replace("http://", ""), "--traces", "20", "--workers", "1", "--service", "generated"], { stdio: "ignore" });
  const { page, close } = await open(`/traces?since=15m&q=${encodeURIComponent('{ resource.service.name = "generated" }')}`);
  await page.locator(".summary", { hasText: "20 traces" }).waitFor();
  await close();
});
