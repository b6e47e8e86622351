import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.StandardSocketOptions;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.util.Iterator;

/** A selector on both ends: many connections, each with messages of its own sizes, and interest that changes. */
final class Selecting {
    private static final int CONNECTIONS = 100;
    private static final int ROUNDS = 60;

    /** A connection of the server: what has been read and not yet written back. */
    private static final class Echo {
        final ByteBuffer buffer = ByteBuffer.allocateDirect(8_192);
        boolean ended;
    }

    static Role.Work serve(int port) throws IOException {
        ServerSocketChannel listener = ServerSocketChannel.open();
        listener.bind(new InetSocketAddress("127.0.0.1", port), 1_000);
        listener.configureBlocking(false);
        Selector selector = Selector.open();
        listener.register(selector, SelectionKey.OP_ACCEPT);
        return () -> {
            while (true) {
                selector.select();
                for (Iterator<SelectionKey> keys = selector.selectedKeys().iterator(); keys.hasNext(); ) {
                    SelectionKey key = keys.next();
                    keys.remove();
                    if (key.isAcceptable()) {
                        SocketChannel channel = listener.accept();
                        if (channel != null) {
                            channel.configureBlocking(false);
                            channel.register(selector, SelectionKey.OP_READ, new Echo());
                        }
                    } else {
                        echo(key);
                    }
                }
            }
        };
    }

    private static void echo(SelectionKey key) throws IOException {
        SocketChannel channel = (SocketChannel) key.channel();
        Echo echo = (Echo) key.attachment();
        if (key.isReadable() && channel.read(echo.buffer) < 0) {
            echo.ended = true;
        }
        echo.buffer.flip();
        channel.write(echo.buffer);
        echo.buffer.compact();
        boolean pending = echo.buffer.position() > 0;
        if (echo.ended && !pending) {
            channel.close();
            return;
        }
        boolean room = echo.buffer.hasRemaining() && !echo.ended;
        key.interestOps((room ? SelectionKey.OP_READ : 0) | (pending ? SelectionKey.OP_WRITE : 0));
    }

    /** A connection of the client. */
    private static final class Talk {
        final int seed;
        int round;
        long position;
        ByteBuffer out = ByteBuffer.allocate(0);
        int expected;
        final ByteBuffer in = ByteBuffer.allocate(20_000);

        Talk(int seed) {
            this.seed = seed;
        }

        /** The next message; every tenth is large. */
        boolean next() {
            if (round == ROUNDS) {
                return false;
            }
            int size = round % 10 == 9 ? 100_000 : 1 + (seed * 31 + round * 97) % 2_000;
            out = ByteBuffer.wrap(Pattern.bytes(seed, position, size));
            expected = size;
            round++;
            return true;
        }
    }

    static void client(int port) throws IOException {
        Selector selector = Selector.open();
        for (int seed = 0; seed < CONNECTIONS; seed++) {
            SocketChannel channel = SocketChannel.open();
            channel.setOption(StandardSocketOptions.TCP_NODELAY, true);
            channel.configureBlocking(false);
            boolean done = channel.connect(new InetSocketAddress("127.0.0.1", port));
            Talk talk = new Talk(seed);
            talk.next();
            int interest = done ? SelectionKey.OP_WRITE | SelectionKey.OP_READ : SelectionKey.OP_CONNECT;
            channel.register(selector, interest, talk);
        }
        long total = 0;
        while (!selector.keys().isEmpty()) {
            selector.select();
            for (SelectionKey key : selector.selectedKeys()) {
                total += step(key);
            }
            selector.selectedKeys().clear();
            selector.selectNow();
        }
        System.out.println(total + " bytes");
    }

    private static long step(SelectionKey key) throws IOException {
        SocketChannel channel = (SocketChannel) key.channel();
        Talk talk = (Talk) key.attachment();
        if (key.isConnectable() && channel.finishConnect()) {
            key.interestOps(SelectionKey.OP_WRITE | SelectionKey.OP_READ);
        }
        if (key.isWritable()) {
            channel.write(talk.out);
            if (!talk.out.hasRemaining()) {
                key.interestOps(SelectionKey.OP_READ);
            }
        }
        if (!key.isReadable()) {
            return 0;
        }
        talk.in.clear();
        int count = channel.read(talk.in);
        if (count < 0) {
            if (talk.round != ROUNDS || talk.expected != 0) {
                throw new AssertionError("stream " + talk.seed + " ends in round " + talk.round);
            }
            channel.close();
            return 0;
        }
        Pattern.check(talk.seed, talk.position, talk.in.array(), count);
        talk.position += count;
        talk.expected -= count;
        if (talk.expected == 0) {
            if (talk.next()) {
                key.interestOps(SelectionKey.OP_WRITE | SelectionKey.OP_READ);
            } else {
                channel.shutdownOutput();
            }
        }
        return count;
    }

    public static void main(String[] arguments) throws Exception {
        Role.run(arguments, Selecting::serve, Selecting::client);
    }
}
