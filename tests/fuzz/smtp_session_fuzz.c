/*
 * smtp_session_fuzz.c - whole sessions of the SMTP door: what the client says, how the MTA behind
 * misbehaves, and what the verdict is, are all the fuzzer's.
 *
 *   verdict | three faults of the MTA behind (where, the how maniest time, what) | the client
 *
 * The client's bytes are its own, but 0x80 to 0x8f, which stand for whole commands, and 0xff, which
 * lets all the others work first.
 *
 * Each command has one reply, in its order; a final dot is answered 2xx only when the MTA behind
 * has said so or every copy is held; what the client was told is what the tx was told; nothing is
 * left.
 */
#include "../unit/smtp_peer.h"

#include "../unit/tx_notes.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FAULTS = 3, HEAD = 1 + 3 * FAULTS, MOST = 2048, LINE_MAX_BYTES = 12288 };

static struct world world;
static struct client client;

/* ---- the client's words ---- */

static const char *const words[16] = {"EHLO c.example\r\n",
                                      "HELO c\r\n",
                                      "MAIL FROM:<a@b> SIZE=10\r\n",
                                      "RCPT TO:<held@d>\r\n",
                                      "RCPT TO:<e@f>\r\n",
                                      "RCPT TO:<bad@f>\r\n",
                                      "DATA\r\n",
                                      "Subject: x\r\n\r\nx\r\n.\r\n",
                                      "\r\n.\r\n",
                                      "RSET\r\n",
                                      "NOOP\r\n",
                                      "QUIT\r\n",
                                      "VRFY x\r\n",
                                      "XFORWARD NAME=x ADDR=192.0.2.1\r\n",
                                      "XCLIENT ADDR=192.0.2.2 NAME=y\r\n",
                                      "BDAT 5 LAST\r\n"};

static char said[MOST * 64];
static size_t nsaid;

static void broken(int line)
{
    fprintf(stderr, "line %d is broken\nsaid: %.*s\nheard: %s\nbehind: %s\nstory: %s\n", line,
            (int)nsaid, said, client.said, world.mta.heard, story);
    abort();
}
#define must(good) ((good) ? (void)0 : broken(__LINE__))

static void say_some(const char *s, size_t n)
{
    memcpy(said + nsaid, s, n);
    nsaid += n;
    client_send(&client, s, n);
}

static void say_all(struct span in)
{
    while (in.n) {
        size_t n = 0;
        while (n < in.n && in.p[n] < 0x80)
            n++;
        if (n) {
            say_some((const char *)in.p, n);
        } else if (in.p[0] < 0x90) {
            /* with what follows in the same packet, if it is words too */
            char packet[1024];
            size_t at = 0;
            for (n = 0; n < in.n && in.p[n] >= 0x80 && in.p[n] < 0x90 && at < 900; n++)
                at += (size_t)snprintf(packet + at, sizeof packet - at, "%s", words[in.p[n] & 15]);
            say_some(packet, at);
        } else {
            n = 1;
            if (in.p[0] != 0xff)
                say_some((const char *)in.p, 1);
            else
                client_turn(&client);
        }
        in = span_from(in, n);
    }
}

/* ---- the faults of the MTA behind ---- */

static const char *const steps[] = {"banner", "EHLO", "MAIL", "RCPT",
                                    "DATA",   "dot",  "RSET", "NOOP"};
static const char *const faults[] = {NULL,
                                     "",
                                     "250 ok\r\n",
                                     "354 go\r\n",
                                     "421 4.4.2 bye\r\n",
                                     "451 4.3.0 later\r\n",
                                     "550-5.7.1 no\r\n550 5.7.1 never\r\n",
                                     "250 ok\r\n250 again\r\n",
                                     "hello\r\n",
                                     "250-half\r\n",
                                     "220 hm\r\n"};

static void set_faults(const uint8_t *p)
{
    for (size_t i = 0; i < FAULTS; i++, p += 3)
        world.mta.play[i] =
            (struct line_of_play){steps[p[0] % (sizeof steps / sizeof *steps)], p[1] % 8,
                                  faults[p[2] % (sizeof faults / sizeof *faults)], 0};
}

/* ---- what came back ---- */

static const char *reply; /* the next one */

