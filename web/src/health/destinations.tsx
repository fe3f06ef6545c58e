import type { Destination, Health } from "../api";
import { ago, clock, coarse, count } from "../format";
import { change } from "../router";
import { words } from "./ledger";

export function Destinations({ now }: { now: Health }) {
  return (
    <section>
      <h2>Destinations</h2>
      {now.destinations.length === 0 ? (
        <p class="note">None is configured: what is received is kept here.</p>
      ) : (
        <div class="table-wrap" tabIndex={0}>
          <table class="data">
            <thead>
              <tr>
                <th scope="col"><span>Destination</span></th>
                <th scope="col"><span>State</span></th>
                <th scope="col" class="number"><span>Sent</span></th>
                <th scope="col" class="number"><span>Waiting</span></th>
                <th scope="col" class="number"><span>Oldest</span></th>
                <th scope="col" class="number"><span>Given up</span></th>
                <th scope="col" class="number"><span>Refused</span></th>
                <th scope="col"><span>Last success</span></th>
              </tr>
            </thead>
            <tbody>
              {now.destinations.map((one) => (
                <Line key={`${one.destination} ${one.pipeline}`} of={one} />
              ))}
            </tbody>
          </table>
        </div>
      )}
    </section>
  );
}

function Line({ of: one }: { of: Destination }) {
  const lost = Object.entries(one.expired).filter(([, spans]) => spans > 0);
  const failing = one.last_error !== null && (one.last_success ?? 0) < one.last_error.at;
  const letters = one.dead_letters === undefined ? 0 : one.dead_letters;
  return (
    <tr>
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
