/*
 * record.h - the past of one message: who got it, by which paths, and what may still come.
 *
 *   record --> addressees (open addressing by keyed address hash)  two leaves, counts, allowances
 *          --> places     (open addressing by prefix id)           the trie of all their paths
 *          --> variants   (first kept, the rest a ring)            its contents: is an id reused?
 *          --> dossiers   (from the first duplicate on; see blame.h)
 *
 * A path is kept as the id of its last place; a place knows its parent, so 630 recipients of one
 * transaction share one path, and paths that descend from one acceptance share what they share.
 * Prefix ids are keyed hashes of the whole chain, so a place is found without its parent.
 *
 * Bounded: ADDRESSEES_MAX, PLACES_MAX (places no addressee leads to are swept), 8 variants, 64
 * dossiers. Only record.c, record_pack.c, blame.c and replication.c look inside.
 */
#ifndef RECORD_H
#define RECORD_H

#include "detector.h"

enum {
    ADDRESSEES_MAX = 100000, /* recipients beyond are not remembered: they look FIRST */
    PLACES_MAX = 1 << 18,    /* paths beyond are not remembered: their copies are forks */
    ADDRESSEE_LISTS = 6,
    ADDRESSEE_SERVERS = 6
};

/* One acceptance of the message by one server. */
struct place {
    uint32_t id;     /* prefix id; 0: free slot */
    uint32_t host;   /* 32 bits of the host's hash */
    uint32_t parent; /* id of the acceptance before; 0: none */
    uint8_t depth;   /* nodes before it in its path */
    uint8_t kids;    /* different acceptances that followed, stays at 255 */
    uint8_t direct;  /* copies handed to us from here and not held, stays at 255 */
    bool live;       /* used while sweeping only */
};

/* Which allowance a copy used, to give it back if the copy is lost. */
enum allowance {
    ALLOWANCE_NONE,
    ALLOWANCE_EXTRA,
    ALLOWANCE_SAME,
    ALLOWANCE_RESEND,
    ALLOWANCE_LIST,
    ALLOWANCE_INTERNAL
};

/* One recipient of the message. */
struct addressee {
    uint64_t hash;    /* keyed address hash */
    uint32_t leaf[2]; /* where its first and its latest path end; 0: none */
    uint32_t before;  /* leaf[1] before the latest copy, to forget the path of one refused */
    uint32_t seen;    /* copies, held ones included */
    uint32_t turn;    /* its index in the envelope looked at last: finds recipients named twice */
    uint32_t more;    /* index + 1 of its struct more; 0: none */
    uint16_t pending, passed;
    uint8_t extra, same, resend, internal; /* allowances used */
    uint8_t last;                          /* enum allowance of the latest copy */
    bool used;                             /* false: a free slot */
    bool got; /* a copy that was to be held has passed all the same: monitor mode */
};

/* What few addressees need. */
struct more {
    uint32_t list[ADDRESSEE_LISTS];     /* hashes of List-Ids it got the message by */
    uint32_t server[ADDRESSEE_SERVERS]; /* servers blamed for its detours */
    uint8_t nlists, nservers;
};

struct variant {
    uint64_t f;
    uint32_t nwords;
    struct sketch sketch;
};

enum {
    DOSSIERS_MAX = 64,
    DOSSIER_SET = 8,
    DOSSIER_NAME = SERVER_NAME + 1,
    DOSSIER_ADDRESS = 96,
    QUICK_RCPTS = 16, /* recipients and domains kept as "replays To:" evidence */
    QUICK_DOMAINS = 8,
    NOBODY = -1
};

enum conviction {
    CONVICTION_NONE,
    CONVICTION_AGAIN,  /* one recipient had an earlier detour blamed on it */
    CONVICTION_QUICK,  /* replays the message to every To: address */
    CONVICTION_STRUCT, /* takes delivered mail out of a mailbox and sends it on */
    CONVICTION_CYCLE,  /* the path goes round through it */
    CONVICTIONS        /* must be last */
};

