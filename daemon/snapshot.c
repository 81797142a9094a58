/*
 * snapshot.c - see snapshot.h.
 *
 *   file  = magic[8] version[4] tally_version[4] key_id[4] time[8] crc32[4] block...
 *   block = kind[4] length[4] crc32[4] payload            (numbers little-endian; the CRC covers
 *                                                          kind, length and payload)
 *   record: last[8] k[12] packed          tallies: (key[8] value[56])...
 *   state:  key[8] used[8] life[8] version[4] name[16] bytes
 *   text:   length[2] name text
 *   end: records[8] tallies[8] states[8] texts[8]
 *
 * It is read twice: first all of it is checked, then taken, records in the order of their last
 * copies. Invariant: a file that ends in its end block is whole; no other is believed.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crc.h"
#include "failpoint.h"
#include "snapshot.h"
#include "states.h"
#include "tallies.h"

enum {
    VERSION = 3,
    END_BYTES = 32,
    HEAD = 32,
    BLOCK_HEAD = 12,
    BLOCK_MAX = 64 << 20,
    RECORD_HEAD = 8 + 12,
    STATE_NAME = 16,
    STATE_HEAD = 3 * 8 + 4 + STATE_NAME,
    TALLY_ROW = 8 + TALLY_VALUE,
    AT_ONCE = 256, /* records or tallies between two looks at the store */
    PATH_ROOM = 4096
};
static const uint64_t file_most = UINT64_C(1) << 30; /* bytes; plain records beyond are left out */
static const uint8_t magic[8] = {'B', 'W', 'S', 'N', 'A', 'P', 0, 0xff};

enum kind { KIND_RECORD = 1, KIND_TALLIES, KIND_STATE, KIND_END, KIND_TEXT };

/* ---- writing ---- */

struct writer {
    FILE *file;
    uint64_t bytes;
    bool failed; /* in the middle of texts */
    struct snapshot_figures *figures;
};

static int put(struct writer *w, const void *p, size_t n)
{
    w->bytes += n;
    return fwrite(p, 1, n, w->file) == n ? 0 : -1;
}

static int put_block(struct writer *w, enum kind kind, struct span a, struct span b)
{
    uint8_t head[BLOCK_HEAD];
    bytes_put(head, kind, 4);
    bytes_put(head + 4, a.n + b.n, 4);
    uint32_t crc = crc32_add(crc32_add(crc32_add(0, head, 8), a.p, a.n), b.p, b.n);
    bytes_put(head + 8, crc, 4);
    return put(w, head, sizeof head) || put(w, a.p, a.n) || (b.n && put(w, b.p, b.n)) ? -1 : 0;
}

static int put_record(struct writer *w, const struct packed *p)
{
    uint8_t head[RECORD_HEAD];
    memcpy(bytes_put(head, (uint64_t)p->last, 8), p->k.byte, sizeof p->k.byte);
    w->figures->records++;
    return put_block(w, KIND_RECORD, span_of(head, sizeof head), span_of(p->bytes, p->n));
}

static int put_records(struct writer *w, struct store *store)
{
    struct packed packed[AT_ONCE];
    struct store_cursor c = {0};
    size_t n;
    int rc = 0;
    while (!rc && w->bytes < file_most && store_memory_pack(store, &c, packed, AT_ONCE, &n))
        for (size_t i = 0; i < n; i++) {
            rc = rc ? rc : put_record(w, &packed[i]);
            free(packed[i].bytes);
        }
    return rc;
}

static int put_tallies(struct writer *w, struct tally_table *t)
{
    static const struct span nothing;
    struct tally_row row[AT_ONCE];
    uint8_t bytes[AT_ONCE * TALLY_ROW];
    size_t at = 0, n;
    while ((n = tally_table_rows(t, &at, row, AT_ONCE)) > 0) {
        for (size_t i = 0; i < n; i++)
            memcpy(bytes_put(bytes + i * TALLY_ROW, row[i].key, 8), row[i].value, TALLY_VALUE);
        w->figures->tallies += n;
        if (put_block(w, KIND_TALLIES, span_of(bytes, n * TALLY_ROW), nothing))
            return -1;
    }
    return 0;
}

/* States are copied first: nothing is written under their lock. */
struct heap {
    uint8_t *p;
    size_t n, cap;
    uint64_t states;
};

