/*
 * tracefile.c - the inputs, each a stream of recordings in its own order; merging takes the
 * earliest of their heads, of equally early ones that of the file named first.
 *
 *   trace.jsonl  --> stream ---------------------\
 *   more.jsonl   --> stream ----------------------> the earliest head --> recording
 *   mail.mbox \                                  /
 *   a.eml     ---> index, sorted --> stream ----/
 *   b.eml     /
 *
 * With in_order there is no index and one stream, which goes from file to file.
 */
#include "tracefile.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "jsonl.h"
#include "mbox.h"

enum {
    LINE_MAX_BYTES = 3 * RECORDING_BYTES, /* of a .jsonl file: Base64, and some escapes */
    HEAD_BYTES = 256 << 10,               /* of a message looked at for the index */
    OPEN_MAX_FILES = 64,                  /* mailboxes kept open while merged */
    DEPTH_MAX = 32,                       /* of directories */
};

enum kind { KIND_JSONL, KIND_MBOX, KIND_MAIL, KIND_OTHER };

struct input {
    char *path;
    enum kind kind;
    uint64_t size;
};

/* Where a message of the index stands. */
struct place {
    int64_t time;
    uint64_t at;
    uint32_t file;
    uint32_t number; /* in the file, from 1 */
};

struct stream {
    uint32_t file; /* UINT32_MAX: the index */
    struct lines *lines;
    struct mbox *mbox;
    struct arena *arena; /* of head */
    struct recording head;
    enum { EMPTY, READY, GIVEN, ENDED } state;
    uint32_t number; /* of the line or message read last */
    int64_t time;    /* of the message read last */
};

struct tracefile {
    struct input *inputs;
    size_t ninputs, capinputs;
    struct stream *streams;
    size_t nstreams;
    struct place *index;
    size_t nindex, capindex, at; /* at: the next to read */
    struct {
        uint32_t file;
        struct mbox *mbox;
    } open[OPEN_MAX_FILES];
    size_t last_open;
    struct tracefile_options options;
    uint64_t done, total; /* bytes of messages; of files */
};

static char *copy_text(const char *s)
{
    char *copy = strdup(s);
    if (!copy)
        abort();
    return copy;
}

static void *grown(void *p, size_t n, size_t *cap, size_t size)
{
    if (n < *cap)
        return p;
    *cap = *cap ? 2 * *cap : 64;
    p = reallocarray(p, *cap, size);
    if (!p)
        abort();
    return p;
}

/* ---- which files, and what they are ---- */

static bool ends_with(const char *path, const char *end)
{
    size_t n = strlen(path), m = strlen(end);
    return n >= m && span_case_eq(span_of(path + n - m, m), span_of(end, m));
}

/* Does a message begin so: with a field, or what "From " became in some mailboxes? */
static bool begins_like_mail(struct span s)
{
    if (span_starts(s, SPAN(">From ")))
        return true;
    size_t n = 0;
    while (n < s.n && s.p[n] > ' ' && s.p[n] < 0x7f && s.p[n] != ':')
        n++;
    size_t colon = n;
    while (colon < s.n && (s.p[colon] == ' ' || s.p[colon] == '\t'))
        colon++;
    return n > 0 && colon < s.n && s.p[colon] == ':';
}

static enum kind kind_of(const char *path, struct span head)
{
    if (span_starts(head, SPAN("\xef\xbb\xbf")))
        head = span_from(head, 3);
    bool eml = ends_with(path, ".eml");
    head = span_trim(head);
    if (!eml && (ends_with(path, ".jsonl") || head.n == 0 || head.p[0] == '{'))
        return KIND_JSONL;
    if (!eml && span_starts(head, SPAN("From ")))
        return KIND_MBOX;
    return eml || begins_like_mail(head) ? KIND_MAIL : KIND_OTHER;
}

