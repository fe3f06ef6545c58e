import { useMemo, useState } from "preact/hooks";
import { label, series } from "../api";
import type { SeriesAnswer } from "../api";
import { readBox, writeBox } from "../chart/box";
import type { Box } from "../chart/box";
import { clock, count, duration, durationLiteral, percent } from "../format";
import { useAnswer, useTitle } from "../hooks";
import { QueryBox } from "../querybox";
import { keepRange, range } from "../range";
import { change, href, parameter } from "../router";
import { condition, takesMetrics, withCondition } from "../traceql";
import { Empty, Failure, Icon, Waiting } from "../ui";
import { Heatmap } from "./traces";

/** Values of an attribute that are compared. */
const TOP = 12;
/** Shown of each attribute, and attributes at first. */
const VALUES_SHOWN = 4;
const ATTRIBUTES_SHOWN = 18;

interface Share {
  value: string;
  type: string;
  inside: number;
  outside: number;
}

export interface Difference {
  field: string;
  /** Between 0 and 1: how much of the selection would have to change to look like the rest. */
  distance: number;
  values: Share[];
  /** Shares of the spans that have the attribute at all. */
  on: { inside: number; outside: number };
}

/** What `compare()` answers, as differences, the largest first. */
export function differences(answer: SeriesAnswer): Difference[] {
  const fields = new Map<string, { values: Map<string, Share>; inside: number; outside: number }>();
  for (const one of answer.series ?? []) {
    const kind = label(one, "__meta_type");
    const pair = one.labels.find((candidate) => candidate.key !== "__meta_type" && candidate.key !== "__meta_error");
    if (!pair) continue;
    const spans = (one.samples ?? []).reduce((sum, sample) => sum + (sample.value ?? 0), 0);
    let field = fields.get(pair.key);
    if (!field) fields.set(pair.key, (field = { values: new Map(), inside: 0, outside: 0 }));
    if (kind === "selection_total") field.inside += spans;
    else if (kind === "baseline_total") field.outside += spans;
    else {
      const value = label(one, pair.key);
      const type = pair.value?.intValue !== undefined ? "int" : pair.value?.doubleValue !== undefined ? "float" : pair.value?.boolValue !== undefined ? "bool" : "string";
      let share = field.values.get(value);
      if (!share) field.values.set(value, (share = { value, type, inside: 0, outside: 0 }));
      if (kind === "selection") share.inside += spans;
      else if (kind === "baseline") share.outside += spans;
    }
  }
  const result: Difference[] = [];
  const most = Math.max(1, ...[...fields.values()].map((field) => field.inside));
  const mostOutside = Math.max(1, ...[...fields.values()].map((field) => field.outside));
  for (const [field, { values, inside, outside }] of fields) {
    // Ids have as many values as there are spans: they always differ and never explain.
    if (/(^|[.:])(id|ID)$|traceID|spanID|parentID|span:id|trace:id/.test(field)) continue;
    const list = [...values.values()].map((share) => ({ ...share, inside: share.inside / most, outside: share.outside / mostOutside }));
    let distance = list.reduce((sum, share) => sum + Math.abs(share.inside - share.outside), 0);
    distance += Math.abs((inside > 0 ? 1 - inside / most : 1) - (outside > 0 ? 1 - outside / mostOutside : 1));
    list.sort((a, b) => Math.abs(b.inside - b.outside) - Math.abs(a.inside - a.outside));
    result.push({ field, distance: Math.min(1, distance / 2), values: list, on: { inside: inside / most, outside: outside / mostOutside } });
  }
  return result.sort((a, b) => b.distance - a.distance);
}

