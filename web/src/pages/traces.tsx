import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { label, search, series, valueText } from "../api";
import type { FoundSpan, FoundTrace, SearchAnswer, SeriesAnswer } from "../api";
import { DurationChart } from "../chart/durations";
import type { Box, Cell, Dot } from "../chart/durations";
import { colour, colourIndex } from "../colour";
import { Facets } from "../facets";
import { ago, bytes, clock, count, duration, durationLiteral, moment } from "../format";
import { useAnswer, useInterval, useTitle } from "../hooks";
import { useKeys } from "../keys";
import { QueryBox } from "../querybox";
import { keepRange, range, step, tick } from "../range";
import { change, go, href, parameter } from "../router";
import { conditions, takesMetrics, withCondition, withoutCondition, withoutField } from "../traceql";
import { Empty, Failure, Icon, ServiceDot, Tabs, Waiting } from "../ui";

const LIMIT = 50;
const LIMIT_MAX = 1000;
/** Spans of a trace that are drawn beside it. */
const SPANS_DRAWN = 24;
const LIVE_MS = 2000;
/** Columns of the heatmap. */
const COLUMNS = 120;

const EVERYTHING = "{ }";

/** Asks for what the rows show besides, where the query leaves the choice. */
const withFields = (query: string): string => (takesMetrics(query) ? `${query} | select(resource.service.name, status)` : query);

