// Every page without a mouse.
import assert from "node:assert/strict";
import { test } from "node:test";
import { open, world } from "./world.mjs";

/** Tab is pressed so often at most until something has the focus: filters have two stops for each value. */
const TABS_MAX = 200;

/** Goes on with Tab until what matches has the focus, and sees that each stop can be seen. */
async function tabTo(page, selector) {
  for (let i = 0; i < TABS_MAX; i++) {
    await page.keyboard.press("Tab");
    const at = await page.evaluate((selector) => {
      const element = document.activeElement;
      const { outlineStyle, outlineWidth } = getComputedStyle(element);
      // Some show it on a part of theirs, such as a shape.
      const own = element === document.body || (outlineStyle !== "none" && parseFloat(outlineWidth) > 0) || element.closest("svg") !== null;
      return { found: element.matches(selector), own, what: element.outerHTML.slice(0, 120) };
    }, selector);
    assert.ok(at.own, `the focus cannot be seen on ${at.what}`);
    if (at.found) return;
  }
  assert.fail(`${selector} is not reached by Tab`);
}

test("every page is reached, walked and left without a mouse, and the focus is always seen", async () => {
  const { page, close } = await open("/");
  await page.locator(".services-table tbody tr").first().waitFor();
  await tabTo(page, ".skip");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.activeElement.id === "main");
  await tabTo(page, ".services-table tbody a");
  await page.keyboard.press("Enter");
  await page.waitForURL(/traces\?/);
  await page.locator("a.trace").first().waitFor();
  await page.keyboard.press("/");
  await page.waitForFunction(() => document.activeElement.matches("[data-search]"));
  await page.keyboard.press("Escape");
  await page.evaluate(() => document.activeElement.blur());
  // A value of a filter, and away again.
  await page.locator('.facet[data-facet="status"] .value').first().waitFor();
  await page.keyboard.press("f");
  await tabTo(page, '.facet[data-facet="status"] .value');
  await page.keyboard.press("Enter");
  await page.waitForURL(/status/);
  await tabTo(page, ".durations");
  await page.locator("a.trace").first().waitFor();
  await page.evaluate(() => document.activeElement.blur());
  await page.keyboard.press("j");
  await page.waitForFunction(() => document.activeElement.matches("a.trace"));
  await page.keyboard.press("Enter");
  await page.waitForURL(/trace\/[0-9a-f]{32}/);
  await page.locator(".line").first().waitFor();
  await page.evaluate(() => document.activeElement.blur());
  await page.keyboard.press("j");
  await page.locator(".drawer").waitFor();
  await page.keyboard.press("Escape");
  await page.locator(".drawer").waitFor({ state: "detached" });
  await tabTo(page, '[role="tablist"] [role="tab"][aria-selected="true"]');
  for (const tab of ["flame", "statistics", "events", "map", "compare"]) {
    await page.keyboard.press("ArrowRight");
    await page.waitForURL(new RegExp(`tab=${tab}`));
  }
  await page.evaluate(() => document.activeElement.blur());
  for (const [key, path, filled] of [["m", /map/, ".map-node"], ["x", /explain/, ".durations canvas"], ["c", /cluster/, ".empty"], ["s", /health/, ".equation"], ["h", /\/(\?.*)?$/, ".services-table"], ["t", /traces/, "a.trace"], ["m", /map/, ".map-node"]]) {
    await page.keyboard.press("g");
    await page.keyboard.press(key);
    await page.waitForURL(path);
    await page.locator(filled).first().waitFor();
  }
  await tabTo(page, "a.map-node");
  await page.keyboard.press("Enter");
  await page.waitForURL(/traces\?.*q=/);
  // A box, by keys alone, and what differs in it.
  await page.keyboard.press("g");
  await page.keyboard.press("x");
  await page.locator(".durations canvas").waitFor();
  await tabTo(page, ".durations");
  await page.keyboard.press("Enter");
  await page.waitForURL(/box=/);
  await page.keyboard.press("?");
  const sheet = page.getByRole("dialog", { name: "Keyboard" });
  await sheet.waitFor();
  assert.match(await sheet.innerText(), /this sheet/);
  await page.keyboard.press("Escape");
  await sheet.waitFor({ state: "detached" });
  await close();
});

test("who hears the page hears what a row is", async () => {
  const { page, close } = await open(`/trace/${world.ids.odd.twins}`);
  await page.locator(".line").first().waitFor();
  const rows = await page.getByRole("row").all();
  assert.ok(rows.length >= 3);
  const grid = page.getByRole("treegrid");
  assert.equal(Number(await grid.getAttribute("aria-rowcount")), await page.locator(".line").count());
  for (const row of await page.locator(".line").all()) {
    assert.ok(Number(await row.getAttribute("aria-level")) >= 1);
    // Service, operation and duration in words, not as a bar alone.
    assert.match((await row.getAttribute("aria-label")) ?? (await row.innerText()), /\w+.*\d(ns|µs|ms|s)|0/s);
  }
  await close();
});
