/*
 * news.h - what this node learned of the world and others should know: tallies that are shared
 * (ordinary mail, convicted servers, who hands over directly, who relays for many) and digests of
 * first copies. Two topics of the fleet (fleet.h).
 *
 *   mail threads -> lanes (a short lock, no other) -collect-> sorted, summed, packed -> a batch
 *
 * A batch of tallies:  1  then each: kind[1] key[8] and
 *     count: amount[4]    rate: amount[4] length[4]    set: member[4] length[4]    mark: length[4]
 * A batch of digests:  1  then each: digest[8].        All least byte first; lengths in seconds.
 *
 * Invariant: what is kept here is bounded; what is too much is dropped and counted.
 */
#ifndef NEWS_H
#define NEWS_H

#include "fleet.h"
#include "recall.h"
#include "store.h"

struct news;

/* Begins to listen at the memory store; before mail. recall may be NULL. */
struct news *news_new(struct store *memory, struct recall *);
void news_free(struct news **); /* after mail */
/* Their arg is the struct news. */
extern const struct fleet_topic news_tallies, news_digests;
/* What was dropped because nobody collected it in time. Any thread. */
uint64_t news_dropped(const struct news *);

/* Packs as many as fit into out; returns how many, *used says how many bytes. */
size_t news_pack(const struct tally *, size_t n, uint8_t *out, size_t cap, size_t *used);
/* Takes the next tally off the bytes; false: that was all, or it is none. Begin behind the first
 * byte, which is NEWS_VERSION. */
enum { NEWS_VERSION = 1 };
bool news_unpack(struct span *, struct tally *);

#endif
