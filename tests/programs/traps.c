/* Calls and moments that libraries in LD_PRELOAD miss, in C because these calls have no Rust names. Usage: traps CASE.
 * Prints what came of each; the same natively and preloaded. */
#define _GNU_SOURCE
#include <aio.h>
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pair.h"

extern char **environ;

static void expect(int fd, const char *text) {
    char buffer[64] = { 0 };
    ssize_t got = recv(fd, buffer, strlen(text), MSG_WAITALL);
    printf("%zd: %s\n", got, buffer);
    CHECK(strcmp(buffer, text) == 0);
}

static int ended(pid_t child) {
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* Functions found by name, and the forms that compilers put in the place of others. */
static void names(void) {
    int ends[2];
    char buffer[8];
    connected(ends);
    const char *writers[] = { "write", "__write", "send", "__send", "sendto" };
    const char *readers[] = { "read", "__read", "recv", "recvfrom", "__read_chk", "__recv_chk", "__recvfrom_chk" };
    for (size_t w = 0; w < sizeof writers / sizeof *writers; w++)
        for (size_t r = 0; r < sizeof readers / sizeof *readers; r++) {
            ssize_t (*put)() = (ssize_t (*)())dlsym(RTLD_DEFAULT, writers[w]);
            ssize_t (*get)() = (ssize_t (*)())dlsym(RTLD_DEFAULT, readers[r]);
            CHECK(put && get);
            memcpy(buffer, "........", 8);
            CHECK(put(ends[0], "abcd", 4L, 0L, NULL, 0L) == 4);
            /* The checked forms have the size of the buffer in front of the flags; both may be 8 and 0 here. */
            ssize_t got = strstr(readers[r], "_chk") ? get(ends[1], buffer, 8L, 8L, 0L, NULL, NULL)
                                                     : get(ends[1], buffer, 8L, 0L, NULL, NULL);
            printf("%s %s: %zd %.8s\n", writers[w], readers[r], got, buffer);
        }
    const char *polls[] = { "poll", "__poll", "__poll_chk" };
    for (size_t p = 0; p < sizeof polls / sizeof *polls; p++) {
        int (*wait)() = (int (*)())dlsym(RTLD_DEFAULT, polls[p]);
        struct pollfd set = { .fd = ends[1], .events = POLLIN };
        CHECK(wait && send(ends[0], "x", 1, 0) == 1);
        printf("%s: %d\n", polls[p], wait(&set, 1L, 10000, sizeof set));
        CHECK(read(ends[1], buffer, 1) == 1);
    }
    int (*end)(int) = (int (*)(int))dlsym(RTLD_DEFAULT, "__close");
    printf("__close: %d\n", end(ends[0]));
    printf("then: %zd\n", read(ends[1], buffer, 1));
}

/* A program sees the descriptors that it would see without the library. */
static void numbers(void) {
    int ends[2], pair[2];
    connected(ends);
    CHECK(pipe(pair) == 0);
    printf("%d %d %d %d %d\n", ends[0], ends[1], pair[0], pair[1], dup(0));
}

/* Daemons close everything that they do not know, also what the library needs. */
static void everything_closed(void) {
    int ends[2];
    for (int round = 0; round < 6; round++) {
        connected(ends);
        if (round % 3 == 0)
            closefrom(3);
        else if (round % 3 == 1)
            CHECK(close_range(3, ~0U, 0) == 0);
        else
            for (int fd = 3; fd < 70000; fd++)
                syscall(SYS_close, fd);
        CHECK(send(ends[0], "x", 1, 0) == -1 && errno == EBADF);
        connected(ends);
        exchange(ends, 200);
        printf("%d: numbers %d %d\n", round, ends[0], ends[1]);
        close(ends[0]);
        close(ends[1]);
    }
}

static void pipes(void) {
    int ends[2], one[2], two[2];
    char text[] = "from memory", buffer[32] = { 0 };
    struct iovec part = { text, strlen(text) };
    connected(ends);
    CHECK(pipe(one) == 0 && pipe(two) == 0);
    CHECK(vmsplice(one[1], &part, 1, 0) == (ssize_t)part.iov_len);
    printf("out: %zd\n", splice(one[0], NULL, ends[0], NULL, 100, 0));
    printf("in: %zd\n", splice(ends[1], NULL, one[1], NULL, 100, 0));
    printf("tee: %zd\n", tee(one[0], two[1], 100, 0));
    for (int which = 0; which < 2; which++) {
        CHECK(read(which ? two[0] : one[0], buffer, sizeof buffer) == (ssize_t)part.iov_len);
        printf("%s\n", buffer);
    }
    printf("no pipe: %zd %d\n", tee(ends[0], two[1], 100, 0), errno == EINVAL);
    exchange(ends, 50);
}

static void print_to(int fd, const char *format, ...) {
    va_list list;
    va_start(list, format);
    vdprintf(fd, format, list);
    va_end(list);
}

static void stdio(void) {
    int ends[2];
    char line[64];
    connected(ends);
    CHECK(send(ends[0], "early ", 6, 0) == 6);
    dprintf(ends[0], "%s %d\n", "number", 5);
    expect(ends[1], "early number 5\n");
    print_to(ends[0], "%d again\n", 6);
    expect(ends[1], "6 again\n");
    connected(ends);
    CHECK(send(ends[1], "one\ntw", 6, 0) == 6);
    FILE *file = fdopen(ends[0], "r+");
    CHECK(send(ends[1], "o\n", 2, 0) == 2);
    for (int i = 0; i < 2; i++)
        printf("%s", fgets(line, sizeof line, file));
    fprintf(file, "answer\n");
    fflush(file);
    expect(ends[1], "answer\n");
    fprintf(file, "last words\n");
    CHECK(freopen("/dev/null", "r+", file) == file);
    expect(ends[1], "last words\n");
    printf("end: %zd\n", read(ends[1], line, 1));
    fclose(file);
}

/* Children that share the parent's memory, and those that libc makes without its handlers. */
static void children(void) {
    int ends[2];
    connected(ends);
    pid_t child = vfork();
    if (child == 0) {
        close(ends[0]);
        close(ends[1]);
        execlp("true", "true", NULL);
        _exit(9);
    }
    printf("vfork: %d\n", ended(child));
    exchange(ends, 50);
    child = vfork();
    if (child == 0) {
        dup2(ends[0], 0);
        dup2(ends[0], 1);
        execlp("head", "head", "-n", "1", NULL);
        _exit(9);
    }
    CHECK(send(ends[1], "over there\n", 11, 0) == 11);
    expect(ends[1], "over there\n");
    printf("head: %d\n", ended(child));
    connected(ends);
    child = _Fork();
    if (child == 0) {
        CHECK(send(ends[0], "from the child", 14, 0) == 14);
        _exit(4);
    }
    expect(ends[1], "from the child");
    printf("_Fork: %d\n", ended(child));
    exchange(ends, 50);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[0], 0);
    posix_spawn_file_actions_adddup2(&actions, ends[0], 1);
    posix_spawn_file_actions_addclosefrom_np(&actions, 3);
    char *arguments[] = { "head", "-n", "1", NULL };
    CHECK(posix_spawnp(&child, "head", &actions, NULL, arguments, environ) == 0);
    CHECK(send(ends[1], "spawned\n", 8, 0) == 8);
    expect(ends[1], "spawned\n");
    printf("posix_spawnp: %d\n", ended(child));
}

