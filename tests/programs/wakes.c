/* Two processes that are now busy with each other, now asleep for a moment: every message wakes whoever sleeps.
 * Usage: wakes CASE, how the server waits. Prints the same natively and preloaded. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <time.h>

#include "pair.h"

enum { ROUNDS = 300, BUSY = 150, PAUSES = 8 };

static long long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* Computing, so that the other end sleeps at a moment that is another one each time. */
static void compute(long long nanoseconds) {
    long long end = now() + nanoseconds;
    while (now() < end)
        continue;
}

static int ask(int fd, int number) {
    int answer = -1;
    CHECK(send(fd, &number, sizeof number, 0) == sizeof number);
    CHECK(recv(fd, &answer, sizeof answer, MSG_WAITALL) == sizeof answer);
    return answer;
}

static void client(void) {
    int fd = dial(), number = 0;
    unsigned random = 1;
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < BUSY; i++, number++)
            CHECK(ask(fd, number) == number + 1);
        for (int i = 0; i < PAUSES; i++, number++) {
            random = random * 1103515245 + 12345;
            /* Around the time after which a waiting thread goes to sleep, and well behind it. */
            compute(i % 4 == 3 ? 300000 : (random >> 8) % 90000);
            CHECK(ask(fd, number) == number + 1);
        }
    }
    printf("%d answers\n", number);
    CHECK(close(fd) == 0);
}

static void await(const char *way, int group, int fd) {
    struct pollfd set = { .fd = fd, .events = POLLIN };
    struct epoll_event event;
    if (strcmp(way, "poll") == 0)
        CHECK(poll(&set, 1, -1) == 1);
    if (group >= 0)
        CHECK(epoll_wait(group, &event, 1, -1) == 1);
}

static void server(const char *way, int listener) {
    int fd = accept(listener, NULL, NULL), group = -1, number;
    ssize_t got;
    if (strncmp(way, "epoll", 5) == 0) {
        struct epoll_event event = { .events = EPOLLIN };
        if (strcmp(way, "epoll_edge") == 0)
            event.events |= EPOLLET;
        group = epoll_create1(0);
        CHECK(epoll_ctl(group, EPOLL_CTL_ADD, fd, &event) == 0);
        CHECK(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    }
    for (;;) {
        await(way, group, fd);
        while ((got = recv(fd, &number, sizeof number, 0)) == sizeof number) {
            number++;
            CHECK(send(fd, &number, sizeof number, 0) == sizeof number);
            if (group < 0)
                break;
        }
        if (got == 0)
            break;
        CHECK(got == sizeof number || (group >= 0 && got == -1 && errno == EAGAIN));
    }
}

int main(int count, char **words) {
    CHECK(count > 1);
    /* A lost wake-up would be an endless sleep. */
    alarm(100);
    int listener = bound();
    CHECK(listen(listener, 4) == 0);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        client();
        return 0;
    }
    server(words[1], listener);
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    printf("end of %s\n", words[1]);
}
