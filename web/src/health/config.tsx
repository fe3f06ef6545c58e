// The configuration in force, with where each value comes from.
import { useMemo } from "preact/hooks";
import { get } from "../api";
import { download } from "../files";
import { count } from "../format";
import { useAnswer } from "../hooks";
import { change, parameter } from "../router";
import { CopyButton, Empty, Failure, Icon, Table, Waiting } from "../ui";

interface Config {
  /** As `spanreel print-config` prints it. */
  yaml: string;
  values: Value[];
  built_in: boolean;
  /** Sections that were changed, and hold as they are shown only after a restart. */
  after_restart?: string[];
}

interface Value {
  path: string[];
  value: unknown;
  /** Null: nobody wrote it, it is the default. */
  origin: string | null;
}

export function Configuration() {
  const answer = useAnswer("config", (signal) => get<Config>("ui/api/config", {}, signal));
  const find = parameter("find");
  const onlyGiven = parameter("given") === "1";
  const values = answer.data?.values;
  const shown = useMemo(() => {
    const text = find.trim().toLowerCase();
    return (values ?? []).filter((one) => (!onlyGiven || one.origin !== null) && (text === "" || `${one.path.join("::")} ${written(one.value)}`.toLowerCase().includes(text)));
  }, [values, find, onlyGiven]);
  if (answer.error) return <Failure error={answer.error} what="The configuration cannot be shown" retry={answer.reload} />;
  if (!answer.data) return <Waiting />;
  const { yaml, built_in, after_restart: waiting = [] } = answer.data;
  return (
    <section>
      <div class="filter-line">
        <input data-search value={find} onInput={(event) => change({ find: event.currentTarget.value || null }, "replace")} placeholder={`Filter ${count(values?.length ?? 0)} values`} aria-label="Filter values" spellcheck={false} />
        <button type="button" aria-pressed={onlyGiven} onClick={() => change({ given: onlyGiven ? null : 1 }, "replace")}>
          Only what was set
        </button>
        <CopyButton text={yaml} label="Copy all as YAML">YAML</CopyButton>
        <button type="button" class="quiet" onClick={() => download("spanreel.yaml", yaml, "application/yaml")} aria-label="Download as YAML" title="Download as YAML">
          <Icon name="download" />
        </button>
      </div>
      <p class="note">Values in force, defaults included; secrets are left out.{built_in && " No file was given: this is the built-in configuration."}</p>
      {waiting.length > 0 && <p class="message warn">Shown as it will be after a restart: {waiting.join(", ")}.</p>}
      {shown.length === 0 && <Empty title="Nothing of this name" />}
      {shown.length > 0 && (
        <Table columns={["Setting", "Value", "From"]} name="config">
          {shown.map((one) => (
            <tr key={one.path.join("::")} class={one.origin === null ? "default" : undefined}>
              <td>
                <code>
                  {one.path.slice(0, -1).map((part) => `${part}::`)}
                  <b>{one.path.at(-1)}</b>
                </code>
              </td>
              <td>
                <code>{written(one.value)}</code>
              </td>
              <td>{one.origin === null ? <small>default</small> : <code>{one.origin}</code>}</td>
            </tr>
          ))}
        </Table>
      )}
    </section>
  );
}

const written = (value: unknown): string => (typeof value === "string" ? value : JSON.stringify(value));
