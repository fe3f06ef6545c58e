// Rates, errors and durations of services, from TraceQL metrics: nothing else needs to run for them.
import { instant, label, series } from "./api";
import type { Bounds, Series, SeriesAnswer } from "./api";

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
  const [counts, failed, quantiles, slow, shortest, longest, longestPerStep] = await Promise.all([
    series(`{ ${ENTRIES} } | count_over_time() ${by}`, range, stepSeconds, signal),
    series(`{ status = error && (${ENTRIES}) } | count_over_time() ${by}`, range, stepSeconds, signal),
    instant(`{ ${ENTRIES} } | quantile_over_time(duration, .5, .95) ${by}`, range, signal),
    series(`{ ${ENTRIES} } | quantile_over_time(duration, .95)`, range, stepSeconds, signal),
    instant(`{ ${ENTRIES} } | min_over_time(duration) ${by}`, range, signal),
    instant(`{ ${ENTRIES} } | max_over_time(duration) ${by}`, range, signal),
    series(`{ ${ENTRIES} } | max_over_time(duration)`, range, stepSeconds, signal),
  ]);
  const rates: number[] = [];
  const failures: number[] = [];
  const add = (sums: number[], one: Series) => one.samples?.forEach((sample, i) => (sums[i] = (sums[i] ?? 0) + (sample.value ?? 0) / stepSeconds));
  const errors = new Map((failed.series ?? []).map((one) => [label(one, "resource.service.name"), total(one)]));
  failed.series?.forEach((one) => add(failures, one));
  const quantile = new Map((quantiles.series ?? []).map((one) => [`${label(one, "p")} ${label(one, "resource.service.name")}`, (one.value ?? 0) * 1e9]));
  const perService = (answer: SeriesAnswer) => new Map((answer.series ?? []).map((one) => [label(one, "resource.service.name"), (one.value ?? 0) * 1e9]));
  const [mins, maxs] = [perService(shortest), perService(longest)];
  // Quantiles come from buckets that double: of few or even durations they may lie beyond every span there is.
  const within = (nanos: number, service: string) => Math.max(mins.get(service) ?? 0, Math.min(maxs.get(service) ?? Infinity, nanos));
  const services = (counts.series ?? []).map((one) => {
    const service = label(one, "resource.service.name");
    add(rates, one);
    const last = one.samples?.findLast((sample) => (sample.value ?? 0) > 0);
    return {
      service,
      rates: (one.samples ?? []).map((sample) => (sample.value ?? 0) / stepSeconds),
      requests: total(one),
      failed: errors.get(service) ?? 0,
      p50: within(quantile.get(`0.5 ${service}`) ?? 0, service),
      p95: within(quantile.get(`0.95 ${service}`) ?? 0, service),
      seen: last ? Math.min(Number(last.timestampMs), Date.now()) : 0,
    };
  });
  const tops = new Map((longestPerStep.series?.[0]?.samples ?? []).map((sample) => [sample.timestampMs, sample.value]));
  const p95s = (slow.series?.[0]?.samples ?? []).map(({ timestampMs, value }) => (value === undefined ? null : Math.min(value, tops.get(timestampMs) ?? Infinity) * 1e9));
  return { services, rates, failures, p95s };
}

const total = (one: Series): number => (one.samples ?? []).reduce((sum, sample) => sum + (sample.value ?? 0), 0);
