// Pods that are not what they would be if they came now, and what a restart would change.
import { ago, count } from "../format";
import { Command, Empty } from "../ui";
import { MEANINGS, TONES, words } from "./report";
import type { CatchUp as Report } from "./report";

const MODES: Record<Report["mode"], string> = {
  report: "Spanreel only reports them (catch_up: report): the lines are for you to run.",
  restart: "Spanreel restarts them one after another, where nothing speaks against it (catch_up: restart).",
  off: "Spanreel does not look for them (catch_up: off).",
};

const RESTARTED = new Set(["deployment", "statefulset", "daemonset"]);
const EVIDENCE = { pod: "a pod of it with the same program runs without injection", revision: "an earlier revision with the same program ran without injection" };

export function CatchUp({ report }: { report: Report }) {
  const { workloads, crash_loops: loops } = report;
  return (
    <>
      <p class="note">
        {MODES[report.mode]} {report.at ? `Looked ${ago(Date.parse(report.at))}.` : report.mode === "off" ? "" : "It has not looked yet."}
        {report.unreadable > 0 && ` ${count(report.unreadable)} workloads could not be read.`}
        {report.pods_left_out > 0 && ` ${count(report.pods_left_out)} pods had no room.`}
      </p>
      {loops.map((one) => (
        <div key={`${one.namespace}/${one.kind}/${one.name}`} class="message">
          <b>
            {one.namespace}/{one.name}
          </b>{" "}
          crashes again and again since it is injected ({one.languages.join(", ")}): {EVIDENCE[one.evidence]}.
          <Command what="the command" text={`kubectl -n ${one.namespace} logs ${one.example} --previous`} />
        </div>
      ))}
      {workloads.length === 0 ? (
        <Empty title="Every pod is as it would be if it came now" />
      ) : (
        <div>
          {workloads.map((one) => (
            <div key={`${one.namespace}/${one.kind}/${one.name}`} class="workload">
              <span class={`condition ${TONES[one.state] ?? ""}`} title={MEANINGS[one.state]}>
                {words(one.state)}
              </span>
              <span>
                <b>{one.name}</b>
                <br />
                <small>
                  {one.namespace} · {one.kind} · {Object.entries(one.pods).map(([state, pods]) => `${count(pods)} ${words(state)}`).join(", ")}
                </small>
              </span>
              <div>
                {MEANINGS[one.state]}
                {one.instrumentations.length > 0 && <small> from {one.instrumentations.join(", ")}</small>}
                {one.waits && <p class="warn-text">It waits: {one.waits}</p>}
                {RESTARTED.has(one.kind.toLowerCase()) && <Command what="the command" text={`kubectl -n ${one.namespace} rollout restart ${one.kind.toLowerCase()}/${one.name}`} />}
              </div>
            </div>
          ))}
        </div>
      )}
    </>
  );
}
