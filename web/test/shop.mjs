// Sends traces of a small shop to an OTLP/HTTP endpoint, so that every page of the UI has something to show.
//
//   node shop.mjs URL [TRACES] [SECONDS OF THE PAST] [SEED]
//
// The numbers come from a seeded generator: the same seed gives the same traces, counted from now.
import { pathToFileURL } from "node:url";

/** Spans per request; OTLP receivers take far more, this keeps requests small. */
const SPANS_PER_REQUEST = 2_000;

export function generator(seed) {
  let state = seed >>> 0 || 1;
  const next = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>>= 0) / 2 ** 32;
  };
  return {
    next,
    below: (limit) => Math.floor(next() * limit),
    pick: (list) => list[Math.floor(next() * list.length)],
    /** Milliseconds around `median`, with the long tail that real services have. */
    around: (median) => median * Math.exp((next() + next() + next() - 1.5) * 0.9),
    hex: (bytes) => Array.from({ length: bytes }, () => Math.floor(next() * 256).toString(16).padStart(2, "0")).join(""),
  };
}

const SERVICES = {
  frontend: { namespace: "shop", language: "nodejs", version: "2.4.1" },
  checkout: { namespace: "shop", language: "java", version: "1.12.0" },
  cart: { namespace: "shop", language: "python", version: "0.9.3" },
  catalog: { namespace: "shop", language: "go", version: "3.1.0" },
  payment: { namespace: "billing", language: "dotnet", version: "5.0.2" },
  mailer: { namespace: "billing", language: "python", version: "0.2.0" },
};

const value = (v) =>
  typeof v === "boolean"
    ? { boolValue: v }
    : typeof v === "number"
      ? Number.isInteger(v)
        ? { intValue: String(v) }
        : { doubleValue: v }
      : Array.isArray(v)
        ? { arrayValue: { values: v.map(value) } }
        : { stringValue: v };
export const attributes = (object) =>
  Object.entries(object)
    .filter(([, v]) => v !== undefined)
    .map(([key, v]) => ({ key, value: value(v) }));

