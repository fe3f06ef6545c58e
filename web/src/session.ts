// Who is looking, where Spanreel is told to ask that.
import { signal } from "@preact/signals";
import { get, send } from "./api";

export interface Session {
  required: boolean;
  role: "full" | "read_only" | "none";
  user: string | null;
  way: "anonymous" | "loopback" | "password" | "token" | "proxy";
  /** What the form may ask for; nothing where a proxy logs people in. */
  login: { password: boolean; token: boolean };
  logout: boolean;
}

/** Null until it is known. */
export const session = signal<Session | null>(null);

/** Asks anew who is looking. A server that does not know this question asks nobody. */
export async function look(): Promise<void> {
  session.value = await get<Session>("ui/api/session").catch(() => null);
}

export type Credentials = { user: string; password: string } | { token: string };

export async function login(credentials: Credentials): Promise<void> {
  session.value = await send<Session>("ui/api/login", credentials);
}

export async function logout(): Promise<void> {
  await send("ui/api/logout", {});
  await look();
}
