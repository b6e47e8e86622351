import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executors;

/** The HTTP server and the HTTP client of Java's library: bodies in both directions over connections that stay open. */
final class Web {
    private static final int[] SIZES = {0, 1, 500, 20_000, 400_000};

    static Role.Work serve(int port) throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 200);
        server.setExecutor(Executors.newFixedThreadPool(16));
        server.createContext("/echo", exchange -> {
            byte[] body = exchange.getRequestBody().readAllBytes();
            exchange.sendResponseHeaders(200, body.length == 0 ? -1 : body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.createContext("/chunks", exchange -> {
            exchange.sendResponseHeaders(200, 0);
            for (int position = 0; position < 1_000_000; position += 10_000) {
                exchange.getResponseBody().write(Pattern.bytes(1, position, 10_000));
            }
            exchange.close();
        });
        server.start();
        return () -> Thread.sleep(Long.MAX_VALUE);
    }

    static void client(int port) throws Exception {
        HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        String base = "http://127.0.0.1:" + port;
        long total = 0;
        for (int round = 0; round < 6; round++) {
            List<CompletableFuture<Integer>> answers = new ArrayList<>();
            for (int seed = 0; seed < 30; seed++) {
                int number = seed;
                byte[] body = Pattern.bytes(seed, 0, SIZES[seed % SIZES.length]);
                HttpRequest request = HttpRequest.newBuilder(URI.create(base + "/echo"))
                        .POST(HttpRequest.BodyPublishers.ofByteArray(body)).build();
                answers.add(client.sendAsync(request, HttpResponse.BodyHandlers.ofByteArray()).thenApply(answer -> {
                    if (answer.body().length != body.length) {
                        throw new AssertionError(answer.body().length + " bytes for " + body.length);
                    }
                    Pattern.check(number, 0, answer.body(), body.length);
                    return body.length;
                }));
            }
            for (CompletableFuture<Integer> answer : answers) {
                total += answer.get();
            }
            HttpRequest chunks = HttpRequest.newBuilder(URI.create(base + "/chunks")).build();
            byte[] body = client.send(chunks, HttpResponse.BodyHandlers.ofByteArray()).body();
            Pattern.check(1, 0, body, 1_000_000);
            total += body.length;
        }
        System.out.println(total + " bytes");
    }

    public static void main(String[] arguments) throws Exception {
        Role.run(arguments, Web::serve, port -> {
            client(port);
            // The server's threads would go on.
            System.out.flush();
        });
    }
}