/** One trace as a list of `{ service, ...OTLP span }`. */
export function checkoutTrace(random, startMs) {
  const traceId = random.hex(16);
  const spans = [];
  const add = (service, parent, name, kind, start, duration, attrs, more = {}) => {
    const span = {
      service,
      traceId,
      spanId: random.hex(8),
      parentSpanId: parent?.spanId,
      name,
      kind,
      startTimeUnixNano: String(BigInt(Math.round(start * 1000)) * 1000n),
      endTimeUnixNano: String(BigInt(Math.round((start + duration) * 1000)) * 1000n),
      attributes: attributes(attrs),
      ...more,
    };
    spans.push(span);
    return span;
  };
  const error = (message) => ({ status: { code: 2, message } });
  const slow = random.next() < 0.06;
  const route = random.pick(["GET /", "GET /product/{id}", "GET /product/{id}", "POST /cart", "POST /checkout"]);
  const [method, path] = route.split(" ");
  const user = `user-${random.below(400)}`;
  const call = (from, service, parent, name, at, duration, attrs, more) => {
    const client = add(from, parent, name, 3, at, duration + 1.2, { "server.address": `${service}.shop.svc`, "server.port": 8080, ...attrs }, more);
    return add(service, client, name, 2, at + 0.6, duration, { "network.peer.address": `10.42.0.${random.below(40) + 10}`, ...attrs }, more);
  };
  const query = (service, parent, at, duration, text) =>
    add(service, parent, `SELECT ${text}`, 3, at, duration, {
      "db.system.name": "postgresql",
      "db.query.text": `SELECT * FROM ${text} WHERE id = $1`,
      "server.address": "postgres.shop.svc",
    });

  let at = startMs + 1.1;
  const rootAttributes = { "http.request.method": method, "http.route": path, "url.path": path.replace("{id}", String(random.below(90))), "user.id": user, "http.response.status_code": 200 };
  const root = add("frontend", undefined, route, 2, startMs, 1, rootAttributes);
  if (path === "/") {
    const list = random.around(slow ? 160 : 14);
    const server = call("frontend", "catalog", root, "GET /products", at, list, { "http.request.method": "GET", "http.route": "/products", "http.response.status_code": 200 });
    query("catalog", server, at + 1, list * 0.7, "products");
    at += list + 3;
  } else if (path.startsWith("/product")) {
    const look = random.around(slow ? 220 : 9);
    const server = call("frontend", "catalog", root, "GET /products/{id}", at, look, { "http.request.method": "GET", "http.route": "/products/{id}", "http.response.status_code": 200 });
    const reviews = 3 + random.below(slow ? 40 : 5);
    let inner = at + 1;
    for (let i = 0; i < reviews; i++) {
      const one = (look * 0.8) / reviews;
      query("catalog", server, inner, one * 0.9, "reviews");
      inner += one;
    }
    at += look + 3;
  } else {
    const put = random.around(6);
    const failed = random.next() < 0.03;
    const cart = call("frontend", "cart", root, "POST /cart/items", at, put, { "http.request.method": "POST", "http.route": "/cart/items", "http.response.status_code": failed ? 503 : 200 }, failed ? error("cart is read-only while it moves") : {});
    add("cart", cart, "HSET cart", 3, at + 1, put * 0.5, { "db.system.name": "redis", "server.address": "redis.shop.svc" });
    at += put + 3;
    if (path === "/checkout") {
      const version = random.next() < 0.3 ? "1.13.0-rc1" : "1.12.0";
      const pay = random.around(slow || version !== "1.12.0" ? 240 : 45);
      const declined = random.next() < (version === "1.12.0" ? 0.04 : 0.25);
      const total = pay + 14;
      const attrs = { "http.request.method": "POST", "http.route": "/checkout", "http.response.status_code": declined ? 402 : 200, "app.build": version, "app.amount": Math.round(random.around(80) * 100) / 100 };
      const server = call("frontend", "checkout", root, "POST /checkout", at, total, attrs, declined ? error("payment declined") : {});
      query("checkout", server, at + 1, 3, "orders");
      const paid = call("checkout", "payment", server, "payment.Payment/Charge", at + 6, pay, { "rpc.system": "grpc", "rpc.method": "Charge", "rpc.grpc.status_code": declined ? 9 : 0 }, declined ? error("card declined") : {});
      if (declined) {
        paid.events = [
          {
            timeUnixNano: String(BigInt(Math.round((at + 6 + pay * 0.9) * 1000)) * 1000n),
            name: "exception",
            attributes: attributes({
              "exception.type": "Billing.CardDeclinedException",
              "exception.message": "Card ending in 4242 was declined: insufficient funds",
              "exception.stacktrace": "Billing.CardDeclinedException: Card ending in 4242 was declined\n   at Billing.Charge.Run(Order order) in Charge.cs:line 88\n   at Billing.Api.Charge(Request r) in Api.cs:line 31",
            }),
          },
        ];
      } else {
        const sent = add("checkout", server, "orders publish", 4, at + pay + 9, 1.5, { "messaging.system": "kafka", "messaging.destination.name": "orders" });
        const mail = add("mailer", sent, "orders process", 5, at + pay + 30 + random.around(40), random.around(25), { "messaging.system": "kafka", "messaging.destination.name": "orders" });
        mail.links = [{ traceId, spanId: sent.spanId, attributes: attributes({ reason: "batch" }) }];
        mail.events = [{ timeUnixNano: mail.startTimeUnixNano, name: "template rendered", attributes: attributes({ template: "order-confirmed" }) }];
      }
      if (declined) {
        rootAttributes["http.response.status_code"] = 402;
        root.status = { code: 2, message: "checkout failed" };
      }
      at += total + 3;
    }
    if (failed) {
      rootAttributes["http.response.status_code"] = 502;
      root.status = { code: 2, message: "cart is unavailable" };
    }
  }
  root.attributes = attributes(rootAttributes);
  root.endTimeUnixNano = String(BigInt(Math.round((at + 0.7) * 1000)) * 1000n);
  return spans;
}

