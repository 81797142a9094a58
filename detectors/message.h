/*
 * message.h - the header of a message, as fields. Reading never fails: it returns less.
 *
 * Doors hand over fields (milter) or raw bytes (SMTP, files); both give the same bytes and the
 * same fields. The body is not kept here: it streams through the fingerprints and, if it may be
 * held, into the daemon's `struct body`.
 *
 * A message is `head` followed by `body` bytes; the empty line between belongs to the body side
 * (its first CRLF), so that head + body is always exactly what arrived.
 */
#ifndef MESSAGE_H
#define MESSAGE_H

#include "arena.h"
#include "span.h"

/* Fields that somebody looks for; found in O(1). */
enum field_name {
    FIELD_OTHER,
    FIELD_RECEIVED,
    FIELD_FROM,
    FIELD_TO,
    FIELD_CC,
    FIELD_DATE,
    FIELD_SUBJECT,
    FIELD_MESSAGE_ID,
    FIELD_REFERENCES,
    FIELD_IN_REPLY_TO,
    FIELD_RESENT_MESSAGE_ID,
    FIELD_RESENT_DATE,
    FIELD_LIST_ID,
    FIELD_LIST_OTHER, /* List-Post, List-Unsubscribe ...: any other List-* */
    FIELD_PRECEDENCE,
    FIELD_AUTO_SUBMITTED,
    FIELD_AUTOREPLY, /* X-Autoreply, X-Autorespond */
    FIELD_THREAD_INDEX,
    FIELD_DELIVERED_TO,
    FIELD_CONTENT_TYPE,
    FIELD_CONTENT_ENCODING, /* Content-Transfer-Encoding */
    FIELD_CONTENT_DISPOSITION,
    FIELD_RELEASE, /* X-Breakwater-Release */
    FIELD_STAMP,   /* X-Breakwater-Trace */
    FIELD_NAMES    /* must be last */
};

struct field {
    enum field_name id;
    struct span name;  /* without the colon */
    struct span value; /* after the colon: leading blank and inner folding kept, final CRLF not */
    uint32_t next;     /* index + 1 of the next field with the same id; 0: last */
    uint32_t at;       /* where it begins in head; `name` may lie in an older, smaller one */
};

struct message {
    struct arena *arena;
    uint8_t *head; /* header bytes, each line ended as it came (milter: CRLF) */
    size_t nhead, caphead;
    struct field *fields;
    size_t nfields, capfields;
    uint32_t first[FIELD_NAMES]; /* index + 1 of the first of each; 0: none */
    uint32_t last[FIELD_NAMES];
    uint32_t count[FIELD_NAMES]; /* how many in all, beyond LIMIT_FIELDS too */
    bool header_done;
    bool head_full; /* LIMIT_HEAD reached: later header bytes are not indexed */
    size_t line;    /* raw reading: start in head of the unfinished line */
    size_t open;    /* raw reading: start in head of the field still being read */
    uint8_t blank;  /* raw reading: bytes of the empty line that opens the body side; 0: none */
};

/* A message whose memory is the arena's. */
struct message *message_new(struct arena *);

/*
 * Adds one field (milter SMFIC_HEADER). `value` has its leading blank (SMFIP_HDR_LEADSPC) and may
 * hold LF or CRLF folding; both become CRLF in head. Nothing in name or value can end the field:
 * a line end not followed by a blank gets one, bytes impossible in a name become '?'. Returns the
 * bytes to keep elsewhere when the head is full (a span in the arena), else an empty span.
 */
struct span message_add_field(struct message *, struct span name, struct span value);

/*
 * Adds raw bytes of header and body as they arrive, in pieces of any size. Returns the part of
 * `raw` that belongs to the body side: everything from the empty line on (its own CRLF
 * included; LF alone counts as a line end, a line that is no field ends the header).
 * When the head is full the header is over too: its rest is body, lost to reading only.
 * The first bytes returned (header_done is set then) begin with all `blank` bytes of the empty
 * line: the fingerprinter wants what comes after them.
 * NOTE the returned span may point into the arena rather than into raw.
 */
struct span message_add_raw(struct message *, struct span raw);

/* No more header: indexes what is there, an unfinished last line too. Idempotent. */
void message_end_header(struct message *);

/* The header without the fields of a kind, in the arena. */
struct span message_without(const struct message *, enum field_name);

/* The first field of a kind, or NULL; and the next of the same kind, or NULL. */
const struct field *message_first(const struct message *, enum field_name);
const struct field *message_next(const struct message *, const struct field *);
/* Value of the first field of a kind, trimmed, unfolded (CRLF removed, runs of blanks kept as one)
 * in the arena; empty if none. */
struct span message_value(const struct message *, enum field_name);

#endif
