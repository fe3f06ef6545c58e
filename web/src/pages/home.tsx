import type { ComponentChildren } from "preact";
import { useMemo, useState } from "preact/hooks";
import { METRICS_SECONDS_MAX, status } from "../api";
import type { Status } from "../api";
import { ago, bytes, coarse, count, duration, percent, rate } from "../format";
import { useAnswer, useInterval, useTitle } from "../hooks";
import { keepRange, range, step, tick } from "../range";
import { NothingThen } from "../rangepicker";
import { change, href, parameter } from "../router";
import { ENTRIES, figures } from "../spanmetrics";
import type { Figures, ServiceFigures } from "../spanmetrics";
import { quote } from "../traceql";
import { Command, Failure, Service, Sparkline, Waiting } from "../ui";

/** How often the page looks again: with data, and while the first span is awaited. */
const LOOK_MS = 15_000;
const AWAIT_MS = 2_000;
const SAMPLES = 60;
/** Longer forecasts say more about today than about then. */
export const FORECAST_SECONDS_MAX = 365 * 86_400;

/** Rates are since the start: sooner, one burst would be taken for a day. */
export const RATE_SECONDS_MIN = 600;

/** When the spool reaches its budget, if things go on like this. */
export function forecast(seconds: number | null, uptimeSeconds: number): string {
  if (seconds === null) return "not filling up";
  if (uptimeSeconds < RATE_SECONDS_MIN) return "too early to say when the spool is full";
  return seconds > FORECAST_SECONDS_MAX ? "room for more than a year" : `the spool is full in about ${coarse(seconds)}`;
}

export default function Home() {
  useTitle("");
  const { start, end, since } = range.value;
  const state = useAnswer(`status ${tick.value}`, status);
  const received = state.data?.pipelines.reduce((sum, one) => sum + one.received, 0) ?? 0;
  const isEmpty = state.data !== null && received === 0;
  const seconds = step({ start, end }, SAMPLES);
  const answer = useAnswer(state.data === null ? null : `figures ${start} ${end} ${isEmpty}`, (signal) => figures({ start, end }, seconds, signal));
  // The ledger begins with the data directory: what it has not counted may still be there from elsewhere.
  const nothing = isEmpty && (answer.data?.services.length ?? 0) === 0;
  useInterval(() => (tick.value = Date.now()), since === null ? null : nothing ? AWAIT_MS : LOOK_MS);
  return (
    <div class="home">
      {state.error && <Failure error={state.error} what="No status" retry={state.reload} />}
      {state.data && <Strip status={state.data} />}
      {answer.error && <Failure error={answer.error} what="No figures" retry={answer.reload} />}
      {state.data && nothing && answer.data && <Guide status={state.data} />}
      {!nothing && answer.data && <Overview figures={answer.data} seconds={Math.min(end - start, METRICS_SECONDS_MAX)} />}
      {!answer.data && !answer.error && !state.error && <Waiting />}
    </div>
  );
}

export function Strip({ status, more = true }: { status: Status; more?: boolean }) {
  const { spool, destinations, life } = status;
  const disk = spool.disk_full || spool.disk_error !== null;
  const bad = destinations.filter((one) => one.configured && one.last_error && (one.last_success ?? 0) < one.last_error.at);
  const waiting = bad.reduce((sum, one) => sum + one.queued, 0);
  const asked = Number(life?.["workloads"] ?? 0);
  const silent = Number(life?.["workloads_silent"] ?? 0);
  const bare = Number(life?.["workloads_not_injected"] ?? 0);
  return (
    <div class="strip">
      <span>
        <i class={disk ? "lamp bad" : "lamp"} />
        {disk ? <b class="bad-text">{spool.disk_error ?? "The disk is full: nothing is taken in"}</b> : <b>Receiving</b>}
      </span>
      <span>
        <b>{bytes(spool.bytes)}</b> in the spool, <b>{bytes(spool.disk_free_bytes)}</b> free on the disk; {forecast(spool.full_in_seconds, status.uptime_seconds)}
      </span>
      {destinations.length === 0 ? (
        <span>Kept here, forwarded nowhere</span>
      ) : (
        <span>
          <i class={bad.length > 0 ? "lamp bad" : "lamp"} />
          {bad.length > 0 ? (
            <b class="bad-text">
              {bad.map((one) => one.destination).join(", ")} {waiting > 0 ? `does not take data; ${count(waiting)} spans wait` : "refused what came last"}
            </b>
          ) : (
            <>
              Forwarding to <b>{destinations.filter((one) => one.configured).length}</b>, {count(destinations.reduce((sum, one) => sum + one.queued, 0))} spans on their way
            </>
          )}
        </span>
      )}
      {life && (
        <a href={href("cluster")}>
          <b>{asked}</b> workloads asked, <b>{Number(life["workloads_speaking"] ?? 0)}</b> speaking, <b class={silent + bare > 0 ? "bad-text" : ""}>{silent + bare}</b> silent{silent + bare > 0 ? ": why" : ""}
        </a>
      )}
      {more && (
        <a class="sep" href={href("health")}>
          Health
        </a>
      )}
    </div>
  );
}

