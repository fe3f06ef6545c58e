import { render } from "preact";
import { App } from "./app";
import "./styles/base.css";
import "./styles/trace.css";
import "./styles/pages.css";

const mount = document.getElementById("app");
if (mount) render(<App />, mount);