/** A trace of `count` spans: a nightly job with many like queries, nested and in parallel. */
export function largeTrace(random, startMs, count) {
  const traceId = random.hex(16);
  const nano = (ms) => String(BigInt(Math.round(ms * 1000)) * 1000n);
  const names = Object.keys(SERVICES);
  const spans = [{ service: "checkout", traceId, spanId: random.hex(8), name: "nightly reconcile", kind: 1, startTimeUnixNano: nano(startMs), endTimeUnixNano: nano(startMs + 60_000), attributes: attributes({ "job.items": count }) }];
  const open = [{ span: spans[0], start: startMs, end: startMs + 60_000, depth: 0 }];
  while (spans.length < count) {
    const parent = open[random.below(Math.min(open.length, 200))];
    const length = (parent.end - parent.start) * (0.02 + random.next() * 0.5);
    const start = parent.start + random.next() * (parent.end - parent.start - length);
    const service = random.next() < 0.6 ? parent.span.service : random.pick(names);
    const kind = random.pick([1, 1, 3, 2]);
    const span = {
      service,
      traceId,
      spanId: random.hex(8),
      parentSpanId: parent.span.spanId,
      name: kind === 3 ? "SELECT ledger" : `step ${random.below(30)}`,
      kind,
      startTimeUnixNano: nano(start),
      endTimeUnixNano: nano(start + length),
      attributes: attributes({ "job.item": spans.length, "thread.id": random.below(16) }),
      ...(random.next() < 0.004 ? { status: { code: 2, message: "row is locked" } } : {}),
    };
    spans.push(span);
    if (parent.depth < 40) open.push({ span, start, end: start + length, depth: parent.depth + 1 });
  }
  return spans;
}

/** Everything that clients get wrong, in one trace each. */
export function oddTraces(random, startMs) {
  const nano = (ms) => String(BigInt(Math.round(ms * 1000)) * 1000n);
  const base = () => ({ traceId: random.hex(16), kind: 1 });
  const span = (trace, service, id, parent, name, start, duration, more = {}) => ({
    ...trace, service, spanId: id, parentSpanId: parent, name,
    startTimeUnixNano: nano(startMs + start), endTimeUnixNano: nano(startMs + start + duration), attributes: [], ...more,
  });
  const lost = base(), skewed = base(), cycle = base(), zero = base(), hostile = base(), twins = base(), future = base();
  return {
    missingParent: [
      span(lost, "cart", random.hex(8), "00000000000000aa", "orphan one", 5, 20),
      span(lost, "cart", random.hex(8), "00000000000000aa", "orphan two", 12, 9),
      span(lost, "mailer", random.hex(8), "00000000000000bb", "orphan of another", 30, 9),
    ],
    clockSkew: [
      span(skewed, "frontend", "0000000000000001", undefined, "GET /skewed", 0, 100, { kind: 2 }),
      span(skewed, "frontend", "0000000000000002", "0000000000000001", "call", 10, 80, { kind: 3 }),
      span(skewed, "payment", "0000000000000003", "0000000000000002", "served by a clock 41 s off", -41_000, 60, { kind: 2 }),
      span(skewed, "payment", "0000000000000004", "0000000000000003", "inside", -40_990, 30),
    ],
    cycle: [
      span(cycle, "cart", "0000000000000001", "0000000000000003", "first of a ring", 0, 30),
      span(cycle, "cart", "0000000000000002", "0000000000000001", "second of a ring", 5, 20),
      span(cycle, "cart", "0000000000000003", "0000000000000002", "third of a ring", 8, 10),
      span(cycle, "cart", "0000000000000004", "0000000000000004", "its own parent", 12, 10),
    ],
    zeroAndNegative: [
      span(zero, "catalog", "0000000000000001", undefined, "root", 0, 50),
      span(zero, "catalog", "0000000000000002", "0000000000000001", "no time at all", 10, 0),
      span(zero, "catalog", "0000000000000003", "0000000000000001", "ends before it starts", 30, -12),
    ],
    hostile: [
      span(hostile, "<img src=x onerror=alert(1)>", "0000000000000001", undefined, "<script>window.pwned = 1</script>", 0, 50, {
        attributes: attributes({
          "<b>key</b>": "<svg onload=alert(1)>",
          "control.characters": "bell \u0007, escape \u001b[31m, right-to-left \u202e txt",
          long: "x".repeat(100_000),
          "quote\"and\\backslash": "a\"b\\c\nnewline",
          "javascript.url": "javascript:alert(1)",
        }),
        events: [{ timeUnixNano: nano(startMs + 5), name: "<h1>event</h1>", attributes: attributes({ "exception.stacktrace": "<a href=x>\n\tat y" }) }],
      }),
    ],
    twins: [
      span(twins, "frontend", "0000000000000001", undefined, "call", 0, 40, { kind: 3 }),
      span(twins, "cart", "0000000000000001", undefined, "same span id, as Zipkin has it", 5, 30, { kind: 2 }),
      span(twins, "cart", "0000000000000002", "0000000000000001", "child of the server's half", 8, 10),
    ],
    farApart: [
      span(future, "mailer", "0000000000000001", undefined, "enqueued", 0, 1),
      span(future, "mailer", "0000000000000002", "0000000000000001", "ten minutes later", 600_000, 3),
    ],
  };
}