static void asynchronous(void) {
    int ends[2];
    char buffer[16] = { 0 };
    connected(ends);
    CHECK(send(ends[1], "waiting ", 8, 0) == 8);
    struct aiocb in = { .aio_fildes = ends[0], .aio_buf = buffer, .aio_nbytes = 8 };
    struct aiocb out = { .aio_fildes = ends[0], .aio_buf = "by aio", .aio_nbytes = 6 };
    struct aiocb *list[] = { &in, &out };
    in.aio_lio_opcode = LIO_READ;
    out.aio_lio_opcode = LIO_WRITE;
    CHECK(lio_listio(LIO_WAIT, list, 2, NULL) == 0);
    printf("read %zd: %s, written %zd\n", aio_return(&in), buffer, aio_return(&out));
    expect(ends[1], "by aio");
    exchange(ends, 50);
}

/* The parent binds; the child listens and accepts after exec (socket activation). */
static void listener_after_exec(void) {
    int listener = bound();
    char number[16];
    snprintf(number, sizeof number, "%d", listener);
    pid_t child = fork();
    if (child == 0) {
        CHECK(listen(listener, 4) == 0);
        execl("/proc/self/exe", "traps", "serve", number, NULL);
    }
    close(listener);
    int fd = -1;
    for (int tries = 0; fd < 0 && tries < 10000; tries++) {
        fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
            close(fd), fd = -1, usleep(1000);
    }
    for (int round = 0; round < 100; round++) {
        int back = -1;
        CHECK(send(fd, &round, sizeof round, 0) == sizeof round);
        CHECK(recv(fd, &back, sizeof back, MSG_WAITALL) == sizeof back && back == round);
    }
    close(fd);
    printf("served: %d\n", ended(child));
}

