/*
 * smtp_proto.h - the lines of SMTP, read and judged without a connection: commands (RFC 5321 4.1,
 * 1870, 3461, 4954, 6152, 6531), replies (4.2), EHLO keywords. Pure; everything is bounded.
 */
#ifndef SMTP_PROTO_H
#define SMTP_PROTO_H

#include "arena.h"
#include "span.h"

enum {
    SMTP_COMMAND_MAX = 2048, /* bytes of a command line with its CRLF */
    SMTP_AUTH_MAX = 12288,   /* of an AUTH line and its answers (RFC 4954) */
    SMTP_REPLY_MAX = 2048,   /* of one reply line we take from downstream */
    SMTP_REPLY_LINES = 100,  /* of one reply; RFC 5321 4.5.3.1.5 has no limit of its own */
};

enum smtp_verb {
    VERB_UNKNOWN, /* 502 5.5.1 */
    VERB_HELO,
    VERB_EHLO,
    VERB_MAIL,
    VERB_RCPT,
    VERB_DATA,
    VERB_RSET,
    VERB_NOOP,
    VERB_QUIT,
    VERB_VRFY,
    VERB_EXPN,
    VERB_HELP,
    VERB_ETRN,
    VERB_AUTH,
    VERB_STARTTLS,
    VERB_XCLIENT,
    VERB_XFORWARD,
    VERB_FOREIGN, /* raw bytes or another protocol follow (BDAT, XEXCH50, X-ANONYMOUSTLS, X-EXPS,
                     GET, POST, CONNECT, a TLS hello): answer and close, nothing can be in step */
    VERBS         /* must be last */
};

enum smtp_body { BODY_7BIT, BODY_8BITMIME };

/* A command line as read. Spans point into the line. */
struct smtp_command {
    enum smtp_verb verb;
    struct span argument; /* after the verb, trimmed */
    struct span path;     /* MAIL, RCPT: without <>; a source route is taken off */
    struct span params;   /* MAIL, RCPT: blank-separated, checked */
    uint64_t size;        /* MAIL SIZE=; 0: none */
    enum smtp_body body;
    bool utf8;         /* MAIL SMTPUTF8 */
    const char *wrong; /* reply "501 5.5.4 ..." when it cannot be used; NULL: it is good */
};
/* line: without its CRLF. What our EHLO offered decides which params are known. */
struct smtp_offer {
    bool size, eightbit, utf8, dsn, auth, starttls, pipelining, enhanced;
    bool vrfy, etrn;
    uint64_t size_max;
    struct span mechanisms; /* of AUTH: of downstream's, those we let through; each after a blank */
    struct span xclient, xforward; /* attributes downstream takes; NULL: it does not */
};
void smtp_command_read(struct smtp_command *, struct span line, const struct smtp_offer *);

/* May it stand between < and > in a command? Without control bytes; blanks and angle brackets only
 * in a quoted string. The empty one may. */
bool smtp_path_good(struct span path);
/* MAIL parameters without SIZE, which not every server takes; in the arena. */
struct span smtp_without_size(struct arena *, struct span params);

/* A reply as it comes in from downstream, line by line. */
struct smtp_reply {
    int code; /* 0: not complete yet; -1: this is no SMTP */
    bool enhanced;
    unsigned lines;
    struct span text; /* all lines with CRLF, in the arena given, to be relayed; as received, but
                         for control bytes, and codes that differ from the last */
};
/* One line without CRLF; true when the reply is complete (or broken). */
bool smtp_reply_line(struct smtp_reply *, struct arena *, struct span line);
/* One EHLO keyword line of downstream (after "250-") into what we can offer. */
void smtp_offer_keyword(struct smtp_offer *, struct arena *, struct span keyword);
/* All of a reply to EHLO. */
void smtp_offer_read(struct smtp_offer *, struct arena *, const struct smtp_reply *);

#endif
