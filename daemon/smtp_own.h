/*
 * smtp_own.h - the inside of an SMTP session, shared by smtp.c (the client's side), smtp_command.c
 * (what each command does) and smtp_deliver.c (from the verdict to the final reply).
 */
#ifndef SMTP_OWN_H
#define SMTP_OWN_H

#include <event2/buffer.h>
#include <event2/event.h>

#include "dot.h"
#include "prompt.h"
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
    const char *text;          /* LOCAL: without CRLF; static */
    const struct asked *asked; /* RCPT: in the tx's arena */
};
struct asked {
    struct span path, params;
};

/* How the login stands in what the client says for AUTH. */
enum login_form {
    LOGIN_NONE,    /* not, or it is known already */
    LOGIN_PLAIN,   /* base64(authzid NUL login NUL password) */
    LOGIN_ALONE,   /* base64(login) */
    LOGIN_XOAUTH2, /* base64("user=login" ^A ...) */
};

enum {
    TURNS_MAX = 64,        /* commands that wait for their replies */
    TURNED_TIMES = 5,      /* recipients that may be turned away, in limits.recipients */
    TURNS_OURS = 1,        /* of them, for what we say ourselves: XFORWARD */
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
    unsigned aside;    /* the first of them: to RSET and XFORWARD, whatever they are */
    unsigned accepted; /* recipients; MAIL is not one */
    bool mail;         /* MAIL was accepted */
    bool again;        /* a new session was opened already */
    int code;          /* the first refusal among them; 0: none */
    char text[512];    /* that reply */
};

/* What a session knows of the message under way. Lies in the tx, and goes with it. */
struct passage {
    bool open;      /* MAIL was accepted downstream */
    bool again;     /* MAIL was said to a second session already */
    unsigned asked; /* recipients asked for */
    struct dot_reader dots;
    uint64_t received, looked; /* bytes of data; when its rate was looked at last */
    struct delivery delivery;
    struct passing passing; /* from the end of its data to the reply */
};

struct session {
    struct connection connection; /* must be first */
    struct worker *worker;
    struct smtp_door *door;
    struct bufferevent *bev;
    struct prompt reading;
    struct event *timer;
    enum stage stage;
    bool inside, dead;     /* a callback runs; the session has ended in it */
    bool eof, gone;        /* the client says no more; it does not listen either */
    bool lingering;        /* our last words are out: the rest of its words is thrown away */
    bool entered;          /* counted in clients */
    bool upstream;         /* one of listener.upstreams */
    bool secure, greeted;  /* TLS is up; EHLO or HELO was said */
    bool authed;           /* AUTH succeeded */
    bool forwarded;        /* XFORWARD was said for the message to come */
    bool baffled;          /* DATA was refused: what comes may be the data all the same */
    enum login_form login; /* in the next answer for AUTH */
    char claimed[NAME_MAX_BYTES + 1]; /* what it said there; the client's login after 235 only */
    struct ipaddr peer;               /* the socket's */
    struct speaker client;            /* who it speaks for */
    struct speaker origin;            /* XFORWARD: whose message it is */
    struct smtp_offer offer;          /* what we announced; without spans */
    struct downstream *down;
    struct turn turn[TURNS_MAX];
    unsigned first, turns; /* ring */
    unsigned owed;         /* replies to what was obeyed */
    size_t line_bytes;     /* of the line being obeyed, with its end */
    struct tx *tx;         /* NULL between messages */
    struct passage *now;   /* in its arena; NULL with it */
    unsigned junk, idled, messages;
    unsigned turned; /* recipients turned away, by us or downstream, since the last message */
    int64_t began;   /* monotonic ms */
};

/* ---- smtp.c ---- */
void smtp_reply(struct session *, struct span with_crlf); /* one whole reply */
void smtp_say(struct session *, const char *line);        /* the same, without CRLF */
void smtp_close(struct session *, const char *last);      /* after a last line, or NULL */
void smtp_stage(struct session *, enum stage);            /* and its deadline */
void smtp_greet(struct session *);                        /* 220 */
void smtp_note(const struct session *, enum log_level, const char *event, struct span why);
struct turn *smtp_turn(struct session *, enum turn_kind);
/* The message is over; downstream may still have it. kind: how it was answered, if its end had
 * come. */
void smtp_end(struct session *, enum reply_kind);
/* What a reply says, as it is counted. */
enum reply_kind smtp_reply_kind(const struct session *, struct span reply);
/* The same, and downstream forgets it too. */
void smtp_forget(struct session *, enum reply_kind);
bool smtp_down_alive(const struct session *);
void smtp_open_downstream(struct session *);

/* ---- smtp_command.c ---- */
/* One line of the client. false: it has to wait until all former commands are answered. */
bool smtp_obey(struct session *, struct span line);
void smtp_auth_answer(struct session *, struct span line);
void smtp_answer_ehlo(struct session *);
/* The end of an AUTH: only now is the login it named the client's. */
void smtp_authed(struct session *, bool good);
/* Says all turns that are not answered to a new downstream session. */
void smtp_say_again(struct session *);
/* XFORWARD, if downstream wants it; false: it does not. */
bool smtp_say_origin(struct session *);

/* ---- smtp_deliver.c ---- */
void smtp_judged(struct session *);
void smtp_delivery_reply(struct session *, int code, struct span text);

#endif
