/* A closed-loop load generator: epoll, one thread, HTTP/1.1 keep-alive, 127.0.0.1 only (Linux).
 *
 *   load --port N --request FILE [--connections C] [--seconds S] [--requests R] [--warmup S] [--stream] [--hold]
 *
 * FILE holds one whole HTTP request (head and body); each connection sends it, waits for the whole answer, and sends it
 * again, for S seconds or R requests. Prints one JSON line: requests, requests/s, failures, and p50, p90, p99, p99.9
 * and max of the latency in microseconds (histogram of 1/256 relative width). What ends in the warm-up is not counted.
 *   --stream   the answer is server-sent events from mock.c: also measures the time to the first event, and the lag of
 *              each chunk: the mock writes its CLOCK_MONOTONIC into the content, this is the same clock.
 *   --hold     open C streams; print {"open":C} once each has its first event, read on for S seconds, then report.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    MAX_CONNECTIONS = 20000,
    MAX_SECONDS = 600,
    MAX_REQUEST = 1 << 20,
    READ_BYTES = 65536,
    HEAD_BYTES = 8192, /* most bytes of a response head */
    LINE_BYTES = 2048, /* of a line of an event stream; the rest of a longer line is ignored */
    MAX_EVENTS = 256,
    SUB_BITS = 8,
    BUCKETS = (64 - SUB_BITS + 1) << SUB_BITS,
};

typedef struct {
    uint64_t counts[BUCKETS], total, max;
} histogram;

enum body_state { IN_HEAD, IN_LENGTH, IN_CHUNK_SIZE, IN_CHUNK, IN_CHUNK_END, IN_TRAILER };

typedef struct {
    int fd, is_ok, has_first, keeps_alive, line_len, head_len;
    enum body_state state;
    uint64_t started, left, size;
    int trailer_len;
    char *head, *line;
} conn;

static histogram latency, first_event, chunk_lag;
static conn *conns;
static char *request;
static size_t request_len;
static int port, connection_count = 1, is_stream, is_hold, epoll_fd, in_flight;
static uint64_t request_limit, started_count, measured_from, stop_at;
static uint64_t completed, not_ok, broken, reconnects, first_seen;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void record(histogram *h, uint64_t value) {
    int index = (int)value;
    if (value >= (1u << SUB_BITS)) {
        int shift = 63 - __builtin_clzll(value) - SUB_BITS;
        index = ((shift + 1) << SUB_BITS) + (int)((value >> shift) & ((1 << SUB_BITS) - 1));
    }
    h->counts[index]++;
    h->total++;
    if (value > h->max) h->max = value;
}

/* the middle of the bucket that holds the q-th value */
static double percentile(const histogram *h, double q) {
    if (!h->total) return 0;
    uint64_t rank = (uint64_t)(q * (double)h->total), seen = 0;
    if (rank >= h->total) rank = h->total - 1;
    for (int i = 0; i < BUCKETS; i++) {
        seen += h->counts[i];
        if (seen > rank) {
            int shift = (i >> SUB_BITS) - 1;
            if (shift < 0) return i;
            double low = (double)(((uint64_t)(1 << SUB_BITS) + (uint64_t)(i & ((1 << SUB_BITS) - 1))) << shift);
            double middle = low + (double)(1ull << shift) / 2;
            return middle < (double)h->max ? middle : (double)h->max;
        }
    }
    return (double)h->max;
}

static void print_histogram(const char *name, const histogram *h) {
    printf(",\"%s\":{\"count\":%" PRIu64 ",\"p50\":%.2f,\"p90\":%.2f,\"p99\":%.2f,\"p999\":%.2f,\"max\":%.2f}", name,
           h->total, percentile(h, 0.5) / 1e3, percentile(h, 0.9) / 1e3, percentile(h, 0.99) / 1e3,
           percentile(h, 0.999) / 1e3, (double)h->max / 1e3);
}

static void open_connection(conn *c) {
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0) die("socket");
    int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address)) die("connect");
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &e)) die("epoll_ctl");
}

static int may_start(uint64_t now) {
    if (request_limit && started_count >= request_limit) return 0;
    return now < stop_at;
}

static void send_request(conn *c, uint64_t now) {
    c->state = IN_HEAD;
    c->head_len = c->line_len = c->has_first = 0;
    c->started = now;
    started_count++;
    in_flight++;
    size_t at = 0;
    while (at < request_len) {
        ssize_t n = send(c->fd, request + at, request_len - at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) at += (size_t)n;
        else if (n < 0 && errno == EAGAIN) {
            struct pollfd p = {.fd = c->fd, .events = POLLOUT};
            poll(&p, 1, 1000);
        } else return; /* the read side reports it */
    }
}

