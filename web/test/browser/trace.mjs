import assert from "node:assert/strict";
import { test } from "node:test";
import { open, world } from "./world.mjs";

test("the waterfall walks by keys, finds, and keeps its place in the address", async () => {
  const { page, close } = await open(`/trace/${world.ids.large}`);
  const selected = page.locator(".line.selected");
  await page.locator(".line").first().waitFor();
  assert.ok((await page.locator(".line").count()) < 120, "only rows in sight exist");
  await page.keyboard.press("j");
  await page.keyboard.press("j");
  await page.locator('.line.selected[aria-rowindex="2"]').waitFor();
  await page.keyboard.press("e");
  await page.locator(".drawer .message", { hasText: "row is locked" }).waitFor();
  await selected.waitFor();
  const span = new URL(page.url()).searchParams.get("span");
  // As in Jaeger: all closed, all open, one level each way.
  await page.keyboard.press("]");
  await page.locator('.line[aria-expanded="false"]').first().waitFor();
  await page.waitForFunction(() => document.querySelectorAll(".line").length === 1);
  await page.keyboard.press("o");
  await page.waitForFunction(() => document.querySelectorAll(".line").length > 1);
  await page.keyboard.press("p");
  await page.waitForFunction(() => document.querySelectorAll(".line").length === 1);
  await page.keyboard.press("[");
  await page.keyboard.press("c");
  await page.waitForURL(/critical=1/);
  await page.keyboard.press("Escape");
  await page.locator(".drawer").waitFor({ state: "detached" });
  await page.keyboard.press("Control+b");
  await page.keyboard.type("row is locked");
  await page.keyboard.press("Enter");
  await page.locator(".find small", { hasText: /of \d+/ }).waitFor();
  await page.keyboard.press("Escape");
  await page.keyboard.press("+");
  await page.waitForURL(/zoom=/);
  await page.keyboard.press("?");
  await page.getByRole("dialog", { name: "Keyboard" }).waitFor();
  await page.keyboard.press("Escape");
  const again = await open(`/trace/${world.ids.large}?span=${span}`);
  await again.page.locator(".drawer .message", { hasText: "row is locked" }).waitFor();
  await again.page.locator(".line.selected").waitFor();
  await again.close();
  await close();
});

test("what is closed, hidden, sorted and looked at closer stands in the address", async () => {
  const { page, close } = await open(`/trace/${world.ids.large}`);
  await page.locator(".line").first().waitFor();
  const reopened = async (holds) => {
    const { pathname, search } = new URL(page.url());
    const again = await open(pathname + search);
    await holds(again.page);
    await again.close();
  };
  await page.keyboard.press("j");
  await page.keyboard.press("h");
  await page.waitForURL(/closed=[0-9a-f]{16}/);
  await page.getByRole("group", { name: "Services" }).getByRole("button", { name: /mailer/ }).click();
  await page.waitForURL(/hide=mailer/);
  await reopened(async (again) => {
    await again.waitForFunction(() => document.querySelectorAll(".line").length === 1);
    await again.locator('[aria-label="Services"] button[aria-pressed="false"]', { hasText: "mailer" }).waitFor();
  });
  await page.keyboard.press("[");
  await page.keyboard.press("]");
  await page.waitForURL(/closed=all/);
  await page.getByRole("tab", { name: "Flame graph" }).click();
  await page.locator(".flame button", { hasText: "step" }).first().click();
  await page.waitForURL(/block=/);
  await reopened((again) => again.getByRole("button", { name: "First of these spans" }).waitFor());
  await page.getByRole("tab", { name: "Statistics" }).click();
  await page.getByRole("button", { name: "Longest" }).click();
  await page.waitForURL(/sort=max/);
  await reopened((again) => again.locator('th[aria-sort="descending"]', { hasText: "Longest" }).waitFor());
  await close();
});

