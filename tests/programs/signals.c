/* Signal handlers, thread cancellation, fork handlers and sockets, in C because handlers leave by siglongjmp here. Usage: signals CASE.
 * Prints what the handlers and calls did; the same natively and preloaded. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "exchange.h"

enum { EXCHANGES = 200, JUMPS = 2000, INTERRUPTIONS = 100 };

static void connected(int ends[2]) {
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof address;
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(bind(listener, (struct sockaddr *)&address, length) == 0);
    CHECK(listen(listener, 1) == 0 && getsockname(listener, (struct sockaddr *)&address, &length) == 0);
    ends[0] = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(ends[0], (struct sockaddr *)&address, length) == 0);
    ends[1] = accept(listener, NULL, NULL);
    CHECK(ends[1] >= 0 && close(listener) == 0);
    for (int end = 0; end < 2; end++)
        CHECK(setsockopt(ends[end], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) == 0);
}

static void every(long microseconds) {
    struct itimerval timer = { { 0, microseconds }, { 0, microseconds } };
    CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
}

static void handle(int number, void (*handler)(int), int flags) {
    struct sigaction action = { .sa_handler = handler, .sa_flags = flags };
    CHECK(sigaction(number, &action, NULL) == 0);
}

/* ---- what the program sees of its handlers ---- */

static volatile sig_atomic_t plain_calls, told_value, told_process;

static void plain(int number) { plain_calls += number == SIGUSR1; }
static void other(int number) { (void)number; }
static void told(int number, siginfo_t *info, void *context) {
    (void)number;
    told_value = info->si_value.sival_int;
    told_process = info->si_pid == getpid() && info->si_code == SI_QUEUE && context != NULL;
}

static const char *name(void (*handler)(int)) {
    return handler == SIG_DFL ? "default" : handler == SIG_IGN ? "ignored" : handler == SIG_ERR ? "error"
         : handler == plain ? "plain" : handler == other ? "other" : "unknown";
}

static void actions(void) {
    struct sigaction old, action = { .sa_handler = plain, .sa_flags = SA_RESTART };
    CHECK(sigaction(SIGUSR1, &action, &old) == 0);
    printf("before %s", name(old.sa_handler));
    CHECK(sigaction(SIGUSR1, NULL, &old) == 0);
    printf(", now %s with flags %x\n", name(old.sa_handler), old.sa_flags & ~0x04000000);
    CHECK(raise(SIGUSR1) == 0);
    printf("signal: %s, ", name(signal(SIGUSR1, other)));
    printf("%s, %s\n", name(signal(SIGUSR1, SIG_IGN)), name(signal(SIGUSR1, plain)));
    CHECK(raise(SIGUSR1) == 0);
    printf("calls %d, in place: ", plain_calls);
    action = old;
    CHECK(sigaction(SIGUSR1, &action, &old) == 0);
    printf("%s; wrong number: %s", name(old.sa_handler), name(signal(1000, plain)));
    printf(" %d", errno);
    printf("; SIGKILL: %d", sigaction(SIGKILL, &action, NULL));
    printf(" %d\n", errno);
    handle(SIGUSR1, plain, SA_RESETHAND);
    CHECK(raise(SIGUSR1) == 0 && sigaction(SIGUSR1, NULL, &old) == 0);
    printf("once: calls %d, then %s\n", plain_calls, name(old.sa_handler));
    action = (struct sigaction) { .sa_sigaction = told, .sa_flags = SA_SIGINFO };
    CHECK(sigaction(SIGUSR2, &action, NULL) == 0);
    CHECK(sigqueue(getpid(), SIGUSR2, (union sigval) { .sival_int = 77 }) == 0);
    printf("told %d, by this process: %d\n", told_value, told_process);
}

/* ---- handlers that never return ---- */

static sigjmp_buf back;
static volatile sig_atomic_t may_jump;

static void jump(int number) {
    (void)number;
    if (may_jump) {
        may_jump = 0;
        siglongjmp(back, 1);
    }
}

static void *drain(void *end) {
    char bytes[4096];
    while (recv(*(int *)end, bytes, sizeof bytes, 0) > 0)
        send(*(int *)end, bytes, 16, MSG_DONTWAIT | MSG_NOSIGNAL);
    return NULL;
}

static void jumps(void) {
    int noisy[2], calm[2], epoll = epoll_create1(0);
    volatile int jumped = 0;
    pthread_t thread;
    connected(noisy);
    connected(calm);
    exchange(calm, EXCHANGES);
    sigset_t alarm_only;
    sigemptyset(&alarm_only);
    sigaddset(&alarm_only, SIGALRM);
    CHECK(pthread_sigmask(SIG_BLOCK, &alarm_only, NULL) == 0);
    CHECK(pthread_create(&thread, NULL, drain, &noisy[1]) == 0);
    CHECK(pthread_sigmask(SIG_UNBLOCK, &alarm_only, NULL) == 0);
    struct epoll_event event = { .events = EPOLLIN | EPOLLOUT };
    CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, noisy[0], &event) == 0);
    handle(SIGALRM, jump, 0);
    every(150);
    if (sigsetjmp(back, 1) != 0)
        jumped++;
    while (jumped < JUMPS) {
        char bytes[512];
        struct pollfd set = { .fd = noisy[0], .events = POLLIN };
        may_jump = 1;
        for (int turn = 0; turn < 50; turn++) {
            (void)!send(noisy[0], bytes, sizeof bytes, MSG_DONTWAIT);
            (void)!recv(noisy[0], bytes, sizeof bytes, turn % 8 == 0 ? 0 : MSG_DONTWAIT);
            poll(&set, 1, 1);
            epoll_wait(epoll, &event, 1, 0);
        }
        may_jump = 0;
    }
    every(0);
    exchange(calm, EXCHANGES);
    CHECK(shutdown(noisy[0], SHUT_RDWR) == 0 && pthread_join(thread, NULL) == 0);
    int fresh[2];
    connected(fresh);
    exchange(fresh, EXCHANGES);
    printf("jumped %d times, the streams work\n", jumped);
}