/* A few distinct values; the first DOSSIER_SET of them. */
struct few {
    uint32_t value[DOSSIER_SET];
    uint8_t n;
};

/* What speaks for one server being the one that makes the copies. */
struct dossier {
    uint32_t server;   /* id */
    uint32_t ordinary; /* messages seen through its host in normal flow, as last asked */
    uint32_t n;        /* detours through it; the next five are shares of it */
    uint32_t reinjected, label, ended, first, branch;
    struct few before, after, peers; /* server ids, server ids (0: us), peer orgs */
    bool direct;                     /* it handed copies to us itself */
    bool delivers;                   /* hands us ordinary mail itself, as last asked */
    bool pickup;                     /* wrote a "mail pickup service" line */
    uint8_t conviction;              /* enum conviction */
    uint8_t nrcpts, ndomains;
    uint64_t rcpt[QUICK_RCPTS]; /* distinct recipients of its detours */
    uint16_t domain[QUICK_DOMAINS];
    uint32_t all, visible; /* recipients of its transactions; those in To or Cc */
    uint32_t turn;         /* the transaction counted last in all and visible */
    int64_t since, until;  /* ms: its first and its latest detour */
    char name[DOSSIER_NAME];
    char addressee[DOSSIER_ADDRESS]; /* whose mail server it is, or for whom the mail was meant */
};

/* Where a message came from when it was seen first, and whom it showed: what a re-issue is judged
 * against (alias.h). */
struct origin {
    uint64_t chain, text, theme; /* aliases it is found by; 0: none */
    uint64_t visible;            /* XOR of the hashes of its To/Cc addresses */
    uint32_t nvisible;
    uint32_t oldest, peer; /* 32 bits of the hash of the organisation of its oldest hop, its peer */
    uint32_t source;       /* id of the machine its path begins with */
    uint32_t date;         /* 32 bits of the hash of Date; 0: it has none */
};

struct record {
    struct origin origin;
    int64_t first, last;             /* ms */
    uint64_t copies, passed, held;   /* (message, recipient) arrivals */
    uint64_t duplicates;             /* further copies among them */
    uint32_t duplicate_transactions; /* transactions with a further copy */
    uint32_t naddressees, capaddressees;
    uint32_t nplaces, capplaces, sweep_at;
    uint32_t nmore, capmore;
    uint32_t ndossiers, capdossiers, convicted;
    uint8_t nvariants;
    uint8_t ring; /* variants replaced so far, modulo */
    bool storm;
    bool changed;    /* since it was last packed: for the registry of storms */
    uint32_t joined; /* copies that came under another K */
    struct addressee *addressee;
    struct place *place;
    struct more *more;
    struct variant *variant;
    struct dossier *dossier;
    struct addressee one; /* most messages have one recipient and one content: */
    struct variant only;  /* these tables begin inside the record */
};

/* What the names of a server say of those whom the message shows: the organisations (labels) it is
 * called after, that addressees belong to as well. */
enum { CLUE_LABELS = 3 };
struct clue {
    uint32_t label[CLUE_LABELS];
    uint32_t at[CLUE_LABELS]; /* the visible address of that label */
    uint8_t n;
    bool silent; /* it wrote no line of its own: see blame.c */
};

/* What only the node that saw a transaction can say, where it is another one that judges (event.h).
 * Its subject then holds no more than what is asked besides. */
enum { WITNESS_HAD = 1, WITNESS_EXEMPT = 2 };
struct witness {
    const struct clue *clue;  /* per path node */
    const uint32_t *label;    /* per recipient: what scene_label() says */
    const uint8_t *recipient; /* per recipient: WITNESS_HAD, WITNESS_EXEMPT */
    size_t nvisible;          /* recipients that the message shows */
    uint32_t list, peer_org;  /* keyed hashes; list 0: none */
};

