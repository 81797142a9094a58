/* mailbox_test.c - letters arrive once, in order, in the owner's loop, whoever posts them. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mailbox.h"

enum { POSTERS = 4, EACH = 5000 };

struct parcel {
    struct letter letter; /* first */
    int from, number;
};
static struct {
    struct event_base *base;
    struct mailbox *box;
    pthread_t owner;
    int seen[POSTERS];
    int total, wanted;
} post;

static void parcel_open(struct letter *l)
{
    struct parcel *p = (struct parcel *)l;
    assert_true(pthread_equal(pthread_self(), post.owner));
    assert_int_equal(post.seen[p->from], p->number);
    post.seen[p->from]++;
    if (++post.total == post.wanted)
        event_base_loopbreak(post.base);
    free(p);
}

static struct letter *parcel(int from, int number)
{
    struct parcel *p = calloc(1, sizeof *p);
    *p = (struct parcel){{NULL, parcel_open}, from, number};
    return &p->letter;
}

static void *poster(void *arg)
{
    int from = (int)((int *)arg - post.seen);
    for (int i = 0; i < EACH; i++)
        mailbox_post(post.box, parcel(from, i));
    return NULL;
}

static void open_post(int wanted)
{
    memset(&post, 0, sizeof post);
    post.base = event_base_new();
    post.box = mailbox_new(post.base);
    post.owner = pthread_self();
    assert_ptr_equal(mailbox_base(post.box), post.base);
    post.wanted = wanted;
}

static void close_post(void)
{
    mailbox_free(&post.box);
    assert_null(post.box);
    event_base_free(post.base);
}

static void nothing_is_opened_inside_post(void **state)
{
    (void)state;
    open_post(3);
    for (int i = 0; i < 3; i++)
        mailbox_post(post.box, parcel(0, i));
    assert_int_equal(post.total, 0);
    event_base_dispatch(post.base);
    assert_int_equal(post.total, 3);
    close_post();
}

static void many_threads_one_owner(void **state)
{
    (void)state;
    pthread_t t[POSTERS];
    open_post(POSTERS * EACH);
    for (int i = 0; i < POSTERS; i++)
        pthread_create(&t[i], NULL, poster, &post.seen[i]);
    event_base_dispatch(post.base);
    for (int i = 0; i < POSTERS; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(post.total, POSTERS * EACH);
    close_post();
}

/* A letter that posts itself again must let the loop have its turn. */
static int rounds;
static void again(struct letter *l)
{
    if (++rounds < 3)
        mailbox_post(post.box, l);
}

static void a_letter_may_be_posted_anew_while_open(void **state)
{
    (void)state;
    struct letter l = {NULL, again};
    open_post(0);
    rounds = 0;
    mailbox_post(post.box, &l);
    for (int i = 1; i <= 3; i++) {
        event_base_loop(post.base, EVLOOP_ONCE);
        assert_int_equal(rounds, i);
    }
    close_post();
}

static void free_opens_what_is_inside(void **state)
{
    (void)state;
    open_post(2);
    mailbox_post(post.box, parcel(1, 0));
    mailbox_post(post.box, parcel(1, 1));
    close_post();
    assert_int_equal(post.total, 2);
    struct mailbox *none = NULL;
    mailbox_free(&none);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_opened_inside_post),
        cmocka_unit_test(many_threads_one_owner),
        cmocka_unit_test(a_letter_may_be_posted_anew_while_open),
        cmocka_unit_test(free_opens_what_is_inside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
