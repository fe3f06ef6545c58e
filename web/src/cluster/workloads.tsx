// Each workload that asks for instrumentation: how far it came, why, and the line that changes it.
import { useState } from "preact/hooks";
import { ago, count } from "../format";
import { change, parameter } from "../router";
import { Command, Empty } from "../ui";
import { MEANINGS, STATIONS, TONES, reached, words } from "./report";
import type { Decision, Examination, Example, Workload } from "./report";

export function Workloads({ report }: { report: Examination }) {
  const namespace = parameter("namespace");
  const condition = parameter("condition");
  const { workloads, conditions, left_out: left, notes } = report;
  const shown = condition ? workloads.filter((one) => one.condition === condition) : workloads;
  const namespaces = [...new Set([...workloads.map((one) => one.namespace), ...(namespace ? [namespace] : [])])].sort();
  return (
    <>
      {!report.webhook_registered && <p class="message warn">The API server does not ask this process about new pods: nothing is injected. Health has the warnings that say why.</p>}
      <div class="filter-line">
        <select aria-label="Namespace" value={namespace} onChange={(event) => change({ namespace: event.currentTarget.value || null, condition: null })}>
          <option value="">all namespaces that ask</option>
          {namespaces.map((one) => <option key={one} value={one}>{one}</option>)}
        </select>
        {Object.keys(TONES).filter((one) => (conditions[one] ?? 0) > 0).map((one) => (
          <button key={one} type="button" aria-pressed={one === condition} title={MEANINGS[one]} onClick={() => change({ condition: one === condition ? null : one })}>
            {words(one)} {count(conditions[one] ?? 0)}
          </button>
        ))}
      </div>
      {notes.map((note) => <p key={note} class="note">{note}</p>)}
      {shown.length === 0 && (
        <Empty title="No workload asks for instrumentation">
          <p>Annotate the pod template of one; new pods of it are then instrumented:</p>
          <Command what="the annotation" text={'instrumentation.opentelemetry.io/inject-java: "true"'} />
        </Empty>
      )}
      <div>
        {shown.map((one) => <Line key={`${one.namespace}/${one.kind}/${one.name}`} workload={one} />)}
      </div>
      <p class="note">
        {left.not_asking > 0 && `${count(left.not_asking)} workloads ask for nothing. `}
        {left.workloads > 0 && `${count(left.workloads)} more are not shown: choose a namespace. `}
        {namespace === "" && "With a namespace chosen, single pods and their first spans are shown too. "}
        Nothing here changes the cluster: the lines are for you to run.
      </p>
    </>
  );
}

function Line({ workload }: { workload: Workload }) {
  const [open, setOpen] = useState(false);
  const { condition, remedy, pod_conditions: pods } = workload;
  const mixed = Object.entries(pods).filter(([one]) => one !== condition);
  const more = workload.notes.length + workload.asked.length + workload.examples.length;
  return (
    <div class="workload">
      <div>
        <span class={`condition ${TONES[condition] ?? ""}`} title={MEANINGS[condition]}>
          {words(condition)}
        </span>
        <LifeLine workload={workload} />
      </div>
      <span>
        <b>{workload.name}</b>
        <br />
        <small>
          {workload.namespace} · {workload.kind} · {count(workload.pods)} {workload.pods === 1 ? "pod" : "pods"}
          {mixed.length > 0 && `, of them ${mixed.map(([one, number]) => `${count(number)} ${words(one)}`).join(", ")}`}
        </small>
      </span>
      <div>
        {workload.why}
        {remedy && <Command what="the line that would change it" text={remedy} />}
        {workload.decisions.length > 0 && <Decisions decisions={workload.decisions.map((one) => standing(one, workload))} shownRemedy={remedy} />}
        {more > 0 && (
          <>
            <button type="button" class="linkish" aria-expanded={open} onClick={() => setOpen(!open)}>
              {open ? "less" : workload.examples.length > 0 ? "who asks, and its pods" : "who asks"}
            </button>
            {open && (
              <ul>
                {workload.asked.map((one) => (
                  <li key={one.annotation} class="note">
                    asked by <code>{one.annotation}={one.value}</code> of the {one.where}
                  </li>
                ))}
                {workload.examples.map((pod) => <Pod key={pod.name} pod={pod} />)}
                {workload.notes.map((note) => <li key={note} class="note">{note}</li>)}
              </ul>
            )}
          </>
        )}
      </div>
    </div>
  );
}

