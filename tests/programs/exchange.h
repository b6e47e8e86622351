/* What the C programs share: a check that ends the program with a line, and traffic between two ends. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#define CHECK(condition) \
    do { if (!(condition)) { printf("line %d: %s (errno %d)\n", __LINE__, #condition, errno); exit(1); } } while (0)

static void exchange(const int ends[2], int count) {
    for (int round = 0; round < count; round++) {
        int sent = round * 7, received = -1;
        for (int from = 0; from < 2; from++) {
            CHECK(send(ends[from], &sent, sizeof sent, 0) == sizeof sent);
            CHECK(recv(ends[1 - from], &received, sizeof received, MSG_WAITALL) == sizeof received);
            CHECK(received == sent);
        }
    }
}
