// The router of a page that was saved with a trace. It takes the place of `router.ts` when that page is built: state is
// behind the `#` of the address, as a file has nothing else, and no link leads to a server.
import { signal } from "@preact/signals";
import type { Parameters, Place } from "../router";

export const isSaved: boolean = true;
export const root = "";

const read = (): Place => ({ page: "trace", id: "", parameters: new URLSearchParams(location.hash.slice(1)) });

export const place = signal<Place>(read());
addEventListener("hashchange", () => (place.value = read()));

export const href = (_page: string, parameters: Parameters = {}): string => `#${written(parameters)}`;

export function go(_page: string, parameters: Parameters = {}): void {
  location.hash = written(parameters);
}

export function change(parameters: Parameters, how: "push" | "replace" = "push"): void {
  const target = `#${written({ ...Object.fromEntries(place.value.parameters), ...parameters })}`;
  if (target === location.hash || (target === "#" && location.hash === "")) return;
  if (how === "push") history.pushState(null, "", target);
  else history.replaceState(null, "", target);
  place.value = read();
}

export const parameter = (name: string): string => place.value.parameters.get(name) ?? "";

function written(parameters: Parameters): string {
  const search = new URLSearchParams();
  for (const [key, value] of Object.entries(parameters)) {
    if (value !== null && value !== undefined && value !== "") search.set(key, String(value));
  }
  return search.toString();
}
