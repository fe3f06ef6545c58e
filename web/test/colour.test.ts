import assert from "node:assert/strict";
import { test } from "node:test";
import { COLOURS, colourIndex } from "../src/colour";

test("as many services as there are colours have one each, and the same one the next time", () => {
  const services = Array.from({ length: COLOURS }, (_, i) => `service-${i * 7}`);
  const first = services.map(colourIndex);
  assert.equal(new Set(first).size, COLOURS);
  assert.deepEqual(services.map(colourIndex), first);
  // Then the colours are shared out evenly.
  const more = Array.from({ length: COLOURS }, (_, i) => colourIndex(`more-${i}`));
  assert.equal(new Set(more).size, COLOURS);
});
