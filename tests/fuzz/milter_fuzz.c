/*
 * milter_fuzz.c - a hostile MTA: any bytes at all, after a good beginning or from the first byte
 * on, in pieces of any size. The door must stay alive and answer in whole frames, at most one final
 * reply for each frame it was sent.
 */
#include "../unit/milter_peer.h"
#include "milter_proto.h"

static struct worker worker;
static struct pipeline pipeline;
static const struct listener listener = {.name = (char *)"in"};

static void start(void)
{
    log_open("stderr", LOG_NOTHING);
    worker.config = config_builtin();
    pipeline.store = store_none_open();
    pipeline.figures = figures_new(worker.config);
    pipeline.mode = MODE_ENFORCE;
    worker.pipeline = &pipeline;
    worker.base = event_base_new();
    worker.mailbox = mailbox_new(worker.base);
    if (keys_open(&worker.keys, worker.config->site_key) < 0)
        abort();
}

/* Whole frames at the start of the input. */
static size_t frames_in(struct span in)
{
    struct milter_frame f;
    size_t n = 0;
    for (; milter_frame(in, &f) == FRAME_WHOLE; n++)
        in = span_from(in, f.size);
    return n;
}

static void check_answers(const struct peer *p, size_t frames)
{
    size_t at = 0, finals = 0;
    struct span data;
    for (char c; (c = peer_frame(p, &at, &data)) != 0;) {
        if (!strchr("Ocdyhm-", c))
            abort();
        finals += strchr("Ocdy", c) != NULL;
    }
    if (finals > frames)
        abort();
}

/* Input as frames: a byte for the command, one for the length (its square: 0 to 65025), data. */
static void add_as_frames(struct wire *w, struct span in)
{
    static const char letters[] = "OCHMRTLNBEAQKUD?";
    while (in.n >= 2) {
        size_t n = (size_t)in.p[1] * in.p[1];
        struct span data = span_head(span_from(in, 2), n);
        wire_frame(w, letters[in.p[0] & 15], data.p, data.n);
        in = span_from(in, 2 + data.n);
    }
}

/* The first byte says how the session begins (2 bits), whether the rest are frames or just bytes,
 * and how long the pieces are. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct peer p;
    struct wire w = {0};
    if (!worker.base)
        start();
    if (!size)
        return 0;
    unsigned how = data[0] & 3;
    if (how == 1)
        wire_offer(&w, 6, 0x1ff, 0x1fffff);
    if (how >= 2)
        wire_offer(&w, how == 2 ? 6 : 2, 0x3f, how == 2 ? 0x1fffff : 0x7f);
    if (how >= 2) {
        WIRE(&w, 'C',
             "mx\0004\0\31"
             "192.0.2.7\0");
        WIRE(&w, 'M', "<a@a.example>\0");
        WIRE(&w, 'R', "<b@b.example>\0");
    }
    if (data[0] & 4)
        add_as_frames(&w, span_of(data + 1, size - 1));
    else
        wire_add(&w, data + 1, size - 1);
    size_t frames = frames_in(span_of(w.p, w.n));
    size_t piece = data[0] >> 3 ? (size_t)(data[0] >> 3) * 17 : w.n;
    peer_open(&p, &worker, &listener);
    for (size_t at = 0; at < w.n && !p.closed; at += piece)
        peer_send(&p, w.p + at, w.n - at < piece ? w.n - at : piece);
    check_answers(&p, frames);
    peer_close(&p);
    if (worker.sessions)
        abort();
    wire_free(&w);
    return 0;
}
