// The time range that every page looks at: `since` (until now), or `from` and `to` in Unix seconds.
import { computed, signal } from "@preact/signals";
import { parameter } from "./router";

export const PRESETS = ["5m", "15m", "1h", "6h", "24h", "3d", "7d"] as const;
const DEFAULT = "1h";
const UNITS: Record<string, number> = { s: 1, m: 60, h: 3600, d: 86_400 };

/** Seconds of `15m` and the like; null if it is none. */
export function seconds(text: string): number | null {
  const match = /^(\d{1,6})([smhd])$/.exec(text);
  return match ? Number(match[1]) * (UNITS[match[2]!] ?? 0) || null : null;
}

export interface Range {
  start: number;
  end: number;
  /** Set if the range ends now. */
  since: string | null;
}

/** Moves when data are asked for anew: a range that ends now is another one then. */
export const tick = signal(Date.now());

export const range = computed<Range>(() => {
  const from = Number(parameter("from"));
  const to = Number(parameter("to"));
  if (from > 0 && to > from) return { start: from, end: to, since: null };
  const given = parameter("since");
  const since = seconds(given) === null ? DEFAULT : given;
  const end = tick.value / 1000;
  return { start: end - (seconds(since) ?? 3600), end, since };
});

/** The parameters that keep the range when going to another page. */
export function keepRange(): Record<string, string> {
  const kept: Record<string, string> = {};
  for (const name of ["since", "from", "to"]) if (parameter(name)) kept[name] = parameter(name);
  return kept;
}

/** A round step that gives about `samples` samples. */
export function step(range: { start: number; end: number }, samples: number): number {
  const wanted = Math.max(1, (range.end - range.start) / samples);
  const round = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200];
  return round.find((candidate) => candidate >= wanted) ?? 86_400;
}
