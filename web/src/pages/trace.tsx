import { useMemo } from "preact/hooks";
import { ApiError, trace as askTrace } from "../api";
import { opened } from "../files";
import { useAnswer, useTitle } from "../hooks";
import { keepRange } from "../range";
import { href, parameter, place } from "../router";
import { byTrace, readTrace } from "../trace/read";
import { Shown } from "../trace/shown";
import { Empty, Failure, Icon, Waiting } from "../ui";

export default function TracePage() {
  const id = place.value.id;
  const file = parameter("file");
  const local = file !== "" && opened.value ? opened.value.traces.get(id === "none" ? "" : id) : undefined;
  const answer = useAnswer(local || file !== "" ? null : id, async (signal) => {
    const json = await askTrace(id, signal);
    try {
      return { json, spans: readTrace(json) };
    } catch (error) {
      throw new ApiError(200, `the answer cannot be read: ${(error as Error).message}`);
    }
  });
  // The same spans as long as the answer is the same: whatever else the address says, the trace is not made anew.
  const spans = useMemo(() => byTrace(answer.data?.spans ?? [])[0]?.[1] ?? [], [answer.data]);
  useTitle(`Trace ${id.slice(0, 8)}`);
  if (local) return <Shown key={`${file} ${id}`} id={id} spans={local} file={file} />;
  if (file !== "") {
    return (
      <Empty title="This trace came from a file">
        <p>
          A file stays in the page that it was opened in. Open or drop <b>{file}</b> here again.
        </p>
      </Empty>
    );
  }
  if (answer.error && answer.error.status !== 404) return <Failure error={answer.error} what="The trace cannot be shown" retry={answer.reload} />;
  if (!answer.data && !answer.error) return <Waiting rows={14} />;
  if (!answer.data || spans.length === 0) {
    return (
      <Empty title="No such trace here">
        <p>
          <code>{id}</code>
        </p>
        <p>It was never received, it was sampled out, or it is older than what is kept.</p>
        <button type="button" onClick={answer.reload}>
          <Icon name="reload" /> Look again
        </button>
        <a href={href("traces", keepRange())}>To the traces</a>
      </Empty>
    );
  }
  const partial = (answer.data.json as { status?: string; message?: string }).status === "PARTIAL" ? ((answer.data.json as { message?: string }).message ?? "part of it is missing") : "";
  return <Shown key={id} id={id} spans={spans} file="" partial={partial} reload={answer.reload} />;
}
