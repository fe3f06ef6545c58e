// Everything that is known of one span.
import { useState } from "preact/hooks";
import { count, duration, moment, visible } from "../format";
import { keepRange } from "../range";
import { href, isSaved, root } from "../router";
import { attribute, condition, quote } from "../traceql";
import { CopyButton, Icon, Service } from "../ui";
import type { Node, Trace } from "./model";
import { toOtlp } from "./otlp";
import type { Attribute, SpanData, SpanEvent } from "./read";

/** Characters of a value that are shown at first. */
const VALUE_CHARACTERS = 600;

interface Props {
  trace: Trace;
  node: Node;
  select: (node: Node) => void;
  close: () => void;
}

export function Drawer({ trace, node, select, close }: Props) {
  const span = node.span;
  return (
    <aside class="drawer" aria-label="Span">
      <header>
        <div>
          <h2>{span ? node.name : "A span that never arrived"}</h2>
          <p class="facts">
            {span && <Service service={node.service} />}
            {span && <span>{span.kind}</span>}
            {span && (
              <span>
                <b>{duration(Number(span.endNano - span.startNano))}</b>
              </span>
            )}
            {span && node.children.length > 0 && <span>self {duration(node.self)}</span>}
            <span>at +{duration(node.start)}</span>
          </p>
        </div>
        <button type="button" class="quiet" onClick={close} aria-label="Close (Esc)" title="Close (Esc)">
          <Icon name="close" />
        </button>
      </header>
      <div class="content">{span ? <Span trace={trace} node={node} span={span} select={select} /> : <Missing node={node} />}</div>
    </aside>
  );
}

function Missing({ node }: { node: Node }) {
  return (
    <>
      <p class="message warn">
        {node.children.length} {node.children.length === 1 ? "span names" : "spans name"} this span as parent, but it is not here. It may be on its way, it may have been sampled out or lost on the client's side, or its process
        sends to somewhere else.
      </p>
      <p>
        Span id <code>{node.missingId}</code> <CopyButton text={node.missingId} label="Copy the id" />
      </p>
    </>
  );
}

function Span({ trace, node, span, select }: { trace: Trace; node: Node; span: SpanData; select: (node: Node) => void }) {
  const resource = span.resource.attributes;
  const kubernetes = resource.filter((one) => one.key.startsWith("k8s.") || one.key.startsWith("container."));
  const others = resource.filter((one) => !kubernetes.includes(one));
  return (
    <>
      {(span.status === "error" || span.statusMessage) && (
        <p class={span.status === "error" ? "message" : "message warn"}>
          <b>{span.status === "error" ? "Failed" : `Status ${span.status}`}</b>
          {span.statusMessage && `: ${span.statusMessage}`}
        </p>
      )}
      {span.endNano < span.startNano && <p class="message warn">It ends {duration(Number(span.startNano - span.endNano))} before it starts. It is drawn as a moment.</p>}
      {node.early > 0 && (
        <p class="message warn">
          It starts {duration(node.early)} before its parent: the clocks of {node.parent?.service} and {node.service} differ{node.shift !== 0 ? `; it is drawn ${duration(Math.abs(node.shift))} ${node.shift > 0 ? "later" : "earlier"} than was sent` : ""}.
        </p>
      )}
      {node.ring && <p class="message warn">Its parents form a ring; the first of them is shown as a root.</p>}
      {node.twin && <p class="message warn">Another span of this trace has the same id.</p>}
      {span.dropped > 0 && <p class="message warn">The SDK left out {count(span.dropped)} attributes, events or links of this span: its limits were reached.</p>}

      <Pairs title="Attributes" attributes={span.attributes} scope="span" open />
      {span.events.length > 0 && (
        <section>
          <h3>Events ({count(span.events.length)})</h3>
          {span.events.map((event, i) => (
            <EventItem key={i} event={event} span={span} />
          ))}
        </section>
      )}
      {span.links.length > 0 && (
        <section>
          <h3>Links ({count(span.links.length)})</h3>
          <ul class="link-list">
            {span.links.map((link, i) => {
              const here = link.traceId === span.traceId ? trace.nodes.find((one) => one.span?.spanId === link.spanId) : undefined;
              return (
                <li key={i}>
                  <Icon name="link" />
                  {here ? (
                    <button type="button" class="linkish" onClick={() => select(here)}>
                      {here.service} {here.name}
                    </button>
                  ) : isSaved ? (
                    <code>
                      {link.traceId} / {link.spanId}
                    </code>
                  ) : (
                    <a href={href(`trace/${link.traceId}`, { span: link.spanId })}>
                      <code>
                        {link.traceId.slice(0, 12)}… / {link.spanId}
                      </code>
                    </a>
                  )}
                  <small class="clip">{link.attributes.map((one) => `${one.key}=${one.text}`).join(", ")}</small>
                </li>
              );
            })}
          </ul>
        </section>
      )}
      <Pairs title="Kubernetes" attributes={kubernetes} scope="resource" />
      <Pairs title="Resource" attributes={others} scope="resource" />
      <section>
        <h3>Span</h3>
        <table class="pairs">
          <tbody>
            <Fact name="span id" text={span.spanId} />
            {span.parentId && <Fact name="parent id" text={span.parentId} />}
            <Fact name="started" text={moment(Number(span.startNano / 1_000_000n))} />
            {span.scope.name && <Fact name="scope" text={`${span.scope.name} ${span.scope.version}`.trim()} />}
            {span.traceState && <Fact name="trace state" text={span.traceState} />}
          </tbody>
        </table>
        <Pairs title="Scope attributes" attributes={span.scope.attributes} scope="instrumentation" />
      </section>
      <section>
        <h3>Use it</h3>
        {!isSaved && (
          <p class="link-list">
            <a href={href("traces", { ...keepRange(), q: `{ resource.service.name = ${quote(node.service)} && name = ${quote(span.name)} }` })}>Spans like this one</a>
          </p>
        )}
        <p>
          <CopyButton text={() => `{ trace:id = ${quote(span.traceId)} && span:id = ${quote(span.spanId)} }`} label="Copy as TraceQL">TraceQL</CopyButton>
          <CopyButton text={() => JSON.stringify(span.raw, null, 2)} label="Copy as JSON">JSON</CopyButton>
          <CopyButton text={() => JSON.stringify(toOtlp([span]))} label="Copy as an OTLP request">OTLP</CopyButton>
          {!isSaved && <CopyButton text={() => `curl '${location.origin}${root}api/v2/traces/${span.traceId}'`} label="Copy as curl">curl</CopyButton>}
          {!isSaved && <CopyButton text={() => location.href} label="Copy a link to this span">link</CopyButton>}
        </p>
        <Raw span={span} />
      </section>
    </>
  );
}

