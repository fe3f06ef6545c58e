import { useState } from "preact/hooks";
import { ApiError, get } from "../api";
import { ago, count } from "../format";
import { useAnswer, useTitle } from "../hooks";
import { change, parameter } from "../router";
import { Command, Empty, Failure, Icon, Waiting } from "../ui";

interface Decision {
  language: string;
  container: string | null;
  result: string;
  reason: string | null;
  message: string | null;
  instrumentation: { name: string } | null;
  agent_image: string | null;
  remedy: string | null;
}

interface Workload {
  kind: string;
  namespace: string;
  name: string;
  condition: string;
  why: string;
  remedy: string | null;
  asked: { language: string; annotation: string; value: string; where: string }[];
  decisions: Decision[];
  notes: string[];
  pods: number;
  pod_conditions: Record<string, number>;
  examples: Example[];
}

interface Example {
  name: string;
  condition: string;
  containers: { container: string | null; language: string | null; condition: string; why: string; remedy: string | null; life: { state: string; first_span: string | null; last_span: string | null } | null }[];
}

interface Report {
  webhook_registered: boolean;
  conditions: Record<string, number>;
  workloads: Workload[];
  left_out: { workloads: number; pods: number; not_asking: number };
  notes: string[];
}

/** From worst to best, as the report sorts. */
const TONES: Record<string, string> = {
  silent: "bad", stuck: "bad", refused: "bad", excluded: "warn", misplaced: "bad", misspelt: "bad", missed: "warn", refused_next: "warn",
  stale: "warn", unwanted: "warn", quiet: "", injected: "", started: "", ready: "", speaking: "good", not_asked: "",
};

const MEANINGS: Record<string, string> = {
  silent: "injected and running, and no span ever came",
  stuck: "injected, and it does not get to run",
  refused: "asked for and not injected",
  excluded: "in a namespace where nothing is injected",
  misplaced: "the annotation is on the workload instead of its pod template",
  misspelt: "the annotation names no language",
  missed: "not injected; a pod that came now would be",
  refused_next: "injected; a pod that came now would be refused",
  stale: "injected from an older generation",
  unwanted: "injected, and nothing asks for it any more",
  quiet: "it spoke before, and not lately",
  injected: "on its way: does not run yet",
  started: "runs; no span came yet",
  ready: "no pods; one that came would be injected",
  speaking: "a span came lately",
  not_asked: "nothing asks for it",
};

export default function Cluster() {
  useTitle("Cluster");
  const namespace = parameter("namespace");
  const condition = parameter("condition");
  const answer = useAnswer(`doctor ${namespace}`, (signal) => get<Report>("api/spanreel/doctor", { namespace: namespace || undefined }, signal));
  if (answer.error) {
    if (isNoCluster(answer.error)) {
      return (
        <Empty title="This Spanreel serves no cluster">
          <p>{answer.error.message}</p>
        </Empty>
      );
    }
    return <Failure error={answer.error} what="The cluster cannot be examined" retry={answer.reload} />;
  }
  if (!answer.data) return <Waiting rows={8} />;
  const { workloads, conditions, left_out: left, notes } = answer.data;
  const shown = condition ? workloads.filter((one) => one.condition === condition) : workloads;
  const namespaces = [...new Set([...workloads.map((one) => one.namespace), ...(namespace ? [namespace] : [])])].sort();
  return (
    <div class="stack">
      {!answer.data.webhook_registered && <p class="message warn">The API server does not ask this process about new pods: nothing is injected. See the log for why the webhook is not registered.</p>}
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
        <button type="button" class="quiet" onClick={answer.reload} aria-label="Examine again" title="Examine again">
          <Icon name="reload" />
        </button>
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
        Nothing here changes the cluster: the lines are for you to run.
      </p>
    </div>
  );
}

const isNoCluster = (error: ApiError): boolean => error.status === 404 && /serves no cluster/.test(error.message);
const words = (condition: string): string => condition.replace(/_/g, " ");

function Line({ workload }: { workload: Workload }) {
  const [open, setOpen] = useState(false);
  const remedy = workload.remedy;
  return (
    <div class="workload">
      <span>
        <span class={`condition ${TONES[workload.condition] ?? ""}`} title={MEANINGS[workload.condition]}>
          {words(workload.condition)}
        </span>
      </span>
      <span>
        <b>{workload.name}</b>
        <br />
        <small>
          {workload.namespace} · {workload.kind} · {count(workload.pods)} {workload.pods === 1 ? "pod" : "pods"}
        </small>
      </span>
      <div>
        {workload.why}
        {remedy && <Command what="the line that would change it" text={remedy} />}
        {workload.decisions.length + workload.notes.length + workload.asked.length + workload.examples.length > 0 && (
          <>
            <button type="button" class="linkish" aria-expanded={open} onClick={() => setOpen(!open)}>
              {open ? "less" : "why, and what a pod that came now would get"}
            </button>
            {open && (
              <ul>
                {workload.asked.map((one) => (
                  <li key={one.annotation} class="note">
                    asked by <code>{one.annotation}={one.value}</code> of the {one.where}
                  </li>
                ))}
                {workload.decisions.map((one, i) => (
                  <li key={i}>
                    <b>{one.language}</b> {one.container ? `in ${one.container}` : ""}: {one.result}
                    {one.reason && one.reason !== one.result ? ` (${one.reason})` : ""} {one.message}
                    {one.instrumentation && <small> from {one.instrumentation.name}</small>}
                    {one.agent_image && <small> <code>{one.agent_image}</code></small>}
                  </li>
                ))}
                {workload.examples.map((pod) => (
                  <li key={pod.name}>
                    pod <b>{pod.name}</b> <span class={`condition ${TONES[pod.condition] ?? ""}`}>{words(pod.condition)}</span>
                    {pod.containers.map((one, i) => (
                      <div key={i} class="note">
                        {one.language ?? "?"} in {one.container ?? "?"}: {one.why}
                        {one.life?.last_span && ` Last span ${ago(Date.parse(one.life.last_span))}.`}
                      </div>
                    ))}
                  </li>
                ))}
                {workload.notes.map((note) => <li key={note} class="note">{note}</li>)}
              </ul>
            )}
          </>
        )}
      </div>
    </div>
  );
}
