import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { test } from "node:test";
import { fill, generator, largeTrace, oddTraces, send } from "../shop.mjs";
import { open, shot, world } from "./world.mjs";

const LARGE = 10_000;

test("the empty page says how to send the first trace, and changes by itself when it comes", async () => {
  const { page, close } = await open("/");
  await page.getByRole("heading", { name: "Waiting for the first trace" }).waitFor();
  const command = await page.locator(".command pre", { hasText: "curl" }).innerText();
  assert.ok(command.includes(world.otlp.replace("http://", "")), command);
  await shot(page, "empty");
  const narrow = await open("/", { width: 360, height: 740 });
  await narrow.page.getByRole("heading", { name: "Waiting for the first trace" }).waitFor();
  assert.ok(await narrow.page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
  await narrow.close();
  // The command of the guide, as a person would run it.
  const ended = await new Promise((done) => spawn("bash", ["-c", command], { stdio: "ignore" }).once("exit", done));
  assert.equal(ended, 0);
  await page.locator(".services-table", { hasText: "first" }).waitFor();
  // Of one span of 120 ms, both quantiles and the slowest are that, whatever bucket it is in.
  assert.match(await page.locator(".services-table tbody tr", { hasText: "first" }).innerText(), /120ms\s+120ms/);
  assert.equal(await page.locator(".card", { hasText: "Slowest" }).locator(".big").innerText(), "120ms");
  await close();
});

test("data for the other tests arrive", async () => {
  const spans = await fill(world.otlp, 1_500, 3_000, 5);
  const random = generator(6);
  const now = Date.now();
  const large = largeTrace(random, now - 240_000, LARGE);
  for (let i = 0; i < large.length; i += 2_000) await send(world.otlp, large.slice(i, i + 2_000));
  const odd = oddTraces(random, now - 60_000);
  for (const one of Object.values(odd)) await send(world.otlp, one);
  world.ids = { large: large[0].traceId, odd: Object.fromEntries(Object.entries(odd).map(([name, list]) => [name, list[0].traceId])) };
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
