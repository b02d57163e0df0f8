/* A mock upstream for benchmarks: epoll, one thread, HTTP/1.1 keep-alive, 127.0.0.1 only (Linux).
 *
 *   mock [--port N] [--chunks K] [--first-ms F] [--chunk-ms D]
 *
 * Prints {"port":N} and serves until it is killed.
 *   POST <any>                    a canned OpenAI chat.completion with usage and an id of its own, after A ms; if the
 *                                 body asks for "stream":true, K
 *                                 server-sent chunks: the first after F ms, each other D ms later (0: all at once).
 *                                 The content of a chunk is this machine's CLOCK_MONOTONIC in nanoseconds as it leaves.
 *   GET /_count                   {"requests":N,"streams":N,"open_streams":N,"chunks":N}
 *   GET /_lost                    [{"user":"U","at_ns":T},...]: streams whose body named a "user" and whose connection
 *                                 was lost before their end, since the last time it was asked; T is CLOCK_MONOTONIC.
 *   GET /_set?chunks=K&first_ms=F&chunk_ms=D&answer_ms=A    for the requests that come from now on
 * It must be far faster than what is measured through it, so it parses only what it needs: the length of the body, and
 * whether it streams. Requests need a content-length.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum {
    MAX_FDS = 65536,
    MAX_REQUEST = 1 << 20,  /* bytes of head and body */
    FIRST_BUFFER = 4096,
    MAX_EVENTS = 256,
    MAX_CHUNKS = 100000,
    BACKLOG = 4096,
    MAX_USER = 32,
};

typedef struct {
    char *in;
    size_t in_len, in_size;
    char *out; /* what the socket has not taken yet */
    size_t out_len, out_size, out_at;
    int chunks_left; /* of the open stream; 0: none */
    int owes_answer; /* a whole answer is due later */
    int wants_usage;
    uint64_t number; /* of its latest request: what makes the answer's id its own */
    uint32_t generation; /* tells a timer of an earlier connection with the same fd */
    int wants_write;
    char user[MAX_USER]; /* of the open stream; "": not named */
} conn;

typedef struct {
    char user[MAX_USER];
    uint64_t at;
} loss;

typedef struct {
    uint64_t due;
    int fd;
    uint32_t generation;
} timer;

static conn *conns[MAX_FDS];
static timer *heap;
static size_t heap_len, heap_size;
static int epoll_fd, timer_fd;
static uint32_t generations;
static uint64_t request_count, stream_count, open_streams, chunks_written;
static loss *losses;
static size_t losses_len, losses_size;
static int chunk_count = 50;
static double first_ms = 0, chunk_ms = 0, answer_ms = 0;

static const char ANSWER_BODY[] =
    "{\"id\":\"chatcmpl-bench0000000000000000000000\",\"object\":\"chat.completion\",\"created\":1790000000,"
    "\"model\":\"gpt-4o-mini\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":"
    "\"A short answer of the kind that a benchmark likes.\",\"refusal\":null},\"logprobs\":null,"
    "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":120,\"completion_tokens\":80,\"total_tokens\":200,"
    "\"prompt_tokens_details\":{\"cached_tokens\":0}},\"service_tier\":\"default\"}";
static char answer[1024];
static size_t answer_len, answer_id_end;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void *grown(void *old, size_t size) {
    void *p = realloc(old, size);
    if (!p) die("realloc");
    return p;
}

/* the heap of chunks that are due later */

static void heap_push(timer t) {
    if (heap_len == heap_size) {
        heap_size = heap_size ? heap_size * 2 : 1024;
        heap = grown(heap, heap_size * sizeof *heap);
    }
    size_t i = heap_len++;
    while (i && heap[(i - 1) / 2].due > t.due) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = t;
}

static timer heap_pop(void) {
    timer top = heap[0], last = heap[--heap_len];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= heap_len) break;
        if (child + 1 < heap_len && heap[child + 1].due < heap[child].due) child++;
        if (heap[child].due >= last.due) break;
        heap[i] = heap[child];
        i = child;
    }
    if (heap_len) heap[i] = last;
    return top;
}

static void arm(void) {
    struct itimerspec spec = {0};
    if (heap_len) {
        spec.it_value.tv_sec = (time_t)(heap[0].due / 1000000000u);
        spec.it_value.tv_nsec = (long)(heap[0].due % 1000000000u);
    }
    timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &spec, NULL);
}

