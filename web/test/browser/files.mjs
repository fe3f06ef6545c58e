import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { checkoutTrace, generator, request } from "../shop.mjs";
import { downloaded, drop, findings, open, shot, world } from "./world.mjs";

test("a downloaded trace can be dropped, in each of its shapes and where nothing is stored", async () => {
  const id = world.ids.odd.missingParent;
  const { page, close } = await open(`/trace/${id}`);
  const otlp = await downloaded(page, /OTLP JSON/);
  assert.ok(otlp.text.includes(`"traceId":"${id}"`));
  const jaeger = await downloaded(page, /Jaeger JSON/);
  assert.equal(JSON.parse(jaeger.text).data[0].traceID, id);
  const html = await downloaded(page, /HTML page/);
  const tempo = await (await fetch(`${world.base}/api/v2/traces/${id}`)).text();
  for (const [name, text] of [["otlp.json", otlp.text], ["jaeger.json", jaeger.text], ["tempo.json", tempo], ["saved.html", html.text]]) {
    await page.goto(`${world.base}/health`);
    await page.locator(".equation").first().waitFor();
    await drop(page, name, text);
    await page.locator(".line", { hasText: "orphan two" }).waitFor();
    await page.locator(".mark", { hasText: "3 spans' parents never arrived" }).waitFor();
    await page.locator(".facts", { hasText: name }).first().waitFor();
  }
  await close();
});

test("a file that is none is refused in place, with what is wrong in it", async () => {
  const { page, close } = await open("/health");
  for (const [text, wanted] of [
    ["\u0000\u0001\u0002 garbage", "not JSON"],
    ["<!doctype html><p>hello", "an HTML page without a trace"],
    ["{}", "neither OTLP"],
    ['{"resourceSpans":[]}', "no span is in it"],
    ['{"resourceSpans":[{"scopeSpans":[{"spans":[{"spanId":5}]}]}]}', "resourceSpans[0].scopeSpans[0].spans[0].spanId"],
    ["[".repeat(200_000), "not JSON"],
  ]) {
    await drop(page, "garbage.json", text);
    await page.getByRole("alert").filter({ hasText: wanted }).waitFor();
  }
  await page.getByRole("alert").getByRole("button", { name: "Close" }).click();
  await page.getByRole("alert").waitFor({ state: "detached" });
  await close();
});

test("a file with several traces is opened without a mouse, and each of them can be chosen", async () => {
  const random = generator(31);
  const traces = [checkoutTrace(random, Date.now()), checkoutTrace(random, Date.now())].sort((a, b) => b.length - a.length);
  const path = join(world.directory, "two.json");
  writeFileSync(path, JSON.stringify(request(traces.flat())));
  const { page, close } = await open("/");
  const chooser = page.waitForEvent("filechooser");
  await page.getByRole("button", { name: "Open a file with traces" }).press("Enter");
  await (await chooser).setFiles(path);
  await page.waitForURL(new RegExp(traces[0][0].traceId));
  await page.getByLabel("Trace of the file").selectOption(traces[1][0].traceId);
  await page.waitForURL(new RegExp(traces[1][0].traceId));
  await page.locator(".facts", { hasText: "two.json" }).first().waitFor();
  await close();
});

test("a saved trace opens from the disk, without a network, with the same waterfall", async () => {
  const { page, close } = await open(`/trace/${world.ids.large}`);
  await page.locator(".line").first().waitFor();
  const rows = await page.locator(".waterfall").getAttribute("aria-rowcount");
  const first = await page.locator(".line").nth(3).innerText();
  const saved = await downloaded(page, /HTML page/);
  await close();
  const offline = await open("", { origin: pathToFileURL(saved.path).href, offline: true });
  const own = offline.page;
  await own.locator(".line").first().waitFor();
  assert.equal(await own.locator(".waterfall").getAttribute("aria-rowcount"), rows);
  assert.equal(await own.locator(".line").nth(3).innerText(), first);
  await own.keyboard.press("e");
  await own.locator(".drawer .message", { hasText: "row is locked" }).waitFor();
  await own.getByRole("tab", { name: "Flame graph" }).click();
  await own.locator(".flame button").first().waitFor();
  assert.match(own.url(), /#.*tab=flame/);
  assert.equal(await own.getByRole("tab", { name: "Compare" }).count(), 0);
  await own.goBack();
  await own.locator(".line.selected").waitFor();
  await own.keyboard.press("?");
  await own.getByRole("dialog", { name: "Keyboard" }).waitFor();
  await own.keyboard.press("Escape");
  await shot(own, "saved");
  const out = await downloaded(own, /OTLP JSON/);
  assert.ok(JSON.parse(out.text).resourceSpans.length > 0);
  await offline.close();
});

test("nothing in a saved trace is run, and its policy would not let it", async () => {
  const { page, close } = await open(`/trace/${world.ids.odd.hostile}`);
  await page.locator(".line").first().waitFor();
  const saved = await downloaded(page, /HTML page/);
  await close();
  assert.ok(!saved.text.includes("<script>window.pwned"));
  const policy = /http-equiv="Content-Security-Policy" content="([^"]*)"/.exec(saved.text)?.[1] ?? "";
  assert.match(policy, /^default-src 'none'; script-src 'sha256-[^ ]+'; style-src 'sha256-[^ ]+';/);
  // What a hostile trace would have to do, done by hand: the policy stops it.
  const tampered = join(world.directory, "tampered.html");
  writeFileSync(tampered, saved.text.replace('<div id="app">', '<script>window.pwned = 1</script><img src="x" onerror="window.pwned = 2"><div id="app">'));
  const bad = await open("", { origin: pathToFileURL(tampered).href, offline: true, expected: /Content Security Policy|ERR_FILE_NOT_FOUND/ });
  await bad.page.locator(".line").first().click();
  await bad.page.locator(".drawer", { hasText: "<svg onload=alert(1)>" }).waitFor();
  assert.equal(await bad.page.evaluate(() => window.pwned), undefined);
  await bad.context.close();
  const narrow = await open("", { origin: pathToFileURL(saved.path).href, offline: true, width: 360, height: 740, scheme: "dark", bypassCSP: true });
  await narrow.page.locator(".line").first().waitFor();
  assert.deepEqual(await findings(narrow.page), []);
  await shot(narrow.page, "saved-dark-360");
  await narrow.close();
  assert.ok(readFileSync(saved.path, "utf8").length < 1_000_000);
});

test("a trace is compared with one from a file", async () => {
  const { page, close } = await open(`/trace/${world.ids.odd.twins}?tab=compare`);
  const random = generator(32);
  const chooser = page.waitForEvent("filechooser");
  await page.getByRole("button", { name: "with a file" }).click();
  await (await chooser).setFiles({ name: "other.json", mimeType: "application/json", buffer: Buffer.from(JSON.stringify(request(checkoutTrace(random, Date.now())))) });
  await page.locator(".sheet tbody tr", { hasText: "frontend" }).first().waitFor();
  await page.locator(".flame-info", { hasText: "other.json" }).waitFor();
  await close();
});
