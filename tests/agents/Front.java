import com.sun.net.httpserver.HttpServer;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

/** The near end of the chain: each request asks Back, whose port is the first argument. Prints its own port on the first line. */
public final class Front {
  public static void main(String[] arguments) throws Exception {
    URI ratings = URI.create("http://127.0.0.1:" + Integer.parseInt(arguments[0]) + "/ratings");
    HttpClient client = HttpClient.newHttpClient();
    HttpServer server = HttpServer.create(new InetSocketAddress(InetAddress.getByName("127.0.0.1"), 0), 0);
    server.createContext("/reviews", exchange -> {
      byte[] body;
      try {
        body = client.send(HttpRequest.newBuilder(ratings).build(), HttpResponse.BodyHandlers.ofByteArray()).body();
      } catch (InterruptedException interrupted) {
        body = interrupted.toString().getBytes();
      }
      exchange.sendResponseHeaders(200, body.length);
      exchange.getResponseBody().write(body);
      exchange.close();
    });
    server.start();
    System.out.println(server.getAddress().getPort());
  }
}
