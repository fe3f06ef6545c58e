import { health } from "../api";
import type { Health as State } from "../api";
import { bytes, coarse, count } from "../format";
import { Certificates } from "../health/certificates";
import { Configuration } from "../health/config";
import { Destinations } from "../health/destinations";
import { Disk } from "../health/disk";
import { Ledger } from "../health/ledger";
import { Letters } from "../health/letters";
import { Recent } from "../health/recent";
import { useAnswer, useInterval, useTitle } from "../hooks";
import { change, parameter, root } from "../router";
import { Failure, Table, Tabs, Waiting } from "../ui";
import { Strip } from "./home";

const LOOK_MS = 5_000;
type Tab = "overview" | "letters" | "recent" | "config";

export default function Health() {
  useTitle("Health");
  const state = useAnswer("health", health);
  useInterval(state.reload, LOOK_MS);
  if (!state.data) return state.error ? <Failure error={state.error} what="No status" retry={state.reload} /> : <Waiting />;
  const now = state.data;
  const letters = now.dead_letters.count;
  const recent = now.recent.entries.length;
  const tabs: [Tab, string][] = [
    ["overview", "Overview"],
    ["letters", `Dead letters${letters === null ? " (?)" : letters > 0 ? ` (${count(letters)}${now.dead_letters.more ? "+" : ""})` : ""}`],
    ["recent", `Warnings${recent > 0 ? ` (${count(recent)})` : ""}`],
    ["config", "Configuration"],
  ];
  const tab = tabs.find(([name]) => name === parameter("tab"))?.[0] ?? "overview";
  return (
    <div class="stack">
      {state.error && <Failure error={state.error} what="These figures are old" retry={state.reload} />}
      <Strip status={now} more={false} />
      <Tabs label="Health" tabs={tabs} chosen={tab} choose={(next) => change({ tab: next === "overview" ? null : next, letter: null, find: null, given: null })} />
      {tab === "overview" && (
        <>
          <Ledger now={now} />
          <Destinations now={now} />
          <Disk now={now} />
          <Certificates certificates={now.certificates} />
          <Discarded now={now} />
          <Process now={now} />
        </>
      )}
      {tab === "letters" && <Letters />}
      {tab === "recent" && <Recent recent={now.recent} />}
      {tab === "config" && <Configuration />}
    </div>
  );
}

function Discarded({ now }: { now: State }) {
  if (now.discarded.length === 0) return null;
  return (
    <section>
      <h2>Taken and thrown away</h2>
      <p class="note">Metrics and logs without a pipeline are answered politely so that clients do not retry.</p>
      <Table columns={["Service", "Signal", "#Requests"]}>
        {now.discarded.map((one) => (
          <tr key={`${one.service} ${one.signal}`}>
            <td>{one.service}</td>
            <td>{one.signal}</td>
            <td class="number">{count(one.requests)}</td>
          </tr>
        ))}
      </Table>
    </section>
  );
}

function Process({ now }: { now: State }) {
  return (
    <section>
      <h2>Process</h2>
      <Table columns={["Listens on", "Receiver", "Of"]}>
        {now.listeners.map((one) => (
          <tr key={one.address}>
            <td><code>{one.address}</code></td>
            <td>{one.receiver} {one.protocol}</td>
            <td>{one.owner ?? "the configuration"}</td>
          </tr>
        ))}
      </Table>
      <p class="note">
        Spanreel {now.version}, up {coarse(now.uptime_seconds)}, {bytes(now.resident_bytes)} of memory. All of this also in <a href={`${root}metrics`} target="_blank" rel="noreferrer">metrics</a> and by <code>spanreel status</code>.
      </p>
    </section>
  );
}
