/* A library whose constructor and destructor use connections: it is there before Convoy's constructor ran, and still after its
 * destructor. With -DPROGRAM the program that is linked with it. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

void dial(int which);
void talk(int which, const char *when);

#ifdef PROGRAM
int main(void) {
    talk(0, "in main");
    dial(1);
    talk(1, "in main");
    return 0;
}
#else
/* Two connections, one from before main. */
static int both[2][2];

void talk(int which, const char *when) {
    int sent, got = -1, *ends = both[which];
    for (sent = 0; sent < 100; sent++)
        for (int from = 0; from < 2; from++)
            if (send(ends[from], &sent, sizeof sent, 0) != sizeof sent ||
                recv(ends[1 - from], &got, sizeof got, MSG_WAITALL) != sizeof got || got != sent)
                abort();
    printf("%d %s\n", which, when);
}

void dial(int which) {
    int *ends = both[which];
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, length) || listen(listener, 1) ||
        getsockname(listener, (struct sockaddr *)&address, &length))
        abort();
    ends[0] = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(ends[0], (struct sockaddr *)&address, length) || (ends[1] = accept(listener, NULL, NULL)) < 0)
        abort();
    close(listener);
}

__attribute__((constructor)) static void begin(void) {
    dial(0);
    talk(0, "before main");
}

__attribute__((destructor)) static void end(void) {
    char byte;
    for (int which = 0; which < 2; which++) {
        talk(which, "after main");
        close(both[which][0]);
        printf("end: %zd\n", recv(both[which][1], &byte, 1, 0));
    }
}
#endif
