/* Names of calls that only glibc's own parts and old programs use, and sockets that libc makes behind a program's back.
 * Usage: aliases CASE. Prints what came of each; the same natively and preloaded. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <string.h>
#include <sys/select.h>

#include "pair.h"

static void *named(const char *name) {
    void *function = dlsym(RTLD_DEFAULT, name);
    CHECK(function != NULL);
    return function;
}

static void names(void) {
    int (*alias_connect)(int, const struct sockaddr *, socklen_t) =
        (int (*)(int, const struct sockaddr *, socklen_t))named("__connect");
    int (*alias_select)(int, fd_set *, fd_set *, fd_set *, struct timeval *) =
        (int (*)(int, fd_set *, fd_set *, fd_set *, struct timeval *))named("__select");
    int (*alias_fcntl)(int, int, ...) = (int (*)(int, int, ...))named("__fcntl");
    int (*alias_dup2)(int, int) = (int (*)(int, int))named("__dup2");
    int (*alias_close)(int) = (int (*)(int))named("__close");
    int listener = bound(), ends[2];
    char byte = 0;

    CHECK(listen(listener, 4) == 0);
    ends[0] = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(alias_connect(ends[0], (struct sockaddr *)&address, sizeof address) == 0);
    ends[1] = accept(listener, NULL, NULL);
    exchange(ends, 50);

    struct timeval limit = { .tv_sec = 10 };
    fd_set set;
    FD_ZERO(&set);
    FD_SET(ends[1], &set);
    CHECK(send(ends[0], "a", 1, 0) == 1);
    printf("select: %d\n", alias_select(ends[1] + 1, &set, NULL, NULL, &limit));
    CHECK(FD_ISSET(ends[1], &set) && recv(ends[1], &byte, 1, 0) == 1 && byte == 'a');

    /* A mode that is set by one name holds for the calls by another. */
    CHECK(alias_fcntl(ends[1], F_SETFL, O_NONBLOCK) == 0);
    CHECK(recv(ends[1], &byte, 1, 0) == -1 && errno == EAGAIN);
    CHECK(alias_fcntl(ends[1], F_SETFL, 0) == 0);
    int copy = alias_fcntl(ends[1], F_DUPFD, 40);
    CHECK(send(ends[0], "b", 1, 0) == 1 && recv(copy, &byte, 1, 0) == 1 && byte == 'b');

    /* The number of one connection for another: what it was before has ended, its other end sees that. */
    int others[2];
    connected(others);
    CHECK(alias_dup2(others[1], ends[0]) == ends[0]);
    CHECK(alias_close(others[1]) == 0);
    const int moved[2] = { others[0], ends[0] };
    exchange(moved, 50);
    printf("end: %zd\n", recv(copy, &byte, 1, 0));
}

/* A resolver opens and closes sockets by libc's inner calls, under numbers that were connections a moment before. */
static void resolver(void) {
    int kept[2], ends[2];
    connected(kept);
    for (int round = 0; round < 20; round++) {
        struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG }, *found = NULL;
        connected(ends);
        CHECK(close(ends[0]) == 0 && close(ends[1]) == 0);
        /* Sorting several addresses connects a datagram socket to each (RFC 6724); the machine's addresses are asked by netlink. */
        int answer = getaddrinfo("localhost", "80", &hints, &found);
        if (answer == 0)
            freeaddrinfo(found);
        char name[256], service[32];
        getnameinfo((struct sockaddr *)&address, sizeof address, name, sizeof name, service, sizeof service, 0);
        exchange(kept, 5);
        connected(ends);
        CHECK(close(ends[0]) == 0 && close(ends[1]) == 0);
        printf("%d: %d\n", round, answer);
    }
}

int main(int count, char **words) {
    CHECK(count > 1);
    if (strcmp(words[1], "names") == 0)
        names();
    else
        resolver();
    printf("end of %s\n", words[1]);
}