static int echo(int fd) {
    char buffer[256];
    ssize_t got;
    while ((got = read(fd, buffer, sizeof buffer)) > 0)
        CHECK(write(fd, buffer, got) == got);
    return got == 0 ? 0 : 5;
}

/* Every way to execute with a stream that stays open. */
static void images(void) {
    for (int way = 0; way < 4; way++) {
        int ends[2], self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
        char number[16];
        connected(ends);
        snprintf(number, sizeof number, "%d", ends[0]);
        char *arguments[] = { "traps", "echo", number, NULL };
        pid_t child = fork();
        if (child == 0) {
            close(ends[1]);
            if (way == 0)
                fexecve(self, arguments, environ);
            else if (way == 1)
                execveat(self, "", arguments, environ, AT_EMPTY_PATH);
            else if (way == 2)
                execle("/proc/self/exe", "traps", "echo", number, NULL, environ);
            else
                syscall(SYS_execve, "/proc/self/exe", arguments, environ);
            _exit(9);
        }
        close(ends[0]);
        CHECK(send(ends[1], "hello", 5, 0) == 5);
        expect(ends[1], "hello");
        CHECK(shutdown(ends[1], SHUT_WR) == 0);
        printf("way %d: %d\n", way, ended(child));
        close(ends[1]);
        close(self);
    }
}

static int last[2];

static void farewell(void) {
    CHECK(send(last[0], "bye", 3, 0) == 3);
}

static void *pour(void *argument) {
    char buffer[1000];
    memset(buffer, 'z', sizeof buffer);
    while (send(*(int *)argument, buffer, sizeof buffer, MSG_NOSIGNAL) > 0) {}
    return NULL;
}

/* exit(3) in the middle of other threads' calls; a handler of it still sends. */
static void exit_among_threads(void) {
    for (int round = 0; round < 10; round++) {
        int ends[3][2];
        connected(last);
        for (int i = 0; i < 3; i++)
            connected(ends[i]);
        pid_t child = fork();
        if (child == 0) {
            pthread_t thread;
            close(last[1]);
            atexit(farewell);
            for (int i = 0; i < 3; i++) {
                close(ends[i][1]);
                CHECK(pthread_create(&thread, NULL, pour, &ends[i][0]) == 0);
            }
            usleep(1000 * round);
            exit(7);
        }
        close(last[0]);
        for (int i = 0; i < 3; i++) {
            char buffer[4096];
            ssize_t got;
            close(ends[i][0]);
            while ((got = read(ends[i][1], buffer, sizeof buffer)) > 0)
                CHECK(buffer[0] == 'z' && buffer[got - 1] == 'z');
            CHECK(got == 0 && close(ends[i][1]) == 0);
        }
        expect(last[1], "bye");
        printf("%d: child %d\n", round, ended(child));
        close(last[1]);
    }
}

/* A process that waits uses no processor. */
static void idle(void) {
    int ends[2], group = epoll_create1(0);
    struct epoll_event event = { .events = EPOLLIN }, events[4];
    struct timespec used[2];
    connected(ends);
    CHECK(epoll_ctl(group, EPOLL_CTL_ADD, ends[0], &event) == 0);
    struct pollfd set = { .fd = ends[1], .events = POLLIN };
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used[0]);
    CHECK(epoll_wait(group, events, 4, 1000) == 0 && poll(&set, 1, 1000) == 0);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used[1]);
    double seconds = used[1].tv_sec - used[0].tv_sec + (used[1].tv_nsec - used[0].tv_nsec) / 1e9;
    printf("nearly none of two seconds: %d\n", seconds < 0.2);
}

int main(int count, char **words) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    const struct { const char *name; void (*run)(void); } cases[] = {
        { "names", names }, { "numbers", numbers }, { "everything_closed", everything_closed }, { "pipes", pipes },
        { "stdio", stdio }, { "children", children }, { "asynchronous", asynchronous },
        { "listener_after_exec", listener_after_exec }, { "images", images },
        { "exit_among_threads", exit_among_threads }, { "idle", idle },
    };
    CHECK(count > 1);
    if (strcmp(words[1], "echo") == 0)
        return echo(atoi(words[2]));
    if (strcmp(words[1], "serve") == 0)
        return echo(accept(atoi(words[2]), NULL, NULL));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (strcmp(cases[i].name, words[1]) == 0)
            return cases[i].run(), printf("end of %s\n", words[1]), 0;
    return 2;
}