static void restart(conn *c) {
    close(c->fd);
    reconnects++;
    open_connection(c);
}

static void finish(conn *c) {
    uint64_t now = now_ns();
    in_flight--;
    if (now >= measured_from) {
        if (request_limit || now < stop_at) completed++;
        if (!c->is_ok) not_ok++;
        record(&latency, now - c->started);
    }
    if (!c->keeps_alive) restart(c);
    if (!is_hold && may_start(now)) send_request(c, now);
    else c->started = 0;
}

static void failed(conn *c) {
    if (c->started) { /* an answer was owed */
        broken++;
        in_flight--;
    }
    c->started = 0;
    restart(c);
    uint64_t now = now_ns();
    if (!is_hold && may_start(now)) send_request(c, now);
}

static void event_line(conn *c) {
    uint64_t now = now_ns();
    c->line[c->line_len] = 0;
    if (strncmp(c->line, "data:", 5) != 0) return;
    const char *content = strstr(c->line, "\"content\":\"");
    if (!content || content[11] < '1' || content[11] > '9') return;
    if (!c->has_first) {
        c->has_first = 1;
        first_seen++;
        if (now >= measured_from) record(&first_event, now - c->started);
    }
    uint64_t sent = strtoull(content + 11, NULL, 10);
    if (now >= measured_from && sent <= now) record(&chunk_lag, now - sent);
}

static void body_bytes(conn *c, const char *data, size_t len) {
    if (!is_stream) return;
    while (len) {
        const char *end = memchr(data, '\n', len);
        size_t part = end ? (size_t)(end - data) : len;
        size_t room = (size_t)(LINE_BYTES - 1 - c->line_len);
        size_t taken = part < room ? part : room;
        memcpy(c->line + c->line_len, data, taken);
        c->line_len += (int)taken;
        if (!end) return;
        event_line(c);
        c->line_len = 0;
        data += part + 1;
        len -= part + 1;
    }
}

/* Reads the head in c->head; 0: it makes no sense. */
static int read_head(conn *c) {
    if (strncmp(c->head, "HTTP/1.1 ", 9) != 0) return 0;
    int status = atoi(c->head + 9);
    c->is_ok = status >= 200 && status < 300;
    c->keeps_alive = 1;
    c->state = IN_LENGTH;
    c->left = 0;
    int has_frame = 0;
    for (char *p = strchr(c->head, '\n'); p; p = strchr(p, '\n')) {
        p++;
        if (strncasecmp(p, "content-length:", 15) == 0) {
            c->left = strtoull(p + 15, NULL, 10);
            has_frame = 1;
        } else if (strncasecmp(p, "transfer-encoding:", 18) == 0) {
            c->state = IN_CHUNK_SIZE;
            c->size = 0;
            has_frame = 1;
        } else if (strncasecmp(p, "connection: close", 17) == 0) c->keeps_alive = 0;
    }
    return has_frame;
}

/* 1: the answer is whole; 0: more is to come; -1: nonsense */
static int feed(conn *c, const char *data, size_t len) {
    size_t at = 0;
    while (at < len || (c->state == IN_LENGTH && !c->left)) {
        switch (c->state) {
        case IN_HEAD: {
            size_t room = (size_t)(HEAD_BYTES - 1 - c->head_len), taken = len - at < room ? len - at : room;
            memcpy(c->head + c->head_len, data + at, taken);
            int before = c->head_len;
            c->head_len += (int)taken;
            char *end = memmem(c->head, (size_t)c->head_len, "\r\n\r\n", 4);
            if (!end) {
                if (c->head_len == HEAD_BYTES - 1) return -1;
                return 0;
            }
            end[2] = 0;
            at += (size_t)(end + 4 - c->head - before);
            if (!read_head(c)) return -1;
            break;
        }
        case IN_LENGTH: {
            size_t taken = len - at < c->left ? len - at : (size_t)c->left;
            body_bytes(c, data + at, taken);
            c->left -= taken;
            at += taken;
            if (!c->left) return 1;
            break;
        }
        case IN_CHUNK_SIZE: {
            char ch = data[at++];
            if (ch == '\n') {
                c->left = c->size;
                c->state = c->size ? IN_CHUNK : IN_TRAILER;
                c->trailer_len = 0;
            } else if (ch >= '0' && ch <= '9') c->size = c->size * 16 + (uint64_t)(ch - '0');
            else if ((ch | 32) >= 'a' && (ch | 32) <= 'f') c->size = c->size * 16 + (uint64_t)((ch | 32) - 'a' + 10);
            else if (ch != '\r') return -1;
            break;
        }
        case IN_CHUNK: {
            size_t taken = len - at < c->left ? len - at : (size_t)c->left;
            body_bytes(c, data + at, taken);
            c->left -= taken;
            at += taken;
            if (!c->left) c->state = IN_CHUNK_END;
            break;
        }
        case IN_CHUNK_END:
            if (data[at++] == '\n') {
                c->state = IN_CHUNK_SIZE;
                c->size = 0;
            }
            break;
        case IN_TRAILER: {
            char ch = data[at++];
            if (ch == '\n') {
                if (!c->trailer_len) return 1;
                c->trailer_len = 0;
            } else if (ch != '\r') c->trailer_len++;
            break;
        }
        }
    }
    return 0;
}

