// What the server is asked. Everything but what `/ui/api` says is Tempo's API, which Grafana speaks too.
import { signal } from "@preact/signals";
import { root } from "./router";

/** Set when an answer was refused for want of a login. */
export const loginWanted = signal(false);

/** Why there is no answer, in words for people. */
export class ApiError extends Error {
  constructor(
    /** HTTP status; 0 if nobody answered. */
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

export type Query = Record<string, string | number | undefined>;

export const address = (path: string, query: Query = {}): string => {
  const search = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) if (value !== undefined) search.set(key, String(value));
  const text = search.toString();
  return root + path + (text ? `?${text}` : "");
};

export const get = <T>(path: string, query: Query = {}, signal?: AbortSignal): Promise<T> => ask<T>(path, address(path, query), { signal: signal ?? null });

export const send = <T>(path: string, body: unknown, signal?: AbortSignal): Promise<T> =>
  ask<T>(path, address(path), { method: "POST", body: JSON.stringify(body), signal: signal ?? null, headers: { "content-type": "application/json" } });

async function ask<T>(path: string, url: string, how: RequestInit): Promise<T> {
  const answer = await answered(url, how);
  try {
    return (await answer.json()) as T;
  } catch {
    throw new ApiError(answer.status, `${path}: the answer is not JSON; is something between the browser and Spanreel?`);
  }
}

/** An answer that is no error. */
export async function answered(url: string, how: RequestInit): Promise<Response> {
  let answer: Response;
  try {
    answer = await fetch(url, { ...how, headers: { accept: "application/json", ...how.headers } });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(0, "Spanreel does not answer. Is it running, and is the port-forward still up?");
  }
  if (answer.ok) return answer;
  // A login that is wrong says so itself.
  if (answer.status === 401 && how.method !== "POST") loginWanted.value = true;
  throw new ApiError(answer.status, await reason(answer));
}

async function reason(answer: Response): Promise<string> {
  const text = (await answer.text().catch(() => "")).trim();
  try {
    const message = (JSON.parse(text) as { error?: { message?: string } }).error?.message;
    if (message) return message;
  } catch {
    // Tempo's errors are plain text.
  }
  return text.slice(0, 2000) || `${answer.status} ${answer.statusText}`;
}

export interface AnyValue {
  stringValue?: string;
  boolValue?: boolean;
  intValue?: string | number;
  doubleValue?: number | string;
  bytesValue?: string;
  arrayValue?: { values?: AnyValue[] };
  kvlistValue?: { values?: KeyValue[] };
}

export interface KeyValue {
  key: string;
  value?: AnyValue;
}

export interface FoundSpan {
  spanID: string;
  startTimeUnixNano: string;
  /** Absent for zero. */
  durationNanos?: string;
  name?: string;
  attributes?: KeyValue[];
}

export interface FoundTrace {
  traceID: string;
  rootServiceName?: string;
  rootTraceName?: string;
  startTimeUnixNano?: string;
  durationMs?: number;
  spanSets?: { spans: FoundSpan[]; matched: number }[];
  serviceStats?: Record<string, { spanCount: number; errorCount?: number }>;
}

export interface SearchAnswer {
  traces?: FoundTrace[];
  metrics?: { inspectedBytes?: string; inspectedTraces?: number };
}

export interface Series {
  labels: KeyValue[];
  /** Of `query_range`. A sample without value is zero. */
  samples?: { timestampMs: string; value?: number }[];
  /** Of `query`. */
  value?: number;
}

export interface SeriesAnswer {
  series?: Series[];
  metrics?: { inspectedSpans?: string };
}

export interface TagsAnswer {
  scopes: { name: string; tags?: string[] }[];
}

export interface ValuesAnswer {
  tagValues?: { type: string; value: string }[];
}

/** A range in Unix seconds. */
export interface Bounds {
  start: number;
  end: number;
}

/** Unix seconds as the API takes them. A range of the search includes its last second. */
const bounds = (range: Bounds): Query => ({ start: Math.floor(range.start), end: Math.ceil(range.end) });

/** The API refuses metrics over more than this. */
export const METRICS_SECONDS_MAX = 24 * 3600;
/** And searches over more than this. */
export const SEARCH_SECONDS_MAX = 168 * 3600;

const metricBounds = (range: Bounds): Query => bounds({ start: Math.max(range.start, range.end - METRICS_SECONDS_MAX + 2), end: range.end });

export const search = (q: string, range: Bounds, limit: number, spans: number, signal?: AbortSignal) =>
  get<SearchAnswer>("api/search", { q, limit, spss: spans, ...bounds({ start: Math.max(range.start, range.end - SEARCH_SECONDS_MAX + 2), end: range.end }) }, signal);

export const series = (q: string, range: Bounds, stepSeconds: number, signal?: AbortSignal) =>
  get<SeriesAnswer>("api/metrics/query_range", { q, step: `${stepSeconds}s`, exemplars: 0, ...metricBounds(range) }, signal);

export const instant = (q: string, range: Bounds, signal?: AbortSignal) =>
  get<SeriesAnswer>("api/metrics/query", { q, ...metricBounds(range) }, signal);

/** What `asked` answers, a longer form of `query`. A refusal is told of the query as it was typed, not of what was added to it. */
export async function ofQuery<T>(query: string, range: Bounds, signal: AbortSignal, asked: Promise<T>): Promise<T> {
  try {
    return await asked;
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 400) throw error;
    const bare = await search(query, range, 1, 1, signal).then(() => error, (other: unknown) => other);
    throw bare instanceof ApiError && bare.status === 400 ? new ApiError(400, bare.message.replace("$end", "end of the query")) : error;
  }
}

