/*
 * blame.h - whose fault a further copy is (detection.md 5): one dossier per server and message.
 *
 * Every server of a detour gets an entry in its dossier. What all detours have in common is what
 * names the culprit; what ordinary mail also passes through is cleared by its ordinary traffic.
 * Points only rank suspects. Nobody is named on less than name_min_detours and without a clear
 * lead; then the site is named ("one of a -> b -> c").
 */
#ifndef BLAME_H
#define BLAME_H

#include "record.h"

/* One transaction as blame sees it; made once, in the subject's arena. */
struct scene {
    const struct observation *o;
    struct record *record;
    uint32_t helo_label, peer_org;
    uint32_t *label;  /* organisation label of each visible address, in their order */
    struct labelled { /* the same, sorted by label */
        uint32_t label, at;
    } * sorted;
    size_t nlabels;
    struct names { /* per node */
        struct clue clue;
        bool read;
    } * names;
};
struct scene *scene_new(struct record *, const struct observation *);
/* The organisation label of a recipient (its index) if other visible addresses matter for it, else
 * 0. */
uint32_t scene_label(const struct scene *, size_t i);
/* The keyed hash of our client's organisation. */
uint32_t scene_peer(const struct scene *);
/* What is known of node i. */
const struct clue *scene_clue(const struct scene *, size_t i);
/* How a visible address is shown to people who ask whose mail server this is. */
struct span addressee_shown(const struct visible *, long at);

/* Enters the servers of node[from..] in their dossiers for a copy to r, whose label is rlabel;
 * returns the index of the best-scored dossier, or NOBODY. begins: the message was sent anew or its
 * trace was cut off there; then a pickup that is the oldest hop counts as well, and the first
 * server is the one returned. */
int blame_enter(struct scene *, size_t from, bool begins, uint64_t r, uint32_t rlabel);
/* The first convicted server of node[from..], or NOBODY; enters nothing. */
int blame_convicted(const struct record *, const struct path *, size_t from);
/* Has a server of node[from..] so few detours that this one is worth entering? */
bool blame_rare(const struct record *, const struct path *, size_t from);
double blame_score(const struct record *, const struct dossier *);
const char *conviction_text(enum conviction);

/* Who is to blame, for people. All text in the arena. */
struct culprit {
    struct span relay; /* "host[address]", or "one of a -> b -> c" when no name is clear */
    bool named;        /* a name, not a site */
    uint32_t server;   /* id of the one it is, or most likely is */
    double score;
    uint32_t detours;       /* copies through it on which this rests */
    int64_t since, until;   /* ms: its first and its latest detour; 0: not known */
    const char *grade;      /* "seen directly", "reported by 3 independent relays", "claimed by one
                               relay only" */
    const char *conviction; /* or NULL */
    const char **evidence;  /* nevidence sentences */
    size_t nevidence;
};
/* Named first, best first; at most CULPRITS_MAX. Returns how many. */
enum { CULPRITS_MAX = 16 };
size_t blame_culprits(const struct record *, const struct site *, struct arena *,
                      struct culprit **out);

#endif