function Raw({ span }: { span: SpanData }) {
  const [open, setOpen] = useState(false);
  return (
    <details class="event-item" onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>As it came</summary>
      {open && <pre class="raw">{JSON.stringify(span.raw, null, 2).slice(0, 200_000)}</pre>}
    </details>
  );
}

function Fact({ name, text }: { name: string; text: string }) {
  return (
    <tr>
      <td>{name}</td>
      <td>{text}</td>
      <td>
        <CopyButton text={text} label={`Copy ${name}`} />
      </td>
    </tr>
  );
}

function Pairs({ title, attributes, scope, open = false }: { title: string; attributes: Attribute[]; scope: string; open?: boolean }) {
  const [wanted, setWanted] = useState("");
  if (attributes.length === 0 && !open) return null;
  const text = wanted.toLowerCase();
  const shown = text ? attributes.filter((one) => one.key.toLowerCase().includes(text) || one.text.toLowerCase().includes(text)) : attributes;
  return (
    <section>
      <h3>
        {title} {attributes.length > 0 && `(${count(attributes.length)})`}
        {attributes.length > 12 && <input aria-label={`Filter ${title}`} placeholder="filter" value={wanted} onInput={(event) => setWanted(event.currentTarget.value)} />}
        {attributes.length > 0 && <CopyButton text={() => JSON.stringify(Object.fromEntries(attributes.map((one) => [one.key, one.text])), null, 2)} label={`Copy all of ${title}`} />}
      </h3>
      {attributes.length === 0 && <p class="note">None.</p>}
      <table class="pairs">
        <tbody>
          {shown.map((one, i) => {
            const query = one.type === "other" || one.text.length > 4000 ? null : condition(attribute(scope, one.key), one.text, one.type);
            return (
              <tr key={`${one.key} ${i}`}>
                <td>{one.key}</td>
                <td>
                  <ValueText text={one.text} />
                </td>
                <td>
                  {query !== null && <CopyButton text={query} label={`Copy ${one.key} as TraceQL`} icon="filter" />}
                  {query !== null && !isSaved && (
                    <a href={href("traces", { ...keepRange(), q: `{ ${query} }` })} class="find-like" aria-label={`Traces with ${one.key} ${one.text.slice(0, 80)}`} title={`{ ${query.slice(0, 200)} }`}>
                      <Icon name="search" />
                    </a>
                  )}
                  <CopyButton text={one.text} label={`Copy ${one.key}`} />
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </section>
  );
}

function ValueText({ text }: { text: string }) {
  const [all, setAll] = useState(false);
  if (text === "") return <span class="note">empty</span>;
  const shown = all || text.length <= VALUE_CHARACTERS ? text : text.slice(0, VALUE_CHARACTERS);
  return (
    <>
      {shown.includes("\n") ? <pre>{visible(shown)}</pre> : visible(shown)}
      {shown.length < text.length && (
        <button type="button" class="linkish" onClick={() => setAll(true)}>
          … all {count(text.length)} characters
        </button>
      )}
    </>
  );
}

export function EventItem({ event, span }: { event: SpanEvent; span: SpanData }) {
  const exception = event.name === "exception";
  const find = (key: string) => event.attributes.find((one) => one.key === key)?.text;
  return (
    <details class="event-item" open={exception}>
      <summary>
        <code>+{duration(Number(event.nano - span.startNano))}</code>
        <b class={exception ? "bad-text" : ""}>{exception ? (find("exception.type") ?? event.name) : event.name}</b>
        <small class="clip">{exception ? find("exception.message") : event.attributes.map((one) => `${one.key}=${one.text}`).join(" ")}</small>
      </summary>
      <table class="pairs">
        <tbody>
          {event.attributes.map((one, i) => (
            <tr key={i}>
              <td>{one.key}</td>
              <td>
                <ValueText text={one.text} />
              </td>
              <td>
                <CopyButton text={one.text} label={`Copy ${one.key}`} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </details>
  );
}