export const tags = (range: Bounds, signal?: AbortSignal) => get<TagsAnswer>("api/v2/search/tags", bounds(range), signal);

/** The API's default would be everything; nobody reads more of a list than this. */
const VALUES_MAX = 200;

export const values = (name: string, range: Bounds, q: string | undefined, signal?: AbortSignal) =>
  get<ValuesAnswer>(`api/v2/search/tag/${encodeURIComponent(name)}/values`, { q, limit: VALUES_MAX, ...bounds(range) }, signal);

export const trace = (id: string, signal?: AbortSignal) => get<unknown>(`api/v2/traces/${encodeURIComponent(id)}`, {}, signal);

/** The text of a value of any kind. */
export function valueText(value: AnyValue | undefined): string {
  if (!value) return "";
  if (value.stringValue !== undefined) return value.stringValue;
  if (value.boolValue !== undefined) return String(value.boolValue);
  if (value.intValue !== undefined) return String(value.intValue);
  if (value.doubleValue !== undefined) return String(value.doubleValue);
  if (value.bytesValue !== undefined) return value.bytesValue;
  if (value.arrayValue) return `[${(value.arrayValue.values ?? []).map(valueText).join(", ")}]`;
  if (value.kvlistValue) return `{${(value.kvlistValue.values ?? []).map((pair) => `${pair.key}: ${valueText(pair.value)}`).join(", ")}}`;
  return "";
}

export const label = (series: Series, key: string): string => valueText(series.labels.find((pair) => pair.key === key)?.value);

export interface Status {
  version: string;
  uptime_seconds: number;
  resident_bytes: number;
  listeners: { receiver: string; owner: string | null; protocol: string; address: string }[];
  pipelines: { pipeline: string; received: number; stored: number; sampled_out: number; dropped: Record<string, number>; reclaimed?: number }[];
  destinations: {
    destination: string;
    pipeline: string;
    configured: boolean;
    sent: number;
    queued: number;
    expired: Record<string, number>;
    state: string | null;
    last_error: { at: number; text: string } | null;
    last_success: number | null;
  }[];
  discarded: { signal: string; service: string; requests: number }[];
  spool: {
    directory: string;
    bytes: number;
    bytes_max: number;
    raw_bytes: number;
    batches: number;
    oldest_age_seconds: number;
    /** Null: it does not fill as things go. */
    full_in_seconds: number | null;
    written_per_day_bytes: number | null;
    disk_free_bytes: number;
    disk_full: boolean;
    disk_error: string | null;
    lost_to_damage: number;
    syncs: number;
    sync_mean_micros: number;
    sync_max_micros: number;
  };
  store: {
    runs: number;
    spans: number;
    bytes: number;
    raw_bytes: number;
    damaged_runs: number;
    oldest_received: number | null;
    waiting_spans: number;
    pinned_traces: number;
    /** Only in the answer for this UI. */
    bytes_max?: number | null;
    max_age_seconds?: number | null;
  };
  injections: { language: string; result: string; reason: string; count: number }[];
  /** Null outside a cluster. */
  life: Record<string, unknown> | null;
}

export const status = (signal?: AbortSignal) => get<Status>("api/spanreel/status", {}, signal);

export type Destination = Status["destinations"][number] & {
  oldest_waiting_age_seconds?: number | null;
  waiting_batches?: number;
  waiting_bytes?: number;
  /** Null where they could not be counted. */
  dead_letters?: number | null;
};

export interface Account {
  equation: string;
  difference: number;
}

/** The status, and what only the UI shows of it. Times are Unix seconds. */
export interface Health extends Status {
  ledger: (Account & { pipeline: string; destinations: (Account & { destination: string; stored: number; sent: number; queued: number; expired: number })[] })[];
  destinations: Destination[];
  /** Null with a problem: they could not be counted. */
  dead_letters: { count: number | null; items: number | null; bytes: number | null; more: boolean; problem?: string | null };
  certificates: { name: string; serves: string; expires: number | null; expires_in_seconds: number | null; problem?: string | null }[];
  recent: {
    since: number;
    /** Entries that there was no room for. */
    dropped: number;
    /** The newest first; what was said again is one entry. */
    entries: { at: number; first_at: number; level: string; count: number; target: string; message: string; fields: Record<string, unknown> }[];
  };
}

export const health = (signal?: AbortSignal) => get<Health>("ui/api/health", {}, signal);