export default function Traces() {
  useTitle("Traces");
  const query = parameter("q") || EVERYTHING;
  const limit = Math.min(LIMIT_MAX, Math.max(1, Number(parameter("limit")) || LIMIT));
  const isLive = parameter("live") === "1";
  const chart = parameter("chart") === "traces" ? "traces" : "spans";
  const facets = parameter("facets").split(",").filter(Boolean);
  const { start, end, since } = range.value;
  const [box, setBox] = useState<Box | null>(null);
  const [facetsOpen, setFacetsOpen] = useState(false);
  const list = useRef<HTMLDivElement>(null);

  const answer = useAnswer(`${query} ${start} ${end} ${limit}`, (signal) => search(withFields(query), { start, end }, limit, SPANS_DRAWN, signal));
  useInterval(() => (tick.value = Date.now()), isLive && since !== null ? LIVE_MS : null);
  useEffect(() => setBox(null), [query, Math.floor(start / 30), Math.floor(end / 30)]);

  const seen = useRef<{ query: string; ids: Set<string> }>({ query: "", ids: new Set() });
  const fresh = useMemo(() => {
    const ids = (answer.data?.traces ?? []).map((trace) => trace.traceID);
    const before = seen.current;
    const news = new Set(before.query === query && isLive ? ids.filter((id) => !before.ids.has(id)) : []);
    if (answer.data) seen.current = { query, ids: new Set(ids) };
    return news;
  }, [answer.data]);

  const run = (next: string) => {
    const text = next.trim();
    if (text === query) tick.value = Date.now();
    change({ q: text === EVERYTHING || text === "" ? null : text, limit: null });
  };
  const focusRow = (by: number) => {
    const rows = [...(list.current?.querySelectorAll<HTMLElement>("a.trace") ?? [])];
    const at = rows.indexOf(document.activeElement as HTMLElement);
    rows[Math.min(rows.length - 1, Math.max(0, at < 0 ? 0 : at + by))]?.focus();
  };
  useKeys("Traces", [
    { keys: "j / ArrowDown", does: "next trace", run: () => focusRow(1) },
    { keys: "k / ArrowUp", does: "trace before", run: () => focusRow(-1) },
    { keys: "l", does: "live on or off", run: () => change({ live: isLive ? null : 1 }, "replace") },
    { keys: "f", does: "filters", run: () => { setFacetsOpen(true); document.querySelector<HTMLElement>(".facets button")?.focus(); } },
  ]);
  const show = (at: Box) => {
    let next = withoutField(query, "duration");
    next = withCondition(withCondition(next, `duration > ${durationLiteral(at.low)}`), `duration < ${durationLiteral(at.high)}`);
    setBox(null);
    change({ q: next, since: null, from: at.from.toFixed(3), to: at.to.toFixed(3) });
  };
  const explain = (at: Box) =>
    go("explain", { ...keepRange(), q: query === EVERYTHING ? null : query, from: start.toFixed(0), to: end.toFixed(0), since: null, box: [at.from.toFixed(0), at.to.toFixed(0), durationLiteral(at.low), durationLiteral(at.high)].join(",") });

  const traces = answer.data?.traces ?? [];
  return (
    <div class={facetsOpen ? "traces facets-open" : "traces"}>
      <div class="controls">
        <QueryBox query={query} run={run} invalid={answer.error?.status === 400} />
        <button type="button" class="facets-toggle" aria-expanded={facetsOpen} onClick={() => setFacetsOpen(!facetsOpen)}>
          <Icon name="filter" /> Filters
        </button>
        <button type="button" class={isLive ? "live on" : "live"} aria-pressed={isLive} disabled={since === null} title={since === null ? "Live needs a range that ends now" : "Live (l)"} onClick={() => change({ live: isLive ? null : 1 }, "replace")}>
          <Icon name={isLive ? "pause" : "play"} />
          <span>{isLive ? "Pause" : "Live"}</span>
        </button>
      </div>
      <Pills query={query} run={run} />
      {answer.error && <Failure error={answer.error} what={answer.error.status === 400 ? "The query" : "The search failed"} retry={answer.reload} />}
      <Facets query={query} more={facets} setMore={(fields) => change({ facets: fields.join(",") || null }, "replace")} run={run} />
      <section class="found" aria-label="Traces">
        <div class="chart-head">
          <Tabs label="Chart" tabs={[["spans", "Matching spans"], ["traces", "Listed traces"]] as const} chosen={chart} choose={(tab) => change({ chart: tab === "spans" ? null : tab }, "replace")} />
          <small class="note">{box ? `${duration(box.low)} – ${duration(box.high)}, ${clock(box.from * 1000)} – ${clock(box.to * 1000)}` : "Draw a box to choose time and duration."}</small>
          {box && (
            <span class="box-actions">
              <button type="button" class="primary" onClick={() => show(box)}>Show these</button>
              <button type="button" onClick={() => explain(box)}>Explain the difference</button>
              <button type="button" class="quiet" onClick={() => setBox(null)} aria-label="Remove the box"><Icon name="close" /></button>
            </span>
          )}
        </div>
        {chart === "spans" ? (
          <Heatmap query={query} box={box} onBox={setBox} />
        ) : (
          <DurationChart from={start} to={end} cells={NO_CELLS} dots={dots(traces)} box={box} onBox={setBox} onDot={(id) => go(`trace/${id}`)} label={`Durations of ${traces.length} traces over time`} />
        )}
        <Summary answer={answer.data} took={answer.took} loading={answer.loading} limit={limit} />
        <div class={answer.loading && !isLive ? "results stale" : "results"} ref={list}>
          {!answer.data && answer.loading && <Waiting rows={10} />}
          {answer.data && traces.length === 0 && <NothingFound query={query} />}
          {traces.length > 0 && <TraceList traces={traces} fresh={fresh} />}
          {traces.length >= limit && limit < LIMIT_MAX && (
            <button type="button" class="more" onClick={() => change({ limit: Math.min(LIMIT_MAX, limit * 2) }, "replace")}>
              Show more
            </button>
          )}
        </div>
      </section>
    </div>
  );
}

const NO_CELLS: Cell[] = [];
const NO_DOTS: Dot[] = [];

function Pills({ query, run }: { query: string; run: (query: string) => void }) {
  const parts = conditions(query);
  if (parts.length === 0) return null;
  return (
    <ul class="pills" aria-label="Conditions">
      {parts.map((part) => (
        <li key={part}>
          <code class="clip">{part}</code>
          <button type="button" class="quiet" onClick={() => run(withoutCondition(query, part))} aria-label={`Remove ${part}`}>
            <Icon name="close" />
          </button>
        </li>
      ))}
      {parts.length > 1 && (
        <li class="clear">
          <button type="button" class="quiet" onClick={() => run(EVERYTHING)}>
            clear
          </button>
        </li>
      )}
    </ul>
  );
}