test("a trace of 10,000 spans scrolls; its frame times are told", async () => {
  const { page, close } = await open(`/trace/${world.ids.large}`);
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
    const { page, close } = await open(`/trace/${world.ids.odd[name]}`);
    await page.locator(".mark", { hasText: wanted }).waitFor();
    await close();
  }
  const twins = await open(`/trace/${world.ids.odd.twins}`);
  await twins.page.locator('.line[aria-level="3"]', { hasText: "child of the server's half" }).waitFor();
  await twins.close();
  const { page, close } = await open(`/trace/${world.ids.odd.clockSkew}`);
  await page.getByRole("button", { name: "Correct", exact: true }).click();
  await page.locator(".facts", { hasText: "100ms" }).first().waitFor();
  await close();
});

test("what stands in the data is never run and never hidden", async () => {
  const { page, close } = await open(`/trace/${world.ids.odd.hostile}`);
  await page.locator(".line").first().click();
  const drawer = page.locator(".drawer");
  await drawer.waitFor();
  assert.equal(await drawer.locator("h2").innerText(), "<script>window.pwned = 1</script>");
  const text = await drawer.innerText();
  for (const wanted of ["<b>key</b>", "<svg onload=alert(1)>", "\\u0007", "\\u202e", "javascript:alert(1)"]) assert.ok(text.includes(wanted), wanted);
  assert.equal(await page.locator(".page-trace img, .drawer b b, .drawer a[href^='javascript:']").count(), 0);
  await drawer.getByRole("button", { name: "all 100k characters" }).click();
  await page.waitForFunction(() => document.querySelector(".drawer").textContent.includes("x".repeat(100_000)));
  for (const [path, filled] of [["/", ".services-table tbody tr"], ["/traces", "a.trace"], ["/map", ".map-node"]]) {
    const other = await open(path);
    await other.page.locator(filled).first().waitFor();
    await other.close();
  }
  await close();
});

test("the tabs of a trace show flame graph, statistics and events", async () => {
  const { page, close } = await open(`/trace/${world.ids.large}?tab=flame`);
  await page.locator(".flame button").first().click();
  await page.getByRole("tab", { name: "Statistics" }).click();
  await page.locator(".sheet tbody tr").first().waitFor();
  await page.getByLabel("Group by").selectOption("thread.id");
  // Sixteen threads, and the root, which has none.
  await page.waitForFunction(() => document.querySelectorAll(".sheet tbody tr").length === 17);
  await page.getByLabel("and by").selectOption("kind");
  await page.waitForFunction(() => document.querySelectorAll(".sheet tbody tr").length > 17);
  await page.getByRole("tab", { name: "Events" }).click();
  await page.getByText("No span of this trace has events").waitFor();
  await page.getByRole("tab", { name: "Map" }).click();
  await page.locator(".map-node", { hasText: "checkout" }).first().press("Enter");
  await page.locator(".drawer", { hasText: "checkout" }).waitFor();
  await page.keyboard.press("Escape");
  await page.locator(".drawer").waitFor({ state: "detached" });
  await page.getByRole("tab", { name: "Map" }).click();
  await page.locator(".map-node", { hasText: "checkout" }).first().click();
  await page.locator(".drawer", { hasText: "checkout" }).waitFor();
  await close();
});

test("a trace is compared with the median of its route, and with one by its id", async () => {
  const q = encodeURIComponent('{ name = "payment.Payment/Charge" && status = error }');
  const answer = await (await fetch(`${world.base}/api/search?q=${q}&since=2h&limit=1`)).json();
  const { page, close } = await open(`/trace/${answer.traces[0].traceID}?tab=compare`);
  await page.locator(".sheet tbody tr", { hasText: "payment.Payment/Charge" }).first().waitFor();
  await page.locator(".flame-info", { hasText: "there" }).waitFor();
  await page.getByRole("textbox", { name: "With trace" }).fill(world.ids.large);
  await page.keyboard.press("Enter");
  await page.locator(".sheet tbody tr", { hasText: "step 1" }).first().waitFor();
  await close();
});
