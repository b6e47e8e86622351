import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.AsynchronousServerSocketChannel;
import java.nio.channels.AsynchronousSocketChannel;
import java.nio.channels.CompletionHandler;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

/** Asynchronous channels on both ends, whose completions run in threads of their group. */
final class Asynchronous {
    private static final int CONNECTIONS = 50;
    private static final int[] SIZES = {1, 100, 3_000, 20_000, 150_000};

    /** Reads and writes back in turns until the end. */
    private static final class Echo implements CompletionHandler<Integer, Boolean> {
        private final AsynchronousSocketChannel channel;
        private final ByteBuffer buffer = ByteBuffer.allocate(10_000);

        Echo(AsynchronousSocketChannel channel) {
            this.channel = channel;
        }

        @Override
        public void completed(Integer count, Boolean reading) {
            if (reading) {
                if (count < 0) {
                    failed(null, reading);
                    return;
                }
                buffer.flip();
            }
            if (buffer.hasRemaining()) {
                channel.write(buffer, false, this);
            } else {
                buffer.clear();
                channel.read(buffer, true, this);
            }
        }

        @Override
        public void failed(Throwable error, Boolean reading) {
            try {
                channel.close();
            } catch (IOException ignored) {
                // It is gone already.
            }
        }
    }

    static Role.Work serve(int port) throws IOException {
        AsynchronousServerSocketChannel listener = AsynchronousServerSocketChannel.open();
        listener.bind(new InetSocketAddress("127.0.0.1", port), 1_000);
        listener.accept(null, new CompletionHandler<AsynchronousSocketChannel, Void>() {
            @Override
            public void completed(AsynchronousSocketChannel channel, Void nothing) {
                listener.accept(null, this);
                Echo echo = new Echo(channel);
                channel.read(echo.buffer, true, echo);
            }

            @Override
            public void failed(Throwable error, Void nothing) {
                error.printStackTrace();
            }
        });
        return () -> Thread.sleep(Long.MAX_VALUE);
    }

    /** One connection: writes and reads at the same time, by completions. */
    private static final class Talk {
        private final AsynchronousSocketChannel channel;
        private final int seed;
        private final CompletableFuture<Long> result = new CompletableFuture<>();
        private final ByteBuffer in = ByteBuffer.allocate(30_000);
        private long sent;
        private long received;
        private int round;
        private int expected;
        private boolean writing;

        Talk(int port, int seed) throws Exception {
            this.seed = seed;
            channel = AsynchronousSocketChannel.open();
            channel.connect(new InetSocketAddress("127.0.0.1", port)).get();
        }

        synchronized void next() {
            if (round == 4 * SIZES.length) {
                result.complete(received);
                return;
            }
            int size = SIZES[round++ % SIZES.length];
            ByteBuffer out = ByteBuffer.wrap(Pattern.bytes(seed, sent, size));
            sent += size;
            expected = size;
            writing = true;
            channel.read(in, 60, TimeUnit.SECONDS, null, new Then(this::got));
            channel.write(out, null, new Then(count -> more(out)));
        }

        synchronized void more(ByteBuffer out) {
            if (out.hasRemaining()) {
                channel.write(out, null, new Then(count -> more(out)));
                return;
            }
            writing = false;
            if (expected == 0) {
                next();
            }
        }

        synchronized void got(int count) {
            if (count < 0) {
                throw new AssertionError("stream " + seed + " ends at " + received);
            }
            Pattern.check(seed, received, in.array(), count);
            in.clear();
            received += count;
            expected -= count;
            if (expected > 0) {
                channel.read(in, 60, TimeUnit.SECONDS, null, new Then(this::got));
            } else if (!writing) {
                next();
            }
        }

        private final class Then implements CompletionHandler<Integer, Void> {
            private final java.util.function.IntConsumer step;

            Then(java.util.function.IntConsumer step) {
                this.step = step;
            }

            @Override
            public void completed(Integer count, Void nothing) {
                try {
                    step.accept(count);
                } catch (Throwable error) {
                    result.completeExceptionally(error);
                }
            }

            @Override
            public void failed(Throwable error, Void nothing) {
                result.completeExceptionally(error);
            }
        }
    }

    static void client(int port) throws Exception {
        Talk[] talks = new Talk[CONNECTIONS];
        for (int seed = 0; seed < CONNECTIONS; seed++) {
            talks[seed] = new Talk(port, seed);
            talks[seed].next();
        }
        long total = 0;
        for (Talk talk : talks) {
            total += talk.result.get(100, TimeUnit.SECONDS);
            talk.channel.close();
        }
        System.out.println(total + " bytes");
    }

    public static void main(String[] arguments) throws Exception {
        Role.run(arguments, Asynchronous::serve, Asynchronous::client);
    }
}
