import assert from "node:assert/strict";
import { test } from "node:test";
import { MEANINGS, TONES, reached } from "../src/cluster/report";

test("every condition has a meaning, a tone and a place on the way to the first span", () => {
  assert.deepEqual(Object.keys(MEANINGS).sort(), Object.keys(TONES).sort());
  const way = Object.fromEntries(Object.keys(MEANINGS).map((one) => [one, reached(one)]));
  assert.deepEqual(way["speaking"], { stations: 4, stuck: false });
  assert.deepEqual(way["silent"], { stations: 3, stuck: true });
  assert.deepEqual(way["refused"], { stations: 1, stuck: true });
  assert.deepEqual(way["ready"], { stations: 1, stuck: false });
  // What is red is stuck somewhere.
  for (const [condition, tone] of Object.entries(TONES)) if (tone === "bad") assert.ok(reached(condition).stuck, condition);
});