/* Its code, 0: there is none. */
static int take_reply(bool *held)
{
    int code = atoi(reply);
    if (!*reply)
        return 0;
    must(code >= 200 && code <= 599);
    for (bool last = false; !last;) {
        const char *end = strstr(reply, "\r\n");
        must(end && end - reply >= 3 && atoi(reply) == code);
        last = reply[3] != '-';
        *held = strncmp(reply, "250 2.0.0 held as ", 18) == 0;
        reply = end + 2;
    }
    return code;
}

/* Where data ends that begins at `at`; nsaid + 1: it does not. */
static size_t data_end(size_t at)
{
    if (nsaid - at >= 3 && memcmp(said + at, ".\r\n", 3) == 0)
        return at + 3;
    const char *end = memmem(said + at, nsaid - at, "\r\n.\r\n", 5);
    return end ? (size_t)(end - said) + 5 : nsaid + 1;
}

struct score {
    int good, held; /* final dots answered 2xx; of these, by our hold alone */
};

/* Reads both sides of the conversation. */
static void check_conversation(struct score *score)
{
    bool held = false;
    reply = client.said;
    int code = take_reply(&held);
    must(code == 220 || code == 554 || code == 421);
    for (size_t at = 0; at < nsaid;) {
        const char *lf = memchr(said + at, '\n', nsaid - at);
        size_t end = lf ? (size_t)(lf - said) + 1 : nsaid;
        code = take_reply(&held);
        if (code == 0) {
            must(!lf || client.closed);
            return;
        }
        must(lf || (nsaid - at > LINE_MAX_BYTES && code == 500));
        at = end;
        if (code != 354)
            continue;
        end = data_end(at);
        code = take_reply(&held);
        must(code != 354);
        if (end > nsaid) {
            must(code == 0 || code == 552 || code == 421);
            break;
        }
        if (code == 0)
            return;
        at = end;
        score->good += code / 100 == 2;
        score->held += code / 100 == 2 && held;
    }
    must(take_reply(&held) == 0);
}

/* ---- the play ---- */

static void start(void)
{
    world_open(&world, "smtp in { socket = \"inet:1@127.0.0.1\" downstream = % }\n"
                       "smtp up { socket = \"inet:2@127.0.0.1\" downstream = % "
                       "upstreams = { 127.0.0.0/8 } }\n"
                       "limits { message_size = 64KB }\n");
}

static void finish_verdict(void)
{
    struct tx *tx = waiting;
    waiting = NULL;
    if (tx)
        tx->done(tx->arg, tx);
    client_turn(&client);
}

/* The client says no more; who is silent behind goes away, so all comes to its end. */
static unsigned finish(void)
{
    unsigned taken = 0;
    verdict.wait = false;
    shutdown(client.fd, SHUT_WR);
    client_turn(&client);
    for (int i = 0; i < 6 && world.worker.sessions; i++) {
        finish_verdict();
        taken += world.mta.messages;
        mta_fresh(&world.mta);
        client_turn(&client);
    }
    taken += world.mta.messages;
    must(world.worker.sessions == 0 && living == 0 && client.closed);
    return taken;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool started;
    static const char *const helds[] = {NULL, "held@d", "held@d e@f", NULL};
    if (!started)
        start();
    started = true;
    if (size < HEAD || size > MOST)
        return 0;
    struct score score = {0};
    mta_fresh(&world.mta);
    nsaid = nstory = 0;
    judgements = commits = refusals = 0;
    memset(&verdict, 0, sizeof verdict);
    verdict.held = helds[data[0] & 3];
    verdict.reply = (data[0] & 12) == 12 ? "451 4.7.0 a storm" : NULL;
    verdict.wait = data[0] & 16;
    bool trusted = data[0] & 32;
    set_faults(data + 1);
    client_open(&client, &world.worker, &world.mta, world_listener(&world, trusted ? "up" : "in"),
                trusted, NULL);
    for (struct span in = span_of(data + HEAD, size - HEAD); in.n;) {
        size_t n = in.n < 64 ? in.n : 64; /* a verdict that waits comes sooner or later */
        say_all(span_head(in, n));
        in = span_from(in, n);
        finish_verdict();
    }
    unsigned taken = finish();
    check_conversation(&score);
    must((unsigned)(score.good - score.held) <= taken);
    must(score.good <= commits && commits + refusals <= judgements);
    close(client.fd);
    return 0;
}
