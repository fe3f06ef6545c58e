// Rates, errors and durations of services, from TraceQL metrics: nothing else needs to run for them.
import { instant, label, series } from "./api";
import type { Bounds, Series } from "./api";

/** What a service was asked: entry spans, and roots of whatever kind. */
export const ENTRIES = "kind = server || kind = consumer || nestedSetParent < 0";

export interface ServiceFigures {
  service: string;
  /** Per second, one value per step. */
  rates: number[];
  /** Requests in the whole range. */
  requests: number;
  failed: number;
  /** Nanoseconds. */
  p50: number;
  p95: number;
  /** Unix milliseconds of the last step with a request. */
  seen: number;
}

export interface Figures {
  services: ServiceFigures[];
  /** Of all services together, per step: requests and failures a second, and p95 in nanoseconds (null: no request). */
  rates: number[];
  failures: number[];
  p95s: (number | null)[];
}

export async function figures(range: Bounds, stepSeconds: number, signal: AbortSignal): Promise<Figures> {
  const by = "by (resource.service.name)";
  const [counts, failed, quantiles, slow] = await Promise.all([
    series(`{ ${ENTRIES} } | count_over_time() ${by}`, range, stepSeconds, signal),
    series(`{ status = error && (${ENTRIES}) } | count_over_time() ${by}`, range, stepSeconds, signal),
    instant(`{ ${ENTRIES} } | quantile_over_time(duration, .5, .95) ${by}`, range, signal),
    series(`{ ${ENTRIES} } | quantile_over_time(duration, .95)`, range, stepSeconds, signal),
  ]);
  const rates: number[] = [];
  const failures: number[] = [];
  const add = (sums: number[], one: Series) => one.samples?.forEach((sample, i) => (sums[i] = (sums[i] ?? 0) + (sample.value ?? 0) / stepSeconds));
  const errors = new Map((failed.series ?? []).map((one) => [label(one, "resource.service.name"), total(one)]));
  failed.series?.forEach((one) => add(failures, one));
  const quantile = new Map((quantiles.series ?? []).map((one) => [`${label(one, "p")} ${label(one, "resource.service.name")}`, (one.value ?? 0) * 1e9]));
  const services = (counts.series ?? []).map((one) => {
    const service = label(one, "resource.service.name");
    add(rates, one);
    const last = one.samples?.findLast((sample) => (sample.value ?? 0) > 0);
    return {
      service,
      rates: (one.samples ?? []).map((sample) => (sample.value ?? 0) / stepSeconds),
      requests: total(one),
      failed: errors.get(service) ?? 0,
      p50: quantile.get(`0.5 ${service}`) ?? 0,
      p95: quantile.get(`0.95 ${service}`) ?? 0,
      seen: last ? Math.min(Number(last.timestampMs), Date.now()) : 0,
    };
  });
  return { services, rates, failures, p95s: (slow.series?.[0]?.samples ?? []).map((sample) => (sample.value === undefined ? null : sample.value * 1e9)) };
}

const total = (one: Series): number => (one.samples ?? []).reduce((sum, sample) => sum + (sample.value ?? 0), 0);