/* ---- interrupted waits ---- */

static void interruptions(void) {
    int ends[2], epoll = epoll_create1(0), interrupted[3] = { 0, 0, 0 };
    char byte;
    connected(ends);
    exchange(ends, EXCHANGES);
    struct epoll_event event = { .events = EPOLLIN };
    struct pollfd set = { .fd = ends[0], .events = POLLIN };
    CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event) == 0);
    handle(SIGALRM, other, 0);
    every(1000);
    for (int round = 0; round < INTERRUPTIONS; round++) {
        interrupted[0] += recv(ends[0], &byte, 1, 0) == -1 && errno == EINTR;
        interrupted[1] += poll(&set, 1, -1) == -1 && errno == EINTR;
        interrupted[2] += epoll_wait(epoll, &event, 1, -1) == -1 && errno == EINTR;
    }
    printf("recv %d, poll %d, epoll_wait %d\n", interrupted[0], interrupted[1], interrupted[2]);
    handle(SIGALRM, other, SA_RESTART);
    struct timeval limit = { 0, 300000 };
    CHECK(setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0);
    ssize_t result = recv(ends[0], &byte, 1, 0);
    printf("with a limit, never restarted: %zd %d\n", result, errno);
    every(0);
    exchange(ends, EXCHANGES);
}

/* ---- cancelled threads ---- */

enum { CANCELLED = 100 };
static volatile sig_atomic_t cleaned;

static void clean(void *unused) { (void)unused; cleaned++; }

static void *sleep_in_recv(void *end) {
    char byte;
    pthread_cleanup_push(clean, NULL);
    recv(*(int *)end, &byte, 1, 0);
    pthread_cleanup_pop(0);
    return NULL;
}

static void *sleep_in_poll(void *end) {
    struct pollfd set = { .fd = *(int *)end, .events = POLLIN };
    pthread_cleanup_push(clean, NULL);
    poll(&set, 1, -1);
    pthread_cleanup_pop(0);
    return NULL;
}

static void *sleep_in_epoll(void *end) {
    struct epoll_event event = { .events = EPOLLIN };
    int epoll = epoll_create1(0);
    epoll_ctl(epoll, EPOLL_CTL_ADD, *(int *)end, &event);
    pthread_cleanup_push(clean, NULL);
    epoll_wait(epoll, &event, 1, -1);
    pthread_cleanup_pop(0);
    return NULL;
}

static void cancellation(void) {
    void *(*const sleepers[])(void *) = { sleep_in_recv, sleep_in_poll, sleep_in_epoll };
    for (int promoted = 0; promoted < 2; promoted++) {
        int ends[2], ended = 0;
        connected(ends);
        exchange(ends, promoted ? EXCHANGES : 0);
        for (int round = 0; round < CANCELLED; round++) {
            pthread_t thread;
            void *result = NULL;
            CHECK(pthread_create(&thread, NULL, sleepers[round % 3], &ends[0]) == 0);
            /* Not to wait for anything: the thread is to be cancelled at different moments of its way to sleep. */
            if (round % 2)
                usleep(round * 20);
            CHECK(pthread_cancel(thread) == 0 && pthread_join(thread, &result) == 0);
            ended += result == PTHREAD_CANCELED;
        }
        exchange(ends, EXCHANGES);
        printf("%d cancelled, ", ended);
    }
    printf("the streams work, cleaned up: %s\n", cleaned > CANCELLED / 2 ? "yes" : "no");
}

/* ---- fork handlers that use what is followed ---- */

static int watched[2], watcher, handled;

static void register_again(void) {
    struct epoll_event event = { .events = EPOLLIN };
    CHECK(epoll_ctl(watcher, EPOLL_CTL_DEL, watched[0], NULL) == 0);
    CHECK(epoll_ctl(watcher, EPOLL_CTL_ADD, watched[0], &event) == 0);
    handled++;
}

static void make_again(void) {
    CHECK(close(watcher) == 0);
    watcher = epoll_create1(0);
    CHECK(dup2(watched[0], 100) == 100 && close(100) == 0);
    handled++;
}

static void fork_handlers(void) {
    struct epoll_event event = { .events = EPOLLIN };
    watcher = epoll_create1(0);
    connected(watched);
    CHECK(epoll_ctl(watcher, EPOLL_CTL_ADD, watched[0], &event) == 0);
    CHECK(pthread_atfork(register_again, register_again, make_again) == 0);
    for (int round = 0; round < 3; round++) {
        exchange(watched, EXCHANGES);
        int status = 0;
        pid_t child = fork();
        if (child == 0) {
            exchange(watched, 20);
            _exit(handled == 2 * round + 2 ? 7 : 8);
        }
        CHECK(waitpid(child, &status, 0) == child);
        printf("child says %d, ", WEXITSTATUS(status));
    }
    exchange(watched, EXCHANGES);
    printf("handlers ran %d times\n", handled);
}

int main(int count, char **arguments) {
    static const struct { const char *name; void (*run)(void); } cases[] = {
        { "actions", actions }, { "jumps", jumps }, { "interruptions", interruptions },
        { "cancellation", cancellation }, { "fork_handlers", fork_handlers },
    };
    for (size_t index = 0; count > 1 && index < sizeof cases / sizeof *cases; index++)
        if (strcmp(arguments[1], cases[index].name) == 0) {
            cases[index].run();
            return 0;
        }
    return 2;
}
