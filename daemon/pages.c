/*
 * pages.c - see pages.h.
 *
 *   page 1     a header of 100 bytes, the schema          (not read: both are known)
 *   page 2, 822, 1642 ...   what each of the 819 pages behind it is: a type and a parent
 *   0x0d       leaf of a table: cells of (size, rowid, record)
 *   0x0a, 0x02 leaf, interior page of an index: cells of (size, record)
 *   others     lead to these, or continue a record that is too long for its cell, or are free
 *
 * A free page keeps its old rows, and they must not come back: the map says which pages are free,
 * or, where the map is lost, the list of free pages that begins in the header.
 */
#include "pages.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    MAPPED = PAGES_SIZE / 5, /* pages one page of the map speaks of */
    MAP_ROOT = 1,
    MAP_FREE = 2,
    MAP_TREE = 5,
    LEAF_TABLE = 0x0d,
    LEAF_INDEX = 0x0a,
    INSIDE_INDEX = 0x02,
    FRAME_HEADER = 24,
    LOG_HEADER = 32,
};

/* What is known of a page. */
enum standing { PAGE_NONE, PAGE_TABLE, PAGE_INDEX, PAGE_KIND = 3, PAGE_DOUBTFUL = 4 };

struct pages {
    int db, wal;
    uint32_t n;
    uint32_t *frame;   /* of each page: 1 + its frame in the log, 0: not there; NULL: no log */
    uint8_t *standing; /* of each page; [0] is unused */
    uint8_t page[PAGES_SIZE];
    uint8_t *record; /* gathered from overflow pages; NULL until there is one */
    uint64_t budget; /* overflow pages that may still be read */
};

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static size_t be16(const uint8_t *p)
{
    return (size_t)p[0] << 8 | p[1];
}

static void *allocate(size_t n, size_t size)
{
    void *p = calloc(n, size);
    if (!p)
        abort();
    return p;
}

static bool read_at(int fd, void *out, size_t n, uint64_t at)
{
    return pread(fd, out, n, (off_t)at) == (ssize_t)n;
}

static uint64_t file_size(int fd)
{
    struct stat st;
    return fd >= 0 && fstat(fd, &st) == 0 && st.st_size > 0 ? (uint64_t)st.st_size : 0;
}

/* The write-ahead log. */

/* The sum that runs through header and frames; words in the byte order the log says. */
static void add_sum(uint32_t sum[2], const uint8_t *p, size_t n, bool big)
{
    for (size_t i = 0; i + 8 <= n; i += 8) {
        uint32_t a = be32(p + i), b = be32(p + i + 4);
        sum[0] += (big ? a : __builtin_bswap32(a)) + sum[1];
        sum[1] += (big ? b : __builtin_bswap32(b)) + sum[0];
    }
}

static uint64_t frame_at(uint32_t i)
{
    return LOG_HEADER + (uint64_t)i * (FRAME_HEADER + PAGES_SIZE);
}

/* How many frames of the log are committed; *n: pages of the database then. */
static uint32_t committed(int wal, uint32_t frames, uint32_t *n)
{
    uint8_t log[LOG_HEADER], frame[FRAME_HEADER + PAGES_SIZE];
    uint32_t sum[2] = {0}, good = 0;
    if (!read_at(wal, log, sizeof(log), 0) || (be32(log) & ~1u) != 0x377f0682 ||
        be32(log + 8) != PAGES_SIZE)
        return 0;
    bool big = be32(log) & 1;
    add_sum(sum, log, 24, big);
    if (sum[0] != be32(log + 24) || sum[1] != be32(log + 28))
        return 0;
    for (uint32_t i = 0; i < frames && read_at(wal, frame, sizeof(frame), frame_at(i)); i++) {
        add_sum(sum, frame, 8, big);
        add_sum(sum, frame + FRAME_HEADER, PAGES_SIZE, big);
        if (memcmp(frame + 8, log + 16, 8) != 0 || be32(frame) == 0 || sum[0] != be32(frame + 16) ||
            sum[1] != be32(frame + 20))
            break;
        if (be32(frame + 4)) {
            good = i + 1;
            *n = be32(frame + 4);
        }
    }
    return good;
}

static void read_log(struct pages *p)
{
    uint64_t room = file_size(p->wal) / (FRAME_HEADER + PAGES_SIZE);
    uint32_t frames = room < UINT32_MAX ? (uint32_t)room : UINT32_MAX - 1, n = 0;
    uint32_t good = committed(p->wal, frames, &n);
    if (good == 0)
        return;
    p->n = (uint64_t)n < (uint64_t)p->n + good ? n : p->n + good; /* there can be no more */
    p->frame = allocate((size_t)p->n + 1, sizeof(*p->frame));
    for (uint32_t i = 0; i < good; i++) {
        uint8_t number[4];
        if (read_at(p->wal, number, sizeof(number), frame_at(i)) && be32(number) <= p->n)
            p->frame[be32(number)] = i + 1;
    }
}