static void copy_state(void *arg, const struct state_row *r)
{
    struct heap *h = arg;
    size_t need = h->n + 4 + STATE_HEAD + r->bytes.n;
    if (need > h->cap && !(h->p = realloc(h->p, h->cap = 2 * need)))
        abort();
    uint8_t *p = h->p + h->n;
    p = bytes_put(p, STATE_HEAD + r->bytes.n, 4);
    p = bytes_put(p, r->key, 8);
    p = bytes_put(p, (uint64_t)r->used, 8);
    p = bytes_put(p, (uint64_t)r->life, 8);
    p = bytes_put(p, r->version, 4);
    memset(p, 0, STATE_NAME);
    memcpy(p, r->detector, strnlen(r->detector, STATE_NAME - 1));
    memcpy(p + STATE_NAME, r->bytes.p, r->bytes.n);
    h->n = need;
    h->states++;
}

static int put_states(struct writer *w, struct states *states)
{
    static const struct span nothing;
    struct heap h = {0};
    int rc = 0;
    states_each(states, copy_state, &h);
    for (size_t at = 0, n; at < h.n && !rc; at += 4 + n) {
        n = bytes_get(h.p + at, 4);
        rc = put_block(w, KIND_STATE, span_of(h.p + at + 4, n), nothing);
    }
    w->figures->states = h.states;
    free(h.p);
    return rc;
}

static int put_text(void *to, struct span name, struct span text)
{
    struct writer *w = to;
    uint8_t head[2 + UINT8_MAX];
    name = span_head(name, UINT8_MAX);
    memcpy(bytes_put(head, name.n, 2), name.p, name.n);
    if (put_block(w, KIND_TEXT, span_of(head, 2 + name.n), text))
        w->failed = true;
    w->figures->texts++;
    return w->failed;
}

static int put_all(struct writer *w, uint32_t key_id, struct store *store,
                   const struct snapshot_texts *texts)
{
    static const struct span nothing;
    uint8_t head[HEAD] = {0}, end[END_BYTES];
    memcpy(head, magic, sizeof magic);
    bytes_put(head + 8, VERSION, 4);
    bytes_put(head + 12, TALLY_VERSION, 4);
    bytes_put(head + 16, key_id, 4);
    bytes_put(head + 20, (uint64_t)w->figures->time, 8);
    bytes_put(head + 28, crc32_add(0, head, 28), 4);
    if (put(w, head, sizeof head) || put_tallies(w, store_memory_tallies(store)) ||
        put_states(w, store_memory_states(store)))
        return -1;
    if (texts)
        texts->each(texts->arg, put_text, w);
    if (w->failed || put_records(w, store))
        return -1;
    bytes_put(end, w->figures->records, 8);
    bytes_put(end + 8, w->figures->tallies, 8);
    bytes_put(end + 16, w->figures->states, 8);
    bytes_put(end + 24, w->figures->texts, 8);
    return put_block(w, KIND_END, span_of(end, sizeof end), nothing);
}

static int sync_directory(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = fd < 0 ? -1 : fsync(fd);
    if (fd >= 0)
        close(fd);
    return rc;
}

static int write_file(const char *path, uint32_t key_id, struct store *store,
                      const struct snapshot_texts *texts, struct snapshot_figures *f)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    struct writer w = {.file = fd < 0 ? NULL : fdopen(fd, "w"), .figures = f};
    if (!w.file)
        return -1;
    int rc = put_all(&w, key_id, store, texts) || fflush(w.file) || fsync(fd) ||
                     FAILPOINT("snapshot.written")
                 ? -1
                 : 0;
    int why = errno;
    fclose(w.file);
    errno = why;
    return rc;
}

int snapshot_keep(const char *dir, const char *name, uint32_t key_id, struct store *store,
                  const struct snapshot_texts *texts, int64_t now, struct snapshot_figures *f,
                  char error[512])
{
    char fresh[PATH_ROOM], path[PATH_ROOM];
    *f = (struct snapshot_figures){.time = now};
    snprintf(fresh, sizeof fresh, "%s/%s.new", dir, name);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (write_file(fresh, key_id, store, texts, f) || rename(fresh, path) || sync_directory(dir)) {
        snprintf(error, 512, "cannot write %.300s: %s", path, strerror(errno));
        unlink(fresh);
        return -1;
    }
    return 0;
}

