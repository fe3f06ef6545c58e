// What the process warned of lately.
import type { Health } from "../api";
import { ago, clock, count, moment, visible } from "../format";
import { Empty } from "../ui";

export function Recent({ recent }: { recent: Health["recent"] }) {
  const since = `since ${clock(recent.since * 1000)}`;
  if (recent.entries.length === 0) return <Empty title={`Neither warning nor error ${since}`} />;
  return (
    <section>
      <p class="note">
        Warnings and errors {since}, the newest first; what was said again is one line.{recent.dropped > 0 && ` ${count(recent.dropped)} older ones had no room.`}
      </p>
      <ul class="recent">
        {recent.entries.map((one, i) => (
          <li key={i}>
            <span class={one.level === "ERROR" ? "condition bad" : "condition warn"}>{one.level.toLowerCase()}</span>
            <div>
              <b>{visible(one.message)}</b>
              <code>
                {Object.entries(one.fields).map(([key, value]) => (
                  <span key={key}>
                    <i>{key}</i>={visible(typeof value === "string" ? value : JSON.stringify(value))}
                  </span>
                ))}
              </code>
              <small>{one.target}</small>
            </div>
            <time title={moment(one.at * 1000)}>
              {ago(one.at * 1000)}
              {one.count > 1 && <small>{count(one.count)} times, first {ago(one.first_at * 1000)}</small>}
            </time>
          </li>
        ))}
      </ul>
    </section>
  );
}