static int add_file(struct tracefile *t, const char *path, bool is_mail, char error[512])
{
    struct stat st;
    enum kind kind = is_mail ? KIND_MAIL : KIND_JSONL;
    bool standard_input = strcmp(path, "-") == 0;
    if (!standard_input && stat(path, &st) < 0) {
        snprintf(error, 512, "%.400s: %s", path, strerror(errno));
        return -1;
    }
    if (!standard_input && S_ISREG(st.st_mode) && !is_mail) {
        char head[4096];
        FILE *f = fopen(path, "rb");
        size_t n = f ? fread(head, 1, sizeof head, f) : 0;
        if (!f || ferror(f)) {
            snprintf(error, 512, "%.400s: %s", path, strerror(errno));
            if (f)
                fclose(f);
            return -1;
        }
        fclose(f);
        kind = kind_of(path, span_of(head, n));
    }
    if (kind == KIND_OTHER) {
        snprintf(error, 512, "%.300s: is no .jsonl trace, no mbox and no message", path);
        return -1;
    }
    if (t->ninputs == TRACEFILE_FILES) {
        snprintf(error, 512, "more than %d files: replay them in several runs, or as one mbox",
                 TRACEFILE_FILES);
        return -1;
    }
    t->inputs = grown(t->inputs, t->ninputs, &t->capinputs, sizeof *t->inputs);
    bool sized = !standard_input && S_ISREG(st.st_mode);
    t->inputs[t->ninputs] = (struct input){.kind = kind, .size = sized ? (uint64_t)st.st_size : 0};
    t->inputs[t->ninputs++].path = copy_text(path);
    t->total += sized ? (uint64_t)st.st_size : 0;
    return 0;
}

/* By bytes, whatever the locale: the order of files must be the same everywhere. */
static int by_bytes(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

/* What is mail in a directory: all of a Maildir's cur and new, else *.eml. */
static int add_directory(struct tracefile *t, const char *path, unsigned depth, char error[512])
{
    struct dirent **names;
    bool maildir = ends_with(path, "/cur") || ends_with(path, "/new");
    int n = depth < DEPTH_MAX ? scandir(path, &names, NULL, by_bytes) : (errno = ELOOP, -1);
    int rc = n < 0 ? -1 : 0;
    if (n < 0)
        snprintf(error, 512, "%.400s: %s", path, strerror(errno));
    for (int i = 0; i < n; i++) {
        const char *name = names[i]->d_name;
        struct stat st;
        char *file;
        if (asprintf(&file, "%s%s%s", path, ends_with(path, "/") ? "" : "/", name) < 0)
            abort();
        bool dots = strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
        if (rc == 0 && !dots && strcmp(name, "tmp") != 0 && lstat(file, &st) == 0) {
            bool directory = S_ISDIR(st.st_mode); /* a link to one might lead in circles */
            if (directory)                        /* Maildir++ folders begin with a dot */
                rc = add_directory(t, file, depth + 1, error);
            else if (*name != '.' && (maildir || ends_with(name, ".eml")) && stat(file, &st) == 0 &&
                     S_ISREG(st.st_mode))
                rc = add_file(t, file, true, error);
        }
        free(file);
        free(names[i]);
    }
    if (n >= 0)
        free(names);
    return rc;
}

static int add_path(struct tracefile *t, const char *path, char error[512])
{
    struct stat st;
    size_t before = t->ninputs;
    if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode))
        return add_file(t, path, false, error);
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    char *plain = strndup(path, n);
    if (!plain)
        abort();
    int rc = add_directory(t, plain, 0, error);
    free(plain);
    if (rc == 0 && t->ninputs == before) {
        snprintf(error, 512, "%.300s: a directory without .eml files, and no Maildir", path);
        rc = -1;
    }
    return rc;
}

/* ---- one stream ---- */

static void label(const struct tracefile *t, struct stream *s, uint32_t file, uint32_t number)
{
    s->head.label = span_str(arena_printf(s->arena, "%s:%u", t->inputs[file].path, number));
    if (s->head.time < 0) { /* that of the message before */
        s->head.time = s->time;
        s->head.t = (double)s->time / 1000;
    }
    s->time = s->head.time;
}

static int complain(char error[512], const char *path, const char *why)
{
    snprintf(error, 512, "%.300s: %s", path, why);
    return -1;
}

