// Leaks sockets in CLOSE_WAIT on purpose, in every way there is, and says exactly which.
//
// Reads commands from standard input, one a line, and answers each with one line of JSON:
//   consumed N   told EOF and kept          unread N      EOF never read
//   data N       data and EOF never read    unaccepted N  no accept()
//   forked N     told EOF, kept by parent and child
//   flight N     sent over a UNIX socket and not received
//   close N      closes the N oldest that were told EOF
//   open N       connections that are well, as a control
//   crowd P S F  P children, each with F descriptors, together holding S sockets told EOF
//   calm P C     P children, together holding both ends of C connections that are well
//   flip R MS    a socket listens and ceases to by turns, R transitions a second for MS milliseconds
// Ends with its standard input, and its children with it.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_KEPT = 100000, UPLOAD = 3200 };

static int listener, backlog_listener, carrier[2];
static unsigned short port, backlog_port;
static int kept[MAX_KEPT], kept_count, closed_count;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static unsigned long long now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

static int listen_on_loopback(int backlog, unsigned short *where) {
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof addr;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, len) || listen(fd, backlog) ||
        getsockname(fd, (struct sockaddr *)&addr, &len))
        die("listen");
    *where = ntohs(addr.sin_port);
    return fd;
}

static int connect_to(unsigned short to, unsigned short *from) {
    struct sockaddr_in addr = {
        .sin_family = AF_INET, .sin_port = htons(to), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof addr;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&addr, len) || getsockname(fd, (struct sockaddr *)&addr, &len))
        die("connect");
    *from = ntohs(addr.sin_port);
    return fd;
}

// A connection whose client has gone; `upload` bytes were sent before.
static int visited(unsigned short *from, int upload) {
    static char bytes[UPLOAD];
    int client = connect_to(port, from);
    int server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (server < 0) die("accept");
    if (upload && write(client, bytes, upload) != upload) die("write");
    close(client);
    return server;
}

__attribute__((noinline)) static void read_to_the_end_and_forget(int server) {
    char buffer[256];
    while (recv(server, buffer, sizeof buffer, 0) > 0) {  // told EOF here
    }
    kept[kept_count++] = server;
}

static void print_socket(int index, unsigned short local, unsigned short from, int fd, const char *kind,
                         int child) {
    printf("%s{\"local\":\"127.0.0.1:%u\",\"remote\":\"127.0.0.1:%u\",\"kind\":\"%s\",\"holders\":[", index ? "," : "",
           local, from, kind);
    if (fd >= 0) printf("{\"pid\":%d,\"fd\":%d}", getpid(), fd);
    if (child) printf(",{\"pid\":%d,\"fd\":%d}", child, fd);
    printf("]}");
}

// Keeps the last `count` kept sockets and nothing else, until the parent has gone.
static int child_with_the_last(int count) {
    int parent = getpid(), child = fork();
    if (child < 0) die("fork");
    if (child) return child;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(0);
    for (int fd = 0; fd < 65536; fd++) {
        int is_wanted = 0;
        for (int n = kept_count - count; n < kept_count; n++) is_wanted |= kept[n] == fd;
        if (!is_wanted) close(fd);
    }
    for (;;) pause();
}

