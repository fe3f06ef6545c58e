// What destinations refused for good: a list, and one of them in full. Sending again and dropping are lines to copy.
import { get } from "../api";
import { opened } from "../files";
import { bytes, count } from "../format";
import { useAnswer } from "../hooks";
import { change, go, parameter } from "../router";
import { byTrace, readTrace } from "../trace/read";
import { Command, CopyButton, Empty, Failure, Icon, Table, Waiting } from "../ui";

interface Letter {
  id: string;
  destination: string;
  pipeline: string;
  signal: string;
  items: number;
  bytes: number;
  answer: string;
}

/** Characters of a request that are shown. */
const REQUEST_CHARACTERS = 100_000;

export function Letters() {
  const id = parameter("letter");
  const answer = useAnswer("letters", (signal) => get<{ dead_letters: Letter[]; more: boolean }>("api/spanreel/dead-letters", {}, signal));
  if (answer.error) return <Failure error={answer.error} what="Dead letters cannot be listed" retry={answer.reload} />;
  if (!answer.data) return <Waiting />;
  const { dead_letters: letters, more } = answer.data;
  if (letters.length === 0) {
    return (
      <Empty title="No dead letters">
        <p>What a destination refuses for good, and no retry would change, would be kept and listed here.</p>
      </Empty>
    );
  }
  return (
    <section>
      <p class="note">
        Refused for good by a destination, and kept so that nothing is lost in silence. <code>spanreel dead-letters</code> sends them again or drops them.
        {more && " There are more than are listed."}
      </p>
      <Table columns={["Destination", "What", "#Size", "Its answer", "Id"]}>
        {letters.map((one) => (
          <tr key={one.id} aria-selected={one.id === id}>
            <td>
              {one.destination} <small>of {one.pipeline}</small>
            </td>
            <td>
              {count(one.items)} {one.signal !== "traces" ? one.signal : one.items === 1 ? "span" : "spans"}
            </td>
            <td class="number">{bytes(one.bytes)}</td>
            <td class="answer">{one.answer}</td>
            <td>
              <button type="button" class="linkish" aria-expanded={one.id === id} onClick={() => change({ letter: one.id === id ? null : one.id })}>
                <code>{one.id}</code>
              </button>
            </td>
          </tr>
        ))}
      </Table>
      {id !== "" && <Detail key={id} id={id} />}
    </section>
  );
}

function Detail({ id }: { id: string }) {
  const answer = useAnswer(`letter ${id}`, (signal) => get<Letter & { request: unknown }>("api/spanreel/dead-letters/show", { id }, signal));
  if (answer.error) return <Failure error={answer.error} what={`Dead letter ${id}`} retry={answer.reload} />;
  if (!answer.data) return <Waiting />;
  const letter = answer.data;
  const text = JSON.stringify(letter.request, null, 2);
  const show = () => {
    const traces = byTrace(readTrace(letter.request));
    const [first] = traces;
    if (!first) return;
    opened.value = { name: `dead letter ${id}`, traces: new Map(traces) };
    go(`trace/${first[0] || "none"}`, { file: `dead letter ${id}` });
  };
  return (
    <div class="card letter">
      <h2>
        <code>{letter.id}</code> for {letter.destination}
        <button type="button" class="quiet" onClick={() => change({ letter: null })} aria-label="Close">
          <Icon name="close" />
        </button>
      </h2>
      <p class="message">{letter.answer}</p>
      <Command what="the command" text={`spanreel dead-letters retry ${letter.id}`} />
      <Command what="the command" text={`spanreel dead-letters drop ${letter.id}`} />
      <p class="filter-line">
        {letter.signal === "traces" && (
          <button type="button" onClick={show}>
            Show as trace
          </button>
        )}
        <CopyButton text={text} label="Copy the request as OTLP JSON">
          OTLP JSON
        </CopyButton>
      </p>
      <pre class="raw" tabIndex={0}>
        {text.slice(0, REQUEST_CHARACTERS)}
        {text.length > REQUEST_CHARACTERS && `\n… ${count(text.length - REQUEST_CHARACTERS)} more characters`}
      </pre>
    </div>
  );
}
