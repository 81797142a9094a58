/*
 * recording_fuzz.c - any bytes as a line of a trace, as a stored message and as a mailbox: what is
 * read lies inside what was given, and a mailbox loses no message by being read from its middle.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "jsonl.h"
#include "mbox.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
    if (!ok)
        abort();
}

static void recording_holds(const struct recording *r, size_t size)
{
    size_t bytes = r->data.n + r->from.n + r->label.n;
    for (size_t i = 0; i < r->nrcpts; i++)
        bytes += r->rcpts[i].n;
    must(bytes <= 4 * size + 64 && r->nrcpts <= size && r->time >= -1);
}

static void as_line(struct span s)
{
    struct arena *a = arena_new();
    struct recording r;
    if (s.n < 5 || memmem(s.p, s.n, "\"eml\"", 5) == NULL) /* no files here */
        if (!jsonl_read(&r, a, s, "trace"))
            recording_holds(&r, s.n);
    arena_free(&a);
}

static void as_mail(const struct keys *keys, struct span s)
{
    struct arena *a = arena_new();
    struct recording r;
    size_t line = span_find(s, '\n');
    recording_of_mail(&r, a, keys, span_head(s, line), span_from(s, line + 1));
    recording_holds(&r, s.n);
    must(r.data.n <= s.n);
    arena_free(&a);
}

enum { MAILS = 64 };

static void as_mailbox(struct span s)
{
    char path[40];
    int fd = memfd_create("mailbox", 0);
    must(fd >= 0 && write(fd, s.p, s.n) == (ssize_t)s.n);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    struct mbox *m = mbox_open(path);
    struct mbox_mail mail, again;
    struct arena *a = arena_new();
    size_t bytes = 0, n = 0;
    off_t last = -1;
    must(m != NULL);
    for (; n < MAILS && mbox_next(m, a, 1 << 20, &again); n++) {
        must(again.at > last && !again.cut);
        last = again.at;
        mail = again;
        bytes += mail.message.n;
    }
    must(bytes <= s.n);
    if (n) {
        mbox_seek(m, last);
        must(mbox_next(m, a, 1 << 20, &again) && span_eq(again.message, mail.message));
    }
    arena_free(&a);
    mbox_close(&m);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t site[32] = {5};
    static struct keys keys;
    if (keys.mac == NULL && keys_open(&keys, site) != 0)
        return 0;
    struct span s = span_of(data, size);
    as_line(s);
    as_mail(&keys, s);
    as_mailbox(s);
    return 0;
}