export default function Explain() {
  useTitle("Explain");
  const query = parameter("q") || "{ }";
  const { start, end } = range.value;
  const box = readBox(parameter("box"));
  const [all, setAll] = useState(false);
  const [isRefused, setRefused] = useState(false);
  const selection = box ? `duration > ${durationLiteral(box.low)} && duration < ${durationLiteral(box.high)}` : "";
  const within = box ? `, ${Math.round(box.from * 1e9)}, ${Math.round(box.to * 1e9)}` : "";
  const asked = box && takesMetrics(query) ? `${query} | compare({ ${selection} }, ${TOP}${within})` : null;
  const answer = useAnswer(asked === null ? null : `${asked} ${start} ${end}`, (signal) => series(asked ?? "", { start, end }, Math.max(1, Math.ceil((end - start) / 2)), signal));
  const found = useMemo(() => (answer.data ? differences(answer.data) : []), [answer.data]);
  const shown = found.filter((one) => one.distance > 0.01).slice(0, all ? 200 : ATTRIBUTES_SHOWN);
  return (
    <div class="explain">
      <QueryBox query={query} run={(next) => change({ q: next.trim() === "{ }" ? null : next })} invalid={isRefused || answer.error?.status === 400} />
      <p class="note">Draw a box around what is odd. Every attribute is then ranked by how much the spans in the box differ from all others.</p>
      <Heatmap query={query} box={box} onBox={(next) => change({ box: next && writeBox(next) }, box ? "replace" : "push")} onRefused={setRefused} />
      {box && (
        <p class="filter-line">
          <b>
            {duration(box.low)} – {duration(box.high)}, {clock(box.from * 1000)} – {clock(box.to * 1000)}
          </b>
          <a href={tracesIn(box, query)}>These traces</a>
          <button type="button" class="quiet" onClick={() => change({ box: null })} aria-label="Remove the box">
            <Icon name="close" />
          </button>
          <span class="note">
            <i class="dot" style={{ background: "var(--s1)" }} /> in the box <i class="dot" style={{ background: "var(--s12)" }} /> all others
          </span>
        </p>
      )}
      {answer.error && !isRefused && <Failure error={answer.error} what="No comparison" retry={answer.reload} />}
      {answer.loading && !answer.data && box && <Waiting />}
      {answer.data && shown.length === 0 && <Empty title="The spans in the box do not differ from the others" />}
      {box && (
        <div class={answer.loading ? "differences stale" : "differences"}>
          {shown.map((one) => (
            <DifferenceCard key={one.field} difference={one} query={query} box={box} />
          ))}
        </div>
      )}
      {found.filter((one) => one.distance > 0.01).length > ATTRIBUTES_SHOWN && (
        <button type="button" onClick={() => setAll(!all)}>
          {all ? "Fewer" : `All ${count(found.length)} attributes`}
        </button>
      )}
    </div>
  );
}

/** The traces of a query that lie in a box. */
const tracesIn = (box: Box, query: string): string =>
  href("traces", {
    ...keepRange(),
    since: null,
    from: box.from.toFixed(3),
    to: box.to.toFixed(3),
    q: withCondition(withCondition(query, `duration > ${durationLiteral(box.low)}`), `duration < ${durationLiteral(box.high)}`),
  });

function DifferenceCard({ difference, query, box }: { difference: Difference; query: string; box: Box }) {
  const { field, distance, values, on } = difference;
  const filter = (share: Share, operator: "=" | "!=") => tracesIn(box, withCondition(query, condition(field, share.value, share.type, operator)));
  return (
    <div class="card difference">
      <h3>
        <span class="clip">{field}</span>
        <small title="How much the box differs from the rest">{percent(distance)}</small>
      </h3>
      {values.length === 0 && (
        <p class="note">
          On {percent(on.inside)} of the box and {percent(on.outside)} of all others; no value of it is frequent.
        </p>
      )}
      <ul>
        {values.slice(0, VALUES_SHOWN).map((share) => (
          <li key={share.value}>
            <div class="value-line">
              <span class="clip" title={share.value}>
                {share.value === "" ? "(empty)" : share.value}
              </span>
              <small>
                {percent(share.inside)} : {percent(share.outside)}
              </small>
              <a href={filter(share, "=")} title="Only these">only</a>
              <a href={filter(share, "!=")} title="Without these">not</a>
            </div>
            <div class="pair" aria-hidden="true">
              <i class="in" style={{ width: `${share.inside * 100}%` }} />
              <i class="out" style={{ width: `${share.outside * 100}%` }} />
            </div>
          </li>
        ))}
      </ul>
    </div>
  );
}