static bool read_page(const struct pages *p, uint32_t number, uint8_t out[PAGES_SIZE])
{
    if (number == 0 || number > p->n)
        return false;
    if (p->frame && p->frame[number])
        return read_at(p->wal, out, PAGES_SIZE, frame_at(p->frame[number] - 1) + FRAME_HEADER);
    return p->db >= 0 && read_at(p->db, out, PAGES_SIZE, (uint64_t)(number - 1) * PAGES_SIZE);
}

/* What the pages are. */

static void take_look(struct pages *p, uint32_t number, bool sure)
{
    if (!read_page(p, number, p->page))
        return;
    int kind = p->page[0] == LEAF_TABLE                                 ? PAGE_TABLE
               : p->page[0] == LEAF_INDEX || p->page[0] == INSIDE_INDEX ? PAGE_INDEX
                                                                        : PAGE_NONE;
    p->standing[number] = (uint8_t)(kind | (sure ? 0 : PAGE_DOUBTFUL));
}

/* The pages that one page of the map speaks of. */
static void look_over(struct pages *p, uint32_t map)
{
    uint8_t entry[PAGES_SIZE] = {0};
    if (!read_page(p, map, entry))
        memset(entry, 0, sizeof(entry));
    for (uint32_t i = 0; i < MAPPED && i < p->n - map; i++) {
        uint8_t type = entry[5 * i];
        uint32_t parent = be32(entry + 5 * i + 1);
        if (type == MAP_FREE)
            continue;
        take_look(p, map + 1 + i,
                  (type == MAP_ROOT && parent == 0) ||
                      (type == MAP_TREE && parent > 1 && parent <= p->n));
    }
}

/* Takes the doubtful ones off that the list of free pages names. */
static void drop_free(struct pages *p)
{
    if (!read_page(p, 1, p->page) || memcmp(p->page, "SQLite format 3", 16) != 0)
        return;
    uint32_t trunk = be32(p->page + 32);
    for (uint32_t i = 0; i < p->n && read_page(p, trunk, p->page); i++) {
        uint32_t leaves = be32(p->page + 4);
        for (uint32_t j = 0; j < leaves && j < PAGES_SIZE / 4 - 2; j++) {
            uint32_t number = be32(p->page + 8 + 4 * j);
            if (number <= p->n && p->standing[number] & PAGE_DOUBTFUL)
                p->standing[number] = PAGE_NONE;
        }
        trunk = be32(p->page);
    }
}

struct pages *pages_open(int db, int wal)
{
    struct pages *p = allocate(1, sizeof(*p));
    uint64_t n = file_size(db) / PAGES_SIZE;
    *p = (struct pages){
        .db = db, .wal = wal, .n = n < UINT32_MAX / 2 ? (uint32_t)n : UINT32_MAX / 2};
    read_log(p);
    p->standing = allocate((size_t)p->n + 1, 1);
    p->budget = (uint64_t)p->n * 4;
    for (uint64_t map = 2; map < p->n; map += MAPPED + 1)
        look_over(p, (uint32_t)map);
    drop_free(p);
    return p;
}

void pages_close(struct pages **pp)
{
    struct pages *p = *pp;
    *pp = NULL;
    free(p->frame);
    free(p->standing);
    free(p->record);
    free(p);
}

/* Records. */

/* A number of 1 to 9 bytes, taken off the front. */
static bool take_varint(struct span *s, uint64_t *out)
{
    *out = 0;
    for (size_t i = 0; i < 9 && i < s->n; i++) {
        uint8_t c = s->p[i];
        *out = i == 8 ? *out << 8 | c : *out << 7 | (c & 0x7f);
        if (c < 0x80 || i == 8) {
            *s = span_of(s->p + i + 1, s->n - i - 1);
            return true;
        }
    }
    return false;
}

static int64_t signed_be(const uint8_t *p, size_t n)
{
    uint64_t v = n && p[0] & 0x80 ? UINT64_MAX : 0;
    for (size_t i = 0; i < n; i++)
        v = v << 8 | p[i];
    int64_t out;
    memcpy(&out, &v, sizeof(out));
    return out;
}

