/*
 * smtp_own.h - the inside of an SMTP session, shared by smtp.c (the client's side), smtp_command.c
 * (what each command does) and smtp_deliver.c (from the verdict to the final reply).
 */
#ifndef SMTP_OWN_H
#define SMTP_OWN_H

#include <event2/buffer.h>
#include <event2/event.h>

#include "dot.h"
#include "smtp_door.h"
#include "worker.h"

/* What a session waits for, and so who may move it on. */
enum stage {
    STAGE_PROXY,    /* the client: a PROXY header */
    STAGE_STARTTLS, /* our 220 to be written, then the handshake */
    STAGE_TLS,      /* the handshake */
    STAGE_COMMAND,  /* the client: a command */
    STAGE_OPENING,  /* downstream: to be ready */
    STAGE_AUTH,     /* the client: its answer to a 334 */
    STAGE_DATA,     /* the client: data */
    STAGE_DISCARD,  /* the same, but it will be refused */
    STAGE_JUDGE,    /* the tx */
    STAGE_DELIVER,  /* downstream: the message */
    STAGE_CLOSING   /* our last words to be written */
};

/* What the next reply is made of; in the order of the commands. */
enum turn_kind {
    TURN_LOCAL,  /* ours: text */
    TURN_RELAY,  /* downstream's next reply, as it is */
    TURN_MAIL,   /* the same; 2xx: the transaction is open */
    TURN_RCPT,   /* the same; 2xx: one more recipient */
    TURN_AUTH,   /* the same; 334: the client answers */
    TURN_SILENT, /* downstream's next reply, for nobody */
};
struct turn {
    enum turn_kind kind;
    const char *text;         /* LOCAL: without CRLF; static */
    struct span path, params; /* RCPT: in the tx's arena */
};

enum {
    TURNS_MAX = 256,       /* commands answered out of one look at the input */
    NAME_MAX_BYTES = 255,  /* of a HELO, client name, login that is kept */
    INPUT_MAX = 64 << 10,  /* bytes of the client that wait */
    OUTPUT_MAX = 64 << 10, /* bytes of replies that wait, before no more commands are obeyed */
};

/* Who speaks, as far as it is known. */
struct speaker {
    struct ipaddr address;
    uint16_t port;
    char name[NAME_MAX_BYTES + 1], helo[NAME_MAX_BYTES + 1], login[NAME_MAX_BYTES + 1];
    bool esmtp;
};

/* From the verdict to downstream's final word. */
struct delivery {
    enum delivery_step {
        DELIVER_OPEN,     /* a new session */
        DELIVER_ENVELOPE, /* RSET, MAIL and RCPTs said again */
        DELIVER_DATA,     /* DATA */
        DELIVER_TEXT      /* the message */
    } step;
    unsigned expected; /* replies of the envelope still to come */
    bool reset;        /* the first of them answers RSET */
    bool again;        /* a new session was opened already */
    int code;          /* the first refusal among them; 0: none */
    char text[512];    /* that reply */
};

struct session {
    struct connection connection; /* must be first */
    struct worker *worker;
    struct smtp_door *door;
    struct bufferevent *bev;
    struct event *timer;
    enum stage stage;
    bool inside, dead;       /* a callback runs; the session has ended in it */
    bool entered;            /* counted in clients */
    bool upstream;           /* one of listener.upstreams */
    bool secure, greeted;    /* TLS is up; EHLO or HELO was said */
    bool authed, mail;       /* AUTH succeeded; MAIL was accepted downstream */
    bool forwarded;          /* XFORWARD was said for the message to come */
    struct ipaddr peer;      /* the socket's */
    struct speaker client;   /* who it speaks for */
    struct speaker origin;   /* XFORWARD: whose message it is */
    struct smtp_offer offer; /* what we announced; spans in the downstream session's arena */
    struct downstream *down;
    struct turn turn[TURNS_MAX];
    unsigned first, turns; /* ring */
    unsigned asked;        /* recipients asked for in this transaction */
    char *again;           /* a MAIL line that waits for downstream to be ready; malloc'd */
    struct tx *tx;
    struct dot_reader dots;
    uint64_t received, looked; /* bytes of data; when its rate was looked at last */
    struct delivery delivery;
    unsigned junk, messages;
    int64_t began; /* monotonic ms */
};

/* ---- smtp.c ---- */
void smtp_say(struct session *, const char *line);           /* a reply, without CRLF */
void smtp_say_text(struct session *, struct span with_crlf); /* whole lines */
void smtp_close(struct session *, const char *last);         /* after a last reply, or NULL */
void smtp_stage(struct session *, enum stage);               /* and its deadline */
void smtp_go_on(struct session *);                           /* obeys what waits in the input */
void smtp_starttls(struct session *);
void smtp_open_downstream(struct session *);
/* Ends the message, if there is one; downstream forgets it too. */
void smtp_forget(struct session *);
struct turn *smtp_turn(struct session *, enum turn_kind);

/* ---- smtp_command.c ---- */
/* false: it has to wait until all former commands are answered. */
bool smtp_obey(struct session *, struct span line);
void smtp_answer_ehlo(struct session *);
void smtp_auth_answer(struct session *, struct span line);

/* ---- smtp_deliver.c ---- */
void smtp_judged(struct session *);
void smtp_delivery_reply(struct session *, int code, struct span text);

#endif
