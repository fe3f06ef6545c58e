import assert from "node:assert/strict";
import { test } from "node:test";
import { checkoutTrace, generator, send } from "../shop.mjs";
import { open, shot, world } from "./world.mjs";

test("a search is in the address, in the box, in the filters and in the list at once", async () => {
  const { page, close } = await open("/traces");
  await page.locator("a.trace").first().waitFor();
  await page.locator('.facet[data-facet="resource.service.name"] .value').nth(5).waitFor();
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

test("a query typed key by key is what was typed", async () => {
  const typed = ["{ status = error }", "{ status=error}", '{ name = "}{" }', "{ status = error } > { kind = server } | count() > 0", "{ } && { status = error }", "{ }"];
  for (const path of ["/traces", "/map", "/explain"]) {
    const { page, close } = await open(path);
    const box = page.locator("[data-search]");
    const plain = (text) => text.replace(/ /g, "");
    for (const start of ["empty", "all chosen"]) {
      for (const text of typed) {
        await box.click();
        if (start === "empty") await box.fill("");
        else await page.keyboard.press("Control+a");
        await page.keyboard.type(text, { delay: 5 });
        assert.equal(await box.inputValue(), text, `${path}, ${start}`);
      }
    }
    await page.keyboard.press("Control+a");
    await page.keyboard.type("{ status = error }");
    await page.keyboard.press("Enter");
    await page.waitForURL((url) => plain(url.searchParams.get("q") ?? "") === "{status=error}");
    await page.waitForLoadState("networkidle");
    assert.equal(await page.getByRole("alert").count(), 0);
    await close();
  }
});

test("a query that is wrong is explained in place, once, as it was typed", async () => {
  for (const [path, query] of [["/traces", "{ nonsense "], ["/traces", "{ name ="], ["/map", "{ name ="], ["/explain", "{ name ="]]) {
    const { page, close } = await open(`${path}?q=${encodeURIComponent(query)}`);
    await page.getByRole("alert").waitFor();
    await page.waitForLoadState("networkidle");
    assert.equal(await page.getByRole("alert").count(), 1, path);
    const text = await page.getByRole("alert").innerText();
    assert.match(text, /The query is not valid[\s\S]*(syntax error|parse)/);
    assert.doesNotMatch(text, /\||\$end/);
    await page.locator(".query .field.invalid").waitFor();
    await close();
  }
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
  // Of the box, not of all time.
  assert.match(new URL(page.url()).searchParams.get("q"), /duration > .*duration < /);
  assert.ok(new URL(page.url()).searchParams.has("from"));
  await close();
});

test("a box is drawn by keys too, and stands in the address", async () => {
  const { page, close } = await open("/traces?q=%7B%20name%20%3D%20%22POST%20%2Fcheckout%22%20%7D");
  await page.locator("a.trace").first().waitFor();
  await page.locator(".durations").focus();
  await page.keyboard.press("Enter");
  await page.waitForURL(/box=/);
  const drawn = new URL(page.url()).searchParams.get("box");
  for (let i = 0; i < 4; i++) await page.keyboard.press("Shift+ArrowDown");
  await page.waitForURL((url) => url.searchParams.get("box") !== drawn);
  await page.locator(".durations .box").waitFor();
  await page.keyboard.press("Escape");
  await page.waitForURL((url) => !url.searchParams.has("box"));
  await close();
});

test("traces appear as they arrive, stand still while paused, and are counted meanwhile", async () => {
  const random = generator(77);
  const { page, close } = await open("/traces?since=5m");
  await page.locator(".summary b").first().waitFor();
  const streams = [];
  page.on("request", (request) => request.url().includes("/ui/api/live") && streams.push(request.url()));
  await page.getByRole("button", { name: "Live" }).click();
  await page.waitForURL(/live=1/);
  await page.locator(".live .lamp:not(.warn):not(.off)").waitFor();
  const arrive = async () => {
    const spans = checkoutTrace(random, Date.now());
    await send(world.otlp, spans);
    return page.locator(`a.trace[href*="${spans[0].traceId}"]`);
  };
  await (await arrive()).waitFor();
  await page.getByRole("button", { name: "Pause" }).click();
  await page.getByText(/paused since/).waitFor();
  const second = await arrive();
  await page.getByRole("button", { name: "1 new" }).waitFor();
  assert.equal(await second.count(), 0);
  await page.getByRole("button", { name: "Go on" }).click();
  await second.waitFor();
  await page.keyboard.press("p");
  const third = await arrive();
  await page.getByRole("button", { name: "1 new" }).click();
  await third.waitFor();
  assert.equal(streams.length, 1, "one stream, and none for each look");
  // A page that nobody sees does not listen, and what came meanwhile is there when it is seen again.
  const turn = (hidden) =>
    page.evaluate((hidden) => {
      Object.defineProperty(document, "hidden", { configurable: true, value: hidden });
      document.dispatchEvent(new Event("visibilitychange"));
    }, hidden);
  await turn(true);
  await page.locator(".live .lamp.warn").waitFor();
  const unseen = await arrive();
  await turn(false);
  await unseen.waitFor();
  assert.equal(streams.length, 2);
  await page.keyboard.press("l");
  await page.waitForURL((url) => !url.search.includes("live"));
  await close();
});

test("a live list shows what matches the query, and says why it cannot", async () => {
  const { page, close } = await open(`/traces?since=5m&live=1&q=${encodeURIComponent('{ resource.service.name = "mailer" }')}`);
  await page.locator(".live .lamp:not(.warn):not(.off)").waitFor();
  const random = generator(78);
  // Some of the shop's traces have mail, others not.
  const made = Array.from({ length: 60 }, () => checkoutTrace(random, Date.now()));
  await send(world.otlp, made.flat());
  const withMail = made.filter((spans) => spans.some((span) => span.service === "mailer"));
  assert.ok(withMail.length > 0 && withMail.length < made.length);
  await page.locator(`a.trace[href*="${withMail.at(-1)[0].traceId}"]`).waitFor();
  const without = made.find((spans) => !withMail.includes(spans));
  assert.equal(await page.locator(`a.trace[href*="${without[0].traceId}"]`).count(), 0);
  await page.goto(`${world.base}/traces?since=5m&live=1&q=${encodeURIComponent("{ nonsense ")}`);
  await page.getByRole("alert").first().waitFor();
  await close();
});
