// What the matching spans have in common, with counts; a click includes or excludes a value.
import { useState } from "preact/hooks";
import { instant, label, tags } from "./api";
import type { SeriesAnswer } from "./api";
import { count, durationLiteral } from "./format";
import { useAnswer } from "./hooks";
import { range } from "./range";
import { attribute, condition, conditions, holds, takesMetrics, withCondition, withoutCondition, withoutField } from "./traceql";
import { Icon, ServiceDot } from "./ui";

/** Values asked for, and shown before "more" is clicked. */
const VALUES_MAX = 40;
const SHOWN = 7;
/** Facets open from the start: each costs a scan. */
const OPEN = new Set(["resource.service.name", "status", "name"]);

const FACETS: readonly (readonly [field: string, title: string])[] = [
  ["resource.service.name", "Service"],
  ["status", "Status"],
  ["name", "Operation"],
  ["kind", "Kind"],
  ["span.http.route", "Route"],
  ["span.http.response.status_code", "HTTP status"],
  ["span.db.system.name", "Database"],
  ["span.rpc.method", "RPC method"],
  ["span.messaging.destination.name", "Topic"],
  ["resource.k8s.namespace.name", "Namespace"],
  ["resource.k8s.deployment.name", "Deployment"],
  ["resource.k8s.statefulset.name", "StatefulSet"],
  ["resource.k8s.daemonset.name", "DaemonSet"],
  ["resource.k8s.job.name", "Job"],
  ["resource.k8s.pod.name", "Pod"],
  ["resource.k8s.node.name", "Node"],
  ["resource.service.version", "Version"],
];

interface Props {
  query: string;
  /** That the query is refused, or may be, the page says itself: each facet would say it again. */
  isRefused: boolean;
  /** Further attributes as facets. */
  more: string[];
  setMore: (fields: string[]) => void;
  run: (query: string) => void;
}

export function Facets({ query, isRefused, more, setMore, run }: Props) {
  const { start, end } = range.value;
  const known = useAnswer(`facets ${Math.floor(start / 60)} ${Math.floor(end / 60)}`, (signal) => tags({ start, end }, signal));
  const all: string[] = (known.data?.scopes ?? [])
    .filter((scope) => scope.name === "resource" || scope.name === "span")
    .flatMap((scope) => (scope.tags ?? []).map((tag) => attribute(scope.name, tag)));
  const exists = new Set(all);
  const shown = FACETS.filter(([field]) => !/^(span|resource)\./.test(field) || exists.has(field));
  const extra = more.filter((field) => !shown.some(([one]) => one === field));
  return (
    <aside class="facets" aria-label="Filters">
      <DurationFilter query={query} run={run} />
      {shown.map(([field, title]) => (
        <Facet key={field} field={field} title={title} query={query} isRefused={isRefused} run={run} />
      ))}
      {extra.map((field) => (
        <Facet key={field} field={field} title={field.replace(/^(span|resource)\./, "")} query={query} isRefused={isRefused} run={run} close={() => setMore(more.filter((one) => one !== field))} open />
      ))}
      <label class="more">
        <span>Any other attribute</span>
        <input
          list="attributes"
          placeholder="span.user.id"
          onChange={(event) => {
            const field = event.currentTarget.value.trim();
            event.currentTarget.value = "";
            if (/^(span|resource)\../.test(field) && !more.includes(field)) setMore([...more, field]);
          }}
        />
        <datalist id="attributes">{all.filter((field) => !shown.some(([one]) => one === field)).map((field) => <option key={field} value={field} />)}</datalist>
      </label>
    </aside>
  );
}

/** Nanoseconds of `250ms`; null if it is no duration. A bare number is milliseconds. */
function parsed(text: string): number | null {
  const match = /^\s*(\d+(?:\.\d+)?)\s*(ns|us|µs|ms|s|m|h|)\s*$/.exec(text);
  if (!match) return null;
  const units: Record<string, number> = { ns: 1, us: 1e3, "µs": 1e3, ms: 1e6, "": 1e6, s: 1e9, m: 60e9, h: 3600e9 };
  return Number(match[1]) * (units[match[2] ?? ""] ?? 1e6);
}

function DurationFilter({ query, run }: { query: string; run: (query: string) => void }) {
  const bound = (operator: string) => {
    const found = conditions(query).map((part) => new RegExp(`^duration\\s*${operator}=?\\s*([\\w.]+)$`).exec(part)).find(Boolean);
    return found?.[1] ?? "";
  };
  const set = (operator: ">" | "<", text: string) => {
    const other = operator === ">" ? bound("<") : bound(">");
    let next = withoutField(query, "duration");
    if (other) next = withCondition(next, `duration ${operator === ">" ? "<" : ">"} ${other}`);
    const nanos = parsed(text);
    if (nanos !== null) next = withCondition(next, `duration ${operator} ${durationLiteral(nanos)}`);
    if (next !== query) run(next);
  };
  return (
    <div class="duration-filter">
      <h3>Duration</h3>
      <label>
        <span>over</span>
        <input key={`>${bound(">")}`} defaultValue={bound(">")} placeholder="100ms" onChange={(event) => set(">", event.currentTarget.value)} />
      </label>
      <label>
        <span>under</span>
        <input key={`<${bound("<")}`} defaultValue={bound("<")} placeholder="2s" onChange={(event) => set("<", event.currentTarget.value)} />
      </label>
    </div>
  );
}

