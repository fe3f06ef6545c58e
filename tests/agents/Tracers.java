import brave.Span;
import brave.Tracing;
import brave.handler.SpanHandler;
import io.jaegertracing.Configuration;
import io.jaegertracing.Configuration.ReporterConfiguration;
import io.jaegertracing.Configuration.SamplerConfiguration;
import io.jaegertracing.Configuration.SenderConfiguration;
import io.jaegertracing.internal.JaegerSpan;
import io.jaegertracing.internal.JaegerTracer;
import zipkin2.reporter.Encoding;
import zipkin2.reporter.brave.AsyncZipkinSpanHandler;
import zipkin2.reporter.urlconnection.URLConnectionSender;

/** As tracers.js, through Brave and Jaeger's client for Java, which speaks compact Thrift over UDP. */
class Tracers {
    public static void main(String[] arguments) throws Exception {
        String zipkin = arguments[0], agentPort = arguments[1], collector = arguments[2];
        byBrave("brave-json", zipkin, Encoding.JSON);
        byBrave("brave-proto", zipkin, Encoding.PROTO3);
        byJaeger("jaeger-java-udp", new SenderConfiguration().withAgentHost("127.0.0.1").withAgentPort(Integer.parseInt(agentPort)));
        byJaeger("jaeger-java-http", new SenderConfiguration().withEndpoint(collector));
    }

    static void byBrave(String service, String zipkin, Encoding encoding) throws Exception {
        try (var sender = URLConnectionSender.newBuilder().endpoint(zipkin + "/api/v2/spans").encoding(encoding).build();
                AsyncZipkinSpanHandler handler = AsyncZipkinSpanHandler.create(sender);
                var tracing = Tracing.newBuilder().localServiceName(service).addSpanHandler((SpanHandler) handler)
                        .traceId128Bit(true).build()) {
            Span root = tracing.tracer().newTrace().name("get /cart").kind(Span.Kind.SERVER).tag("http.path", "/cart").start();
            Span child = tracing.tracer().newChild(root.context()).name("query").kind(Span.Kind.CLIENT).start();
            child.remoteServiceName("db");
            child.annotate("retry");
            child.error(new IllegalStateException("gone"));
            child.finish();
            root.finish();
            System.out.println(service + " " + root.context().traceIdString());
            handler.flush();
        }
    }

    static void byJaeger(String service, SenderConfiguration sender) {
        try (JaegerTracer tracer = new Configuration(service)
                .withSampler(new SamplerConfiguration().withType("const").withParam(1))
                .withReporter(new ReporterConfiguration().withSender(sender))
                .withTraceId128Bit(true).getTracer()) {
            JaegerSpan root = tracer.buildSpan("get /cart").withTag("span.kind", "server").withTag("http.path", "/cart").start();
            JaegerSpan child = tracer.buildSpan("query").asChildOf(root)
                    .withTag("span.kind", "client").withTag("peer.service", "db").start();
            child.log("retry");
            child.setTag("error", true);
            child.finish();
            root.finish();
            System.out.println(service + " " + root.context().getTraceId());
        }
    }
}