/** Asked, injected, started, speaking: how far it came. */
function LifeLine({ workload: { condition, examples } }: { workload: Workload }) {
  const speaks = examples.some((pod) => pod.containers.some((one) => one.life?.state === "speaking"));
  const { stations, stuck } = reached(condition, speaks);
  const next = STATIONS[stations];
  const text = stations === STATIONS.length ? "asked, injected, started, speaking" : `${stations > 0 ? STATIONS.slice(0, stations).join(", ") : "not asked"}${stuck && next ? `, not ${next}` : ""}`;
  return (
    <>
      <span class="life" role="img" aria-label={text} title={text}>
        {STATIONS.map((station, i) => (
          <i key={station} class={i < stations ? (condition === "quiet" && i === 3 ? "" : "done") : i === stations && stuck ? "stuck" : ""} />
        ))}
      </span>
      {stuck && next && <small aria-hidden="true">not {next}</small>}
    </>
  );
}

/** A pod that nothing makes anew is its own template: what it has is what was decided when it came, and no reason to act. */
function standing(decision: Decision, { examples }: Workload): Decision {
  if (decision.reason !== "already_instrumented") return decision;
  const of = examples.flatMap((pod) => pod.containers).find((one) => one.language === decision.language);
  return { ...decision, container: decision.container ?? of?.container ?? null, result: "injected", reason: null, remedy: null };
}

/** What a pod that came now would get, container by container. */
function Decisions({ decisions, shownRemedy }: { decisions: Decision[]; shownRemedy: string | null }) {
  return (
    <div class="decisions" role="table" aria-label="What a pod that came now would get">
      <div role="row">
        {["Language", "Container", "Decision", "Reason"].map((title) => <span key={title} role="columnheader">{title}</span>)}
      </div>
      {decisions.map((one, i) => (
        <div key={i} role="row">
          <span role="cell"><b>{one.language}</b></span>
          <span role="cell">{one.container ? <code>{one.container}</code> : <small>no container</small>}</span>
          <span role="cell" class={one.result === "injected" ? "good-text" : one.result === "refused" ? "bad-text" : "warn-text"}>{one.result}</span>
          <span role="cell">
            {one.reason && one.reason !== one.result ? `${words(one.reason)}${one.message ? ": " : ""}` : ""}
            {one.message}
            {one.instrumentation && <small> from {one.instrumentation.name}</small>}
            {one.agent_image && <small> <code>{one.agent_image}</code></small>}
            {one.remedy && one.remedy !== shownRemedy && <Command what="the line that would change it" text={one.remedy} />}
          </span>
        </div>
      ))}
    </div>
  );
}

function Pod({ pod }: { pod: Example }) {
  return (
    <li>
      pod <b>{pod.name}</b> <span class={`condition ${TONES[pod.condition] ?? ""}`}>{words(pod.condition)}</span>
      {pod.containers.map((one, i) => (
        <div key={i} class="note">
          {one.language ?? "?"} in {one.container ?? "?"}: {one.why}
          {one.life && ` (${[one.life.state, one.life.first_span && `first span ${ago(Date.parse(one.life.first_span))}`, one.life.last_span && `last ${ago(Date.parse(one.life.last_span))}`].filter(Boolean).join(", ")})`} {one.life?.likely_cause}
          {one.remedy && <Command what="the line that would change it" text={one.remedy} />}
        </div>
      ))}
    </li>
  );
}
