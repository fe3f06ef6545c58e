// The page of the cluster, beside a real API server; and what takes nodes and time, from an answer that stands in.
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { startKube } from "../kube.mjs";
import { checkoutTrace, generator, send } from "../shop.mjs";
import { findings, freePort, keep, open, shot, startSpanreel, stop, until, world } from "./world.mjs";

const INJECT = "instrumentation.opentelemetry.io/inject-";
const PODS = "/api/v1/namespaces/shop/pods";
const GROUP = "/apis/opentelemetry.io";

test("workloads and resources of a real cluster are shown with how far each came and what mends it", async () => {
  const kube = startKube(join(world.directory, "kube"), [await freePort(), await freePort(), await freePort()]);
  for (const child of kube.children) keep(child);
  await until(kube.ready);
  for (const name of ["spanreel", "shop"]) await until(() => kube.create("/api/v1/namespaces", { apiVersion: "v1", kind: "Namespace", metadata: { name } }));
  const pod = (name, annotations = { [`${INJECT}sdk`]: "true" }) => ({ apiVersion: "v1", kind: "Pod", metadata: { name, annotations }, spec: { containers: [{ name: "app", image: "registry.example/app:1.0" }] } });
  const missed = await kube.create(PODS, pod("early"));
  assert.ok(missed, "a pod from before Spanreel");
  const webhook = await freePort();
  const spanreel = await startSpanreel(join(world.directory, "cluster"), {
    kubeconfig: kube.kubeconfig,
    set: [`extensions.spanreel.webhook={endpoint: '127.0.0.1:${webhook}', url: 'https://127.0.0.1:${webhook}', namespace: spanreel}`],
  });
  // What is created from then on is injected.
  await until(async () => JSON.stringify(await kube.create(`${PODS}?dryRun=All`, pod("probe"))).includes("OTEL_"));
  const talker = await kube.create(PODS, pod("talker"));
  await kube.create(PODS, pod("waits", { [`${INJECT}java`]: "true" }));
  assert.ok(await kube.run("shop", "talker", "10.9.8.7"));
  await send(spanreel.otlp, checkoutTrace(generator(60), Date.now()), { "k8s.pod.uid": talker.metadata.uid });
  const config = { receivers: { otlp: { protocols: { http: { endpoint: `127.0.0.1:${await freePort()}` } } } }, exporters: { debug: { verbosity: "loud" } }, service: { pipelines: { traces: { receivers: ["otlp"], exporters: ["debug"] } } } };
  await until(() => kube.create(`${GROUP}/v1beta1/namespaces/shop/opentelemetrycollectors`, { apiVersion: "opentelemetry.io/v1beta1", kind: "OpenTelemetryCollector", metadata: { name: "edge" }, spec: { config } }));
  await until(() => kube.create(`${GROUP}/v1alpha1/namespaces/spanreel/instrumentations`, { apiVersion: "opentelemetry.io/v1alpha1", kind: "Instrumentation", metadata: { name: "agents" }, spec: { exporter: { endpoint: "http://spanreel.spanreel:4318" } } }));

  const { page, close } = await open("/cluster?namespace=shop", { origin: spanreel.url });
  const row = (name) => page.locator(".workload", { has: page.locator("b", { hasText: new RegExp(`^${name}$`) }) });
  /** Each becomes what it is in its own time. */
  const examine = async (holds) => until(async () => {
    if (await holds()) return true;
    await page.getByRole("button", { name: "Examine again" }).click();
    return false;
  });
  await examine(async () => (await row("talker").locator(".condition", { hasText: "speaking" }).count()) > 0);
  await row("talker").getByRole("img", { name: "asked, injected, started, speaking" }).waitFor();
  await row("early").locator(".condition", { hasText: "missed" }).waitFor();
  await row("waits").locator(".decisions [role=row]", { hasText: "java" }).locator("text=injected").first().waitFor();
  await shot(page, "cluster-real");
  await page.goto(`${spanreel.url}/cluster?tab=resources`);
  await examine(async () => (await row("edge").locator("text=ConfigurationRefused").count()) > 0 && (await row("agents").locator(".condition", { hasText: "usable" }).count()) > 0);
  await row("edge").locator(".lines", { hasText: "exporters::debug::verbosity" }).waitFor();
  await row("edge").locator("pre", { hasText: "kubectl -n shop edit opentelemetrycollector edge" }).waitFor();
  await shot(page, "cluster-real-resources");
  await page.getByRole("link", { name: "Home", exact: true }).click();
  await page.locator(".strip a", { hasText: /3 workloads asked, 1 speaking/ }).waitFor();
  await shot(page, "home-cluster");
  await close();
  // Where nothing was received yet, the guide has the line for a workload of this cluster.
  const empty = await startSpanreel(join(world.directory, "cluster-empty"), { kubeconfig: kube.kubeconfig, set: [`extensions.spanreel.webhook={endpoint: '127.0.0.1:${await freePort()}', url: 'https://127.0.0.1:1', namespace: spanreel}`] });
  const guide = await open("/", { origin: empty.url });
  await guide.page.getByLabel("Language").selectOption("python");
  await guide.page.getByLabel("Namespace and deployment").fill("shop/web");
  const line = await guide.page.locator(".command pre", { hasText: "kubectl" }).innerText();
  assert.ok(line.startsWith("kubectl -n shop patch deployment web") && line.includes(`${INJECT}python":"true"`), line);
  await shot(guide.page, "empty-cluster");
  await guide.close();
  await stop(empty);
  await stop(spanreel);
  for (const child of kube.children) await stop({ child });
});

