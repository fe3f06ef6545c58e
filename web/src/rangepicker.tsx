import { useState } from "preact/hooks";
import { clock } from "./format";
import { useKeys } from "./keys";
import { PRESETS, range, tick } from "./range";
import { change } from "./router";
import { Empty, Icon, Modal } from "./ui";

export function setRange(start: number, end: number): void {
  change({ since: null, from: start.toFixed(3), to: end.toFixed(3) });
}

const DAY_SECONDS = 24 * 3600;

/** The way out of a time in which there is nothing; none where it is a day already. */
export function WiderRange() {
  const { start, end } = range.value;
  if (end - start >= DAY_SECONDS) return null;
  return (
    <button type="button" class="linkish" onClick={() => change({ since: "24h", from: null, to: null })}>
      Look at the last 24 hours
    </button>
  );
}

export function NothingThen({ title }: { title: string }) {
  return (
    <Empty title={title}>
      <p>
        <WiderRange />
      </p>
    </Empty>
  );
}

export function RangePicker() {
  const [custom, setCustom] = useState(false);
  const { start, end, since } = range.value;
  const since_ = since ?? "custom";
  const shift = (share: number) => {
    const length = end - start;
    setRange(start + length * share, end + length * share);
  };
  useKeys("Time", [
    { keys: "r", does: "load again", run: () => (tick.value = Date.now()) },
    { keys: "<", does: "earlier", run: () => shift(-0.5) },
    { keys: ">", does: "later", run: () => shift(0.5) },
  ]);
  const choose = (value: string) => {
    if (value === "custom") {
      setCustom(true);
      return;
    }
    tick.value = Date.now();
    change({ since: value, from: null, to: null });
  };
  return (
    <div class="range">
      <button type="button" class="quiet" onClick={() => shift(-0.5)} aria-label="Earlier">
        <Icon name="left" />
      </button>
      <select aria-label="Time range" value={since_} onChange={(event) => { choose(event.currentTarget.value); event.currentTarget.value = since_; }}>
        {PRESETS.map((preset) => (
          <option key={preset} value={preset}>
            last {preset}
          </option>
        ))}
        {since !== null && !PRESETS.includes(since as (typeof PRESETS)[number]) && <option value={since}>last {since}</option>}
        <option value="custom">{since === null ? `${clock(start * 1000)} – ${clock(end * 1000)}` : "from … to …"}</option>
      </select>
      {since === null && (
        <button type="button" class="quiet" onClick={() => setCustom(true)} aria-label="Change the range">
          <Icon name="clock" />
        </button>
      )}
      <button type="button" class="quiet" onClick={() => (tick.value = Date.now())} aria-label="Load again" title="Load again (r)">
        <Icon name="reload" />
      </button>
      {custom && <Custom onClose={() => setCustom(false)} />}
    </div>
  );
}

/** For `datetime-local`: local time without a zone. */
function local(seconds: number): string {
  const date = new Date(seconds * 1000);
  return new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}

function Custom({ onClose }: { onClose: () => void }) {
  const { start, end } = range.value;
  const [from, setFrom] = useState(local(start));
  const [to, setTo] = useState(local(end));
  const begin = new Date(from).getTime() / 1000;
  const finish = new Date(to).getTime() / 1000;
  const problem = !(begin > 0 && finish > 0) ? "Give both times." : finish <= begin ? "The end must be after the start." : finish - begin > 168 * 3600 ? "At most 7 days." : "";
  return (
    <Modal title="Time range" onClose={onClose}>
      <form
        class="custom-range"
        onSubmit={(event) => {
          event.preventDefault();
          if (problem) return;
          setRange(begin, finish);
          onClose();
        }}
      >
        <label>
          From
          <input type="datetime-local" step="1" value={from} onInput={(event) => setFrom(event.currentTarget.value)} />
        </label>
        <label>
          To
          <input type="datetime-local" step="1" value={to} onInput={(event) => setTo(event.currentTarget.value)} />
        </label>
        <p role="status">{problem}</p>
        <button type="submit" class="primary" disabled={problem !== ""}>
          Show
        </button>
      </form>
    </Modal>
  );
}