/** The buckets of `histogram_over_time` as cells: each holds what took up to its bound, and more than half of it. */
export function cellsOf(answer: SeriesAnswer | null, stepSeconds: number): Cell[] {
  const cells: Cell[] = [];
  for (const one of answer?.series ?? []) {
    const high = Number(label(one, "__bucket")) * 1e9;
    if (!(high > 0)) continue;
    for (const sample of one.samples ?? []) {
      if (!sample.value) continue;
      const to = Number(sample.timestampMs) / 1000;
      cells.push({ from: to - stepSeconds, to, low: high / 2, high, count: sample.value });
    }
  }
  return cells;
}

export function Heatmap({ query, box, onBox }: { query: string; box: Box | null; onBox: (box: Box | null) => void }) {
  const { start, end } = range.value;
  const seconds = step({ start, end }, COLUMNS);
  const asked = takesMetrics(query) ? `${query} | histogram_over_time(duration)` : null;
  const answer = useAnswer(asked === null ? null : `${asked} ${start} ${end}`, (signal) => series(asked ?? "", { start, end }, seconds, signal));
  const cells = useMemo(() => cellsOf(answer.data, seconds), [answer.data]);
  if (asked === null) return <p class="note chart-note">A query with a pipeline has no heatmap; the other tab shows its traces.</p>;
  if (answer.error && answer.error.status !== 400) return <Failure error={answer.error} what="No heatmap" retry={answer.reload} />;
  return (
    <>
      <DurationChart from={start} to={end} cells={cells} dots={NO_DOTS} box={box} onBox={onBox} onDot={() => undefined} label="Durations of matching spans over time" />
      {end - start > 24 * 3600 && <p class="note">The chart and the counts beside it are of the last 24 hours of this range.</p>}
    </>
  );
}

function dots(traces: FoundTrace[]): Dot[] {
  return traces.map((trace) => {
    const service = trace.rootServiceName ?? "";
    return {
      id: trace.traceID,
      at: Number(BigInt(trace.startTimeUnixNano ?? 0) / 1000n) / 1e6,
      nanos: (trace.durationMs ?? 0) * 1e6,
      colour: `--s${colourIndex(service)}`,
      error: errorsOf(trace) > 0,
      title: `${service} ${trace.rootTraceName ?? ""} ${duration((trace.durationMs ?? 0) * 1e6)}`,
    };
  });
}

const errorsOf = (trace: FoundTrace): number => Object.values(trace.serviceStats ?? {}).reduce((sum, one) => sum + (one.errorCount ?? 0), 0);
const spansOf = (trace: FoundTrace): number => Object.values(trace.serviceStats ?? {}).reduce((sum, one) => sum + one.spanCount, 0);

function Summary({ answer, took, loading, limit }: { answer: SearchAnswer | null; took: number; loading: boolean; limit: number }) {
  const found = answer?.traces?.length ?? 0;
  const inspected = Number(answer?.metrics?.inspectedBytes ?? 0);
  return (
    <p class="summary" role="status">
      {answer ? (
        <>
          <b>{count(found)}</b> {found === 1 ? "trace" : "traces"}, newest first
          {found >= limit ? ", there may be more" : ", these are all"}
          <small>
            {inspected > 0 && `${bytes(inspected)} read, `}
            {Math.round(took)} ms
          </small>
        </>
      ) : loading ? (
        "Searching …"
      ) : (
        ""
      )}
    </p>
  );
}

function NothingFound({ query }: { query: string }) {
  const { start, end } = range.value;
  const isWide = end - start >= 24 * 3600;
  return (
    <Empty title="No trace matches">
      <p>
        {query === EVERYTHING ? "Nothing was received in this time." : "Nothing in this time matches the query."}{" "}
        {!isWide && (
          <button type="button" class="linkish" onClick={() => change({ since: "24h", from: null, to: null })}>
            Look at the last 24 hours
          </button>
        )}
      </p>
      {query === EVERYTHING && (
        <p>
          <a href={href("home")}>How to send the first trace</a>
        </p>
      )}
    </Empty>
  );
}