/* connections */

static void note_loss(conn *c) {
    if (losses_len == losses_size) {
        losses_size = losses_size ? losses_size * 2 : 256;
        losses = grown(losses, losses_size * sizeof *losses);
    }
    losses[losses_len].at = now_ns();
    memcpy(losses[losses_len++].user, c->user, MAX_USER);
}

static void drop(int fd) {
    conn *c = conns[fd];
    if (!c) return;
    if (c->chunks_left) {
        open_streams--;
        if (c->user[0]) note_loss(c);
    }
    close(fd);
    free(c->in);
    free(c->out);
    free(c);
    conns[fd] = NULL;
}

static void watch(int fd, int wants_write) {
    conn *c = conns[fd];
    if (c->wants_write == wants_write) return;
    c->wants_write = wants_write;
    struct epoll_event e = {.events = EPOLLIN | (wants_write ? EPOLLOUT : 0), .data.fd = fd};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &e);
}

static void queue_bytes(conn *c, const char *data, size_t len) {
    if (c->out_len + len > c->out_size) {
        c->out_size = (c->out_len + len) * 2;
        c->out = grown(c->out, c->out_size);
    }
    memcpy(c->out + c->out_len, data, len);
    c->out_len += len;
}

/* 0: the connection is gone */
static int flush(int fd) {
    conn *c = conns[fd];
    while (c->out_at < c->out_len) {
        ssize_t n = send(fd, c->out + c->out_at, c->out_len - c->out_at, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EAGAIN) {
                watch(fd, 1);
                return 1;
            }
            drop(fd);
            return 0;
        }
        c->out_at += (size_t)n;
    }
    c->out_at = c->out_len = 0;
    watch(fd, 0);
    return 1;
}

static void queue_event(conn *c, const char *format, ...) {
    char text[1024], head[16];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    queue_bytes(c, head, (size_t)snprintf(head, sizeof head, "%x\r\n", len));
    queue_bytes(c, text, (size_t)len);
    queue_bytes(c, "\r\n", 2);
}

/* takes the conn's number */
#define EVENT_HEAD                                                                                                  \
    "data: {\"id\":\"chatcmpl-bench%022" PRIu64 "\",\"object\":\"chat.completion.chunk\",\"created\":1790000000,"                   \
    "\"model\":\"gpt-4o-mini\",\"choices\":["

static void queue_chunk(conn *c) {
    queue_event(c, EVENT_HEAD "{\"index\":0,\"delta\":{\"content\":\"%" PRIu64 " \"},\"finish_reason\":null}]}\n\n", c->number, now_ns());
    chunks_written++;
    if (--c->chunks_left) return;
    open_streams--;
    queue_event(c, EVENT_HEAD "{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n", c->number);
    if (c->wants_usage)
        queue_event(c, EVENT_HEAD "],\"usage\":{\"prompt_tokens\":120,\"completion_tokens\":80,\"total_tokens\":200}}\n\n", c->number);
    queue_event(c, "data: [DONE]\n\n");
    queue_bytes(c, "0\r\n\r\n", 5);
}

static void queue_answer(conn *c) {
    uint64_t left = c->number;
    for (char *digit = answer + answer_id_end; left || digit > answer + answer_id_end - 20; left /= 10)
        *--digit = (char)('0' + left % 10);
    queue_bytes(c, answer, answer_len);
}

static void schedule(int fd, uint64_t due) {
    int is_first = heap_len == 0 || due < heap[0].due;
    heap_push((timer){due, fd, conns[fd]->generation});
    if (is_first) arm();
}

static void start_stream(int fd) {
    static const char head[] =
        "HTTP/1.1 200 OK\r\nserver: bench\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
        "transfer-encoding: chunked\r\n\r\n";
    conn *c = conns[fd];
    stream_count++;
    open_streams++;
    c->chunks_left = chunk_count;
    queue_bytes(c, head, sizeof head - 1);
    if (first_ms > 0) {
        schedule(fd, now_ns() + (uint64_t)(first_ms * 1e6));
        return;
    }
    queue_chunk(c);
    if (chunk_ms > 0) {
        if (c->chunks_left) schedule(fd, now_ns() + (uint64_t)(chunk_ms * 1e6));
        return;
    }
    while (c->chunks_left) queue_chunk(c);
}

