// Where we are. Everything that a person would want to send to a colleague is in the URL.
import { signal } from "@preact/signals";

/** The path under which the UI is mounted; ends with a slash. Fixed at the start: `<base>` may be relative. */
export const root = new URL(document.baseURI).pathname;
document.querySelector("base")?.setAttribute("href", root);

/** Whether this is a page that was saved with a trace: there is no server to ask then. `saved/router.ts` says true. */
export const isSaved: boolean = false;

export interface Place {
  page: string;
  /** What follows the page in the path, such as a trace id. */
  id: string;
  parameters: URLSearchParams;
}

function read(): Place {
  const path = location.pathname.startsWith(root) ? location.pathname.slice(root.length) : "";
  const [page = "", id = ""] = path.split("/");
  return { page: page === "" ? "home" : page, id: decoded(id), parameters: new URLSearchParams(location.search) };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export const place = signal<Place>(read());
addEventListener("popstate", () => (place.value = read()));

export type Parameters = Record<string, string | number | null | undefined>;

/** A link; empty parameters are left out. */
export function href(page: string, parameters: Parameters = {}): string {
  const search = new URLSearchParams();
  for (const [key, value] of Object.entries(parameters)) {
    if (value !== null && value !== undefined && value !== "") search.set(key, String(value));
  }
  const text = search.toString();
  return root + (page === "home" ? "" : page) + (text ? `?${text}` : "");
}

export function go(page: string, parameters: Parameters = {}): void {
  history.pushState(null, "", href(page, parameters));
  place.value = read();
  scrollTo(0, 0);
}

/** Changes parameters of this page. `replace` where going back would be a nuisance. */
export function change(parameters: Parameters, how: "push" | "replace" = "push"): void {
  const { page, id, parameters: now } = place.value;
  const next: Parameters = { ...Object.fromEntries(now), ...parameters };
  const target = href(id ? `${page}/${encodeURIComponent(id)}` : page, next);
  if (target === location.pathname + location.search) return;
  if (how === "push") history.pushState(null, "", target);
  else history.replaceState(null, "", target);
  place.value = read();
}

export const parameter = (name: string): string => place.value.parameters.get(name) ?? "";

/** Follows links within the UI without loading the page anew. */
export function followLinks(event: MouseEvent): void {
  if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const link = (event.target as Element | null)?.closest?.("a[href]");
  if (!(link instanceof HTMLAnchorElement) || link.target || link.hasAttribute("download")) return;
  const url = new URL(link.href);
  if (url.origin !== location.origin || !url.pathname.startsWith(root)) return;
  if (/^(api|assets|status|metrics)(\/|$)/.test(url.pathname.slice(root.length))) return;
  event.preventDefault();
  history.pushState(null, "", url.href);
  place.value = read();
  scrollTo(0, 0);
}
