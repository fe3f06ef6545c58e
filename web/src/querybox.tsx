// The TraceQL field, with names and values offered as they exist in the chosen range.
import type { TargetedEvent, TargetedKeyboardEvent } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { tags, values } from "./api";
import type { TagsAnswer } from "./api";
import { useAnswer } from "./hooks";
import { range } from "./range";
import { afterKey, attribute, completionAt, literal } from "./traceql";
import { Icon } from "./ui";

/** Shown at once; more typing finds the others. */
const OFFERED_MAX = 12;
/** Milliseconds of silence before the server is asked for values. */
const PAUSE_MS = 120;

/** Fields that every span has, most wanted first. */
const INTRINSICS = ["name", "status", "kind", "duration", "traceDuration", "rootName", "rootServiceName", "statusMessage", "nestedSetParent", "event:name", "instrumentation:name", "trace:id", "span:id"];
/** Values that need no question to the server. */
const FIXED: Record<string, [string, string][]> = {
  status: ["error", "ok", "unset"].map((word) => [word, "keyword"]),
  kind: ["server", "client", "internal", "producer", "consumer"].map((word) => [word, "keyword"]),
  duration: ["10ms", "100ms", "500ms", "1s", "5s"].map((word) => [word, "duration"]),
  traceDuration: ["100ms", "500ms", "1s", "10s"].map((word) => [word, "duration"]),
  nestedSetParent: [["-1", "int"]],
};

interface Offer {
  text: string;
  /** What replaces what was typed. */
  insert: string;
  note: string;
}

function names(answer: TagsAnswer | null): Offer[] {
  const offers: Offer[] = INTRINSICS.map((name) => ({ text: name, insert: `${name} `, note: "" }));
  for (const scope of answer?.scopes ?? []) {
    if (scope.name === "intrinsic") continue;
    for (const tag of scope.tags ?? []) {
      const text = attribute(scope.name, tag);
      offers.push({ text, insert: `${text} `, note: scope.name });
    }
  }
  return offers;
}

/** Names that begin with what was typed first, then those that contain it. */
function matching(offers: Offer[], typed: string): Offer[] {
  const wanted = typed.toLowerCase();
  const rank = ({ text }: Offer) => {
    const lower = text.toLowerCase();
    if (lower.startsWith(wanted)) return 0;
    const bare = lower.slice(lower.indexOf(".") + 1);
    return bare.startsWith(wanted) ? 1 : lower.includes(wanted) ? 2 : 3;
  };
  return offers
    .map((offer) => ({ offer, rank: rank(offer) }))
    .filter((one) => one.rank < 3)
    .sort((a, b) => a.rank - b.rank)
    .slice(0, OFFERED_MAX)
    .map((one) => one.offer);
}

