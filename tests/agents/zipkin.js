// Two spans through the Zipkin exporter of the OpenTelemetry SDK, to the URL that is the first argument.
const { SpanKind, SpanStatusCode, context, trace } = require('@opentelemetry/api');
const { resourceFromAttributes } = require('@opentelemetry/resources');
const { BasicTracerProvider, SimpleSpanProcessor } = require('@opentelemetry/sdk-trace-base');
const { ZipkinExporter } = require('@opentelemetry/exporter-zipkin');

const exporter = new ZipkinExporter({ url: process.argv[2] });
const provider = new BasicTracerProvider({
  resource: resourceFromAttributes({ 'service.name': 'node-shop', 'k8s.pod.name': 'shop-0' }),
  spanProcessors: [new SimpleSpanProcessor(exporter)],
});
const tracer = provider.getTracer('shop-lib', '1.2');
const parent = tracer.startSpan('GET /cart', { kind: SpanKind.SERVER, attributes: { 'http.route': '/cart' } });
const within = trace.setSpan(context.active(), parent);
const child = tracer.startSpan('query', { kind: SpanKind.CLIENT, attributes: { 'peer.service': 'db', rows: 3 } }, within);
child.addEvent('retry');
child.setStatus({ code: SpanStatusCode.ERROR, message: 'gone' });
child.end();
parent.end();
provider.forceFlush().then(() => provider.shutdown()).then(() => console.log(parent.spanContext().traceId));
