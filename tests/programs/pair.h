/* A connection of a program to itself, over loopback, with traffic that has left the kernel. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include "exchange.h"

static struct sockaddr_in address;

static int bound(void) {
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    address = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    CHECK(bind(listener, (struct sockaddr *)&address, length) == 0);
    CHECK(getsockname(listener, (struct sockaddr *)&address, &length) == 0);
    return listener;
}

static int dial(void) {
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) == 0);
    return fd;
}

/* Two ends in this process, with traffic that has left the kernel. */
static void connected(int ends[2]) {
    int listener = bound();
    CHECK(listen(listener, 4) == 0);
    ends[0] = dial();
    ends[1] = accept(listener, NULL, NULL);
    CHECK(ends[1] >= 0 && close(listener) == 0);
    exchange(ends, 50);
}
