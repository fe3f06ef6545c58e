import assert from "node:assert/strict";
import { test } from "node:test";
import { buildMap } from "../src/map";
import type { MapSpan } from "../src/map";

const span = (id: string, parent: string, service: string, kind: string, attributes: Record<string, string> = {}, failed = false): MapSpan => ({
  id, parent, service, kind, nanos: 1_000_000, failed, attribute: (key) => attributes[key] ?? "",
});

test("services, queues, databases and peers stand with their calls, callers to the left", () => {
  const map = buildMap([[
    span("1", "", "web", "server"),
    span("2", "1", "web", "client", { "server.address": "shop" }),
    span("3", "2", "shop", "server", {}, true),
    span("4", "3", "shop", "client", { "db.system.name": "postgresql", "server.address": "db-1" }),
    span("5", "3", "shop", "producer", { "messaging.system": "kafka", "messaging.destination.name": "orders" }),
    span("6", "5", "mail", "consumer", { "messaging.system": "kafka", "messaging.destination.name": "orders" }),
    span("7", "6", "mail", "client", { "server.address": "smtp.example" }),
  ]]);
  assert.deepEqual(map.nodes.map((node) => node.id).sort(), ["database postgresql · db-1", "peer smtp.example", "queue orders", "service mail", "service shop", "service web"]);
  assert.deepEqual(
    map.edges.map((edge) => `${edge.from} > ${edge.to} ${edge.calls} ${edge.failed}`).sort(),
    ["queue orders > service mail 1 0", "service mail > peer smtp.example 1 0", "service shop > database postgresql · db-1 1 0", "service shop > queue orders 1 0", "service web > service shop 1 1"],
  );
  const layer = (id: string) => map.nodes.find((node) => node.id === id)!.layer;
  for (const edge of map.edges) assert.ok(layer(edge.from) < layer(edge.to), `${edge.from} > ${edge.to}`);
});

test("the same traces in another order give the same picture", () => {
  const traces = Array.from({ length: 20 }, (_, i) => [span("1", "", `s${i % 5}`, "server"), span("2", "1", `s${i % 5}`, "client"), span("3", "2", `s${5 + (i % 7)}`, "server")]);
  const places = (map: ReturnType<typeof buildMap>) => map.nodes.map((node) => `${node.id} ${node.x} ${node.y}`).sort();
  assert.deepEqual(places(buildMap([...traces].reverse())), places(buildMap(traces)));
});

test("rings and calls of oneself end", () => {
  const ring = ["a", "b", "c"].flatMap((service, i) => [span(`${i}c`, "", service, "client"), span(`${i}s`, `${i}c`, ["b", "c", "a"][i]!, "server")]);
  assert.equal(buildMap([ring]).edges.length, 3);
  assert.equal(buildMap([[span("1", "1", "a", "server")]]).edges.length, 0);
});

test("of thousands of services the busiest are drawn, and the others counted", () => {
  const traces = Array.from({ length: 5_000 }, (_, i) => Array.from({ length: i < 10 ? 3 : 1 }, (_, j) => span(`${j}`, "", `s${i}`, "server")));
  const map = buildMap(traces);
  assert.equal(map.nodes.length + map.leftOut, 5_000);
  assert.ok(map.nodes.length <= 150);
  for (let i = 0; i < 10; i++) assert.ok(map.nodes.some((node) => node.name === `s${i}`));
});

test("a call over several layers stays within the picture", () => {
  const chain = ["a", "b", "c", "d", "e"];
  const spans = chain.flatMap((service, i) => [span(`${i}s`, i === 0 ? "" : `${i - 1}c`, service, "server"), span(`${i}c`, `${i}s`, service, "client")]);
  const straight = buildMap([spans]);
  assert.equal(straight.above, 0);
  const far = buildMap([[...spans, span("far", "0s", "a", "client"), span("end", "far", "e", "server")], spans, spans]);
  assert.ok(far.edges.some((edge) => edge.from === "service a" && edge.to === "service e"));
  assert.ok(far.height + far.above > straight.height, `${far.height} ${straight.height}`);
});
