// What real agents and generators send, as the pages show it.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { open, shot, until, world } from "./world.mjs";

const script = (name) => execFileSync(fileURLToPath(new URL(`../../../.ci/${name}`, import.meta.url)), { encoding: "utf8" }).trim().split("\n").at(-1);

/** A server that calls itself once for each request. */
const SHOP = `
const http = require("node:http");
const server = http.createServer((request, response) => {
  if (request.url !== "/") return response.writeHead(request.url === "/gone" ? 410 : 200).end("inner");
  http.get({ port: server.address().port, path: "/gone" }, (inner) => inner.resume().on("end", () => response.end("outer")));
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
`;

test("a program with the Node.js agent is a service, its calls are spans in one waterfall", async () => {
  const program = join(world.directory, "shop.cjs");
  writeFileSync(program, SHOP);
  const child = spawn(process.execPath, [program], {
    env: {
      PATH: process.env.PATH,
      NODE_OPTIONS: `--require ${script("node-agent")}/autoinstrumentation/autoinstrumentation.js`,
      OTEL_SERVICE_NAME: "agent-shop",
      OTEL_EXPORTER_OTLP_ENDPOINT: world.otlp,
      OTEL_EXPORTER_OTLP_PROTOCOL: "http/protobuf",
      OTEL_METRICS_EXPORTER: "none",
      OTEL_LOGS_EXPORTER: "none",
      OTEL_BSP_SCHEDULE_DELAY: "100",
      // No question to a cloud that is not there.
      OTEL_NODE_RESOURCE_DETECTORS: "env,host,process",
    },
    stdio: ["ignore", "pipe", "inherit"],
  });
  try {
    let said = "";
    for await (const chunk of child.stdout) {
      said += chunk;
      if (said.includes("\n")) break;
    }
    const port = /\d+/.exec(said)[0];
    assert.equal(await (await fetch(`http://127.0.0.1:${port}/`)).text(), "outer");
    // The root ends last: once it is there, so is the rest.
    await until(async () => {
      const answer = await (await fetch(`${world.base}/api/search?q=${encodeURIComponent('{ resource.service.name = "agent-shop" && nestedSetParent < 0 }')}`)).json();
      return (answer.traces ?? []).length > 0;
    });
    const { page, close } = await open(`/traces?since=15m&q=${encodeURIComponent('{ resource.service.name = "agent-shop" }')}`);
    const row = page.locator("a.trace", { hasText: "agent-shop" }).first();
    await row.waitFor();
    await row.press("Enter");
    await page.locator(".line").nth(2).waitFor();
    assert.ok((await page.locator(".line").count()) >= 3, "server, client, server");
    await page.locator('.line[aria-level="3"]').click();
    await page.locator(".drawer", { hasText: "telemetry.sdk.language" }).waitFor();
    await page.locator(".drawer", { hasText: "410" }).waitFor();
    await shot(page, "agent");
    await close();
  } finally {
    const ended = new Promise((done) => child.once("exit", done));
    // The agent holds SIGTERM back.
    child.kill("SIGKILL");
    await ended;
  }
});

test("what the Collector's generator sends arrives whole", async () => {
  execFileSync(script("telemetrygen"), ["traces", "--otlp-http", "--otlp-insecure", "--otlp-endpoint", world.otlp.replace("http://", ""), "--traces", "20", "--workers", "1", "--service", "generated"], { stdio: "ignore" });
  const { page, close } = await open(`/traces?since=15m&q=${encodeURIComponent('{ resource.service.name = "generated" }')}`);
  await page.locator(".summary", { hasText: "20 traces" }).waitFor();
  await close();
});