/** Spans of `{ service, ... }` as an OTLP request. */
/** As OTLP JSON. `resource` are further attributes of every service's resource. */
export function request(spans, resource = {}) {
  const byService = new Map();
  for (const { service, ...span } of spans) {
    if (!byService.has(service)) byService.set(service, []);
    byService.get(service).push(span);
  }
  return {
    resourceSpans: [...byService].map(([service, list], i) => {
      const known = SERVICES[service] ?? { namespace: "default", language: "go", version: "0" };
      return {
        resource: {
          attributes: attributes({
            "service.name": service,
            "service.version": known.version,
            "telemetry.sdk.language": known.language,
            "k8s.namespace.name": known.namespace,
            "k8s.deployment.name": service,
            "k8s.pod.name": `${service}-7c9d-${i % 3}`,
            "k8s.node.name": `pi-${(service.length % 3) + 1}`,
            ...resource,
          }),
        },
        scopeSpans: [{ scope: { name: `shop.${service}`, version: "1" }, spans: list }],
      };
    }),
  };
}

export async function send(url, spans, resource) {
  const answer = await fetch(`${url}/v1/traces`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(request(spans, resource)) });
  if (!answer.ok) throw new Error(`${url}/v1/traces: ${answer.status} ${await answer.text()}`);
}

/** Sends `traces` spread evenly over the past `seconds`. */
export async function fill(url, traces, seconds, seed) {
  const random = generator(seed);
  const now = Date.now();
  let waiting = [];
  let spans = 0;
  for (let i = 0; i < traces; i++) {
    const made = checkoutTrace(random, now - seconds * 1000 * (1 - i / traces) - 2_000);
    spans += made.length;
    waiting.push(...made);
    if (waiting.length >= SPANS_PER_REQUEST) {
      await send(url, waiting);
      waiting = [];
    }
  }
  if (waiting.length > 0) await send(url, waiting);
  return spans;
}

// In a function: a module that awaits would be evaluated later than those that import others only.
async function main() {
  const [url, traces = "2000", seconds = "3600", seed = "7"] = process.argv.slice(2);
  if (!url) {
    console.error("usage: node shop.mjs URL [TRACES] [SECONDS] [SEED]");
    process.exit(2);
  }
  const spans = await fill(url, Number(traces), Number(seconds), Number(seed));
  const random = generator(Number(seed) + 1);
  const large = largeTrace(random, Date.now() - 300_000, 10_000);
  for (let i = 0; i < large.length; i += SPANS_PER_REQUEST) await send(url, large.slice(i, i + SPANS_PER_REQUEST));
  const odd = oddTraces(random, Date.now() - 120_000);
  for (const spans of Object.values(odd)) await send(url, spans);
  console.log(JSON.stringify({ spans, large: large[0].traceId, odd: Object.fromEntries(Object.entries(odd).map(([k, s]) => [k, s[0].traceId])) }, null, 1));
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) void main();
