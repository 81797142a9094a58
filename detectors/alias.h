/*
 * alias.h - other names a message goes by when relays rewrite it (detection.md 2.3, 2.5, 2.6).
 *
 *   K      Message-ID, Date, From, Resent      its own name
 *   name   a K it came under before            a relay's new name, once it was seen through
 *   stamp  our own X-Breakwater-Trace          whatever was rewritten, if the content is the same
 *   chain  oldest Received field, From, Resent a new Message-ID at each pass, trace lines kept
 *   text   F, From, base subject               all rewritten, trace lost: only with evidence
 *   theme  From, base subject                  the same with a footer: likewise
 *
 * An alias only points at a record; whether the message joins it is judged against the record, by
 * content and evidence. Content alone never identifies: what cron, a monitor, a person or a
 * newsletter sends again is a new message each time. It is a re-issue only if it comes from
 * somewhere else than its author would send it from, and shows how it came there. Whoever writes it
 * again writes a new Date: the same one, to the same ten people or more, is such a sign.
 */
#ifndef ALIAS_H
#define ALIAS_H

#include "record.h"

enum join {
    JOIN_OWN, /* by its own K, or it is new */
    JOIN_NAME,
    JOIN_STAMP,
    JOIN_CHAIN,
    JOIN_QUEUE, /* the same, by a line that has a queue id: the text may be changed */
    JOIN_TEXT,  /* a re-issue */
    JOIN_THEME, /* a re-issue, changed */
    JOIN_DATE,  /* text, Date and people of an earlier message, from its own machine: it is stuck */
    JOINS       /* must be last */
};

/* How one message presents itself to records it may belong to. In the subject's arena. */
struct guise {
    const struct observation *o;
    uint64_t queue;                   /* alias by the oldest line with a queue id; 0: none */
    struct origin origin;             /* what its own record would keep */
    struct span oldest, peer, author; /* organisations: of its oldest hop, of the foreign relay
                                         nearest to us, of From */
    bool read;      /* the next ones are: they cost more, and are read when a record is looked at */
    bool pickup;    /* taken out of a mailbox on its way, or at its beginning */
    bool signature; /* the SBS connector's address is in To or Cc */
    bool echo;      /* goes to those whom To and Cc show: at least 90 %, and at least 10 shown */
    bool of_author; /* its source or its peer has the author's name */
    bool of_addressee; /* one of them has another addressee's name, and not the author's */
};

/* Cheap: the names it can be found by. */
void guise_read(struct guise *, const struct observation *);

struct joining {
    enum join join;
    const char *why; /* evidence in words for people, in the arena; NULL: it does not join */
    bool weak;       /* nothing but whom it shows and goes to speaks for it */
};
/* Is the message this record's, by that way? Pure. JOIN_NAME and JOIN_STAMP ask for the content
 * only. */
struct joining alias_joins(enum join, const struct record *, struct guise *);
/* Is a message of that way one that somebody sent anew, rather than the same on another path? */
bool join_reissue(enum join);
const char *join_name(
    enum join); /* "own", "name", "stamp", "chain" (two of them), "text", "theme", "date" */

/* The name under which the record of another K is remembered for this one. */
uint64_t alias_of_key(const struct key *);

#endif
