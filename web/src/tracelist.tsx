// Found traces as rows.
import { valueText } from "./api";
import type { FoundSpan, FoundTrace } from "./api";
import { colour } from "./colour";
import { ago, clock, count, duration, moment } from "./format";
import { href } from "./router";
import { Icon, ServiceDot } from "./ui";

/** Services named beside a trace; the others are counted. */
const CHIPS = 3;
/** Spans of a trace that are drawn beside it. */
export const SPANS_DRAWN = 24;

export const errorsOf = (trace: FoundTrace): number => Object.values(trace.serviceStats ?? {}).reduce((sum, one) => sum + (one.errorCount ?? 0), 0);
export const spansOf = (trace: FoundTrace | undefined): number => Object.values(trace?.serviceStats ?? {}).reduce((sum, one) => sum + one.spanCount, 0);

export function TraceList({ traces, fresh }: { traces: FoundTrace[]; fresh: Set<string> }) {
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
          <span class="root">{service === "<root span not yet received>" ? "root not received" : service || "no service name"}</span> <b>{trace.rootTraceName}</b>
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
        {services.slice(0, CHIPS).map(([name, stats]) => (
          <i key={name} class="chip" title={`${name}: ${stats.spanCount} spans${stats.errorCount ? `, ${stats.errorCount} failed` : ""}`} style={{ "--c": colour(name) }}>
            {name}
          </i>
        ))}
        {services.length > CHIPS && <small title={services.slice(CHIPS).map(([name]) => name).join(", ")}>+{services.length - CHIPS}</small>}
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