static int next_line(const struct tracefile *t, struct stream *s, char error[512])
{
    struct span line;
    const char *path = t->inputs[s->file].path, *wrong = NULL;
    do {
        if (!lines_next(s->lines, &line)) {
            s->state = ENDED;
            int e = lines_error(s->lines);
            return e ? complain(error, path, strerror(e)) : 0;
        }
        s->number++;
    } while (span_trim(line).n == 0);
    if (s->number == 1 && span_starts(line, SPAN("\xef\xbb\xbf")))
        line = span_from(line, 3);
    if (line.n < LINE_MAX_BYTES) {
        wrong = jsonl_read(&s->head, s->arena, line, path);
    } else {
        while (line.n && line.p[line.n - 1] != '\n' && lines_next(s->lines, &line))
            continue;
        wrong = "the line is longer than 192 MB";
    }
    if (!wrong)
        return 1;
    snprintf(error, 512, "%.300s:%u: %.150s", path, s->number, wrong);
    return -1;
}

static void of_mbox(const struct tracefile *t, struct stream *s, const struct mbox_mail *mail)
{
    recording_of_mail(&s->head, s->arena, t->options.keys, mail->from, mail->message);
    s->head.cut = mail->cut;
}

static int next_mail(const struct tracefile *t, struct stream *s, char error[512])
{
    const char *path = t->inputs[s->file].path;
    struct mbox_mail mail;
    if (!mbox_next(s->mbox, s->arena, RECORDING_BYTES, &mail)) {
        s->state = ENDED;
        int e = mbox_error(s->mbox);
        return e ? complain(error, path, strerror(e)) : 0;
    }
    of_mbox(t, s, &mail);
    label(t, s, s->file, ++s->number);
    return 1;
}

/* A message that is a file of its own; a From_ line in front is none of its fields. */
static int read_mail(const struct tracefile *t, struct stream *s, uint32_t file, char error[512])
{
    struct span bytes, from = {0};
    bool cut;
    const char *path = t->inputs[file].path;
    if (recording_file(s->arena, path, &bytes, &cut) < 0)
        return complain(error, path, strerror(errno));
    if (span_starts(bytes, SPAN("\xef\xbb\xbf")))
        bytes = span_from(bytes, 3);
    while (bytes.n && (bytes.p[0] == '\n' || bytes.p[0] == '\r'))
        bytes = span_from(bytes, 1);
    struct span plain = span_from(bytes, bytes.n && bytes.p[0] == '>');
    if (span_starts(plain, SPAN("From "))) {
        size_t n = span_find(plain, '\n');
        from = span_trim(span_from(span_head(plain, n), 5));
        bytes = span_from(plain, n + 1);
    }
    recording_of_mail(&s->head, s->arena, t->options.keys, from, bytes);
    s->head.cut = cut;
    label(t, s, file, 1);
    return 1;
}

/* ---- the index ---- */

static struct mbox *opened(struct tracefile *t, uint32_t file)
{
    for (size_t i = 0; i < OPEN_MAX_FILES; i++)
        if (t->open[i].mbox && t->open[i].file == file)
            return t->open[i].mbox;
    size_t i = t->last_open = (t->last_open + 1) % OPEN_MAX_FILES;
    mbox_close(&t->open[i].mbox);
    t->open[i].file = file;
    return t->open[i].mbox = mbox_open(t->inputs[file].path);
}

static int next_indexed(struct tracefile *t, struct stream *s, char error[512])
{
    if (t->at == t->nindex) {
        s->state = ENDED;
        return 0;
    }
    struct place p = t->index[t->at++];
    s->time = p.time;
    if (t->inputs[p.file].kind == KIND_MAIL) {
        t->done += t->inputs[p.file].size;
        return read_mail(t, s, p.file, error);
    }
    struct mbox_mail mail;
    struct mbox *m = opened(t, p.file);
    if (!m)
        return complain(error, t->inputs[p.file].path, strerror(errno));
    mbox_seek(m, (off_t)p.at);
    if (!mbox_next(m, s->arena, RECORDING_BYTES, &mail))
        return complain(error, t->inputs[p.file].path, "changed while it was read");
    t->done += (uint64_t)(mbox_at(m) - (off_t)p.at);
    of_mbox(t, s, &mail);
    label(t, s, p.file, p.number);
    return 1;
}

