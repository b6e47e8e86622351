/** What a program is in this run: `server PORT`, `client PORT`, or `both PORT` in one process. */
final class Role {
    interface Work {
        void run() throws Exception;
    }

    interface Listen {
        /** Listens, and gives what serves for ever. */
        Work on(int port) throws Exception;
    }

    interface Client {
        void run(int port) throws Exception;
    }

    static void run(String[] arguments, Listen listen, Client client) throws Exception {
        int port = Integer.parseInt(arguments[1]);
        if (arguments[0].equals("client")) {
            client.run(port);
            return;
        }
        Work work = listen.on(port);
        if (arguments[0].equals("server")) {
            work.run();
            return;
        }
        Thread server = new Thread(() -> {
            try {
                work.run();
            } catch (Exception error) {
                error.printStackTrace();
                System.exit(1);
            }
        });
        server.setDaemon(true);
        server.start();
        client.run(port);
        System.exit(0);
    }
}