/* One transaction, as put to the record. Pointers live as long as the tx. */
struct observation {
    const struct subject *subject;
    const uint32_t *ordinary; /* per path node: messages seen through this host in normal flow */
    const bool *direct; /* per path node: it hands us ordinary mail itself; NULL: nobody does */
    const bool *known;  /* per path node: convicted in another storm, at most known_server ago */
    bool transit;       /* the peer is a transit relay: never "quick"-convicted */
    unsigned join;      /* enum join: by which name the store found the record */
    const char *join_why;
    bool join_weak;               /* it rests on whom the message shows and goes to alone */
    const struct origin *origin;  /* kept if the record is new; NULL: nothing is */
    const struct bloomring *ring; /* the long memory of this record's K; NULL: there is none */
    int64_t whole; /* ms: since when nothing was forgotten before its time; 0: unknown */
    struct key k;  /* of the record */
    const struct witness *witness; /* NULL: it is seen here, and all is asked here */
};

struct record *record_new(int64_t now);
/* Frees and nulls. NULL inside is fine. */
void record_free(struct record **);
/* Is nothing remembered in it yet? */
bool record_empty(const struct record *);
/* Gives the record another one's content; that one is freed and nulled. */
void record_replace(struct record *, struct record **with);
size_t record_bytes(const struct record *); /* memory it holds */
/* How long it may rest unused: ttl_plain, ttl_dup or ttl_storm. */
int64_t record_ttl(const struct record *, const struct site *);

/* What became of one recipient's copy. */
enum fate {
    FATE_PASSED, /* handed on: downstream's 2xx, or our milter reply */
    FATE_HELD,   /* in the hold queue */
    /* Monitor mode: judged as held, so that the next verdict is what enforcing would give; but its
     * recipient has it. */
    FATE_WOULD_HOLD,
    FATE_RELEASED, /* a held copy came back through our door: now it has passed */
    FATE_ABORTED   /* refused or lost: its next try is the first again, allowances are given back */
};
void record_settle(struct record *, const uint64_t *rcpt, const enum fate *, size_t n);
/* Did a copy pass to this recipient (keyed address hash)? For "one per recipient". */
bool record_passed(const struct record *, uint64_t rcpt);

/* The whole record as bytes, for the disk, malloc'd (a new field is to be written there, and the
 * version raised); and back: NULL if the bytes are not whole or of another version. */
uint8_t *record_pack(const struct record *, size_t *n);
struct record *record_unpack(struct span);
/* Forgets paths and dossiers: what a storm of long ago needs is who had it. */
void record_retire(struct record *);
/* Copies still pending are as lost as an aborted one: for a record read from the disk, whose
 * transactions ended with the process. */
void record_abandon(struct record *);
/* What the long memory calls a copy of K for a recipient. Its low 6 bits are those of K. */
uint64_t record_digest(const struct key *, uint64_t rcpt);

/* ---- for blame.c, replication.c and record_pack.c only ---- */

/* Is this the content of the record (detection.md 2.2.6)? A record without content takes it. */
bool record_same_content(const struct record *, const struct keys *, const struct fingerprints *);
/* Remembers one more form of the content; no-op if it has this one. */
void record_add_content(struct record *, const struct fingerprints *);
struct addressee *record_find(const struct record *, uint64_t hash);
/* Finds or makes; NULL when the record is full. Moves the others. */
struct addressee *record_add(struct record *, uint64_t hash);
struct more *record_more(struct record *, struct addressee *);
const struct place *record_place(const struct record *, uint32_t id);
/* Remembers a path and returns the id of its end, 0 if there is no room. */
uint32_t record_walk(struct record *, const struct path *);
/* Takes a place as it is; its parent has to be there in the end. For record_unpack. */
void record_put_place(struct record *, const struct place *);
/* n copies were handed to us from here. */
void record_direct(struct record *, uint32_t id, size_t n);
uint32_t place_id(const struct node *);

#endif
