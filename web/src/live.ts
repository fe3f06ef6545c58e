// Traces as they arrive, by Server-Sent Events.
import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, address, answered } from "./api";
import type { FoundTrace } from "./api";

/** Rows that are kept; older ones are left to the search. */
const KEPT_MAX = 500;
/** Before a stream that broke off is opened anew, where the browser does not do so itself. */
const AGAIN_MS = 2_000;
/** A look that failed is made again each second; if nothing is said of it for so long, it succeeded and found nothing. */
const CALM_MS = 15_000;

export interface Live {
  /** The last to arrive first; each trace once, with its newest totals. */
  rows: FoundTrace[];
  /** Matching traces that were beyond the server's limit, and spans that came too fast to be looked at. */
  more: number;
  skippedSpans: number;
  /** Waiting also while the browser tries to reconnect. */
  state: "off" | "waiting" | "open";
  error: ApiError | null;
  retry: () => void;
}

interface Traces {
  traces: FoundTrace[];
  more: number;
  skippedSpans: number;
}

const NOTHING = { rows: [], more: 0, skippedSpans: 0, state: "off", error: null } as const satisfies Omit<Live, "retry">;

/**
 * Listens while `query` is not null. What lies there when the stream opens does not come: `onOpen` is the moment to search.
 * `spans` of each trace come along, as many as the search is asked for. A page that nobody sees does not listen: the server
 * has few streams, and what came meanwhile is found when it opens anew.
 */
export function useLive(query: string | null, limit: number, spans: number, onOpen: () => void): Live {
  const [state, setState] = useState<Omit<Live, "retry">>(NOTHING);
  const [again, setAgain] = useState(0);
  const opened = useRef(onOpen);
  opened.current = onOpen;
  useEffect(() => {
    if (query === null) {
      setState(NOTHING);
      return;
    }
    setState({ ...NOTHING, state: "waiting" });
    const url = address("ui/api/live", { q: query, limit, spss: spans });
    const reasons = new AbortController();
    let timer = 0;
    let calm = 0;
    let listening: EventSource | null = null;
    const listen = () => {
      const source = new EventSource(url);
      listening = source;
      source.onopen = () => {
        setState((now) => ({ ...now, state: "open", error: null }));
        opened.current();
      };
      source.onerror = () => {
        clearTimeout(calm);
        setState((now) => ({ ...now, state: "waiting" }));
        if (source.readyState !== EventSource.CLOSED) return;
        // The browser does not tell why it was refused; the same question does.
        answered(url, { signal: reasons.signal }).then(
          () => {
            reasons.abort();
            timer = window.setTimeout(() => setAgain((count) => count + 1), AGAIN_MS);
          },
          (problem: unknown) => {
            if (!reasons.signal.aborted && listening === source) setState((now) => ({ ...now, state: "off", error: problem instanceof ApiError ? problem : new ApiError(0, String(problem)) }));
          },
        );
      };
      source.addEventListener("traces", (event) => {
        const news = parsed<Traces>(event);
        if (!news) return;
        clearTimeout(calm);
        setState((now) => ({ ...now, error: null, rows: merged(news.traces, now.rows), more: now.more + news.more, skippedSpans: now.skippedSpans + news.skippedSpans }));
      });
      source.addEventListener("problem", (event) => {
        const message = parsed<{ message: string }>(event)?.message;
        if (!message) return;
        setState((now) => ({ ...now, error: new ApiError(503, message) }));
        clearTimeout(calm);
        calm = window.setTimeout(() => setState((now) => ({ ...now, error: null })), CALM_MS);
      });
    };
    const unlisten = () => {
      clearTimeout(calm);
      listening?.close();
      listening = null;
    };
    const seen = () => {
      unlisten();
      if (!document.hidden) listen();
      else setState((now) => ({ ...now, state: "waiting" }));
    };
    seen();
    document.addEventListener("visibilitychange", seen);
    return () => {
      document.removeEventListener("visibilitychange", seen);
      clearTimeout(timer);
      reasons.abort();
      unlisten();
    };
  }, [query, limit, spans, again]);
  return { ...state, retry: () => setAgain((count) => count + 1) };
}

function parsed<T>(event: Event): T | null {
  try {
    return JSON.parse((event as MessageEvent<string>).data) as T;
  } catch {
    return null;
  }
}

function merged(news: FoundTrace[], before: FoundTrace[]): FoundTrace[] {
  const ids = new Set(news.map((one) => one.traceID));
  return [...news, ...before.filter((one) => !ids.has(one.traceID))].slice(0, KEPT_MAX);
}
