/*
 * fact_pack.h - the facts of a message in a few bytes, so that a rule of tomorrow can be asked
 * about the mail of yesterday.
 *
 *   pack        = (number value)...   only of facts that are not as usual
 *   number      = 1 + place in the description, one byte
 *   value       = nothing (true) | varint (number) | varint length + 1, bytes (text)
 *   varint      = 7 bits a byte, lowest first, the highest bit says that more follow; of n + 1
 *   description = "name type usual\n"...   b(ool), n(umber), s(tring), - (not recorded)
 *
 * usual: what a fact is that is not in the pack; "=NAME": the same as that one. A number is whole,
 * or in thousandths. Invariant: no byte is NUL. Who reads goes by the names of the description that
 * came with the packs, never by its own table: an older or a newer program may have written them.
 */
#ifndef FACT_PACK_H
#define FACT_PACK_H

#include "fact.h"

enum {
    FACT_PACK_TEXT = 400,     /* bytes of a text that are kept */
    FACT_PACK_MESSAGE = 5000, /* bytes of a pack: of a message ... */
    FACT_PACK_COPY = 600,     /* ... and of one recipient's copy */
    FACT_DESCRIPTION = 4000,  /* of a description */
};

/* Not in a pack: evidence (sentences, made from the other facts), domains of addresses, and what
 * whoever keeps the pack knows already: the envelope's addresses, the listener, and how often this
 * recipient had the message. */
#define FACTS_NOT_PACKED                                                                           \
    (UINT64_C(1) << FACT_LOOP_EVIDENCE | UINT64_C(1) << FACT_REPLYALL_EVIDENCE |                   \
     UINT64_C(1) << FACT_PINGPONG_EVIDENCE | UINT64_C(1) << FACT_FLOOD_EVIDENCE |                  \
     UINT64_C(1) << FACT_MESSAGE_FROM_DOMAIN | FACTS_KEPT_ASIDE)
#define FACTS_KEPT_ASIDE                                                                           \
    (UINT64_C(1) << FACT_ENVELOPE_FROM | UINT64_C(1) << FACT_ENVELOPE_FROM_DOMAIN |                \
     UINT64_C(1) << FACT_RECIPIENT_ADDRESS | UINT64_C(1) << FACT_RECIPIENT_DOMAIN |                \
     UINT64_C(1) << FACT_RELAY_ADDRESS | UINT64_C(1) << FACT_RELAY_LISTENER |                      \
     UINT64_C(1) << FACT_REPLICATION_RELATION | UINT64_C(1) << FACT_REPLICATION_COPIES)

/* What facts_of_message() must read to have all that is packed. */
#define FACTS_PACKED (UINT64_MAX & ~FACTS_NOT_PACKED)

/* Packs the facts of the message, or those of the recipient, into out. Returns the length, at most
 * FACT_PACK_MESSAGE or FACT_PACK_COPY; SIZE_MAX: it would be more. All facts must have been read,
 * costly ones too. */
size_t facts_pack(const struct facts *, bool per_recipient, uint8_t *out) MUSTCHECK;

/* What our own packs mean: the text of the description, NUL-terminated. Returns its length. */
size_t facts_describe(char out[FACT_DESCRIPTION]);

/* A description as it was read. */
struct fact_map {
    uint64_t known;                      /* our facts that it records, and those kept aside */
    uint8_t fact[256];                   /* by number: ours, or FACT_COUNT */
    char type[256];                      /* by number: b n s, or 0: there is no such number */
    struct fact_value usual[FACT_COUNT]; /* texts lie in text */
    uint8_t same_as[FACT_COUNT];         /* FACT_COUNT: none */
    char text[FACT_DESCRIPTION];
};
/* Reads a description; what is no line of one is passed over. Do not copy the map. */
void fact_map_read(struct fact_map *, struct span description);

/*
 * The facts of one recipient's copy, from the pack of its message and its own. Those kept aside
 * must be in facts already, but for what facts_derive() finds out, which is called; texts point
 * into the packs and the map. Facts that are not map->known become empty. false: these are no packs
 * of this map.
 */
bool facts_unpack(const struct fact_map *, struct span of_message, struct span of_copy,
                  struct facts *) MUSTCHECK;

#endif
