# As tracers.js, through py_zipkin. Arguments: host and port of a Zipkin receiver.
import sys
from py_zipkin import Encoding, Kind
from py_zipkin.transport import SimpleHTTPTransport
from py_zipkin.zipkin import zipkin_span

host, port = sys.argv[1:]
for service, encoding in (("py-zipkin-v2", Encoding.V2_JSON), ("py-zipkin-v1", Encoding.V1_JSON)):
    root = zipkin_span(
        service_name=service,
        span_name="get /cart",
        transport_handler=SimpleHTTPTransport(host, int(port)),
        encoding=encoding,
        sample_rate=100,
        use_128bit_trace_id=True,
        kind=Kind.SERVER,
    )
    with root:
        root.update_binary_annotations({"http.path": "/cart"})
        with zipkin_span(service_name=service, span_name="query", kind=Kind.CLIENT) as child:
            child.add_sa_binary_annotation(port=5432, service_name="db", host="127.0.0.1")
            child.add_annotation("retry")
            child.update_binary_annotations({"error": "gone"})
        print(service, root.zipkin_attrs.trace_id)
