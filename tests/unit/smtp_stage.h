/*
 * smtp_stage.h - the stage on which the tests of the SMTP door play: one world, one client at a
 * time, a tx that takes notes, and time that passes at a word. Included once, by a test.
 */
#ifndef SMTP_STAGE_H
#define SMTP_STAGE_H

#include <sys/syscall.h>
#include <time.h>

#include "smtp_peer.h"

#include "tx_notes.h"

static struct world world;
static struct client client;

/* ---- time ---- */

static int64_t ahead; /* ms that have passed at our word */

/* The C library's, for us and for all libraries. */
int clock_gettime(clockid_t which, struct timespec *t)
{
    long rc = syscall(SYS_clock_gettime, which, t);
    int64_t ns = t->tv_nsec + ahead % 1000 * 1000000;
    t->tv_sec += ahead / 1000 + ns / 1000000000;
    t->tv_nsec = ns % 1000000000;
    return (int)rc;
}

/* So many ms later, when all has happened that happens by then. */
__attribute__((unused)) static void pass(int64_t ms)
{
    ahead += ms;
    client_turn(&client);
}

/* ---- before and after each test ---- */

static int fresh(void **state)
{
    (void)state;
    if (client.worker && client.fd >= 0)
        client_close(&client); /* the test before has failed */
    living = 0;
    memset(&verdict, 0, sizeof verdict);
    mta_fresh(&world.mta);
    nstory = 0;
    story[0] = 0;
    judgements = commits = refusals = 0;
    waiting = NULL;
    return 0;
}

static int nothing_left(void **state)
{
    (void)state;
    return living == 0 && world.worker.sessions == 0 ? 0 : -1;
}

#define DOOR(test) cmocka_unit_test_setup_teardown(test, fresh, nothing_left)

/* ---- the play ---- */

#define SAY(s) s, sizeof(s) - 1

/* "up" is where clients of 127.0.0.0/8 are trusted. */
__attribute__((unused)) static void open_client(const char *listener)
{
    client_open(&client, &world.worker, &world.mta, world_listener(&world, listener),
                strcmp(listener, "up") == 0, NULL);
}

static void codes_are(const char *expected)
{
    assert_string_equal(client_codes(&client), expected);
}

#endif
