// What was received and what became of it.
import type { Health } from "../api";
import { count, percent } from "../format";
import { Empty } from "../ui";

const REASONS: Record<string, string> = { reclaimed: "given up by budget or age", sampled_out: "sampled out" };
export const words = (reason: string): string => REASONS[reason] ?? reason.replace(/_/g, " ");

export function Ledger({ now }: { now: Health }) {
  return (
    <section>
      <h2>Ledger</h2>
      <p class="note">Every span that was received is accounted for, also across restarts.</p>
      {now.pipelines.length === 0 && <Empty title="No pipeline" />}
      <div class="stack">
        {now.pipelines.map((one) => (
          <Account key={one.pipeline} account={one} balance={now.ledger.find((balance) => balance.pipeline === one.pipeline)} />
        ))}
      </div>
      {now.spool.lost_to_damage > 0 && <p class="bad-text">{count(now.spool.lost_to_damage)} spans were lost to a damaged disk.</p>}
    </section>
  );
}

interface AccountProps {
  account: Health["pipelines"][number];
  balance: Health["ledger"][number] | undefined;
}

function Account({ account, balance }: AccountProps) {
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
      {balance?.destinations.map((one) => (
        <p key={one.destination} class="equation small">
          <b>{count(one.stored)}</b> stored for {one.destination} = <b>{count(one.sent)}</b> sent + <b>{count(one.queued)}</b> queued + <b class={one.expired > 0 ? "bad-text" : ""}>{count(one.expired)}</b> given up
          {one.difference !== 0 && <small>({count(Math.abs(one.difference))} on their way)</small>}
        </p>
      ))}
      {(account.reclaimed ?? 0) > 0 && <p class="note">{count(account.reclaimed ?? 0)} of the stored left the spool before a destination had them.</p>}
    </div>
  );
}
