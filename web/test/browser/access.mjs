// Where Spanreel is told to ask who is looking.
import assert from "node:assert/strict";
import { createServer, request } from "node:http";
import { join } from "node:path";
import { test } from "node:test";
import { checkoutTrace, generator, send } from "../shop.mjs";
import { findings, open, shot, startSpanreel, stop, world } from "./world.mjs";

/** Ann's password is 123456. */
const PEOPLE = "extensions.basicauth/people={htpasswd: {inline: 'ann:{SHA}fEqNCco3Yq9h5ZUglD3CZJT4lBs='}}";
const ROBOTS = "extensions.bearertokenauth/robots={token: s3cret}";
const REFUSED = /status of 40[013]/;

test("a form stands where a page would until somebody is known, and then the page does", async () => {
  const guarded = await startSpanreel(join(world.directory, "guarded"), {
    set: [PEOPLE, ROBOTS, "extensions.spanreel.access={full: [bearertokenauth/robots], read_only: [basicauth/people]}", "service.extensions=[basicauth/people, bearertokenauth/robots]"],
  });
  const spans = checkoutTrace(generator(50), Date.now());
  await send(guarded.otlp, spans);
  const { page, close } = await open(`/trace/${spans[0].traceId}`, { origin: guarded.url, expected: REFUSED });
  await page.getByRole("heading", { name: "Log in" }).waitFor();
  assert.equal(await page.getByText(spans[0].name).count(), 0);
  await shot(page, "login");
  await page.getByLabel("User").fill("ann");
  await page.getByLabel("Password").fill("wrong");
  await page.keyboard.press("Enter");
  await page.getByRole("alert").filter({ hasText: "User or password is wrong." }).waitFor();
  await page.getByLabel("Password").fill("123456");
  await page.keyboard.press("Enter");
  // The page that was asked for, with what it shows.
  await page.locator(".line").first().waitFor();
  assert.ok(page.url().includes(spans[0].traceId));
  await page.locator(".who", { hasText: "ann" }).waitFor();
  // The cookie is enough for streams, and for the next page.
  await page.goto(`${guarded.url}/traces?live=1`);
  await page.locator(".live .lamp:not(.warn):not(.off)").waitFor();
  await page.getByRole("button", { name: "log out" }).click();
  await page.getByRole("heading", { name: "Log in" }).waitFor();
  await page.getByLabel("Or a token").fill("s3cre");
  await page.keyboard.press("Enter");
  await page.getByRole("alert").filter({ hasText: "The token is not known." }).waitFor();
  await page.getByLabel("Or a token").fill("s3cret");
  await page.keyboard.press("Enter");
  await page.locator(".live .lamp:not(.warn):not(.off)").waitFor();
  await close();
  for (const [scheme, width] of [["light", 1440], ["dark", 360]]) {
    const form = await open("/", { origin: guarded.url, expected: REFUSED, scheme, width, height: 740, bypassCSP: true });
    await form.page.getByRole("heading", { name: "Log in" }).waitFor();
    assert.deepEqual(await findings(form.page), []);
    await shot(form.page, `login-${scheme}-${width}`);
    await form.close();
  }
  await stop(guarded);
});

test("who comes through a trusted proxy is known by its header, and the form says where to go otherwise", async () => {
  const guarded = await startSpanreel(join(world.directory, "proxied"), {
    set: ["extensions.spanreel.access={trusted_proxy: {sources: [127.0.0.1/32]}}"],
  });
  const direct = await open("/", { origin: guarded.url, expected: REFUSED });
  await direct.page.getByText("The proxy in front of Spanreel says who is looking").waitFor();
  await direct.close();
  const proxy = createServer((incoming, outgoing) => {
    const headers = { ...incoming.headers, "x-forwarded-user": "eve" };
    incoming.pipe(request(new URL(incoming.url, guarded.url), { method: incoming.method, headers }, (answer) => {
      outgoing.writeHead(answer.statusCode, answer.headers);
      answer.pipe(outgoing);
    }));
  });
  await new Promise((done) => proxy.listen(0, "127.0.0.1", done));
  const { page, close } = await open("/", { origin: `http://127.0.0.1:${proxy.address().port}`, expected: REFUSED });
  await page.getByRole("heading", { name: "Waiting for the first trace" }).waitFor();
  await page.locator(".who", { hasText: "eve" }).waitFor();
  assert.equal(await page.getByRole("button", { name: "log out" }).count(), 0);
  await close();
  proxy.closeAllConnections();
  await new Promise((done) => proxy.close(done));
  await stop(guarded);
});

test("a page of another name that was led here sees nothing, and says which setting would change that", async () => {
  const { port } = new URL(world.base);
  for (const path of ["/", "/traces?live=1", `/trace/${world.ids.large}`]) {
    const { page, close } = await open(path, { origin: `http://evil.example:${port}`, expected: REFUSED });
    await page.getByRole("alert").filter({ hasText: "extensions::spanreel::access::hosts" }).first().waitFor();
    assert.equal(await page.locator("a.trace, .line, .services-table").count(), 0);
    await close();
  }
  const named = await startSpanreel(join(world.directory, "named"), { set: ["extensions.spanreel.access={hosts: ['*.example']}"] });
  const { page, close } = await open("/", { origin: named.url.replace("127.0.0.1", "traces.example") });
  await page.getByRole("heading", { name: "Waiting for the first trace" }).waitFor();
  await close();
  await stop(named);
});