export function QueryBox({ query, run, invalid }: { query: string; run: (query: string) => void; invalid: boolean }) {
  const [text, setText] = useState(query);
  const [caret, setCaret] = useState(0);
  const [open, setOpen] = useState(false);
  const [chosen, setChosen] = useState(-1);
  const [field, setField] = useState<string | null>(null);
  const input = useRef<HTMLInputElement>(null);
  useEffect(() => setText(query), [query]);
  /** Where the caret belongs once the text is drawn: before the next key, or it would land elsewhere. */
  const caretWanted = useRef<number | null>(null);
  useLayoutEffect(() => {
    if (caretWanted.current === null) return;
    input.current?.focus();
    input.current?.setSelectionRange(caretWanted.current, caretWanted.current);
    caretWanted.current = null;
  });

  const { start, end } = range.value;
  const hour = `${Math.floor(start / 60)}`;
  const known = useAnswer(open ? `tags ${hour}` : null, (signal) => tags({ start, end }, signal));
  const completion = useMemo(() => completionAt(text, caret), [text, caret]);
  useEffect(() => {
    if (completion.kind !== "value" || FIXED[completion.field]) return;
    const timer = setTimeout(() => setField(completion.field), PAUSE_MS);
    return () => clearTimeout(timer);
  }, [completion.kind, completion.field]);
  const found = useAnswer(open && field !== null ? `values ${field} ${hour}` : null, (signal) => values(field ?? "", { start, end }, undefined, signal));

  const offers = useMemo(() => {
    if (!open || completion.kind === "none") return [];
    if (completion.kind === "key") return matching(names(known.data), completion.typed);
    const fixed = FIXED[completion.field];
    const list = fixed ?? (completion.field === field ? (found.data?.tagValues ?? []).map((one) => [one.value, one.type] as [string, string]) : []);
    return matching(
      list.map(([value, type]) => ({ text: value === "" ? '""' : value, insert: `${literal(completion.field, value, type)} `, note: type === "keyword" ? "" : type })),
      completion.typed,
    );
  }, [open, completion, known.data, found.data, field]);

  const accept = (offer: Offer) => {
    const rest = text.slice(completion.to).replace(/^ /, "");
    const next = text.slice(0, completion.from) + offer.insert + rest;
    const at = completion.from + offer.insert.length;
    setText(next);
    setChosen(-1);
    setCaret(at);
    caretWanted.current = at;
  };
  const keys = (event: TargetedKeyboardEvent<HTMLInputElement>) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      if (offers.length === 0) return;
      event.preventDefault();
      const step = event.key === "ArrowDown" ? 1 : -1;
      setChosen((now) => (now + step + offers.length + 1) % (offers.length + 1) - (now === -1 && step === -1 ? 1 : 0));
    } else if (event.key === "Tab" && offers.length > 0 && !event.shiftKey && open) {
      event.preventDefault();
      accept(offers[Math.max(0, chosen)]!);
    } else if (event.key === "Enter") {
      event.preventDefault();
      const offer = offers[chosen];
      if (offer) accept(offer);
      else {
        setOpen(false);
        run(text);
      }
    } else if (event.key === "Escape") {
      if (open && offers.length > 0) setOpen(false);
      else input.current?.blur();
    }
  };
  const typed = (event: TargetedEvent<HTMLInputElement>) => {
    const field = event.currentTarget;
    const at = field.selectionStart ?? field.value.length;
    const next = afterKey(field.value, at, (event as unknown as InputEvent).data ?? "");
    if (next.text !== field.value) {
      // At once and not when it is drawn: the text may be the one of before, of which nothing would be drawn anew.
      field.value = next.text;
      field.setSelectionRange(next.caret, next.caret);
    }
    setText(next.text);
    setCaret(next.caret);
    setChosen(-1);
    setOpen(true);
  };
  const moved = () => setCaret(input.current?.selectionStart ?? 0);
  const listed = open && offers.length > 0;
  return (
    <form class="query" onSubmit={(event) => { event.preventDefault(); run(text); }}>
      <div class={invalid ? "field invalid" : "field"}>
        <input
          ref={input}
          data-search
          value={text}
          onInput={typed}
          onKeyDown={keys}
          onKeyUp={moved}
          onClick={() => { moved(); setOpen(true); }}
          onFocus={() => { moved(); setOpen(true); }}
          onBlur={() => setOpen(false)}
          role="combobox"
          aria-label="TraceQL"
          aria-expanded={listed}
          aria-controls="offers"
          aria-autocomplete="list"
          aria-activedescendant={chosen >= 0 ? `offer-${chosen}` : undefined}
          aria-invalid={invalid}
          spellcheck={false}
          autocomplete="off"
          autocapitalize="off"
          placeholder='{ resource.service.name = "shop" && status = error }'
        />
        <ul id="offers" role="listbox" aria-label="Completions" hidden={!listed}>
          {offers.map((offer, i) => (
            <li
              key={offer.text}
              id={`offer-${i}`}
              role="option"
              aria-selected={i === chosen}
              onPointerDown={(event) => { event.preventDefault(); accept(offer); }}
            >
              <span class="clip">{offer.text}</span>
              <small>{offer.note}</small>
            </li>
          ))}
        </ul>
      </div>
      <button type="submit" class="primary" aria-label="Search">
        <Icon name="search" />
        <span>Search</span>
      </button>
    </form>
  );
}