static void load_request(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) die(path);
    request = malloc(MAX_REQUEST);
    if (!request) die("malloc");
    request_len = fread(request, 1, MAX_REQUEST, file);
    fclose(file);
}

int main(int argc, char **argv) {
    double seconds = 5, warmup = 0;
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(name, "--stream")) { is_stream = 1; continue; }
        if (!strcmp(name, "--hold")) { is_hold = is_stream = 1; continue; }
        i++;
        if (!strcmp(name, "--port")) port = atoi(value);
        else if (!strcmp(name, "--request")) load_request(value);
        else if (!strcmp(name, "--connections")) connection_count = atoi(value);
        else if (!strcmp(name, "--seconds")) seconds = atof(value);
        else if (!strcmp(name, "--requests")) request_limit = strtoull(value, NULL, 10);
        else if (!strcmp(name, "--warmup")) warmup = atof(value);
        else {
            fprintf(stderr, "load: unknown option %s\n", name);
            return 2;
        }
    }
    if (!request || !port || connection_count < 1 || connection_count > MAX_CONNECTIONS || seconds + warmup > MAX_SECONDS) {
        fprintf(stderr, "load: needs --port and --request; connections 1..%d; at most %d s\n", MAX_CONNECTIONS, MAX_SECONDS);
        return 2;
    }
    epoll_fd = epoll_create1(0);
    conns = calloc((size_t)connection_count, sizeof *conns);
    if (!conns) die("calloc");
    for (int i = 0; i < connection_count; i++) {
        conns[i].head = malloc(HEAD_BYTES);
        conns[i].line = malloc(LINE_BYTES);
        if (!conns[i].head || !conns[i].line) die("malloc");
        open_connection(&conns[i]);
    }
    uint64_t begun = now_ns();
    measured_from = begun + (uint64_t)(warmup * 1e9);
    stop_at = measured_from + (uint64_t)(seconds * 1e9);
    for (int i = 0; i < connection_count; i++) send_request(&conns[i], now_ns());

    static char data[READ_BYTES];
    struct epoll_event events[MAX_EVENTS];
    int has_told = 0;
    uint64_t patience = stop_at + 30000000000u; /* an answer that never comes does not hang the harness */
    while (in_flight) {
        uint64_t now = now_ns();
        if (now > patience || (is_hold && has_told && now > stop_at)) break;
        int n = epoll_wait(epoll_fd, events, MAX_EVENTS, 100);
        if (n < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < n; i++) {
            conn *c = events[i].data.ptr;
            ssize_t got = recv(c->fd, data, sizeof data, MSG_DONTWAIT);
            if (got < 0 && errno == EAGAIN) continue;
            if (got <= 0) {
                failed(c);
                continue;
            }
            if (!c->started) continue;
            int result = feed(c, data, (size_t)got);
            if (result > 0) finish(c);
            else if (result < 0) failed(c);
        }
        if (is_hold && !has_told && first_seen >= (uint64_t)connection_count) {
            has_told = 1;
            stop_at = now_ns() + (uint64_t)(seconds * 1e9);
            patience = stop_at + 30000000000u;
            printf("{\"open\":%d}\n", connection_count);
            fflush(stdout);
        }
    }
    uint64_t now = now_ns();
    uint64_t ended = now < stop_at || request_limit ? now : stop_at;
    double lasted = (double)(ended - measured_from) / 1e9;
    printf("{\"requests\":%" PRIu64 ",\"seconds\":%.3f,\"per_second\":%.1f,\"not_ok\":%" PRIu64 ",\"broken\":%" PRIu64
           ",\"reconnects\":%" PRIu64 ",\"unanswered\":%d", completed, lasted, (double)completed / lasted, not_ok, broken,
           reconnects, in_flight);
    print_histogram("latency_us", &latency);
    if (is_stream) {
        print_histogram("first_event_us", &first_event);
        print_histogram("chunk_lag_us", &chunk_lag);
    }
    printf("}\n");
    return 0;
}