static void run_timers(void) {
    uint64_t expirations, now = now_ns();
    if (read(timer_fd, &expirations, sizeof expirations) < 0 && errno != EAGAIN) die("timerfd");
    while (heap_len && heap[0].due <= now) {
        timer t = heap_pop();
        conn *c = conns[t.fd];
        if (!c || c->generation != t.generation) continue;
        if (c->owes_answer) {
            c->owes_answer = 0;
            queue_answer(c);
            flush(t.fd);
            continue;
        }
        if (!c->chunks_left) continue;
        queue_chunk(c);
        if (chunk_ms <= 0)
            while (c->chunks_left) queue_chunk(c);
        if (c->chunks_left) heap_push((timer){t.due + (uint64_t)(chunk_ms * 1e6), t.fd, t.generation});
        flush(t.fd);
    }
    arm();
}

/* requests */

static void queue_json(conn *c, const char *format, ...) {
    char body[256], head[128];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(body, sizeof body, format, args);
    va_end(args);
    queue_bytes(c, head, (size_t)snprintf(head, sizeof head,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n", len));
    queue_bytes(c, body, (size_t)len);
}

static void set_from_query(const char *line) {
    const char *p;
    if ((p = strstr(line, "chunks="))) {
        int n = atoi(p + 7);
        if (n >= 1 && n <= MAX_CHUNKS) chunk_count = n;
    }
    if ((p = strstr(line, "first_ms="))) first_ms = atof(p + 9);
    if ((p = strstr(line, "chunk_ms="))) chunk_ms = atof(p + 9);
    if ((p = strstr(line, "answer_ms="))) answer_ms = atof(p + 10);
}

static int body_has(const char *body, size_t len, const char *name, size_t name_len) {
    const char *p = memmem(body, len, name, name_len);
    if (!p) return 0;
    const char *end = body + len;
    for (p += name_len; p < end && (*p == ' ' || *p == ':'); p++) {}
    return end - p >= 4 && memcmp(p, "true", 4) == 0;
}

/* The text after "user":, without its quotes; "" if there is none, or one too long or escaped. */
static void copy_user(conn *c, const char *body, size_t len) {
    const char *p = memmem(body, len, "\"user\"", 6), *end = body + len;
    c->user[0] = 0;
    if (!p) return;
    for (p += 6; p < end && (*p == ' ' || *p == ':'); p++) {}
    if (p == end || *p++ != '"') return;
    const char *quote = memchr(p, '"', (size_t)(end - p));
    if (!quote || quote - p >= MAX_USER || memchr(p, '\\', (size_t)(quote - p))) return;
    memcpy(c->user, p, (size_t)(quote - p));
    c->user[quote - p] = 0;
}

static void queue_losses(conn *c) {
    char head[128], row[128];
    size_t size = 2;
    for (size_t i = 0; i < losses_len; i++)
        size += (size_t)snprintf(row, sizeof row, "%s{\"user\":\"%s\",\"at_ns\":%" PRIu64 "}", i ? "," : "", losses[i].user, losses[i].at);
    queue_bytes(c, head, (size_t)snprintf(head, sizeof head,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n[", size));
    for (size_t i = 0; i < losses_len; i++)
        queue_bytes(c, row, (size_t)snprintf(row, sizeof row, "%s{\"user\":\"%s\",\"at_ns\":%" PRIu64 "}", i ? "," : "", losses[i].user, losses[i].at));
    queue_bytes(c, "]", 1);
    losses_len = 0;
}

/* The body's length from a head that ends in a NUL, 0 if it names none; -1 if it is chunked. */
static long content_length(const char *head) {
    for (const char *p = strchr(head, '\n'); p; p = strchr(p, '\n')) {
        p++;
        if (strncasecmp(p, "content-length:", 15) == 0) return atol(p + 15);
        if (strncasecmp(p, "transfer-encoding:", 18) == 0) return -1;
    }
    return 0;
}

static void handle(int fd, const char *head, const char *body, size_t body_len) {
    conn *c = conns[fd];
    if (memcmp(head, "POST", 4) == 0) {
        c->number = ++request_count;
        if (body_has(body, body_len, "\"stream\"", 8)) {
            c->wants_usage = body_has(body, body_len, "\"include_usage\"", 15);
            copy_user(c, body, body_len);
            start_stream(fd);
        } else if (answer_ms > 0) {
            c->owes_answer = 1;
            schedule(fd, now_ns() + (uint64_t)(answer_ms * 1e6));
        } else {
            queue_answer(c);
        }
    } else if (strncmp(head, "GET /_set", 9) == 0) {
        char line[256];
        snprintf(line, sizeof line, "%.*s", (int)strcspn(head, "\r"), head);
        set_from_query(line);
        queue_json(c, "{\"chunks\":%d,\"first_ms\":%g,\"chunk_ms\":%g,\"answer_ms\":%g}", chunk_count, first_ms, chunk_ms,
                   answer_ms);
    } else if (strncmp(head, "GET /_lost", 10) == 0) {
        queue_losses(c);
    } else {
        queue_json(c, "{\"requests\":%" PRIu64 ",\"streams\":%" PRIu64 ",\"open_streams\":%" PRIu64 ",\"chunks\":%" PRIu64 "}",
                   request_count, stream_count, open_streams, chunks_written);
    }
}

static void readable(int fd) {
    conn *c = conns[fd];
    if (c->in_len == c->in_size) {
        if (c->in_size >= MAX_REQUEST) {
            drop(fd);
            return;
        }
        c->in_size = c->in_size ? c->in_size * 2 : FIRST_BUFFER;
        c->in = grown(c->in, c->in_size + 1);
    }
    ssize_t n = recv(fd, c->in + c->in_len, c->in_size - c->in_len, 0);
    if (n == 0 || (n < 0 && errno != EAGAIN)) {
        drop(fd);
        return;
    }
    if (n < 0) return;
    c->in_len += (size_t)n;
    size_t at = 0;
    while (at < c->in_len && !c->chunks_left && !c->owes_answer) {
        char *head = c->in + at;
        char *end = memmem(head, c->in_len - at, "\r\n\r\n", 4);
        if (!end) break;
        end[2] = 0;
        long length = content_length(head);
        end[2] = '\r';
        if (length < 0 || length > MAX_REQUEST) {
            drop(fd);
            return;
        }
        char *body = end + 4;
        if ((size_t)(c->in + c->in_len - body) < (size_t)length) break;
        handle(fd, head, body, (size_t)length);
        at = (size_t)(body - c->in) + (size_t)length;
    }
    if (at) {
        memmove(c->in, c->in + at, c->in_len - at);
        c->in_len -= at;
    }
    if (c->out_len) flush(fd);
}

static void accept_all(int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        if (fd < 0) return;
        if (fd >= MAX_FDS) {
            close(fd);
            continue;
        }
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        conn *c = calloc(1, sizeof *c);
        if (!c) die("calloc");
        c->generation = ++generations;
        conns[fd] = c;
        struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e);
    }
}

int main(int argc, char **argv) {
    int port = 0;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--port")) port = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--chunks")) chunk_count = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--first-ms")) first_ms = atof(argv[i + 1]);
        else if (!strcmp(argv[i], "--chunk-ms")) chunk_ms = atof(argv[i + 1]);
        else {
            fprintf(stderr, "mock: unknown option %s\n", argv[i]);
            return 2;
        }
    }
    if (chunk_count < 1 || chunk_count > MAX_CHUNKS) {
        fprintf(stderr, "mock: --chunks 1..%d\n", MAX_CHUNKS);
        return 2;
    }
    answer_len = (size_t)snprintf(answer, sizeof answer,
        "HTTP/1.1 200 OK\r\nserver: bench\r\ncontent-type: application/json\r\nx-request-id: req_bench\r\n"
        "content-length: %zu\r\n\r\n%s", sizeof ANSWER_BODY - 1, ANSWER_BODY);

    answer_id_end = (size_t)(strstr(answer, "chatcmpl-bench") - answer) + strlen("chatcmpl-bench") + 22;

    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, BACKLOG)) die("bind");
    socklen_t size = sizeof address;
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("{\"port\":%d}\n", ntohs(address.sin_port));
    fflush(stdout);

    epoll_fd = epoll_create1(0);
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event e = {.events = EPOLLIN, .data.fd = listener};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &e);
    e.data.fd = timer_fd;
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer_fd, &e);
    struct epoll_event events[MAX_EVENTS];
    for (;;) {
        int n = epoll_wait(epoll_fd, events, MAX_EVENTS, -1);
        if (n < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) accept_all(listener);
            else if (fd == timer_fd) run_timers();
            else if (!conns[fd]) continue;
            else {
                if ((events[i].events & EPOLLOUT) && !flush(fd)) continue;
                if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(fd);
            }
        }
    }
}