/** Rows drawn at first, and services from which on there is a field to filter them. */
const ROWS = 100;
const FILTER_FROM = 15;

const COLUMNS = ["service", "requests", "errors", "p50", "p95"] as const;
type Column = (typeof COLUMNS)[number];

function Overview({ figures, seconds }: { figures: Figures; seconds: number }) {
  const sort = COLUMNS.find((column) => column === parameter("sort")) ?? "requests";
  const all = parameter("all") === "1";
  const wanted = parameter("service").toLowerCase();
  const { services } = figures;
  const totals = useMemo(
    () => ({ requests: services.reduce((sum, one) => sum + one.requests, 0), failed: services.reduce((sum, one) => sum + one.failed, 0) }),
    [services],
  );
  const sorted = useMemo(() => {
    const by: Record<Column, (a: ServiceFigures, b: ServiceFigures) => number> = {
      service: (a, b) => a.service.localeCompare(b.service),
      requests: (a, b) => b.requests - a.requests,
      errors: (a, b) => b.failed / Math.max(1, b.requests) - a.failed / Math.max(1, a.requests),
      p50: (a, b) => b.p50 - a.p50,
      p95: (a, b) => b.p95 - a.p95,
    };
    return services.filter((one) => one.service.toLowerCase().includes(wanted)).sort(by[sort]);
  }, [services, sort, wanted]);
  if (services.length === 0) {
    return <NothingThen title="No requests in this time" />;
  }
  const slowest = services.reduce((worst, one) => (one.p95 > worst.p95 ? one : worst));
  const share = totals.failed / Math.max(1, totals.requests);
  const head = (column: Column, title: ComponentChildren, number = true, hide = false) => (
    <th scope="col" class={`${number ? "number" : ""}${hide ? " hide" : ""}`} aria-sort={sort === column ? "descending" : undefined}>
      <button type="button" onClick={() => change({ sort: column === "requests" ? null : column }, "replace")}>
        {title}
        {sort === column ? " ↓" : ""}
      </button>
    </th>
  );
  const traces = (service: string, more = "") => href("traces", { ...keepRange(), q: `{ resource.service.name = ${quote(service)}${more} }` });
  return (
    <>
      <div class="cards">
        <div class="card">
          <h2>Requests</h2>
          <span class="big">{rate(totals.requests / seconds)}</span> <small>per second</small>
          <Sparkline values={figures.rates} label="Requests over time" />
        </div>
        <div class="card">
          <h2>Errors</h2>
          <a href={href("traces", { ...keepRange(), q: `{ status = error && (${ENTRIES}) }` })} class={share > 0 ? "big bad-text" : "big"}>
            {percent(share)}
          </a>{" "}
          <small>
            {count(totals.failed)} of {count(totals.requests)}
          </small>
          <Sparkline values={figures.failures.length > 0 ? figures.failures : figures.rates.map(() => 0)} label="Failed requests over time" tone="bad" />
        </div>
        <div class="card">
          <h2>Slowest, p95</h2>
          <a class="big" href={traces(slowest.service, ` && duration >= ${Math.floor(slowest.p95 / 1e3)}us`)}>
            {duration(slowest.p95)}
          </a>{" "}
          <small>
            <Service service={slowest.service} />
          </small>
          <Sparkline values={figures.p95s} label="p95 of all requests over time" />
        </div>
      </div>
      {services.length >= FILTER_FROM && (
        <div class="filter-line">
          <input value={parameter("service")} onInput={(event) => change({ service: event.currentTarget.value || null }, "replace")} placeholder={`Filter ${count(services.length)} services`} aria-label="Filter services" data-search />
        </div>
      )}
      <div class="table-wrap" tabIndex={0}>
        <table class="data services-table">
          <thead>
            <tr>
              {head("service", "Service", false)}
              <th scope="col">
                <span class="long">Requests</span>
              </th>
              {head("requests", <span><span class="long">Per second</span><span class="short" aria-label="Per second">/s</span></span>)}
              {head("errors", "Errors")}
              {head("p50", "p50", true, true)}
              {head("p95", "p95")}
              <th scope="col" class="number hide">
                <span>Last seen</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {sorted.slice(0, all ? undefined : ROWS).map((one) => {
              const failed = one.failed / Math.max(1, one.requests);
              return (
                <tr key={one.service}>
                  <td>
                    <a href={traces(one.service)}>
                      <Service service={one.service} />
                    </a>
                  </td>
                  <td>
                    <Sparkline values={one.rates} label={`Requests of ${one.service} over time`} />
                  </td>
                  <td class="number">{rate(one.requests / seconds)}</td>
                  <td class="number">
                    {one.failed > 0 ? (
                      <a class="bad-text" href={traces(one.service, " && status = error")}>
                        {percent(failed)}
                      </a>
                    ) : (
                      "0%"
                    )}
                  </td>
                  <td class="number hide">{duration(one.p50)}</td>
                  <td class="number">{duration(one.p95)}</td>
                  <td class="number hide">{one.seen > 0 ? ago(one.seen) : "?"}</td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
      {sorted.length > ROWS && !all && (
        <button type="button" onClick={() => change({ all: 1 }, "replace")}>
          All {count(sorted.length)} services
        </button>
      )}
      <p class="note">Requests are server and consumer spans, and the roots of traces; their rates are means of the whole range. {seconds >= METRICS_SECONDS_MAX - 10 && "Figures are of the last 24 hours of the range at most."}</p>
    </>
  );
}

const port = (status: Status, protocol: string, fallback: string): string => status.listeners.find((one) => one.receiver === "otlp" && one.protocol === protocol)?.address.replace(/^.*:/, "") ?? fallback;

/** Languages that agents are injected for; for the others only the environment is set. */
const LANGUAGES = ["java", "nodejs", "python", "dotnet", "go", "sdk"] as const;

/** The line that has a workload instrumented, for the language and the workload that it is about. */
function Annotate() {
  const [language, setLanguage] = useState<string>("java");
  const [workload, setWorkload] = useState("");
  const [namespace, name] = /^([\w.-]+)\/([\w.-]+)$/.exec(workload.trim())?.slice(1) ?? ["NAMESPACE", "NAME"];
  const patch = JSON.stringify({ spec: { template: { metadata: { annotations: { [`instrumentation.opentelemetry.io/inject-${language}`]: "true" } } } } });
  return (
    <>
      <span class="filter-line">
        <select aria-label="Language" value={language} onChange={(event) => setLanguage(event.currentTarget.value)}>
          {LANGUAGES.map((one) => <option key={one} value={one}>{one}</option>)}
        </select>
        <input aria-label="Namespace and deployment" placeholder="namespace/deployment" value={workload} onInput={(event) => setWorkload(event.currentTarget.value)} spellcheck={false} />
      </span>
      <Command what="the command" text={`kubectl -n ${namespace} patch deployment ${name} -p \\\n  '${patch}'`} />
      <small>
        Its pods are made anew and speak. <a href={href("cluster")}>Cluster</a> shows how far each workload came. A whole namespace: <code>kubectl annotate namespace {namespace} instrumentation.opentelemetry.io/inject-{language}=true</code>; running pods need a restart then.
      </small>
    </>
  );
}

/** What to do for the first trace. The page looks every two seconds and changes by itself. */
function Guide({ status }: { status: Status }) {
  const host = location.hostname || "127.0.0.1";
  const http = port(status, "http", "4318");
  const grpc = port(status, "grpc", "4317");
  const isLoopback = status.listeners.length > 0 && status.listeners.every((one) => /^(127\.|\[::1\])/.test(one.address));
  const curl = useMemo(() => {
    const hex = (length: number) => Array.from(crypto.getRandomValues(new Uint8Array(length)), (byte) => byte.toString(16).padStart(2, "0")).join("");
    const span = `{"traceId":"${hex(16)}","spanId":"${hex(8)}","name":"hello","kind":2,"startTimeUnixNano":"'$(date +%s)'000000000","endTimeUnixNano":"'$(date +%s)'120000000"}`;
    return `curl http://${host}:${http}/v1/traces -H 'content-type: application/json' -d \\\n  '{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"first"}}]},\n    "scopeSpans":[{"spans":[${span}]}]}]}'`;
  }, [host, http]);
  return (
    <div class="guide">
      <h1>Waiting for the first trace</h1>
      <p class="listening" role="status">
        <i class="pulse" />
        Listening on {status.listeners.map((one) => one.address).join(", ") || "no port: no receiver is configured"}. This page changes by itself.
      </p>
      <ol>
        {status.life && (
          <li>
            <b>In this cluster: annotate a workload's pods.</b>
            <Annotate />
          </li>
        )}
        <li>
          <b>Send one span by hand.</b>
          <Command what="the command" text={curl} />
        </li>
        <li>
          <b>Or many, with the Collector's generator.</b>
          <Command what="the command" text={`telemetrygen traces --otlp-insecure --otlp-endpoint ${host}:${grpc} --traces 100`} />
        </li>
        <li>
          <b>Or point an instrumented program here.</b>
          <Command what="the variable" text={`OTEL_EXPORTER_OTLP_ENDPOINT=http://${host}:${grpc}`} />
          <small>
            Both ports take gRPC, protobuf and JSON.{isLoopback && host !== "127.0.0.1" && host !== "localhost" ? " At the moment they listen on loopback only: programs on other machines cannot reach them." : ""}
          </small>
        </li>
      </ol>
      <p class="note">
        Does a program send and nothing comes? <a href={href("health")}>Health</a> shows what arrived and why it was refused.
      </p>
    </div>
  );
}
