// Much of everything: services, and spans in the store.
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { fill, generator, send } from "../shop.mjs";
import { open, startSpanreel, stop, world } from "./world.mjs";

const STORE_SPANS = Number(process.env.SPANREEL_STORE_SPANS ?? 200_000);
const SERVICES = 5_000;
/** A checkout of the shop has about this many spans. */
const SPANS_PER_TRACE = 7;

test("five thousand services are listed, found and drawn", async () => {
  const many = await startSpanreel(join(world.directory, "many"));
  const random = generator(40);
  const now = Date.now() - 5_000;
  const nano = (ms) => String(BigInt(Math.round(ms)) * 1_000_000n);
  let spans = [];
  for (let i = 0; i < SERVICES; i++) {
    const root = { service: `service-${String(i).padStart(4, "0")}`, traceId: random.hex(16), spanId: random.hex(8), name: "GET /", kind: 2, startTimeUnixNano: nano(now), endTimeUnixNano: nano(now + 5 + random.below(200)) };
    spans.push(root);
    if (spans.length === 1_000) {
      await send(many.otlp, spans);
      spans = [];
    }
  }
  const { page, close } = await open("/", { origin: many.url });
  await page.getByPlaceholder("Filter 5,000 services").fill("service-4711");
  await page.locator(".services-table tbody tr", { hasText: "service-4711" }).waitFor();
  await page.waitForFunction(() => document.querySelectorAll(".services-table tbody tr").length === 1);
  await page.getByLabel("Filter services").fill("");
  await page.getByRole("button", { name: "All 5,000 services" }).click();
  await page.waitForFunction(() => document.querySelectorAll(".services-table tbody tr").length === 5000);
  await page.goto(`${many.url}/map?since=15m`);
  await page.locator(".map-node").first().waitFor();
  assert.ok((await page.locator(".map-node").count()) <= 150);
  await page.getByText(/are left out/).waitFor();
  await page.goto(`${many.url}/traces?since=15m`);
  await page.locator("a.trace").first().waitFor();
  await page.locator('.facet[data-facet="resource.service.name"] .value').first().waitFor();
  await close();
  await stop(many);
});

test("a store of many spans answers every page; its times are told", async () => {
  const store = await startSpanreel(join(world.directory, "store"));
  const spans = await fill(store.otlp, Math.ceil(STORE_SPANS / SPANS_PER_TRACE), 3_000, 41);
  const { page, close } = await open("/", { origin: store.url });
  const times = [];
  const timed = async (what, path, ready) => {
    const from = performance.now();
    await page.goto(store.url + path);
    await ready();
    times.push(`${what} ${Math.round(performance.now() - from)} ms`);
  };
  await timed("home", "/", () => page.locator(".services-table tbody tr").first().waitFor());
  await timed("traces", "/traces", () => page.locator("a.trace").first().waitFor());
  const all = page.locator('.facet[data-facet="resource.service.name"] .value');
  await all.first().waitFor();
  assert.equal(await all.count(), 6, "the shop's services");
  await timed("a rare error", `/traces?q=${encodeURIComponent('{ resource.service.name = "payment" && status = error }')}`, () => page.locator("a.trace").first().waitFor());
  await timed("one user", `/traces?q=${encodeURIComponent('{ span.user.id = "user-7" }')}`, () => page.locator("a.trace").first().waitFor());
  await timed("map", "/map", () => page.locator(".map-node").first().waitFor());
  await timed("explain", `/explain?box=${Math.round(Date.now() / 1000 - 2_400)},${Math.round(Date.now() / 1000)},200ms,5s`, () => page.locator(".difference").first().waitFor());
  console.log(`${spans} spans: ${times.join(", ")}`);
  await close();
  await stop(store);
});