interface FacetProps {
  field: string;
  title: string;
  query: string;
  isRefused: boolean;
  run: (query: string) => void;
  open?: boolean;
  close?: () => void;
}

interface Value {
  text: string;
  type: string;
  spans: number;
}

function counted(answer: SeriesAnswer | null, field: string): Value[] {
  return (answer?.series ?? [])
    .map((series) => {
      const value = series.labels[0]?.value ?? {};
      const type = value.intValue !== undefined ? "int" : value.doubleValue !== undefined ? "float" : value.boolValue !== undefined ? "bool" : "string";
      return { text: label(series, field) || label(series, series.labels[0]?.key ?? ""), type, spans: series.value ?? 0 };
    })
    .filter((one) => !(one.text === "nil" && one.type === "string") && one.text !== "")
    .sort((a, b) => b.spans - a.spans);
}

function Facet({ field, title, query, isRefused, run, open = false, close }: FacetProps) {
  const active = conditions(query).some((part) => part.replace(/\s+/g, "").startsWith(`${field}=`) || part.replace(/\s+/g, "").startsWith(`${field}!=`));
  const [opened, setOpened] = useState(open || OPEN.has(field) || active);
  const [all, setAll] = useState(false);
  const { start, end } = range.value;
  // Of what the other conditions leave, so that another value can be chosen.
  const base = withoutField(query, field);
  const asked = takesMetrics(base) ? `${base} | count_over_time() by (${field}) | topk(${VALUES_MAX})` : null;
  const answer = useAnswer(opened && asked !== null ? `${asked} ${start} ${end}` : null, (signal) => instant(asked ?? "", { start, end }, signal));
  const values = counted(answer.data, field);
  const most = values[0]?.spans ?? 1;
  const toggle = (value: Value, operator: "=" | "!=") => {
    const wanted = condition(field, value.text, value.type, operator);
    if (holds(query, wanted)) run(withoutCondition(query, wanted));
    else run(withCondition(operator === "=" ? withoutField(query, field) : withoutCondition(query, condition(field, value.text, value.type)), wanted));
  };
  return (
    <section class="facet" data-facet={field}>
      <h3>
        <button type="button" aria-expanded={opened} onClick={() => setOpened(!opened)}>
          <Icon name={opened ? "down" : "right"} />
          <span class="clip">{title}</span>
        </button>
        {close && (
          <button type="button" class="quiet" onClick={close} aria-label={`Remove ${title}`}>
            <Icon name="close" />
          </button>
        )}
      </h3>
      {opened && (
        <>
          {answer.error && !(isRefused && answer.error.status === 400) && (
            <p class="note" role="alert">
              {answer.error.message}{" "}
              <button type="button" class="linkish" onClick={answer.reload}>
                Try again
              </button>
            </p>
          )}
          {asked === null && <p class="note">No counts behind a pipeline.</p>}
          {answer.data && values.length === 0 && <p class="note">None.</p>}
          <ul class={answer.loading ? "stale" : ""}>
            {values.slice(0, all ? VALUES_MAX : SHOWN).map((value) => {
              const included = holds(query, condition(field, value.text, value.type));
              const excluded = holds(query, condition(field, value.text, value.type, "!="));
              return (
                <li key={value.text} class={included ? "included" : excluded ? "excluded" : ""}>
                  <button type="button" class="value" aria-pressed={included} onClick={() => toggle(value, "=")} title={value.text}>
                    <i class="share" style={{ width: `${(value.spans / most) * 100}%` }} />
                    {field === "resource.service.name" && <ServiceDot service={value.text} />}
                    {field === "status" && value.text === "error" && <i class="dot bad" />}
                    <span class="clip">{value.text}</span>
                    <small>{count(value.spans)}</small>
                  </button>
                  <button type="button" class="quiet" aria-pressed={excluded} onClick={() => toggle(value, "!=")} aria-label={`Exclude ${value.text}`} title="Exclude">
                    <Icon name="minus" />
                  </button>
                </li>
              );
            })}
          </ul>
          {all && values.length >= VALUES_MAX && <p class="note">The {VALUES_MAX} most frequent; write the query for others.</p>}
          {values.length > SHOWN && (
            <button type="button" class="quiet all" onClick={() => setAll(!all)}>
              {all ? "fewer" : `${values.length - SHOWN} more${values.length >= VALUES_MAX ? " of many" : ""}`}
            </button>
          )}
        </>
      )}
    </section>
  );
}
