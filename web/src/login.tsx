// Stands where a page would, until somebody is known. What the page asks for is then asked again.
import { useEffect, useState } from "preact/hooks";
import { loginWanted } from "./api";
import type { ApiError } from "./api";
import { login, look, session } from "./session";
import type { Credentials } from "./session";
import { Empty, Icon, Waiting } from "./ui";

export function Login() {
  const [problem, setProblem] = useState("");
  const [busy, setBusy] = useState(false);
  useEffect(() => void look(), []);
  const who = session.value;
  if (!who) return <Waiting rows={3} />;
  const { password, token } = who.login;
  if (!password && !token) {
    return (
      <Empty title="Not logged in">
        <p>The proxy in front of Spanreel says who is looking, and it has said nobody. Log in there, then load this page again.</p>
        <button type="button" onClick={() => location.reload()}>
          <Icon name="reload" /> Load again
        </button>
      </Empty>
    );
  }
  const enter = async (credentials: Credentials) => {
    setBusy(true);
    setProblem("");
    try {
      await login(credentials);
      loginWanted.value = false;
    } catch (error) {
      const { status, message } = error as ApiError;
      setProblem(status !== 401 ? message : "token" in credentials ? "The token is not known." : "User or password is wrong.");
    }
    setBusy(false);
  };
  const submit = (event: Event) => {
    event.preventDefault();
    const given = new FormData(event.currentTarget as HTMLFormElement);
    const of = (name: string) => String(given.get(name) ?? "");
    void enter(of("token") ? { token: of("token") } : { user: of("user"), password: of("password") });
  };
  return (
    <form class="login card" onSubmit={submit}>
      <h1>Log in</h1>
      {who.role !== "none" && <p class="note">What you see needs another login than {who.user ?? "the present one"}.</p>}
      {password && (
        <>
          <label>
            User
            <input name="user" autocomplete="username" autocapitalize="off" spellcheck={false} autofocus />
          </label>
          <label>
            Password
            <input name="password" type="password" autocomplete="current-password" />
          </label>
        </>
      )}
      {token && (
        <label>
          {password ? "Or a token" : "Token"}
          <input name="token" type="password" autocomplete="off" spellcheck={false} />
        </label>
      )}
      <p role="alert" class="bad-text">
        {problem}
      </p>
      <button type="submit" class="primary" disabled={busy}>
        Log in
      </button>
    </form>
  );
}
