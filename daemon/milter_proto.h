/*
 * milter_proto.h - the words of the milter protocol: frames, the negotiation, and what is inside
 * the frames. Knows no socket, no session and no transaction.
 *
 *   frame:    uint32 length (big-endian; command and data), command byte, data
 *   strings:  NUL-terminated; a missing NUL at the end of the data is forgiven
 *
 * Milter protocol versions 2 to 6, as Sendmail's libmilter/milter documentation and Postfix's
 * MILTER_README describe it.
 */
#ifndef MILTER_PROTO_H
#define MILTER_PROTO_H

#include "span.h"

enum milter_limit {
    MILTER_CHUNK = 65535, /* data bytes of a frame; we never ask for more (MDS) */
    MILTER_VALUE = 980,   /* bytes of a header value of ours: a line has 998 (RFC 5322 2.1.1) */
    SMTP_REPLY = 500,     /* of a reply text: its line has 512 (RFC 5321 4.5.3.1.5) */
    MILTER_FRAME = 5      /* length and command */
};

/* What a filter may ask to do at the end of a message (SMFIF_*). */
enum milter_action {
    ACT_ADDHDRS = 0x1,
    ACT_DELRCPT = 0x8,
    ACT_CHGHDRS = 0x10,
    ACT_SETSYMLIST = 0x100
};

/* Steps of the protocol that can be left out, or left without an answer (SMFIP_*). */
enum milter_step {
    STEP_NR_HDR = 0x80,
    STEP_NOUNKNOWN = 0x100,
    STEP_NR_CONN = 0x1000,
    STEP_NR_HELO = 0x2000,
    STEP_NR_MAIL = 0x4000,
    STEP_NR_RCPT = 0x8000,
    STEP_NR_DATA = 0x10000,
    STEP_NR_UNKN = 0x20000,
    STEP_NR_EOH = 0x40000,
    STEP_NR_BODY = 0x80000,
    STEP_LEADSPC = 0x100000
};

struct milter_frame {
    uint8_t command;
    struct span data;
    size_t size; /* of the whole frame */
};
enum frame_state {
    FRAME_PART, /* more bytes are needed */
    FRAME_WHOLE,
    FRAME_BAD /* length 0, or longer than the command may be: nothing after it can be read */
};
/*
 * The frame at the start of `in`. A frame carries at most MILTER_CHUNK bytes of data; only a header
 * field may have LIMIT_HEAD, because Postfix sends a field in one piece up to its own
 * header_size_limit.
 */
enum frame_state milter_frame(struct span in, struct milter_frame *out);

/* What both sides have agreed on. */
struct milter_terms {
    uint32_t version, actions, steps;
};
/* Our answer to an offer: min(version, 6) and the subset of what is offered that we want. False:
 * not an offer (short, or a version before 2). */
bool milter_agree(struct span offer, struct milter_terms *out);
/* The names of the functions we asked for and did not get, or NULL. */
const char *milter_missing(const struct milter_terms *);

/* Takes the next string from rest; empty at the end. */
struct span milter_string(struct span *rest);
/* The value of a macro in the data of a D frame that belongs to `command` ("i" matches "{i}");
 * empty if none. */
struct span milter_macro(struct span data, uint8_t command, struct span name);
/* Reads the data of a C frame; what cannot be read is left unknown. */
void milter_client(struct span data, struct span *name, struct ipaddr *addr);

/* Bytes on their way to the MTA. All zero: none. */
struct milter_out {
    uint8_t *p;
    size_t n, at, cap; /* [at, n) still has to be written */
};
/* Appends one frame; the parts are its data. */
void milter_put(struct milter_out *, uint8_t command, const struct span *parts, size_t n);
void milter_put_terms(struct milter_out *, const struct milter_terms *);
void milter_put_addheader(struct milter_out *, const struct milter_terms *, struct span name,
                          const char *value);
void milter_put_delheader(struct milter_out *, struct span name, uint32_t index);
void milter_put_delrcpt(struct milter_out *, struct span raw);
void milter_put_reply(struct milter_out *, const char *text);
/* Frees the memory; what was in it is gone. */
void milter_out_free(struct milter_out *);

#endif
