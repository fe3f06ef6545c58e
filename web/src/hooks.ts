import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { ApiError } from "./api";

export interface Answer<T> {
  /** Kept while newer data are on their way. */
  data: T | null;
  error: ApiError | null;
  loading: boolean;
  /** Milliseconds that the last answer took. */
  took: number;
  reload: () => void;
}

/** Asks whenever `key` changes; the question before is cancelled. A null key asks nothing. */
export function useAnswer<T>(key: string | null, ask: (signal: AbortSignal) => Promise<T>): Answer<T> {
  const [state, setState] = useState<Omit<Answer<T>, "reload">>({ data: null, error: null, loading: key !== null, took: 0 });
  const [again, setAgain] = useState(0);
  const latest = useRef(ask);
  latest.current = ask;
  useEffect(() => {
    if (key === null) {
      setState({ data: null, error: null, loading: false, took: 0 });
      return;
    }
    const controller = new AbortController();
    const started = performance.now();
    setState((now) => ({ ...now, loading: true }));
    latest.current(controller.signal).then(
      (data) => {
        if (!controller.signal.aborted) setState({ data, error: null, loading: false, took: performance.now() - started });
      },
      (problem: unknown) => {
        if (controller.signal.aborted) return;
        const error = problem instanceof ApiError ? problem : new ApiError(0, problem instanceof Error ? problem.message : String(problem));
        setState((now) => ({ ...now, error, loading: false }));
      },
    );
    return () => controller.abort();
  }, [key, again]);
  const reload = useCallback(() => setAgain((count) => count + 1), []);
  return { ...state, reload };
}

/** Calls every `ms` while the page is visible. */
export function useInterval(call: () => void, ms: number | null): void {
  const latest = useRef(call);
  latest.current = call;
  useEffect(() => {
    if (ms === null) return;
    const timer = setInterval(() => {
      if (!document.hidden) latest.current();
    }, ms);
    return () => clearInterval(timer);
  }, [ms]);
}

/** The size of an element's box, as it changes. */
export function useSize<E extends HTMLElement>(): [(element: E | null) => void, { width: number; height: number }] {
  const [size, setSize] = useState({ width: 0, height: 0 });
  const observer = useRef<ResizeObserver | null>(null);
  const attach = useCallback((element: E | null) => {
    observer.current?.disconnect();
    observer.current = null;
    if (!element) return;
    const measure = () =>
      setSize((now) => (now.width === element.clientWidth && now.height === element.clientHeight ? now : { width: element.clientWidth, height: element.clientHeight }));
    measure();
    observer.current = new ResizeObserver(measure);
    observer.current.observe(element);
  }, []);
  return [attach, size];
}

const dark = matchMedia("(prefers-color-scheme: dark)");

/** Changes when the system turns light or dark: canvases must be drawn anew. */
export function useScheme(): string {
  const [scheme, setScheme] = useState(dark.matches ? "dark" : "light");
  useEffect(() => {
    const changed = () => setScheme(dark.matches ? "dark" : "light");
    dark.addEventListener("change", changed);
    return () => dark.removeEventListener("change", changed);
  }, []);
  return scheme;
}

export function useTitle(title: string): void {
  useEffect(() => {
    document.title = title ? `${title} · Spanreel` : "Spanreel";
  }, [title]);
}
