/*
 * redis_settings.h - which Redis, and how it is spoken to: section store of breakwater.conf.
 *
 * Addresses are numbers or unix sockets, never names: a mail thread does not look up names.
 */
#ifndef REDIS_SETTINGS_H
#define REDIS_SETTINGS_H

#include "span.h"

struct redis_settings {
    struct span *servers; /* "127.0.0.1:6379", "[::1]:6379", "unix:/path"; a cluster: some of it */
    size_t nservers;
    bool cluster;           /* they are a Redis Cluster */
    struct span *sentinels; /* ask these who the master is; then servers are not used */
    size_t nsentinels;
    char *master;        /* its name there */
    char *user;          /* ACL user; NULL: the default one */
    char *password_file; /* NULL: none */
    char *password;      /* what that file held; NULL: none */
    unsigned database;   /* 0 in a cluster */
    bool tls;            /* over TCP; unix sockets stay plain */
    char *ca;            /* file of CAs to verify with; NULL: not verified */
    char *name;          /* name its certificate must have; NULL: not checked */
    char *certificate;   /* ours, and its key; NULL: none */
    char *key;           /* */
    int64_t deadline;    /* ms a call lasts at most */
    unsigned in_flight;  /* calls one connection has open, beyond which they are refused */
    char *prefix;        /* of all our keys: "bw" */
};

enum { REDIS_SERVERS = 32, REDIS_PASSWORD = 512, REDIS_SETTINGS_ERROR = 320 };

/* Reads a password file: its first line, at most REDIS_PASSWORD - 1 bytes. -1 after a sentence in
 * error: it cannot be read, everybody can, or it is empty. */
int redis_password_read(const char *path, char password[REDIS_PASSWORD],
                        char error[REDIS_SETTINGS_ERROR]) MUSTCHECK;

#endif