function TraceList({ traces, fresh }: { traces: FoundTrace[]; fresh: Set<string> }) {
  const longest = traces.reduce((max, trace) => Math.max(max, trace.durationMs ?? 0), 1);
  return (
    <div class="list">
      <div class="row head" aria-hidden="true">
        <span>Time</span>
        <span>Trace</span>
        <span class="wide">Matching spans</span>
        <span class="wide">Services</span>
        <span class="number">Spans</span>
        <span class="number">Duration</span>
      </div>
      {traces.map((trace) => (
        <TraceRow key={trace.traceID} trace={trace} longest={longest} isNew={fresh.has(trace.traceID)} />
      ))}
    </div>
  );
}

function TraceRow({ trace, longest, isNew }: { trace: FoundTrace; longest: number; isNew: boolean }) {
  const service = trace.rootServiceName ?? "";
  const ms = Number(BigInt(trace.startTimeUnixNano ?? 0) / 1_000_000n);
  const errors = errorsOf(trace);
  const services = Object.entries(trace.serviceStats ?? {}).sort((a, b) => b[1].spanCount - a[1].spanCount);
  const nanos = (trace.durationMs ?? 0) * 1e6;
  return (
    <a class={`row trace${isNew ? " new" : ""}`} href={href(`trace/${trace.traceID}`)}>
      <time title={moment(ms)} dateTime={new Date(ms).toISOString()}>
        <span class="at">{clock(ms)}</span>
        <small>{ago(ms)}</small>
      </time>
      <span class="title">
        <ServiceDot service={service} />
        <span class="clip">
          <span class="root">{service === "<root span not yet received>" ? "root not received" : service || "root not received"}</span> <b>{trace.rootTraceName}</b>
        </span>
        {errors > 0 && (
          <span class="errors" title={`${errors} spans failed`}>
            <Icon name="error" />
            {count(errors)}
            <span class="offscreen"> errors</span>
          </span>
        )}
      </span>
      <span class="wide">
        <MiniWaterfall trace={trace} />
      </span>
      <span class="wide services">
        {services.slice(0, 5).map(([name, stats]) => (
          <i key={name} class="chip" title={`${name}: ${stats.spanCount} spans${stats.errorCount ? `, ${stats.errorCount} failed` : ""}`} style={{ "--c": colour(name) }}>
            {name}
          </i>
        ))}
        {services.length > 5 && <small>+{services.length - 5}</small>}
      </span>
      <span class="number">{count(spansOf(trace))}</span>
      <span class="number length">
        <i style={{ width: `${Math.max(1, Math.sqrt((trace.durationMs ?? 0) / longest) * 100)}%` }} />
        {nanos === 0 ? "<1ms" : duration(nanos)}
      </span>
    </a>
  );
}

function MiniWaterfall({ trace }: { trace: FoundTrace }) {
  const spans = (trace.spanSets ?? []).flatMap((set) => set.spans).slice(0, SPANS_DRAWN);
  const width = 150;
  const height = 22;
  const start = BigInt(trace.startTimeUnixNano ?? 0);
  const total = Math.max(1, (trace.durationMs ?? 0) * 1e6, ...spans.map((span) => Number(BigInt(span.startTimeUnixNano) - start) + Number(span.durationNanos ?? 0)));
  const each = Math.min(4, height / Math.max(1, spans.length));
  return (
    <svg class="mini" viewBox={`0 0 ${width} ${height}`} preserveAspectRatio="none" aria-hidden="true">
      {spans.map((span, i) => (
        <rect
          key={span.spanID + i}
          x={(Number(BigInt(span.startTimeUnixNano) - start) / total) * width}
          y={i * each}
          width={Math.max(1.5, (Number(span.durationNanos ?? 0) / total) * width)}
          height={Math.max(0.7, each - 0.5)}
          style={{ fill: attributeOf(span, "status") === "error" ? "var(--bad)" : colour(attributeOf(span, "service.name") || (trace.rootServiceName ?? "")) }}
        />
      ))}
    </svg>
  );
}

const attributeOf = (span: FoundSpan, key: string): string => valueText(span.attributes?.find((one) => one.key === key)?.value);
