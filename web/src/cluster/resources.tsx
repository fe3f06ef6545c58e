// OpenTelemetryCollectors and Instrumentations: what Spanreel makes of them.
import { ago, count } from "../format";
import { Command, Empty } from "../ui";
import type { ClusterReport, Collector, Instrumentation } from "./report";

export function Resources({ report }: { report: ClusterReport }) {
  const { collectors, instrumentations, left_out: left } = report;
  if (collectors.length + instrumentations.length === 0) {
    return (
      <Empty title="There is neither a collector nor an Instrumentation">
        <p>None is needed: workloads that are annotated get the built-in one, and Spanreel receives by itself.</p>
      </Empty>
    );
  }
  return (
    <>
      {collectors.length > 0 && (
        <section>
          <h2>OpenTelemetryCollectors</h2>
          {collectors.map((one) => <CollectorLine key={`${one.namespace}/${one.name}`} of={one} />)}
          {left.collectors > 0 && <p class="note">{count(left.collectors)} more are not shown.</p>}
        </section>
      )}
      {instrumentations.length > 0 && (
        <section>
          <h2>Instrumentations</h2>
          {instrumentations.map((one) => <InstrumentationLine key={`${one.namespace}/${one.name}`} of={one} />)}
          {left.instrumentations > 0 && <p class="note">{count(left.instrumentations)} more are not shown.</p>}
        </section>
      )}
    </>
  );
}

function CollectorLine({ of: one }: { of: Collector }) {
  return (
    <div class="workload">
      <span class={`condition ${one.ready === true ? "good" : one.ready === false ? "bad" : ""}`}>{one.ready === true ? "ready" : one.ready === false ? "not ready" : "not known yet"}</span>
      <span>
        <b>{one.name}</b>
        <br />
        <small>
          {one.namespace}
          {one.since !== null && ` · ${ago(one.since * 1000)}`}
        </small>
      </span>
      <div>
        {one.reason && <code>{one.reason}</code>} <span class="lines">{one.message}</span>
        {one.ready === false && one.running && <p class="note">The configuration before runs on.</p>}
        {one.ports.length > 0 && <p class="note">{one.ports.map((port) => `${port.name} ${port.port}${port.udp ? "/udp" : ""}`).join(", ")}</p>}
        {one.fix && <Command what="the line that would change it" text={one.fix} />}
      </div>
    </div>
  );
}

function InstrumentationLine({ of: one }: { of: Instrumentation }) {
  return (
    <div class="workload">
      <span class={one.ok ? "condition good" : "condition bad"}>{one.ok ? "usable" : "refused"}</span>
      <span>
        <b>{one.name}</b>
        <br />
        <small>
          {one.namespace} · generation {one.generation}
        </small>
      </span>
      <div>
        <span class="lines">{one.message ?? "New pods are injected from it."}</span>
        {one.fix && <Command what="the line that would change it" text={one.fix} />}
      </div>
    </div>
  );
}
