/*
 * mailbox.c - how threads talk: a list under a mutex and an eventfd that wakes the owner's loop.
 *
 *   any thread: post -> [letter][letter][letter] -> eventfd -> owner's loop: open, open, open
 *
 * Invariant: the eventfd is signalled exactly when the list goes from empty to not empty, and the
 * owner takes the whole list at once; so a thousand letters posted together cost one wake-up.
 */
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "mailbox.h"

struct mailbox {
    struct event_base *base;
    pthread_mutex_t lock;
    struct letter *first, **end; /* end: where the next letter is hung */
    struct event *event;
    int fd;
};

/* All letters that are there now, in order. */
static struct letter *mailbox_take(struct mailbox *m)
{
    pthread_mutex_lock(&m->lock);
    struct letter *list = m->first;
    m->first = NULL;
    m->end = &m->first;
    pthread_mutex_unlock(&m->lock);
    return list;
}

/* A letter is its opener's: it may be freed or posted anew while it is open. */
static void letters_open(struct letter *list)
{
    while (list) {
        struct letter *next = list->next;
        list->next = NULL;
        list->open(list);
        list = next;
    }
}

/* Letters posted while we open these wake us again: the loop gets its turn in between. */
static void mailbox_wake(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    eventfd_t n;
    (void)eventfd_read(fd, &n); /* before taking: a later post signals again */
    letters_open(mailbox_take(arg));
}

struct mailbox *mailbox_new(struct event_base *base)
{
    struct mailbox *m = calloc(1, sizeof *m);
    if (!m || pthread_mutex_init(&m->lock, NULL))
        abort();
    m->base = base;
    m->end = &m->first;
    m->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (m->fd < 0)
        abort();
    m->event = event_new(base, m->fd, EV_READ | EV_PERSIST, mailbox_wake, m);
    if (!m->event || event_add(m->event, NULL))
        abort();
    return m;
}

struct event_base *mailbox_base(const struct mailbox *m)
{
    return m->base;
}

/*
 * Signals inside the lock: as soon as the owner could see the letter without us holding the lock,
 * it might open it, be done and free the mailbox under our feet.
 */
void mailbox_post(struct mailbox *m, struct letter *l)
{
    l->next = NULL;
    pthread_mutex_lock(&m->lock);
    bool empty = m->first == NULL;
    *m->end = l;
    m->end = &l->next;
    if (empty)
        (void)eventfd_write(m->fd, 1);
    pthread_mutex_unlock(&m->lock);
}

bool mailbox_open(struct mailbox *m)
{
    struct letter *list = mailbox_take(m);
    bool any = list != NULL;
    letters_open(list);
    return any;
}

void mailbox_free(struct mailbox **mp)
{
    struct mailbox *m = *mp;
    if (!m)
        return;
    while (mailbox_open(m))
        ;
    *mp = NULL;
    event_free(m->event);
    close(m->fd);
    pthread_mutex_destroy(&m->lock);
    free(m);
}
