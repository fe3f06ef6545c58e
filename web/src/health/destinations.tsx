import type { Destination, Health } from "../api";
import { ago, bytes, clock, coarse, count } from "../format";
import { change } from "../router";
import { Table } from "../ui";
import { words } from "./ledger";

export function Destinations({ now }: { now: Health }) {
  return (
    <section>
      <h2>Destinations</h2>
      {now.destinations.length === 0 ? (
        <p class="note">None is configured: what is received is kept here.</p>
      ) : (
        <Table columns={["Destination", "State", "#Sent", "#Waiting", "#In the spool", "#Oldest", "#Given up", "#Refused", "Last success"]}>
          {now.destinations.map((one) => (
            <Line key={`${one.destination} ${one.pipeline}`} of={one} />
          ))}
        </Table>
      )}
    </section>
  );
}

function Line({ of: one }: { of: Destination }) {
  const lost = Object.entries(one.expired).filter(([, spans]) => spans > 0);
  const failing = one.last_error !== null && (one.last_success ?? 0) < one.last_error.at;
  // A state that names the last error need not, as it stands below with its time.
  const error = failing && one.last_error ? one.last_error.text : "";
  const named = one.state ?? "starting";
  const state = error !== "" && named.endsWith(`: ${error}`) ? named.slice(0, -error.length - 2) : named;
  const letters = one.dead_letters === undefined ? 0 : one.dead_letters;
  return (
    <tr>
      <td>
        {one.destination} <small>of {one.pipeline}</small>
      </td>
      <td class="state">
        <span class={one.configured ? (failing ? "condition bad" : "condition good") : "condition warn"}>{one.configured ? state : "not configured any more"}</span>
        {failing && one.last_error && (
          <div class="bad-text">
            {one.last_error.text} <small>{ago(one.last_error.at * 1000)}</small>
          </div>
        )}
      </td>
      <td class="number">{count(one.sent)}</td>
      <td class="number">{count(one.queued)}</td>
      <td class="number">
        {one.queued === 0 ? (
          "–"
        ) : (
          <span title="From the oldest that waits to the end of the spool, other pipelines' batches in between included">
            {bytes(one.waiting_bytes ?? 0)} <small>in {count(one.waiting_batches ?? 0)} {one.waiting_batches === 1 ? "batch" : "batches"}</small>
          </span>
        )}
      </td>
      <td class="number">{one.oldest_waiting_age_seconds == null ? "–" : coarse(one.oldest_waiting_age_seconds)}</td>
      <td class="number">{lost.length === 0 ? "0" : <b class="bad-text">{lost.map(([reason, spans]) => `${count(spans)} ${words(reason)}`).join(", ")}</b>}</td>
      <td class="number">
        {letters === null ? (
          <span title="They could not be counted">?</span>
        ) : letters === 0 ? (
          "0"
        ) : (
          <button type="button" class="linkish bad-text" onClick={() => change({ tab: "letters" })}>
            {count(letters)}
          </button>
        )}
      </td>
      <td>{one.last_success ? clock(one.last_success * 1000) : "never"}</td>
    </tr>
  );
}