static int add_place(struct tracefile *t, struct place p, char error[512])
{
    if (t->nindex == TRACEFILE_INDEX) {
        snprintf(error, 512,
                 "more than %d messages in mbox and .eml files: with --in-order they are read one "
                 "after the other instead of merged by time",
                 TRACEFILE_INDEX);
        return -1;
    }
    t->index = grown(t->index, t->nindex, &t->capindex, sizeof *t->index);
    t->index[t->nindex++] = p;
    return 0;
}

static void tell(const struct tracefile *t, uint64_t done)
{
    if (t->options.indexing)
        t->options.indexing(t->options.arg, done, t->total);
}

/* The times of a mailbox's messages. */
static int index_mbox(struct tracefile *t, uint32_t file, uint64_t before, char error[512])
{
    struct stream s = {.file = file};
    struct mbox_mail mail;
    const char *path = t->inputs[file].path;
    int rc = 0;
    bool more = true;
    s.mbox = mbox_open(path);
    if (!s.mbox)
        return complain(error, path, strerror(errno));
    while (more && rc == 0) {
        s.arena = arena_new();
        more = mbox_next(s.mbox, s.arena, HEAD_BYTES, &mail);
        if (more) {
            of_mbox(t, &s, &mail);
            label(t, &s, file, ++s.number);
            rc = add_place(t, (struct place){s.time, (uint64_t)mail.at, file, s.number}, error);
        }
        arena_free(&s.arena);
        if (s.number % 256 == 0)
            tell(t, before + (uint64_t)mbox_at(s.mbox));
    }
    if (rc == 0 && mbox_error(s.mbox))
        rc = complain(error, path, strerror(mbox_error(s.mbox)));
    mbox_close(&s.mbox);
    return rc;
}

/* One that cannot be read has the time of the file before; it is told of when its turn comes. */
static int index_mail(struct tracefile *t, uint32_t file, uint64_t before, char error[512])
{
    struct stream s = {.arena = arena_new(), .time = t->nindex ? t->index[t->nindex - 1].time : 0};
    if (read_mail(t, &s, file, error) < 0)
        *error = 0;
    arena_free(&s.arena);
    if (file % 256 == 0)
        tell(t, before);
    return add_place(t, (struct place){s.time, 0, file, 1}, error);
}

static int earlier_place(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    if (x->time != y->time)
        return x->time < y->time ? -1 : 1;
    if (x->file != y->file)
        return x->file < y->file ? -1 : 1;
    return (x->at > y->at) - (x->at < y->at);
}

/* ---- all of them ---- */

static int make_streams(struct tracefile *t, char error[512])
{
    uint64_t before = 0;
    bool index = false;
    size_t streams = 1; /* the index, or the file being read */
    for (size_t i = 0; i < t->ninputs && !t->options.in_order; i++)
        streams += t->inputs[i].kind == KIND_JSONL;
    t->streams = calloc(streams, sizeof *t->streams);
    if (!t->streams)
        abort();
    if (t->options.in_order) {
        t->nstreams = t->ninputs ? 1 : 0;
        return 0;
    }
    for (uint32_t i = 0; i < t->ninputs; i++) {
        if (t->inputs[i].kind == KIND_JSONL) {
            t->streams[t->nstreams++].file = i;
            continue;
        }
        int rc = t->inputs[i].kind == KIND_MBOX ? index_mbox(t, i, before, error)
                                                : index_mail(t, i, before, error);
        if (rc < 0)
            return -1;
        before += t->inputs[i].size;
        index = true;
    }
    if (!index)
        return 0;
    qsort(t->index, t->nindex, sizeof *t->index, earlier_place);
    t->streams[t->nstreams++].file = UINT32_MAX;
    return 0;
}

struct tracefile *tracefile_open(char *const *path, size_t n,
                                 const struct tracefile_options *options, char error[512])
{
    struct tracefile *t = calloc(1, sizeof *t);
    if (!t)
        abort();
    t->options = *options;
    int rc = 0;
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = add_path(t, path[i], error);
    if (rc < 0 || make_streams(t, error) < 0)
        tracefile_close(&t);
    return t;
}

