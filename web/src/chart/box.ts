// A part of the chart of durations: a time and a range of durations. It stands in addresses.
import { durationLiteral } from "../format";

export interface Box {
  /** Unix seconds. */
  from: number;
  to: number;
  /** Nanoseconds. */
  low: number;
  high: number;
}

const UNITS: Record<string, number> = { ns: 1, us: 1e3, ms: 1e6, s: 1e9 };

/** `from,to,low,high`: Unix seconds and durations; null if it is none. */
export function readBox(text: string): Box | null {
  const [from, to, low, high] = text.split(",");
  const nanos = (literal = "") => {
    const match = /^([\d.]+)(ns|us|ms|s)$/.exec(literal);
    return match ? Number(match[1]) * (UNITS[match[2] ?? ""] ?? NaN) : NaN;
  };
  const box = { from: Number(from), to: Number(to), low: nanos(low), high: nanos(high) };
  return box.to > box.from && box.high > box.low ? box : null;
}

const millis = (seconds: number): number => Math.round(seconds * 1000) / 1000;

export const writeBox = (box: Box): string => [millis(box.from), millis(box.to), durationLiteral(box.low), durationLiteral(box.high)].join(",");
