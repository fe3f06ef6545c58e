import { get, status } from "../api";
import type { Status } from "../api";
import { root } from "../router";
import { ago, bytes, clock, coarse, count, percent } from "../format";
import { useAnswer, useInterval, useTitle } from "../hooks";
import { Empty, Failure, Waiting } from "../ui";
import { Strip } from "./home";

const LOOK_MS = 5_000;

export default function Health() {
  useTitle("Health");
  const state = useAnswer("status", status);
  const numbers = useAnswer("metrics", metrics);
  useInterval(() => {
    state.reload();
    numbers.reload();
  }, LOOK_MS);
  if (!state.data) return state.error ? <Failure error={state.error} what="No status" retry={state.reload} /> : <Waiting />;
  const now = state.data;
  return (
    <div class="stack">
      {state.error && <Failure error={state.error} what="These figures are old" retry={state.reload} />}
      <Strip status={now} />
      <section>
        <h2>Ledger</h2>
        <p class="note">Every span that was received is accounted for, also across restarts.</p>
        {now.pipelines.length === 0 && <Empty title="No pipeline" />}
        {now.pipelines.map((one) => (
          <Account key={one.pipeline} account={one} />
        ))}
        {now.spool.lost_to_damage > 0 && <p class="bad-text">{count(now.spool.lost_to_damage)} spans were lost to a damaged disk.</p>}
      </section>
      <Destinations status={now} />
      <section>
        <h2>Disk</h2>
        <div class="cards">
          <Gauge title="Spool" value={now.spool.bytes} max={now.spool.bytes_max} note={`${count(now.spool.batches)} batches, ${bytes(now.spool.raw_bytes)} before compression${now.spool.batches > 0 ? `; oldest ${coarse(now.spool.oldest_age_seconds)}` : ""}`} />
          <Store numbers={numbers.data} />
          <div class="card">
            <h2>Free on the disk</h2>
            <span class={now.spool.disk_full ? "big bad-text" : "big"}>{bytes(now.spool.disk_free_bytes)}</span>
            <p class="note">
              <code>{now.spool.directory}</code>
              {now.spool.disk_error && <b class="bad-text"> {now.spool.disk_error}</b>}
            </p>
          </div>
          <div class="card">
            <h2>Sync before each OK</h2>
            <span class="big">{(now.spool.sync_mean_micros / 1000).toFixed(1)} ms</span>
            <p class="note">
              mean of {count(now.spool.syncs)}, longest {(now.spool.sync_max_micros / 1000).toFixed(0)} ms
            </p>
          </div>
        </div>
      </section>
      {now.discarded.length > 0 && (
        <section>
          <h2>Taken and thrown away</h2>
          <p class="note">Metrics and logs are answered politely so that clients do not retry; Spanreel keeps traces.</p>
          <div class="table-wrap" tabIndex={0}>
            <table class="data">
              <thead>
                <tr>
                  <th scope="col"><span>Service</span></th>
                  <th scope="col"><span>Signal</span></th>
                  <th scope="col" class="number"><span>Requests</span></th>
                </tr>
              </thead>
              <tbody>
                {now.discarded.map((one) => (
                  <tr key={`${one.service} ${one.signal}`}>
                    <td>{one.service}</td>
                    <td>{one.signal}</td>
                    <td class="number">{count(one.requests)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        </section>
      )}
      <section>
        <h2>Process</h2>
        <div class="table-wrap" tabIndex={0}>
          <table class="data">
            <thead>
              <tr>
                <th scope="col"><span>Listens on</span></th>
                <th scope="col"><span>Receiver</span></th>
                <th scope="col"><span>Of</span></th>
              </tr>
            </thead>
            <tbody>
              {now.listeners.map((one) => (
                <tr key={one.address}>
                  <td><code>{one.address}</code></td>
                  <td>{one.receiver} {one.protocol}</td>
                  <td>{one.owner ?? "the configuration"}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
        <p class="note">
          Spanreel {now.version}, up {coarse(now.uptime_seconds)}, {bytes(now.resident_bytes)} of memory. All of this also in <a href={`${root}metrics`} target="_blank" rel="noreferrer">metrics</a> and by <code>spanreel status</code>.
        </p>
      </section>
    </div>
  );
}

const REASONS: Record<string, string> = { reclaimed: "given up by budget or age", sampled_out: "sampled out" };
const words = (reason: string): string => REASONS[reason] ?? reason.replace(/_/g, " ");

function Account({ account }: { account: Status["pipelines"][number] }) {
  const dropped = Object.entries(account.dropped).filter(([, spans]) => spans > 0);
  const all = Math.max(1, account.received);
  const parts: [string, number, string][] = [
    ["stored", account.stored, "var(--good)"],
    ["sampled_out", account.sampled_out, "var(--s12)"],
    ...dropped.map(([reason, spans]) => [reason, spans, "var(--bad)"] as [string, number, string]),
  ];
  const known = parts.reduce((sum, [, spans]) => sum + spans, 0);
  return (
    <div class="card">
      <h2>{account.pipeline}</h2>
      <p class="equation">
        <b>{count(account.received)}</b> received =
        {parts.filter(([reason, spans]) => spans > 0 || reason === "stored").map(([reason, spans], i) => (
          <span key={reason}>
            {i > 0 && "+ "}
            <b class={reason === "stored" || reason === "sampled_out" ? "" : "bad-text"}>{count(spans)}</b> {words(reason)}
          </span>
        ))}
        {known !== account.received && <small>({count(Math.abs(account.received - known))} on their way)</small>}
      </p>
      <div class="ledger" role="img" aria-label={parts.map(([reason, spans]) => `${percent(spans / all)} ${words(reason)}`).join(", ")}>
        {account.received > 0 && parts.filter(([, spans]) => spans > 0).map(([reason, spans, tone]) => <i key={reason} title={`${words(reason)}: ${count(spans)}`} style={{ width: `${(spans / all) * 100}%`, background: tone }} />)}
      </div>
      {(account.reclaimed ?? 0) > 0 && <p class="note">{count(account.reclaimed ?? 0)} of the stored left the spool before a destination had them.</p>}
    </div>
  );
}

function Destinations({ status }: { status: Status }) {
  return (
    <section>
      <h2>Destinations</h2>
      {status.destinations.length === 0 ? (
        <p class="note">None is configured: what is received is kept here.</p>
      ) : (
        <div class="table-wrap" tabIndex={0}>
          <table class="data">
            <thead>
              <tr>
                <th scope="col"><span>Destination</span></th>
                <th scope="col"><span>State</span></th>
                <th scope="col" class="number"><span>Sent</span></th>
                <th scope="col" class="number"><span>Queued</span></th>
                <th scope="col" class="number"><span>Given up</span></th>
                <th scope="col"><span>Last success</span></th>
              </tr>
            </thead>
            <tbody>
              {status.destinations.map((one) => {
                const lost = Object.entries(one.expired).filter(([, spans]) => spans > 0);
                const failing = one.last_error !== null && (one.last_success ?? 0) < one.last_error.at;
                return (
                  <tr key={`${one.destination} ${one.pipeline}`}>
                    <td>
                      {one.destination} <small>of {one.pipeline}</small>
                    </td>
                    <td>
                      <span class={one.configured ? (failing ? "condition bad" : "condition good") : "condition warn"}>{one.configured ? (one.state ?? "starting") : "not configured any more"}</span>
                      {failing && one.last_error && (
                        <div class="bad-text">
                          {one.last_error.text} <small>{ago(one.last_error.at * 1000)}</small>
                        </div>
                      )}
                    </td>
                    <td class="number">{count(one.sent)}</td>
                    <td class="number">{count(one.queued)}</td>
                    <td class="number">{lost.length === 0 ? "0" : <b class="bad-text">{lost.map(([reason, spans]) => `${count(spans)} ${words(reason)}`).join(", ")}</b>}</td>
                    <td>{one.last_success ? clock(one.last_success * 1000) : "never"}</td>
                  </tr>
                );
              })}
            </tbody>
          </table>
        </div>
      )}
    </section>
  );
}

function Gauge({ title, value, max, note }: { title: string; value: number; max: number; note: string }) {
  const share = max > 0 ? value / max : 0;
  return (
    <div class="card">
      <h2>{title}</h2>
      <span class="big">{bytes(value)}</span> <small>of {bytes(max)}</small>
      <div class={share > 0.95 ? "meter bad" : share > 0.8 ? "meter warn" : "meter"}>
        <i style={{ width: `${Math.min(100, share * 100)}%` }} />
      </div>
      <p class="note">{note}</p>
    </div>
  );
}

function Store({ numbers }: { numbers: Map<string, number> | null }) {
  if (!numbers) return null;
  const of = (name: string) => numbers.get(name) ?? 0;
  const raw = of("spanreel_store_sealed_raw_bytes_total");
  const written = of("spanreel_store_written_bytes_total") + of("spanreel_spool_written_bytes_total");
  const spans = of("spanreel_store_spans");
  const damaged = of("spanreel_store_damaged_runs");
  return (
    <div class="card">
      <h2>Store</h2>
      <span class="big">{bytes(of("spanreel_store_bytes"))}</span> <small>{count(spans)} spans</small>
      <p class="note">
        {spans > 0 && `${Math.round(of("spanreel_store_bytes") / spans)} bytes a span; `}
        {raw > 0 && `${(written / raw).toFixed(2)} bytes written per byte received since the start`}
      </p>
      {damaged > 0 && <p class="bad-text">{count(damaged)} runs are damaged: <code>spanreel verify</code> says where.</p>}
    </div>
  );
}

/** `/metrics` by name, labels summed up. */
async function metrics(signal: AbortSignal): Promise<Map<string, number>> {
  const answer = await fetch(`${root}metrics`, { signal });
  if (!answer.ok) return get("metrics", {}, signal);
  const found = new Map<string, number>();
  for (const line of (await answer.text()).split("\n")) {
    const match = /^([a-z_][\w:]*)(?:\{.*\})? ([-+.\deE]+)/i.exec(line);
    if (match) found.set(match[1]!, (found.get(match[1]!) ?? 0) + Number(match[2]));
  }
  return found;
}