static void stream_close(struct stream *s)
{
    arena_free(&s->arena);
    lines_close(&s->lines);
    mbox_close(&s->mbox);
}

void tracefile_close(struct tracefile **tp)
{
    struct tracefile *t = *tp;
    *tp = NULL;
    if (!t)
        return;
    for (size_t i = 0; i < t->nstreams; i++)
        stream_close(&t->streams[i]);
    for (size_t i = 0; i < t->ninputs; i++)
        free(t->inputs[i].path);
    for (size_t i = 0; i < OPEN_MAX_FILES; i++)
        mbox_close(&t->open[i].mbox);
    free(t->inputs);
    free(t->streams);
    free(t->index);
    free(t);
}

static bool stream_open(const struct tracefile *t, struct stream *s)
{
    const struct input *in = s->file == UINT32_MAX ? NULL : &t->inputs[s->file];
    if (in && in->kind == KIND_JSONL && !s->lines)
        return (s->lines = lines_open(in->path, LINE_MAX_BYTES)) != NULL;
    if (in && in->kind == KIND_MBOX && !s->mbox)
        return (s->mbox = mbox_open(in->path)) != NULL;
    return true;
}

/* Makes a stream's head ready, or finds its end; -1: a sentence about something left out. */
static int fill(struct tracefile *t, struct stream *s, char error[512])
{
    if (!stream_open(t, s)) {
        s->state = ENDED;
        return complain(error, t->inputs[s->file].path, strerror(errno));
    }
    s->arena = arena_new();
    int rc;
    if (s->file == UINT32_MAX)
        rc = next_indexed(t, s, error);
    else if (s->lines)
        rc = next_line(t, s, error);
    else if (s->mbox)
        rc = next_mail(t, s, error);
    else
        rc = s->number++ ? 0 : read_mail(t, s, s->file, error);
    if (rc == 1)
        s->state = READY;
    if (rc == 0)
        s->state = ENDED;
    if (rc != 1)
        arena_free(&s->arena);
    if (s->state == ENDED && s->file != UINT32_MAX) {
        t->done += t->inputs[s->file].size;
        stream_close(s);
    }
    return rc;
}

/* Which stream's message is first in the order of the files? */
static uint32_t rank(const struct tracefile *t, const struct stream *s)
{
    return s->file == UINT32_MAX ? t->index[t->at - 1].file : s->file;
}

static bool earlier(const struct tracefile *t, const struct stream *a, const struct stream *b)
{
    if (!b || a->head.time != b->head.time)
        return !b || a->head.time < b->head.time;
    return rank(t, a) < rank(t, b);
}

/* In order, the stream goes on with the next file. */
static bool next_file(const struct tracefile *t, struct stream *s)
{
    if (!t->options.in_order || s->file + 1 >= t->ninputs)
        return false;
    *s = (struct stream){.file = s->file + 1, .time = s->time};
    return true;
}

int tracefile_next(struct tracefile *t, struct recording *r, char error[512])
{
    struct stream *first = NULL;
    for (struct stream *s = t->streams; s < t->streams + t->nstreams; s++) {
        if (s->state == GIVEN) {
            arena_free(&s->arena);
            s->state = EMPTY;
        }
        do {
            if (s->state == EMPTY && fill(t, s, error) < 0)
                return -1;
        } while (s->state == ENDED && next_file(t, s));
        if (s->state == READY && earlier(t, s, first))
            first = s;
    }
    if (!first)
        return 0;
    first->state = GIVEN;
    *r = first->head;
    return 1;
}

void tracefile_progress(const struct tracefile *t, uint64_t *done, uint64_t *total)
{
    *done = t->done;
    for (size_t i = 0; i < t->nstreams; i++) {
        const struct stream *s = &t->streams[i];
        if (s->state != ENDED && s->lines)
            *done += (uint64_t)lines_at(s->lines);
        if (s->state != ENDED && s->mbox)
            *done += (uint64_t)mbox_at(s->mbox);
    }
    *total = t->total;
}