static void send_away(int fd) {
    char byte = 0, control[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec iov = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    if (sendmsg(carrier[0], &message, 0) != 1) die("sendmsg");
    close(fd);
}

static void crowd(int processes, int sockets, int fds) {
    int null = open("/dev/null", O_RDONLY), parent = getpid();
    for (int n = 0; n < processes; n++) {
        int from = (int)((long)sockets * n / processes), to = (int)((long)sockets * (n + 1) / processes);
        int mine[1024], count = 0;
        for (int s = from; s < to && count < 1024; s++) {
            unsigned short client;
            char byte;
            mine[count] = visited(&client, 0);
            if (recv(mine[count++], &byte, 1, 0) != 0) die("recv");
        }
        int child = fork();
        if (child < 0) die("fork");
        if (child == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (getppid() != parent) _exit(0);
            for (int fd = 3 + count; fd < fds; fd++) dup(null);
            for (;;) pause();
        }
        while (count) close(mine[--count]);
    }
    close(null);
    printf("{\"processes\":%d}\n", processes);
}

// Each child has a listener of its own, so that no destination runs out of ports.
static void calm(int processes, int connections) {
    int ready[2], parent = getpid();
    char byte = 0;
    if (pipe(ready)) die("pipe");
    for (int n = 0; n < processes; n++) {
        int count = (int)((long)connections * (n + 1) / processes - (long)connections * n / processes);
        int child = fork();
        if (child < 0) die("fork");
        if (child) continue;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(0);
        listener = listen_on_loopback(64, &port);
        for (int made = 0; made < count; made++) {
            unsigned short from;
            connect_to(port, &from);
            if (accept(listener, NULL, NULL) < 0) die("accept");
        }
        if (write(ready[1], &byte, 1) != 1) die("write");
        for (;;) pause();
    }
    close(ready[1]);
    for (int n = 0; n < processes; n++)
        if (read(ready[0], &byte, 1) != 1) die("a child has died");
    close(ready[0]);
    printf("{\"connections\":%d}\n", connections);
}

// Two system calls make two transitions: nothing else makes so many in so little time. In pieces of a millisecond.
static void flip(int per_second, int ms) {
    unsigned short where;
    int fd = listen_on_loopback(1, &where), pieces = 0;
    unsigned long long start = now_ns(), transitions = 0, elapsed = 0;
    for (; elapsed < ms * 1000000ULL; elapsed = now_ns() - start) {
        for (; transitions < elapsed / 1000 * per_second / 1000000; transitions += 2)
            if (shutdown(fd, SHUT_RD) || listen(fd, 1)) die("flip");
        struct timespec rest = {0, 200000};
        nanosleep(&rest, NULL);
        pieces++;
    }
    close(fd);
    printf("{\"transitions\":%llu,\"elapsed_ns\":%llu,\"pieces\":%d}\n", transitions, elapsed, pieces);
}

static void leak(const char *kind, int count) {
    unsigned long long after = now_ns();
    int first = kept_count, child = 0;
    static unsigned short from[MAX_KEPT];
    static int fds[MAX_KEPT];
    for (int n = 0; n < count; n++) {
        if (!strcmp(kind, "unaccepted")) {
            close(connect_to(backlog_port, &from[n]));
            fds[n] = -1;
            continue;
        }
        fds[n] = visited(&from[n], strcmp(kind, "data") ? 0 : UPLOAD);
        if (!strcmp(kind, "consumed") || !strcmp(kind, "forked")) read_to_the_end_and_forget(fds[n]);
        if (!strcmp(kind, "flight")) {
            send_away(fds[n]);
            fds[n] = -1;
        }
    }
    if (!strcmp(kind, "forked")) child = child_with_the_last(kept_count - first);
    int is_unaccepted = !strcmp(kind, "unaccepted");
    const char *name = is_unaccepted                ? "not_accepted"
                       : !strcmp(kind, "flight")   ? "in_flight"
                       : !strcmp(kind, "unread")   ? "eof_unread"
                       : !strcmp(kind, "data")     ? "data_unread"
                                                   : "eof_consumed";
    printf("{\"pid\":%d,\"listen\":[\"127.0.0.1:%u\",\"127.0.0.1:%u\"],\"after_ns\":%llu,\"before_ns\":%llu,"
           "\"sockets\":[",
           getpid(), port, backlog_port, after, now_ns());
    for (int n = 0; n < count; n++)
        print_socket(n, is_unaccepted ? backlog_port : port, from[n], fds[n], name, child);
    printf("]}\n");
}

static void close_oldest(int count) {
    for (int n = 0; n < count; n++) close(kept[closed_count++]);
    printf("{\"closed\":%d}\n", count);
}

static void keep_open(int count) {
    for (int n = 0; n < count; n++) {
        unsigned short from;
        connect_to(port, &from);
        if (accept(listener, NULL, NULL) < 0) die("accept");
    }
    printf("{\"open\":%d}\n", count);
}

int main(void) {
    char line[256], command[32];
    // As many as may be had without asking, and no more than child_with_the_last() looks through.
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit)) die("getrlimit");
    limit.rlim_cur = limit.rlim_max < 65536 ? limit.rlim_max : 65536;
    if (setrlimit(RLIMIT_NOFILE, &limit)) die("setrlimit");
    listener = listen_on_loopback(1024, &port);
    backlog_listener = listen_on_loopback(64, &backlog_port);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, carrier)) die("socketpair");
    while (fgets(line, sizeof line, stdin)) {
        int count = 0, sockets = 0, fds = 0;
        if (sscanf(line, "%31s %d %d %d", command, &count, &sockets, &fds) < 2) continue;
        if (!strcmp(command, "close"))
            close_oldest(count);
        else if (!strcmp(command, "open"))
            keep_open(count);
        else if (!strcmp(command, "crowd"))
            crowd(count, sockets, fds);
        else if (!strcmp(command, "calm"))
            calm(count, sockets);
        else if (!strcmp(command, "flip"))
            flip(count, sockets);
        else
            leak(command, count);
        fflush(stdout);
    }
    return 0;
}