// No API server runs here: the answer stands in for one and has the shape of docs/ui-api.md.
const CLUSTER = {
  examination: {
    scope: { namespace: null, name: null },
    webhook_registered: true,
    conditions: { silent: 1, missed: 1, speaking: 1 },
    workloads: [
      {
        kind: "Deployment", namespace: "shop", name: "web", condition: "silent", why: "no span came since 12 min", remedy: "kubectl -n shop logs deployment/web",
        asked: [{ language: "java", annotation: "instrumentation.opentelemetry.io/inject-java", value: "true", where: "pod" }],
        decisions: [
          { language: "java", container: "app", result: "injected", reason: "injected", message: null, instrumentation: { name: "built-in", generation: null, created: null }, agent_image: "agent:1", remedy: null },
          { language: "python", container: null, result: "refused", reason: "several_languages", message: "two languages ask for one container", instrumentation: null, agent_image: null, remedy: 'instrumentation.opentelemetry.io/python-container-names: "job"' },
        ],
        notes: [], pods: 2, pod_conditions: { silent: 2 }, examples: [],
      },
      { kind: "Deployment", namespace: "shop", name: "api", condition: "missed", why: "it was created without instrumentation", remedy: "kubectl -n shop rollout restart deployment/api", asked: [], decisions: [], notes: [], pods: 1, pod_conditions: { missed: 1 }, examples: [] },
      {
        kind: "Deployment", namespace: "shop", name: "<b>speaks</b>", condition: "speaking", why: "last span 3 s ago", remedy: null, asked: [], decisions: [], notes: [], pods: 1, pod_conditions: { speaking: 1 },
        examples: [{ name: "speaks-1", condition: "speaking", containers: [{ container: "app", language: "java", condition: "speaking", why: "a span came lately", remedy: null, life: { state: "speaking", first_span: "2026-01-01T00:00:00Z", last_span: new Date().toISOString(), likely_cause: null } }] }],
      },
    ],
    left_out: { workloads: 0, pods: 0, not_asking: 4 },
    notes: [],
  },
  catch_up: {
    at: new Date().toISOString(), mode: "report", pods: { missed: 1 }, pods_left_out: 0, unreadable: 0,
    workloads: [{ namespace: "shop", kind: "Deployment", name: "api", state: "missed", pods: { missed: 1 }, example: "api-1", instrumentations: ["shop/java"], waits: null }],
    crash_loops: [{ namespace: "shop", kind: "StatefulSet", name: "db", languages: ["java"], example: "db-0", evidence: "revision" }],
  },
  collectors: [
    { namespace: "shop", name: "edge", ready: false, reason: "ConfigurationRefused", message: "config.yaml:3:5: there is no exporter \"otpl\"; did you mean otlp?", since: Date.now() / 1000 - 600, running: true, ports: [{ name: "otlp-grpc", port: 4317, udp: false }], fix: "kubectl -n shop edit opentelemetrycollector edge" },
    { namespace: "shop", name: "core", ready: true, reason: "Running", message: "", since: Date.now() / 1000 - 600, running: true, ports: [], fix: null },
  ],
  instrumentations: [{ namespace: "shop", name: "java", generation: 3, ok: false, message: "spec.sampler.argument: 2 is not between 0 and 1", fix: "kubectl -n shop edit instrumentation java" }],
  left_out: { collectors: 0, instrumentations: 0 },
};

test("the cluster page shows who is silent, how far each came, and the line that changes it", async () => {
  const { page, close } = await open("/health");
  await page.route("**/ui/api/cluster*", (route) => route.fulfill({ json: CLUSTER }));
  await page.getByRole("link", { name: "Cluster" }).click();
  await page.locator(".workload", { hasText: "<b>speaks</b>" }).waitFor();
  await page.locator(".workload pre", { hasText: "rollout restart deployment/api" }).waitFor();
  await page.getByRole("img", { name: "asked, injected, started, not speaking" }).waitFor();
  await page.locator(".decisions [role=row]", { hasText: "several languages: two languages ask" }).waitFor();
  await shot(page, "cluster-workloads");
  await page.getByRole("button", { name: "who asks, and its pods" }).click();
  await page.getByText(/first span \d+d ago, last/).waitFor();
  await page.getByRole("button", { name: "silent 1" }).click();
  await page.waitForURL(/condition=silent/);
  await page.waitForFunction(() => document.querySelectorAll(".workload").length === 1);
  await page.locator(".workload", { hasText: "agent:1" }).waitFor();
  await page.getByRole("tab", { name: "Restarts (2)" }).click();
  await page.locator("pre", { hasText: "logs db-0 --previous" }).waitFor();
  await page.locator("pre", { hasText: "rollout restart deployment/api" }).waitFor();
  await shot(page, "cluster-restarts");
  await page.getByRole("tab", { name: "Resources (3)" }).click();
  await page.locator(".workload", { hasText: "did you mean otlp?" }).locator("pre", { hasText: "edit opentelemetrycollector edge" }).waitFor();
  await page.locator(".workload", { hasText: "not between 0 and 1" }).waitFor();
  await shot(page, "cluster-resources");
  await close();
  for (const tab of ["", "?tab=catch-up", "?tab=resources"]) {
    const narrow = await open("/health", { width: 360, height: 740, bypassCSP: true });
    await narrow.page.route("**/ui/api/cluster*", (route) => route.fulfill({ json: CLUSTER }));
    await narrow.page.goto(`${world.base}/cluster${tab}`);
    await narrow.page.locator(".workload").first().waitFor();
    assert.deepEqual(await findings(narrow.page), [], tab);
    await shot(narrow.page, `cluster${tab.replace(/\W+/g, "-")}-360`);
    await narrow.close();
  }
});