int snapshot_write(const char *dir, uint32_t key_id, struct store *store,
                   const struct snapshot_texts *texts, int64_t now, struct snapshot_figures *f,
                   char error[512])
{
    char fresh[PATH_ROOM], path[PATH_ROOM], before[PATH_ROOM];
    *f = (struct snapshot_figures){.time = now};
    snprintf(fresh, sizeof fresh, "%s/" SNAPSHOT_NAME ".new", dir);
    snprintf(path, sizeof path, "%s/" SNAPSHOT_NAME, dir);
    snprintf(before, sizeof before, "%s/" SNAPSHOT_BEFORE, dir);
    if (write_file(fresh, key_id, store, texts, f) || (rename(path, before) && errno != ENOENT) ||
        rename(fresh, path) || sync_directory(dir)) {
        snprintf(error, 512, "cannot write %.300s: %s", path, strerror(errno));
        unlink(fresh);
        return -1;
    }
    return 0;
}

/* ---- reading ---- */

struct where {
    int64_t last;
    off_t at; /* of the block */
};

struct reader {
    FILE *file;
    off_t at; /* of the next block */
    uint8_t *block;
    size_t cap;
    struct snapshot_figures found, promised;
    struct where *record;
    size_t nrecords, caprecords;
};

/* The next block into r->block. Its kind; 0: not a whole block. */
static unsigned next_block(struct reader *r, struct span *payload)
{
    uint8_t head[BLOCK_HEAD];
    if (fread(head, 1, sizeof head, r->file) != sizeof head)
        return 0;
    size_t n = bytes_get(head + 4, 4);
    if (n > BLOCK_MAX)
        return 0;
    if (n > r->cap && !(r->block = realloc(r->block, r->cap = 2 * n)))
        abort();
    if (fread(r->block, 1, n, r->file) != n ||
        crc32_add(crc32_add(0, head, 8), r->block, n) != bytes_get(head + 8, 4))
        return 0;
    r->at += (off_t)(sizeof head + n);
    *payload = span_of(r->block, n);
    return (unsigned)bytes_get(head, 4);
}

static const char *read_head(struct reader *r, uint32_t key_id)
{
    uint8_t head[HEAD];
    if (fread(head, 1, sizeof head, r->file) != sizeof head ||
        memcmp(head, magic, sizeof magic) != 0 || bytes_get(head + 28, 4) != crc32_add(0, head, 28))
        return "it has no head";
    if (bytes_get(head + 8, 4) != VERSION || bytes_get(head + 12, 4) != TALLY_VERSION)
        return "it is of another version of breakwater";
    if (bytes_get(head + 16, 4) != key_id)
        return "it was made with another site key";
    r->found.time = (int64_t)bytes_get(head + 20, 8);
    r->at = HEAD;
    return NULL;
}

static void note_record(struct reader *r, int64_t last, off_t at)
{
    if (r->nrecords == r->caprecords &&
        !(r->record =
              reallocarray(r->record, r->caprecords = 2 * r->caprecords + 1024, sizeof *r->record)))
        abort();
    r->record[r->nrecords++] = (struct where){last, at};
}

/* Is a block of this kind as long as it must be? */
static bool sound(unsigned kind, struct span s)
{
    switch (kind) {
    case KIND_RECORD:
        return s.n >= RECORD_HEAD;
    case KIND_TALLIES:
        return s.n % TALLY_ROW == 0;
    case KIND_STATE:
        return s.n >= STATE_HEAD;
    case KIND_TEXT:
        return s.n >= 2 && s.n - 2 >= bytes_get(s.p, 2);
    case KIND_END:
        return s.n == END_BYTES;
    default:
        return false;
    }
}

/* The first reading: NULL if all of it is whole, else what is wrong. */
static const char *check(struct reader *r, uint32_t key_id)
{
    const char *wrong = read_head(r, key_id);
    struct span s;
    unsigned kind = 0;
    while (!wrong && kind != KIND_END) {
        off_t at = r->at;
        kind = next_block(r, &s);
        if (!sound(kind, s))
            return "it is damaged";
        if (kind == KIND_RECORD)
            note_record(r, (int64_t)bytes_get(s.p, 8), at);
        r->found.tallies += kind == KIND_TALLIES ? s.n / TALLY_ROW : 0;
        r->found.states += kind == KIND_STATE;
        r->found.texts += kind == KIND_TEXT;
    }
    if (wrong)
        return wrong;
    r->found.records = r->nrecords;
    bool all = bytes_get(s.p, 8) == r->found.records && bytes_get(s.p + 8, 8) == r->found.tallies &&
               bytes_get(s.p + 16, 8) == r->found.states &&
               bytes_get(s.p + 24, 8) == r->found.texts && fgetc(r->file) == EOF;
    return all ? NULL : "parts of it are missing";
}

