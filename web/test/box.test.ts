import assert from "node:assert/strict";
import { test } from "node:test";
import { readBox, writeBox } from "../src/chart/box";

test("a box in an address is the box again, to the millisecond and four digits of a duration", () => {
  const box = { from: 1_700_000_000.25, to: 1_700_000_000.5, low: 1_500, high: 2.5e9 };
  assert.deepEqual(readBox(writeBox(box)), box);
});

test("what is no box is none", () => {
  for (const text of ["", "1,2,3,4", "2,1,1ms,2ms", "1,2,2ms,1ms", "x,2,1ms,2ms", "1,2,1ms", "1,2,1.2.3ms,5ms"]) assert.equal(readBox(text), null, text);
});
