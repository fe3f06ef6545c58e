// A trace of two spans through each tracing library for Node.js, as it sends them by itself. Arguments: the URL of a Zipkin
// receiver, the port of a Jaeger agent (binary Thrift over UDP), the URL of a Jaeger collector (binary Thrift over HTTP).
// Prints "SERVICE TRACE-ID" for each.
const zipkin = require('zipkin');
const { HttpLogger } = require('zipkin-transport-http');
const jaeger = require('jaeger-client');
const [zipkinUrl, agentPort, collectorUrl] = process.argv.slice(2);

// On the libraries' timers: they send what they have now and then.
const SEND_INTERVAL_MS = 50;

function byZipkin(localServiceName, path, jsonEncoder) {
  const logger = new HttpLogger({ endpoint: zipkinUrl + path, jsonEncoder, httpInterval: SEND_INTERVAL_MS });
  // Its timer keeps no program alive.
  const alive = setInterval(() => {}, SEND_INTERVAL_MS);
  logger.on('success', () => clearInterval(alive));
  const recorder = new zipkin.BatchRecorder({ logger });
  const ctxImpl = new zipkin.ExplicitContext();
  const tracer = new zipkin.Tracer({ ctxImpl, recorder, localServiceName, traceId128Bit: true });
  tracer.scoped(() => {
    const root = tracer.createRootId();
    tracer.setId(root);
    tracer.recordServiceName(localServiceName);
    tracer.recordRpc('get /cart');
    tracer.recordBinary('http.path', '/cart');
    tracer.recordAnnotation(new zipkin.Annotation.ServerRecv());
    const child = tracer.createChildId();
    tracer.letId(child, () => {
      tracer.recordServiceName(localServiceName);
      tracer.recordRpc('query');
      tracer.recordAnnotation(new zipkin.Annotation.ServerAddr({ serviceName: 'db', port: 5432 }));
      tracer.recordAnnotation(new zipkin.Annotation.ClientSend());
      tracer.recordMessage('retry');
      tracer.recordBinary('error', 'gone');
      tracer.recordAnnotation(new zipkin.Annotation.ClientRecv());
    });
    tracer.setId(root);
    tracer.recordAnnotation(new zipkin.Annotation.ServerSend());
    console.log(localServiceName, root.traceId);
  });
}

function byJaeger(serviceName, reporter) {
  const settings = { serviceName, sampler: { type: 'const', param: 1 }, reporter };
  const tracer = jaeger.initTracer(settings, {});
  const root = tracer.startSpan('get /cart', { tags: { 'span.kind': 'server', 'http.path': '/cart' } });
  const child = tracer.startSpan('query', { childOf: root, tags: { 'span.kind': 'client', 'peer.service': 'db' } });
  child.log({ event: 'retry' });
  child.setTag('error', true);
  child.finish();
  root.finish();
  console.log(serviceName, root.context().traceIdStr);
  tracer.close();
}

byZipkin('zipkin-js-v2', '/api/v2/spans', zipkin.jsonEncoder.JSON_V2);
byZipkin('zipkin-js-v1', '/api/v1/spans', zipkin.jsonEncoder.JSON_V1);
byJaeger('jaeger-node-udp', { agentHost: '127.0.0.1', agentPort, flushIntervalMs: SEND_INTERVAL_MS });
byJaeger('jaeger-node-http', { collectorEndpoint: collectorUrl, flushIntervalMs: SEND_INTERVAL_MS });