static void take_tallies(struct span s, struct store *store, int64_t now)
{
    for (size_t at = 0; at < s.n; at += TALLY_ROW) {
        struct tally_row row = {.key = bytes_get(s.p + at, 8)};
        memcpy(row.value, s.p + at + 8, TALLY_VALUE);
        (void)tally_table_put(store_memory_tallies(store), &row, now);
    }
}

static void take_state(struct span s, struct store *store, int64_t now)
{
    char name[STATE_NAME + 1] = {0};
    memcpy(name, s.p + STATE_HEAD - STATE_NAME, STATE_NAME);
    struct state_row row = {.detector = name,
                            .version = (unsigned)bytes_get(s.p + 24, 4),
                            .key = bytes_get(s.p, 8),
                            .used = (int64_t)bytes_get(s.p + 8, 8),
                            .life = (int64_t)bytes_get(s.p + 16, 8),
                            .bytes = span_from(s, STATE_HEAD)};
    if (now - row.used <= row.life)
        (void)states_put(store_memory_states(store), &row);
}

static int earlier_first(const void *a, const void *b)
{
    const struct where *x = a, *y = b;
    return (x->last > y->last) - (x->last < y->last);
}

static void take_text(struct span s, const struct snapshot_texts *texts)
{
    size_t n = bytes_get(s.p, 2);
    if (texts)
        texts->take(texts->arg, span_of(s.p + 2, n), span_from(s, 2 + n));
}

/* The second reading: what was learned. */
static void take_learned(struct reader *r, struct store *store, const struct snapshot_texts *texts,
                         int64_t now)
{
    struct span s = {0};
    unsigned kind;
    (void)fseeko(r->file, HEAD, SEEK_SET);
    while ((kind = next_block(r, &s)) && kind != KIND_END && kind != KIND_RECORD) {
        if (kind == KIND_TALLIES)
            take_tallies(s, store, now);
        if (kind == KIND_STATE)
            take_state(s, store, now);
        if (kind == KIND_TEXT)
            take_text(s, texts);
    }
}

/* Records come last in the file. */
static void take_records(struct reader *r, struct store *store, int64_t now)
{
    struct span s = {0};
    if (r->nrecords)
        qsort(r->record, r->nrecords, sizeof *r->record, earlier_first);
    for (size_t i = 0; i < r->nrecords; i++) {
        struct key k;
        (void)fseeko(r->file, r->record[i].at, SEEK_SET);
        if (next_block(r, &s) != KIND_RECORD)
            continue;
        memcpy(k.byte, s.p + 8, sizeof k.byte);
        (void)store_memory_put(store, &k, span_from(s, RECORD_HEAD), now);
    }
}

static void reader_close(struct reader *r)
{
    if (r->file)
        fclose(r->file);
    free(r->block);
    free(r->record);
}

int snapshot_read(const char *dir, const char *name, uint32_t key_id, struct store *store,
                  int64_t now, struct snapshot_figures *f, char error[512])
{
    char path[PATH_ROOM];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    struct reader r = {.file = fopen(path, "re")};
    if (!r.file && errno == ENOENT)
        return 0;
    const char *wrong = r.file ? check(&r, key_id) : strerror(errno);
    if (wrong)
        snprintf(error, 512, "%.300s cannot be used: %s", path, wrong);
    if (!wrong) {
        take_learned(&r, store, NULL, now);
        take_records(&r, store, now);
    }
    *f = r.found;
    reader_close(&r);
    return wrong ? -1 : 1;
}

int64_t snapshot_time(const char *dir, const char *name, uint32_t key_id)
{
    char path[PATH_ROOM];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    struct reader r = {.file = fopen(path, "re")};
    int64_t time = r.file && !read_head(&r, key_id) ? r.found.time : 0;
    reader_close(&r);
    return time;
}

int snapshot_learned(const char *dir, const char *name, uint32_t key_id, struct store *store,
                     const struct snapshot_texts *texts, int64_t now, struct snapshot_figures *f,
                     char error[512])
{
    char path[PATH_ROOM];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    struct reader r = {.file = fopen(path, "re")};
    const char *wrong = r.file ? check(&r, key_id) : strerror(errno);
    if (wrong)
        snprintf(error, 512, "%.300s cannot be used: %s", path, wrong);
    if (!wrong) {
        tally_table_clear(store_memory_tallies(store));
        states_clear(store_memory_states(store));
        if (texts)
            texts->begin(texts->arg);
        take_learned(&r, store, texts, now);
        if (texts)
            texts->end(texts->arg);
    }
    *f = r.found;
    reader_close(&r);
    return wrong ? -1 : 1;
}
