/*
 * story.h - transactions of one message, one a line, put to its record. For tests of who got it
 * (replication_test.c) and of who is to blame (blame_test.c); after cmocka.h.
 */
#ifndef STORY_H
#define STORY_H

#include "alias.h"
#include "past.h"

/*
 * What happens: a path and recipients; `expect` has one word per recipient, RELATION + ADVICE:
 * F first, S same, D detour, A late, R resend, K fork, L list, I internal, X exempt;
 * + pass, t tag, h hold, H hold though none passed. Then its copies are settled: passed unless
 * held; fate 'a': all aborted, 'p': left pending, 'h': all held, 'r': held, then released,
 * 'w': would be held, in monitor mode.
 */
struct step {
    const char *path, *rcpts, *expect;
    const char *list;
    char fate;
    bool acked, cycle, known, transit, connector;
    bool anew;         /* a re-issue, by its text */
    int64_t later;     /* ms after the others */
    uint32_t ordinary; /* messages that came through each of the path's hosts in normal flow */
    bool delivers;     /* each of them hands us mail of its own itself */
    const char *helo;  /* NULL: as past.h has it */
};

#define B "b@b.example"
#define C "c@c.example"
#define D "d@d.example"
#define E "e@e.example"

#define STEP(p, r, e) .path = p, .rcpts = r, .expect = e

/* What became of its copies. */
static inline void settle(struct record *r, const struct envelope *e,
                          const struct replication_signals *out, char fate)
{
    uint64_t hash[64];
    enum fate became[64];

    if (fate == 'p')
        return;
    for (size_t i = 0; i < e->nrecipients; i++) {
        hash[i] = e->recipients[i].hash;
        became[i] = out->copy[i].advice == ADVICE_HOLD ? FATE_HELD : FATE_PASSED;
        if (fate)
            became[i] = fate == 'a' ? FATE_ABORTED : fate == 'w' ? FATE_WOULD_HOLD : FATE_HELD;
    }
    record_settle(r, hash, became, e->nrecipients);
    if (fate != 'r')
        return;
    for (size_t i = 0; i < e->nrecipients; i++)
        became[i] = FATE_RELEASED;
    record_settle(r, hash, became, e->nrecipients);
}

/* One transaction put to the record; asserts that it is of this message. */
static inline void observe(struct past *p, struct record *r, const struct step *step,
                           const char *visible, struct subject *s, struct replication_signals *out)
{
    uint32_t ordinary[PATH_MAX_NODES];
    bool known[PATH_MAX_NODES], direct[PATH_MAX_NODES];
    struct observation o = {.subject = s,
                            .ordinary = ordinary,
                            .known = known,
                            .direct = direct,
                            .transit = step->transit,
                            .join = step->anew ? JOIN_TEXT : JOIN_OWN};

    past_subject(p, s, 1, 1, step->path, step->rcpts, visible);
    s->now += step->later;
    for (size_t i = 0; i < PATH_MAX_NODES; i++) {
        ordinary[i] = step->ordinary;
        known[i] = step->known;
        direct[i] = step->delivers;
    }
    s->path.cycle = step->cycle ? 2 : 0;
    ((struct envelope *)s->envelope)->acked = step->acked;
    if (step->helo)
        ((struct envelope *)s->envelope)->helo = span_str(step->helo);
    if (step->list) {
        s->fp.list_id = span_str(step->list);
        s->fp.list_marked = true;
    }
    if (step->connector)
        s->visible.connector = SPAN("mspop3connector.x@b.example");
    assert_int_equal(replication_observe(r, &o, out), OBSERVED_OK);
}

/* "office@firm0.example office@firm1.example ..."; returns how many bytes. */
static inline size_t storm_addresses(char *all, size_t n)
{
    size_t at = 0;

    for (size_t i = 0; i < n; i++)
        at += (size_t)sprintf(all + at, "office@firm%zu.example ", i);
    return at;
}

#endif