/* The value of a serial type, taken off the front of the body. Floats there are none of. */
static bool take_value(struct span *body, uint64_t serial, struct value *v)
{
    static const uint8_t integer_size[] = {0, 1, 2, 3, 4, 6, 8, 0, 0, 0};
    *v = (struct value){.type = VALUE_INTEGER};
    if (serial == 7 || serial == 10 || serial == 11)
        return false;
    uint64_t n = serial < 10 ? integer_size[serial] : (serial - 12) / 2;
    if (n > body->n)
        return false;
    struct span bytes = span_of(body->p, (size_t)n);
    *body = span_of(body->p + n, body->n - (size_t)n);
    if (serial == 0)
        v->type = VALUE_NULL;
    else if (serial < 8)
        v->integer = signed_be(bytes.p, bytes.n);
    else if (serial < 10)
        v->integer = serial == 9;
    else
        *v = (struct value){.type = serial & 1 ? VALUE_TEXT : VALUE_BLOB, .bytes = bytes};
    return true;
}

static bool parse(struct record *r, struct span s)
{
    struct span rest = s;
    uint64_t header, serial;
    if (!take_varint(&rest, &header) || header > s.n || header < s.n - rest.n)
        return false;
    struct span types = span_of(rest.p, (size_t)header - (s.n - rest.n));
    struct span body = span_of(s.p + header, s.n - (size_t)header);
    for (r->n = 0; types.n; r->n++)
        if (r->n == PAGES_COLUMNS || !take_varint(&types, &serial) ||
            !take_value(&body, serial, &r->column[r->n]))
            return false;
    return body.n == 0;
}

/* A record of n bytes: `local` and what the overflow pages from `next` on say. */
static bool gather(struct pages *p, struct span local, size_t n, uint32_t next, struct span *out)
{
    uint8_t page[PAGES_SIZE];
    if (!p->record)
        p->record = allocate(1, PAGES_RECORD);
    memcpy(p->record, local.p, local.n);
    for (size_t at = local.n; at < n; next = be32(page)) {
        if (p->budget == 0 || !read_page(p, next, page))
            return false;
        p->budget--;
        size_t part = n - at < PAGES_SIZE - 4 ? n - at : PAGES_SIZE - 4;
        memcpy(p->record + at, page + 4, part);
        at += part;
    }
    *out = span_of(p->record, n);
    return next == 0;
}

/* The record of a cell that begins somewhere on the page. */
static bool cell(struct pages *p, uint8_t type, struct span s, struct record *r)
{
    enum {
        LEAST = (PAGES_SIZE - 12) * 32 / 255 - 23,
        INDEX_MOST = (PAGES_SIZE - 12) * 64 / 255 - 23
    };
    size_t most = type == LEAF_TABLE ? PAGES_SIZE - 35 : INDEX_MOST;
    uint64_t n, rowid = 0;
    if (type == INSIDE_INDEX) /* the child comes first */
        s = span_from(s, 4);
    if (!take_varint(&s, &n) || (type == LEAF_TABLE && !take_varint(&s, &rowid)) ||
        n > PAGES_RECORD)
        return false;
    memcpy(&r->rowid, &rowid, sizeof(rowid));
    if (n <= most)
        return n <= s.n && parse(r, span_of(s.p, (size_t)n));
    size_t local = LEAST + ((size_t)n - LEAST) % (PAGES_SIZE - 4);
    if (local > most)
        local = LEAST;
    return s.n >= local + 4 && gather(p, span_of(s.p, local), (size_t)n, be32(s.p + local), &s) &&
           parse(r, s);
}

static void each_cell(struct pages *p, record_fn *fn, void *arg)
{
    uint8_t type = p->page[0];
    size_t head = type == INSIDE_INDEX ? 12 : 8, cells = be16(p->page + 3);
    struct record r;
    for (size_t i = 0; i < cells && head + 2 * i + 2 <= PAGES_SIZE; i++) {
        size_t at = be16(p->page + head + 2 * i);
        if (at >= head && at < PAGES_SIZE &&
            cell(p, type, span_of(p->page + at, PAGES_SIZE - at), &r))
            fn(arg, &r);
    }
}

void pages_each(struct pages *p, bool tables, record_fn *fn, void *arg)
{
    const int kind = tables ? PAGE_TABLE : PAGE_INDEX;
    for (int doubt = 0; doubt <= PAGE_DOUBTFUL; doubt += PAGE_DOUBTFUL)
        for (uint32_t number = 2; number <= p->n; number++)
            if (p->standing[number] == (kind | doubt) && read_page(p, number, p->page))
                each_cell(p, fn, arg);
}
