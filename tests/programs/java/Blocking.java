import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.SocketTimeoutException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.ArrayList;
import java.util.List;

/** Blocking sockets with a thread each: echo, half-close, SO_TIMEOUT, a close from another thread. */
final class Blocking {
    private static final int[] SIZES = {1, 10, 100, 1_000, 5_000, 40_000, 300_000};

    /** Echoes until the client has ended its direction, and then says how many bytes it has seen. */
    static void echo(Socket socket) {
        try (socket) {
            InputStream in = socket.getInputStream();
            OutputStream out = socket.getOutputStream();
            byte[] buffer = new byte[16_384];
            long total = 0;
            for (int count; (count = in.read(buffer)) >= 0; total += count) {
                out.write(buffer, 0, count);
            }
            new DataOutputStream(out).writeLong(total);
        } catch (IOException error) {
            // The client has reset the connection or closed it from another thread.
        }
    }

    static void serve(ServerSocket listener) throws IOException {
        ExecutorService threads = Executors.newCachedThreadPool(task -> {
            Thread thread = new Thread(task);
            thread.setDaemon(true);
            return thread;
        });
        while (true) {
            Socket socket = listener.accept();
            socket.setTcpNoDelay(true);
            threads.submit(() -> echo(socket));
        }
    }

    static Socket connect(int port) throws IOException {
        Socket socket = new Socket(InetAddress.getLoopbackAddress(), port);
        socket.setTcpNoDelay(true);
        return socket;
    }

    /** Requests of all sizes, one after the other, then a half-close and the server's last word. */
    static long requests(int port, int seed) throws IOException {
        try (Socket socket = connect(port)) {
            socket.setSoTimeout(60_000);
            DataInputStream in = new DataInputStream(socket.getInputStream());
            OutputStream out = socket.getOutputStream();
            long position = 0;
            for (int round = 0; round < 10; round++) {
                for (int size : SIZES) {
                    // What is larger than all buffers on the way has to be sent and received at the same time.
                    byte[] sent = Pattern.bytes(seed, position, size);
                    for (int done = 0; done < size; ) {
                        int step = Math.min(16_000, size - done);
                        out.write(sent, done, step);
                        byte[] got = in.readNBytes(step);
                        Pattern.check(seed, position + done, got, step);
                        done += step;
                    }
                    position += size;
                }
            }
            socket.shutdownOutput();
            long said = in.readLong();
            if (said != position || in.read() != -1) {
                throw new AssertionError("server has seen " + said + " of " + position);
            }
            return position;
        }
    }

    /** One thread sends some megabytes while this one reads them back. */
    static long flood(int port, int seed, int total) throws Exception {
        try (Socket socket = connect(port)) {
            Thread sender = new Thread(() -> {
                try {
                    OutputStream out = socket.getOutputStream();
                    for (int position = 0; position < total; position += 50_000) {
                        out.write(Pattern.bytes(seed, position, 50_000));
                    }
                    socket.shutdownOutput();
                } catch (IOException error) {
                    throw new RuntimeException(error);
                }
            });
            sender.start();
            DataInputStream in = new DataInputStream(socket.getInputStream());
            for (int position = 0; position < total; position += 50_000) {
                Pattern.check(seed, position, in.readNBytes(50_000), 50_000);
            }
            sender.join();
            return in.readLong();
        }
    }

    /** Reads that time out lose nothing. */
    static String timeouts(int port) throws IOException {
        try (Socket socket = connect(port)) {
            byte[] word = {1, 2, 3, 4};
            int late = 0;
            for (int round = 0; round < 20; round++) {
                socket.setSoTimeout(1 + round % 5);
                try {
                    socket.getInputStream().read();
                    throw new AssertionError("a byte from nowhere");
                } catch (SocketTimeoutException expected) {
                    late++;
                }
                socket.setSoTimeout(60_000);
                socket.getOutputStream().write(word);
                if (!java.util.Arrays.equals(socket.getInputStream().readNBytes(4), word)) {
                    throw new AssertionError("another word");
                }
            }
            return late + " time limits";
        }
    }

    /** A thread that reads is woken when another closes its socket. */
    static String closed(int port) throws Exception {
        Socket socket = connect(port);
        for (int round = 0; round < 20; round++) {
            socket.getOutputStream().write(round);
            if (socket.getInputStream().read() != round) {
                throw new AssertionError("another byte");
            }
        }
        Thread reader = new Thread(() -> {
            try {
                // It may still see the server's last word.
                socket.getInputStream().readAllBytes();
            } catch (IOException expected) {
                // "Socket closed", as a rule.
            }
        });
        reader.start();
        while (reader.getStackTrace().length < 5 && reader.isAlive()) {
            Thread.onSpinWait();
        }
        socket.close();
        reader.join();
        return "closed";
    }

    static void client(int port) throws Exception {
        ExecutorService threads = Executors.newFixedThreadPool(20);
        List<Future<Long>> results = new ArrayList<>();
        for (int seed = 0; seed < 20; seed++) {
            int number = seed;
            results.add(threads.submit(() -> requests(port, number)));
        }
        for (int seed = 20; seed < 24; seed++) {
            int number = seed;
            results.add(threads.submit(() -> flood(port, number, 3_000_000)));
        }
        long total = 0;
        for (Future<Long> result : results) {
            total += result.get();
        }
        threads.shutdown();
        System.out.println(total + " bytes");
        System.out.println(timeouts(port));
        System.out.println(closed(port));
    }

    public static void main(String[] arguments) throws Exception {
        Role.run(arguments, port -> {
            ServerSocket listener = new ServerSocket(port, 100, InetAddress.getLoopbackAddress());
            return () -> serve(listener);
        }, Blocking::client);
    }
}
