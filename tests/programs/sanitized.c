/* A server with epoll in one process, clients in threads of a forked one: every byte is checked, all memory given back, so that
 * a sanitizer has nothing to say. Prints what was exchanged. */
#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CLIENTS = 3, ROUNDS = 300, BYTES = 3000 };

static struct sockaddr_in server;

static void need(int right, const char *what) {
    if (!right) {
        perror(what);
        exit(3);
    }
}

static void *client(void *number) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    unsigned char *sent = malloc(BYTES), *got = malloc(BYTES);
    need(fd >= 0 && connect(fd, (struct sockaddr *)&server, sizeof server) == 0, "connect");
    for (int round = 0; round < ROUNDS; round++) {
        memset(sent, round + *(int *)number, BYTES);
        need(send(fd, sent, BYTES, 0) == BYTES, "send");
        need(recv(fd, got, BYTES, MSG_WAITALL) == BYTES, "recv");
        need(memcmp(sent, got, BYTES) == 0, "the same bytes");
    }
    free(sent);
    free(got);
    close(fd);
    return NULL;
}

static int clients(void) {
    pthread_t threads[CLIENTS];
    int numbers[CLIENTS];
    for (int i = 0; i < CLIENTS; i++) {
        numbers[i] = i;
        need(pthread_create(&threads[i], NULL, client, &numbers[i]) == 0, "thread");
    }
    for (int i = 0; i < CLIENTS; i++)
        pthread_join(threads[i], NULL);
    printf("clients are done\n");
    return 0;
}

static long echo(int fd, char *buffer) {
    long got = read(fd, buffer, 4096);
    need(got >= 0, "read");
    for (long done = 0; done < got;) {
        long wrote = write(fd, buffer + done, got - done);
        need(wrote > 0, "write");
        done += wrote;
    }
    return got;
}

static long serve(int listener) {
    int epoll = epoll_create1(0), open = 0, seen = 0;
    struct epoll_event event = {EPOLLIN, {.fd = listener}}, events[8];
    char *buffer = malloc(4096);
    long total = 0;
    need(epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) == 0, "epoll_ctl");
    while (seen < CLIENTS || open > 0) {
        int ready = epoll_wait(epoll, events, 8, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                event.data.fd = accept(listener, NULL, NULL);
                need(epoll_ctl(epoll, EPOLL_CTL_ADD, event.data.fd, &event) == 0, "epoll_ctl");
                open++, seen++;
                continue;
            }
            long bytes = echo(fd, buffer);
            total += bytes;
            if (bytes == 0)
                open -= close(fd) == 0;
        }
    }
    free(buffer);
    close(epoll);
    return total;
}

int main(void) {
    socklen_t length = sizeof server;
    int status, listener = socket(AF_INET, SOCK_STREAM, 0);
    server = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    need(bind(listener, (struct sockaddr *)&server, length) == 0 && listen(listener, 9) == 0, "listen");
    getsockname(listener, (struct sockaddr *)&server, &length);
    pid_t child = fork();
    if (child == 0)
        return clients();
    long total = serve(listener);
    waitpid(child, &status, 0);
    printf("%ld bytes, child ended with %d\n", total, status);
    return 0;
}
